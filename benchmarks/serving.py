"""What does a request cost with the hooks of three plugins around it?

    python benchmarks/serving.py [--quick] [--in-process] [--node DIR]

In process, the application is called as a server would call it, with nothing behind `send` and a
new scope for each call. Over sockets, uvicorn (httptools, uvloop) runs on one core and wrk with 50
keep-alive connections on the other; the contenders take turns of a few seconds each. With
`--node`, a directory in which `npm install express fastify` was run, Express and Fastify take part
with the same number of hooks. The applications are in `_apps.py` and `serving.mjs`; `_harness.py`
computes ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _apps import NAMES, application
from _harness import Batch, Timings, batch, compare, pin, table

HERE = Path(__file__).parent
CONNECTIONS = 50
NODE = ("Express", "Fastify")
HEADERS = [
    (b"host", b"127.0.0.1:8000"), (b"user-agent", b"wrk"), (b"accept", b"*/*"),
]  # fmt: skip


async def in_process(seconds: float) -> Timings:
    """Time a request without a server."""
    async with contextlib.AsyncExitStack() as stack:
        apps = {name: await stack.enter_async_context(application(name)) for name in NAMES}

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            return None

        async def ask(app: Any) -> None:
            await app(
                {
                    "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
                    "method": "GET", "path": "/hello", "raw_path": b"/hello", "root_path": "",
                    "scheme": "http", "query_string": b"", "headers": HEADERS, "state": {},
                    "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 8_000),
                },
                receive,
                send,
            )  # fmt: skip

        for app in apps.values():
            for _ in range(1_500):  # past the threshold for compiling a plan
                await ask(app)

        async def make() -> dict[str, Batch]:
            return {name: batch("await ask(app)", ask=ask, app=app) for name, app in apps.items()}

        return await compare(make, seconds=seconds, batch_ns=4_000_000, lives=1)


@contextlib.contextmanager
def server(name: str, node: Path | None) -> Iterator[str]:
    """Serve a contender on the first core and give its URL."""
    if name in NODE:
        command = ["node", str(HERE / "serving.mjs"), name, str(node)]
    else:
        command = [sys.executable, str(HERE / "_apps.py"), name]
    process = subprocess.Popen(
        _on(min, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/hello"
    finally:
        process.stdin.close()
        process.wait(timeout=10)


def _on(which: Any, command: list[str]) -> list[str]:
    """Run a command on one core, where the system can do that."""
    if shutil.which("taskset") is None or not hasattr(os, "sched_getaffinity"):
        return command
    return ["taskset", "-c", str(which(os.sched_getaffinity(0))), *command]


def load(url: str, seconds: float) -> float:
    """Return the requests per second that wrk sees."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", url]
    said = subprocess.run(_on(max, command), capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"{url} did not answer well:\n{said}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found is not None
    return float(found[1])


def over_sockets(rounds: int, seconds: float, node: Path | None) -> dict[str, list[float]]:
    """Let the contenders take turns at being asked by wrk."""
    names = [*NAMES, *(NODE if node else ())]
    seen: dict[str, list[float]] = {name: [] for name in names}
    shuffle = random.Random(0).shuffle
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(server(name, node)) for name in names}
        for url in urls.values():
            load(url, 1)
        for done in range(rounds):
            shuffle(names)
            for name in names:
                seen[name].append(load(urls[name], seconds))
            print(f"  round {done + 1} of {rounds}", file=sys.stderr)
    return seen


def _ratio(seen: dict[str, list[float]], name: str, base: str) -> float:
    return statistics.median(a / b for a, b in zip(seen[name], seen[base], strict=True))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    parser.add_argument("--in-process", action="store_true", help="no sockets")
    parser.add_argument("--node", type=Path, help="where Express and Fastify are installed")
    given = parser.parse_args()
    where = (
        "" if given.in_process else ", over sockets: the server on the first core, wrk on the last"
    )
    versions = ", ".join(
        f"{n} {version(n)}" for n in ("litestar", "starlette", "fastapi", "uvicorn")
    )
    print(f"{platform.python_implementation()} {platform.python_version()}, {versions}{where}\n")
    affinity = os.sched_getaffinity(0)
    pin()
    timings = asyncio.run(in_process(3 if given.quick else 30))
    os.sched_setaffinity(0, affinity)
    rows = [
        [
            name, f"{timings.median(name) / 1_000:.1f}",
            f"{timings.difference(name, 'Litestar') / 1_000:+.1f}",
            f"{1 / timings.ratio(name, 'by hand'):.2f}",
            f"{1 / timings.ratio(name, 'Litestar'):.2f}",
        ]
        for name in timings.names
    ]  # fmt: skip
    print(table(["in process", "µs", "µs more than Litestar", "of by hand", "of Litestar"], rows))
    if given.in_process:
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: no load over sockets")
    rounds, seconds = (3, 2) if given.quick else (9, 3)
    seen = over_sockets(rounds, seconds, given.node)
    rows = [
        [
            name, f"{statistics.median(rates):,.0f}", f"{_ratio(seen, name, 'by hand'):.2f}",
            f"{_ratio(seen, name, 'Litestar'):.2f}",
        ]
        for name, rates in seen.items()
    ]  # fmt: skip
    print()
    print(table(["over sockets", "requests/s", "of by hand", "of Litestar"], rows))


if __name__ == "__main__":
    main()
