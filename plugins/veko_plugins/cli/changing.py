"""Changes of the running application: planned, done, listed and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import rich_click as click

from veko_plugins.admin import AdminClient, Change, Coming, Intent, Plan, Undo

from .printing import print_json, print_table
from .progress import progress
from .runner import Stop
from .running import ask

__all__ = ["change", "make_change", "show_changes", "show_config", "undo"]

_STEPS: Final = {
    "load": "loads", "unload": "unloads", "reload": "reloads", "activate": "is switched on",
    "deactivate": "is switched off", "configure": "is configured",
}  # fmt: skip


def change(
    directory: Path | None, intent: Intent, *, plan: bool, as_json: bool, debug: bool
) -> int:
    """Change the application that runs, or say what would happen; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        intent: The change.
        plan: Whether only to say what would happen.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def work(client: AdminClient, _: Stop) -> None:
        await make_change(client, intent, plan=plan, as_json=as_json)

    return ask(directory, work, debug=debug)


async def make_change(client: AdminClient, intent: Intent, *, plan: bool, as_json: bool) -> None:
    """Make a change, or plan it, and print the outcome."""
    with progress(lambda: "the application works on it"):
        answer = await (client.plan(intent) if plan else client.apply(intent))
    if as_json:
        print_json(answer)
        return
    if isinstance(answer, Plan):
        title, planned = "would happen", answer
    else:
        title, planned = "done", answer.plan
    for line in _lines(planned, title):
        click.echo(line)
    if not answer.undoable and answer.why_not:
        click.echo(f"It cannot be taken back: {answer.why_not}")
    elif isinstance(answer, Change):
        click.echo(f"Take it back with: veko undo {answer.id}")


def _lines(plan: Plan, title: str) -> Iterator[str]:
    yield click.style(f"{plan.verb} {plan.target}: {title}", bold=True)
    for one in plan.plugins:
        version = f" {one.version}" if one.version else ""
        yield f"  {one.name}{version} {_STEPS.get(one.step, one.step)}"
    for path in plan.changes:
        yield f"  {path} changes"
    parts = (
        ("route", plan.routes), ("hook", plan.hooks), ("service", plan.services),
        ("command", plan.commands),
    )  # fmt: skip
    for what, coming in parts:
        yield from _coming(what, coming)
    for plugin, grown in plan.permissions.items():
        for permission in grown:
            yield click.style(f"  {plugin} may also {permission}", fg="yellow")
    if plan.unknown:
        yield f"  known only after its code has run: {', '.join(plan.unknown)}"
    for warning in plan.warnings:
        yield click.style(f"  warning: {warning}", fg="yellow")


def _coming(what: str, coming: Coming) -> Iterator[str]:
    for name in coming.come:
        yield click.style(f"  + {what} {name}", fg="green")
    for name in coming.go:
        yield click.style(f"  - {what} {name}", fg="red")


def show_changes(directory: Path | None, *, as_json: bool, debug: bool) -> int:
    """List the changes that were done; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, _: Stop) -> None:
        found = await client.changes()
        if as_json:
            print_json(found)
        elif not found:
            click.echo("nothing was changed since the start")
        else:
            rows = [
                (one.id, f"{one.at.astimezone():%H:%M:%S}", one.verb, one.target, one.who,
                 _undo_of(one))
                for one in found
            ]  # fmt: skip
            print_table([("ID", "TIME", "VERB", "TARGET", "WHO", "UNDO"), *rows])

    return ask(directory, show, debug=debug)


def _undo_of(done: Change) -> str:
    if done.undone is not None:
        return f"was taken back by {done.undone}"
    return "possible" if done.undoable else done.why_not or "not possible"


def undo(
    directory: Path | None, wanted: str | None, *, plan: bool, as_json: bool, debug: bool
) -> int:
    """Take a change back; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        wanted: The change; `None` for the last one that can be taken back.
        plan: Whether only to say what would happen.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def work(client: AdminClient, _: Stop) -> int:
        id_ = wanted
        if id_ is None:
            done = (one for one in await client.changes() if one.verb != "undo")
            id_ = next((one.id for one in done if one.undoable and one.undone is None), None)
        if id_ is None:
            click.echo("veko: there is nothing to take back", err=True)
            return 1
        await make_change(client, Undo(id_), plan=plan, as_json=as_json)
        return 0

    return ask(directory, work, debug=debug)


def show_config(directory: Path | None, plugin: str, path: tuple[str, ...], *, debug: bool) -> int:
    """Print a configuration, or the part of it at a path, as JSON; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        plugin: The plugin.
        path: The names that lead to the part.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, _: Stop) -> None:
        print_json((await client.config(plugin, path)).value)

    return ask(directory, show, debug=debug)
