"""Log records of Python workers: what the host makes of them, and which levels workers have.

Frames of a worker are untrusted: whatever it sends, the record is one of its own plugin.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from veko import Context

__all__ = ["levels_of", "log_record"]

_LONGEST: Final = 16_000
_TRACE: Final = 33_000
_HIGHEST: Final = 1_000
_DAY: Final = 86_400.0
_RESERVED: Final = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "plugin", "origin", "veko", "sink",
     "printed", "traced", "veko_plugin", "trace_id", "span_id", "otelTraceID", "otelSpanID")
)  # fmt: skip


def log_record(plugin: str, given: tuple[Any, ...]) -> None:
    """Log a record that a worker sent, unless its level is off or it makes no sense.

    Args:
        plugin: The name of the plugin.
        given: Level, logger, message, time, traceback, fields, and the call in which it was made.
    """
    if len(given) != 7:
        return
    level, name, message, created, trace, fields, _ = given
    logger = logging.getLogger(f"veko.plugin.{plugin}")
    if not isinstance(level, int) or not 0 < level <= _HIGHEST:
        level = logging.INFO
    if not logger.isEnabledFor(level):
        return
    extra = {"plugin": plugin, "origin": _origin(str(name)[:200], logger.name)}
    if isinstance(fields, Mapping):
        extra |= {str(k)[:100]: v for k, v in fields.items() if k not in _RESERVED}
    record = logger.makeRecord(
        logger.name, level, "", 0, "%s", (str(message)[:_LONGEST],), None, extra=extra
    )
    if isinstance(created, float) and abs(created - time.time()) < _DAY:
        record.created = created
        record.msecs = created % 1 * 1000
    if trace:
        record.exc_text = str(trace)[:_TRACE]
    logger.handle(record)


def levels_of(context: Context, plugin: str) -> dict[str, int]:
    """Return the levels of a worker's loggers.

    The plugin's own modules have the plugin's level; others have that of warnings or a higher one,
    unless the settings name them.

    Args:
        context: A context of this kernel.
        plugin: The plugin that the worker runs.
    """
    level = logging.getLogger(f"veko.plugin.{plugin}").getEffectiveLevel()
    levels = {
        "": max(level, logging.WARNING),
        "veko_generation": level,
        f"veko.plugin.{plugin}": level,
    }
    service = context.kernel.registry.get("service", "logging")
    named = getattr(service.value, "logger_levels", None) if service is not None else None
    return levels | (named() if named is not None else {})


def _origin(name: str, own: str) -> str:
    """Return the logger of a record, as seen from the plugin's own."""
    if name == own:
        return ""
    if name.startswith("veko_generation."):
        return ".".join(name.split(".")[2:])
    return name
