"""How many instructions does what Veko does often take? Counted, so the clock has no say.

    python benchmarks/instructions.py [--only TEXT] [--check] [--write] [--quick]

Each case runs in a process of its own under callgrind, twice, with different numbers of calls: the
difference is what the calls cost, without the start. The processes are forks of one that has
imported everything. Counts repeat within 1%, whatever else the machine does. The limit is the same
by hand; peers are pluggy, a TaskGroup and Litestar. `--check` (`make bench-instructions`) counts a
dozen hot paths. It fails if one takes more than 5% more (15% with a manager), in proportion, than
`instructions.json` says for this version of Python, or if the default request misses its goal;
`--write` brings that file up to date.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import importlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from _apps import BARE, COLLECTOR, hello
from _plots import Bar, bars
from _report import Report, progress

BASELINE: Final = Path(__file__).with_suffix(".json")
GUARDED: Final = (
    "emit hot, 5 sync", "emit hot, 5 async", "emit cold, 5 sync", "emit cold, 5 async",
    "limited hot, 5 async", "gather, 5 async", "GET asgi", "POST asgi",
    "GET default request", "POST default request",
    "GET default request, uvicorn", "POST default request, uvicorn",
    "GET default request, tracing unsampled", "GET default request, traced",
)  # fmt: skip
"""What `--check` counts: the paths that applications run all the time."""
FRONT: Final = {
    "GET default request, uvicorn": "Veko as it is by default, six hooks",
    "GET asgi, uvicorn": "Veko without a manager, no hooks",
    "GET Starlette, uvicorn": "Starlette, no hooks",
    "GET Litestar, uvicorn": "Litestar, no hooks",
    "GET FastAPI, uvicorn": "FastAPI, no hooks",
}
"""The picture of the README, and what the cases are called there."""
SHOWN: Final = (
    *(name for name in GUARDED if "trac" not in name), *FRONT,
    "GET default request, tracing unsampled, uvicorn", "GET default request, traced, uvicorn",
    "strict cold, 5 async", "limited cold, 5 async", "pluggy, 5",
)  # fmt: skip
"""What docs/benchmarks.md shows."""

Run = Callable[[int], Coroutine[Any, Any, object]]
"""Makes so many calls."""


class Case(NamedTuple):
    """What is counted.

    Attributes:
        make: Gives the function that makes the calls.
        base: The case that it is divided by, if any.
        goal: At most how many times that.
        calls: How many more calls the second run makes.
        first: How many calls the first run makes: enough for what warms up to be warm.
    """

    make: Callable[[], Run]
    base: str = ""
    goal: float | None = None
    calls: int = 2000
    first: int = 200


CASES: dict[str, Case] = {}


def calling(function: Callable[..., Any], *args: Any) -> Run:
    """Make calls of an async function."""

    async def run(n: int) -> None:
        for _ in itertools.repeat(None, n):
            await function(*args)

    return run


# -- emissions

COUNTS: Final = (1, 5, 20, 200)


def _chains() -> None:
    from dispatch import WARM, answering, by_hand, subscribed, suspending

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

    async def nothing() -> None:
        return None

    def awaiting() -> Callable[[int], Any]:
        async def handler(value: int) -> int:
            await nothing()
            return value

        return handler

    for count in (1, 5):
        awaits = [awaiting() for _ in range(count)]
        base = f"by hand, {count} awaiting"
        CASES[base] = Case(lambda h=awaits: calling(by_hand(h), 1))
        CASES[f"limited hot, {count} awaiting"] = Case(
            lambda h=awaits: hot(subscribed(h, timeout=30)), base, 1.3
        )
        suspends = [suspending(True) for _ in range(count)]
        base = f"asyncio.timeout by hand, {count} suspending"
        CASES[base] = Case(lambda h=suspends: calling(by_hand(h, limited=True), 1), calls=500)
        CASES[f"limited hot, {count} suspending"] = Case(
            lambda h=suspends: hot(subscribed(h, timeout=30)), base, 1.3, 500
        )
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


# -- requests


class Order(msgspec.Struct):
    """The body of a POST."""

    item: str
    count: int
    tags: list[str]


async def order(data: Order) -> dict[str, object]:
    """Answer: the handler of every POST."""
    return {"item": data.item, "count": data.count + 1}


BODY: Final = b'{"item":"pen","count":3,"tags":["blue","new"]}'


def settle() -> None:
    """Take what was made so far out of the garbage collector's hands.

    A full collection in one of the two runs would count as a part of each call.
    """
    gc.collect()
    gc.freeze()


def asking(app: Any, method: str) -> Run:
    """Make requests of an ASGI application, without a server."""
    body = BODY if method == "POST" else b""
    answered: list[int] = []
    headers = [
        (b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench/1.0"), (b"accept", b"*/*"),
        *([(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
          if body else []),
    ]  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    async def run(n: int) -> None:
        settle()
        path = "/order" if method == "POST" else "/hello"
        for _ in itertools.repeat(None, n):
            scope = {
                "type": "http", "method": method, "path": path, "raw_path": path.encode(),
                "query_string": b"", "headers": headers, "root_path": "", "http_version": "1.1",
                "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
                "asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {},
            }  # fmt: skip
            await app(scope, receive, send)
        assert answered.count(200) == len(answered) > 0, answered[:3]

    return run


_CLIENT: Final = """
import socket, sys
port, count, request = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
client = socket.create_connection(("127.0.0.1", port), timeout=60)
for _ in range(count):
    client.sendall(request)
    answer = b""
    while b"}" not in answer:
        more = client.recv(65536)
        assert more and b" 200 " in answer + more, answer + more
        answer += more
