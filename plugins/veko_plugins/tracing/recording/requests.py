"""Requests: a span of kind SERVER around each, below the client's span if it sends one.

The W3C `traceparent` of the client says which trace the request belongs to, and whether that trace
is recorded; without it a trace begins here. Names and attributes are those of OpenTelemetry's
semantic conventions for HTTP, without `url.query`, which may contain secrets.

A request costs some 4 µs in addition to its hooks; one whose trace is not recorded some 2 µs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, MutableMapping
from random import random
from typing import Any, Final

from opentelemetry import propagate
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .context import SPAN_KEY, Context, remote_of
from .recorder import Recorder
from .records import (
    DETAILS,
    SITE,
    Record,
    RequestDetails,
    Unsampled,
    clock,
    details_of,
    segment_of,
    unsampled,
)
from .sites import SERVER, Site

__all__ = ["HTTP", "ServerSpans"]

HTTP: Final = "http"
"""The name of requests in the option `events`."""
ROUTE, STATUS = "veko.route", "veko.status"
_TRACEPARENT: Final = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
)
_HEADERS: Final = frozenset((b"traceparent", b"tracestate", b"baggage"))
_MOST_SITES: Final = 4096

_request_details: Final = functools.partial(tuple.__new__, RequestDetails)
"""Makes a `RequestDetails` of a tuple, in half the time that calling the class takes."""

Scope = MutableMapping[str, Any]
Answer = Callable[[Scope, Any, Any], Awaitable[Any]]


class ServerSpans:
    """Wraps the dispatcher of requests.

    Args:
        recorder: The recorder that writes the spans down.
        ratio: The share of traces beginning with a request that is recorded.
        unrecorded: Requests whose path begins with this are not recorded.
    """

    def __init__(self, recorder: Recorder, ratio: float, unrecorded: str | None = None) -> None:
        self._recorder = recorder
        self._unrecorded = unrecorded
        self._ratio = ratio
        self._sites: dict[tuple[Any, ...], Site] = {}
        self._initial = Site("HTTP", {}, SERVER)

    def around(self, answer: Answer) -> Answer:
        """Return a function that answers requests, with a span around each."""
        recorder, initial = self._recorder, self._initial
        get, put, tape = recorder.variable.get, recorder.variable.set, recorder.tape
        unrecorded, always, limit = self._unrecorded, recorder.always(self._ratio), recorder.limit
        ratio, drawn, keep = self._ratio, self._ratio < 1, recorder.keep

        async def traced(scope: Scope, receive: Any, send: Any) -> Any:
            outer = get()
            begins = always and not outer
            if drawn and not outer:
                begins = random() < ratio
                if not begins:
                    # Most requests, where few are recorded: nothing else is looked at.
                    for name, _ in scope["headers"]:
                        if name == b"traceparent":
                            break
                    else:
                        put(Unsampled())
                        try:
                            return await answer(scope, receive, send)
                        finally:
                            put(outer)
            agent, continues = None, False
            for name, value in scope["headers"]:
                if name == b"user-agent":
                    agent = value
                elif name == b"traceparent":
                    continues = True
            if unrecorded is not None and scope["path"].startswith(unrecorded):
                found: Any = Unsampled()
            elif continues and not outer:
                found = self._below_client(_tracing_headers(scope), initial)
            elif begins and len(tape) < limit:
                # `recorder.open(initial, segment_of(), None)`, without the two calls.
                found = [[None, 0, None, None, None], None, initial, clock(), 0, None]
            elif begins:
                found = recorder.open(initial, segment_of(), None)
            else:
                found = recorder.begin(outer, initial, ratio)
            if found.__class__ is not list:
                put(found)
                try:
                    return await answer(scope, receive, send)
                finally:
                    put(outer)
            put((found, None))
            try:
                response = await answer(scope, receive, send)
            except BaseException as error:
                self._describe(found, scope, agent, scope.get(STATUS, 0))
                recorder.ended(found, outer, error)
                raise
            self._describe(found, scope, agent, response.status if response else 0)
            found.append(clock())
            keep(found)
            put(outer)
            return response

        return traced

    def _describe(self, record: Record, scope: Scope, agent: bytes | None, status: int) -> None:
        """Write down what the request was, once its route and status are known."""
        record[SITE] = self._site(scope, scope.get(ROUTE) if status else None, status)
        client = scope.get("client")
        details = _request_details((scope["path"], client[0] if client else None, agent))
        if record[DETAILS] is None:
            record[DETAILS] = details
        else:
            details_of(record, None).attributes.update(details.attributes())

    def _below_client(self, headers: dict[bytes, bytes], site: Site) -> Any:
        """Begin the record of a request below the client's span.

        A `traceparent` without other headers of tracing is read here, which saves some 13 µs
        against OpenTelemetry's propagators; everything else is left to them.
        """
        recorder = self._recorder
        match = _TRACEPARENT.fullmatch(headers[b"traceparent"].strip())
        if match is not None and len(headers) == 1:
            version, trace, parent, flags, rest = match.groups()
            known = version != b"ff" and (rest is None or version != b"00")
            if known and int(trace, 16) and int(parent, 16):
                if not int(flags, 16) & 1:
                    return unsampled(_extracted(headers))
                number = int.from_bytes(bytes.fromhex(parent.decode()), "little")
                segment = segment_of(bytes.fromhex(trace.decode()), number)
                return recorder.open(site, segment, None)
        if match is None:  # OpenTelemetry would log each of them, and clients may send any number
            del headers[b"traceparent"]
        return recorder.begin(_extracted(headers), site, self._ratio)

    def _site(self, scope: Scope, route: Any, status: int) -> Site:
        """Return the site of requests that differ in path and client only."""
        host, port = scope.get("server") or ("", None)
        path, plugin = (None, None) if route is None else (route.path, route.plugin)
        key = (
            scope["method"], path, plugin, status,
            scope.get("scheme"), scope.get("http_version"), host, port,
        )  # fmt: skip
        site = self._sites.get(key)
        if site is None:
            site = _new_site(scope, route, status, host, port)
            if len(self._sites) < _MOST_SITES:
                self._sites[key] = site
        return site


def _tracing_headers(scope: Scope) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            before = headers.get(name)
            headers[name] = value if before is None else b"%b,%b" % (before, value)
    return headers


def _new_site(scope: Scope, route: Any, status: int, host: str, port: int | None) -> Site:
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    name = "HTTP" if method == "_OTHER" else method
    attributes: dict[str, Any] = {"http.request.method": method}
    if route is not None:
        name = f"{name} {route.path}"
        attributes |= {"http.route": route.path, "veko.plugin": route.plugin}
    if status:
        attributes["http.response.status_code"] = status
    attributes["url.scheme"] = scope.get("scheme", "http")
    if scope.get("http_version"):
        attributes["network.protocol.version"] = scope["http_version"]
    if host:
        attributes["server.address"] = host
    if port:
        attributes["server.port"] = port
    if status >= 500:
        attributes |= {"veko.outcome": "error", "error.type": str(status)}
    return Site(name, attributes, SERVER)


def _extracted(headers: dict[bytes, bytes]) -> Context:
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    try:
        found = propagate.extract(carrier, Context())
        if remote_of(found.get(SPAN_KEY)) is None:  # its propagators may not read traceparent
            found = TraceContextTextMapPropagator().extract(carrier, found)
    except Exception:  # a propagator of the application may raise anything
        return Context()
    return found
