"""A11: killed at any moment, `save_state` leaves the old state or the new one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from veko_plugins import PluginManager

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes"),
]

KILLS = 200
SECONDS = 120.0

# It forks a saver for each try: starting Python 200 times would take minutes. The saver changes
# every plugin between two saves, so that a mixture of two states shows.
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from veko_plugins import PluginManager

PLUGINS = 8

def plugin(number):
    return {"name": f"p{number}", "version": "1.0.0", "load": lambda: None}

async def save_forever(root, start):
    async with PluginManager(
        root=root, auto_load=False, adapter=None, storage="sqlite:///:memory:"
    ) as manager:
        for number in range(PLUGINS):
            await manager.load_plugin(plugin(number), {"n": start, "text": "x" * 2000})
        while True:
            await manager.save_state()
            os.write(1, b"%d\\n" % start)
            start += 1
            for number in range(PLUGINS):
                await manager.kernel.update_config(f"p{number}", {"n": start})

for line in sys.stdin:
    start = int(line)
    child = os.fork()
    if not child:
        asyncio.run(save_forever(Path(sys.argv[1]), start))
    os.write(1, b"pid %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


def saved_numbers(path: Path) -> set[int]:
    """The number that each plugin has in the file, after checking what is in it."""
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    plugins = lines[1:-1]
    assert len(plugins) == 8
    return {plugin["config"]["n"] for plugin in plugins}


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


async def test_A11_save_state_survives_kill_9_at_200_random_offsets(tmp_path: Path) -> None:
    dice = random.Random(11)
    path = tmp_path / ".veko" / "state.jsonl"
    deadline = time.monotonic() + SECONDS
    acknowledged = tries = 0
    with start(tmp_path) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        while tries < KILLS and time.monotonic() < deadline:
            nursery.stdin.write(f"{acknowledged + 1}\n")
            nursery.stdin.flush()
            pid = 0
            saves = False
            for line in nursery.stdout:
                if line.startswith("pid"):
                    pid = int(line.split()[1])
                elif line[0].isdigit():
                    acknowledged, saves = int(line), True
                if pid and saves:
                    break
            # Anywhere in one to three saves, of some milliseconds each.
            end = time.perf_counter() + dice.uniform(0, 0.02)
            while time.perf_counter() < end:
                pass
            os.kill(pid, signal.SIGKILL)
            for line in nursery.stdout:
                if line == "dead\n":
                    break
                if line[0].isdigit():
                    acknowledged = int(line)
            tries += 1
            numbers = saved_numbers(path)
            assert len(numbers) == 1, f"a mixture of states: {numbers}"
            assert numbers <= {acknowledged, acknowledged + 1}, (numbers, acknowledged)
            acknowledged = max(numbers)
        nursery.stdin.close()
    assert tries == KILLS
    left = list(path.parent.glob(".veko.*.tmp"))
    assert len(left) <= 1, "temporary files of the dead pile up"

    # What the last one left is taken by the manager itself, which sweeps up after it.
    async with PluginManager(root=tmp_path, auto_load=False, adapter=None) as manager:
        report = await manager.restore_state()
        assert len(report.missing) == 8
        await manager.save_state()
    assert not list(path.parent.glob(".veko.*.tmp"))
