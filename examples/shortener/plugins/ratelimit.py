"""Answers 429 to clients that send too many requests: `requests` at once, then one every
per/requests seconds.

Its configuration is a type: Veko converts the section in veko.toml to a `Settings` before `load()`
runs, and refuses values that do not fit, with the name of the field.
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
    """Tracks each client's rate with GCRA, which needs one number for each client."""

    def __init__(self) -> None:
        self._even: dict[str, float] = {}  # when each client is back at its rate

    def wait(self, client: str, now: float, settings: Settings) -> float:
        """Count a request; return 0 to allow it, otherwise the seconds to wait."""
        even = max(self._even.get(client, now), now) + settings.per / settings.requests
        over = even - now - settings.per
        if over > 0:
            return over
        self._even[client] = even
        return 0.0

    def forget(self, now: float) -> None:
        """Drop clients that are back at their rate, so that memory stays bounded."""
        self._even = {client: even for client, even in self._even.items() if even > now}


class RateLimit(Plugin):
    name = "ratelimit"
    version = "1.0.0"
    description = "Limits how many requests a client may send"
    config_schema = Settings

    def load(self, context: Context) -> None:
        limiter = Limiter()

        async def limit(request: Request, call_next: CallNext) -> Response:
            # The connection's address, not a header, which any client can set.
            client = request.client.host if request.client else ""
            # Read `context.config` each time, so that changes apply at once.
            wait = limiter.wait(client, time.monotonic(), context.config)
            if wait > 0:
                headers = {"retry-after": str(math.ceil(wait))}
                raise HTTPError(429, "too many requests", headers=headers)
            return await call_next(request)

        # Before other middleware: a refused request should cost as little as possible.
        context.add_middleware(limit, priority=100)
        context.every(60, lambda: limiter.forget(time.monotonic()))
