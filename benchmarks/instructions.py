"""How many instructions does what Veko does often take? Counted, so the clock has no say.

    python benchmarks/instructions.py [--only TEXT] [--check] [--write]

Each case runs in a process of its own under callgrind, twice, with different numbers of calls: the
difference is what the calls cost, without the start. Counts repeat within 1%, whatever else the
machine does. `--check` fails if a case takes more than 5% more than `instructions.json` says, which
`--write` brings up to date; a count holds for one version of Python.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

BASELINE: Final = Path(__file__).with_suffix(".json")
TOLERANCE: Final = 1.05
"""How much dearer than its baseline a case may get: callgrind itself repeats within 1%."""

Run = Callable[[int], Coroutine[Any, Any, object]]
"""Makes so many calls."""


class Case(NamedTuple):
    """What is counted.

    Attributes:
        make: Gives the function that makes the calls.
        base: The case that it is divided by, if any.
        goal: At most how many times that.
        calls: How many more calls the second run makes.
    """

    make: Callable[[], Run]
    base: str = ""
    goal: float | None = None
    calls: int = 2000


CASES: dict[str, Case] = {}


def case(name: str, base: str = "", goal: float | None = None, calls: int = 2000) -> Any:
    """Add a case; the function gives what makes its calls."""

    def add(make: Callable[[], Run]) -> Callable[[], Run]:
        CASES[name] = Case(make, base, goal, calls)
        return make

    return add


def calling(function: Callable[..., Any], *args: Any) -> Run:
    """Make calls of an async function."""

    async def run(n: int) -> None:
        for _ in itertools.repeat(None, n):
            await function(*args)

    return run


# -- emissions

COUNTS: Final = (1, 5, 20, 200)


def _chains() -> None:
    from dispatch import WARM, answering, by_hand, subscribed

    from veko import Bus

    def handlers(is_async: bool, count: int) -> list[Callable[[int], Any]]:
        return [answering(is_async) for _ in range(count)]

    def cold(bus: Bus) -> Bus:
        from veko._bus import plans

        plans.HOT = 10**9  # type: ignore[misc]
        return bus

    def hot(bus: Bus) -> Run:
        emit = bus.emitter("event")

        async def run(n: int) -> None:
            for _ in range(WARM):
                await emit(1)
            for _ in itertools.repeat(None, n):
                await emit(1)

        return run

    def beside(kind: str, count: int) -> str:
        return f"by hand, {count} {kind}"

    def pluggy_of(count: int) -> Run:
        import _peers
        import pluggy

        hook = _peers._plugins(pluggy, lambda: answering(False), count).hook

        async def run(n: int) -> None:
            for _ in itertools.repeat(None, n):
                hook.event(v=1)

        return run

    async def in_group(functions: list[Callable[[int], Any]]) -> None:
        async with asyncio.TaskGroup() as group:
            for function in functions:
                group.create_task(function(1))

    for kind, count in itertools.product(("sync", "async"), COUNTS):
        made = handlers(kind == "async", count)
        calls = 2000 if count < 100 else 200
        base = beside(kind, count)
        CASES[base] = Case(lambda h=made: calling(by_hand(h), 1), calls=calls)
        many = count > 64
        if not many:
            CASES[f"emit hot, {count} {kind}"] = Case(
                lambda h=made: hot(subscribed(h)), base, {"sync": 1.4, "async": 1.25}[kind], calls
            )
        goal = 2 if kind == "async" else 3
        for name in ("emit", "strict", "first"):
            CASES[f"{name} cold, {count} {kind}"] = Case(
                lambda h=made, name=name: calling(
                    functools.partial(cold(subscribed(h)).emit, strict=True)
                    if name == "strict"
                    else getattr(cold(subscribed(h)), name),
                    "event",
                    1,
                ),
                # What is asked in turn ends with the first answer.
                beside(kind, 1) if name == "first" else base,
                goal,
                calls,
            )
        CASES[f"gather, {count} {kind}"] = Case(
            lambda h=made: calling(subscribed(h).gather, "event", 1),
            f"TaskGroup, {count}" if kind == "async" else base,
            1.0 if kind == "async" else 3,
            calls // 10,
        )
        if kind == "async":
            CASES[f"TaskGroup, {count}"] = Case(
                lambda h=made: calling(in_group, h), calls=calls // 10
            )
        else:
            CASES[f"pluggy, {count}"] = Case(lambda c=count: pluggy_of(c), base, calls=calls // 10)
    for count in (1, 5):
        made = handlers(True, count)
        CASES[f"limited hot, {count} async"] = Case(
            lambda h=made: hot(subscribed(h, timeout=30)), beside("async", count), 1.3
        )
        CASES[f"limited cold, {count} async"] = Case(
            lambda h=made: calling(cold(subscribed(h, timeout=30)).emit, "event", 1),
            beside("async", count),
            2.5,
        )


_chains()


# -- running


def instructions(name: str, calls: int) -> int:
    """Return how many instructions a process takes that makes some calls of a case."""
    command = [
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
        sys.executable, __file__, "--run", name, "--calls", str(calls),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=900, check=False
    )
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return int(found[1])


def cost(name: str) -> int:
    """Return the instructions of one call of a case."""
    few, more = 200, 200 + CASES[name].calls
    return round((instructions(name, more) - instructions(name, few)) / (more - few))


def report(costs: dict[str, int]) -> None:
    """Print what was counted, with the case that each is divided by and its goal."""
    print(f"Instructions a call, Python {platform.python_version()}\n")
    print("| what | instructions | beside | goal |\n|---|---|---|---|")
    for name, count in costs.items():
        base, goal = CASES[name].base, CASES[name].goal
        ratio = count / costs[base] if base in costs else None
        beside = f"{ratio:.2f}× {base}" if ratio is not None else ""
        met = "" if goal is None or ratio is None else "met" if ratio <= goal else "**missed**"
        print(f"| {name} | {count:,} | {beside} | {'' if goal is None else f'{goal}× {met}'} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help="cases whose name contains this, and their bases"
    )
    parser.add_argument("--check", action="store_true", help="fail if a case got dearer")
    parser.add_argument("--write", action="store_true", help="write the counts down")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        asyncio.run(CASES[asked.run].make()(asked.calls))
        return 0
    if not shutil.which("valgrind"):
        print("instructions.py needs valgrind (Debian: apt-get install valgrind).", file=sys.stderr)
        return 1
    chosen = [name for name in CASES if asked.only in name]
    chosen = list(dict.fromkeys([n for c in chosen for n in (CASES[c].base, c) if n]))
    with ThreadPoolExecutor(asked.jobs) as pool:
        costs = dict(zip(chosen, pool.map(cost, chosen), strict=True))
    report(costs)
    version = ".".join(platform.python_version_tuple()[:2])
    written = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if asked.write:
        written[version] = written.get(version, {}) | costs
        BASELINE.write_text(json.dumps(written, indent=2) + "\n")
    faults = [
        f"{name}: {count:,} instructions, {before:,} before"
        for name, count in costs.items()
        if (before := written.get(version, {}).get(name)) and count > before * TOLERANCE
    ]
    if asked.check and faults:
        print("\nGot dearer by more than 5%:\n  " + "\n  ".join(faults), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
