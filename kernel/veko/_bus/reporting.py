"""Reporting: what happens to a failure. It is counted, logged once, and emitted."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import anyio

from ..errors import HookTimeout
from .events import Origin
from .failures import summary
from .owners import Owner

__all__ = ["report"]

_log: Final = logging.getLogger("veko")


class Reporting(Protocol):
    """What reporting needs of a bus.

    Attributes:
        reporting: Ids of the tasks in which a failure is being reported.
    """

    reporting: set[int]

    def emit(
        self, event: str, value: Any = ..., *args: Any, strict: bool = ...
    ) -> Coroutine[Any, Any, Any]:
        """Emit an event."""
        ...


async def report(
    bus: Reporting,
    error: BaseException,
    owner: Owner | str | None,
    origin: Origin,
    *,
    passing: bool,
) -> None:
    """Report a failure; see `Bus.report`.

    Args:
        bus: The bus.
        error: What was raised.
        owner: The owner of the code that raised it.
        origin: Where it came from, what it counts against, and whether it counts.
        passing: Whether it is tried again.
    """
    count = getattr(owner, "count_error", None)
    if count is not None and origin.counts:
        count(error)
    text = summary(
        error,
        owner=origin.plugin,
        event=origin.event,
        handler=origin.handler,
        subject=origin.subject,
        source=getattr(owner, "source", None),
    )
    extra = {"veko_plugin": origin.plugin}
    if not origin.counts:
        _log.info("%s It does not count.", text, extra=extra)
    elif passing:
        _log.warning("%s It is tried again.", text, extra=extra)
    else:
        _log.error("%s", text, exc_info=error, extra=extra)
    task = anyio.get_current_task().id
    if task in bus.reporting:
        return
    bus.reporting.add(task)
    try:
        error = await bus.emit("error:handle", error, origin)
        if not origin.counts:
            return
        if isinstance(error, HookTimeout):
            await bus.emit("plugin:timeout", origin.plugin, error)
        await bus.emit("plugin:error", origin.plugin, error)
    finally:
        bus.reporting.discard(task)
