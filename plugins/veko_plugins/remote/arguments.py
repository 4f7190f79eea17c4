"""Arguments: what crosses the border to a worker, and what comes back as the host's own.

Requests, responses, routes and plugins cross as marks with a copy of what they say. A hook answers
with the changes that it made to the copies, which are made to the originals here.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veko import Origin, PluginRecord, Stop
from veko.errors import HookError

from ..http import Request, Response, Route, WebSocket
from .protocol import RemoteFunction, is_plain
from .python.kinds import Marked
from .requests import (
    change_request,
    change_response,
    request_value,
    response_of,
    response_value,
    take_state,
)
from .sockets import socket_value

if TYPE_CHECKING:
    from .life import Life

__all__ = ["Hooked", "crossing", "info_of", "plain"]

_log: Final = logging.getLogger("veko")
_CROSS: Final = (bytes, datetime.datetime, datetime.date, set, frozenset, RemoteFunction)


def info_of(record: PluginRecord, *, config: bool = False) -> dict[str, Any]:
    """Return what a worker may know of a plugin."""
    manifest = record.manifest
    info: dict[str, Any] = {
        "name": record.name,
        "version": record.version,
        "description": manifest.description,
        "type": manifest.type or "generic",
        "state": str(record.state),
        "loaded": record.loaded,
        "active": record.active,
    }
    if config:
        info["config"] = plain(record.config)
    return info


def plain(value: object) -> Any:
    """Return a value as data that can cross.

    Raises:
        TypeError: It is none.
    """
    if is_plain(value) or isinstance(value, _CROSS):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_text)
    except RecursionError as error:
        raise TypeError("it is nested too deeply") from error


def _text(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    raise TypeError(f"{type(value).__name__} cannot be sent to another process")


class Hooked:
    """The arguments of one hook of a worker, there and back.

    Args:
        life: The generation that has the hook.
        event: The event that it hooks.
    """

    def __init__(self, life: Life, event: str) -> None:
        self._life = life
        self._event = event
        self._warned = False

    async def sent(self, args: Sequence[Any]) -> list[Any]:
        """Return the arguments as they cross."""
        return [await self._sent(one) for one in args]

    async def _sent(self, value: Any) -> Any:
        if value is None or isinstance(value, str | int | float | bool):
            return value
        if isinstance(value, Request):
            return await request_value(value)
        if isinstance(value, Response):
            return Marked("response", response_value(value))
        if isinstance(value, PluginRecord):
            return Marked("plugin", info_of(value))
        if isinstance(value, BaseException):
            return value
        if isinstance(value, Origin):
            return await self._origin(value)
        if isinstance(value, WebSocket) and self._life.is_python:
            return socket_value(self._life, value)
        if isinstance(value, WebSocket):
            return {"url": value.scope["path"], "path": value.path}
        if isinstance(value, Route):
            return {"method": value.method, "path": value.path, "plugin": value.plugin}
        try:
            return plain(value)
        except TypeError as error:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "%s: an argument of %s stays behind, its hook gets null: %s",
                    self._life.name,
                    self._event,
                    error,
                )
            return None

    async def _origin(self, origin: Origin) -> Any:
        subject = origin.subject
        request = await request_value(subject) if isinstance(subject, Request) else None
        if not self._life.is_python:
            return request
        facts = {name: getattr(origin, name) for name in ("plugin", "event", "handler", "part")}
        return facts | {"counts": origin.counts, "subject": request}

    def received(self, answer: Any, args: Sequence[Any]) -> Any:
        """Make the changes that a hook answers with; return what it returned.

        Raises:
            Stop: It stopped the chain.
            HookError: The answer is malformed.
        """
        if not isinstance(answer, list) or not 2 <= len(answer) <= 3:
            raise HookError(
                f"the process of {self._life.name} answered a hook with something else than a "
                "value and changes",
                plugin=self._life.name,
                event=self._event,
            )
        value, changes = answer[0], answer[1]
        if isinstance(changes, list):
            for original, change in zip(args, changes, strict=False):
                if isinstance(change, Marked):
                    self._change(original, change)
        value = self._value(value, args[0] if args else None)
        if len(answer) == 3 and answer[2] is True:
            raise Stop(value)
        return value

    @staticmethod
    def _change(original: Any, change: Marked) -> None:
        if change.kind == "request" and isinstance(original, Request):
            change_request(original, change.value)
        elif change.kind == "response" and isinstance(original, Response):
            change_response(original, change.value)
        elif change.kind == "socket" and isinstance(original, WebSocket):
            take_state(original, _state_in(change.value))

    def _value(self, value: Any, first: Any) -> Any:
        if not isinstance(value, Marked):
            return value
        if value.kind == "request" and isinstance(first, Request):
            change_request(first, value.value)
            return first
        if value.kind == "response":
            if isinstance(first, Response):
                change_response(first, value.value)
                return first
            return response_of(value.value)
        return None


def _state_in(changes: object) -> object:
    return changes.get("state") if isinstance(changes, Mapping) else None


async def crossing(value: Any, what: str) -> Any:
    """Return what a function of the host answered, as it crosses.

    Raises:
        TypeError: It cannot cross; the message names what answered.
    """
    if isinstance(value, Request):
        return await request_value(value)
    if isinstance(value, Response):
        return Marked("response", response_value(value))
    if isinstance(value, PluginRecord):
        return Marked("plugin", info_of(value))
    if callable(value) and not isinstance(value, type):
        return value
    try:
        return plain(value)
    except TypeError as error:
        raise TypeError(f"{what} returned what cannot cross to another process: {error}") from None
