"""For plugins that extend the manager itself: new kinds of registrations, probes, the registry.

Plugins that only use hooks, routes, services and tasks need nothing from here.

- A `Kind` describes what a new verb registers: its `accept` gets the `Draft` of the next `Registry`
  and decides about the `Entry` objects that it adds.
- `Probe` and `Snippet` put lines of code around handlers and emissions (metrics, tracing), and
  around each `Call` that no event causes (`bus.enclose`): route handlers, middleware, commands,
  tasks.
- `driven` runs a coroutine that cannot refuse to be cancelled for longer than a grace period.
- `location_of` returns the line of a plugin's own that an error came from.
- `suspended_frames` shows where a suspended coroutine waits.
- `local_of` reads a variable of a running function of your own, so that its frame keeps nothing.
- `owner_in` tells whose handler or task a frame of Veko has called.
- `of_veko` tells frames of Veko from those of plugins and libraries.
- `must_pass` tells whether an error ends the task or the process, instead of being a failure.
- `Turns` lets other tasks run in between, while something works long on the event loop.
- `check_text`, `check_callable` and `check_seconds` refuse arguments of wrong types.
- `DecoratedPlugin` is what `Plugin(name, version)` makes: a plugin written with decorators.
- `unheard` is the `func` of an emitter (`bus.emitter`) whose event has no handlers here.
- `merge_config` merges configurations deep, as the kernel does.
"""

from ._bus.arguments import check_callable, check_seconds, check_text
from ._bus.calls import Call
from ._bus.draft import Draft, Kind
from ._bus.emitters import unheard
from ._bus.failures import Location, location_of, of_veko
from ._bus.frames import suspended_frames
from ._bus.limits import driven, must_pass
from ._bus.local_variables import local_of
from ._bus.probes import Probe, Snippet
from ._bus.registry import Entry, Registry
from ._bus.turns import Turns
from ._life.config import merge_config
from ._life.plugin import DecoratedPlugin
from ._life.scope import owner_in

__all__ = [
    "Call",
    "DecoratedPlugin",
    "Draft",
    "Entry",
    "Kind",
    "Location",
    "Probe",
    "Registry",
    "Snippet",
    "Turns",
    "check_callable",
    "check_seconds",
    "check_text",
    "driven",
    "local_of",
    "location_of",
    "merge_config",
    "must_pass",
    "of_veko",
    "owner_in",
    "suspended_frames",
    "unheard",
]
