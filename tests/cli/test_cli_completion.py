"""Completion: what is offered, and in real shells where they are installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

FORMS = """
from veko import Plugin

plugin = Plugin("forms", "1.0.0")


@plugin.command("links:prune", "Remove dead links.")
def prune(): ...
"""
SCRIPT = """
module.exports = { name: 'script', version: '1.0.0', load(app, config, context) {
  context.addCommand('publish', () => 1);
} };
"""


@pytest.fixture
def shop(application: Path) -> Path:
    (application / "plugins" / "forms.py").write_text(FORMS)
    (application / "plugins" / "script.js").write_text(SCRIPT)
    hello = application / "plugins" / "hello.py"
    hello.write_text(f"{hello.read_text()}\nprint('imported')\n")
    return application


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run ", ["data", "exit", "fail", "greet", "links:prune", "publish", "raw"]),
        ("run g", ["greet"]),
        ("serve --adapter ", ["asgi", "litestar", "starlette"]),
        ("serve --server g", ["granian"]),
        ("allow ", ["broken", "events", "forms", "hello", "needy", "script"]),
        ("allow hello h", []),
        ("validate ne", ["needy"]),
        ("test he", ["hello"]),
        ("events --plugin f", ["forms"]),
        ("database purge f", ["forms"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("doc", ["doctor"]),
        ("list --j", ["--json"]),
    ],
)
def test_what_is_offered(veko: Run, shop: Path, words: str, expected: list[str]) -> None:
    line = f"veko {words}"
    done = veko(
        cwd=shop,
        _VEKO_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(line.count(" ")),
    )
    assert [item.partition(",")[2] for item in done.stdout.split()] == expected
    assert done.stderr == ""


def test_of_another_folder(veko: Run, shop: Path, tmp_path: Path) -> None:
    line = f"veko run --dir {shop} gr"
    done = veko(_VEKO_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD="4")
    assert done.stdout == "plain,greet\n"


@pytest.mark.parametrize("settings", ["max_retrys = 1\n", "max_retries = \n"])
def test_settings_that_are_wrong_offer_nothing(veko: Run, shop: Path, settings: str) -> None:
    (shop / "veko.toml").write_text(settings)
    done = veko(cwd=shop, _VEKO_COMPLETE="bash_complete", COMP_WORDS="veko run g", COMP_CWORD="2")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_shell_that_is_none(veko: Run) -> None:
    assert veko("completion", SHELL="/bin/zsh").stdout.startswith("#compdef veko")
    done = veko("completion", SHELL="/bin/false")
    assert done.returncode == 2
    assert "Name the shell: bash, zsh or fish." in done.stderr


SETUP = {
    "bash": ('eval "$(veko completion bash)"; echo rea""dy\n', ("bash", "--norc", "-i")),
    "zsh": (
        'autoload -Uz compinit; compinit -u -D; eval "$(veko completion zsh)"; echo rea""dy\n',
        ("zsh", "-f", "-i"),
    ),
    "fish": ('veko completion fish | source; echo rea""dy\n', ("fish", "--no-config", "-i")),
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_in_a_real_shell(
    terminal: Callable[..., Any], shop: Path, tmp_path: Path, shell: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "veko"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m veko "$@"\n')
    program.chmod(0o755)
    setup, argv = SETUP[shell]
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    typed = terminal(cwd=shop, program=argv, controls=True, PATH=path, PS1="> ", **home)
    typed.answer("", setup)
    typed.answer("ready", "veko comple\t")
    typed.answer(r"veko comple\S*tion ", "fi\t")
    typed.answer(r"fi\S*sh ", "\x15veko serve --adapter li\t")
    typed.answer(r"li\S*testar ", "\x15veko run gre\t")
    typed.answer(r"gre\S*et ", "\x15exit\n")
    typed.leave("\x04")
