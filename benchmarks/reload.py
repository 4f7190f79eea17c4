"""How long until a saved file answers with its new code, compared with `uvicorn --reload`?

    python benchmarks/reload.py [--rounds 30] [--others 200] [--quick]

Two servers run the same plugins: `veko serve --dev`, and uvicorn with `--reload` on an application
of the same manager. One plugin of three routes beside 200 others is saved, for one server and then
for the other. A client that sends requests continuously records the first new answer. Veko's log
gives the time from the report of the change to the swap; the rest is the watcher, which waits
until the file has been unchanged for 20 ms, and the client.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import httpx
from _report import Report, progress, script

GOAL: Final = 150.0
PLUGIN: Final = """
name = {name!r}
version = "1.0.{number}"

def load(context):
    for path in {paths!r}:
        context.add_route("GET", path, answer)

def answer() -> int:
    return {number}
"""
APPLICATION: Final = """
from pathlib import Path
from veko_plugins import PluginManager

app = PluginManager(root=Path(__file__).parent, storage="none", auto_load=True).asgi
"""


class Server:
    """A server with its own application, and a client that polls one plugin of it."""

    def __init__(self, root: Path, others: int, *command: str) -> None:
        self.root = root
        self.took: list[float] = []
        self.inside: list[float] = []
        (root / "plugins").mkdir(parents=True)
        (root / "app.py").write_text(APPLICATION)
        (root / "veko.toml").write_text('storage = "none"\n')
        for number in range(others):
            name = f"other{number}"
            source = PLUGIN.format(name=name, number=0, paths=[f"/{name}"])
            (root / "plugins" / f"{name}.py").write_text(source)
        self._save(0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._listening = threading.Event()
        self._port = 0
        threading.Thread(target=self._read, daemon=True).start()
        if not self._listening.wait(60):
            raise SystemExit(f"{command} did not start")
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}")
        self._until(0)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"(?:Listening|running) on http://[\w.]+:(\d+)", line):
                self._port = int(found[1])
                self._listening.set()
            elif found := re.search(r"reloaded shop \S+ in (\d+) ms", line):
                self.inside.append(float(found[1]))

    def _save(self, number: int) -> None:
        paths = ["/shop/a", "/shop/b", "/shop/c"]
        source = PLUGIN.format(name="shop", number=number, paths=paths)
        (self.root / "plugins" / "shop.py").write_text(source)

    def _until(self, number: int) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self._client.get("/shop/c").text == str(number):
                    return
            except httpx.TransportError:  # uvicorn is restarting
                pass
            time.sleep(0.001)
        raise SystemExit(f"{number} was never answered")

    def turn(self, number: int) -> None:
        """Save the plugin and wait for its answer."""
        begin = time.perf_counter()
        self._save(number)
        self._until(number)
        self.took.append((time.perf_counter() - begin) * 1000)

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._process.terminate()
        self._process.wait(30)


def measure(report: Report, given: argparse.Namespace) -> None:
    """Let both servers reload, by turns."""
    # uvicorn takes a second for each.
    rounds, others = given.rounds or max(2, round(given.seconds / 2)), given.others
    root = Path(tempfile.mkdtemp())
    servers: dict[str, Server] = {}
    try:
        servers["veko serve --dev"] = Server(
            root / "veko", others, "veko_plugins.cli", "serve", "--dev", "--port", "0"
        )
        servers["uvicorn --reload"] = Server(
            root / "uvicorn", others, "uvicorn", "app:app", "--port", "0", "--reload",
            "--reload-dir", "plugins",
        )  # fmt: skip
        for number in range(1, rounds + 1):
            progress(f"save {number} of {rounds}")
            for server in servers.values():
                server.turn(number)
    finally:
        for server in servers.values():
            server.close()
        shutil.rmtree(root)
    rows = []
    for name, server in servers.items():
        took = sorted(server.took)
        inside = f"{statistics.median(server.inside):.0f}" if server.inside else ""
        numbers = (statistics.median(took), took[int(len(took) * 0.95)], took[-1])
        rows.append([name, *(f"{one:.0f}" for one in numbers), inside])
    report.table(["ms until its answer", "median", "p95", "most", "of it import to swap"], rows)
    mine = statistics.median(servers["veko serve --dev"].took)
    what = f"saving one plugin beside {others}, until its answer (median of {rounds})"
    report.goals("reloading", [report.goal(what, mine, "{:.0f} ms", most=GOAL)])


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--rounds", type=int, help="how often to save")
    parser.add_argument("--others", type=int, default=200, help="other plugins beside it")


if __name__ == "__main__":
    script(measure, seconds=14, options=options)
