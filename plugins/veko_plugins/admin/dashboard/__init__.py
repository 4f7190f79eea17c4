"""The dashboard: a page and its files, which are built from `dashboard/` and part of the package.

The page shows nothing by itself: it asks the management API, which asks for a token. So its files
are served to everybody who may reach the application.

Cost: nothing until the first request; then the files are read and compressed once, in a thread.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

__all__ = ["ASSETS", "Dashboard"]

ASSETS: Final = Path(__file__).parent / "assets"
"""The folder of the built files."""

PAGE: Final = "/_veko"
_TYPES: Final = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_NAME: Final = re.compile(r'"assets/([\w-]+)(\.\w+)"')
_YEAR: Final = "public, max-age=31536000, immutable"
# Preact and uPlot set styles as properties, never as text, so the strictest policy fits.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
}


class _File(msgspec.Struct, frozen=True):
    plain: bytes
    packed: bytes
    headers: dict[str, str]
    etag: str


class Dashboard:
    """Serves the files of the dashboard.

    Args:
        response: The class of responses.
        folder: The folder of the built files.
    """

    def __init__(self, response: Callable[..., Any], folder: Path = ASSETS) -> None:
        self._response = response
        self._folder = folder
        self._lock = anyio.Lock()
        self._files: dict[str, _File] = {}

    def add(self, add_route: Callable[..., object]) -> None:
        """Add the routes."""
        add_route("GET", PAGE, self._page)
        add_route("GET", f"{PAGE}/assets/{{name}}", self._asset)

    async def _page(self, request: Any) -> Any:
        if not request.path.endswith("/"):
            # The page's addresses are relative to it, so that it works below a mount as well.
            last = PAGE.rpartition("/")[2]
            return self._response(b"", 308, {"location": f"{last}/"})
        return await self._answer(request, "")

    async def _asset(self, request: Any, name: str) -> Any:
        return await self._answer(request, name)

    async def _answer(self, request: Any, name: str) -> Any:
        if not self._files:
            async with self._lock:
                if not self._files:
                    self._files = await anyio.to_thread.run_sync(_read, self._folder)
        file = self._files.get(name)
        if file is None:
            # An old page that asks for a file of before an update: it must not keep the answer.
            return self._response(b"not found\n", 404, {"cache-control": "no-store"})
        asked = request.headers.get("if-none-match", "")
        if file.etag in (tag.strip() for tag in asked.split(",")):
            return self._response(b"", 304, file.headers)
        accepted = request.headers.get("accept-encoding", "").lower().replace(" ", "")
        if any(part in {"gzip", "*"} for part in accepted.split(",")) or "gzip;q=1" in accepted:
            return self._response(file.packed, 200, {**file.headers, "content-encoding": "gzip"})
        return self._response(file.plain, 200, file.headers)


def _read(folder: Path) -> dict[str, _File]:
    """Read the built files; the page, under the empty name, asks for the others by their hashes."""
    files: dict[str, _File] = {}

    def named(found: re.Match[str]) -> str:
        content = folder.joinpath(f"{found[1]}{found[2]}").read_bytes()
        name = f"{found[1]}.{_hash(content)}{found[2]}"
        files[name] = _file(content, _TYPES[found[2]], {"cache-control": _YEAR})
        return f'"assets/{name}"'

    # Libraries that some views load: built under names that say what is in them.
    for path in folder.glob("*.*.js"):
        files[path.name] = _file(path.read_bytes(), _TYPES[".js"], {"cache-control": _YEAR})
    page = _NAME.sub(named, folder.joinpath("index.html").read_text("utf-8"))
    files[""] = _file(
        page.encode(),
        "text/html; charset=utf-8",
        {
            "cache-control": "no-cache",
            "content-security-policy": _POLICY,
            "cross-origin-opener-policy": "same-origin",
            "permissions-policy": "camera=(), geolocation=(), microphone=()",
            "x-frame-options": "DENY",
        },
    )
    return files


def _file(content: bytes, media_type: str, headers: dict[str, Any]) -> _File:
    etag = f'W/"{_hash(content)}"'  # weak: it stands for the compressed form as well
    return _File(
        content,
        gzip.compress(content, 9, mtime=0),
        {"content-type": media_type, "etag": etag, **_HEADERS, **headers},
        etag,
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
