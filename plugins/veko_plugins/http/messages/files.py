"""Files as responses: read in threads, in chunks, and only the part that the client needs.

Creating one costs a `stat`, so that a missing file is a 404 and not half an answer; the file is
opened when it is sent. A client that has the file, or asks for a part, gets a 304 or a 206 (RFC
9110, sections 13 and 14: `If-None-Match`, `If-Modified-Since`, one `Range`, `If-Range`). At most
`CHUNK` bytes of it are in memory, whatever its size.
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
    """A response that sends a file, and answers range and conditional requests.

    Args:
        path: The path of the file.
        root: The folder that the file must be in. Pass it when `path` comes from the client: the
            path is resolved below it, links included, and a file outside of it is not found.
        filename: The name under which browsers save the file; without it they show the file.
        headers: A mapping, or pairs of name and value where names repeat.
        media_type: The media type; guessed from the file's name by default.

    Raises:
        HTTPError: 404 if there is no such file, 403 if it cannot be read.
        ValueError: The name or value of a header is not valid.
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
        """Send the file, or the part that the client asks for, as an ASGI application."""
        if not hasattr(send, "deliver") and self.stream is self._own and self.status == 200:
            self._choose(scope["method"], Headers(list(scope["headers"])))
        await super().__call__(scope, receive, send)

    def _choose(self, method: str, asked: Headers) -> None:
        """Decide how much of the file to send."""
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
        """Return whether the client has this version of the file."""
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
        """Select one range of the file; an invalid range is ignored."""
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
        """Yield the selected part of the file in chunks."""
        opened: list[FileIO] = []
        left = self._length

        def read() -> bytes:
            # Kept before anything can fail: the task that waits for the thread may be cancelled.
            if not opened:
                opened.append(FileIO(self._path))
                opened[0].seek(self._start)
            return opened[0].read(min(CHUNK, left)) or b""

        try:
            while left:
                chunk = await anyio.to_thread.run_sync(read)
                if not chunk:
                    raise RouteError(
                        f"{self._path} became shorter while it was sent",
                        remedy="Replace files by renaming, instead of writing into them.",
                    )
                left -= len(chunk)
                yield chunk
        finally:
            for file in opened:
                file.close()


def _find(path: Path, root: str | os.PathLike[str] | None) -> tuple[Path, os.stat_result]:
    """Return the path of a file and its `stat`."""
    try:
        if root is not None:
            folder = Path(root).resolve()
            path = folder.joinpath(path).resolve()
            if not path.is_relative_to(folder):
                raise HTTPError(404)
        found = path.stat()
    except (OSError, ValueError, RuntimeError):  # missing, a NUL in the path, a loop of links
        raise HTTPError(404) from None
    if not stat.S_ISREG(found.st_mode):
        raise HTTPError(404)
    if not os.access(path, os.R_OK):
        raise HTTPError(403)
    return path, found
