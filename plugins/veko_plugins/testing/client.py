"""An HTTP client for a manager, with WebSockets, on its adapter and without a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from .asgi import App, WebSocket

__all__ = ["Client"]


class Client(httpx.AsyncClient):
    """An `httpx.AsyncClient` whose requests go to a manager in this process.

    Args:
        app: The manager as an ASGI application: `manager.asgi`.
        options: Arguments of `httpx.AsyncClient`.
    """

    def __init__(self, app: App, **options: Any) -> None:
        self._veko_app = app
        transport = httpx.ASGITransport(app=app)
        super().__init__(**{"transport": transport, "base_url": "http://test", **options})

    def websocket(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        subprotocols: Iterable[str] = (),
        timeout: float = 10.0,
    ) -> WebSocket:
        """Return a WebSocket: `async with client.websocket("/chat") as socket`.

        It sends the cookies and headers of this client, too.

        Args:
            url: The path, with a query perhaps.
            headers: More headers.
            subprotocols: The subprotocols that are offered.
            timeout: Seconds that an answer may take.
        """
        given = self.build_request("GET", url, headers=headers).headers
        skipped = ("accept", "accept-encoding", "connection")
        pairs = [(name, value) for name, value in given.items() if name not in skipped]
        return WebSocket(
            self._veko_app, url, headers=pairs, subprotocols=subprotocols, timeout=timeout
        )
