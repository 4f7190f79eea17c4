"""Answers 429 to clients that ask too often: `requests` at once, then one every per/requests s.

Its configuration is a type: what veko.toml says becomes a `Settings` before `load()` runs, and
what does not fit is refused with the name of the field.
"""

import math
import time
from typing import Annotated

import msgspec

from veko import Plugin
from veko_plugins import Context, Request, Response
from veko_plugins.http import CallNext, HTTPError


class Settings(msgspec.Struct, frozen=True):
    requests: Annotated[int, msgspec.Meta(ge=1)] = 60
    per: Annotated[float, msgspec.Meta(gt=0)] = 60.0  # seconds


class Limiter:
    """How far ahead of its rate each client is (GCRA: one number a client, no list of times)."""

    def __init__(self) -> None:
        self._even: dict[str, float] = {}  # when each client will have waited for all it asked

    def wait(self, client: str, now: float, settings: Settings) -> float:
        """Count a request; return 0 if it may go on, else seconds until the next one may."""
        even = max(self._even.get(client, now), now) + settings.per / settings.requests
        over = even - now - settings.per
        if over > 0:
            return over
        self._even[client] = even
        return 0.0

    def forget(self, now: float) -> None:
        """Drop the clients that are even, so that memory is bounded by those who are not."""
        self._even = {client: even for client, even in self._even.items() if even > now}


class RateLimit(Plugin):
    name = "ratelimit"
    version = "1.0.0"
    description = "Limits how often a client may ask"
    config_schema = Settings

    def load(self, context: Context) -> None:
        limiter = Limiter()

        async def limit(request: Request, call_next: CallNext) -> Response:
            # Who is connected, not what a header says, which anybody can send.
            client = request.client.host if request.client else ""
            # `context.config` each time, so that a change of it counts at once.
            wait = limiter.wait(client, time.monotonic(), context.config)
            if wait > 0:
                headers = {"retry-after": str(math.ceil(wait))}
                raise HTTPError(429, "too many requests", headers=headers)
            return await call_next(request)

        # Before other middleware: what is refused should cost as little as possible.
        context.add_middleware(limit, priority=100)
        context.every(60, lambda: limiter.forget(time.monotonic()))
