"""Source to code, remembered by content: never by time, so two edits in one second both count.

A source file has one cache file, named after its path; it holds the digest of the source that it
was made of, the outline (see `_outline`) and the code. An edit overwrites it, so the folder stays
as large as the sources are many; a source that is edited while this runs is written by the next
process that imports it. Without a folder nothing is remembered and nothing is written.

Cost: a hit reads the source and its cache file and takes a digest (some 25 µs); what a scan has
read ahead costs one `stat`. `benchmarks/loading.py` measures it beside its limit.
Promise: a cache file that is torn, foreign or of another Python counts as none; one that cannot
be written is done without.
"""

from __future__ import annotations

import ast
import hashlib
import marshal
import os
import sys
import tempfile
import time
import zlib
from importlib.util import MAGIC_NUMBER, decode_source
from pathlib import Path
from types import CodeType
from typing import Final, NamedTuple, cast

from veko import LoadError

from .outline import outline_fields

__all__ = ["MAX_SOURCE", "Compiled", "SourceCache", "read_source"]

MAX_SOURCE: Final = 10 * 2**20
_TAG: Final = b"%b %d %d\0" % (MAGIC_NUMBER, sys.flags.optimize, 2)
_DIGEST: Final = 16
_VERSION: Final = sys.implementation.cache_tag or "python"
_TICK: Final = 2_500_000_000


class Compiled(NamedTuple):
    """A source as it was read and what became of it."""

    source: bytes
    fields: dict[str, object] | None
    code: bytes | CodeType

    def get_code(self) -> CodeType:
        """Return the code, unmarshalled if it came from the cache."""
        code = self.code
        return cast(CodeType, marshal.loads(code)) if isinstance(code, bytes) else code


def read_source(path: str, limit: int = MAX_SOURCE) -> tuple[bytes, os.stat_result]:
    """Read a whole source file.

    Returns:
        Its bytes, and its state before they were read.

    Raises:
        LoadError: It cannot be read, or is larger than `limit` bytes.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (Path.open costs 4 µs more)
            state = os.fstat(file.fileno())
            if state.st_size <= limit:
                return file.readall(), state
    except OSError as error:
        raise LoadError(
            f"the source cannot be read: {error.strerror or error}",
            step="import",
            path=path,
            remedy="Check that the file is there and that this user may read it.",
        ) from error
    raise LoadError(
        f"the source has {state.st_size:,} bytes, {limit:,} are allowed",
        step="import",
        path=path,
        remedy="Keep data in files of its own, or raise the option `max_source_size`.",
    )


class SourceCache:
    """Compiles sources, and remembers the outcome in a folder.

    Args:
        folder: Where cache files lie; made when the first is written. `None`: nowhere.
        max_source: The largest source that is read, in bytes.
    """

    def __init__(self, folder: Path | None = None, *, max_source: int = MAX_SOURCE) -> None:
        self.folder = folder
        self.max_source = max_source
        self._prefix = None if folder is None else f"{folder}{os.sep}"
        self._ahead: dict[str, tuple[Compiled, os.stat_result | None]] = {}
        self._seen: dict[str, bytes] = {}

    def ahead(self, path: str) -> dict[str, object] | None:
        """Return what a source says of its plugin, and keep its code for `compile`.

        Raises:
            LoadError: It cannot be read.
            SyntaxError, ValueError: It is not Python.
        """
        source, state = read_source(path, self.max_source)
        settled = _settled(state)
        compiled = self._compile(path, source)
        self._ahead[path] = compiled, settled
        return compiled.fields

    def compile(self, path: str, source: bytes | None = None) -> Compiled:
        """Read and compile a source as it is now, or as it was.

        Args:
            path: The file.
            source: What it held, if that is to be compiled instead.

        Raises:
            LoadError: It cannot be read.
            SyntaxError, ValueError: It is not Python.
        """
        if source is not None:
            return self._compile(path, source)
        compiled, then = self._ahead.pop(path, (None, None))
        if compiled is not None and then is not None:
            try:
                if _same(os.stat(path), then):  # noqa: PTH116
                    return compiled
            except OSError:
                pass  # reading it says why
        source, _ = read_source(path, self.max_source)
        if compiled is not None and compiled.source == source:
            return compiled
        return self._compile(path, source)

    def forget(self) -> None:
        """Let go of what `ahead` kept."""
        self._ahead.clear()

    def _compile(self, path: str, source: bytes) -> Compiled:
        if self._prefix is None:
            return _fresh(path, source)
        place = os.fsencode(path)
        # Two paths of one name and checksum would share a file and compile anew by turns.
        stem = path.rpartition(os.sep)[2]
        file = f"{self._prefix}{stem}.{zlib.crc32(place):08x}.{_VERSION}"
        digest = hashlib.blake2b(b"%b%b\0%b" % (_TAG, place, source), digest_size=_DIGEST).digest()
        try:
            with open(file, "rb", buffering=0) as cached:  # noqa: PTH123
                data = cached.readall()
        except OSError:
            data = b""
        if data[:_DIGEST] == digest:
            body = memoryview(data)[_DIGEST + 4 :]
            # Unmarshalling a torn file can crash the interpreter, hence the checksum.
            if zlib.crc32(body) == int.from_bytes(data[_DIGEST : _DIGEST + 4], "little"):
                fields, code = marshal.loads(body)
                return Compiled(source, fields, code)
        compiled = _fresh(path, source)
        if self._seen.setdefault(path, digest) != digest:
            return compiled  # an edit while this runs: writing it would hold up the loop
        try:
            made = marshal.dumps((compiled.fields, marshal.dumps(compiled.code)))
        except ValueError:  # a field holds what marshal cannot write
            return compiled
        self._write(file, digest + zlib.crc32(made).to_bytes(4, "little") + made)
        return compiled

    def _write(self, file: str, data: bytes) -> None:
        """Write beside and rename, so that a reader finds all of it or nothing."""
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".new")
        except OSError:
            return
        try:
            with os.fdopen(handle, "wb") as new:
                new.write(data)
            os.replace(temporary, file)  # noqa: PTH105
        except OSError:
            Path(temporary).unlink(missing_ok=True)


def _settled(state: os.stat_result) -> os.stat_result | None:
    """Return the state if any later edit must show in it, else `None`.

    A clock tick (or, on old file systems, two seconds) after the last change, an edit gets
    another time stamp; within it, it may not, as git knows of its index. `st_ctime` cannot be
    set back by a tool that restores `st_mtime`.
    """
    changed = max(state.st_mtime_ns, state.st_ctime_ns)
    return state if time.time_ns() - changed > _TICK else None


def _same(now: os.stat_result, then: os.stat_result) -> bool:
    return (
        now.st_mtime_ns == then.st_mtime_ns
        and now.st_ctime_ns == then.st_ctime_ns
        and now.st_size == then.st_size
        and now.st_ino == then.st_ino
    )


def _fresh(path: str, source: bytes) -> Compiled:
    try:
        decode_source(source)  # the parser lets stray bytes in comments pass
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise SyntaxError(f"the file is not UTF-8: {error}", (path, line, None, None)) from None
    tree = ast.parse(source, path)
    fields = outline_fields(tree)
    return Compiled(source, fields, compile(tree, path, "exec", dont_inherit=True))
