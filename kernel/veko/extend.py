"""For plugins that extend the manager itself: new kinds of registrations, probes, the registry.

Plugins that only use hooks, routes, services and tasks need nothing from here.

- `Kind` says how what a new verb registers joins the `Registry`; its `accept` gets the `Draft` of
  the next registry and the `Entry` objects in it.
- `Probe` and `Snippet` put lines of code around handlers and emissions (metrics, tracing).
- `merge_config` is the merge that defaults, settings and given configurations go through.
- `driven` runs a coroutine that cannot refuse to be cancelled for longer than a grace period.
- `merge_config` merges configurations deep, as the kernel does.
"""

from ._bus.draft import Draft, Kind
from ._bus.limits import driven
from ._bus.probes import Probe, Snippet
from ._bus.registry import Entry, Registry
from ._life.config import merge_config

__all__ = ["Draft", "Entry", "Kind", "Probe", "Registry", "Snippet", "driven", "merge_config"]
