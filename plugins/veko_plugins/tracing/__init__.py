"""Tracing: a span for every hook call, request and life-cycle step, at a price for production.

The idea: on the hot path only what cannot be found out later is written down, the times and the
positions (`recording/records`, `recording/recorder`). What OpenTelemetry wants to see is made when
it asks (`recording/context`). Spans are built and encoded in bulk, in small slices
(`export/pump`, `export/packed`), and sent by a thread (`export/sender`).

Cost: see `benchmarks/tracing.py`; nothing if the plugin is not loaded.
Promise: the tree of spans is right, whatever runs concurrently, re-enters, is cancelled or closed.
A collector or exporter that fails costs spans, which are counted, but no requests; memory is
bounded.
"""

from .config import TracingConfig
from .export.outbox import TracingStats
from .plugin import Tracing

__all__ = ["Tracing", "TracingConfig", "TracingStats"]
