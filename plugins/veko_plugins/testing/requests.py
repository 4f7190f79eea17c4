"""Malformed requests to a plugin's routes: none of them may be a failure of the plugin."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .asgi import App, Closed, WebSocket, request

__all__ = ["malformed"]

_PARAMETER: Final = re.compile(r"\{[^}]*\}")
_VALUES: Final = ("0", "-1", "x", "%00", "%F0%9F%92%A5", "a" * 2_000)
_JSON: Final = {"content-type": "application/json"}
_BODIES: Final[tuple[tuple[bytes, dict[str, str]], ...]] = (
    (b"", {}),
    (b"{", _JSON),
    (b"null", _JSON),
    (b"[]", _JSON),
    (b'{"unknown": [1, {"deep": null}]}', _JSON),
    (b"\xff\xfe", _JSON),
    (b"\x00\x01", {"content-type": "application/octet-stream"}),
    (b"a=1&a=2", {"content-type": "application/x-www-form-urlencoded"}),
    (b"--x\r\n", {"content-type": "multipart/form-data; boundary=x"}),
)
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


async def malformed(app: App, routes: Iterable[tuple[str, str]]) -> list[str]:
    """Send malformed requests to routes; return those that were answered as a failure.

    Args:
        app: The application.
        routes: The method and the path of each, as they were registered.
    """
    problems: list[str] = []
    for method, path in routes:
        for value in _VALUES if _PARAMETER.search(path) else _VALUES[:1]:
            url = _PARAMETER.sub(value, path)
            if method == "WEBSOCKET":
                problems += await _socket(app, url)
                continue
            for body, headers in _BODIES[:1] if method in _WITHOUT_BODY else _BODIES:
                problems += await _one(app, method, url, body, headers)
        if method in _WITHOUT_BODY:
            problems += await _one(app, method, f"{_PARAMETER.sub('1', path)}?=&a&%FF=%00", b"", {})
    return problems


async def _one(app: App, method: str, url: str, body: bytes, headers: dict[str, str]) -> list[str]:
    shown = f"{method} {url if len(url) < 80 else url[:77] + '…'}"
    if body:
        shown += f" with {body.decode('latin-1')!r} as {headers['content-type']}"
    try:
        answer = await request(app, method, url, body, headers)
    except TimeoutError:
        return [f"{shown}: no answer"]
    return [f"{shown}: {answer.status}"] if answer.status >= 500 or not answer.status else []


async def _socket(app: App, url: str) -> list[str]:
    try:
        async with WebSocket(app, url, timeout=2) as socket:
            await socket.send("{")
            await socket.send(b"\xff\x00")
    except Closed as closed:
        failed = closed.code == 1011 or (closed.status or 0) >= 500
        return [f"WEBSOCKET {url}: {closed}"] if failed else []
    except TimeoutError:
        return [f"WEBSOCKET {url}: no answer to the handshake"]
    return []
