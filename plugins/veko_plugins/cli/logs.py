"""`veko logs`: the last log records of the running application, and those that follow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import rich_click as click

from veko import NotFoundError, StateError
from veko_plugins.admin import AdminClient, LogRow

from .runner import Stop
from .running import ask

__all__ = ["show_logs"]

_EACH: Final = 0.5
"""Seconds between two looks while it follows."""
_MOST: Final = 1_000
_COLOURS: Final = {
    "critical": "red", "error": "red", "warning": "yellow", "success": "green",
    "debug": "bright_black",
}  # fmt: skip


def show_logs(
    directory: Path | None,
    *,
    follow: bool,
    level: str | None,
    plugin: str | None,
    count: int,
    as_json: bool,
    debug: bool,
) -> int:
    """Print log records of the application that runs; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        follow: Whether to continue with those that come.
        level: Only those of this level or above.
        plugin: Only those about this plugin.
        count: How many of the last.
        as_json: Whether to print a JSON object for each.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, stop: Stop) -> int:
        rows: Sequence[LogRow] = ()
        if count:
            rows = await client.log(level=level, plugin=plugin, limit=count)
        _print(rows, as_json=as_json)
        if not follow:
            return 0
        stop.gently = True
        last = max((row.id for row in await client.log(limit=1)), default=0)
        last = max(last, *(row.id for row in rows), 0)
        while not stop.asked.is_set():
            try:
                rows = await client.log(after=last, level=level, plugin=plugin, limit=_MOST)
            except (NotFoundError, StateError):
                click.echo("veko: the application has ended", err=True)
                return 1
            _print(rows, as_json=as_json)
            last = max((row.id for row in rows), default=last)
            try:
                await asyncio.wait_for(stop.asked.wait(), _EACH)
            except TimeoutError:
                continue
        return 0

    return ask(directory, show, debug=debug, ends=follow)


def _print(rows: Iterable[LogRow], *, as_json: bool) -> None:
    for row in rows:
        if as_json:
            click.echo(msgspec.json.encode(row))
            continue
        about = row.plugin or row.logger
        level = click.style(row.level.ljust(8), fg=_COLOURS.get(row.level))
        time = row.time.astimezone()
        click.echo(f"{time:%H:%M:%S} {level} {about}  {_plain(row.message)}")
        if row.traceback:
            for line in row.traceback.splitlines():
                click.echo(f"    {_plain(line)}")


def _plain(text: str) -> str:
    """Return a text without what controls a terminal."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)
