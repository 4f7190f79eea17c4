"""What `veko serve --learn` says at the end: the permissions that plugins needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from veko_plugins.remote import Learned, write_learned, write_manifest

from .lines import lines

__all__ = ["show_learned"]


def show_learned(found: Sequence[Learned], root: Path, *, write: bool) -> None:
    """Show what differs from the manifests; write it there if that is wanted.

    Args:
        found: What was learned, by plugin.
        root: The application's directory.
        write: Whether to change `package.json` and `plugin.toml`.
    """
    if not found:
        lines.say(
            "Nothing was learned: no plugin is confined. Set enable_sandbox, or isolation in "
            "a plugin's manifest."
        )
    for one in found:
        differences = one.difference()
        file = write_learned(one, root)
        if not differences:
            lines.say(f"{one.plugin}: its permissions are what it needed")
            continue
        lines.say(f"{one.plugin}: its permissions differ from what it needed ({file})")
        for line in differences:
            lines.say("  " + "".join(c if c.isprintable() else "?" for c in line))
        if write and set(one.needed) != set(one.declared):
            _write(one)


def _write(one: Learned) -> None:
    try:
        file = write_manifest(one)
    except (OSError, ValueError) as error:
        lines.say(f"  not written: {error}", "error")
        return
    if file is None:
        lines.say("  not written: it has no package.json or plugin.toml; edit its source")
    else:
        lines.say(f"  wrote {file}; run `veko allow {one.plugin}` if you use veko.lock")
