"""What was emitted on a bus, and waiting for it without sleeping.

The idea: one handler on the pattern `**`, ahead of all others; an interceptor gives it the name of
the event, which handlers do not get.

Cost: a call for each emission. What it has recorded it keeps, with all arguments, until `clear()`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import anyio

from veko import Bus, Handle, Subscription

__all__ = ["BusRecorder", "Emission"]

_PATTERNS: Final = ("**", "*:error", "log")
"""The pattern of everything leaves out failures and log records."""


class Emission(NamedTuple):
    """One emission: the event and its arguments, as they were before any handler ran."""

    event: str
    args: tuple[Any, ...]

    @property
    def value(self) -> Any:
        """The first argument; `None` if there is none."""
        return self.args[0] if self.args else None


class BusRecorder:
    """Records the emissions on a bus, from when it was made.

    Args:
        bus: The bus.
    """

    def __init__(self, bus: Bus) -> None:
        self.emissions: list[Emission] = []
        self._changed = anyio.Event()
        self._handles: list[Handle] = [bus.intercept(self._named)]
        for pattern in _PATTERNS:
            self._handles.append(bus.on(pattern, _seen, priority=math.inf, observe=True))

    def _named(
        self, event: str, subscription: Subscription, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        if subscription.handler is _seen:
            return functools.partial(self._record, event)
        return call

    def _record(self, event: str, *args: Any) -> None:
        self.emissions.append(Emission(event, args))
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def close(self) -> None:
        """Stop recording, and forget what was recorded."""
        for handle in reversed(self._handles):
            handle.cancel()
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded."""
        self.emissions.clear()

    @property
    def events(self) -> list[str]:
        """The names of the events, in the order of their emissions."""
        return [emission.event for emission in self.emissions]

    def __getitem__(self, event: str) -> list[Emission]:
        """Return the emissions of an event."""
        return [emission for emission in self.emissions if emission.event == event]

    def __contains__(self, event: object) -> bool:
        return any(emission.event == event for emission in self.emissions)

    def __iter__(self) -> Iterator[Emission]:
        return iter(tuple(self.emissions))

    def __len__(self) -> int:
        return len(self.emissions)

    async def wait_for(
        self,
        event: str,
        where: Callable[..., object] | None = None,
        *,
        count: int = 1,
        timeout: float = 5.0,
    ) -> Emission:
        """Wait until an event has been emitted; returns at once if it has been already.

        Args:
            event: The event.
            where: Gets the arguments of an emission; returns whether it is one that is meant.
            count: How many emissions there must have been, since the start or `clear()`.
            timeout: The longest time to wait, in seconds.

        Returns:
            The last of these emissions.

        Raises:
            AssertionError: It was not emitted in time; the message says what was.
        """
        with anyio.move_on_after(timeout):
            while True:
                found = [one for one in self[event] if where is None or where(*one.args)]
                if len(found) >= count:
                    return found[count - 1]
                await self._changed.wait()
        seen = ", ".join(self.events[-20:]) or "nothing"
        often = f" {count} times" if count > 1 else ""
        such = " with such arguments" if where is not None else ""
        raise AssertionError(
            f"{event!r} was not emitted{often}{such} within {timeout:g} s; emitted was: {seen}"
        )


def _seen(*args: Any) -> None:
    """Stand for the recorder on the bus; the interceptor puts its own call here."""
