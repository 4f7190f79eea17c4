"""What does it cost to run a plugin in a process of its own?

    python benchmarks/remote.py [--seconds N] [--quick] [--encodings]

One application has the same plugin three times: in this process, as JavaScript in a Deno worker and
as Python in a worker. Hook calls take turns in one process: an emission with one handler, there and
back. Requests come over sockets: uvicorn (httptools, uvloop) and wrk with 32 keep-alive
connections, the routes by turns; the server, the worker and wrk share the machine's cores. A start
is measured from the request to the launcher until the worker has said hello; the launcher is warm.
Memory is read from `smaps_rollup`: USS, what would be freed if the process ended, and PSS, which
adds its share of the pages that it shares with the launcher. The host's is its USS per worker, less
what the same plugins take in process. With `--encodings`, JSON and msgpack are compared on both
sides; npm:@msgpack/msgpack is fetched for that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from _report import Report, progress, script
from _servers import child, wrk

from veko_plugins import PluginManager

CONNECTIONS = 32
SIDES = ("in process", "Deno", "Python")
WAYS = ("encode", "decode")
MANY = 20
"""Plugins whose memory is measured."""

PYTHON = """\
name = "{name}"
version = "1.0.0"
{isolation}

def load(context):
    context.hook("bench:{name}", lambda value: value)
    context.add_route("GET", "/{name}", hello)

async def hello(request):
    return {{"hello": "world"}}
"""
SCRIPT = """\
module.exports = {
  name: 'deno', version: '1.0.0',
  load(app, config, context) {
    context.hook('bench:deno', (value) => value);
    context.addRoute('GET', '/deno', (req, res) => res.json({ hello: 'world' }));
  },
};
"""
VALUE = {"user": "ada", "items": [1, 2, 3], "total": 12.5}
REQUEST = {
    "method": "GET", "url": "/orders/7?full=1", "path": "/orders/7", "scheme": "http",
    "host": "shop.example", "params": {"id": "7"}, "query": {"full": "1"},
    "headers": {
        "host": "shop.example", "accept": "application/json", "accept-encoding": "gzip, br",
        "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl",
    },
    "ip": "127.0.0.1", "body": None, "state": {},
}  # fmt: skip
MESSAGES = {
    "a hook call": ["call", 1234, 7, [VALUE], 0],
    "a request": ["call", 1234, 7, [{"0123456789abcdef0123456789abcdef": ["request", REQUEST]}], 0],
    "a list of 200 rows": ["ok", 1234, [VALUE] * 200],
}


# -- the application


def write(folder: Path, *, many: str = "") -> None:
    """Write the plugins."""
    plugins = folder / "plugins"
    plugins.mkdir()
    if many:
        for number in range(MANY):
            text = PYTHON.format(name=f"p{number}", isolation=many)
            (plugins / f"p{number}.py").write_text(text)
        return
    (plugins / "local.py").write_text(PYTHON.format(name="local", isolation=""))
    isolated = PYTHON.format(name="python", isolation='isolation = "process"')
    (plugins / "python.py").write_text(isolated)
    (plugins / "deno.js").write_text(SCRIPT)


@contextlib.asynccontextmanager
async def application(folder: Path) -> AsyncIterator[PluginManager]:
    """Run the application in a folder."""
    async with PluginManager(root=folder, adapter="asgi", storage="none") as manager:
        yield manager


# -- hook calls


async def hooks(manager: PluginManager, seconds: float) -> dict[str, list[float]]:
    """Return the microseconds of single calls, by side."""
    bus = manager.kernel.bus
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    names = dict(zip(SIDES, ("bench:local", "bench:deno", "bench:python"), strict=True))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for side, name in names.items():
            for _ in range(50):
                start = time.perf_counter()
                answer = await bus.emit(name, VALUE)
                took[side].append((time.perf_counter() - start) * 1e6)
            assert answer == VALUE
    return took


# -- requests


async def serve(folder: Path) -> None:
    """Serve the application until nobody holds the other end of standard input."""
    import uvicorn

    async with application(folder) as manager:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            manager.asgi, loop="none", http="httptools", lifespan="off", log_config=None,
            access_log=False, server_header=False, proxy_headers=False, ws="none",
        )  # fmt: skip
        server = uvicorn.Server(config)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        running = asyncio.ensure_future(server._serve([listener]))
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await running


def requests(folder: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Let the routes take turns."""
    seen: dict[str, list[float]] = {side: [] for side in SIDES}
    paths = dict(zip(SIDES, ("/local", "/deno", "/python"), strict=True))
    order, shuffle = list(SIDES), random.Random(0).shuffle
    with child([sys.executable, __file__, "serve", str(folder)], None) as (_, url):
        for path in paths.values():
            wrk(url + path, 1, CONNECTIONS)
        for _ in range(rounds):
            shuffle(order)
            for side in order:
                seen[side].append(wrk(url + paths[side], seconds, CONNECTIONS).rate)
    return seen


