"""Rows of the management API, made of what the kernel and the core plugins know.

Each function costs one walk over the plugins or over what they registered, when it is asked.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union, get_args, get_origin

from veko import Event, Kernel, PluginRecord, Subscription
from veko.extend import Entry

from .._lib.first_use import state_of
from .documents import (
    CommandRow,
    EventRow,
    Graph,
    GraphEdge,
    GraphNode,
    HookRow,
    RouteRow,
    StartupStep,
)

__all__ = [
    "command_rows", "entries_of", "event_rows", "graph_of", "hook_rows", "needed_by", "needs",
    "plugin_service", "route_rows", "startup_of", "type_name",
]  # fmt: skip


FARTHEST = 1e308
"""What stands for an infinite priority, which JSON cannot write."""


def plugin_service(kernel: Kernel, name: str) -> Any:
    """Return a service of a core plugin; `None` if it is left out or switched off."""
    entry = kernel.registry.get("service", name)
    return None if entry is None else entry.value


def entries_of(record: PluginRecord) -> tuple[Entry, ...]:
    """Return what a plugin has registered; what is switched off is known, too."""
    return tuple(record.current.entries) if record.current is not None else ()


def _calls_of(kernel: Kernel, name: str | None) -> Mapping[str, Any]:
    """Return the calls of a plugin by event or route; empty without metrics."""
    metrics = plugin_service(kernel, "metrics")
    found = metrics.get(name) if metrics is not None and name is not None else None
    return {} if found is None else found.events


def hook_rows(kernel: Kernel, record: PluginRecord) -> tuple[HookRow, ...]:
    """Return the handlers of a plugin."""
    calls = _calls_of(kernel, record.name)
    rows = []
    for entry in entries_of(record):
        one = entry.value
        if entry.kind in ("hook", "pattern") and isinstance(one, Subscription):
            counted = calls.get(one.event)
            rows.append(
                HookRow(
                    event=one.event,
                    handler=one.label,
                    plugin=record.name,
                    priority=max(-FARTHEST, min(FARTHEST, one.priority)),
                    timeout=one.timeout,
                    calls=None if counted is None else counted.calls,
                    p95=None if counted is None else counted.p95,
                    errors=None if counted is None else counted.errors,
                )
            )
    return tuple(rows)


def route_rows(kernel: Kernel, records: Iterable[PluginRecord]) -> tuple[RouteRow, ...]:
    """Return the routes of plugins, with those that are off or refused."""
    http = plugin_service(kernel, "http")
    refused = {
        (one.route.plugin, one.route.method, one.route.path): one.reason
        for one in (http.refused if http is not None else ())
    }
    health, ledger = plugin_service(kernel, "health"), plugin_service(kernel, "ledger")
    shares = None if ledger is None else ledger.shares().routes
    rows = []
    for record in records:
        calls = _calls_of(kernel, record.name)
        off: dict[str, str] = {}
        if health is not None and health.routes_off(record.name):
            off = {one.route: one.reason for one in health.check(record.name).routes_off}
        for entry in entries_of(record):
            if entry.kind != "route":
                continue
            route = entry.value
            name = f"{route.method} {route.path}"
            why = refused.get((record.name, route.method, route.path))
            counted = calls.get(name)
            rows.append(
                RouteRow(
                    method=route.method,
                    path=route.path,
                    plugin=record.name,
                    handler=getattr(route.handler, "__qualname__", type(route.handler).__name__),
                    state="refused" if why is not None else "off" if name in off else "on",
                    reason=why if why is not None else off.get(name),
                    calls=None if counted is None else counted.calls,
                    p95=None if counted is None else counted.p95,
                    errors=None if counted is None else counted.errors,
                    cpu=None if shares is None else shares.get((record.name, name), 0.0),
                )
            )
    return tuple(rows)


def command_rows(entries: Iterable[Entry]) -> tuple[CommandRow, ...]:
    """Return the commands among what was registered, by name."""
    found = [entry.value for entry in entries if entry.kind == "command"]
    return tuple(
        CommandRow(
            name=one.name,
            plugin=one.plugin,
            description=one.description or _first_line(one.fn),
            signature=_signature(one.fn),
            parameters=_parameters(one.fn),
        )
        for one in sorted(found, key=lambda one: str(one.name))
    )


def _first_line(fn: Callable[..., object]) -> str:
    return (inspect.getdoc(fn) or "").partition("\n")[0]


def _signature(fn: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(fn))
    except (TypeError, ValueError):
        return "(...)"


_KINDS: Mapping[object, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object",
}  # fmt: skip


def _parameters(fn: Callable[..., object]) -> dict[str, Any]:
    """Return a JSON Schema of a command's arguments by name."""
    try:
        signature = inspect.signature(fn, eval_str=True)
    except Exception:  # a name that only type checkers see
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError):
            return {"type": "object"}
    properties: dict[str, Any] = {}
    required = []
    more = False
    for name, one in signature.parameters.items():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            more = more or one.kind is one.VAR_KEYWORD
            continue
        kind = _KINDS.get(get_origin(one.annotation) or one.annotation)
        properties[name] = {} if kind is None else {"type": kind}
        if one.default is one.empty:
            required.append(name)
        elif isinstance(one.default, str | int | float | bool | None):
            properties[name]["default"] = one.default
    schema: dict[str, Any] = {
        "type": "object", "properties": properties, "additionalProperties": more,
    }  # fmt: skip
    return schema | ({"required": required} if required else {})


