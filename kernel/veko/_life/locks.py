"""One operation at a time on a plugin, and what it emits when the plugin's lock is free again.

Handlers of what is emitted may operate on the plugins themselves, so nothing is emitted while a
lock is held. An operation costs one lock a plugin and two settings of a context variable.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

from .._bus.bus import Bus
from .._bus.events import Origin
from .generation import Generation, PluginRecord

__all__ = ["Afterwards", "Operation", "alone"]


class Operation:
    """Marks that an operation on some plugins is running in this context.

    Args:
        subjects: The records, or the generation that is being configured.
        afterwards: What the operation emits once its locks are free.
    """

    __slots__ = ("_outer", "_subjects", "_token", "afterwards")

    def __init__(
        self, *subjects: PluginRecord | Generation, afterwards: Afterwards | None = None
    ) -> None:
        self._subjects = subjects
        self.afterwards = afterwards
        self._outer = _OPERATION.get()

    def __enter__(self) -> None:
        self._token = _OPERATION.set(self)

    def __exit__(self, *error: object) -> None:
        # A timer made meanwhile keeps a copy of this context, and with it this mark. Emptied, it
        # neither keeps the plugin alive (test_kernel_leaks.py) nor refuses what the timer does.
        self._subjects, self.afterwards = (), None
        _OPERATION.reset(self._token)

    @staticmethod
    def any() -> bool:
        """Tell whether an operation runs here."""
        operation = _OPERATION.get()
        while operation is not None and not operation._subjects:
            operation = operation._outer
        return operation is not None

    @classmethod
    def on(cls, subject: PluginRecord | Generation) -> Operation | None:
        """Return the operation on this that runs here, if any: another would wait for it."""
        operation = _OPERATION.get()
        while operation is not None and subject not in operation._subjects:
            operation = operation._outer
        return operation


_OPERATION: Final[ContextVar[Operation | None]] = ContextVar("veko_operation", default=None)


class Afterwards:
    """What an operation reports and emits, in order, once the locks are free."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._calls: list[Callable[[], Awaitable[Any]]] = []

    def emit(self, event: str, *args: Any) -> None:
        """Emit an event."""
        self._calls.append(functools.partial(self._bus.emit, event, *args))

    def announce(self, record: PluginRecord, *events: str) -> None:
        """Emit events whose arguments are the plugin's name and the plugin."""
        for event in events:
            self.emit(event, record.name, record)

    def report(self, record: PluginRecord, error: BaseException, *, passing: bool = False) -> None:
        """Report that a plugin failed; `passing` if the step is tried again."""
        handler = f"{record.name}.{getattr(error, 'step', 'load')}"
        report = functools.partial(self._bus.report, error, owner=record, handler=handler)
        self._calls.append(functools.partial(report, passing=passing))

    def stopped(self, record: PluginRecord, error: BaseException) -> None:
        """Emit `error:critical`: the plugin does not run because of this error."""
        origin = Origin(record.name, handler=f"{record.name}.{record.failed_step}")
        self.emit("error:critical", error, origin)

    def configured(self, generation: Generation) -> None:
        """Emit `config:change` for a generation, if it is live by then."""
        self._calls.append(functools.partial(self._configured, generation))

    async def _configured(self, generation: Generation) -> None:
        if generation.record.current is generation:
            await self._bus.emit("config:change", generation.config, generation.record)

    async def run(self) -> None:
        """Do it all."""
        for call in self._calls:
            await call()


@asynccontextmanager
async def alone(bus: Bus, step: str, *records: PluginRecord) -> AsyncIterator[Afterwards]:
    """Hold the locks of plugins, and afterwards emit what the operation left to be emitted.

    Args:
        bus: The bus to emit on.
        step: The name of the operation, for `Bus.intercept_step`.
        records: The plugins, the one that the operation is about first.
    """
    afterwards = Afterwards(bus)
    try:
        async with AsyncExitStack() as stack:
            # By rank: two operations that share plugins take their locks in the same order, or
            # each could hold one and wait for the other's (test_reload_group.py).
            for record in sorted(records, key=_rank):
                await stack.enter_async_context(record.lock)
            mark = Operation(*records, afterwards=afterwards)
            with mark, bus.step(step, records[0]):
                yield afterwards
    finally:
        await afterwards.run()


def _rank(record: PluginRecord) -> int:
    return record.rank