# -- starts


async def starts(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds until a worker has said hello."""
    from veko_plugins.remote.deno import find
    from veko_plugins.remote.launcher import Launcher
    from veko_plugins.remote.protocol import Connection
    from veko_plugins.remote.python.runtime import MODULES, Python

    took: dict[str, list[float]] = {side: [] for side in SIDES[1:]}
    kinds = {"Deno": ("script", "deno.js"), "Python": ("python", "python.py")}
    async with Launcher(MODULES) as launcher:
        await launcher.warm()
        runtimes: dict[str, Any] = {"Deno": find(), "Python": Python()}
        for _ in range(rounds + 1):
            for side, runtime in runtimes.items():
                start = time.perf_counter()
                sock, process = await runtime.start(
                    None, launcher=launcher, directory=folder, stderr=2
                )
                connection = Connection(sock, methods={}, notes={"log": lambda *_: None})
                kind, file = kinds[side]
                plugin = {"name": "p", "path": str(folder / "plugins" / file), "kind": kind}
                await connection.open({"plugin": plugin}, timeout=20)
                took[side].append((time.perf_counter() - start) * 1e3)
                await connection.close()
                process.kill()
                await process.wait()
    return {side: times[1:] for side, times in took.items()}


# -- memory


def memory(pid: int | str) -> tuple[int, int]:
    """Return USS and PSS, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    return sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]


