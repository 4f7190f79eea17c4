"""For how long does a change hold the event loop? Counted in instructions, so the clock has no say.

    python benchmarks/blocking.py [--only TEXT] [--adapter NAME] [--profile CHANGE]

No change may block the loop for more than 5 ms in an application of 1,000 plugins and 1,000 routes.
A manager with so many is started and then changed: a small plugin, one of 1,000 routes, single
routes, a guard that stands before all routes, configuration. Each run of a callback by the loop is
a step, and what counts is the dearest step of a change.

How it is counted: the process runs under callgrind, whose counter is set to zero before each step
and written after it. (Callgrind takes such requests as a pattern of machine instructions that does
nothing elsewhere; `_Callgrind` has the pattern.) Writing takes longer than counting, so only steps
are written that may be the longest, see `Counted`. Other threads run only
while the loop waits. Long work lets others run every `SLICE` seconds, and under callgrind seconds
mean nothing: here it lets them run after each piece. Outside, the longest step
is then one slice and one piece at most, and `LIMIT` is what is left of 5 ms after a slice.

A second is taken for 3 billion instructions: what is done here ran at 3.3 to 7 billion a second of
the processor's time. Error: counts repeat within 2%, and a request to callgrind adds some 1,000
instructions. The garbage collector is off, since a full collection costs what the process holds,
whatever the change is: it comes on top, as in any process.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import ctypes
import gc
import itertools
import mmap
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from asyncio.events import Handle
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from _report import Report

SLICE: Final = 0.002
"""Seconds after which long work lets others run: `veko._bus.turns.SLICE`."""
PLUGINS: Final = 1_000
ROUTES: Final = 1_000
ADAPTERS: Final = ("litestar", "asgi")
SECOND: Final = 3_000_000_000
"""How many instructions are taken for a second."""
LIMIT: Final = int((0.005 - SLICE) * SECOND)
"""How many instructions a piece may take."""
LONGER: Final = {"unload the guard": 10_500_000}
"""What may miss that: the old routes of all plugins end in one step, which took 9 million."""

_SMALL: Final = """
name = "{name}"
version = "1.0.0"

async def answer(request):
    return "here"

def hear(value):
    return None

def load(context):
    context.add_route("GET", "/{name}/{{id:int}}", answer)
    context.hook("response:end", hear)
    context.hook("{name}:made", hear)
    context.provide("{name}", answer)
"""
_WIDE: Final = """
import asyncio

name = "wide"
version = "1.0.0"

async def answer(request):
    return "here"

async def load(context):
    for number in range({routes}):
        context.add_route("GET", f"/wide/{{number}}/{{{{id:int}}}}", answer)
        if number % 100 == 0:
            await asyncio.sleep(0)
"""
_GUARD: Final = """
import msgspec

name = "guard"
version = "1.0.0"

async def check(request, call_next):
    return await call_next(request)

def guarded(route):
    return msgspec.structs.replace(route, middlewares=(*route.middlewares, check))

def load(context):
    context.hook("route:create", guarded)
"""
_AROUND: Final = """
name = "around"
version = "1.0.0"

async def around(request, call_next):
    return await call_next(request)

def load(context):
    context.add_middleware(around)
