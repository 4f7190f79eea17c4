"""`veko replay`: repeats what a recording holds, and shows what comes out differently."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .parameters import debug_option, debugging

__all__ = ["replay"]


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path),
    help="The application's folder; by default the recorded one.",
)  # fmt: skip
@click.option(
    "--with", "others", metavar="PLUGIN=PATH", multiple=True,
    help="Load PLUGIN from PATH: another version of it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def replay(file: Path, directory: Path | None, others: tuple[str, ...], as_json: bool) -> None:
    """Replay the recording FILE against the plugins as they are now, and show what differs.

    Requests, WebSockets, commands and emissions are repeated in one process, with storage, cache
    and database in memory. The exit code is 0 if everything came out as recorded, 1 if not, and 2
    if it cannot be replayed.
    """
    raise SystemExit(_replay(file, directory, others, as_json=as_json, debug=debugging()))


def _replay(
    file: Path,
    directory: Path | None,
    others: tuple[str, ...],
    *,
    as_json: bool,
    debug: bool,
) -> int:
    import msgspec

    from veko import VekoError
    from veko_plugins.logging import Logging

    from .replaying import application, others_of, read
    from .runner import Stop, print_error, run_quiet

    logs = Logging()
    try:
        recording = read(file)
        given = others_of(others)
    except VekoError as error:
        print_error(error, debug=debug)
        return 2

    async def work(_: Stop) -> int:
        async with application(recording, directory, logs, None, given) as (_manager, one, hosted):
            report = await one.report(recording)
        if as_json:
            shown = msgspec.to_builtins(report) | {"missing": hosted.missing, "cut": recording.cut}
            click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
        else:
            for name, why in hosted.missing.items():
                click.echo(f"not loaded: {name}: {why}")
            for line in report.unreplayable:
                click.echo(f"not replayed: {line}")
            for found in report.differences:
                click.echo(f"{found.what}: {found.aspect}\n  - {found.before}\n  + {found.now}")
            differ = len({found.what for found in report.differences})
            click.echo(f"{report.replayed} replayed, {differ} came out differently")
        return int(bool(report.differences or hosted.missing))

    return run_quiet(logs, work, "error", debug=debug)
