"""What the plugin registers in the worker, registered at the host in the same order.

The worker's registry is the list of what there is. After `load()`, after `activate()`, and with
each change later, what is new is sent to the host and what has gone is removed there.

Cost: a pass over what the plugin has registered, per change.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self

from veko import Handle, Subscription, VekoError
from veko.extend import Entry

from ...commands import Command
from ...http import SOCKET, Route
from .calls import Calls
from .commands import command_call
from .hooks import hook_call
from .neighbours import described

__all__ = ["CROSSING", "Ask", "Mirror", "Note"]

Note = Callable[..., None]
"""Sends a note to the host."""
Ask = Callable[..., Awaitable[Any]]
"""Calls a method of the host."""


class Mirror:
    """Keeps the host's registrations like the worker's.

    What `load()` and `activate()` register goes in notes, before their answer. Later registrations
    are calls, answered when they are live at the host: awaiting their handles waits for that.

    Args:
        calls: Makes the functions that the host calls.
        note: Sends a note to the host.
        ask: Calls a method of the host.

    Attributes:
        late: Whether registrations are calls now.
    """

    def __init__(self, calls: Calls, note: Note, ask: Ask) -> None:
        self._calls = calls
        self._note = note
        self._ask = ask
        self._numbers: dict[Entry, int] = {}
        self._last = 0
        self._landing: dict[Entry, asyncio.Task[None]] = {}
        self.late = False

    def update(self, held: Mapping[Entry, object]) -> None:
        """Send what is new, and remove what has gone.

        Args:
            held: The entries that the plugin has registered, in order.

        Raises:
            VekoError: Something cannot cross.
        """
        for entry in [one for one in self._numbers if one not in held]:
            self._send(entry, ("remove", self._numbers.pop(entry)))
        for entry in held:
            if entry not in self._numbers and entry.kind in CROSSING:
                self._last += 1
                self._numbers[entry] = self._last
                self._send(entry, CROSSING[entry.kind](self, entry, self._last))

    def _send(self, entry: Entry, message: tuple[Any, ...]) -> None:
        if not self.late:
            self._note(*message)
            return
        # Tasks begin in the order in which they are made, so the host sees this order.
        task = asyncio.create_task(self._land(entry, message))
        self._landing[entry] = task
        task.add_done_callback(functools.partial(self._landed, entry))

    async def _land(self, entry: Entry, message: tuple[Any, ...]) -> None:
        try:
            await self._ask(*message)
        except Exception:
            # The host has refused it, and has reported that: it is not registered here either.
            if self._numbers.pop(entry, None) is not None:
                entry.owner.withdraw(entry)
            raise

    def _landed(self, entry: Entry, task: asyncio.Task[None]) -> None:
        # A refusal stays, for those that await the handle later.
        over = task.cancelled() or task.exception() is None
        if over and self._landing.get(entry) is task:
            del self._landing[entry]

    def handle(self, entry: Entry, handle: Handle) -> Handle:
        """Return a handle that also waits until an entry is live at the host."""
        return _Landing(entry, handle, self._landing)

    def _route(self, entry: Entry, number: int) -> tuple[Any, ...]:
        route: Route = entry.value
        call = self._calls.route(entry)
        options = {
            "middlewares": [self._calls.middleware(fn, entry.owner) for fn in route.middlewares]
        }
        if route.method == SOCKET:
            return "add_websocket", number, route.path, call, options
        return "add_route", number, route.method, route.path, call, options

    def _middleware(self, entry: Entry, number: int) -> tuple[Any, ...]:
        call = self._calls.middleware(entry.value, entry.owner)
        return "add_middleware", number, call, entry.priority

    def _hook(self, entry: Entry, number: int) -> tuple[Any, ...]:
        subscription: Subscription = entry.value
        options = {
            "priority": subscription.priority,
            "timeout": subscription.timeout,
            "observe": subscription.observes,
        }
        return "hook", number, subscription.event, hook_call(self._calls, entry), options

    def _command(self, entry: Entry, number: int) -> tuple[Any, ...]:
        command: Command = entry.value
        call, usage = command_call(command)
        return "add_command", number, command.name, call, command.description, usage

    def _service(self, entry: Entry, number: int) -> tuple[Any, ...]:
        try:
            descriptor = described(entry.value)
        except VekoError as error:
            error.plugin = entry.owner.name
            raise
        return "provide", number, str(entry.key), descriptor


class _Landing(Handle):
    """A handle of the worker, and what the host says of the registration."""

    __slots__ = ("_entry", "_handle", "_landing")

    def __init__(
        self, entry: Entry, handle: Handle, landing: Mapping[Entry, asyncio.Task[None]]
    ) -> None:
        super().__init__(handle.cancel)
        self._entry = entry
        self._handle = handle
        self._landing = landing

    async def _wait(self) -> Self:
        await self._handle
        task = self._landing.get(self._entry)
        if task is not None:
            await asyncio.shield(task)
        return self


CROSSING: Final[dict[str, Callable[[Mirror, Entry, int], tuple[Any, ...]]]] = {
    "route": Mirror._route,
    "middleware": Mirror._middleware,
    "hook": Mirror._hook,
    "pattern": Mirror._hook,
    "command": Mirror._command,
    "service": Mirror._service,
}
"""The kinds of registrations that cross the border."""
