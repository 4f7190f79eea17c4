"""Flights: of many tasks that want one key, one computes and the others wait.

The first task computes in its own frame, so it keeps its time limit, its trace and its
cancellation. Those that wait get its result, or its error. If the first task is cancelled, one of
those that wait computes in its place, so nobody is left hanging. A wait is bounded: after
`patience` seconds a task that waits computes as well, and the others wait for that one.

Cost: one object for each key that is looked up, an event if somebody waits; nothing stays behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Generic, TypeVar

import anyio

from .errors import CacheError

__all__ = ["Flights"]

_T = TypeVar("_T")
_LEADING: Final[ContextVar[tuple[object, ...]]] = ContextVar("veko_cache_leading", default=())
"""The flights that the running code is part of: waiting for one of them would never end."""


class _Flight(Generic[_T]):
    __slots__ = ("error", "over", "trace", "value")

    def __init__(self) -> None:
        self.over: anyio.Event | None = None  # made by the first that waits
        self.value: list[_T] = []
        self.error: Exception | None = None
        self.trace: TracebackType | None = None


class Flights(Generic[_T]):
    """The computations that run in this process.

    Args:
        patience: Seconds that a task waits for another's computation at most.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._flights: dict[str, _Flight[_T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: str, compute: Callable[[], Awaitable[_T]]) -> _T:
        """Return what a computation returns, this one or the one that runs for this key.

        Raises:
            CacheError: The caller is part of the computation for this key.
            Exception: What the computation raised; one object for all that waited.
        """
        while (flight := self._flights.get(key)) is not None:
            if flight in _LEADING.get():
                raise CacheError(
                    f"the computation of {key!r} waits for itself",
                    remedy="Do not ask for a key while computing it.",
                )
            if flight.over is None:
                flight.over = anyio.Event()
            with anyio.move_on_after(self._patience):
                await flight.over.wait()
            if flight.value:
                return flight.value[0]
            if flight.error is not None:
                # Each raises it from where the computation did: without the trace, the frames of
                # all that wait would pile up in it.
                raise flight.error.with_traceback(flight.trace)
            if not flight.over.is_set() and self._flights.get(key) is flight:
                break  # its time is over; the others find ours in its place
        return await self._lead(key, compute)

    async def _lead(self, key: str, compute: Callable[[], Awaitable[_T]]) -> _T:
        flight = self._flights[key] = _Flight[_T]()
        token = _LEADING.set((*_LEADING.get(), flight))
        try:
            value = await compute()
        except Exception as error:
            if flight.over is not None:
                flight.error, flight.trace = error, error.__traceback__
            raise
        else:
            flight.value.append(value)
            return value
        finally:
            # Also if it was cancelled: then there is neither value nor error, and the next one
            # leads. Held by test_when_the_first_is_cancelled_another_computes.
            _LEADING.reset(token)
            if self._flights.get(key) is flight:
                del self._flights[key]
            if flight.over is not None:
                flight.over.set()
