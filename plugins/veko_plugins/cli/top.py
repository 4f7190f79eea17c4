"""`veko top`: the slowest plugins and hooks of the running application, and failed requests."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import rich_click as click

from veko import NotFoundError, StateError
from veko_plugins.admin import AdminClient, AdminError, HookRow, PluginRow, Status, TraceRow

from .printing import STATES, print_json
from .runner import Stop
from .running import ask
from .status import span_of_time

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Snapshot", "show_top"]

_PLUGINS: Final = 20
"""The slowest plugins, whose hooks are asked for."""
_HOOKS: Final = 15
_WIDTH: Final = 200
"""Characters of a line where there is no terminal."""
_FAILED: Final = 8
_HEALTH: Final = {"warning": "yellow", "critical": "red"}


class Snapshot(msgspec.Struct, frozen=True):
    """What is shown at one time.

    Attributes:
        at: When it was taken.
        status: The application.
        plugins: Its plugins, the slowest first.
        hooks: Hooks of the slowest plugins that were called, the slowest first.
        failed: The last failed requests; `None` if no traces are kept.
    """

    at: datetime
    status: Status
    plugins: tuple[PluginRow, ...]
    hooks: tuple[HookRow, ...]
    failed: tuple[TraceRow, ...] | None


def show_top(
    directory: Path | None, *, interval: float, once: bool, as_json: bool, debug: bool
) -> int:
    """Show what is slow, until it is interrupted; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        interval: Seconds between two looks.
        once: Whether to show one snapshot only, as for a pipe.
        as_json: Whether to print one snapshot as JSON.
        debug: Whether errors are shown with their traceback.
    """
    once = once or as_json or not sys.stdout.isatty()

    async def show(client: AdminClient, stop: Stop) -> int:
        from rich.console import Console
        from rich.live import Live

        snapshot = await _snapshot(client)
        if as_json:
            print_json(snapshot)
            return 0
        console = Console(width=None if sys.stdout.isatty() else _WIDTH)
        if once:
            console.print(_screen(snapshot, {}))
            return 0
        stop.gently = True
        with Live(_screen(snapshot, {}), console=console, screen=True, auto_refresh=False) as live:
            live.refresh()
            while not stop.asked.is_set():
                before, begin = snapshot, time.monotonic()
                try:
                    await asyncio.wait_for(stop.asked.wait(), interval)
                except TimeoutError:
                    try:
                        snapshot = await _snapshot(client)
                    except (NotFoundError, StateError):
                        break
                    passed = time.monotonic() - begin
                    live.update(_screen(snapshot, _rates(before, snapshot, passed)), refresh=True)
        if not stop.asked.is_set():
            click.echo("veko: the application has ended", err=True)
            return 1
        return 0

    return ask(directory, show, debug=debug, ends=not once)


async def _snapshot(client: AdminClient) -> Snapshot:
    status = await client.status()
    plugins = sorted(await client.plugins(), key=_slowness, reverse=True)
    hooks: list[HookRow] = []
    for row in plugins[:_PLUGINS]:
        if row.calls:
            try:
                found = (await client.plugin(row.name)).hooks
            except AdminError:  # it was unloaded meanwhile
                continue
            hooks += [hook for hook in found if hook.calls]
    hooks.sort(key=lambda hook: hook.p95 or 0.0, reverse=True)
    failed = None
    if status.tracing:  # loads that failed are among them, too
        rows = await client.traces(limit=10 * _FAILED, failed=True)
        failed = tuple(row for row in rows if row.status is not None)[:_FAILED]
    return Snapshot(datetime.now(UTC), status, tuple(plugins), tuple(hooks[:_HOOKS]), failed)


def _slowness(row: PluginRow) -> tuple[float, float]:
    return row.p99 or 0.0, row.blocked_seconds or 0.0


def _rates(before: Snapshot, now: Snapshot, seconds: float) -> dict[str, float]:
    """Return the calls of each plugin in a second; a reload begins to count again."""
    former = {row.name: row.calls or 0 for row in before.plugins}
    return {
        row.name: max(0, (row.calls or 0) - former.get(row.name, 0)) / seconds
        for row in now.plugins
        if row.calls is not None
    }


def _screen(snapshot: Snapshot, rates: Mapping[str, float]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(*_parts(snapshot, rates), Text(""))


def _parts(snapshot: Snapshot, rates: Mapping[str, float]) -> Iterator[RenderableType]:
    from rich.text import Text

    status = snapshot.status
    yield Text(
        f"{status.name}, {status.state} for {span_of_time(status.uptime)}, process {status.pid}, "
        f"{snapshot.at.astimezone():%H:%M:%S}",
        style="bold",
    )
    yield _plugins(snapshot, rates)
    if snapshot.hooks:
        yield _hooks(snapshot)
    if snapshot.failed is None:
        yield Text("Failed requests are shown if traces are kept: [plugins.tracing] keep = 100")
    elif snapshot.failed:
        yield _failed(snapshot.failed)
    else:
        yield Text("no failed requests among the traces that are kept")


def _table(*columns: str, texts: int) -> Table:
    """Return a table whose first columns are texts, and the others numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < texts else "right", no_wrap=True)
    return table


def _plugins(snapshot: Snapshot, rates: Mapping[str, float]) -> Table:
    from rich.text import Text

    table = _table(
        "PLUGIN", "STATE", "HEALTH", "CALLS", "CALLS/S", "P50", "P95", "P99", "CPU", "BLOCKED",
        "ERRORS", texts=3,
    )  # fmt: skip
    for row in snapshot.plugins:
        rate = rates.get(row.name)
        table.add_row(
            Text(row.name),
            Text(row.state, style=STATES.get(row.state, "")),
            Text(row.health or "-", style=_HEALTH.get(row.health or "", "")),
            _count(row.calls),
            "-" if rate is None else f"{rate:,.1f}",
            _time(row.p50),
            _time(row.p95),
            _time(row.p99),
            "-" if row.cpu is None else f"{row.cpu:.1%}",
            _time(row.blocked_seconds or None),
            Text(_count(row.error_count), style="red" if row.errors else ""),
        )
    return table


def _hooks(snapshot: Snapshot) -> Table:
    from rich.text import Text

    table = _table("EVENT", "HANDLER", "PLUGIN", "CALLS", "P95", "ERRORS", texts=3)
    for hook in snapshot.hooks:
        table.add_row(
            Text(hook.event),
            Text(hook.handler),
            Text(hook.plugin or "-"),
            _count(hook.calls),
            _time(hook.p95),
            Text(_count(hook.errors), style="red" if hook.errors else ""),
        )
    return table


def _failed(rows: tuple[TraceRow, ...]) -> Table:
    from rich.text import Text

    table = _table("FAILED REQUEST", "TIME", "PLUGINS", "STATUS", "TOOK", texts=3)
    for row in rows:
        table.add_row(
            Text(row.name),
            f"{row.begin.astimezone():%H:%M:%S}",
            Text(", ".join(row.plugins)),
            str(row.status or "-"),
            _time(row.duration),
            style="red",
        )
    return table


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
