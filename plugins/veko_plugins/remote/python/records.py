"""Log records of a worker, which go to the host with all that they have.

The host writes them: to the plugin's logger, in its format, to its files. So levels are decided
there too; the host says which they are, so that what it would drop is not sent.

Cost: a record that is sent is packed once; a level that is off costs what it costs in any process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import Mapping
from typing import Any, Final

from ..protocol import Connection
from .verbs import shown

__all__ = ["ToHost", "set_levels"]

_TEXT: Final = 16_000
_TRACE: Final = 32_000
_OWN: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "veko_plugin"))
_set: dict[str, int] = {}


def set_levels(levels: object) -> None:
    """Set the levels of loggers as the host has them."""
    if not isinstance(levels, Mapping):
        return
    wanted = {str(name): level for name, level in levels.items() if isinstance(level, int)}
    for name in _set.keys() - wanted.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    _set.clear()
    _set.update(wanted)
    for name, level in wanted.items():
        logging.getLogger(name).setLevel(level)


class ToHost(logging.Handler):
    """Sends records to the host.

    Args:
        connection: The connection to it.
        otherwise: Gets the records that cannot be sent.
    """

    def __init__(self, connection: Connection, otherwise: logging.Handler) -> None:
        super().__init__()
        self._connection = connection
        self._otherwise = otherwise
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._sending = False

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, from any thread."""
        try:
            packed = self._packed(record)
            # One that is logged while another is sent, by a signal handler or `__del__`, waits.
            if threading.get_ident() == self._thread and not self._sending:
                self._send(record, packed)
            else:
                self._loop.call_soon_threadsafe(self._send, record, packed)
        except Exception:  # the loop has ended, or a value's `__str__` raises
            self._otherwise.handle(record)

    def _send(self, record: logging.LogRecord, packed: tuple[Any, ...]) -> None:
        self._sending = True
        try:
            self._connection.note("record", *packed)
        except Exception:  # the host is gone, or it is too large
            self._otherwise.handle(record)
        finally:
            self._sending = False

    def _packed(self, record: logging.LogRecord) -> tuple[Any, ...]:
        try:
            message = record.getMessage()
        except Exception as why:
            message = f"{record.msg!r} (not formatted: {type(why).__name__}: {why})"
        error = record.exc_info[1] if record.exc_info else None
        text = record.exc_text or ""
        if error is not None:
            text = "".join(traceback.format_exception(error))
        if record.stack_info:
            text = f"{text}\n{record.stack_info}".lstrip()
        fields = {key: shown(value) for key, value in record.__dict__.items() if key not in _OWN}
        return (
            record.levelno, record.name, _cut(message, _TEXT), record.created, _cut(text, _TRACE),
            fields, self._connection.current,
        )  # fmt: skip


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
