"""What the tests of the command line share: applications on disk, and real processes."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

SECONDS = 30.0

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


class Veko:
    """A running `veko`, its lines as they come."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "veko_plugins.cli", *words],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"},
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a line matches."""
        end = time.monotonic() + SECONDS
        while True:
            line = self._queue.get(timeout=end - time.monotonic())
            if line is None:
                raise AssertionError(f"ended without {pattern!r}:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found

    def ends(self) -> int:
        """Wait until it ends, and return its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join()
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECONDS)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Veko]]:
    """Start `veko` with these words; it is ended with the test."""
    running: list[Veko] = []

    def start(*words: object, cwd: Path = tmp_path) -> Veko:
        running.append(Veko(*map(str, words), cwd=cwd))
        return running[-1]

    yield start
    for veko in running:
        veko.__exit__()


@pytest.fixture
def veko(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `veko` with these words to its end."""

    def run(*words: object, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "veko_plugins.cli", *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=SECONDS,
            check=False,
            env={**os.environ, "COLUMNS": "100", **env},
        )

    return run