"""


def _request_of(method: str) -> bytes:
    path, body = ("/order", BODY) if method == "POST" else ("/hello", b"")
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: 127.0.0.1:8000",
        "user-agent: bench/1.0",
        "accept: */*",
    ]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def serving(app: Any, method: str, n: int) -> None:
    """Answer requests of one connection through uvicorn; the client's process is not counted."""
    import uvicorn

    settle()
    config = uvicorn.Config(
        app, port=0, loop="asyncio", http="httptools", lifespan="off", access_log=False,
        interface="asgi3", log_level="warning",
    )  # fmt: skip
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    listening.listen()
    task = asyncio.create_task(server.serve([listening]))
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CLIENT, str(listening.getsockname()[1]), str(n),
        _request_of(method).hex(),
    )  # fmt: skip
    assert await client.wait() == 0
    server.should_exit = True
    await task


async def by_hand(scope: Any, receive: Any, send: Any, hooks: int = 0) -> None:
    """Answer both routes: the limit."""
    for _ in range(hooks):
        await _observe(scope)
    if scope["path"] == "/hello" and scope["method"] == "GET":
        body = msgspec.json.encode(await hello())
    elif scope["path"] == "/order" and scope["method"] == "POST":
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = msgspec.json.encode(await order(_decode(b"".join(parts))))
    else:
        raise LookupError(scope["path"])
    for _ in range(hooks):
        await _observe(scope)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_decode = msgspec.json.Decoder(Order).decode


async def _observe(one: object) -> None:
    return None


def _own() -> Any:
    async def observe(one: object) -> None:
        return None

    return observe


def _plugin(name: str, routes: bool, hooks: bool) -> dict[str, Any]:
    def load(context: Any) -> None:
        if routes:
            context.add_route("GET", "/hello", hello)
            context.add_route("POST", "/order", order)
        if hooks:
            context.hook("request:start", _own())
            context.hook("response:start", _own())

    return {"name": name, "version": "1.0.0", "load": load}


def served(app: Any, method: str) -> Run:
    """Serve an application through uvicorn."""
    return functools.partial(serving, app, method)


def by_kernel(adapter: str, method: str, server: bool = False) -> Run:
    """Ask a kernel with an HTTP adapter and one plugin, without hooks."""

    async def run(n: int) -> None:
        from veko import Kernel
        from veko_plugins.http import Routes

        async with Kernel() as kernel:
            await kernel.load(Routes(adapter))
            await kernel.load(_plugin("shop", routes=True, hooks=False))
            await (served if server else asking)(kernel.use("http").asgi, method)(n)

    return run


