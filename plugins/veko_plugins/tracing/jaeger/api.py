"""Jaeger's query API as routes, so that Jaeger's UI and clients read the kept traces from here.

The routes are unauthenticated, and traces reveal a lot: protect the prefix with a guard, or serve
it on the loopback interface only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from veko import Context

from .documents import (
    Query,
    answer,
    dependencies,
    duration,
    matching,
    operations,
    service_of,
    trace_json,
)
from .store import KeptTrace, Store

__all__ = ["JaegerAPI"]

Refusal = Callable[[int, str], Exception]
_HEX = frozenset("0123456789abcdef")


class JaegerAPI:
    """The routes.

    Args:
        store: The kept traces.
        refusal: Returns the exception that answers a request with a status and a message.
    """

    def __init__(self, store: Store, refusal: Refusal) -> None:
        self._store = store
        self._refusal = refusal

    def add(self, context: Context, prefix: str) -> None:
        """Add the routes below a path."""
        for path, handler in (
            ("services", self.services),
            ("services/{service}/operations", self.operation_names),
            ("operations", self.operations),
            ("traces", self.traces),
            ("traces/{trace}", self.trace),
            ("dependencies", self.dependencies),
        ):
            context.attached("add_route")("GET", f"{prefix}/api/{path}", handler)

    @property
    def _service(self) -> str:
        return service_of(self._store.resource)

    def services(self) -> dict[str, Any]:
        """Answer `/api/services`."""
        return answer([self._service] if len(self._store) else [])

    def operation_names(self, service: str) -> dict[str, Any]:
        """Answer `/api/services/{service}/operations`."""
        known = service == self._service
        return answer(sorted({name for name, _ in operations(self._store)}) if known else [])

    def operations(self, request: Any) -> dict[str, Any]:
        """Answer `/api/operations?service=...&spanKind=...`."""
        service, kind = self._required(request, "service"), request.query.get("spanKind")
        return answer(
            [
                {"name": name, "spanKind": which}
                for name, which in operations(self._store)
                if service == self._service and kind in (None, "", which)
            ]
        )

    def traces(self, request: Any) -> dict[str, Any]:
        """Answer `/api/traces?service=...` with its filters, or `?traceID=...`."""
        ids = request.query.getall("traceID")
        if ids:
            found = [self._store.get(self._id(one)) for one in ids]
            return self._answer([trace for trace in found if trace is not None])
        if self._required(request, "service") != self._service:
            return answer([])
        query = self._query(request)
        return self._answer(list(matching(self._store, query)), query.limit)

    def trace(self, trace: str) -> dict[str, Any]:
        """Answer `/api/traces/{id}`."""
        found = self._store.get(self._id(trace))
        if found is None:
            raise self._refusal(404, "trace not found")
        return self._answer([found])

    def dependencies(self, request: Any) -> dict[str, Any]:
        """Answer `/api/dependencies?endTs=...&lookback=...` (in ms): calls between plugins."""
        end = self._number(request, "endTs", time.time_ns() // 10**6)
        lookback = self._number(request, "lookback", 86_400_000)
        return answer(dependencies(self._store, (end - lookback) * 1000, end * 1000 + 999))

    def _answer(self, found: list[KeptTrace], limit: int = 0) -> dict[str, Any]:
        return answer([trace_json(trace, self._store.resource) for trace in found], None, limit)

    def _required(self, request: Any, name: str) -> str:
        value = request.query.get(name)
        if not value:
            raise self._refusal(400, f"parameter {name!r} is required")
        return str(value)

    def _number(self, request: Any, name: str, default: int) -> int:
        text = request.query.get(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise self._refusal(400, f"{name}: {text[:40]!r} is not a number") from None

    def _id(self, text: str) -> bytes:
        text = text.lower().rjust(32, "0")
        if len(text) != 32 or not set(text) <= _HEX:
            raise self._refusal(400, "a trace id is up to 32 hexadecimal digits")
        return bytes.fromhex(text)

    def _query(self, request: Any) -> Query:
        given = request.query
        tags: dict[str, str] = {}
        try:
            if given.get("tags"):
                tags = msgspec.json.decode(given["tags"], type=dict[str, str], strict=False)
            for pair in given.getall("tag"):
                key, colon, value = pair.partition(":")
                if not colon:
                    raise ValueError(f"tag: {pair[:40]!r} is not written as key:value")
                tags[key] = value
            shortest = duration(given["minDuration"]) if given.get("minDuration") else None
            longest = duration(given["maxDuration"]) if given.get("maxDuration") else None
        except (ValueError, msgspec.DecodeError) as error:
            raise self._refusal(400, str(error)) from None
        return Query(
            operation=given.get("operation") or None,
            tags=tags,
            start=self._number(request, "start", 0),
            end=self._number(request, "end", 0) or None,
            shortest=shortest,
            longest=longest,
            limit=max(0, min(1500, self._number(request, "limit", 100))),
        )
