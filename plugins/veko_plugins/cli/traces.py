"""`veko trace`, asked of the running application: its last traces, and the slowest hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import rich_click as click

from veko import NotFoundError, StateError
from veko_plugins.admin import AdminClient, AdminError, SpanRow, Trace

from .printing import print_json, print_table
from .runner import Stop
from .running import ask

__all__ = ["show_running_traces"]

_EACH: Final = 1.0
"""Seconds between two looks while it follows."""
_SLOWEST: Final = 5
_LONGEST: Final = 120
_FAILURE: Final = 500


def show_running_traces(
    directory: Path | None,
    *,
    limit: int,
    failed: bool,
    follow: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Show the last traces of the application that runs; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        limit: How many at most.
        failed: Only those in which something failed.
        follow: Whether to continue with those that come.
        as_json: Whether to print JSON; an object for each trace if it follows.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, stop: Stop) -> int:
        seen: set[str] = set()
        found = await _new(client, seen, limit, failed=failed)
        if not follow:
            if as_json:
                print_json(found)
            else:
                _show(found)
                _show_slowest(found)
                if not found:
                    click.echo("no traces are kept yet")
            return 0
        stop.gently = True
        while not stop.asked.is_set():
            if as_json:
                for one in found:
                    click.echo(msgspec.json.encode(one))
            else:
                _show(found)
            try:
                await asyncio.wait_for(stop.asked.wait(), _EACH)
            except TimeoutError:
                try:
                    found = await _new(client, seen, limit, failed=failed)
                except (NotFoundError, StateError):
                    click.echo("veko: the application has ended", err=True)
                    return 1
        return 0

    return ask(directory, show, debug=debug, ends=follow)


async def _new(client: AdminClient, seen: set[str], limit: int, *, failed: bool) -> list[Trace]:
    """Return the traces that were not seen before, the newest last."""
    found = []
    rows = await client.traces(limit=limit, failed=failed)
    for row in reversed(rows):
        if row.id not in seen:
            try:
                found.append(await client.trace(row.id))
            except AdminError:  # it is not kept any more
                continue
    seen.clear()
    seen.update(row.id for row in rows)
    return found


def _show(found: Iterable[Trace]) -> None:
    for one in found:
        click.echo(f"trace {one.trace.id}  {one.trace.begin.astimezone():%H:%M:%S}")
        for line in _tree(one.spans):
            click.echo(f"  {line}")


def _tree(spans: Sequence[SpanRow]) -> Iterator[str]:
    below: dict[str | None, list[SpanRow]] = {}
    for span in spans:
        below.setdefault(span.parent, []).append(span)
    pending = [(span, 0) for span in reversed(below.get(None, []))]
    while pending:
        span, depth = pending.pop()
        line = f"{span.duration * 1e3:9.3f} ms  {'  ' * depth}{_plain(span.name)}"
        status = span.attributes.get("http.response.status_code")
        has_failed = span.failed or (isinstance(status, int) and status >= _FAILURE)
        line += f"  {status}" if status is not None else ""
        if has_failed:
            why = _why(span)
            line = click.style(f"{line}  failed{why and f': {why}'}", fg="red")
        yield line
        pending += [(one, depth + 1) for one in reversed(below.get(span.id, []))]


def _why(span: SpanRow) -> str:
    """Return why a span failed, if it says so."""
    given = span.attributes.get("otel.status_description") or span.attributes.get("error.type")
    return _plain(str(given or ""))


def _show_slowest(found: Iterable[Trace]) -> None:
    """Show the hooks on which most time was spent."""
    times: dict[tuple[str, str], list[float]] = {}
    for one in found:
        for span in one.spans:
            if span.plugin and span.parent is not None:
                times.setdefault((span.name, span.plugin), []).append(span.duration)
    slowest = sorted(times.items(), key=lambda item: sum(item[1]), reverse=True)[:_SLOWEST]
    if slowest:
        click.echo("\nthe slowest in these traces")
        rows = [
            (_plain(name), plugin, str(len(all_)), f"{sum(all_) * 1e3:.3f} ms",
             f"{max(all_) * 1e3:.3f} ms")
            for (name, plugin), all_ in slowest
        ]  # fmt: skip
        print_table([("NAME", "PLUGIN", "CALLS", "TOTAL", "LONGEST"), *rows])


def _plain(text: str) -> str:
    """Return the beginning of a text that an application sent, without what controls a terminal."""
    shown = text[:_LONGEST] + ("…" if len(text) > _LONGEST else "")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in shown)
