"""What does the ledger cost?

    python benchmarks/ledger.py [--seconds N] [--quick]

Requests through the ASGI application of a manager with three plugins (a hook, a middleware, a
route), with samples and without, in turns of a fifth of a second in one process. What is
compared is the processor time of a request: other processes do not count in it. Beside it is the
processor time of one sample in a request's stack, times the samples that a second of processor time
has.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from typing import Any

from _harness import pinned
from _report import Report, script

from veko_plugins import PluginManager

TURN = 0.2
SAMPLES_A_SECOND = 100


def hook(context: Any) -> None:
    async def start(request: Any) -> None:
        return None

    context.hook("request:start", start)


def around(context: Any) -> None:
    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    context.add_middleware(through)


def shop(context: Any) -> None:
    async def items() -> dict[str, int]:
        return {"chairs": 3}

    context.add_route("GET", "/items", items)


SCOPE: dict[str, Any] = {
    "type": "http", "method": "GET", "path": "/items", "raw_path": b"/items", "query_string": b"",
    "headers": [], "root_path": "", "scheme": "http", "http_version": "1.1",
}  # fmt: skip


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    return None


async def turn(app: Any) -> float:
    """Answer requests for a turn; return the processor time of each in seconds."""
    done, begin = 0, time.process_time()
    while time.process_time() - begin < TURN:
        for _ in range(50):
            await app(dict(SCOPE), receive, send)
        done += 50
        await asyncio.sleep(0)
    return (time.process_time() - begin) / done


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure both."""
    rounds = max(2, round(given.seconds / TURN / 3))
    with pinned():
        await _measure(report, rounds)


async def _measure(report: Report, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        options: dict[str, Any] = {"auto_load": False, "storage": "memory:", "ledger": True}
        async with PluginManager(root=directory, watchdog=0, **options) as manager:
            for plugin in (hook, around, shop):
                await manager.load_plugin(
                    {"name": plugin.__name__, "version": "1.0.0", "load": plugin}
                )
            sampler = manager.use("ledger")._sampler
            sample: list[float] = []

            async def sampled(request: Any) -> None:
                frame = sys._getframe()
                begin = time.perf_counter_ns()
                for _ in range(100):
                    sampler._sample(frame)
                sample.append((time.perf_counter_ns() - begin) / 100)

            ratios = []
            for _ in range(3):
                await turn(manager.asgi)
            for _ in range(rounds):
                sampler.stop()
                off = await turn(manager.asgi)
                sampler.start()
                on = await turn(manager.asgi)
                sampler.stop()
                ratios.append(on / ((off + await turn(manager.asgi)) / 2))
            subscription = manager.bus.on("request:start", sampled)
            for _ in range(20):
                await manager.asgi(dict(SCOPE), receive, send)
            subscription.cancel()
            sampler.start()
    added = (statistics.median(ratios) - 1) * 100
    low, high = ((ratio - 1) * 100 for ratio in statistics.quantiles(ratios, n=4)[::2])
    each = statistics.median(sample)
    report.goals(
        "the ledger",
        [
            report.goal("a request's processor time", added, "{:+.2f} %", most=2),
            report.goal("samples, of a core", each * SAMPLES_A_SECOND / 1e7, "{:.3f} %", most=2),
        ],
    )
    report.say(
        f"Quartiles of the request's: {low:+.2f} to {high:+.2f} %; a sample: {each / 1000:.1f} µs."
    )


if __name__ == "__main__":
    script(measure, seconds=8)
