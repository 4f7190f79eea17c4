"""A worker that takes too much memory is ended, with the sizes in the message."""

import asyncio
import os
import socket
import sys
from pathlib import Path

from veko_plugins.remote.launcher import Command, Launcher
from veko_plugins.remote.memory import MemoryLimit

EATER = """
import time
time.sleep(0.3)
eaten = bytearray(b"x" * 200 * 2**20)
time.sleep(60)
"""


async def test_a_process_that_takes_too_much_is_ended(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    async with Launcher() as launcher:
        command = Command(argv=(sys.executable, "-c", EATER), env=dict(os.environ), cwd=tmp_path)
        with ours, theirs:
            process = await launcher.start(command, confinement=None, stdio=theirs, stderr=2)
        reasons: list[str] = []

        def exceeded(why: str) -> None:
            reasons.append(why)
            process.kill()

        limit = MemoryLimit(process, exceeded, most=100 * 2**20, seconds=0.02)
        assert await asyncio.wait_for(process.wait(), 20) == -9
        limit.stop()
    assert len(reasons) == 1
    assert reasons[0].startswith("used ")
    assert reasons[0].endswith(" MiB of memory, at most 100 MiB are allowed")


async def test_a_process_that_takes_little_is_left_alone() -> None:
    class Small:
        looks = 0

        def resident(self) -> int:
            self.looks += 1
            return 10

    small = Small()
    limit = MemoryLimit(small, lambda why: 1 / 0, most=10, seconds=0.001)
    await asyncio.sleep(0.05)
    limit.stop()
    limit.stop()
    looks = small.looks
    assert looks > 3
    await asyncio.sleep(0.01)
    assert small.looks == looks
