"""`veko bisect`: the one plugin, or the few, that make a command or a recording fail."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from .parameters import debug_option, debugging

if TYPE_CHECKING:
    from veko_plugins.recording import Culprits

__all__ = ["bisect"]


@click.command(options_metavar="[OPTIONS]")
@click.argument("words", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--recording", "file", type=click.Path(path_type=Path),
    help="Instead of a command: find the plugins that make the failure in this recording happen.",
)  # fmt: skip
@click.option("--number", type=int, metavar="N", help="Which failure; by default the last.")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option(
    "--timeout", default=60.0, show_default=True, type=click.FloatRange(min=0.1),
    help="Seconds that one run of the command may take; then it counts as failed.",
)  # fmt: skip
@click.option(
    "--repeat", default=1, show_default=True, type=click.IntRange(1, 100),
    help="Try a set of plugins so often before it counts as passing: for what fails sometimes.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def bisect(
    words: tuple[str, ...],
    file: Path | None,
    number: int | None,
    directory: Path | None,
    timeout: float,
    repeat: int,
    as_json: bool,
) -> None:
    """Find the plugins that make COMMAND fail, by running it with fewer of them.

    COMMAND is any program that starts the application in DIR: `pytest`, `veko run NAME`, a script.
    It fails if its exit code is not 0, or if it takes longer than --timeout. Environment variables
    say which plugins are off. A failure in a recording is looked for in one process,
    which switches plugins off and on. The exit code is 0 if the plugins were found, 1 if there is
    nothing to find, and 2 for wrong usage.
    """
    if bool(words) == (file is not None):
        raise click.UsageError("give a command after --, or --recording FILE")
    if file is not None:
        code = _in_recording(file, number, directory, repeat, as_json=as_json, debug=debugging())
    else:
        code = _in_command(words, directory, timeout, repeat, as_json=as_json, debug=debugging())
    raise SystemExit(code)


def _in_recording(
    file: Path,
    number: int | None,
    directory: Path | None,
    repeat: int,
    *,
    as_json: bool,
    debug: bool,
) -> int:
    from veko import VekoError
    from veko_plugins.logging import Logging
    from veko_plugins.recording import SearchError, bisect_recording

    from .replaying import application, chosen_failure, read
    from .runner import Stop, print_error, run_quiet

    logs = Logging()
    try:
        recording = read(file)
        failure = chosen_failure(recording, number)
    except VekoError as error:
        print_error(error, debug=debug)
        return 2

    async def work(_: Stop) -> int:
        async with application(recording, directory, logs) as (manager, replay, hosted):
            for name, why in hosted.missing.items():
                click.echo(f"veko: not loaded: {name}: {why}", err=True)
            try:
                found = await bisect_recording(manager, replay, recording, failure, repeat=repeat)
            except SearchError as error:
                print_error(error, debug=debug)
                return 1
        _show(found, as_json=as_json)
        return 0

    return run_quiet(logs, work, "critical", debug=debug)


def _in_command(
    words: Sequence[str],
    directory: Path | None,
    timeout: float,
    repeat: int,
    *,
    as_json: bool,
    debug: bool,
) -> int:
    import shutil

    from veko import VekoError
    from veko_plugins.logging import Logging
    from veko_plugins.recording import RecordingError, SearchError, find_culprits

    from .application import options_of
    from .runner import Stop, print_error, run_quiet

    logs = Logging()
    try:
        options = options_of(directory, logs)
        if shutil.which(words[0]) is None:
            raise RecordingError(f"there is no program {words[0]}", remedy="Check its name.")
    except VekoError as error:
        print_error(error, debug=debug)
        return 2

    async def work(_: Stop) -> int:
        needs, required = await _plugins(options)
        always = _closed(required, needs)

        async def fails(chosen: Sequence[str]) -> bool:
            wanted = _closed(chosen, needs) | always
            return await _fails(words, options["root"], needs.keys() - wanted, timeout, repeat)

        try:
            found = await find_culprits([one for one in needs if one not in always], fails)
        except SearchError as error:
            print_error(error, debug=debug)
            return 1
        _show(found, as_json=as_json)
        return 0

    return run_quiet(logs, work, "critical", debug=debug)


async def _plugins(
    options: Mapping[str, Any],
) -> tuple[dict[str, tuple[str, ...]], Collection[str]]:
    """Return the plugins that load in an application and what each needs, and the required ones."""
    import contextlib
    import sys

    from veko_plugins.manager import PluginManager

    quiet: dict[str, Any] = {
        "storage": "memory:",
        "max_retries": 0,
        "watchdog": 0,
        "watch_mode": False,
    }
    with contextlib.redirect_stdout(sys.stderr):
        async with PluginManager(**{**options, **quiet}) as manager:
            needs = {one.name: tuple(one.dependencies) for one in manager.list_plugins()}
            return needs, {*manager.report.required, *manager.options.required}


def _closed(chosen: Collection[str], needs: Mapping[str, Sequence[str]]) -> set[str]:
    """Return some plugins with all that they need."""
    found: set[str] = set()
    pending = list(chosen)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [need for need in needs.get(name, ()) if need in needs]
    return found


async def _fails(
    words: Sequence[str], root: Path, off: set[str], timeout: float, repeat: int
) -> bool:
    """Run a command without some plugins; return whether it fails in one of some runs."""
    import asyncio
    import contextlib
    import os
    import signal
    import subprocess

    from veko_plugins._lib.variables import PREFIX, plugin_part

    variables = {f"{PREFIX}{plugin_part(name)}__ENABLED": "false" for name in off}
    environment = {**os.environ, **variables}
    for _ in range(repeat):
        process = await asyncio.create_subprocess_exec(
            *words, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(timeout):
                if await process.wait():
                    return True
        except TimeoutError:
            return True
        finally:
            if process.returncode is None:  # with all that it has started
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    return False


def _show(found: Culprits, *, as_json: bool) -> None:
    import msgspec

    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    verb = "makes" if len(found.names) == 1 else "together make"
    click.echo(f"{' and '.join(found.names)} {verb} it fail ({found.probes} probes)")
