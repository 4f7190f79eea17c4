"""What is lost by reloads under load, half of them to broken versions, and what do they cost?

    python benchmarks/reload_load.py [--seconds 360] [--segment 5] [--quick]

`veko serve --dev` serves a plugin whose hook, middleware, route and service each add the number of
their version to an answer. wrk (50 keep-alive connections, three routes) checks each answer:
status 200 and four equal numbers. At the same time one client reads slow streams of that plugin
and one uses a WebSocket of another plugin. Segments with and without reloads alternate; p99 is
compared between neighbouring segments; a thousand reloads take
some 360 s. `tests/faults/test_reload_under_load.py` is the short form. The limit is nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from pathlib import Path
from typing import Final

import httpx
from _report import Report, progress, script
from websockets.asyncio.client import connect

CONNECTIONS: Final = 50
GOAL: Final = 2.0
SHOP: Final = """
import asyncio
name = "shop"
version = "1.0.{number}"

def load(context):
    def start(request):
        request.state["hook"] = {number}
    async def around(request, call_next):
        request.state["middleware"] = {number}
        return await call_next(request)
    def answer(request):
        found = request.state["hook"], request.state["middleware"], {number}
        return " ".join(map(str, (*found, context.use("number"))))
    async def stream():
        for _ in range(50):
            yield b"{number} "
            await asyncio.sleep(0.01)
    context.hook("request:start", start)
    context.add_middleware(around)
    context.provide("number", {number})
    context.add_route("GET", "/shop/a", answer)
    context.add_route("GET", "/shop/{{name}}/b", answer)
    context.add_route("GET", "/shop/{{number:int}}", answer)
    context.add_route("GET", "/stream", stream)
    {more}
"""
OTHER: Final = """
name = "other"
version = "1.0.0"

def load(context):
    async def echo(socket):
        async for message in socket:
            await socket.send(message)
    context.add_websocket("/echo", echo)
    context.add_route("GET", "/other", lambda: "other")
"""
BROKEN: Final = (
    "raise ValueError('no')", "import nowhere_at_all", "x = (",
    "context.add_route('GET', '/other', lambda: 1)",
)  # fmt: skip
CHECK: Final = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
local paths, turn = {"/shop/a", "/shop/x/b", "/shop/7"}, 0
wrong, seen = 0, 0
function request()
  turn = turn % 3 + 1
  return wrk.format("GET", paths[turn])
end
function response(status, headers, body)
  local a, b, c, d = body:match("^(%d+) (%d+) (%d+) (%d+)$")
  seen = seen + 1
  if status ~= 200 or a == nil or a ~= b or b ~= c or c ~= d then wrong = wrong + 1 end
end
function done(summary, latency, requests)
  local e, wrong, seen = summary.errors, 0, 0
  for _, thread in ipairs(threads) do
    wrong, seen = wrong + thread:get("wrong"), seen + thread:get("seen")
  end
  local errors = e.connect + e.read + e.write + e.timeout
  io.write(string.format("RESULT %d %d %d %d %d\\n",
    seen, wrong, errors, latency:percentile(50), latency:percentile(99)))
end
"""