"""

_WORK: Final = "(none)"

Change = Callable[[], Awaitable[object]]


def write_plugins(root: Path) -> None:
    """Write the plugins: a thousand that load at the start, and those that come later."""
    here, later = root / "plugins", root / "later"
    here.mkdir()
    later.mkdir()
    for number in range(PLUGINS):
        (here / f"p{number}.py").write_text(_SMALL.format(name=f"p{number}"))
    (later / "small.py").write_text(_SMALL.format(name="small"))
    (later / "wide.py").write_text(_WIDE.format(routes=ROUTES))
    (later / "guard.py").write_text(_GUARD)
    (later / "around.py").write_text(_AROUND)


def changes(manager: Any, later: Path) -> Iterator[tuple[str, Change]]:
    """Yield what is done to the manager, in this order."""
    kernel = manager.kernel
    handles: list[Any] = []

    def life(name: str) -> Iterator[tuple[str, Change]]:
        yield f"load {name}", lambda: manager.load_plugin(later / f"{name}.py")
        yield f"reload {name}", lambda: manager.reload_plugin(name)
        yield f"switch {name} off", lambda: manager.toggle_plugin(name, False)
        yield f"switch {name} on", lambda: manager.toggle_plugin(name, True)

    def unload(name: str) -> tuple[str, Change]:
        return f"unload {name}", lambda: manager.unload_plugin(name)

    async def add_route() -> None:
        context = kernel.get("p5").current.context
        handles.append(context.add_route("GET", "/one/more", _answer))
        await handles[-1]

    async def cancel_route() -> None:
        handles.pop().cancel()

    yield from life("small")
    yield "configure small", lambda: kernel.update_config("small", {"one": 1})
    yield unload("small")
    yield from life("wide")
    yield "add a route", add_route
    yield "cancel a route", cancel_route
    yield unload("wide")
    yield "load a guard", lambda: manager.load_plugin(later / "guard.py")
    yield "unload the guard", lambda: manager.unload_plugin("guard")
    yield "load a middleware", lambda: manager.load_plugin(later / "around.py")
    yield "unload the middleware", lambda: manager.unload_plugin("around")
    yield "save the state", manager.save_state


async def _answer() -> str:
    return "here"


# -- counting


class _Callgrind:
    """Asks callgrind for its counter, by the pattern that valgrind's headers document for x86-64.

    Elsewhere than under valgrind the pattern turns a register by 128 bits and exchanges one with
    itself, which does nothing.
    """

    _CODE: Final = bytes.fromhex(
        "4889f8"  # mov rax, rdi: the request and its arguments
        "31d2"  # xor edx, edx: the answer elsewhere
        "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi by 3, 13, 61, 51
        "4887db"  # xchg rbx, rbx
        "4889d0"  # mov rax, rdx: the answer
        "c3"
    )
    _TOOL: Final = ord("C") << 24 | ord("T") << 16

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(self._CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._ask = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)
        self._requests = {n: self._request(n) for n in (1, 4)}

    def _request(self, number: int, argument: int = 0) -> Any:
        return (ctypes.c_uint64 * 6)(self._TOOL + number, argument, 0, 0, 0, 0)

    def zero(self) -> None:
        """Set the counter to zero."""
        self._ask(self._requests[1])

    def dump(self, name: str) -> None:
        """Write the counter under a name."""
        text = ctypes.create_string_buffer(name.encode())
        self._ask(self._request(3, ctypes.addressof(text)))

    def start(self) -> None:
        """Begin to count: until then, programs run ten times as fast."""
        self._ask(self._requests[4])


class Counted:
    """Counts the steps under callgrind, and writes the counts of those that may be the longest.

    Which those are is known by the time of the processor: callgrind stretches it about alike
    everywhere, least in a short loop, such as `_work` is.
    """

    def __init__(self) -> None:
        self._callgrind = _Callgrind()
        self._change = ""
        self._wanted = 0.0
        self._longest = 0.0

    def begin(self, change: str) -> None:
        """Count the steps of a change from here on."""
        self._change, self._longest = change, 0.0
        if not self._wanted:
            self._callgrind.start()
            self._work()  # code that runs for the first time takes longer
            self._callgrind.zero()
            self._wanted = self._work()
            self._callgrind.dump(f"{_WORK} | the measure of what is written")

    def end(self) -> None:
        """Note that the change was made, even if none of its steps is written."""
        self._callgrind.zero()
        self._callgrind.dump(f"{self._change} | shorter steps")

    @staticmethod
    def _work() -> float:
        """Do as much as a step may do that is not written; returns how long it took."""
        begin = time.thread_time()
        for _ in itertools.repeat(None, LIMIT // 200):
            pass
        return time.thread_time() - begin

    def step(self, run: Callable[[Handle], None], handle: Handle) -> None:
        """Run a step, and write its count if it may matter."""
        where = _where(handle)
        self._callgrind.zero()
        begin = time.thread_time()
        run(handle)
        took = time.thread_time() - begin
        if took > max(self._wanted, 0.8 * self._longest):
            self._callgrind.dump(f"{self._change} | {where}")
            self._longest = max(self._longest, took)


class Profiled:
    """Profiles each step, and keeps the profile of the longest."""

    def __init__(self, change: str) -> None:
        self._wanted = change
        self._change = ""
        self.longest = 0.0
        self.where = ""
        self.profile: cProfile.Profile | None = None

    def begin(self, change: str) -> None:
        self._change = change

    def end(self) -> None:
        self._change = ""

    def step(self, run: Callable[[Handle], None], handle: Handle) -> None:
        if self._change != self._wanted:
            run(handle)
            return
        where = _where(handle)
        profile = cProfile.Profile(time.thread_time)
        begin = time.thread_time()
        profile.enable()
        run(handle)
        profile.disable()
        took = time.thread_time() - begin
        if took > self.longest:
            self.longest, self.where, self.profile = took, where, profile


def _where(handle: Any) -> str:
    """Return where a step begins: in which function the task waits, or what is called."""
    callback: Any = handle._callback
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return getattr(callback, "__qualname__", type(callback).__name__)
    inner: Any = task.get_coro()
    name = getattr(inner, "__qualname__", "?")
    while inner is not None:
        frame = getattr(inner, "cr_frame", None)
        if frame is not None and "/veko" in frame.f_code.co_filename:
            name = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
        inner = getattr(inner, "cr_await", None)
    return name


@contextmanager
def each_step(by: Counted | Profiled) -> Iterator[None]:
    """Let each step of the loop be run by something."""
    handles: Any = Handle
    original = handles._run
    own = asyncio.current_task()

    def run(handle: Any) -> None:
        called = handle._callback
        if getattr(called, "__self__", None) is own:  # it begins and ends the counting
            original(handle)
        else:
            by.step(original, handle)

    handles._run = run
    try:
        yield
    finally:
        handles._run = original


async def run(adapter: str, by: Counted | Profiled, only: str) -> None:
    """Make all the changes, and let some be counted."""
    from veko._bus import turns
    from veko_plugins import PluginManager

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_plugins(root)
        # What is done at intervals would come in between, and the watchdog looks at the clock.
        manager = PluginManager(root=root, adapter=adapter, watchdog=0)
        async with manager:
            assert len(manager.report.loaded) == PLUGINS, manager.report
            gc.collect()
            gc.disable()
            assert turns.SLICE == SLICE
            turns.SLICE = 0.0  # type: ignore[misc]
            for name, change in changes(manager, root / "later"):
                if only not in name:
                    await change()
                    continue
                task = asyncio.ensure_future(change())
                with each_step(by):
                    by.begin(name)
                    await task
                    for _ in range(20):  # what the change has started
                        await asyncio.sleep(0)
                    by.end()
            turns.SLICE = SLICE  # type: ignore[misc]


# -- running


class Step(NamedTuple):
    """A step of a change.

    Attributes:
        instructions: How many it took.
        where: Where it begins.
    """

    instructions: int
    where: str


_DUMP: Final = re.compile(
    r"^desc: Trigger: Client Request: (.*) \| (.*)\n\n.*\n.*\nsummary: (\d+)", re.M
)


def counted(adapter: str, only: str) -> dict[str, Step]:
    """Return the longest step of each change, counted in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", "--combine-dumps=yes",
            "--dump-line=no", f"--callgrind-out-file={out}",
            sys.executable, __file__, "--run", adapter, "--only", only,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=900, check=False
        )
        if done.returncode:
            raise SystemExit(f"{adapter}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        found: dict[str, Step] = {}
        for change, where, count in _DUMP.findall(out.read_text()):
            found[change] = max(found.get(change, Step(0, "")), Step(int(count), where))
    measure = found.pop(_WORK, Step(0, ""))
    if not 0 < measure.instructions < LIMIT / 2:
        raise SystemExit(
            f"the measure of what is written took {measure.instructions:,} instructions"
        )
    return found


def reported(counts: dict[str, dict[str, Step]]) -> Report:
    """Return the longest step of each change, by adapter."""
    report = Report("blocking")
    head = [f"among {PLUGINS:,} plugins and {ROUTES:,} routes, by adapter", *counts]
    changes = dict.fromkeys(change for found in counts.values() for change in found)
    rows = [
        [change, *(_millions(found.get(change)) for found in counts.values())] for change in changes
    ]
    report.table(head, rows)
    longest = {adapter: max(found.values()).instructions / 1e6 for adapter, found in counts.items()}
    report.goals(
        "millions of instructions",
        [
            report.goal(f"the longest step, {adapter}", count, "{:.1f}", most=LIMIT / 1e6)
            for adapter, count in longest.items()
        ],
    )
    return report


def _millions(step: Step | None) -> str:
    if step is None:
        return ""
    return (
        f"{step.instructions / 1e6:.1f}" if step.instructions > LIMIT // 8 else f"< {LIMIT / 2e6:g}"
    )


def check(adapters: Sequence[str], only: str, result: Path | None) -> int:
    """Count, print the table, and say what is too long; returns the exit code."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda adapter: counted(adapter, only), adapters))
    counts = dict(zip(adapters, found, strict=True))
    made = reported(counts).result()
    if result is not None:
        result.write_bytes(msgspec.json.encode(made))
        return 0
    print("\n\n".join(made.parts.values()))
    late = [
        (adapter, change, step)
        for adapter, steps in counts.items()
        for change, step in steps.items()
        if step.instructions > LONGER.get(change, LIMIT)
    ]
    for adapter, change, step in late:
        print(
            f"\nBlocks for more than 5 ms: {change}, adapter {adapter}: {step.instructions:,} "
            f"instructions in one step, {LIMIT:,} are allowed. It begins at {step.where}.",
            file=sys.stderr,
        )
        command = [sys.executable, __file__, "--adapter", adapter, "--profile", change]
        profile = subprocess.run(command, capture_output=True, text=True, check=False)
        print(profile.stdout, file=sys.stderr)
    return 1 if late else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="changes whose name contains this")
    parser.add_argument("--adapter", choices=ADAPTERS, help="one of the adapters")
    parser.add_argument("--profile", metavar="CHANGE", help="profile the longest step of a change")
    parser.add_argument("--quick", action="store_true", help="a small plugin, one adapter")
    parser.add_argument("--result", type=Path, help="write JSON for run.py into this file")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        sys.setswitchinterval(1000)  # other threads run while the loop waits, not within a step
        asyncio.run(run(asked.run, Counted(), asked.only))
        return 0
    if asked.profile:
        by = Profiled(asked.profile)
        asyncio.run(run(asked.adapter or ADAPTERS[0], by, ""))
        print(f"{by.longest * 1000:.1f} ms by the profiler, from {by.where}")
        stats = pstats.Stats(by.profile)
        stats.sort_stats("cumulative").print_stats(25)
        return 0
    if not shutil.which("valgrind"):
        print("blocking.py needs valgrind (Debian: apt-get install valgrind).", file=sys.stderr)
        return 1
    if asked.quick:
        return check(["asgi"], "small", asked.result)
    adapters = [asked.adapter] if asked.adapter else ADAPTERS
    return check(adapters, asked.only, asked.result)


if __name__ == "__main__":
    sys.exit(main())
