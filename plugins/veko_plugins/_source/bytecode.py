"""The cache of compiled sources: by content, never by time, so two edits in one second both count.

Each source file has one cache file, named after its path. It holds the digest of the source, the
outline (see `outline`) and the code. An edit overwrites it, so the folder does not grow with edits.
The code of a source that is edited while the process runs is written by the next process. Without a
folder nothing is cached.

Sources of other languages are cached as the code of the Python that was made of them. Their digest
covers what made it, so another version of a transpiler counts like an edit.

Cost: a hit reads the source and its cache file and computes a digest (some 25 µs); a source that a
scan has read ahead costs one `stat`. `benchmarks/loading.py` measures it beside its limit.
Promise: a cache file that is damaged, foreign or of another Python is not used; a folder that
cannot be written to is ignored.
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

from .._lib.private_files import private_folder
from .._lib.regular_files import open_regular
from .outline import outline_fields
from .transpilers import PYTHON, Python, Transpilers

__all__ = ["MAX_SOURCE", "Compiled", "SourceCache", "read_source"]

MAX_SOURCE: Final = 10 * 2**20
_TAG: Final = b"%b %d %d\0" % (MAGIC_NUMBER, sys.flags.optimize, 2)
_DIGEST: Final = 16
_VERSION: Final = sys.implementation.cache_tag or "python"
_TICK: Final = 2_500_000_000


class Compiled(NamedTuple):
    """A source as it was read, with its manifest fields and its code."""

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
        Its bytes, and its status before they were read.

    Raises:
        LoadError: It cannot be read, is not a regular file, or is larger than `limit` bytes.
    """
    try:
        file, state = open_regular(path)
        with file:
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
    """Compiles sources, and caches the code in a folder.

    Args:
        folder: The folder for cache files, created with the first one; `None` for no cache.
        max_source: The largest source that is read, in bytes.

    Attributes:
        transpilers: What makes Python of other languages; `None` if there is only Python.
    """

    def __init__(self, folder: Path | None = None, *, max_source: int = MAX_SOURCE) -> None:
        self.transpilers: Transpilers | None = None
        self.folder = folder
        self.max_source = max_source
        self._prefix = None if folder is None else f"{folder}{os.sep}"
        self._ahead: dict[str, tuple[Compiled, os.stat_result | None]] = {}
        self._seen: dict[str, bytes] = {}

    def ahead(self, path: str) -> dict[str, object] | None:
        """Return the manifest fields in a source, and keep its code for `compile`.

        Returns:
            `None` if they are not certain, or the source has to be transpiled first.

        Raises:
            LoadError: It cannot be read.
            SyntaxError, ValueError: It is not Python.
        """
        source, state = read_source(path, self.max_source)
        if not path.endswith(PYTHON):
            found = self.find(path, source)
            return None if found is None else found.fields
        settled = _settled(state)
        compiled = self._compile(path, source)
        self._ahead[path] = compiled, settled
        return compiled.fields

    def read_ahead(self, path: str) -> bytes:
        """Return the source that `ahead` has read; empty if it has read none."""
        kept = self._ahead.get(path)
        return b"" if kept is None else kept[0].source

    def compile(self, path: str, source: bytes | None = None) -> Compiled:
        """Read and compile a source.

        Args:
            path: The file.
            source: The content to compile, if the file is not to be read.

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
                pass  # reading it raises the error that explains why
        source, _ = read_source(path, self.max_source)
        if compiled is not None and compiled.source == source:
            return compiled
        return self._compile(path, source)

    def forget(self) -> None:
        """Release the code that `ahead` kept."""
        self._ahead.clear()

    def find(self, path: str, source: bytes) -> Compiled | None:
        """Return what a source of any language was compiled to before; `None` if nobody knows."""
        location = self._locate(path, source)
        return None if location is None else _cached(*location, source)

    def keep(self, path: str, source: bytes, python: Python) -> Compiled:
        """Compile the Python that was made of a source, and cache its code.

        Args:
            path: The file of the source.
            source: Its content.
            python: What it was made of it.

        Raises:
            SyntaxError, ValueError: It is not Python after all; the line is that of the source.
        """
        text = source.decode("utf-8", "replace")
        compiled = _compiled(python.tree(text, path), source, path)
        location = self._locate(path, source)
        if location is not None:
            self._store(*location, compiled)
        return compiled

    def _compile(self, path: str, source: bytes) -> Compiled:
        location = self._locate(path, source)
        if location is None:
            return _fresh(path, source)
        found = _cached(*location, source)
        if found is not None:
            return found
        compiled = _fresh(path, source)
        digest = location[1]
        if self._seen.setdefault(path, digest) == digest:
            self._store(*location, compiled)
        return compiled  # if edited while the process runs: writing it would block the loop

    def _locate(self, path: str, source: bytes) -> tuple[str, bytes] | None:
        """Return the cache file of a source, and the digest of what it was made of."""
        if self._prefix is None:
            return None
        identity: bytes | None = b""
        if not path.endswith(PYTHON):
            identity = self.transpilers.identity(path) if self.transpilers is not None else None
        if identity is None:
            return None
        encoded = os.fsencode(path)
        # Two paths with the same name and checksum share a file, and each compiles every time.
        stem = path.rpartition(os.sep)[2]
        file = f"{self._prefix}{stem}.{zlib.crc32(encoded):08x}.{_VERSION}"
        digest = hashlib.blake2b(
            b"%b%b%b\0%b" % (_TAG, identity, encoded, source), digest_size=_DIGEST
        ).digest()
        return file, digest

    def _store(self, file: str, digest: bytes, compiled: Compiled) -> None:
        try:
            made = marshal.dumps((compiled.fields, marshal.dumps(compiled.code)))
        except ValueError:  # marshal cannot write the value of a field
            return
        self._write(file, digest + zlib.crc32(made).to_bytes(4, "little") + made)

    def _write(self, file: str, data: bytes) -> None:
        """Write a temporary file and rename it, so that readers find all of it or nothing."""
        assert self.folder is not None
        try:
            private_folder(self.folder)
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
    """Return the status if it is certain that a later edit changes it, else `None`.

    An edit within one clock tick of the last change (two seconds on old file systems) may leave
    the time stamp as it is; git's index has the same problem. `st_ctime` cannot be set back by a
    tool that restores `st_mtime`.
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
        decode_source(source)  # the parser accepts invalid bytes in comments
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise SyntaxError(f"the file is not UTF-8: {error}", (path, line, None, None)) from None
    except (LookupError, UnicodeError) as error:
        # `# coding: rot13` names a codec that gives no text; others fail in ways of their own.
        raise SyntaxError(f"its encoding: {error}", (path, 1, None, None)) from None
    return _compiled(ast.parse(source, path), source, path)


def _compiled(tree: ast.Module, source: bytes, path: str) -> Compiled:
    fields = outline_fields(tree)
    return Compiled(source, fields, compile(tree, path, "exec", dont_inherit=True))


def _cached(file: str, digest: bytes, source: bytes) -> Compiled | None:
    """Return what a cache file holds, if it holds the code of that source."""
    try:
        cached, _ = open_regular(file)
        with cached:
            data = cached.readall()
    except OSError:
        return None
    if data[:_DIGEST] != digest:
        return None
    body = memoryview(data)[_DIGEST + 4 :]
    # Unmarshalling a damaged file can crash the interpreter, hence the checksum.
    if zlib.crc32(body) != int.from_bytes(data[_DIGEST : _DIGEST + 4], "little"):
        return None
    fields, code = marshal.loads(body)
    return Compiled(source, fields, code)
