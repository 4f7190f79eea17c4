"""Files as responses: read in threads, in pieces, and only what the client still lacks.

Making one costs a `stat`, so that a file which is not there is a 404 and not half an answer; it is
opened when it is sent. Of a file that somebody has already, or of which they want a part, only the
304 or the 206 goes out (RFC 9110, sections 13 and 14: `If-None-Match`, `If-Modified-Since`, one
`Range`, `If-Range`). No more than `CHUNK` bytes of it are in memory, whatever its size.
"""

from __future__ import annotations

import mimetypes
import os
import re
import stat
from collections.abc import AsyncIterator, Iterable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from io import FileIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio.to_thread

from veko.errors import RouteError

from .asgi import ASGISend, Receive, Scope
from .headers import Headers
from .problem import HTTPError
from .response import Response

__all__ = ["CHUNK", "FileResponse"]

CHUNK: Final = 256 * 1024
"""Bytes that are read at a time."""

_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.ASCII)


class FileResponse(Response):
    """A file that is sent back.

    Args:
        path: Where it is.
        root: The folder that it must be in, for a path that a client gave: it is resolved below
            this folder, links and all, and what lies outside is not found.
        filename: The name to save it under, which makes it a download; without, it is shown.
        headers: Headers; what could begin another header is refused.
        media_type: The media type; guessed from the name if left out.

    Raises:
        HTTPError: 404 if there is no such file, 403 if it cannot be read.
        ValueError: A header is not fit to be sent.
    """

    __slots__ = ("_length", "_own", "_path", "_size", "_start")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        media_type: str | None = None,
    ) -> None:
        self._path, found = _find(Path(path), root)
        self._size = self._length = found.st_size
        self._start = 0
        pairs: Any = headers.items() if isinstance(headers, Mapping) else headers or ()
        given: list[tuple[str, str]] = list(pairs)
        if media_type is None and not any(name.lower() == "content-type" for name, _ in given):
            guessed, encoding = mimetypes.guess_type(self._path.name)
            media_type = None if encoding else guessed
            media_type = media_type or "application/octet-stream"
        self._own = self._chunks()
        super().__init__(self._own, headers=given, media_type=media_type)
        for name, value in (
            ("content-length", str(self._size)),
            ("last-modified", formatdate(found.st_mtime, usegmt=True)),
            ("etag", f'"{found.st_mtime_ns:x}-{self._size:x}"'),
            ("accept-ranges", "bytes"),
        ):
            self.headers.setdefault(name, value)
        if filename is not None:
            name = quote(filename, safe="")
            self.headers["content-disposition"] = f"attachment; filename*=UTF-8''{name}"

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Send it, or what the client wants of it, as an ASGI application."""
        if not hasattr(send, "deliver") and self.stream is self._own and self.status == 200:
            self._choose(scope["method"], Headers(list(scope["headers"])))
        await super().__call__(scope, receive, send)

    def _choose(self, method: str, asked: Headers) -> None:
        """Find out how much of the file the client wants."""
        if method not in {"GET", "HEAD"}:
            return
        if self._known(asked):
            self.status = 304
            self.headers.pop("content-length", None)
        elif method == "GET" and (part := _RANGE.fullmatch(asked.get("range", ""))):
            if "if-range" in asked and asked["if-range"] not in self._validators():
                return
            self._cut(part[1], part[2])

    def _known(self, asked: Headers) -> bool:
        """Tell whether the client has this very file."""
        etag, modified = self._validators()
        if "if-none-match" in asked:
            tags = [tag.strip().removeprefix("W/") for tag in asked["if-none-match"].split(",")]
            return tags == ["*"] or (bool(etag) and etag.removeprefix("W/") in tags)
        since = asked.get("if-modified-since")
        if not since or not modified:
            return False
        try:
            return parsedate_to_datetime(modified) <= parsedate_to_datetime(since)
        except (TypeError, ValueError, OverflowError):
            return False

    def _validators(self) -> tuple[str, str]:
        return self.headers.get("etag", ""), self.headers.get("last-modified", "")

    def _cut(self, first: str, last: str) -> None:
        """Take one range of the file; one that is none is as if nobody had asked for it."""
        if not first and not last:
            return
        if first:
            start = int(first)
            end = min(int(last) + 1, self._size) if last else self._size
            if last and int(last) < start:
                return
        else:
            start, end = max(0, self._size - int(last)), self._size
        if start >= end:
            self.status = 416
            self.body = b""
            self.headers["content-range"] = f"bytes */{self._size}"
            return
        self.status = 206
        self._start, self._length = start, end - start
        self.headers["content-range"] = f"bytes {start}-{end - 1}/{self._size}"
        self.headers["content-length"] = str(self._length)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Give the file in pieces, as much of it as was promised."""
        opened: list[FileIO] = []
        left = self._length

        def read() -> bytes:
            # It is kept before anything can fail: who waits for the thread may be cancelled.
            if not opened:
                opened.append(FileIO(self._path))
                opened[0].seek(self._start)
            return opened[0].read(min(CHUNK, left)) or b""

        try:
            while left:
                chunk = await anyio.to_thread.run_sync(read)
                if not chunk:
                    raise RouteError(f"{self._path} became shorter while it was sent")
                left -= len(chunk)
                yield chunk
        finally:
            for file in opened:
                file.close()


def _find(path: Path, root: str | os.PathLike[str] | None) -> tuple[Path, os.stat_result]:
    """Return a file and what the system says of it."""
    try:
        if root is not None:
            folder = Path(root).resolve()
            path = folder.joinpath(path).resolve()
            if not path.is_relative_to(folder):
                raise HTTPError(404)
        found = path.stat()
    except (OSError, ValueError, RuntimeError):  # not there, a NUL in it, a circle of links
        raise HTTPError(404) from None
    if not stat.S_ISREG(found.st_mode):
        raise HTTPError(404)
    if not os.access(path, os.R_OK):
        raise HTTPError(403)
    return path, found
