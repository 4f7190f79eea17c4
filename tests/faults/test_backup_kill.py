"""A9 and A10: killed at any moment, a backup is whole or not there, a restore is done or is not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from veko_plugins import PluginManager

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes"),
]

TRIES = 15
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from veko_plugins import PluginManager

async def main(root, what):
    async with PluginManager(root=root, auto_load=False, adapter=None) as manager:
        os.write(1, b"begin\\n")
        while True:
            if what == "save":
                await manager.backup_plugins()
            else:
                await manager.restore_plugins(root / "a.jsonl")
                await manager.restore_plugins(root / "b.jsonl")

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def run_and_kill(root: Path, what: str, seconds: float) -> None:
    """Let a child do it for so long, and kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), what], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"begin\n"
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)


async def fill(root: Path, value: int) -> Path:
    """Fill the storage with one value, and back it up."""
    async with PluginManager(root=root, auto_load=False, adapter=None) as manager:
        engine = manager.use("storage")
        for name in ("one", "two"):
            await engine.namespace(name).update({f"k{number}": value for number in range(500)})
        path: Path = await manager.backup_plugins(root / f"{'ab'[value]}.jsonl")
        return path


async def values(root: Path) -> set[object]:
    """All values in the storage."""
    async with PluginManager(root=root, auto_load=False, adapter=None) as manager:
        engine = manager.use("storage")
        return {value for n in engine.namespaces() for _, value in engine.namespace(n).items()}


async def test_A9_a_backup_that_was_killed_is_not_there(tmp_path: Path) -> None:
    dice = random.Random(9)
    await fill(tmp_path, 0)
    for _ in range(TRIES):
        run_and_kill(tmp_path, "save", dice.uniform(0, 0.05))
    folder = tmp_path / ".veko" / "backups"
    backups = list(folder.glob("*.jsonl"))
    assert backups
    for backup in backups:
        lines = backup.read_bytes().splitlines()
        assert json.loads(lines[-1])["end"]["lines"] == len(lines) - 1
        assert len(lines) == 1004
    async with PluginManager(root=tmp_path, auto_load=False, adapter=None) as manager:
        for backup in (backups[0], backups[-1]):
            await manager.restore_plugins(backup)
        await manager.backup_plugins()
    assert not list(folder.glob(".*.tmp")), "what the dead left is swept up"


async def test_A10_a_restore_that_was_killed_is_done_or_is_not(tmp_path: Path) -> None:
    dice = random.Random(10)
    await fill(tmp_path, 0)
    await fill(tmp_path, 1)
    for _ in range(TRIES):
        run_and_kill(tmp_path, "restore", dice.uniform(0, 0.05))
        assert await values(tmp_path) in ({0}, {1})
    async with PluginManager(root=tmp_path, auto_load=False, adapter=None) as manager:
        await manager.restore_plugins(tmp_path / "a.jsonl")
    assert not list((tmp_path / ".veko").glob("*.staged*")), "what the dead left is swept up"
