"""What the shell offers behind TAB: adapters, plugins, their commands; and `veko completion`.

The running application is asked, if there is one. Otherwise nothing of a plugin runs: names and
commands are read from sources. A command whose name is computed is not found there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import rich_click as click
from click.shell_completion import CompletionItem, get_completion_class

if TYPE_CHECKING:
    from veko_plugins.admin import AdminClient

__all__ = ["complete_adapters", "complete_commands", "complete_plugins", "completion"]

_SHELLS: Final = ("bash", "zsh", "fish")
_NAME: Final = re.compile(r"""(?:\badd_command|\baddCommand|\.command)\(\s*(["'])([^"'\s]+)\1""")
_MOST: Final = 200
"""Files of one plugin that are searched for commands."""
_PATIENCE: Final = 1.0
"""Seconds within which a running application has to answer."""
_T = TypeVar("_T")
_LARGEST: Final = 1_000_000
_SUFFIXES: Final = (".py", ".js", ".mjs", ".cjs", ".ts", ".mts")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print the script that completes commands, options and names in SHELL.

    SHELL is bash, zsh or fish; by default the one in the variable SHELL.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(name)
    if name not in _SHELLS or found is None:
        raise click.UsageError("Name the shell: bash, zsh or fish.")
    click.echo(found(context.find_root().command, {}, "veko", "_VEKO_COMPLETE").source().strip())


def complete_adapters(
    context: click.Context, parameter: click.Parameter, begin: str
) -> list[CompletionItem]:
    """Offer the HTTP adapters that are installed."""
    from importlib.metadata import entry_points

    return _items({point.name: "" for point in entry_points(group="veko.adapters")}, begin)


def complete_plugins(
    context: click.Context, parameter: click.Parameter, begin: str
) -> list[CompletionItem]:
    """Offer the application's plugins."""
    given = context.params.get(parameter.name or "") or ()
    taken = {given} if isinstance(given, str) else set(given)
    names = {name for name, _ in _plugins(context)}
    asked = _ask(context, lambda client: client.plugins())
    names |= {row.name for row in asked or ()}
    return _items(dict.fromkeys(names - taken, ""), begin)


def complete_commands(
    context: click.Context, parameter: click.Parameter, begin: str
) -> list[CompletionItem]:
    """Offer the commands of the application's plugins."""
    asked = _ask(context, lambda client: client.commands())
    if asked is not None:
        return _items({row.name: row.description or row.plugin for row in asked}, begin)
    found = {
        command: plugin
        for plugin, path in _plugins(context)
        if path is not None
        for command in sorted(_commands(path))
    }
    return _items(found, begin)


def _ask(context: click.Context, work: Callable[[AdminClient], Awaitable[_T]]) -> _T | None:
    """Ask the running application; `None` if there is none, or it does not answer at once."""
    import asyncio

    from veko import VekoError
    from veko_plugins.admin import AdminClient

    async def ask() -> _T:
        return await work(AdminClient.local(root, timeout=_PATIENCE))

    root = Path(context.params.get("directory") or ".").resolve()
    if not (root / ".veko" / "control").is_dir():
        return None
    try:
        return asyncio.run(ask())
    except VekoError:
        return None


def _items(found: dict[str, str], begin: str) -> list[CompletionItem]:
    return [
        CompletionItem(name, help=text or None)
        for name, text in sorted(found.items())
        if name.startswith(begin)
    ]


def _plugins(context: click.Context) -> Iterator[tuple[str, Path | None]]:
    """Yield the names of plugins and their files; nothing if there is no valid application."""
    from veko import VekoError
    from veko_plugins.discovery import Discovery
    from veko_plugins.logging import Logging
    from veko_plugins.options import Options

    from .application import options_of

    try:
        given = options_of(context.params.get("directory"), Logging())
        read = Options.read(given["root"])
        folders = (given["plugins_dir"],) if "plugins_dir" in given else read.plugins_dir
        found = Discovery(folders, allow_symlinks=read.allow_symlinks, missing_ok=True).scan()
    except VekoError:
        return
    for source in found.sources:
        yield source.name, source.path


def _commands(path: Path) -> Iterable[str]:
    files = [path] if path.is_file() else _files(path)
    for file in files:
        try:
            if file.stat().st_size <= _LARGEST:
                text = file.read_text("utf-8", "replace")
                yield from (match[2] for match in _NAME.finditer(text))
        except OSError:
            continue  # it was removed meanwhile, or this user may not read it


def _files(folder: Path) -> Iterator[Path]:
    left = _MOST
    for here, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one[0] not in "._" and one != "node_modules"]
        for name in names:
            if name.endswith(_SUFFIXES):
                yield Path(here, name)
                left -= 1
                if left == 0:
                    return
