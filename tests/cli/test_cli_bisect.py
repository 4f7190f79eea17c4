"""`veko bisect`, as a user runs it: commands that fail, never fail, always fail, hang."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = "name, version = {name!r}, '1.0.0'\n\ndef load(app, config, context):\n    {body}\n"
PROGRAM = """
import asyncio, sys, time
from veko_plugins import PluginManager

async def main():
    async with PluginManager(root=ROOT, adapter="asgi", storage="none", watchdog=0) as manager:
        on = {info.name for info in manager.list_plugins()}
        assert "base" in on or "top" not in on
        BODY

asyncio.run(main())
"""


def bisect(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "veko_plugins.cli", "bisect", *words],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def app(tmp_path: Path) -> Path:
    tmp_path.joinpath("plugins").mkdir()
    names = ["base", "top", *(f"p-{number}" for number in range(6))]
    for name in names:
        body = "pass\n    pass" if name != "top" else "pass\n\ndependencies = ['base']"
        text = PLUGIN.format(name=name, body=body)
        tmp_path.joinpath("plugins", f"{name.replace('-', '_')}.py").write_text(text)
    guard = PLUGIN.format(name="guard", body="pass") + "\nrequired = True\n"
    tmp_path.joinpath("plugins", "guard.py").write_text(guard)
    return tmp_path


def program(app: Path, body: str) -> list[str]:
    """Write a program that starts the application; return the command that runs it."""
    file = app / "program.py"
    file.write_text(PROGRAM.replace("ROOT", repr(str(app))).replace("BODY", body))
    return ["--dir", str(app), "--", sys.executable, str(file)]


def test_the_pair_that_makes_a_command_fail(app: Path) -> None:
    words = program(app, "sys.exit({'p-1', 'top'} <= on)")
    assert "p-1 and top together make it fail" in bisect(*words)
    found = json.loads(bisect("--json", *words))
    assert sorted(found["names"]) == ["p-1", "top"]


def test_one_that_hangs_is_found_and_ended(app: Path) -> None:
    body = "import os, time\n'VEKO_PLUGINS__P_4__ENABLED' in os.environ or time.sleep(600)\n"
    file = app / "hanging.py"
    file.write_text(body)
    command = ["--dir", str(app), "--timeout", "3", "--", sys.executable, "-S", str(file)]
    assert "p-4 makes it fail" in bisect(*command)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("pass", "does not fail with all plugins on"),
        ("sys.exit(3)", "fails without any plugin"),
    ],
)
def test_nothing_to_find_is_1(app: Path, body: str, says: str) -> None:
    assert says in bisect(*program(app, body), code=1)


def test_wrong_usage_is_2(app: Path) -> None:
    assert "give a command after --" in bisect("--dir", str(app), code=2)
    assert "no program" in bisect("--dir", str(app), "--", "no-such-program", code=2)
    both = ["--recording", "x.vekorec", "--", "true"]
    assert "give a command after --" in bisect("--dir", str(app), *both, code=2)
    assert "cannot be read" in bisect("--dir", str(app), "--recording", "x.vekorec", code=2)
