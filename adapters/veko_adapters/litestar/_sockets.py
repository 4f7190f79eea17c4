"""Litestar's own WebSocket handlers and listeners, behind our table.

They speak ASGI with the socket of the hooks, so every message passes the hooks. Litestar's errors
are translated; one before the handshake refuses it with its status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar.exceptions import (
    HTTPException,
    LitestarException,
    WebSocketDisconnect,
    WebSocketException,
)
from litestar.routes import WebSocketRoute
from veko_plugins.http import REQUEST, ASGISend, Receive, Scope, SocketClosed, WebSocket

from .._undecodable import refusal
from ._endpoints import DECODERS, Stack

__all__ = ["SocketStack", "sockets_of"]


class SocketStack(Stack):
    """The endpoint of a Litestar WebSocket route."""

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        socket: WebSocket = scope[REQUEST]
        try:
            await self._run(self._inner(scope), receive, send)
        except HTTPException as error:
            raise self._translate(error) from error
        except WebSocketDisconnect as error:
            raise SocketClosed(socket.code or error.code, socket.reason) from None
        except WebSocketException as error:
            await socket.close(error.code, error.detail)
        except (LitestarException, ValueError, RecursionError) as error:
            refused = refusal(error, *DECODERS)
            if refused is error:
                raise
            raise refused from error


def sockets_of(routes: Sequence[Any]) -> list[WebSocketRoute]:
    """Return the WebSocket routes among those of a router."""
    return [route for route in routes if isinstance(route, WebSocketRoute)]
