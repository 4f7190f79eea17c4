"""A recorded failure becomes a test that fails for as long as the fault is there.

`python -m tests.plugins.recording.test_reproducing` measures all scenarios with all errors.
"""

import asyncio
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import PluginManager
from veko_plugins.cli.replaying import try_out
from veko_plugins.logging import Logging
from veko_plugins.recording import read_recording, reproduce
from veko_plugins.recording import test_file as text_of_test
from veko_plugins.testing.client import Client

from .scenarios import ERRORS, FIXED, HEAD, MORE, SCENARIOS, Scenario

FEW = (
    "hook", "gather", "nested", "spawn", "unload-at-stop", "load", "post", "after-an-event",
    "middleware", "guard", "socket", "command-with-arguments", "on-app-stop",
)  # fmt: skip
"""The scenarios of the suite: each with the first error, the first with all."""


def cases(every: bool) -> dict[str, tuple[Scenario, str, str]]:
    """Return scenarios with what fails in them, and that without the fault."""
    found = dict(MORE) if every else {"hangs": MORE["hangs"]}
    for name, scenario in SCENARIOS.items():
        for error, code in ERRORS.items():
            if every or (name in FEW and error == "KeyError") or name == FEW[0]:
                found[f"{name}-{error.lower()}"] = (scenario, code, FIXED)
    return found


def source(name: str, code: str, bad: str) -> str:
    """Return the source of a plugin."""
    return HEAD.format(name=name, bad=bad) + code


def recording_in(root: Path) -> Path | None:
    """Return the last recording of an application."""
    files = sorted(root.glob(".veko/recordings/*.vekorec"))
    return files[-1] if files else None


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def record(root: Path, name: str, scenario: Scenario, bad: str) -> Path | None:
    """Let a scenario happen; return the recording of its failure."""
    root.joinpath("plugins").mkdir(parents=True)
    root.joinpath("plugins", f"{name}.py").write_text(source(name, scenario.code, bad))
    manager = PluginManager(
        root=root, adapter="asgi", storage="memory:", max_retries=0, watchdog=0,
        plugins={"recording": {"control": False}}, drain_timeout=1, timeout=2,
    )  # fmt: skip
    async with manager, Client(manager.asgi) as client:
        if scenario.act is not None:
            await scenario.act(manager, client)
        await asyncio.sleep(0.06)
    return recording_in(root)


async def written_test(file: Path, target: Path) -> bool:
    """Write the test of a recording's first failure; return whether that failed again."""
    recording = read_recording(file)
    failure = recording.failures[0]
    found = await reproduce(
        recording, failure, lambda plugins: try_out(recording, None, Logging(), plugins, {})
    )
    write(target, text_of_test(recording, found, target.name))
    return found.verified


def outcomes(folder: Path, **environment: str) -> dict[str, str]:
    """Run the tests of a folder; return what came of each file."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--tb=short",
         "-c", os.devnull, "-W", "error", str(folder)],
        capture_output=True, text=True, timeout=300, check=False, cwd=folder,
        env={**os.environ, **environment},
    )  # fmt: skip
    found: dict[str, str] = {}
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) (\w+)\.py", done.stdout, re.M):
        found[name] = "FAILED" if "FAILED" in (outcome, found.get(name)) else outcome
    assert found, done.stdout + done.stderr
    return found


async def measure(root: Path, every: bool) -> tuple[dict[str, str], int]:
    """Return what does not reproduce, and why; and of how many."""
    wrong: dict[str, str] = {}
    tests, fixed = root / "tests", root / "fixed"
    tests.mkdir()
    fixed.mkdir()
    variables: dict[str, str] = {}
    chosen = cases(every)
    for case, (scenario, bad, good) in chosen.items():
        name = case.replace("-", "_")
        file = await record(root / name, name, scenario, bad)
        if file is None:
            wrong[case] = "it was not recorded"
            continue
        if not await written_test(file, tests / f"test_{name}.py"):
            wrong[case] = "it did not fail again"
            continue
        fixed.joinpath(f"{name}.py").write_text(source(name, scenario.code, good))
        variables[f"PLUGIN_{name.upper()}"] = str(fixed / f"{name}.py")
    failing = await asyncio.to_thread(outcomes, tests)
    passing = await asyncio.to_thread(outcomes, tests, **variables)
    for case in chosen.keys() - wrong.keys():
        name = f"test_{case.replace('-', '_')}"
        if failing.get(name) not in ("FAILED", "ERROR"):
            wrong[case] = f"its test: {failing.get(name)}"
        elif passing.get(name) != "PASSED":
            wrong[case] = f"its test of the fixed version: {passing.get(name)}"
    return wrong, len(chosen)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_failures_of_plugins_become_tests(tmp_path: Path, anyio_backend: Any) -> None:
    wrong, _ = await measure(tmp_path, every=False)
    assert not wrong


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        missed, total = asyncio.run(measure(Path(folder), every=True))
    for one, why in missed.items():
        print(f"{one}: {why}")
    print(f"{total - len(missed)} of {total} replay")