class Run:
    """What a run came to."""

    def __init__(self, root: Path, port: int, server: Process) -> None:
        self.root = root
        self.port = port
        self.server = server
        self.number = 0
        self.good = self.rolled_back = self.astray = 0
        self.streams = self.messages = self.bad_streams = 0
        self.done = False

    async def segment(self, seconds: int) -> list[int]:
        """Load it; returns requests, wrong answers, errors of sockets, p50 and p99 in us."""
        wrk = await asyncio.create_subprocess_exec(
            "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(self.root / "check.lua"),
            f"http://127.0.0.1:{self.port}", stdout=PIPE, stderr=DEVNULL,
        )  # fmt: skip
        said, _ = await wrk.communicate()
        found = re.search(r"RESULT (.*)", said.decode())
        assert found is not None, said
        return [int(float(word)) for word in found[1].split()]

    async def reload(self) -> None:
        """Save the next version, every second one broken, and wait for what is said of it."""
        self.number += 1
        broken = self.number % 2 == 0
        more = BROKEN[self.number // 2 % len(BROKEN)] if broken else ""
        source = SHOP.format(number=self.number, more=more)
        (self.root / "plugins" / "shop.py").write_text(source)
        said = await line(self.server, r"(reloaded|failed) shop.*")
        failed = said[1] == "failed"
        if failed is not broken:
            progress(f"version {self.number}, {more or 'sound'}: {said[0]}")
        self.good += not failed and not broken
        self.rolled_back += failed and broken
        self.astray += failed is not broken

    async def read_streams(self) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            while not self.done:
                try:
                    answer = await client.get("/stream")
                except httpx.TransportError:
                    self.bad_streams += 1
                    continue
                words = answer.text.split()
                sound = answer.status_code == 200 and len(words) == 50 and len(set(words)) == 1
                self.bad_streams += not sound
                self.streams += 1

    async def talk(self) -> None:
        async with connect(f"ws://127.0.0.1:{self.port}/echo") as socket:
            while not self.done:
                await socket.send("hello")
                assert await socket.recv() == "hello"
                self.messages += 1
                await asyncio.sleep(0.01)


async def line(server: Process, pattern: str) -> re.Match[str]:
    """Wait until the server says something."""
    assert server.stdout is not None
    while said := await server.stdout.readline():
        if found := re.search(pattern, said.decode()):
            return found
    raise SystemExit(f"the server ended without {pattern!r}")


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Load the server, with and without reloads."""
    if shutil.which("wrk") is None:
        report.say("wrk is not installed, so nothing was measured.")
        return
    segment = max(1, min(given.segment, round(given.seconds / 4)))
    root = Path(tempfile.mkdtemp())
    (root / "plugins").mkdir()
    (root / "plugins" / "shop.py").write_text(SHOP.format(number=0, more=""))
    (root / "plugins" / "other.py").write_text(OTHER)
    (root / "veko.toml").write_text('storage = "none"\n')
    (root / "check.lua").write_text(CHECK)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "veko_plugins.cli", "serve", "--dev", "--port", "0", cwd=root,
        stdout=PIPE, stderr=STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        run = Run(root, int((await line(server, r"Listening on \S+:(\d+)"))[1]), server)
        clients = [asyncio.create_task(run.read_streams()), asyncio.create_task(run.talk())]
        still: list[list[int]] = []
        moving: list[list[int]] = []
        begin = time.monotonic()
        while not moving or time.monotonic() - begin < given.seconds:
            progress(f"{run.number} reloads")
            still.append(await run.segment(segment))
            load = asyncio.create_task(run.segment(segment))
            while not load.done():
                await run.reload()
            moving.append(await load)
        took = time.monotonic() - begin
        run.done = True
        await asyncio.gather(*clients)
    finally:
        server.terminate()
        await server.communicate()
        shutil.rmtree(root)
    show(report, run, still, moving, took)


def show(
    report: Report, run: Run, still: list[list[int]], moving: list[list[int]], took: float
) -> None:
    """Report what was seen."""
    report.say(
        f"{run.number} reloads in {took:.0f} s: {run.good} good, {run.rolled_back} rolled back; "
        f"{run.streams} streams read, {run.messages} messages over one WebSocket of another plugin."
    )
    rows, wrongs = [], 0
    for name, segments in (("without reloads", still), ("with reloads", moving)):
        seen, wrong, errors = (sum(segment[i] for segment in segments) for i in range(3))
        times = [f"{statistics.median(one[i] for one in segments) / 1000:.1f}" for i in (3, 4)]
        rows.append([name, f"{seen:,}", str(wrong), str(errors), *times])
        wrongs += wrong + errors
    report.table(["", "requests", "wrong", "socket errors", "p50 ms", "p99 ms"], rows)
    ratio = statistics.median(b[4] / a[4] for a, b in zip(still, moving, strict=True))
    report.goals(
        "reloads under load",
        [
            report.goal("requests lost or answered by mixed versions", wrongs, "{:g}", most=0),
            report.goal("streams cut or mixed", run.bad_streams, "{:g}", most=0),
            report.goal(
                "versions that ended otherwise than they should", run.astray, "{:g}", most=0
            ),
            report.goal("p99 with reloads, by p99 without", ratio, most=GOAL),
        ],
    )


if __name__ == "__main__":
    script(
        measure,
        seconds=12,
        options=lambda parser: parser.add_argument(
            "--segment", type=int, default=5, help="seconds of a segment"
        ),
    )
