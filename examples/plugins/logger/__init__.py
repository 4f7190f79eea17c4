"""A log of requests and errors, in files of its own: JSON or text, rotated by size and count.

The application's log (`[plugins.logging]`) has what its plugins say. This plugin adds what happens:
one record for each answer, and one for each error of any plugin, with the request that it was
about. Other plugins write to the same files with `context.use("requestlog")`, a logger of the
standard library.

Queries, headers and bodies are not logged, since they may contain secrets.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from veko import Origin
from veko_plugins import CallNext, Context, HTTPError, Request, Response
from veko_plugins.logging import JSONFormatter, TextFormatter, open_log

name = "requestlog"
version = "1.0.0"
description = "Logs requests and errors to rotated files, as JSON or text"

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
BEGIN = "requestlog.begin"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugins.requestlog]`."""

    level: Literal["info", "warning", "error"] = "info"
    file: str = "logs/requests.log"  # below the application's directory
    max_size: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}[kmg]?$")] = "10m"
    max_files: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    format: Literal["json", "text"] = "json"
    console: bool = False  # also in the application's log
    # GET /logs is there if it is set, for requests with `Authorization: Bearer <token>`.
    token: Annotated[str, msgspec.Meta(extra={"secret": True})] = ""
    shown: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100  # the last entries, for GET /logs


config_schema = Settings


class Last(logging.Handler):
    """Keeps the last entries in memory."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.entries: deque[str] = deque(maxlen=most)

    def emit(self, record: logging.LogRecord) -> None:
        self.entries.append(self.format(record))


@asynccontextmanager
async def opened(config: Settings, directory: Path, plugin: str) -> AsyncIterator[logging.Logger]:
    """Open the files and yield a logger; close them when the plugin unloads."""
    handler = open_log(directory / config.file, size(config.max_size), config.max_files - 1)
    handler.setFormatter(JSONFormatter() if config.format == "json" else TextFormatter())
    # A logger of this generation alone: while a reload takes place, there are two.
    logger = logging.Logger(f"veko.plugin.{plugin}", config.level.upper())  # noqa: LOG001
    logger.addHandler(handler)
    if config.console:
        logger.parent = logging.getLogger("veko")
    try:
        yield logger
    finally:
        handler.close()


def size(text: str) -> int:
    """Return the bytes that a text such as `10m` means."""
    number, unit = re.fullmatch(r"(\d+)(\D?)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


async def load(config: Settings, context: Context) -> None:
    directory = Path(context.use("logging").directory or ".")
    logger = await context.enter(opened(config, directory, context.name))
    last = Last(config.shown)
    logger.addHandler(last)
    context.provide("requestlog", logger)

    def begins(request: Request) -> None:
        request.state[BEGIN] = time.perf_counter()

    def ended(request: Request, response: Response) -> None:
        level = logging.INFO if response.status < 500 else logging.ERROR
        fields = {**facts(request), "status": response.status}
        if BEGIN in request.state:
            fields["ms"] = round((time.perf_counter() - request.state[BEGIN]) * 1000, 1)
        text = f"{request.method} {request.path} {response.status}"
        logger.log(level, "%s", text, extra=fields)

    def failed(error: BaseException, origin: Origin) -> None:
        if not origin.counts:  # what a client can cause at will
            return
        where = {"by": origin.plugin, "event": origin.event, "handler": origin.handler}
        fields = {key: value for key, value in where.items() if value is not None}
        if isinstance(origin.subject, Request):
            fields |= facts(origin.subject)
        logger.error("%s: %s", type(error).__name__, error, exc_info=error, extra=fields)

    async def unmatched(request: Request, call_next: CallNext) -> Response:
        """Log answers to requests that match no route: the events of requests leave them out."""
        response = await call_next(request)
        if request.route is None:
            ended(request, response)
        return response

    context.add_middleware(unmatched, priority=1000)
    # `observe`: a log that fails must not refuse requests.
    context.hook("request:start", begins, priority=1000, observe=True)
    context.hook("request:end", ended)
    context.hook("error:handle", failed)

    async def show(request: Request, limit: int = 20) -> Any:
        """Return the last entries, the newest first."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), config.token.encode()):
            raise HTTPError(401, "give the token", headers={"www-authenticate": "Bearer"})
        entries = list(last.entries)[::-1][: max(0, limit)]
        return [msgspec.json.decode(entry) for entry in entries]

    if config.token:
        context.add_route("GET", "/logs", show)
    context.log("success", f"requests are logged to {directory / config.file}")


def facts(request: Request) -> dict[str, Any]:
    """Return what is logged of a request."""
    return {
        "method": request.method,
        "path": request.path,
        "route": request.route.path if request.route is not None else None,
        "client": request.client.host if request.client is not None else None,
        "agent": request.headers.get("user-agent", "")[:200],
    }
