"""`veko allow`: writes to `veko.lock` what plugins are and may do, and says what is new in it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import rich_click as click

from veko import Manifest, NotFoundError, VekoError
from veko_plugins import Options
from veko_plugins._lib.manifests import findings, manifest_error
from veko_plugins._lib.versions import did_you_mean
from veko_plugins._source.source import Source
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.remote import Entry, Lock, Permissions, changes, digest

from .application import options_of
from .printing import print_json
from .runner import Stop, print_error, run_quiet

__all__ = ["allow_plugins"]


def allow_plugins(
    directory: Path | None, names: Sequence[str], *, everything: bool, as_json: bool, debug: bool
) -> int:
    """Allow what plugins of an application ask for; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        names: The plugins; none: show what differs and change nothing.
        everything: Whether all plugins are allowed, and those that are gone forgotten.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    logs = Logging()
    try:
        options = options_of(directory, logs)
        root: Path = options["root"]
        read = Options.read(root)
        lock = Lock.read(root) or Lock(root / "veko.lock")
    except VekoError as error:
        print_error(error, debug=debug)
        return 2
    service = Permissions(root, sandbox=read.enable_sandbox, check=False)
    options["core"] = {**options["core"], "permissions": service}
    options |= {"locked": False, "learn": False, "auto_load": False, "required": ()}
    options |= {"watch_mode": False, "storage": "sqlite:///:memory:"}

    async def work(_: Stop) -> int:
        with contextlib.redirect_stdout(sys.stderr):
            manager = PluginManager(**options)
            await manager.start()
        try:
            sources = {one.name: one for one in manager.use("discovery").scan().sources}
            unknown = [name for name in names if name not in sources]
            if unknown:
                near = did_you_mean(unknown[0], sources)
                raise NotFoundError(f"there is no plugin {unknown[0]!r}", remedy=near or None)
            found = {
                name: await _entry(manager, service, source)
                for name, source in sources.items()
                if everything or not names or name in names
            }
        finally:
            with contextlib.redirect_stdout(sys.stderr):
                await manager.stop()
        return _finish(lock, found, names, everything=everything, as_json=as_json)

    return run_quiet(logs, work, "error", debug=debug)


async def _entry(manager: PluginManager, service: Permissions, source: Source) -> Entry:
    fields: dict[str, Any] = dict(source.fields)
    if source.outline is not None:
        fields |= source.outline.fields | {"version": source.outline.version}
    else:
        with contextlib.redirect_stdout(sys.stderr):
            async with manager.use("loading").preview(source) as plugin:
                fields = {
                    one.name: getattr(plugin.manifest, one.name)
                    for one in msgspec.structs.fields(Manifest)
                }
    given = {"permissions": tuple(fields.get("permissions") or ())}
    faults = findings(given).errors
    if faults:
        raise manifest_error(faults, plugin=source.name, path=source.path)
    return service.entry(source, fields, await anyio.to_thread.run_sync(digest, source))


def _finish(
    lock: Lock,
    found: dict[str, Entry],
    names: Sequence[str],
    *,
    everything: bool,
    as_json: bool,
) -> int:
    kept = {} if everything or not names else lock.entries
    after = {**kept, **found}
    lines = list(changes(lock.entries, after))
    writes = bool(lines) and (everything or bool(names))
    if writes:
        lock.entries = after
        lock.write()
    if as_json:
        print_json({"changes": lines, "written": str(lock.path) if writes else None})
        return int(bool(lines) and not writes)
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo(f"{lock.path.name} is up to date")
    elif writes:
        click.echo(f"wrote {lock.path}")
    else:
        click.echo("Nothing was changed. Name the plugins to allow, or use --all.")
        return 1
    return 0
