"""The application of a replay: that of the command, with nothing that outlives it.

The storage, the cache and the database are in memory, so a replay changes nothing of the real ones.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import rich_click as click

from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.options import Options
from veko_plugins.recording import (
    Clients,
    Failure,
    Hosted,
    Recording,
    RecordingError,
    Replay,
    read_recording,
    set_up,
)
from veko_plugins.testing import Closed, WebSocket, request

__all__ = ["application", "chosen_failure", "latest", "others_of", "read", "try_out"]

_CLIENTS: Final = Clients(request, WebSocket, Closed)
_NEVER: Final = 10**9


def read(path: Path) -> Recording:
    """Read a recording, and say if it is cut short.

    Raises:
        RecordingError: It cannot be read.
    """
    recording = read_recording(path)
    if recording.cut is not None:
        click.echo(f"veko: {recording.cut}", err=True)
    return recording


def latest(folder: Path) -> Path:
    """Return the newest recording in a folder.

    Raises:
        RecordingError: There is none.
    """
    files = sorted(folder.glob("*.vekorec")) if folder.is_dir() else []
    if not files:
        raise RecordingError(
            "there is no recording",
            path=folder,
            remedy="[plugins.recording] in veko.toml makes one when a plugin fails.",
        )
    return files[-1]


def chosen_failure(recording: Recording, number: int | None) -> Failure:
    """Return a failure of a recording: the one with a number, or the last.

    Raises:
        RecordingError: There is none.
    """
    found = [one for one in recording.failures if number in (None, one.number)]
    if not found:
        known = ", ".join(str(one.number) for one in recording.failures)
        raise RecordingError(
            "it holds no failure" if number is None else f"it holds no failure {number}",
            path=recording.path,
            remedy=f"There are: {known}." if known else "",
        )
    return found[-1]


def others_of(given: Collection[str]) -> dict[str, Path]:
    """Return the other files that `--with PLUGIN=PATH` names.

    Raises:
        RecordingError: One is not of that form, or does not exist.
    """
    found: dict[str, Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not (name and equals and path):
            raise RecordingError(f"--with {one}: write --with PLUGIN=PATH")
        if not Path(path).exists():
            raise RecordingError(f"--with {one}: {path} does not exist")
        found[name] = Path(path).absolute()
    return found


@contextlib.asynccontextmanager
async def application(
    recording: Recording,
    directory: Path | None,
    logs: Logging,
    plugins: Collection[str] | None = None,
    others: Mapping[str, Path] | None = None,
) -> AsyncIterator[tuple[PluginManager, Replay, Hosted]]:
    """Run an application with the plugins of a recording.

    Args:
        recording: The recording.
        directory: The application's directory; by default the recorded one, if it is here.
        logs: The log handlers of the command.
        plugins: Which plugins; `None` for all.
        others: Other files for some of them.
    """
    with tempfile.TemporaryDirectory() as nowhere, contextlib.redirect_stdout(sys.stderr):
        root = (directory or Path(recording.header.root)).absolute()
        root = root if root.is_dir() else Path(nowhere)
        manager = PluginManager(**_options(root, recording, logs))
        async with manager:
            replay = Replay(manager, _CLIENTS)
            async with replay.watching():
                yield manager, replay, await set_up(manager, replay, recording, plugins, others)


def _options(root: Path, recording: Recording, logs: Logging) -> dict[str, Any]:
    options: dict[str, Any] = {
        "root": root, "auto_load": False, "required": (), "watch_mode": False, "max_retries": 0,
        "watchdog": 0, "storage": "memory:", "otlp": None, "error_threshold": _NEVER,
        "warn_threshold": _NEVER, "adapter": recording.header.adapter, "probation": 0,
        "core": {"logging": logs, "state": None, "backup": None, "recording": None},
    }  # fmt: skip
    given = Options.read(root)
    if given.cache is not None:
        options["cache"] = "memory:"
    if given.database is not None:
        options["database"] = "sqlite:///:memory:"
    return options


@contextlib.asynccontextmanager
async def try_out(
    recording: Recording,
    directory: Path | None,
    logs: Logging,
    plugins: Collection[str] | None,
    others: Mapping[str, Path],
) -> AsyncIterator[tuple[Replay, Hosted]]:
    """Run an application as `application` does, for `reproduce`."""
    async with application(recording, directory, logs, plugins, others) as (_, replay, hosted):
        yield replay, hosted
