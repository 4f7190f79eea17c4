"""`veko status` and `veko list`, asked of the running application."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import rich_click as click

from veko_plugins.admin import AdminClient, PluginRow, Status

from .printing import STATES, print_json, print_table
from .runner import Stop
from .running import ask, ask_if_running

__all__ = ["list_running", "show_status", "span_of_time"]

_HEALTH = {"healthy": "green", "warning": "yellow", "critical": "red"}


def show_status(directory: Path | None, *, as_json: bool, debug: bool) -> int:
    """Show the state of the application that runs; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, _: Stop) -> None:
        status = await client.status()
        if as_json:
            print_json(status)
            return
        unwell = [one for one in await client.plugins() if _is_unwell(one)]
        for title, text in _lines(status, unwell):
            click.echo(f"{title.ljust(10)}{text}" if title else text)
        if unwell:
            rows = [
                (one.name, one.state, one.health or "-", one.error or "; ".join(one.reasons) or "-")
                for one in unwell
            ]
            click.echo()
            print_table([("PLUGIN", "STATE", "HEALTH", "WHY"), *rows], STATES | _HEALTH)

    return ask(directory, show, debug=debug)


def list_running(directory: Path | None, *, core: bool, as_json: bool, debug: bool) -> int | None:
    """List the plugins of the application that runs; `None` if none does.

    Args:
        directory: The application's directory, as the user gave it.
        core: Whether core plugins are listed too.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, _: Stop) -> None:
        rows = await client.plugins(core=core)
        if as_json:
            print_json([_listed(row) for row in rows])
        elif not rows:
            click.echo("no plugins")
        else:
            cells = [("NAME", "VERSION", "STATE", "TYPE", "DESCRIPTION")]
            cells += [
                (row.name, row.version or "-", _state(row), row.type, row.error or row.description)
                for row in rows
            ]
            print_table(cells, STATES)

    return ask_if_running(directory, show, debug=debug)


def _listed(row: PluginRow) -> dict[str, object]:
    """Return a plugin with the fields that `veko list` gives it when nothing runs."""
    return {
        "name": row.name,
        "version": row.version or None,
        "state": _state(row),
        "type": row.type,
        "description": row.description,
        "error": row.error,
    }


def _state(row: PluginRow) -> str:
    off = row.routes_off
    return f"{row.state}, {off} route{'s' * (off > 1)} off" if off else row.state


def _is_unwell(row: PluginRow) -> bool:
    return row.health in ("warning", "critical") or row.error is not None or row.routes_off > 0


def _lines(status: Status, unwell: Sequence[PluginRow]) -> Iterator[tuple[str, str]]:
    stats = status.stats
    yield "", click.style(f"{status.name} is {status.state}", bold=True)
    yield "since", f"{span_of_time(status.uptime)} ago, process {status.pid}"
    if len(status.workers) > 1:
        yield "workers", ", ".join(map(str, status.workers))
    yield "versions", f"Veko {status.version}, Python {status.python}"
    yield "plugins", f"{stats.loaded} loaded, {stats.active} active"
    yield (
        "has",
        (
            f"{stats.routes} routes, {stats.hook_callbacks} hooks, {stats.middleware} middleware, "
            f"{stats.commands} commands"
        ),
    )
    health = [
        click.style(f"{count} {name}", fg=_HEALTH[name])
        for name in ("critical", "warning")
        if (count := sum(one.health == name for one in unwell))
    ]
    yield "health", ", ".join(health) or "all plugins are healthy"
    if stats.errors:
        yield "errors", f"{stats.errors} since the start"
    yield "traces", "are kept" if status.tracing else "are off ([plugins.tracing] keep = 100)"


def span_of_time(seconds: float) -> str:
    """Return a duration in its two largest units, such as `3 min 12 s`."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
