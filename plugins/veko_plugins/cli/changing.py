"""Changes of the running application: planned, done, listed and taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import rich_click as click

from veko_plugins.admin import AdminClient, Change, Coming, Plan

from .printing import print_json, print_table
from .runner import Stop
from .running import ask

__all__ = ["change", "configure", "show_changes", "show_config", "undo", "value_of"]

_STEPS: Final = {
    "load": "loads", "unload": "unloads", "reload": "reloads", "activate": "is switched on",
    "deactivate": "is switched off", "configure": "is configured",
}  # fmt: skip


def change(
    directory: Path | None,
    method: str,
    path: tuple[str, ...],
    body: object = msgspec.UNSET,
    *,
    plan: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Change the application that runs, or say what would happen; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        method: The method of the management API.
        path: The segments of the path.
        body: What the verb takes.
        plan: Whether only to say what would happen.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def work(client: AdminClient, _: Stop) -> None:
        answer = await _change(client, method, path, body, plan=plan)
        _show(answer, as_json=as_json)

    return ask(directory, work, debug=debug)


async def _change(
    client: AdminClient,
    method: str,
    path: tuple[str, ...],
    body: object,
    *,
    plan: bool,
    headers: Mapping[str, str] | None = None,
) -> Plan | Change:
    data, _ = await client.request(
        method,
        "/".join(quote(segment, safe="") for segment in path),
        query={"plan": True} if plan else None,
        body=body,
        headers=headers,
    )
    kind: type[Plan | Change] = Plan if plan else Change
    return msgspec.json.decode(data, type=kind)


def _show(answer: Plan | Change, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    plan = answer if isinstance(answer, Plan) else answer.plan
    for line in _lines(plan, "would happen" if plan is answer else "done"):
        click.echo(line)
    if answer.undoable and isinstance(answer, Change):
        click.echo(f"Take it back with: veko undo {answer.id}")
    elif not answer.undoable and answer.why_not:
        click.echo(f"It cannot be taken back: {answer.why_not}")


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
        yield f"  not known before its code has run: {', '.join(plan.unknown)}"
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
        found = await _changes(client)
        if as_json:
            print_json(found)
        elif not found:
            click.echo("nothing was changed since the start")
        else:
            rows = [
                (one.id, f"{one.at.astimezone():%H:%M:%S}", one.verb, one.target, _undo_of(one),
                 one.who)
                for one in found
            ]  # fmt: skip
            print_table([("ID", "TIME", "VERB", "TARGET", "UNDO", "WHO"), *rows])

    return ask(directory, show, debug=debug)


async def _changes(client: AdminClient) -> tuple[Change, ...]:
    data, _ = await client.request("GET", "changes")
    return msgspec.json.decode(data, type=tuple[Change, ...])


def _undo_of(done: Change) -> str:
    if done.undone is not None:
        return f"by {done.undone}"
    return "possible" if done.undoable else done.why_not or "no"


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
            found = [
                one
                for one in await _changes(client)
                if one.undoable and one.undone is None and one.verb != "undo"
            ]
            if not found:
                click.echo("veko: there is nothing to take back", err=True)
                return 1
            id_ = max(found, key=lambda one: one.at).id
        answer = await _change(client, "POST", ("changes", id_, "undo"), msgspec.UNSET, plan=plan)
        _show(answer, as_json=as_json)
        return 0

    return ask(directory, work, debug=debug)


def show_config(directory: Path | None, plugin: str, path: str | None, *, debug: bool) -> int:
    """Print a configuration, or the part of it at a path, as JSON; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        plugin: The plugin.
        path: Names between dots: `smtp.host`.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, _: Stop) -> None:
        target = "/".join(quote(one, safe="") for one in config_path(plugin, path))
        data, _headers = await client.request("GET", target)
        print_json(json.loads(data)["value"])

    return ask(directory, show, debug=debug)


def configure(
    directory: Path | None,
    plugin: str,
    path: str | None,
    value: object,
    *,
    plan: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Set a configuration or a part of it, or remove that part; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        plugin: The plugin.
        path: Names between dots; `None` for the whole.
        value: The value; `UNSET` to remove it.
        plan: Whether only to say what would happen.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def work(client: AdminClient, _: Stop) -> None:
        whole = "/".join(quote(one, safe="") for one in config_path(plugin, None))
        _data, headers = await client.request("GET", whole)
        # What another operator changes meanwhile is not overwritten.
        known = {"if-match": headers["etag"]} if "etag" in headers else {}
        verb = "DELETE" if value is msgspec.UNSET else "PUT"
        answer = await _change(
            client, verb, config_path(plugin, path), value, plan=plan, headers=known
        )
        _show(answer, as_json=as_json)

    return ask(directory, work, debug=debug)


def config_path(plugin: str, path: str | None) -> tuple[str, ...]:
    """Return the segments of the path of a configuration, or of a part of it."""
    return ("plugins", plugin, "config", *(path.split(".") if path else ()))


def value_of(text: str) -> Any:
    """Return a value as it was written on a command line: JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
