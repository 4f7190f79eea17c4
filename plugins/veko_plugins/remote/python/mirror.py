"""What the plugin registers in the worker, registered at the host in the same order.

The worker's registry is the list of what there is. After `load()`, after `activate()`, and with
each change later, what is new is sent to the host and what has gone is removed there.

Cost: a pass over what the plugin has registered, per change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from veko import Subscription, VekoError
from veko.extend import Entry

from ...commands import Command
from ...http import SOCKET, Route
from .calls import Calls
from .commands import command_call
from .hooks import hook_call
from .neighbours import described

__all__ = ["CROSSING", "Mirror", "Note"]

Note = Callable[..., None]
"""Sends a note to the host."""


class Mirror:
    """Keeps the host's registrations like the worker's.

    Args:
        calls: Makes the functions that the host calls.
        note: Sends a note to the host.
    """

    def __init__(self, calls: Calls, note: Note) -> None:
        self._calls = calls
        self._note = note
        self._numbers: dict[Entry, int] = {}
        self._last = 0

    def update(self, held: Mapping[Entry, object]) -> None:
        """Send what is new, and remove what has gone.

        Args:
            held: The entries that the plugin has registered, in order.

        Raises:
            VekoError: Something cannot cross.
        """
        for entry in [one for one in self._numbers if one not in held]:
            self._note("remove", self._numbers.pop(entry))
        for entry in held:
            if entry not in self._numbers and entry.kind in CROSSING:
                self._last += 1
                self._numbers[entry] = self._last
                CROSSING[entry.kind](self, entry, self._last)

    def _route(self, entry: Entry, number: int) -> None:
        route: Route = entry.value
        call = self._calls.route(entry)
        options = {
            "middlewares": [self._calls.middleware(fn, entry.owner) for fn in route.middlewares]
        }
        if route.method == SOCKET:
            self._note("add_websocket", number, route.path, call, options)
        else:
            self._note("add_route", number, route.method, route.path, call, options)

    def _middleware(self, entry: Entry, number: int) -> None:
        call = self._calls.middleware(entry.value, entry.owner)
        self._note("add_middleware", number, call, entry.priority)

    def _hook(self, entry: Entry, number: int) -> None:
        subscription: Subscription = entry.value
        options = {
            "priority": subscription.priority,
            "timeout": subscription.timeout,
            "observe": subscription.observes,
        }
        self._note("hook", number, subscription.event, hook_call(self._calls, entry), options)

    def _command(self, entry: Entry, number: int) -> None:
        command: Command = entry.value
        call, usage = command_call(command)
        self._note("add_command", number, command.name, call, command.description, usage)

    def _service(self, entry: Entry, number: int) -> None:
        try:
            descriptor = described(entry.value)
        except VekoError as error:
            error.plugin = entry.owner.name
            raise
        self._note("provide", number, str(entry.key), descriptor)


CROSSING: Final[dict[str, Callable[[Mirror, Entry, int], None]]] = {
    "route": Mirror._route,
    "middleware": Mirror._middleware,
    "hook": Mirror._hook,
    "pattern": Mirror._hook,
    "command": Mirror._command,
    "service": Mirror._service,
}
"""The kinds of registrations that cross the border."""