def type_name(annotation: object) -> str:
    """Return a type as people write it."""
    if annotation is object or annotation is Any:
        return "anything"
    if annotation is None or annotation is type(None):
        return "None"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_name, arguments))
    if origin is not None and arguments:
        return f"{type_name(origin)}[{', '.join(map(type_name, arguments))}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def event_rows(kernel: Kernel) -> tuple[EventRow, ...]:
    """Return the declared events, and those that are only hooked, by name."""
    registry = kernel.registry
    heard = {str(key): len(registry.all("hook", key)) for key in registry.keys("hook")}
    events: Iterable[Event[Any]] = kernel.bus.events
    declared = {event.name: _event_row(event, heard.get(event.name, 0)) for event in events}
    others = {
        name: EventRow(name=name, declared=False, hooks=count)
        for name, count in heard.items()
        if name not in declared
    }
    return tuple(row for _, row in sorted({**declared, **others}.items()))


def _event_row(event: Event[Any], hooks: int) -> EventRow:
    return EventRow(
        name=event.name,
        payload=type_name(event.payload),
        returns=event.returns,
        stops=None if event.stops is None else type_name(event.stops),
        fails_closed=event.fails_closed,
        doc=" ".join(event.doc.split()),
        hooks=hooks,
    )


def _requirements(kernel: Kernel, record: PluginRecord) -> list[str]:
    """Return the names that a plugin's manifest says it needs."""
    dependencies = plugin_service(kernel, "dependencies")
    found = []
    for text in record.manifest.dependencies:
        try:
            found.append(dependencies.parse(text).name if dependencies is not None else text)
        except ValueError:
            found.append(text)
    return found


def needs(kernel: Kernel, record: PluginRecord) -> tuple[str, ...]:
    """Return the plugins that one needs: those that it declares, and those that it uses."""
    return tuple(sorted({*kernel.needs(record)}))


def needed_by(kernel: Kernel, name: str) -> tuple[str, ...]:
    """Return the plugins that need one."""
    return tuple(sorted(r.name for r in kernel.records() if r.loaded and name in kernel.needs(r)))


def graph_of(kernel: Kernel, *, core: bool) -> Graph:
    """Return the dependency graph.

    Args:
        kernel: The kernel.
        core: Whether it has Veko's own plugins.
    """
    shown = [r for r in kernel.records() if core or not r.core]
    health = plugin_service(kernel, "health")
    nodes = {
        r.name: GraphNode(
            name=r.name,
            version=r.version,
            state=state_of(r),
            core=r.core,
            health=None if health is None else health.check(r.name).health,
        )
        for r in shown
    }
    edges = []
    for record in shown:
        declared = _requirements(kernel, record)
        used: dict[str, list[str]] = {}
        if record.current is not None:
            for service, (provider, _) in record.current.uses.items():
                used.setdefault(provider, []).append(service)
        for name in dict.fromkeys((*declared, *used)):
            needed = kernel.get(name)
            if needed is not None and needed.core and not core:
                continue
            if name not in nodes:
                nodes[name] = GraphNode(name=name, state="missing")
            edges.append(
                GraphEdge(
                    plugin=record.name,
                    needs=name,
                    declared=name in declared,
                    services=tuple(sorted(used.get(name, ()))),
                )
            )
    return Graph(nodes=tuple(nodes.values()), edges=tuple(edges))


def startup_of(kernel: Kernel, *, core: bool) -> tuple[StartupStep, ...]:
    """Return when each plugin was loaded, in the order of their beginnings.

    The times are those that every plugin's record has anyway: recording costs nothing more.
    """
    loaded = [r for r in kernel.records() if r.loaded and r.loaded_at is not None]
    if not loaded:
        return ()
    ends = {r.name: r.loaded_at.timestamp() for r in loaded if r.loaded_at is not None}
    begins = {r.name: ends[r.name] - r.load_duration for r in loaded}
    zero = min(begins.values())
    waves: dict[str, int] = {}

    def wave(name: str, seen: frozenset[str] = frozenset()) -> int:
        if name in waves:
            return waves[name]
        record = kernel.get(name)
        if record is None or name in seen:
            return 0
        below = [
            wave(other, seen | {name})
            for other in kernel.needs(record)
            if other in ends and not (core is False and _is_core(kernel, other))
        ]
        waves[name] = 1 + max(below) if below else 0
        return waves[name]

    steps = []
    for record in loaded:
        if record.core and not core:
            continue
        waited = [n for n in kernel.needs(record) if n in ends and n != record.name]
        steps.append(
            StartupStep(
                plugin=record.name,
                core=record.core,
                begin=max(0.0, begins[record.name] - zero),
                end=max(0.0, ends[record.name] - zero),
                wave=wave(record.name),
                waited_for=max(waited, key=ends.__getitem__) if waited else None,
                reloaded=record.generation > 1,
            )
        )
    return tuple(sorted(steps, key=lambda step: (step.begin, step.plugin)))


def _is_core(kernel: Kernel, name: str) -> bool:
    record = kernel.get(name)
    return record is not None and record.core
