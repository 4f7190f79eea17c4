"""What keeps the messages to one subject until they are taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError

__all__ = ["Inbox"]


class Inbox:
    """The messages of a subscription. The client's own `next_msg` costs a task for each.

    Args:
        client: The connection.

    Attributes:
        consumer: The name of the consumer that sends them, if there is one.
        arrived: The messages that are not taken yet.
        wake: Set when there is one, or the connection was lost.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.consumer: str | None = None
        self.arrived: deque[Msg] = deque()
        self.wake = asyncio.Event()

    async def take(self, message: Msg) -> None:
        """Keep a message; one with a status is from the server itself."""
        if not (message.headers and message.headers.get("Status")):
            self.arrived.append(message)
            self.wake.set()

    async def wait(self, seconds: float) -> bool:
        """Return whether there is a message, after waiting for one.

        Raises:
            ConnectionClosedError: The connection was lost.
        """
        if not self.arrived:
            self.wake.clear()
            if self._client.is_connected:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self.wake.wait()
            if not self._client.is_connected:
                raise ConnectionClosedError
        return bool(self.arrived)
