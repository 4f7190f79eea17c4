"""The core plugin `tracing`: what is recorded, where spans go, and the service."""

from __future__ import annotations

import functools
import logging
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, Final

from veko import Context, OptionError, Plugin, __version__

from .config import TracingConfig, collector_headers, collector_url, config_of
from .export import sdk
from .export.otlp import Scope
from .export.outbox import CollectorBatch, Outbox, TracingStats
from .export.sender import Sender
from .jaeger.api import JaegerAPI
from .jaeger.documents import file_of, trace_json
from .jaeger.store import Store
from .recording.context import VARIABLE, install
from .recording.logs import LogIds
from .recording.recorder import Recorder
from .recording.requests import HTTP, ServerSpans
from .recording.steps import STEP, StepSpan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["Tracing"]

_log: Final = logging.getLogger("veko.tracing")
_NOTHING: Final = nullcontext()


class Tracing(Plugin):
    """The core plugin of traces; the service `tracing` is this object.

    Args:
        otlp: The URL of an OTLP collector; if left out, that of the configuration, otherwise that
            of OpenTelemetry's environment variables.
    """

    name = "tracing"
    version = "2.0.0"
    description = "Spans of hook calls, requests and life-cycle steps, for OpenTelemetry"
    core = True

    def __init__(self, otlp: str | None = None) -> None:
        self._otlp = otlp
        self._config = TracingConfig()
        self._recorder: Recorder | None = None
        self._outbox: Outbox | None = None
        self._listener: sdk.SpanListener | None = None
        self._log_ids = LogIds()
        self._unwrap = ExitStack()
        self._answer: Any = None
        self._routed: Any = None
        self.store: Store | None = None

    def load(self, context: Context) -> None:
        """Set up where spans go, and record all that is emitted."""
        config = self._config = config_of(context.config)
        resource = sdk.resource_attributes(config.service)
        provider = sdk.application_provider()
        if provider is not None and sdk.is_own(provider):
            provider = None
        recorder = self._recorder = Recorder(
            VARIABLE,
            config.ratio,
            core=config.core,
            limit=config.max_pending,
            sampler=None if provider is None else sdk.sampler_of(provider),
        )
        keeps = config.keep or config.jaeger is not None
        self.store = Store(config.keep or 200, resource) if keeps else None
        outbox = self._outbox = self._new_outbox(recorder, resource, provider)
        self._listener = (
            sdk.own_provider(resource, config.sample)
            if provider is None
            else sdk.listener_on(provider)
        )
        self._listener.receive = outbox.receive
        if not install():
            _log.warning(
                "spans that plugins start do not nest below hooks, because OpenTelemetry uses "
                "another runtime context (OTEL_PYTHON_CONTEXT)"
            )
        context.provide("tracing", self)
        context.probe(recorder.probe)
        span = functools.partial(StepSpan, recorder, config.ratio(STEP))
        # Each start loads the same core plugins: their steps would hide those of the application.
        context.intercept_step(
            lambda step, owner: (
                span(step, owner) if config.core or not _is_core(owner) else _NOTHING
            )
        )
        context.spawn(outbox.run)
        context.hook("plugin:loaded", functools.partial(self._wrap_requests, context))
        context.hook("request:error", recorder.request_failed, priority=float("inf"))
        if config.log_ids:
            self._log_ids.install()

    def activate(self, context: Context) -> None:
        """Wrap the dispatcher of requests, if it is there already."""
        self._wrap_requests(context)

    async def deactivate(self) -> None:
        """Send what is left, for a few seconds."""
        self._unwrap.close()
        await self.flush()

    async def unload(self) -> None:
        """Send what is left, and release everything."""
        self._log_ids.remove()
        self._unwrap.close()
        if self._listener is not None:
            self._listener.receive = None
        if self._outbox is not None:
            await self._outbox.close()
        self._recorder = self._outbox = None

    # -- the service

    def stats(self) -> TracingStats:
        """Return how many spans were recorded, sent and dropped."""
        return TracingStats(0, 0, 0, 0) if self._outbox is None else self._outbox.stats()

    async def flush(self, seconds: float = 5.0) -> bool:
        """Read all that has been recorded, and wait until the collector has it.

        Args:
            seconds: How long to wait at most.

        Returns:
            Whether nothing waits to be sent any more.
        """
        return True if self._outbox is None else await self._outbox.flush(seconds)

    async def traces(self, limit: int = 0) -> list[dict[str, Any]]:
        """Return the last traces in the format of Jaeger's API, the newest first.

        Args:
            limit: How many at most; 0 for all that are kept (`keep`).

        Raises:
            OptionError: No traces are kept.
        """
        store = await self._read_store()
        traces = [trace_json(trace, store.resource) for trace in store]
        return traces[:limit] if limit else traces

    async def jaeger_file(self, limit: int = 0) -> bytes:
        """Return the last traces as a file that Jaeger's UI opens.

        Args:
            limit: How many at most; 0 for all that are kept (`keep`).

        Raises:
            OptionError: No traces are kept.
        """
        return file_of(await self._read_store(), limit)

    @property
    def ordinary(self) -> bool:
        """Whether the application's provider has processors that need ordinary, dearer spans."""
        return self._outbox is not None and self._outbox.ordinary

    async def _read_store(self) -> Store:
        if self.store is None or self._outbox is None:
            raise OptionError(
                "no traces are kept",
                plugin="tracing",
                remedy="Set keep = 100 in [plugins.tracing].",
            )
        await self._outbox.drain()
        return self.store

    # -- setting up

    def _new_outbox(
        self, recorder: Recorder, resource: Mapping[str, Any], provider: TracerProvider | None
    ) -> Outbox:
        config = self._config
        url = self._otlp or config.otlp or collector_url()
        collector = replay = None
        if url is not None:
            headers = config.headers or collector_headers()
            sender = Sender(url, headers, compress=config.compress)
            collector = CollectorBatch(sender, Scope(resource, "veko", __version__))
        elif provider is not None:
            replay = sdk.Replay(provider)
        return Outbox(
            recorder,
            collector=collector,
            replay=replay,
            keep=None if self.store is None else self.store.add,
            limit=config.max_pending,
        )

    def _wrap_requests(self, context: Context, *_: object) -> None:
        """Wrap the dispatcher of requests, once there is one.

        A probe cannot record a request: its span begins before the first hook and ends after the
        last.
        """
        http = context.kernel.registry.get("service", "http")
        dispatcher = getattr(http.value, "asgi", None) if http is not None else None
        if http is None or dispatcher is None or self._recorder is None:
            return
        before = dispatcher.answer
        if before is self._answer:
            return
        prefix = self._config.jaeger_prefix
        unrecorded = None if prefix is None else f"{prefix}/api/"
        spans = ServerSpans(self._recorder, self._config.ratio(HTTP), unrecorded)
        after = dispatcher.answer = self._answer = spans.around(before)

        def unwrap() -> None:
            if dispatcher.answer is after:
                dispatcher.answer = before

        self._unwrap.callback(unwrap)
        if prefix is not None and self.store is not None and self._routed is not dispatcher:
            self._routed = dispatcher
            JaegerAPI(self.store, http.value.refusal).add(context, prefix)


def _is_core(owner: object) -> bool:
    return bool(getattr(getattr(owner, "plugin", None), "core", False))
