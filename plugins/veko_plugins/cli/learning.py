"""What `veko serve --learn` says at the end: the permissions that plugins needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from veko_plugins.remote import Learned, write_learned, write_manifest

__all__ = ["show_learned"]


def show_learned(found: Sequence[Learned], root: Path, *, write: bool) -> None:
    """Show what differs from the manifests; write it there if that is wanted.

    Args:
        found: What was learned, by plugin.
        root: The application's directory.
        write: Whether to change `package.json` and `plugin.toml`.
    """
    if not found:
        click.echo(
            "Nothing was learned: no plugin is confined. Set enable_sandbox, or isolation in "
            "a plugin's manifest."
        )
    for one in found:
        lines = one.difference()
        file = write_learned(one, root)
        if not lines:
            click.echo(f"{one.plugin}: its permissions are what it needed")
            continue
        click.echo(f"{one.plugin}: its permissions differ from what it needed ({file})")
        for line in lines:
            click.echo("  " + "".join(c if c.isprintable() else "?" for c in line))
        if write and set(one.needed) != set(one.declared):
            _write(one)


def _write(one: Learned) -> None:
    try:
        file = write_manifest(one)
    except (OSError, ValueError) as error:
        click.echo(f"  not written: {error}", err=True)
        return
    if file is None:
        click.echo("  not written: it has no package.json or plugin.toml; edit its source")
    else:
        click.echo(f"  wrote {file}; run `veko allow {one.plugin}` if you use veko.lock")
