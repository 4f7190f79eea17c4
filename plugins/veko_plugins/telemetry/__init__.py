"""Telemetry: metrics for others, by OpenTelemetry's protocol or in Prometheus's text format.

The idea: what the kernel and the core plugins count anyway is read when somebody wants it; only
what nobody counts (emissions, requests, errors over reloads) is counted here. OpenTelemetry gets
genuine exponential histograms, made of the counts of `metrics`, which cost a hundredth of the SDK's
`record`.

Cost: a call and an addition for each emission that somebody hears, two looks at the clock and two
hooks for each request; nothing where the plugin is not loaded, which it is only when a collector or
a path for Prometheus is given.
Promise: a collector that is down, slow or answers errors costs one line in the log, nothing more;
an export that takes longer than the interval leaves the next one out.
"""

from .plugin import Telemetry

__all__ = ["Telemetry"]
