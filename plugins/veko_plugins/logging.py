"""Logging: handlers for the records of plugins, for applications that ask for them.

The idea: the kernel's `context.log` writes to the standard library's loggers `veko.plugin.<name>`
and fires `log`. This plugin has handlers for these (a readable console, a rotated file, as text or
JSON), and touches nothing until `configure` is called: the logging of a process belongs to the
application.

Cost: nothing until configured; then one formatted line for each record.
Promise: the handlers and the level are removed at unload. A record is one line whatever was logged,
since control characters are escaped. Values under keys that look like secrets, and passwords in
URLs, are not written. A log file is created for this user alone; one that exists keeps its mode,
also when it is rotated.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import re
import stat
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import msgspec

from veko import LogRecord, OptionError, Plugin

from ._lib.masking import masked_text, masked_value
from ._lib.private_files import open_private, private_folder
from ._lib.tracebacks import folded

if TYPE_CHECKING:
    from veko import Context

__all__ = ["LEVELS", "JSONFormatter", "Logging", "TextFormatter", "message_of"]

LEVELS: Final = {"debug": 10, "info": 20, "success": 25, "warning": 30, "error": 40}
_NAMES: Final = {number: name for name, number in LEVELS.items()} | {50: "critical"}
_STYLES: Final = {
    "debug": "dim",
    "success": "green",
    "warning": "yellow",
    "error": "bold red",
    "critical": "bold red",
}
_PLUGIN: Final = "veko.plugin."
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Logging(Plugin):
    """The core plugin of log handlers; the service `logging` is this object."""

    name = "logging"
    version = "2.0.0"
    description = "Console and file handlers for the records of plugins"
    core = True

    def __init__(self) -> None:
        self._handlers: list[logging.Handler] = []
        self._former_level: int | None = None

    def load(self, context: Context) -> None:
        context.provide("logging", self)

    def unload(self) -> None:
        self.reset()

    def configure(
        self,
        level: str | int = "info",
        file: Path | str | None = None,
        format: Literal["text", "json"] = "text",
        *,
        stream: TextIO | None = None,
        traced: bool = False,
        max_bytes: int = 10_000_000,
        backups: int = 5,
    ) -> None:
        """Write the records of Veko and its plugins to the console, and to a file if one is given.

        Calling it again replaces the earlier configuration.

        Args:
            level: `debug`, `info`, `success`, `warning`, `error`, or a number of the standard
                library's logging. At `debug` tracebacks are whole; else Veko's frames are folded.
            file: A file to append to and rotate; its folder is created if it is missing.
            format: Whether a record is one line of text or one JSON object.
            stream: The console; standard error by default.
            traced: Whether the console shows tracebacks; at `debug` it always does. The file
                always has them.
            max_bytes: The size in bytes at which the file is rotated; 0 means never.
            backups: How many rotated files are kept.

        Raises:
            OptionError: The level or format is unknown, or the file cannot be written.
        """
        number = _level(level)
        if format not in ("text", "json"):
            raise OptionError(f"log format {format!r} is unknown", remedy="Use 'text' or 'json'.")
        whole = number <= LEVELS["debug"]
        text = TextFormatter(dated=False, traced=traced or whole, folds=not whole)
        console = JSONFormatter(folds=not whole) if format == "json" else text
        handlers = [_console(stream or sys.stderr, console)]
        if file is not None:
            handlers.append(_file(Path(file), max_bytes, backups))
            dated = TextFormatter(folds=not whole)
            handlers[-1].setFormatter(console if format == "json" else dated)
        self.reset()
        logger = logging.getLogger("veko")
        self._former_level = logger.level
        self._handlers = handlers
        logger.setLevel(number)
        for handler in handlers:
            logger.addHandler(handler)

    def reset(self) -> None:
        """Remove what `configure` set up."""
        logger = logging.getLogger("veko")
        if self._former_level is not None:
            logger.setLevel(self._former_level)
            self._former_level = None
        while self._handlers:
            handler = self._handlers.pop()
            logger.removeHandler(handler)
            handler.close()


class TextFormatter(logging.Formatter):
    """Formats a record as `14:03:07 warning links  no such code  code=abc`, plus its traceback.

    Args:
        dated: Whether the date is shown.
        traced: Whether tracebacks are shown.
        folds: Whether Veko's own frames are left out of them.
    """

    def __init__(self, *, dated: bool = True, traced: bool = True, folds: bool = False) -> None:
        super().__init__()
        self.dated = dated
        self.traced = traced
        self.folds = folds

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created)
        time = moment.strftime("%Y-%m-%d %H:%M:%S" if self.dated else "%H:%M:%S")
        parts = [f"{time} {level_of(record):<8}{plugin_of(record)}", _one_line(message_of(record))]
        parts += [f"{key}={_one_line(_text(value))}" for key, value in _extras(record).items()]
        line = "  ".join(parts)
        trace = _trace(self, record) if self.traced else ""
        return masked_text(f"{line}\n{trace}" if trace else line)


class JSONFormatter(logging.Formatter):
    """Formats a record as a JSON object on one line.

    It has the time, level, plugin, message, details, fields, the error, and the ids of trace and
    span if the record has them.

    Args:
        folds: Whether Veko's own frames are left out of tracebacks.
    """

    def __init__(self, *, folds: bool = False) -> None:
        super().__init__()
        self.folds = folds

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": level_of(record),
            "plugin": plugin_of(record),
            "message": masked_text(message_of(record)),
        }
        for key, value in _extras(record).items():
            entry.setdefault(key, value)
        for key in ("trace_id", "span_id"):
            found = getattr(record, key, "0")
            if found != "0":
                entry.setdefault(key, found)
        trace = _trace(self, record)
        if trace:
            entry["error"] = masked_text(trace)
        return _json(entry)


def _trace(formatter: TextFormatter | JSONFormatter, record: logging.LogRecord) -> str:
    """Return the traceback of a record; empty if it has none."""
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    if formatter.folds:
        return folded(record.exc_info[1])
    return formatter.formatException(record.exc_info)


def level_of(record: logging.LogRecord) -> str:
    """Return the name of a record's level as in `context.log`."""
    return _NAMES.get(record.levelno, record.levelname.lower())


