"""Telemetry: metrics by OpenTelemetry's protocol or in Prometheus's text format.

The idea: an export reads what the kernel and the core plugins count anyway; this plugin itself
counts only what nobody else does (emissions, requests, errors across reloads). OpenTelemetry gets
real exponential histograms, made of the counts of `metrics`, at a hundredth of the cost of the
SDK's `record`.

Cost: one addition for each emission that has a handler; two readings of the clock and two hooks
for each request. Nothing if the plugin is not loaded, and it is loaded only if a collector or a
path for Prometheus is configured.
Promise: a collector that is down, slow or answers errors costs one line in the log and nothing
else; an export that takes longer than the interval delays the next one.
"""

from .exponential import Exponential
from .plugin import Telemetry
from .readings import Family

__all__ = ["Exponential", "Family", "Telemetry"]
