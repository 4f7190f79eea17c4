"""How a record looks: a line of text, or a JSON object on one line.

Promise: a record is one line (in text, a traceback follows, indented), of bounded length, without
secrets, and without characters that control a terminal. A record whose message or fields cannot be
formatted is written nevertheless, with the reason.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from veko import LogRecord

from .._lib.tracebacks import folded
from .config import LEVELS
from .values import Shown, cut, one_line, unmarked

__all__ = ["MODULES", "JSONFormatter", "TextFormatter", "level_of", "message_of", "source_of"]

MODULES: Final[dict[str, str]] = {}
"""Plugins by the names of their modules, for `logging.getLogger(__name__)` in plugins."""
_NAMES: Final = {number: name for name, number in LEVELS.items()} | {50: "critical"}
_PLUGIN: Final = "veko.plugin."
_GENERATION: Final = re.compile(r"veko_generation\.(\w+)_\d+(?:\.|$)")
_MESSAGE: Final = 16_384
_TRACE: Final = 32_768
_IDS: Final = ("trace_id", "span_id")
# What is no field of a record's: what logging itself sets, what Veko and OpenTelemetry add.
_OWN: Final = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "veko", "veko_plugin",
     "veko_fields", "plugin", "origin", "printed", "traced", "sink", "color_message",
     "trace_id", "span_id", "otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName"),
)  # fmt: skip


class TextFormatter(logging.Formatter):
    """Formats a record as `14:03:07 warning links  no such code  code=abc`, plus its traceback.

    Args:
        dated: Whether the date is shown.
        traced: Whether tracebacks are shown.
        folds: Whether Veko's own frames are left out of them.
        fields: Fields of every record, such as the worker's number.
    """

    def __init__(
        self,
        *,
        dated: bool = True,
        traced: bool = True,
        folds: bool = False,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.dated = dated
        self.traced = traced
        self.folds = folds
        self.fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created)
        time = moment.strftime("%Y-%m-%d %H:%M:%S" if self.dated else "%H:%M:%S")
        plugin, logger = source_of(record)
        message = unmarked(cut(message_of(record), _MESSAGE))
        level = one_line(level_of(record))
        parts = [f"{time} {level:<8}{one_line(plugin or logger)}", one_line(message)]
        shown = _fields_of(record)
        if plugin and logger:
            shown.setdefault("logger", logger)
        for key, value in (shown | self.fields | _ids_of(record)).items():
            parts.append(
                f"{one_line(key)}={one_line(value if isinstance(value, str) else _json(value))}"
            )
        line = "  ".join(parts)
        traced = self.traced or getattr(record, "traced", False)
        trace = _trace(record, folds=self.folds) if traced else ""
        # Indented, so that no line of an exception's message can pass for a record.
        return "\n    ".join((line, *map(one_line, trace.splitlines())))


class JSONFormatter(logging.Formatter):
    """Formats a record as a JSON object on one line.

    It has the time, level, plugin (and the logger, if that is not the plugin's), message, details,
    fields, the error, and the ids of trace and span if the record has them.

    Args:
        folds: Whether Veko's own frames are left out of tracebacks.
        fields: Fields of every record, such as the worker's number.
    """

    def __init__(self, *, folds: bool = False, fields: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self.folds = folds
        self.fields = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": level_of(record),
        }
        plugin, logger = source_of(record)
        if plugin:
            entry["plugin"] = plugin
        if logger:
            entry["logger"] = logger
        entry["message"] = unmarked(cut(message_of(record), _MESSAGE))
        if self.fields:
            entry |= self.fields
        entry |= _ids_of(record)
        for key, value in _fields_of(record).items():
            entry.setdefault(key, value)
        trace = _trace(record, folds=self.folds)
        if trace:
            entry["error"] = trace
        return _json(entry)


def level_of(record: logging.LogRecord) -> str:
    """Return the name of a record's level as in `context.log`."""
    return _NAMES.get(record.levelno) or str(record.levelname).lower()


def source_of(record: logging.LogRecord) -> tuple[str, str]:
    """Return the plugin that logged a record, and the logger if it is not the plugin's own."""
    name = str(record.name)
    if name.startswith(_PLUGIN):
        plugin = getattr(record, "plugin", None) or name[len(_PLUGIN) :]
        return str(plugin), str(getattr(record, "origin", ""))
    if name.startswith("veko_generation."):
        found = _GENERATION.match(name)
        if found is not None:
            return MODULES.get(found[1], found[1]), name[found.end() :]
    return "", name


def message_of(record: logging.LogRecord) -> str:
    """Return the message of a record, without details."""
    logged = getattr(record, "veko", None)
    if isinstance(logged, LogRecord):
        return str(logged.message)
    message: object = record.msg
    try:
        if isinstance(message, Mapping) and "event" in message and not record.args:
            return str(message["event"])  # structlog's, with wrap_for_formatter
        text = record.getMessage()
    except Exception as error:  # the arguments do not fit, or a value's __str__ raises
        return f"{Shown().value(message)} (not formatted: {type(error).__name__}: {error})"
    if record.name == "py.warnings":
        first, _, code = text.rstrip().rpartition("\n  ")
        return first if first and "\n" not in code else text.rstrip()
    return text


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return details and fields of a record, showable."""
    logged = getattr(record, "veko", None)
    if isinstance(logged, LogRecord):
        found: dict[str, object] = {} if logged.details is None else {"details": logged.details}
        found |= logged.fields
    else:
        own = record.__dict__
        found = {key: own[key] for key in own if key not in _OWN}
        more = own.get("veko_fields")
        if isinstance(more, Mapping):
            found |= more
        if isinstance(record.msg, Mapping) and "event" in record.msg and not record.args:
            found |= {
                str(key): value
                for key, value in record.msg.items()
                if key not in ("event", "level", "timestamp") and not str(key).startswith("_")
            }
    if not found:
        return found
    shown = Shown().value(found)
    return shown if isinstance(shown, dict) else {"fields": shown}


def _ids_of(record: logging.LogRecord) -> dict[str, object]:
    own = record.__dict__
    if own.get("trace_id", "0") == "0":
        return {}
    return {key: own[key] for key in _IDS if isinstance(own.get(key), str)}


def _trace(record: logging.LogRecord, *, folds: bool) -> str:
    """Return the traceback of a record, and its stack; empty if it has none."""
    text = ""
    try:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = folded(error) if folds else "".join(traceback.format_exception(error))
        elif record.exc_text:
            text = record.exc_text
        if record.stack_info:
            text = f"{text}\n{record.stack_info}" if text else record.stack_info
    except Exception as error:
        text = f"the traceback cannot be shown: {type(error).__name__}"
    return unmarked(cut(text.rstrip("\n"), _TRACE)) if text else ""


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=repr).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return json.dumps(value, default=repr)  # slower, but accepts text that is not valid UTF-8
