"""Manners of the command line: help with examples, completion, colours, exit codes."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rich_click as click

from veko_plugins.cli.examples import EXAMPLES
from veko_plugins.cli.main import veko as command_line

Run = Callable[..., subprocess.CompletedProcess[str]]


def commands(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{before}{name}"
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} ")


def test_every_command_has_examples() -> None:
    assert sorted(EXAMPLES) == sorted(commands(command_line))


@pytest.mark.parametrize(
    "line", [one for lines in EXAMPLES.values() for one in lines if "veko " in one]
)
def test_examples_are_command_lines(line: str) -> None:
    found = re.search(r"\bveko ([^|>#)]*)", line)
    assert found is not None
    words = shlex.split(found[1])
    context = click.Context(command_line, info_name="veko")
    command: click.Command = command_line
    while isinstance(command, click.Group):
        name = words.pop(0)
        known = command.get_command(context, name)
        assert known is not None, name
        command = known
    with context:
        command.make_context(command.name, words, parent=context)


def test_help_ends_with_examples(veko: Run) -> None:
    lines = [line.strip() for line in veko("database", "export", "--help").stdout.splitlines()]
    at = lines.index("Examples:")
    assert lines[at + 1 : at + 3] == list(EXAMPLES["database export"])


def test_python_m_veko_is_veko(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "veko", "events", "--nothing"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: veko events" in done.stderr


SLOW = """
import time

name = "slow"
version = "1.0.0"


def load(context):
    until = time.monotonic() + 60
    while time.monotonic() < until and not context.app:
        time.sleep(0.05)
"""


@pytest.fixture
def two(application: Path) -> Path:
    for name in ("broken", "needy"):
        (application / "plugins" / f"{name}.py").unlink()
    return application


@pytest.mark.parametrize(
    "words",
    [
        ["allow"],
        ["allow", "--all"],
        ["backup"],
        ["doctor"],
        ["events"],
        ["graph"],
        ["init", "other"],
        ["list"],
        ["list", "--core"],
        ["list", "--permissions"],
        ["new", "shop"],
        ["routes"],
        ["run"],
        ["test", "events", "--tier", "none"],
        ["validate", "plugins/hello.py"],
    ],
    ids=" ".join,
)
def test_what_prints_data_prints_json(veko: Run, two: Path, words: list[str]) -> None:
    done = veko(*words, "--json", cwd=two)
    assert done.returncode == (1 if words == ["allow"] else 0), done.stderr
    assert json.loads(done.stdout) is not None


def test_a_backup_is_restored_as_json(veko: Run, two: Path) -> None:
    path = json.loads(veko("backup", "--json", cwd=two).stdout)["path"]
    done = veko("restore", path, "--json", cwd=two)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)["plugins"]) == ["events", "hello"]


def test_a_terminal_gets_colours_and_a_pipe_none(
    terminal: Callable[..., Any], veko: Run, application: Path
) -> None:
    assert "\x1b" not in veko("list", application).stdout
    shown = terminal("list", str(application), TERM="xterm")
    assert shown.ends() == 0
    assert "\x1b[31mfailed" in shown.text
    assert "\x1b[32mactive" in shown.text
    plain = terminal("list", str(application), TERM="xterm", NO_COLOR="1")
    assert plain.ends() == 0
    assert "\x1b[3" not in plain.text
    wrong = terminal("list", "nowhere", TERM="xterm")
    assert wrong.ends() == 2
    assert "\x1b[31mveko:" in wrong.text
    assert "\x1b" not in veko("--help").stdout


def test_a_load_that_takes_longer_than_a_second_says_so(
    terminal: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "slow.py").write_text(SLOW)
    shown = terminal("list", TERM="xterm")
    shown.wait_for(r"loading slow \(\d+ s\)")
    shown.leave("\x03")
    piped = start("list")
    assert piped.wait_for(r"slow: load\(\) runs at .*slow\.py:\d+ and blocks .* \d+ s so far")


def test_a_fault_of_the_command_line_itself_is_one_line() -> None:
    program = (
        "from veko_plugins.cli import main\n"
        "from veko_plugins.cli.main import veko\n"
        "def fault(*_, **__): raise RuntimeError('this should not be')\n"
        "veko.commands['list'].callback = fault\n"
        "main()\n"
    )
    for words, traced in ((["list"], False), (["list", "--debug"], True)):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert "veko: RuntimeError: this should not be" in done.stderr
        assert ("Traceback" in done.stderr) is traced


def test_a_session_in_a_terminal(terminal: Callable[..., Any], tmp_path: Path) -> None:
    """From nothing to a plugin that is served, looked at, changed and put back, in one shell."""
    program = tmp_path / "veko"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m veko "$@"\n')
    program.chmod(0o755)
    shell = terminal(
        program=("bash", "--norc", "--noediting", "-i"),
        controls=True,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        PS1="> ",
        TERM="xterm",
    )
    shell.answer("> $", "veko init shop && cd shop\n")
    shell.answer(r"Serve it: veko serve shop[\s\S]*> $", "veko new tea --yes\n")
    shell.answer(r"created plugins/tea[\s\S]*> $", "veko status; echo code $?\n")
    shell.answer(r"no application serves from[\s\S]*code 3\n", "veko serve --port 0 &\n")
    shell.answer(r"Listening on http", "veko status\n")
    shell.answer(r"shop is running[\s\S]*2 loaded, 2 active", "veko toggle tea --off\n")
    shell.answer(r"tea 1\.0\.0 is switched off[\s\S]*veko undo \w+\n", "veko list\n")
    shell.answer(r"tea +1\.0\.0 +\S*inactive", "veko undo\n")
    shell.answer(r"tea 1\.0\.0 is switched on", "veko run tea --who ann\n")
    shell.answer(r"Hello, ann!", "veko logs -f\n")
    shell.answer(r"by the running application", "\x03")
    shell.answer("> $", "veko top --once\n")
    shell.answer(r"PLUGIN[\s\S]*tea[\s\S]*> $", "kill %1; wait; echo ended\n")
    shell.answer(r"Stopped[\s\S]*\nended\n", "exit\n")
    assert shell.ends() == 0
