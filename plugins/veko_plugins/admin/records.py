"""What is kept in memory while the application runs: the last failures, and the last log records.

Cost: a failure is written as text when it happens, a log record (its message only, unless it has a
traceback) when it is logged; both are bounded, and neither keeps a frame, a module or a plugin
alive. Nothing is done for a hook, a request or an event that succeeds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from veko import Context, Origin
from veko.errors import text_of
from veko.extend import location_of

from .._lib.masking import masked_text
from .._lib.tracebacks import folded
from .documents import ErrorRow, LogRow

__all__ = ["LEVELS", "Errors", "Logs"]

_ERRORS: Final = 20
"""Failures that are kept of each plugin."""
_PLUGINS: Final = 1_000
_LOGS: Final = 1_000
_TEXT: Final = 8_000
"""Characters of a message or a traceback that are kept."""
LEVELS: Final = ("debug", "info", "success", "warning", "error", "critical")


class Errors:
    """The last failures of each plugin."""

    def __init__(self) -> None:
        self._found: dict[str | None, deque[ErrorRow]] = {}

    def load(self, context: Context) -> None:
        """Hook what reports failures."""
        context.hook("error:handle", self._failed, priority=float("inf"), observe=True)

    def of(self, name: str) -> tuple[ErrorRow, ...]:
        """Return the last failures of a plugin, the newest first."""
        return tuple(reversed(self._found.get(name, ())))

    def _failed(self, error: BaseException, origin: Origin) -> None:
        if origin.plugin not in self._found and len(self._found) >= _PLUGINS:
            del self._found[next(iter(self._found))]
        kept = self._found.setdefault(origin.plugin, deque(maxlen=_ERRORS))
        found = location_of(error)
        kept.append(
            ErrorRow(
                time=datetime.now(UTC),
                plugin=origin.plugin,
                event=origin.event,
                handler=origin.part or origin.handler,
                type=type(error).__name__,
                message=masked_text(text_of(error))[:_TEXT],
                file=None if found is None else str(found.path),
                line=None if found is None else found.line,
                traceback=masked_text(folded(error))[:_TEXT],
            )
        )


class Logs(logging.Handler):
    """The last log records of Veko and its plugins, as text."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: deque[LogRow] = deque(maxlen=_LOGS)
        self._next = 1
        self.heard: Callable[[LogRow], object] | None = None

    def start(self) -> None:
        """Keep what is logged from now on."""
        logging.getLogger("veko").addHandler(self)

    def stop(self) -> None:
        """Keep no more."""
        logging.getLogger("veko").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; the caller holds the handler's lock."""
        try:
            message = masked_text(record.getMessage())[:_TEXT]
            trace = None
            if record.exc_info and record.exc_info[1] is not None:
                trace = masked_text(folded(record.exc_info[1]))[:_TEXT]
            row = LogRow(
                id=self._next,
                time=datetime.fromtimestamp(record.created, UTC),
                level=_level(record.levelno),
                logger=record.name,
                plugin=_plugin(record),
                message=message,
                traceback=trace,
            )
        except Exception:  # an argument of the record may raise when it is written
            self.handleError(record)
            return
        self._next += 1
        self._rows.append(row)
        if self.heard is not None:
            self.heard(row)

    def rows(
        self,
        *,
        after: int = 0,
        level: str | None = None,
        plugin: str | None = None,
        limit: int = _LOGS,
    ) -> tuple[LogRow, ...]:
        """Return the last records in their order.

        Args:
            after: Only those with a higher id.
            level: Only those of this level or above.
            plugin: Only those about this plugin.
            limit: How many at most, the newest.
        """
        least = LEVELS.index(level) if level is not None else 0
        with self.lock or _NO_LOCK:
            kept = tuple(self._rows)
        found = [
            row
            for row in kept
            if row.id > after
            and LEVELS.index(row.level) >= least
            and (plugin is None or row.plugin == plugin)
        ]
        return tuple(found[-limit:]) if limit else ()


class _NoLock:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


_NO_LOCK: Final = _NoLock()


def _plugin(record: logging.LogRecord) -> str | None:
    prefix = "veko.plugin."
    if record.name.startswith(prefix):
        return record.name.removeprefix(prefix)
    name = getattr(record, "veko_plugin", None)
    return name if isinstance(name, str) else None


def _level(number: int) -> str:
    for least, name in ((50, "critical"), (40, "error"), (30, "warning"), (25, "success")):
        if number >= least:
            return name
    return "info" if number >= logging.INFO else "debug"
