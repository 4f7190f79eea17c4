"""Tracing: a span for every hook call, request and step of the life cycle, at a price for always.

The idea: on the path only what cannot be had later is written down, the times and who called whom
(`_records`, `_recorder`); what OpenTelemetry wants to see is made when it asks (`_context`); spans
are built and encoded in bulk, in small slices (`_pump`, `_otlp`), and sent by a thread (`_sender`).

Cost: `benchmarks/tracing.py`; nothing where the plugin is not loaded.
Promise: the tree is right, whatever runs at once, re-enters, is cancelled or closed; a collector or
an exporter that fails costs spans, which are counted, never requests, and memory has a bound.
"""

from .plugin import Tracing, TracingConfig, TracingStats

__all__ = ["Tracing", "TracingConfig", "TracingStats"]
