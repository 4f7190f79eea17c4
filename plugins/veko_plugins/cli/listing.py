"""`veko list` and `veko events`: the plugins and the events of an application.

Output that plugins print while they load goes to standard error, so that `--json` prints only JSON.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import rich_click as click

from veko import Event, OptionError, VekoError
from veko_plugins._lib.masking import masked_text
from veko_plugins._lib.versions import did_you_mean
from veko_plugins.admin import AdminClient
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.reports import PluginInfo

from .application import adapter_of, options_of
from .printing import STATES, print_json, print_table
from .progress import SAID, loading
from .runner import Stop, print_error, run_quiet
from .running import ask_if_running

__all__ = [
    "Row",
    "list_events",
    "list_plugins",
    "with_application",
]


class Row(msgspec.Struct, frozen=True):
    """A plugin as `veko list` shows it; `error` says why it did not load."""

    name: str
    version: str | None
    state: str
    type: str | None
    description: str
    error: str | None = None


class EventRow(msgspec.Struct, frozen=True):
    """An event as `veko events` shows it."""

    name: str
    payload: str
    returns: bool
    stops: str | None
    fails_closed: bool
    doc: str


class HookRow(msgspec.Struct, frozen=True):
    """A hook as `veko events --plugin` shows it; `limit` in seconds."""

    event: str
    handler: str
    priority: float
    limit: float | None


def list_plugins(directory: Path | None, *, core: bool, as_json: bool, debug: bool) -> int:
    """List the plugins of an application; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        core: Whether core plugins are listed too.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show(manager: PluginManager) -> None:
        rows = _rows(manager, core)
        if as_json:
            print_json(rows)
            return
        if not rows:
            click.echo("no plugins")
            return
        cells = [("NAME", "VERSION", "STATE", "TYPE", "DESCRIPTION")]
        cells += [
            (row.name, row.version or "-", row.state, row.type or "-", row.error or row.description)
            for row in rows
        ]
        print_table(cells, STATES)

    return with_application(directory, show, debug=debug)


def _rows(manager: PluginManager, core: bool) -> list[Row]:
    report = manager.report
    listed = [*(manager.list_plugins(core=True) if core else ()), *manager.list_plugins()]
    rows = {
        info.name: Row(
            info.name,
            info.version,
            _state(info),
            info.type,
            info.description,
            masked_text(str(report.failed[info.name])) if info.name in report.failed else None,
        )
        for info in listed
    }
    for name, error in report.failed.items():
        rows.setdefault(name, Row(name, None, "failed", None, "", masked_text(str(error))))
    for name, why in report.skipped.items():
        rows.setdefault(name, Row(name, None, "skipped", None, "", why))
    for name, why in report.off.items():
        rows.setdefault(name, Row(name, None, "off", None, "", why))
    return list(rows.values())


def _state(info: PluginInfo) -> str:
    state, off = "waiting" if info.waiting else str(info.state.value), info.routes_off
    return f"{state}, {off} route{'s' * (off > 1)} off" if off else state