def plugin_of(record: logging.LogRecord) -> str:
    """Return the name of the plugin that logged a record, or that of its logger."""
    return record.name.removeprefix(_PLUGIN)


def message_of(record: logging.LogRecord) -> str:
    """Return the message of a record, without details."""
    logged = getattr(record, "veko", None)
    return logged.message if isinstance(logged, LogRecord) else record.getMessage()


def _extras(record: logging.LogRecord) -> dict[str, object]:
    """Return details and fields of a record, with secrets masked."""
    logged = getattr(record, "veko", None)
    if not isinstance(logged, LogRecord):
        return {}
    found = {} if logged.details is None else {"details": logged.details}
    return {key: masked_value(value, key) for key, value in (found | logged.fields).items()}


def _text(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=repr).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return json.dumps(value, default=repr)  # slower, but accepts text that is not valid UTF-8


def _one_line(text: str) -> str:
    """Escape characters that could fake another line or control a terminal."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def _level(level: str | int) -> int:
    if isinstance(level, int):
        return level
    number = LEVELS.get(level.lower())
    if number is None:
        near = difflib.get_close_matches(level.lower(), LEVELS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of {', '.join(LEVELS)}."
        raise OptionError(f"log level {level!r} is unknown", remedy=hint)
    return number


class _PrivateFile(RotatingFileHandler):
    """A log file with mode 0600, or the one that its predecessor was given."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=open_private)

    def doRollover(self) -> None:  # noqa: N802
        mode = Path(self.baseFilename).stat().st_mode
        super().doRollover()
        with contextlib.suppress(OSError):  # another user's file, in a folder that we may write to
            Path(self.baseFilename).chmod(stat.S_IMODE(mode))


def _file(path: Path, max_bytes: int, backups: int) -> logging.Handler:
    try:
        private_folder(path.parent)
        handler = _PrivateFile(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
    except OSError as error:
        raise OptionError(
            f"the log file cannot be written: {error.strerror}",
            path=path,
            remedy="Give a file in a folder that can be written to.",
        ) from error
    return handler


def _console(stream: TextIO, formatter: logging.Formatter) -> logging.Handler:
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    if stream.isatty() and isinstance(formatter, TextFormatter):
        try:
            handler = _styled(stream, formatter)
        except ImportError:
            pass
    return handler


def _styled(stream: TextIO, formatter: logging.Formatter) -> logging.Handler:
    """Return a console handler with colours; raises `ImportError` if rich is not installed."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream)

    class Styled(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            style = _STYLES.get(level_of(record), "")
            try:
                console.print(Text(formatter.format(record), style=style), soft_wrap=True)
            except Exception:
                self.handleError(record)

    return Styled()
