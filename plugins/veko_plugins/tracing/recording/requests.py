"""Requests: a span of kind SERVER around each, below what the client says it is part of.

The W3C `traceparent` of the client says which trace the request belongs to and whether that is
recorded; without one a trace begins here. Names and attributes are those of OpenTelemetry's
semantic conventions for HTTP; `url.query` is left out, since secrets travel in it.

A request costs some 4 µs more than its hooks; one whose trace is not recorded some 2 µs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from opentelemetry import propagate
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .context import SPAN_KEY, Context, remote_of
from .recorder import Recorder
from .records import MORE, SITE, Record, Unsampled, Visit, clock, more_of, segment_of, unsampled
from .sites import SERVER, Site

__all__ = ["HTTP", "ServerSpans"]

HTTP: Final = "http"
"""What sampling by event calls a request."""
ROUTE, STATUS = "veko.route", "veko.status"
_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
)
_ASKED: Final = frozenset((b"traceparent", b"tracestate", b"baggage", b"user-agent"))
_MOST: Final = 4096

Scope = MutableMapping[str, Any]
Answer = Callable[[Scope, Any, Any], Awaitable[Any]]


class ServerSpans:
    """Stands around the dispatcher of requests.

    Args:
        recorder: What writes the spans down.
        ratio: How much of the traces that begin here is recorded.
        quiet: Requests of paths that begin so are not recorded.
    """

    def __init__(self, recorder: Recorder, ratio: float, quiet: str | None = None) -> None:
        self._recorder = recorder
        self._quiet = quiet
        self._ratio = ratio
        self._sites: dict[tuple[Any, ...], Site] = {}
        self._begun = Site("HTTP", {}, SERVER)

    def around(self, answer: Answer) -> Answer:
        """Return what answers requests, with a span around it."""
        recorder, begun = self._recorder, self._begun
        get, put, tape = recorder.variable.get, recorder.variable.set, recorder.tape
        quiet, always, limit = self._quiet, recorder.always(self._ratio), recorder.limit

        async def traced(scope: Scope, receive: Any, send: Any) -> Any:
            outer = get()
            asked: dict[bytes, bytes] = {}
            for name, value in scope["headers"]:
                if name in _ASKED:
                    asked[name] = value if name not in asked else b"%b,%b" % (asked[name], value)
            if quiet is not None and scope["path"].startswith(quiet):
                found: Any = Unsampled()
            elif not outer and b"traceparent" in asked:
                found = self._remote(asked, begun)
            elif not outer and always and len(tape) < limit:
                found = [[None, 0, None, None, None], None, begun, clock(), 0, None]
            else:
                found = recorder.begin(outer, begun, self._ratio)
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
                self._tell(found, scope, asked.get(b"user-agent"), scope.get(STATUS, 0))
                recorder.ended(found, outer, error)
                raise
            self._tell(found, scope, asked.get(b"user-agent"), response.status if response else 0)
            found.append(clock())
            recorder.keep(found)
            put(outer)
            return response

        return traced

    def _tell(self, record: Record, scope: Scope, agent: bytes | None, status: int) -> None:
        """Say what a request was."""
        record[SITE] = self._site(scope, scope.get(ROUTE) if status else None, status)
        client = scope.get("client")
        visit = Visit(scope["path"], client[0] if client else None, agent)
        if record[MORE] is None:
            record[MORE] = visit
        else:
            more_of(record, None).attributes.update(visit.attributes())

    def _remote(self, asked: dict[bytes, bytes], site: Site) -> Any:
        """Begin below what the client says."""
        recorder = self._recorder
        match = _PARENT.fullmatch(asked[b"traceparent"].strip())
        if match is not None and len(asked) - (b"user-agent" in asked) == 1:
            version, trace, parent, flags, more = match.groups()
            known = version != b"ff" and (more is None or version != b"00")
            if known and int(trace, 16) and int(parent, 16):
                if not int(flags, 16) & 1:
                    return unsampled(_extracted(asked))
                number = int.from_bytes(bytes.fromhex(parent.decode()), "little")
                segment = segment_of(bytes.fromhex(trace.decode()), number)
                return recorder.open(site, segment, None)
        if match is None:  # OpenTelemetry would say so in the log, for each request
            del asked[b"traceparent"]
        return recorder.begin(_extracted(asked), site, self._ratio)

    def _site(self, scope: Scope, route: Any, status: int) -> Site:
        """Return the site of requests that are alike but for path and client."""
        server: Any = scope.get("server") or ("", None)
        key = (
            scope["method"], None if route is None else (route.path, route.plugin), status,
            scope.get("scheme"), scope.get("http_version"), server[0], server[1],
        )  # fmt: skip
        site = self._sites.get(key)
        if site is None:
            site = _made(scope, route, status, *server)
            if len(self._sites) < _MOST:
                self._sites[key] = site
        return site


def _made(scope: Scope, route: Any, status: int, host: str, port: int | None) -> Site:
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


def _extracted(asked: dict[bytes, bytes]) -> Context:
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in asked.items()}
    try:
        found = propagate.extract(carrier, Context())
        if remote_of(found.get(SPAN_KEY)) is None:  # whatever the application propagates
            found = TraceContextTextMapPropagator().extract(carrier, found)
    except Exception:  # a propagator is the application's
        return Context()
    return found
