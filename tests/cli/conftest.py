"""What the tests of the command line share: applications on disk, and a terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

SECONDS = 60.0
# A shell for people wants a terminal that controls its session.
CONTROL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""

HELLO = '''
"""Says hello."""
import asyncio, sys

name = "hello"
version = "1.2.3"
description = "Says hello"

def load(context):
    print("hello prints while it loads")
    context.add_route("GET", "/hello", lambda: {"hello": "world"})
    context.add_command("greet", greet, "Greets somebody")
    context.add_command("fail", fail)
    context.add_command("exit", leave)
    context.add_command("data", lambda: {"a": [1, None]})
    context.add_command("raw", lambda: b"\\xff")
    context.log("info", "hello is here")

async def greet(name: str, *, times: int = 1, loud: bool = False) -> str:
    """Greet somebody.

    Args:
        name: Whom.
    """
    await asyncio.sleep(0)
    text = " ".join([f"hello {name}"] * times)
    return text.upper() if loud else text

def leave(code: int):
    sys.exit(code)

def fail():
    raise ValueError("it was the wrong day")

def unload():
    print("hello says goodbye", flush=True)
'''

EVENTS = """
from veko import Event

name = "events"
version = "1.0.0"

def load(context):
    context.declare(Event("links:made", payload=str, returns=True, doc="A link was made."))
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """An application of two plugins that load, one that cannot and one that needs that."""
    root = tmp_path / "app"
    plugins = root / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "hello.py").write_text(HELLO)
    (plugins / "events.py").write_text(EVENTS)
    (plugins / "broken.py").write_text(
        'name = "broken"\nversion = "1.0.0"\n\ndef load():\n    raise ValueError("no luck")\n'
    )
    (plugins / "needy.py").write_text(
        'name = "needy"\nversion = "1.0.0"\ndependencies = ["broken"]\n\ndef load():\n    pass\n'
    )
    (root / "veko.toml").write_text("max_retries = 0\n")
    return root


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, cwd: Path, *argv: str, **env: str) -> None:
        self.screen, end = pty.openpty()
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            stdin=end,
            stdout=end,
            stderr=end,
            close_fds=True,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "100", **env},
        )
        os.close(end)
        self.text = ""
        self._seen = 0

    def _read(self) -> bool:
        try:
            data = os.read(self.screen, 4096)
        except OSError:  # the other end is closed
            return False
        self.text += data.decode().replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, pattern: str) -> None:
        """Wait until what was printed since the last answer matches."""
        until = time.monotonic() + SECONDS
        while not re.search(pattern, self.text[self._seen :]):
            ready, _, _ = select.select([self.screen], [], [], max(0, until - time.monotonic()))
            if not ready or not self._read():
                raise AssertionError(f"no {pattern!r} in:\n{self.text}")

    def answer(self, pattern: str, text: str) -> None:
        """Wait for a question, and answer it."""
        self.wait_for(pattern)
        self._seen = len(self.text)
        os.write(self.screen, text.encode())

    def ends(self) -> int:
        """Wait for the end, and return the exit code."""
        until = time.monotonic() + SECONDS
        while True:
            ready, _, _ = select.select([self.screen], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise AssertionError(f"it did not end after:\n{self.text}")
            if not self._read():
                return self.process.wait(SECONDS)

    def leave(self, key: str) -> None:
        """Press a key until the process ends: one that comes too early for a question is lost."""
        until = time.monotonic() + SECONDS
        while self.process.poll() is None and time.monotonic() < until:
            os.write(self.screen, key.encode())
            if key == "\x03":
                os.killpg(self.process.pid, 2)  # this terminal controls no session
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(2)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start `veko`, or another program, with these words in a pseudo-terminal."""
    opened: list[Terminal] = []

    def start(
        *words: str,
        cwd: Path = tmp_path,
        program: tuple[str, ...] = (sys.executable, "-m", "veko_plugins.cli"),
        controls: bool = False,
        **env: str,
    ) -> Terminal:
        if controls:
            program = (sys.executable, "-c", CONTROL, *program)
        opened.append(Terminal(cwd, *program, *words, **env))
        return opened[-1]

    yield start
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        os.close(one.screen)
