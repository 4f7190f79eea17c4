"""The peers of `dispatch.py`: the same handlers, called by other libraries.

Each peer is set up as its documentation shows, in its fastest way: blinker with strong references,
pluggy and apluggy with one plugin for each handler. The Node peers run in one process that answers
batch by batch, so that they take turns with the others. Start it before pinning: V8 uses threads.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from _harness import CALLS_A_TURN, Batch, batch

NODE_PACKAGES = ["tapable@2", "hookable@6"]

Make = Callable[[], Callable[..., Any]]
"""Makes one more handler."""


def for_sync(make: Make, count: int) -> dict[str, Batch]:
    """Return the peers that call plain functions."""
    found: dict[str, Batch] = {}
    if _has("blinker"):
        import blinker

        signal = blinker.Signal()
        for _ in range(count):
            signal.connect(make(), weak=False)
        found["blinker send"] = batch("send(1)", send=signal.send)
    if _has("pluggy"):
        import pluggy

        manager = _plugins(pluggy, make, count)
        found["pluggy"] = batch("hook.event(v=1)", hook=manager.hook)
    if _has("pyee"):
        import pyee

        emitter = pyee.EventEmitter()
        for _ in range(count):
            emitter.on("event", make())
        found["pyee"] = batch("emit('event', 1)", emit=emitter.emit)
    return found


def for_async(make: Make, count: int) -> dict[str, Batch]:
    """Return the peers that await coroutine functions."""
    found: dict[str, Batch] = {}
    if _has("blinker"):
        import blinker

        signal = blinker.Signal()
        for _ in range(count):
            signal.connect(make(), weak=False)
        found["blinker send_async"] = batch("await send(1)", send=signal.send_async)
    if _has("apluggy"):
        import apluggy

        manager = _plugins(apluggy, make, count)
        found["apluggy"] = batch("await ahook.event(v=1)", ahook=manager.ahook)
    if _has("pyee"):
        from pyee.asyncio import AsyncIOEventEmitter

        emitter = AsyncIOEventEmitter()
        for _ in range(count):
            emitter.on("event", make())
        found["pyee asyncio"] = batch(
            "emit('event', 1); await wait()", emit=emitter.emit, wait=emitter.wait_for_complete
        )
    return found


def missing() -> list[str]:
    """Return the peers on Python that are not installed."""
    return [name for name in ("blinker", "pluggy", "pyee", "apluggy") if not _has(name)]


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _plugins(library: Any, make: Make, count: int) -> Any:
    def event(v: int) -> int: ...

    manager = library.PluginManager("bench")
    manager.add_hookspecs(SimpleNamespace(event=library.HookspecMarker("bench")(event)))
    for _ in range(count):
        manager.register(SimpleNamespace(event=library.HookimplMarker("bench")(make())))
    return manager


class Node:
    """tapable and hookable in a Node process that runs batches on request.

    Attributes:
        version: Node's version and those of the packages.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.version = self._ask("version")

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Self | str]:
        """Install the packages into a temporary folder and start Node; or say why that failed."""
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            yield "node and npm are not on this machine"
            return
        with tempfile.TemporaryDirectory(prefix="veko-bench-") as folder:
            (Path(folder) / "package.json").write_text("{}")
            shutil.copy(Path(__file__).with_name("dispatch.mjs"), folder)
            command = [npm, "install", "--silent", "--no-audit", "--no-fund", *NODE_PACKAGES]
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
            except (OSError, subprocess.SubprocessError) as error:
                yield f"npm could not install {' and '.join(NODE_PACKAGES)}: {error}"
                return
            with subprocess.Popen(
                [node, "dispatch.mjs"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            ) as process:
                yield cls(process)

    def peers(self, returns: bool, count: int) -> dict[str, Batch]:
        """Return the asynchronous series of both packages with so many handlers."""

        def run(library: str) -> Batch:
            async def one(n: int) -> int:
                return int(self._ask(f"{library} {int(returns)} {count} {n * CALLS_A_TURN}"))

            return one

        return {"tapable (Node)": run("tapable"), "hookable (Node)": run("hookable")}

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        return self._process.stdout.readline().strip()
