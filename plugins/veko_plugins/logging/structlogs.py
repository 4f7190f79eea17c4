"""Events of structlog as records of logging, where an application or a plugin uses structlog.

If nobody has configured structlog, it is configured to log to the standard library's loggers, when
a plugin has imported it. An application's own configuration is not touched: with structlog's
standard-library loggers its events come out in our format too, and with `structlog_settings` those
of any other.

Cost: nothing is imported that nobody has imported before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

__all__ = ["adopt", "release", "structlog_settings"]


def structlog_settings(processors: Iterable[Callable[..., Any]] = ()) -> dict[str, Any]:
    """Return settings for `structlog.configure` with which events become Veko's log records.

    Args:
        processors: The application's own processors, without a renderer.
    """
    import structlog

    return {
        "processors": [
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *processors,
            as_record,
        ],
        "wrapper_class": structlog.stdlib.BoundLogger,
        "logger_factory": structlog.stdlib.LoggerFactory(),
        "cache_logger_on_first_use": False,
    }


def as_record(
    logger: object, name: str, event: MutableMapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Be structlog's last processor: return what a logger of the standard library is called with.

    The fields go into one attribute, since their names may be those of attributes of records.
    """
    message = event.pop("event", "")
    named = {
        key: event.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in event
    }
    if named.get("stack_info") not in (None, True, False):
        named["stack_info"] = bool(named["stack_info"])
    return ("%s", message), {**named, "extra": {"veko_fields": dict(event)}}


def adopt() -> None:
    """Configure structlog, if it has been imported and nobody has configured it."""
    structlog: Any = sys.modules.get("structlog")
    configured = getattr(structlog, "is_configured", None)  # absent while it is being imported
    if configured is not None and not configured():
        structlog.configure(**structlog_settings())


def release() -> None:
    """Undo `adopt`."""
    structlog: Any = sys.modules.get("structlog")
    if structlog is not None and as_record in structlog.get_config()["processors"]:
        structlog.reset_defaults()
