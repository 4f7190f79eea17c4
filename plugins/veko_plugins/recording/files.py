"""Recordings as files: one entry a line, each with its own checksum.

A line is a CRC-32 in hexadecimal, a space and JSON. The first entry has the format and its version,
the last says how many there are. So a file that was cut short is read up to the cut, and a damaged
line is found; everything before it is good.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from veko import VekoError

from .._lib.private_files import create_private, private_folder
from .entries import (
    FORMAT,
    VERSION,
    Command,
    Emission,
    End,
    Entry,
    Failure,
    Header,
    Loaded,
    Request,
    Socket,
    Step,
    Stimulus,
    Task,
)

__all__ = ["Recording", "RecordingError", "read_recording", "write_recording"]

_LONGEST: Final = 16 * 2**20
_LINE: Final = re.compile(rb"([0-9a-f]{8}) (.*)", re.DOTALL)
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
_decode: Final = msgspec.json.Decoder(
    Header | Loaded | Emission | Command | Task | Step | Request | Socket | Failure | End
).decode


class RecordingError(VekoError):
    """A recording cannot be written, read or replayed; the message names the file."""


class Recording(msgspec.Struct, frozen=True):
    """A recording that was read.

    Attributes:
        path: The file.
        header: Its first entry.
        plugins: The plugins, in the order in which they were loaded.
        entries: All other entries.
        cut: What the file lacks, in a sentence; `None` if it is complete.
    """

    path: Path
    header: Header
    plugins: list[Loaded]
    entries: list[Entry]
    cut: str | None = None

    @property
    def failures(self) -> list[Failure]:
        """The failures that count, the oldest first."""
        return [one for one in self.entries if isinstance(one, Failure) and one.counts]

    def ancestors(self, entry: Entry) -> list[Entry]:
        """Return the entries inside which an entry happened, the innermost first."""
        by_number = {one.number: one for one in self.entries}
        found: list[Entry] = []
        parent = entry.parent
        while parent in by_number and by_number[parent] not in found:
            found.append(by_number[parent])
            parent = found[-1].parent
        return found

    @property
    def stimuli(self) -> list[Stimulus]:
        """What came from outside, in order: nothing that the plugins themselves have caused."""
        numbers = {one.number for one in self.entries}
        return [
            one for one in self.entries if isinstance(one, Stimulus) and one.parent not in numbers
        ]


def write_recording(
    path: Path, header: Header, plugins: Iterable[Loaded], entries: Iterable[Entry]
) -> int:
    """Write a recording; return how many entries it has.

    Args:
        path: The file, which must not exist; missing folders are created.
        header: Its first entry.
        plugins: The plugins.
        entries: The entries.

    Raises:
        RecordingError: It cannot be written; what was written is removed, to free its space.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        private_folder(path.parent)
        try:
            with os.fdopen(create_private(temporary), "wb", 1 << 16) as file:
                count = 0
                for one in itertools.chain((header,), plugins, entries):
                    file.write(_line(one))
                    count += 1
                file.write(_line(End(count)))
            os.link(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise RecordingError(
            f"the recording cannot be written: {error.strerror or error}",
            path=path,
            remedy="Free some space, or set another `folder` in [plugins.recording].",
        ) from error
    return count


def _line(entry: object) -> bytes:
    data = _encode(entry)
    return b"%08x %b\n" % (zlib.crc32(data), data)


def read_recording(path: str | Path) -> Recording:
    """Read a recording, up to where it is damaged or cut short.

    Raises:
        RecordingError: There is no such file, it is no recording, or one of another version.
    """
    path = Path(path)
    header: Header | None = None
    plugins: list[Loaded] = []
    entries: list[Entry] = []
    cut: str | None = "its end is missing"
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b""), 1):
                if number == 1:
                    header = _header(path, line)
                    continue
                entry = _read_line(line)
                if entry is None:
                    what = "incomplete" if not line.endswith(b"\n") else "damaged"
                    cut = f"line {number} is {what}"
                    break
                if isinstance(entry, End):
                    cut = None if entry.entries == number - 1 else "entries are missing"
                    break
                if isinstance(entry, Loaded):
                    plugins.append(entry)
                elif not isinstance(entry, Header):
                    entries.append(entry)
    except OSError as error:
        raise RecordingError(f"it cannot be read: {error.strerror or error}", path=path) from error
    if header is None:
        raise RecordingError("it is empty, and so no recording", path=path)
    entries.sort(key=lambda one: one.number)
    if cut is not None:
        cut = f"{path} is cut short: {cut}; what comes before was read"
    return Recording(path, header, plugins, entries, cut)


def _header(path: Path, line: bytes) -> Header:
    found = _LINE.fullmatch(line.rstrip(b"\n"))
    fields: object = None
    if found is not None and zlib.crc32(found[2]) == int(found[1], 16):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = msgspec.json.decode(found[2])
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise RecordingError(
            "it is no recording", path=path, remedy="`veko record where` lists recordings."
        )
    version = fields.get("version")
    if version != VERSION:
        raise RecordingError(
            f"it is a recording of format {version}, and this Veko reads format {VERSION}",
            path=path,
            remedy=f"It was made by Veko {fields.get('veko')}: read it with that version.",
        )
    try:
        return msgspec.convert(fields, Header)
    except msgspec.ValidationError as error:
        raise RecordingError(f"its first line is damaged: {error}", path=path) from error


def _read_line(line: bytes) -> Header | Loaded | Entry | End | None:
    found = _LINE.fullmatch(line[:-1]) if line.endswith(b"\n") else None
    if found is None or zlib.crc32(found[2]) != int(found[1], 16):
        return None
    try:
        entry: Header | Loaded | Entry | End = _decode(found[2])
        return entry
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