def by_manager(method: str, count: int, server: bool = False, **options: Any) -> Run:
    """Ask a manager as it is by default, with some plugins that hook requests and responses."""

    async def run(n: int) -> None:
        from veko_plugins import PluginManager

        with tempfile.TemporaryDirectory() as folder:
            # The watchdog looks each so many seconds, and callgrind makes seconds short of calls.
            manager = PluginManager(
                root=folder,
                auto_load=False,
                adapter="asgi",
                storage="memory:",
                watchdog=0,
                **options,
            )
            async with manager:
                for index in range(count or 1):
                    plugin = _plugin(f"shop{index}", index == 0, count > 0)
                    await manager.load_plugin(plugin)
                # Under callgrind a request over a socket takes ten times as long as one in process.
                await asking(manager.asgi, method)(WARM)
                await _flushed(manager)
                await (served if server else asking)(manager.asgi, method)(n)
                await _flushed(manager)

    return run


async def _flushed(manager: Any) -> None:
    """Send the spans that were recorded so far: requests in process leave no time for it."""
    if manager.kernel.registry.get("service", "tracing") is not None:
        assert await manager.use("tracing").flush(60)


@contextlib.contextmanager
def collecting() -> Iterator[str]:
    """Run a collector of spans in a process of its own, which is not counted; gives its URL."""
    file = Path(__file__).with_name("_apps.py")
    with subprocess.Popen(
        [sys.executable, str(file), COLLECTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()


def by_traced(method: str, sample: float, server: bool = False) -> Run:
    """Ask the default manager with tracing; what it records goes to a collector."""

    async def run(n: int) -> None:
        from veko_plugins.tracing.export import outbox, pump

        # As with the watchdog: what tracing does each second would count as that of few requests.
        pump.INTERVAL = outbox._INTERVAL = 1000.0  # type: ignore[misc]
        with collecting() if sample else contextlib.nullcontext() as url:
            sections = {"tracing": {"sample": sample, "otlp": url}}
            await by_manager(method, 3, server, plugins=sections)(n)

    return run


WARM: Final = 1200
"""Requests after which the plans of their events are compiled."""


def _requests() -> None:
    def litestar(method: str) -> Run:
        from litestar import Litestar, get, post

        routes = [get("/hello")(hello), post("/order", status_code=200)(order)]
        return asking(Litestar(routes, openapi_config=None, logging_config=None), method)

    for method in ("GET", "POST"):
        hand, hooked = f"{method} by hand", f"{method} by hand, 6 hooks"
        calls = 300
        CASES[hand] = Case(lambda m=method: asking(by_hand, m), calls=calls)
        CASES[hooked] = Case(
            lambda m=method: asking(functools.partial(by_hand, hooks=3), m), calls=calls
        )
        CASES[f"{method} Litestar"] = Case(lambda m=method: litestar(m), hand, calls=calls)
        CASES[f"{method} asgi"] = Case(lambda m=method: by_kernel("asgi", m), hand, calls=calls)
        CASES[f"{method} litestar adapter"] = Case(
            lambda m=method: by_kernel("litestar", m), f"{method} Litestar", calls=calls
        )
        CASES[f"{method} manager"] = Case(lambda m=method: by_manager(m, 0), hand, calls=calls)
        CASES[f"{method} default request"] = Case(
            lambda m=method: by_manager(m, 3), hooked, calls=calls
        )
        few = {"calls": calls, "first": 50}
        CASES[f"{hand}, uvicorn"] = Case(lambda m=method: served(by_hand, m), **few)
        CASES[f"{method} asgi, uvicorn"] = Case(
            lambda m=method: by_kernel("asgi", m, server=True), f"{hand}, uvicorn", 1.3, **few
        )
        CASES[f"{hooked}, uvicorn"] = Case(
            lambda m=method: served(functools.partial(by_hand, hooks=3), m), **few
        )
        CASES[f"{method} default request, uvicorn"] = Case(
            lambda m=method: by_manager(m, 3, server=True), f"{hooked}, uvicorn", 1.6, **few
        )
    for peer in ("Starlette", "Litestar", "FastAPI"):
        CASES[f"GET {peer}, uvicorn"] = Case(
            lambda p=peer: served(BARE[p](), "GET"), "GET by hand, uvicorn", **few
        )
    # The goals are what 0.95 and 0.70 of the requests a second without tracing come to.
    for kind, sample, goal in (("tracing unsampled", 0.0, 1 / 0.95), ("traced", 1.0, 1 / 0.70)):
        CASES[f"GET default request, {kind}"] = Case(
            lambda s=sample: by_traced("GET", s), "GET default request", calls=calls
        )
        CASES[f"GET default request, {kind}, uvicorn"] = Case(
            lambda s=sample: by_traced("GET", s, server=True),
            "GET default request, uvicorn",
            round(goal, 2),
            **few,
        )


_requests()


def _recorder() -> None:
    from recording import MODES, PAYLOADS, emitting

    def emission(mode: str, args: tuple[Any, ...]) -> Run:
        async def run(n: int) -> None:
            async with emitting(mode) as emit:
                await calling(emit, *args)(WARM)
                settle()
                await calling(emit, *args)(n)

        return run

    for (payload, args), mode in itertools.product(PAYLOADS.items(), MODES):
        base = f"recorder {MODES[0]}, {payload}"
        goal = 1.02 if mode == "off" else None
        CASES[f"recorder {mode}, {payload}"] = Case(
            lambda m=mode, a=args: emission(m, a), "" if mode == MODES[0] else base, goal
        )


_recorder()


# -- running


class Counter:
    """A process under callgrind that forks for each run, so that the start is counted once."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                 sys.executable, __file__, "--serve"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip

    def instructions(self, name: str, calls: int) -> int:
        """Return how many a process takes that makes some calls of a case, with its start."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, calls]) + "\n")
        self._process.stdin.flush()
        pid, _, status = self._process.stdout.readline().strip().partition(" ")
        said = self._log.read_text(errors="replace")
        found = re.search(rf"=={pid}== Collected\s*:\s*(\d+)", said) if pid else None
        if status != "0" or not found:
            raise SystemExit(f"{name}: exit status {status or 'unknown'}\n{said[-2000:]}")
        return int(found[1])

    def cost(self, name: str) -> int:
        """Return the instructions of one call of a case."""
        few, more = CASES[name].first, CASES[name].first + CASES[name].calls
        counts = [self.instructions(name, calls) for calls in (few, more)]
        return round((counts[1] - counts[0]) / (more - few))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def serve() -> None:
    """Run what is asked for on standard input, each in a fork; print its process id and status."""
    for line in sys.stdin:
        name, calls = json.loads(line)
        if name.startswith(("GET", "POST")):
            for module in ("uvicorn", "veko_plugins.manager", "veko_plugins.http"):
                importlib.import_module(module)
        child = os.fork()
        if not child:
            status = 1
            try:
                asyncio.run(CASES[name].make()(calls))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(*os.waitpid(child, 0), flush=True)


def costs_of(names: list[str], jobs: int) -> dict[str, int]:
    """Return the instructions of one call of each case."""
    found: dict[str, int] = {}
    waiting = list(reversed(names))

    def count(log: Path) -> None:
        counter = Counter(log)
        try:
            while waiting:
                name = waiting.pop()
                progress(name)
                found[name] = counter.cost(name)
        finally:
            counter.close()

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        logs = [Path(folder) / str(number) for number in range(min(jobs, len(names)))]
        for done in [pool.submit(count, log) for log in logs]:
            done.result()
    return {name: found[name] for name in names}


def reported(costs: dict[str, int]) -> Report:
    """Return what was counted, with the case that each is divided by and its goal."""
    report = Report("instructions")
    for part in ("requests", "emissions"):
        report.part(f"instructions: {part}")
        rows: list[list[str]] = []
        drawn: list[Bar] = []
        for name, count in costs.items():
            if name.startswith(("GET", "POST")) is not (part == "requests"):
                continue
            base, most = CASES[name].base, CASES[name].goal
            if base not in costs:
                rows.append([name, f"{count:,}", "", "", "", ""])
                continue
            ratio = count / costs[base]
            goal = None if most is None else report.goal(f"{name}, by {base}", ratio, most=most)
            ends = ["", ""] if goal is None else [goal.wanted, goal.verdict]
            rows.append([name, f"{count:,}", f"{ratio:.2f}×", base, *ends])
            drawn.append(Bar(name, ratio, most, f"{ratio:.2f}× {base}"))
        if not rows:
            continue
        report.table(["instructions a call", "", "times", "what", "goal", ""], rows)
        title = f"Instructions of {part}, as multiples of the same without Veko, or as named"
        report.plot(f"{part}.svg", bars(title, drawn), title)
    front = [
        Bar(said, costs[name] / costs[CASES[name].base], CASES[name].goal)
        for name, said in FRONT.items()
        if name in costs
    ]
    title = "Instructions of a GET through uvicorn, as a multiple of the same by hand"
    report.plot("default.svg", bars(title, front, most=4))
    return report


def ratios_of(costs: dict[str, int]) -> dict[str, float]:
    """Return how many times its base each case takes."""
    bases = {name: CASES[name].base for name in costs}
    return {
        name: round(costs[name] / costs[base], 3) for name, base in bases.items() if base in costs
    }


def tolerance(name: str) -> float:
    """Return how many times its baseline a case may take."""
    if name.endswith("uvicorn"):
        return math.inf  # how many events a turn of the loop finds depends on time: the goal counts
    if "default request" in name:
        return 1.15  # what a manager does each second: a slow callgrind sees more of it, up to 8%
    return 1.05  # callgrind itself repeats within 1%


def check(ratios: dict[str, float], baseline: dict[str, dict[str, float]], version: str) -> int:
    """Compare with what was written down; return the exit code."""
    written = baseline.get(version, {})
    unknown = [name for name in ratios if name not in written]
    if unknown:
        print(
            f"\n{BASELINE.name} has nothing for Python {version} to compare with: "
            f"{'none of the cases' if not written else ', '.join(unknown)}. It has "
            f"{', '.join(baseline)}; counts of one version say nothing about another. Write "
            "them down on the commit before the change: python benchmarks/instructions.py --write",
            file=sys.stderr,
        )
    dearer = [
        f"{name}: {ratio:.2f}× {CASES[name].base}, {written[name]:.2f}× before"
        for name, ratio in ratios.items()
        if ratio > written.get(name, ratio) * tolerance(name)
    ]
    if dearer:
        print("\nGot dearer:\n  " + "\n  ".join(dearer), file=sys.stderr)
    missed = [
        f"{name}: {ratio:.2f}× {CASES[name].base}, at most {goal}× is wanted"
        for name, ratio in ratios.items()
        if "default request" in name and (goal := CASES[name].goal) and ratio > goal
    ]
    if missed:
        print("\nOver the goal:\n  " + "\n  ".join(missed), file=sys.stderr)
    return 1 if unknown or dearer or missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help="cases whose name contains this, and their bases"
    )
    parser.add_argument("--check", action="store_true", help="fail if a guarded case got dearer")
    parser.add_argument(
        "--write", action="store_true", help="write the ratios of the guarded cases down"
    )
    parser.add_argument("--quick", action="store_true", help="one case only")
    parser.add_argument("--result", type=Path, help="write JSON for run.py into this file")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve()
        return 0
    if not shutil.which("valgrind"):
        print("instructions.py needs valgrind (Debian: apt-get install valgrind).", file=sys.stderr)
        return 1
    every = GUARDED if asked.check or asked.write else SHOWN if asked.result else tuple(CASES)
    only = "emit hot, 5 sync" if asked.quick else asked.only
    chosen = [name for name in every if only in name]
    chosen = list(dict.fromkeys([n for c in chosen for n in (CASES[c].base, c) if n]))
    costs = costs_of(chosen, asked.jobs)
    result = reported(costs).result()
    if asked.result:
        asked.result.write_bytes(msgspec.json.encode(result))
    else:
        print("\n\n".join(result.parts.values()))
    ratios = ratios_of(costs)
    version = ".".join(platform.python_version_tuple()[:2])
    written = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if asked.write:
        written[version] = written.get(version, {}) | ratios
        BASELINE.write_text(json.dumps(written, indent=2) + "\n")
    return check(ratios, written, version) if asked.check else 0


if __name__ == "__main__":
    sys.exit(main())
