"""`veko test`: a plugin's own tests, and the contract that every plugin should keep.

The application's settings and other plugins count, but nothing of it is touched: the storage is in
memory, and only the plugin and those that it needs are loaded.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import rich_click as click

from veko import NotFoundError, VekoError
from veko_plugins._lib.leaks import Leak
from veko_plugins._lib.masking import masked_text
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.testing import Contract, Grade, Tier, own_tests

from .application import options_of
from .progress import progress
from .runner import Stop, kernel_quiet, print_error, run

__all__ = ["test_plugins"]

_MARKS: Final = {"PASS": "ok  ", "FAIL": "FAIL", "SKIP": "-   "}


def test_plugins(
    wanted: str | None,
    directory: Path | None,
    *,
    tier: str,
    own_tests: bool,
    simulate: int,
    seed: str | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Test a plugin, or all of an application; return the exit code.

    Args:
        wanted: The plugin's file, folder or name; `None` for all plugins.
        directory: The application's directory, as the user gave it.
        tier: The tier that is needed for success.
        own_tests: Whether their own tests run too.
        simulate: In how many simulated runs each plugin lives; 0 for none.
        seed: Only this simulated run.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    logs = Logging()
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            options = options_of(directory, logs)
        except VekoError as error:
            if directory is not None or wanted is None:
                print_error(error, debug=debug)
                return 2
            options = {"root": Path(nowhere), "core": {"logging": logs}}
            path = Path(wanted).absolute()
            if path.exists():
                options["plugins_dir"] = path.parent
        options |= {"auto_load": False, "required": (), "watch_mode": False, "max_retries": 0}
        options |= {"storage": "sqlite:///:memory:", "watchdog": 0}

        tested: list[str] = []

        async def work(_: Stop) -> int:
            names = [wanted] if wanted is not None else await _all(options)
            tested.extend(names)
            if seed is not None:
                return 0
            try:
                grades = []
                for name in names:
                    with progress(lambda name=name: f"testing {name}"):  # type: ignore[misc]
                        grades.append(await _grade(options, name, with_tests=own_tests))
            except NotFoundError as error:
                print_error(error, debug=debug)
                return 2
            if as_json:
                shown = grades if wanted is None else grades[0]
                found = msgspec.json.encode(shown, enc_hook=str)
                click.echo(msgspec.json.format(found, indent=2).decode())
            else:
                for grade in grades:
                    _show(grade)
            failing = [g for g in grades if not g.reaches(Tier(tier)) or _tests_failed(g)]
            return int(bool(failing))

        logs.configure("debug" if debug else "error")
        try:
            with kernel_quiet(debug=debug):
                code = run(work, debug=debug)
            if not (simulate or seed):
                return code
            return code or _simulate(options, tested, simulate, seed, as_json=as_json, debug=debug)
        finally:
            logs.reset()


async def _all(options: dict[str, Any]) -> list[str]:
    async with PluginManager(**options) as manager:
        return sorted(source.name for source in manager.use("discovery").scan().sources)


async def _grade(options: dict[str, Any], wanted: str, *, with_tests: bool) -> Grade:
    with contextlib.redirect_stdout(sys.stderr):  # plugins may print
        async with PluginManager(**options) as manager:
            runs = own_tests if with_tests else None
            contract = Contract(manager.kernel, _asked(wanted), app=manager.asgi, own_tests=runs)
            return await contract.run()


def _simulate(
    options: dict[str, Any],
    names: list[str],
    runs: int,
    seed: str | None,
    *,
    as_json: bool,
    debug: bool,
) -> int:
    from .simulating import simulate_plugin

    read = PluginManager(**options).options
    failed = 0
    for name in names:
        try:
            ran = simulate_plugin(
                read.directory, read.plugins_dir, _asked(name), runs=runs, seed=seed
            )
        except VekoError as error:
            print_error(error, debug=debug)
            return 2
        if ran.failure is None:
            text = f"{ran.runs} runs, in {ran.orders} orders of their tasks: no failure"
            click.echo(f"{name}: {text}", err=as_json)
        else:
            failed = 1
            click.echo(masked_text(ran.failure), err=as_json)
            command = f"veko test {name} --seed {ran.seed}"
            click.echo(f"Repeat it with: {command}", err=as_json)
    return failed


def _asked(wanted: str) -> str | Path:
    """Return a path if it exists or looks like one; anything else is a name."""
    path = Path(wanted)
    is_path = path.exists() or len(path.parts) > 1 or path.suffix == ".py"
    return path.absolute() if is_path else wanted


def _tests_failed(grade: Grade) -> bool:
    return any(
        check.name == "tests" and check.outcome == "FAIL" and check.problems != ("there are none",)
        for check in grade.checks
    )


def _show(grade: Grade) -> None:
    click.echo(f"{grade.plugin} {grade.version}".rstrip())
    for check in grade.checks:
        click.echo(f"  {_MARKS[check.outcome]} {check.tier:<8} {check.promise}")
        if check.name == "collected":
            for leak in grade.leaks:
                _show_lines(_lines_of(leak))
        elif check.outcome == "FAIL":
            for problem in check.problems:
                _show_lines(problem.splitlines())
    if grade.next is None:
        click.echo(f"{grade.plugin}: {grade.tier}, the highest tier")
        return
    lacks = ", ".join(dict.fromkeys(line.partition(":")[0] for line in grade.missing))
    click.echo(f"{grade.plugin}: {grade.tier}; for {grade.next} it lacks: {lacks}")


def _show_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(masked_text(f"                {line}"))


def _lines_of(leak: Leak) -> Iterator[str]:
    where = f"{leak.file}:{leak.line}: " if leak.file is not None else ""
    yield f"{where}{leak.holder}"
    yield f"  holds {leak.held} of {leak.generation}"
    if leak.path:
        yield f"  by {' → '.join(leak.path)}"
    if leak.planted is not None:
        yield f"  see {leak.planted}"
