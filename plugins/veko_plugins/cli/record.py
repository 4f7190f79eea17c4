"""`veko record`: starts and stops the recorder of a running application; failures as tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from .parameters import debug_option, debugging

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from veko_plugins.recording import Hosted, Recording, Replay, Reproduction

__all__ = ["record"]

_LATEST = "-"


@click.command()
@click.argument("action", required=False, type=click.Choice(["start", "stop", "dump", "where"]))
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option(
    "--failure", metavar="[FILE]", is_flag=False, flag_value=_LATEST,
    help="Write a test for pytest that reproduces a recorded failure; of the newest recording, or "
    "of --failure=FILE.",
)  # fmt: skip
@click.option("--number", type=int, metavar="N", help="Which failure; by default the last.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path),
    help="The test to write; by default test_….py in the current folder. Never overwritten.",
)  # fmt: skip
@click.option("--with", "others", metavar="PLUGIN=PATH", multiple=True, help="Another version.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@debug_option
def record(
    action: str | None,
    directory: Path | None,
    failure: str | None,
    number: int | None,
    output: Path | None,
    others: tuple[str, ...],
    as_json: bool,
) -> None:
    """Record a running application, or turn a recorded failure into a test.

    The application needs the section [plugins.recording] in its veko.toml. `start` and `stop` say
    when it records, `dump` writes what it has so far, and `where` shows the recordings and their
    failures. `veko record --failure` then makes a test of one.
    """
    if (action is None) == (failure is None):
        raise click.UsageError("say what to do: start, stop, dump or where; or give --failure")
    if failure is not None:
        file = None if failure == _LATEST else Path(failure)
        raise SystemExit(_write_test(file, directory, number, output, others, debug=debugging()))
    assert action is not None
    raise SystemExit(_control(action, directory, as_json=as_json, debug=debugging()))


def _folder(directory: Path | None) -> Path:
    """Return where an application's recordings are.

    Raises:
        OptionError: Its settings cannot be read.
        ConfigError: The section [plugins.recording] is not valid.
    """
    from veko_plugins.options import Options
    from veko_plugins.recording import folder_of

    options = Options.read(directory or Path())
    return folder_of(options.directory, options.sections.of("recording"))


def _control(action: str, directory: Path | None, *, as_json: bool, debug: bool) -> int:
    import msgspec

    from veko import VekoError
    from veko_plugins.recording import Answer, RecordingError, ask_running, read_recording

    from .runner import print_error

    try:
        folder = _folder(directory)
        try:
            answer = ask_running(folder, action)
        except RecordingError:
            if action != "where":
                raise
            answer = Answer(folder=str(folder))
    except VekoError as error:
        print_error(error, debug=debug)
        return 1
    shown: list[dict[str, object]] = []
    for path in sorted(folder.glob("*.vekorec")) if action == "where" else ():
        try:
            recording = read_recording(path)
        except RecordingError as error:
            shown.append({"path": str(path), "problem": str(error)})
            continue
        failures = [
            {"number": one.number, "plugin": one.plugin, "where": one.part or one.event,
             "error": one.error, "message": one.message}
            for one in recording.failures
        ]  # fmt: skip
        shown.append({"path": str(path), "why": recording.header.why, "failures": failures})
    if as_json:
        encoded = msgspec.json.encode({**msgspec.to_builtins(answer), "recordings": shown})
        click.echo(msgspec.json.format(encoded, indent=2).decode())
        return 0
    if answer.path is not None:
        click.echo(answer.path)
    elif action == "start":
        click.echo(f"recording; `veko record stop` writes to {answer.folder}")
    else:
        state = f"recording, {answer.entries} entries in memory" if answer.recording else "off"
        click.echo(f"{answer.folder}: {state}")
        for one in shown:
            click.echo(f"{one['path']}  {one.get('why') or one.get('problem')}")
            for failure in one.get("failures", ()):  # type: ignore[attr-defined]
                where = f" on {failure['where']}" if failure["where"] else ""
                text = f"{failure['plugin']}{where}: {failure['error']}: {failure['message']}"
                click.echo(f"  {failure['number']:>6}  {text[:100]}")
    return 0


def _write_test(
    file: Path | None,
    directory: Path | None,
    number: int | None,
    output: Path | None,
    others: tuple[str, ...],
    *,
    debug: bool,
) -> int:
    from veko import VekoError
    from veko_plugins.logging import Logging
    from veko_plugins.recording import name_of_test, reproduce, test_file

    from .replaying import chosen_failure, latest, others_of, read, try_out
    from .runner import Stop, print_error, run_quiet

    logs = Logging()
    try:
        recording = read(file or latest(_folder(directory)))
        failure = chosen_failure(recording, number)
        given = others_of(others)
    except VekoError as error:
        print_error(error, debug=debug)
        return 2

    def hosting(
        plugins: Sequence[str] | None,
    ) -> AbstractAsyncContextManager[tuple[Replay, Hosted]]:
        return try_out(recording, directory, logs, plugins, given)

    async def work(_: Stop) -> int:
        found = await reproduce(recording, failure, hosting)
        target = output or Path(f"{name_of_test(found)}.py")
        try:
            with target.open("x", encoding="utf-8") as written:
                written.write(test_file(recording, found, target.name))
        except OSError as error:
            click.echo(f"veko: {target} cannot be written: {error.strerror or error}", err=True)
            return 1
        _say(target, recording, found)
        return 0 if found.verified else 1

    return run_quiet(logs, work, "error", debug=debug)


def _say(target: Path, recording: Recording, found: Reproduction) -> None:
    from veko_plugins.recording import label_of

    failure = found.failure
    click.echo(str(target))
    click.echo(f"  {failure.plugin}: {failure.error}: {failure.message}", err=True)
    of = len(recording.stimuli)
    if found.verified:
        steps = ", ".join(map(label_of, found.stimuli[:5])) or "loading the plugin"
        click.echo(f"  reproduced by {steps} ({len(found.stimuli)} of {of} recorded)", err=True)
        return
    click.echo("  it did not fail again:", err=True)
    for note in found.why_not or ["it may depend on time, or on what was stored"]:
        click.echo(f"  - {note}", err=True)
