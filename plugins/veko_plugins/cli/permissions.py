"""`veko list --permissions`: what plugins ask for, are allowed, have used and were refused.

Nothing is loaded: what was used and refused is what a served application has written to
`.veko/accesses.json`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import rich_click as click

from veko import VekoError
from veko_plugins import Options
from veko_plugins._lib.masking import masked_text
from veko_plugins._lib.regular_files import MAX_SETTINGS, read_regular
from veko_plugins._source.source import Source
from veko_plugins.discovery import Discovery
from veko_plugins.logging import Logging
from veko_plugins.remote import ACCESSES, Access, Lock, Permissions

from .application import options_of
from .runner import print_error

__all__ = ["list_permissions"]


class PermissionRow(msgspec.Struct, frozen=True):
    """A plugin as `veko list --permissions` shows it.

    Attributes:
        name: Its name.
        confined: Whether it is confined; otherwise its permissions are advice.
        declared: What it asks for; `None` if only running it can say.
        allowed: What `veko.lock` allows it; `None` if it is not there.
        used: How often it did what is granted.
        refused: How often it was refused.
        accesses: What it did, and was refused.
    """

    name: str
    confined: bool
    declared: tuple[str, ...] | None
    allowed: tuple[str, ...] | None
    used: int
    refused: int
    accesses: tuple[Access, ...] = ()


def list_permissions(directory: Path | None, *, as_json: bool, debug: bool) -> int:
    """List what plugins may do; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    try:
        given = options_of(directory, Logging())
        root: Path = given["root"]
        read = Options.read(root)
        folders = (given["plugins_dir"],) if "plugins_dir" in given else read.plugins_dir
        lock = Lock.read(root)
        sources = Discovery(folders, allow_symlinks=read.allow_symlinks).scan().sources
    except VekoError as error:
        print_error(error, debug=debug)
        return 2
    service = Permissions(root, sandbox=read.enable_sandbox)
    accesses = _accesses(root)
    rows = [_row(source, service, lock, accesses) for source in sources]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return 0
    if not rows:
        click.echo("no plugins")
    for row in rows:
        _show(row)
    return 0


def _accesses(root: Path) -> dict[str, list[Access]]:
    try:
        data = read_regular(root / ".veko" / ACCESSES, MAX_SETTINGS)
        return msgspec.json.decode(data, type=dict[str, list[Access]])
    except (OSError, msgspec.DecodeError):
        return {}  # nothing was served yet


def _row(
    source: Source, service: Permissions, lock: Lock | None, accesses: dict[str, list[Access]]
) -> PermissionRow:
    fields = source.fields | (source.outline.fields if source.outline is not None else {})
    entry = service.entry(source, fields)
    allowed = lock.entries.get(source.name) if lock is not None else None
    found = accesses.get(source.name, [])
    known = source.outline is not None or "permissions" in source.fields
    return PermissionRow(
        name=source.name,
        confined=entry.confined,
        declared=entry.permissions if known else None,
        allowed=None if allowed is None else allowed.permissions,
        used=sum(one.times for one in found if one.granted),
        refused=sum(one.times for one in found if not one.granted),
        accesses=tuple(found),
    )


def _show(row: PermissionRow) -> None:
    facts = ["confined" if row.confined else "not confined"]
    if row.declared is None:
        facts.append("asks for what only running it says")
    if row.allowed is None:
        facts.append("not in veko.lock")
    if row.used or row.refused:
        facts.append(f"used {row.used:,} times, refused {row.refused:,} times")
    click.echo(f"{row.name}  ({', '.join(facts)})")
    allowed = set(row.allowed or ())
    for permission in row.declared or ():
        missing = row.allowed is not None and permission not in allowed
        click.echo(f"  {permission}" + ("  (not allowed yet)" if missing else ""))
    for access in row.accesses:
        if not access.granted:
            where = f", last at {access.where}" if access.where else ""
            text = f"  refused {access.kind}:{access.value}  {access.times:,}×{where}"
            click.echo("".join(c if c.isprintable() else "?" for c in masked_text(text)))
