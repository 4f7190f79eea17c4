"""Threads of `def` handlers: bounded, counted until they end, and reported when they are cut."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import httpx
import pytest

from veko import Kernel, Plugin
from veko_adapters.asgi import ASGIAdapter
from veko_plugins.http import HTTP, Request, Response, Routes

WAIT = 5.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


class Guest(Plugin):
    version = "1.0.0"

    def __init__(self, load: Any, name: str = "guest") -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        return self._load(context)


@asynccontextmanager
async def application(
    threads: int = 40, drain_timeout: float = 30.0
) -> AsyncIterator[tuple[Kernel, httpx.AsyncClient]]:
    async with Kernel(drain_timeout=drain_timeout) as kernel:
        await kernel.load(Routes(ASGIAdapter(), threads=threads))
        http: HTTP = kernel.use("http")
        transport = httpx.ASGITransport(http.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            yield kernel, client


class Gate:
    """A handler that waits until the gate opens, and notes how many wait with it."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.entered.release()
        self.open.wait(WAIT)
        with self._lock:
            self.inside -= 1
        return "passed"

    async def wait_for(self, count: int = 1) -> None:
        for _ in range(count):
            assert await anyio.to_thread.run_sync(self.entered.acquire, True, WAIT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def routes(gate: Gate) -> Guest:
    def load(context: Any) -> None:
        context.add_route("GET", "/gate", gate)
        context.add_route("GET", "/thread", lambda: "thread")

    return Guest(load)


async def test_no_more_than_the_limit_run_at_once(gate: Gate) -> None:
    async with application(threads=2) as (kernel, client):
        await kernel.load(routes(gate))
        waiting = [asyncio.ensure_future(client.get("/gate")) for _ in range(6)]
        await gate.wait_for(2)
        await asyncio.sleep(0.05)
        gate.open.set()
        assert [(await one).text for one in waiting] == ["passed"] * 6
        assert gate.most == 2


async def test_a_request_that_is_cut_while_it_waits_for_a_thread_leaves_it_free(
    gate: Gate,
) -> None:
    async with application(threads=1) as (kernel, client):
        await kernel.load(routes(gate))
        first = asyncio.ensure_future(client.get("/gate"))
        await gate.wait_for()
        second = asyncio.ensure_future(client.get("/gate"))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait([second])
        gate.open.set()
        assert (await first).text == "passed"
        assert (await client.get("/thread")).text == "thread"


async def test_a_cut_request_keeps_its_thread_counted(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async with application(threads=1) as (kernel, client):
        await kernel.load(routes(gate))
        first = asyncio.ensure_future(client.get("/gate"))
        await gate.wait_for()
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.ensure_future(client.get("/thread"))
        await asyncio.sleep(0.05)
        assert not second.done()  # its thread is still taken
        gate.open.set()
        assert (await second).text == "thread"


async def test_the_drain_is_bounded_and_says_that_a_thread_still_runs(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async with application(drain_timeout=0.1) as (kernel, client):
        await kernel.load(routes(gate))
        waiting = asyncio.ensure_future(client.get("/gate"))
        await gate.wait_for()
        with caplog.at_level(logging.WARNING, "veko"):
            await asyncio.wait_for(kernel.unload("guest"), WAIT)
        answer = await waiting
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        said = [one.getMessage() for one in caplog.records if "still runs" in one.getMessage()]
        assert len(said) == 1
        assert said[0].startswith("guest: the handler ")
        assert "GET /gate still runs in its thread, which cannot be stopped" in said[0]
        gate.open.set()


async def test_a_reload_answers_from_the_version_that_the_request_began_with(gate: Gate) -> None:
    async with application() as (kernel, client):
        await kernel.load(routes(gate))
        waiting = asyncio.ensure_future(client.get("/gate"))
        await gate.wait_for()
        new = Guest(lambda context: context.add_route("GET", "/gate", lambda: "new"))
        reloading = asyncio.ensure_future(kernel.reload(new))
        await asyncio.sleep(0.1)
        assert not reloading.done()
        assert (await client.get("/gate")).text == "new"
        gate.open.set()
        assert (await waiting).text == "passed"
        await reloading


async def test_what_a_thread_changes_in_context_variables_stays_there() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def around(request: Request, call_next: Any) -> Response:
        variable.set("outer")
        response: Response = await call_next(request)
        seen.append(variable.get())
        return response

    def handler() -> str:
        found = variable.get()
        variable.set("inner")
        return found

    async with application() as (kernel, client):
        await kernel.load(Guest(lambda context: context.add_route("GET", "/x", around, handler)))
        assert (await client.get("/x")).text == "outer"
        assert seen == ["outer"]


async def test_a_thread_may_log_emit_and_hook_the_loop() -> None:
    heard = asyncio.Event()

    def load(context: Any) -> None:
        async def greet(text: str) -> str:
            return text.upper()

        def handler() -> str:
            context.log("info", "from a thread")
            text: str = anyio.from_thread.run(context.emit, "greeting", "hello")
            return text

        context.hook("plugin:guest:greeting", greet)
        context.hook("log", lambda record: heard.set())
        context.add_route("GET", "/x", handler)

    async with application() as (kernel, client):
        await kernel.load(Guest(load))
        assert (await client.get("/x")).text == "HELLO"
        await asyncio.wait_for(heard.wait(), WAIT)