def list_events(directory: Path | None, *, plugin: str | None, as_json: bool, debug: bool) -> int:
    """List the declared events; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        plugin: The plugin whose hooks alone are listed, as its subscriptions name the events.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show(manager: PluginManager) -> None:
        if plugin is not None:
            _show_hooks(manager, plugin, as_json=as_json)
            return
        show_events([_event(event) for event in manager.events()])

    async def show_running(client: AdminClient, _: Stop) -> None:
        if plugin is None:
            names = EventRow.__struct_fields__
            rows = [one for one in await client.events() if one.declared]
            show_events([EventRow(*(getattr(one, name) for name in names)) for one in rows])
            return
        hooks = (await client.plugin(plugin)).hooks
        _print_hooks(
            [HookRow(one.event, one.handler, one.priority, one.timeout) for one in hooks],
            as_json=as_json,
        )

    def show_events(found: list[EventRow]) -> None:
        if as_json:
            print_json(found)
            return
        width = max((len(event.name) for event in found), default=0)
        for event in found:
            returned = ", may be replaced" if event.returns else ""
            stops = f", {event.stops} ends it" if event.stops else ""
            closed = ", fails closed" if event.fails_closed else ""
            click.echo(f"{event.name.ljust(width)}  {event.payload}{returned}{stops}{closed}")
            if event.doc:
                click.echo(f"{'':{width}}  {' '.join(event.doc.split())}")

    code = ask_if_running(directory, show_running, debug=debug)
    if code is not None:
        return code
    return with_application(directory, show, debug=debug, needed=plugin is not None)


def _show_hooks(manager: PluginManager, plugin: str, *, as_json: bool) -> None:
    listed = (*manager.list_plugins(core=True), *manager.list_plugins())
    names = [info.name for info in listed]
    if plugin not in names:
        why = manager.report.failed.get(plugin)
        raise OptionError(
            f"there is no plugin {plugin!r} here"
            if why is None
            else f"the plugin {plugin!r} did not load: {masked_text(str(why))}",
            remedy=did_you_mean(plugin, names) or "`veko list` shows the plugins.",
        )
    rows = [
        HookRow(event, one.label, one.priority, one.timeout)
        for event, subscriptions in manager.hooks.items()
        for one in subscriptions
        if getattr(one.owner, "name", one.owner) == plugin
    ]
    _print_hooks(rows, as_json=as_json)


def _print_hooks(rows: Sequence[HookRow], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("no hooks")
    else:
        lines = [("EVENT", "PRIORITY", "LIMIT", "HANDLER")]
        for row in rows:
            limit = "-" if row.limit is None else f"{row.limit:g} s"
            lines.append((row.event, f"{row.priority:g}", limit, row.handler))
        print_table(lines)


def _event(event: Event[Any]) -> EventRow:
    stops = None if event.stops is None else _type(event.stops)
    return EventRow(
        event.name, _type(event.payload), event.returns, stops, event.fails_closed, event.doc
    )


def _type(annotation: object) -> str:
    if annotation is object or annotation is Any:
        return "anything"
    if annotation is None or annotation is type(None):
        return "None"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " | ".join(map(_type, arguments))
    if origin is not None and arguments:
        return f"{_type(origin)}[{', '.join(map(_type, arguments))}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def with_application(
    directory: Path | None,
    show: Callable[[PluginManager], Awaitable[None]],
    *,
    debug: bool,
    needed: bool = True,
) -> int:
    """Load an application, show something of it, and unload it again; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        show: Prints the output.
        debug: Whether errors are shown with their traceback.
        needed: Whether it is an error if the working directory has no application.
    """
    logs = Logging()
    try:
        options = options_of(directory, logs)
    except VekoError as error:
        if needed or directory is not None:
            print_error(error, debug=debug)
            return 2
        with tempfile.TemporaryDirectory() as nowhere:
            options = {"root": Path(nowhere), "auto_load": False, "core": {"logging": logs}}
            options |= adapter_of(Path(nowhere))
            return _show(options, show, logs, debug=debug)
    return _show(options, show, logs, debug=debug)


def _show(
    options: dict[str, Any],
    show: Callable[[PluginManager], Awaitable[None]],
    logs: Logging,
    *,
    debug: bool,
) -> int:
    async def work(_: Stop) -> int:
        with contextlib.redirect_stdout(sys.stderr):
            # Listing stores nothing, and the application may be running with its storage open.
            manager = PluginManager(**options, storage="sqlite:///:memory:")
            with loading(manager):
                await manager.start()
        try:
            await show(manager)
        finally:
            with contextlib.redirect_stdout(sys.stderr):
                await manager.stop()
        return 0

    return run_quiet(logs, work, "error", debug=debug, loggers=SAID)
