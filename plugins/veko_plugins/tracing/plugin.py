"""The core plugin `tracing`: see the package."""

from __future__ import annotations

import fnmatch
import functools
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote

import anyio.to_thread
import msgspec
from msgspec import Meta

from veko import ConfigError, Context, OptionError, Plugin, __version__

from .export import sdk as _sdk
from .export.otlp import Scope, request
from .export.packed import encode
from .export.pump import Pump
from .export.sender import Sender
from .jaeger.api import JaegerAPI
from .jaeger.documents import file_of, trace_json
from .jaeger.store import Store
from .recording.context import VARIABLE, install
from .recording.logs import LogIds
from .recording.recorder import Recorder
from .recording.records import Record, Row, rows, spans_of
from .recording.requests import HTTP, ServerSpans
from .recording.steps import STEP, StepSpan

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Tracing", "TracingConfig", "TracingStats"]

_log: Final = logging.getLogger("veko.tracing")
_BODY: Final = 2**19
"""Bytes of a request to the collector, about."""
_EACH: Final = 1.0
"""Seconds between two requests to the collector, unless they are full: one costs 1 ms of CPU."""
Ratio = Annotated[float, Meta(ge=0, le=1)]


class TracingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How tracing is configured: `[plugins.tracing]`.

    Attributes:
        otlp: The URL of an OTLP collector, over HTTP: `http://localhost:4318`.
        headers: Headers for it; those of `OTEL_EXPORTER_OTLP_HEADERS` if left out.
        compress: Whether to gzip what is sent.
        service: The name of this service; that of `OTEL_SERVICE_NAME`, else `veko`, if left out.
        sample: The share of traces beginning here that is recorded, from 0 to 1.
        events: The same by event or pattern (`fnmatch`), also for `http` and `step`; -1: no spans
            of that event at all, as it is for `log`.
        keep: Traces that are kept in memory for `jaeger`, `veko trace` and `tracing.traces()`.
        jaeger: The path below which Jaeger's query API is served, `"/jaeger"` say.
        max_pending: Spans that may wait to be read, about; past it, they are counted and dropped.
        log_ids: Whether log records get `trace_id` and `span_id`.
        core: Whether hooks of core plugins are recorded too.
    """

    otlp: str | None = None
    headers: dict[str, str] | None = None
    compress: bool = False
    service: str | None = None
    sample: Ratio = 1.0
    events: dict[str, float] = {}
    keep: Annotated[int, Meta(ge=0)] = 0
    jaeger: str | None = None
    max_pending: Annotated[int, Meta(ge=1)] = 100_000
    log_ids: bool = True
    core: bool = False


class TracingStats(msgspec.Struct, frozen=True):
    """What became of the spans so far.

    Attributes:
        recorded: Spans that were recorded and read, those that plugins start themselves included.
        pending: Spans that wait to be read.
        dropped: Spans that were not recorded since too many waited, or that nobody took.
        sent: Spans that the collector took.
    """

    recorded: int
    pending: int
    dropped: int
    sent: int


class Tracing(Plugin):
    """The core plugin of traces; the service `tracing` is this object.

    Args:
        otlp: The URL of an OTLP collector; the configuration's if left out.
    """

    name = "tracing"
    version = "2.0.0"
    description = "Spans of hook calls, requests and life-cycle steps, for OpenTelemetry"
    core = True

    def __init__(self, otlp: str | None = None) -> None:
        self._otlp = otlp
        self._config = TracingConfig()
        self._recorder: Recorder | None = None
        self._pump: Pump | None = None
        self._sender: Sender | None = None
        self._scope: Scope | None = None
        self._parts: list[bytes] = []
        self._others: dict[bytes, list[bytes]] = {}
        self._size = 0
        self._count = 0
        self._sent = 0.0
        self._taken: deque[tuple[Row | None, tuple[bytes, bytes] | None]] = deque()
        self._own = 0
        self._left = 0
        self._replay: _sdk.Replay | None = None
        self._ended: _sdk.Ended | None = None
        self._logs = LogIds()
        self._undo: list[Callable[[], None]] = []
        self._routed: Any = None
        self.store: Store | None = None

    def load(self, context: Context) -> None:
        """Set up what spans are sent to, and stand around all that is emitted."""
        config = self._config = _configured(context.config)
        url = self._otlp or config.otlp or _from_environment()
        resource = _sdk.resource_attributes(config.service)
        provider = _sdk.application_provider()
        foreign = provider is not None and not _sdk.is_own(provider)
        sampler = _sdk.sampler_of(provider) if provider is not None and foreign else None
        recorder = Recorder(
            VARIABLE,
            self._ratio,
            core=config.core,
            limit=config.max_pending,
            sampler=sampler,
        )
        pump = Pump(recorder, self._turn)
        self._recorder, self._pump = recorder, pump
        self._own = self._left = 0
        if url is not None:
            self._scope = Scope(resource, "veko", __version__)
            self._sender = Sender(url, config.headers or _headers(), compress=config.compress)
            pump.outputs.append(self._encode)
        elif provider is not None and foreign:
            self._replay = _sdk.Replay(provider)
            pump.outputs.append(self._replay)
        if provider is not None and foreign:
            self._ended = _sdk.listen(provider)
        else:
            self._ended = _sdk.own_provider(resource, config.sample)
        self._ended.take = self._take
        if config.keep or config.jaeger is not None:
            store = self.store = Store(config.keep or 200, resource)
            pump.outputs.append(lambda records: store.add(rows(records)))
        if not install():
            _log.warning(
                "spans that plugins start do not nest below hooks: another runtime context of "
                "OpenTelemetry is in use (OTEL_PYTHON_CONTEXT)"
            )
        context.provide("tracing", self)
        context.probe(recorder.probe)
        context.intercept_step(functools.partial(StepSpan, recorder, self._ratio(STEP)))
        context.spawn(pump.run)
        context.hook("plugin:loaded", functools.partial(self._seek_http, context))
        context.hook("request:error", recorder.request_failed, priority=float("inf"))
        if config.log_ids:
            self._logs.install()

    def activate(self, context: Context) -> None:
        """Stand around the dispatcher of requests, if there is one already."""
        self._seek_http(context)

    def _seek_http(self, context: Context, *_: object) -> None:
        """Stand around the dispatcher of requests, once there is one."""
        entry = context.kernel.registry.get("service", "http")
        dispatcher = getattr(entry.value, "asgi", None) if entry is not None else None
        if entry is None or dispatcher is None or self._recorder is None:
            return
        before = dispatcher.answer
        if getattr(before, "traces", None) is self:
            return
        prefix = self._config.jaeger
        prefix = None if prefix is None else f"/{prefix.strip('/')}".rstrip("/")
        quiet = None if prefix is None else f"{prefix}/api/"
        after: Any = ServerSpans(self._recorder, self._ratio(HTTP), quiet).around(before)
        after.traces = self
        dispatcher.answer = after

        def undo() -> None:
            if dispatcher.answer is after:
                dispatcher.answer = before

        self._undo.append(undo)
        if prefix is not None and self.store is not None and self._routed is not dispatcher:
            self._routed = dispatcher
            JaegerAPI(self.store, entry.value.refusal).add(context, prefix)

    async def deactivate(self) -> None:
        """Send what is left, for a few seconds."""
        while self._undo:
            self._undo.pop()()
        await self.flush()

    async def unload(self) -> None:
        """Let go of everything."""
        self._logs.remove()
        while self._undo:
            self._undo.pop()()
        if self._ended is not None:
            self._ended.take = None
        if self._pump is not None:
            await self._pump.drain()
            self._send()
        if self._sender is not None:
            await anyio.to_thread.run_sync(self._sender.close)
            stats = self.stats()
            if stats.dropped:
                _log.warning("%d of %d spans were dropped", stats.dropped, stats.recorded)
        self._recorder = self._pump = self._sender = None

    # -- the service

    def stats(self) -> TracingStats:
        """Return how many spans were recorded, sent and dropped."""
        recorder, pump, sender = self._recorder, self._pump, self._sender
        if recorder is None or pump is None:
            return TracingStats(0, 0, 0, 0)
        return TracingStats(
            recorded=pump.recorded + self._own,
            pending=spans_of(recorder.tape) + len(self._taken),
            dropped=recorder.lost
            + self._left
            + pump.failed
            + (sender.lost if sender is not None else 0),
            sent=sender.sent if sender is not None else 0,
        )

    async def flush(self, seconds: float = 5.0) -> bool:
        """Read the tape and wait until the collector has it all.

        Args:
            seconds: How long to wait at most.

        Returns:
            Whether it has.
        """
        if self._pump is None:
            return True
        await self._pump.drain()
        self._send()
        if self._sender is None:
            return True
        return await anyio.to_thread.run_sync(self._sender.flush, seconds)

    async def traces(self, limit: int = 0) -> list[dict[str, Any]]:
        """Return the last traces, the newest first, as Jaeger's API has them.

        Args:
            limit: How many at most; 0 for all that are kept (`keep`).
        """
        store = await self._kept()
        found = [trace_json(kept, store.resource) for kept in store]
        return found[:limit] if limit else found

    async def jaeger_file(self, limit: int = 0) -> bytes:
        """Return the last traces as a file that Jaeger's UI opens.

        Args:
            limit: How many at most; 0 for all that are kept (`keep`).
        """
        return file_of(await self._kept(), limit)

    async def _kept(self) -> Store:
        if self.store is None or self._pump is None:
            raise OptionError(
                "no traces are kept",
                plugin="tracing",
                remedy="Set keep = 100 in [plugins.tracing].",
            )
        await self._pump.drain()
        return self.store

    @property
    def ordinary(self) -> bool:
        """Whether the application's provider has processors that need ordinary, dearer spans."""
        return self._replay is not None and self._replay.ordinary()

    # -- ways out

    def _ratio(self, event: str) -> float:
        """Return how much of what begins with an event is recorded; -1: never."""
        given = self._config.events
        if event in given:
            return given[event]
        for pattern, ratio in given.items():
            if fnmatch.fnmatchcase(event, pattern):
                return ratio
        return -1.0 if event == "log" else self._config.sample

    def _encode(self, records: list[Record]) -> None:
        before = len(self._parts)
        self._count += encode(records, self._parts)
        self._grown(sum(map(len, self._parts[before:])))

    def _take(self, span: ReadableSpan) -> None:
        """Take a span that a plugin started by OpenTelemetry's own interface, on any thread."""
        if len(self._taken) >= self._config.max_pending:
            self._left += 1
            return
        try:
            row = _sdk.row_of(span) if self.store is not None else None
            encoded = _sdk.encode_readable(span) if self._sender is not None else None
        except Exception:  # it ends in the plugin's code, which is not to be disturbed
            self._left += 1
            return
        self._taken.append((row, encoded))

    def _turn(self) -> None:
        """Take what plugins started themselves, and send what has waited for long enough."""
        while self._taken:
            row, encoded = self._taken.popleft()
            self._own += 1
            if row is not None and self.store is not None:
                self.store.add([row])
            if encoded is not None:
                scope, span = encoded
                self._others.setdefault(scope, []).append(span)
                self._count += 1
                self._grown(len(span))
        if time.monotonic() - self._sent >= _EACH:
            self._send()

    def _grown(self, size: int) -> None:
        self._size += size
        if self._size >= _BODY:
            self._send()

    def _send(self) -> None:
        self._sent = time.monotonic()
        if self._count and self._sender is not None and self._scope is not None:
            body = request(self._scope, self._parts, self._others)
            self._sender.put(body, self._count)
            self._parts, self._others = [], {}
            self._size = self._count = 0


def _configured(config: object) -> TracingConfig:
    """Check the configuration: this plugin comes up before the one that does it for others."""
    try:
        return msgspec.convert(config or {}, TracingConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{str(error)[:1].lower()}{str(error)[1:]}",
            plugin="tracing",
            remedy="[plugins.tracing] has the fields of veko_plugins.tracing.TracingConfig.",
        ) from error


def _from_environment() -> str | None:
    """Return the collector that OpenTelemetry's environment variables name."""
    own = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if own:
        return own
    common = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{common.rstrip('/')}/v1/traces" if common else None


def _headers() -> dict[str, str]:
    names = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
    text = next((os.environ[name] for name in names if os.environ.get(name)), "")
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(name).strip().lower(): unquote(value).strip() for name, _, value in pairs}