def below(pid: int) -> list[int]:
    """Return the processes below one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [one for child in children for one in (int(child), *below(int(child)))]


async def footprint(folder: Path) -> dict[str, int]:
    """Return what the plugins of a folder take here, and what their workers take; in KiB."""
    gc.collect()
    async with application(folder) as manager:
        for number in range(MANY):
            await manager.kernel.bus.emit(f"bench:p{number}", VALUE)
        gc.collect()
        workers = [memory(pid) for pid in below(os.getpid())]
        here = memory("self")[0]
    uss, pss = (_middle(worker[i] for worker in workers) for i in (0, 1))
    return {"here": here, "uss": uss, "pss": pss}


def _middle(values: Any) -> int:
    found = list(values)
    return int(statistics.median(found)) if found else 0


def measured(isolation: str) -> dict[str, int]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, many=isolation or " ")
        said = subprocess.run(
            [sys.executable, __file__, "footprint", name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    found: dict[str, int] = json.loads(said)
    return found


# -- encodings

ENCODINGS = """
import { decode, encode } from 'npm:@msgpack/msgpack@3';
const messages = JSON.parse(Deno.readTextFileSync(Deno.args[0]));
const utf8 = new TextEncoder(), text = new TextDecoder();
const ways = {
  json: [(v) => utf8.encode(JSON.stringify(v)), (b) => JSON.parse(text.decode(b))],
  msgpack: [(v) => encode(v), (b) => decode(b)],
};
const result = {};
for (const [name, message] of Object.entries(messages)) {
  for (const [way, [pack, unpack]] of Object.entries(ways)) {
    const packed = pack(message), rounds = packed.length > 5000 ? 2000 : 50000;
    const times = [];
    for (let i = 0; i < 7; i++) {
      let start = performance.now();
      for (let n = 0; n < rounds; n++) pack(message);
      const packing = (performance.now() - start) / rounds * 1e3;
      start = performance.now();
      for (let n = 0; n < rounds; n++) unpack(packed);
      times.push([packing, (performance.now() - start) / rounds * 1e3]);
    }
    result[`${name}|${way}`] = [0, 1].map((k) => Math.min(...times.map((t) => t[k])));
  }
}
console.log(JSON.stringify(result));
"""


def encodings(folder: Path) -> list[list[str]]:
    """Compare JSON and msgpack for typical messages: microseconds to encode and to decode."""
    (folder / "messages.json").write_text(json.dumps(MESSAGES))
    (folder / "encodings.js").write_text(ENCODINGS)
    deno = shutil.which("deno") or str(Path(sys.executable).with_name("deno"))
    said = subprocess.run(
        [deno, "run", "-A", str(folder / "encodings.js"), str(folder / "messages.json")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    script = json.loads(said)
    rows = []
    for name, message in MESSAGES.items():
        for way, module in (("json", msgspec.json), ("msgpack", msgspec.msgpack)):
            packed = module.encode(message)
            here = [
                _fastest(module.encode, message),
                _fastest(module.decode, packed),
            ]
            cells = [f"{value:.2f}" for value in (*here, *script[f"{name}|{way}"])]
            rows.append([f"{name}, {way}", f"{len(packed):,}", *cells])
    return rows


def _fastest(call: Callable[[Any], object], value: object) -> float:
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            call(value)
        best = min(best, (time.perf_counter() - start) / 500 * 1e6)
    return best


# -- all of it


async def in_process(report: Report, folder: Path, seconds: float) -> None:
    """Measure hook calls and starts."""
    progress("hook calls")
    async with application(folder) as manager:
        took = await hooks(manager, seconds)
    progress("starts")
    started = await starts(folder, max(3, round(seconds)))
    middle = {side: statistics.median(times) for side, times in took.items()}
    start = {side: statistics.median(times) for side, times in started.items()}
    report.goals(
        "a worker",
        [
            report.goal("hook call, Deno", middle["Deno"], "{:.0f} µs", most=250),
            report.goal("hook call, Python", middle["Python"], "{:.0f} µs", most=250),
            report.goal("start of a worker, Deno", start["Deno"], "{:.0f} ms", most=150),
            report.goal("start of a worker, Python", start["Python"], "{:.0f} ms", most=20),
        ],
    )
    report.say(f"The same hook call in process: {middle['in process']:.2f} µs.")


def over_sockets(report: Report, folder: Path, seconds: float) -> None:
    """Measure requests."""
    progress("requests")
    rounds = 3 if seconds >= 9 else 1
    seen = requests(folder, rounds, seconds / rounds / len(SIDES))
    rates = {side: statistics.median(found) for side, found in seen.items()}
    rows = [[side, f"{rate:,.0f}", f"{rate / rates['in process']:.2f}×"]
            for side, rate in rates.items()]  # fmt: skip
    report.table(["a route of a plugin", "requests/s", "of in process"], rows)
    ratio = rates["Deno"] / min(8_000 / 0.4, rates["in process"])
    report.goal("requests/s, Deno, of in process (or of 20,000)", ratio, least=0.4)


def of_memory(report: Report) -> None:
    """Measure what workers take."""
    progress("memory")
    local, remote = measured(""), measured('isolation = "process"')
    host = (remote["here"] - local["here"]) / MANY / 1024
    report.goals(
        "memory of a worker",
        [
            report.goal("the host's, for a worker", host, "{:.2f} MiB", most=1),
            report.goal("a Python worker's (USS)", remote["uss"] / 1024, "{:.1f} MiB", most=25),
            report.goal("a Python worker's (PSS)", remote["pss"] / 1024, "{:.1f} MiB", most=25),
        ],
    )


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure all of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        await in_process(report, folder, given.seconds / 4)
        if shutil.which("wrk") is None:
            report.say("wrk is not installed, so no requests were measured over sockets.")
        else:
            over_sockets(report, folder, given.seconds / 2)
        of_memory(report)
        if given.encodings:
            ways = [f"µs to {way}, {side}" for side in SIDES[:0:-1] for way in WAYS]
            report.table(["message", "bytes", *ways], encodings(folder))


def _run(work: Callable[[Path], Awaitable[Any]], folder: Path) -> Any:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work(folder))  # type: ignore[arg-type]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _run(serve, Path(sys.argv[2]))
    elif sys.argv[1:2] == ["footprint"]:
        print(json.dumps(_run(footprint, Path(sys.argv[2]))))
    else:
        script(
            measure,
            seconds=18,
            options=lambda parser: parser.add_argument(
                "--encodings", action="store_true", help="compare JSON and msgpack too"
            ),
        )
