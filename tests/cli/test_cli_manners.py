"""Manners of the command line: help with examples, completion, colours, exit codes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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
