"""What `veko serve` says: lines for people on standard output, or records of the log.

With the log format `json` every line is a record, so standard error has nothing but JSON. With
`text` a line is printed, and a record of it goes to the log file, if there is one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import Final

import rich_click as click

from veko_plugins.logging import JSONFormatter

__all__ = ["Lines", "coloured", "lines"]

_log: Final = logging.getLogger("veko.cli")
_COLOURS: Final = {"warning": "yellow", "error": "red"}
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def coloured(text: str, level: str) -> str:
    """Return a line whose first word has the colour of its level; a pipe gets none."""
    colour = _COLOURS.get(level)
    if colour is None:
        return text
    return re.sub(r"\S+", lambda found: click.style(found[0], fg=colour), text, count=1)


class Lines:
    """How lines are said in this process.

    Attributes:
        json: Whether they are records.
        logged: Whether log handlers are set up; a record without any is printed as JSON.
        fields: Fields of records that are printed without handlers, such as the worker's number.
    """

    def __init__(self) -> None:
        self.json = False
        self.logged = False
        self.fields: dict[str, object] = {}

    def say(
        self,
        text: str,
        level: str = "info",
        *,
        err: bool | None = None,
        error: BaseException | None = None,
        **fields: object,
    ) -> None:
        """Say a line.

        Args:
            text: The line; people see it as it is, a record has it without the spaces around it.
            level: `info`, `warning` or `error`.
            err: Whether people see it on standard error; by default from `warning` on.
            error: The error that a record shows with its traceback.
            fields: Fields of the record.
        """
        if not self.json:
            to_stderr = level != "info" if err is None else err
            # A worker has no context of click's that knows of NO_COLOR.
            colour = False if os.environ.get("NO_COLOR") else None
            click.echo(coloured(text, level), err=to_stderr, color=colour)
        if not (self.json or self.logged):
            return
        record = self._record(text, _LEVELS[level], error, fields)
        if not self.logged:
            click.echo(JSONFormatter(fields=self.fields).format(record), err=True)
        elif _log.isEnabledFor(record.levelno):
            _log.handle(record)

    def last_words(self, text: str) -> None:
        """Write a line to standard error at once, from any thread: the process is being ended."""
        if self.json:
            formatter = JSONFormatter(fields=self.fields)
            text = formatter.format(self._record(text, logging.ERROR, None, {}))
        with contextlib.suppress(OSError):
            os.write(2, f"{text}\n".encode("utf-8", "replace"))

    def _record(
        self, text: str, level: int, error: BaseException | None, fields: dict[str, object]
    ) -> logging.LogRecord:
        message = re.sub(r"^veko: ", "", text.strip())
        trace = None if error is None else (type(error), error, error.__traceback__)
        extra = {**fields, "printed": not self.json}
        return _log.makeRecord(_log.name, level, "", 0, "%s", (message,), trace, extra=extra)


lines: Final = Lines()
"""The lines of this process."""
