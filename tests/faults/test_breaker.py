"""The breaker is no remote off-switch: what requests make fail goes off, and nothing else."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from veko_plugins import HTTPError, PluginManager, Request
from veko_plugins.health import BreakerError, Health
from veko_plugins.http import Response, find_adapter

pytestmark = pytest.mark.anyio

THRESHOLD = 3
ROUNDS = int(os.environ.get("VEKO_ROUNDS", "100"))
"""Requests that make a route fail, each beside two that must answer 200."""
REQUESTS = 2 * THRESHOLD
FAR = 1000.0


@pytest.fixture(params=["asgi", "litestar", "starlette"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Served:
    """A manager that is served."""

    def __init__(self, manager: PluginManager, url: str, client: httpx.AsyncClient) -> None:
        self.manager = manager
        self.url = url
        self.client = client
        self.errors: list[tuple[str, BaseException]] = []
        manager.on("plugin:error", lambda name, error: self.errors.append((name, error)))

    async def load(self, name: str, load: Callable[[Any], Any], **more: Any) -> None:
        await self.manager.load_plugin({"name": name, "version": "1.0.0", "load": load, **more})

    async def status(self, path: str) -> int:
        return (await self.client.get(path)).status_code

    async def fails(self, path: str, times: int = REQUESTS) -> None:
        for _ in range(times):
            assert await self.status(path) in {500, 503}

    def active(self, name: str) -> bool:
        record = self.manager.get_plugin(name)
        return record is not None and record.active

    @property
    def off(self) -> list[str]:
        return [e.message for _, e in self.errors if isinstance(e, BreakerError)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def served(
    adapter: str, root: Path, health: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Served]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    breaker = Health(**{"error_threshold": THRESHOLD, "cool_down": FAR, **(health or {})})
    async with PluginManager(
        root=root, adapter=adapter, storage="sqlite:///:memory:", auto_load=False,
        core={"health": breaker}, **options,
    ) as manager:  # fmt: skip
        server = asyncio.create_task(
            find_adapter(adapter).serve(
                manager.asgi,
                "127.0.0.1",
                0,
                started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
                stop=stop,
                drain_timeout=1.0,
            )
        )
        try:
            url = await listening
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as client:
                yield Served(manager, url, client)
        finally:
            stop.set()
            await asyncio.wait([server], timeout=5)


def broken() -> None:
    raise KeyError(2)


def shop(context: Any) -> None:
    context.add_route("GET", "/broken", broken)
    context.add_route("GET", "/works", lambda: "works")
    context.provide("shop", object())


def dependent(context: Any) -> None:
    context.use("shop")
    context.add_route("GET", "/dependent", lambda: "works")


# -- the smallest part


async def test_a_route_that_fails_leaves_every_other_one_answering(
    adapter: str, tmp_path: Path
) -> None:
    async with served(adapter, tmp_path) as site:
        await site.load("shop", shop)
        await site.load("dependent", dependent)
        statuses = []
        for _ in range(ROUNDS):
            statuses.append(await site.status("/broken"))
            assert await site.status("/works") == 200
            assert await site.status("/dependent") == 200
        assert statuses == [500] * (THRESHOLD + 1) + [503] * (ROUNDS - 1 - THRESHOLD)
        answer = await site.client.get("/broken")
        assert 0 < int(answer.headers["retry-after"]) <= FAR
        assert answer.headers["content-type"] == "application/problem+json"
        assert site.active("shop")
        assert site.manager.error_count("shop") == THRESHOLD + 1  # 503 is no further failure


async def test_what_is_off_is_shown(tmp_path: Path) -> None:
    async with served("asgi", tmp_path) as site:
        await site.load("shop", shop)
        await site.fails("/broken")
        health = site.manager.check_plugin_health("shop")
        assert (health.health, health.active, health.recent_errors) == ("critical", True, 4)
        [outage] = health.routes_off
        assert outage.route == "GET /broken"
        assert "4 errors within 60 s" in outage.reason
        assert outage.until is not None
        assert outage.until.tzinfo is not None
        assert any("the route GET /broken is switched off" in reason for reason in health.reasons)
        await until(lambda: bool(site.off))
        assert [line.partition(":")[0] for line in site.off] == [
            "the route GET /broken was switched off"
        ]
        assert site.manager.get_stats().routes_off == 1
        assert site.manager.list_plugins()[0].routes_off == 1
        assert site.manager.error_count("shop") == 4


async def test_a_websocket_that_fails_goes_off_alone(adapter: str, tmp_path: Path) -> None:
    async def dies(socket: Any) -> None:
        await socket.accept()
        raise KeyError(2)

    def load(context: Any) -> None:
        context.add_websocket("/dies", dies)
        context.add_route("GET", "/works", lambda: "works")

    async with served(adapter, tmp_path) as site:
        await site.load("chat", load)
        for _ in range(THRESHOLD + 1):
            async with connect(site.url.replace("http", "ws") + "/dies") as socket:
                await socket.wait_closed()
            assert socket.close_code == 1011
        with pytest.raises(InvalidStatus) as refused:
            async with connect(site.url.replace("http", "ws") + "/dies"):
                pass
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) > 0
        assert await site.status("/works") == 200
        assert site.active("chat")


async def test_when_the_last_route_is_off_so_is_the_plugin(adapter: str, tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/a", broken)
        context.add_route("GET", "/b/{number:int}", broken)

    def pages(context: Any) -> None:  # another plugin would answer, if the routes were gone
        context.add_route("GET", "/{rest:path}", lambda: "page")

    async with served(adapter, tmp_path) as site:
        await site.load("pages", pages)
        await site.load("p", load)
        await site.fails("/a")
        assert site.active("p")
        await site.fails("/b/1")
        await until(lambda: not site.active("p"))
        for path in ("/a", "/b/7"):
            answer = await site.client.get(path)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        assert "all 2 routes are off" in site.manager.check_plugin_health("p").reasons[0]
        await site.manager.unload_plugin("p")
        assert await site.status("/a") == 200  # the page's


async def test_a_plugin_that_is_off_for_its_hooks_answers_503(adapter: str, tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/works", lambda: "works")
        context.hook("tick", broken)
        context.provide("p", object())

    def user(context: Any) -> None:
        context.use("p")
        context.add_route("GET", "/user", lambda: "works")

    async with served(adapter, tmp_path) as site:
        await site.load("p", load)
        await site.load("user", user)
        await site.load("declares", lambda: None, dependencies=["p"])
        for _ in range(THRESHOLD + 1):
            await site.manager.bus.emit("tick")
        for path in ("/works", "/user"):
            answer = await site.client.get(path)
            assert answer.status_code == 503, path
            assert int(answer.headers["retry-after"]) > 0
        await until(lambda: not site.active("p"))
        assert await site.status("/works") == 503
        assert not site.active("user")  # what it uses is gone
        assert await site.status("/user") == 503
        assert site.active("declares")
        assert await site.status("/dependent") == 404  # nobody's
        assert await site.manager.toggle_plugin("p", True)
        await until(lambda: site.active("user"))
        await until(lambda: site.manager.check_plugin_health("user").health == "healthy")
        assert await site.status("/works") == 200
        assert await site.status("/user") == 200


async def test_what_an_operator_switched_off_answers_404(adapter: str, tmp_path: Path) -> None:
    async with served(adapter, tmp_path) as site:
        await site.load("shop", shop)
        await site.fails("/broken")
        await site.manager.toggle_plugin("shop")
        assert await site.status("/works") == 404
        assert await site.status("/broken") == 404
        await site.manager.toggle_plugin("shop")
        assert await site.status("/broken") == 500


# -- and back again


async def test_a_route_comes_back_on_trial_for_longer_each_time(tmp_path: Path) -> None:
    options = {"cool_down": 0.02, "trial": FAR, "max_cool_down": 0.06}
    async with served("asgi", tmp_path, options) as site:
        await site.load("shop", shop)
        await site.fails("/broken", THRESHOLD + 1)
        for turn in range(1, 4):
            await until(lambda: not site.manager.check_plugin_health("shop").routes_off)
            health = site.manager.check_plugin_health("shop")
            assert health.health == "warning"
            assert "the route GET /broken is on trial" in health.reasons[0]
            assert await site.status("/broken") == 500
            assert site.manager.check_plugin_health("shop").routes_off
            await until(lambda: len(site.off) == turn + 1)  # noqa: B023
        remedies = [e.remedy or "" for _, e in site.errors if isinstance(e, BreakerError)]
        waits = [remedy.rpartition("again in ")[2] for remedy in remedies]
        assert waits == ["0.02 s.", "0.04 s.", "0.06 s.", "0.06 s."]


async def test_a_route_that_passes_its_trial_is_as_any_other(tmp_path: Path) -> None:
    failing = True

    def sometimes() -> str:
        if failing:
            raise KeyError(2)
        return "works"

    def load(context: Any) -> None:
        context.add_route("GET", "/sometimes", sometimes)
        context.add_route("GET", "/works", lambda: "works")

    async with served("asgi", tmp_path, {"cool_down": 0.02, "trial": 0.02}) as site:
        await site.load("p", load)
        await site.fails("/sometimes", THRESHOLD + 1)
        failing = False
        await until(lambda: site.manager.check_plugin_health("p").health == "healthy")
        assert await site.status("/sometimes") == 200
        failing = True
        assert [await site.status("/sometimes") for _ in range(THRESHOLD + 2)] == [
            *[500] * (THRESHOLD + 1), 503,
        ]  # fmt: skip


async def test_a_plugin_and_its_routes_come_back_together(tmp_path: Path) -> None:
    async with served("asgi", tmp_path, {"cool_down": 0.05, "trial": FAR}) as site:
        await site.load("p", lambda context: context.add_route("GET", "/broken", broken))
        await site.fails("/broken", THRESHOLD + 1)
        await until(lambda: not site.active("p"))
        assert await site.status("/broken") == 503
        await until(lambda: site.active("p"))
        await until(lambda: not site.manager.check_plugin_health("p").routes_off)
        assert await site.status("/broken") == 500
        assert await site.status("/broken") == 503
        await until(lambda: not site.active("p"))


async def test_a_reload_tries_a_route_at_once(tmp_path: Path) -> None:
    async with served("asgi", tmp_path) as site:
        await site.load("shop", shop)
        await site.fails("/broken")

        def mended(context: Any) -> None:
            context.add_route("GET", "/broken", lambda: "mended")

        await site.manager.kernel.reload({"name": "shop", "version": "2.0.0", "load": mended})
        await until(lambda: not site.manager.check_plugin_health("shop").routes_off)
        assert await site.status("/broken") == 200


# -- what is never off


@pytest.mark.parametrize("how", ["required", "request:start", "route:create", "middleware"])
async def test_what_stands_before_others_is_never_off(tmp_path: Path, how: str) -> None:
    async def around(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        return answer

    def load(context: Any) -> None:
        context.hook("tick", broken)
        context.add_route("GET", "/broken", broken)
        if how == "middleware":
            context.add_middleware(around)
        elif how != "required":
            context.hook(how, lambda value: None)

    async with served("asgi", tmp_path) as site:
        await site.load("guard", load, **({"required": True} if how == "required" else {}))
        for _ in range(REQUESTS):
            await site.manager.bus.emit("tick")
        assert site.active("guard")
        assert site.manager.check_plugin_health("guard").health == "critical"
        await site.fails("/broken")
        assert await site.status("/broken") == 503  # its route may go off: that is no way in
        assert site.active("guard")


# -- what never counts


@pytest.mark.parametrize("status", [400, 401, 404, 429, 499])
async def test_an_answer_that_a_client_can_cause_counts_against_nothing(
    adapter: str, tmp_path: Path, status: int
) -> None:
    def refuse() -> None:
        raise HTTPError(status)

    async def grouped() -> None:
        raise ExceptionGroup("two", [HTTPError(status), ExceptionGroup("in", [HTTPError(status)])])

    async def streamed() -> AsyncIterator[bytes]:
        yield b"one"
        raise HTTPError(status)

    def typed(request: Request, number: int) -> int:
        return number

    def load(context: Any) -> None:
        context.add_route("GET", "/x", refuse)
        context.add_route("GET", "/grouped", grouped)
        context.add_route("GET", "/streamed", streamed)
        context.add_route("GET", "/typed", typed)
        context.hook("request:end", refuse)
        context.add_command("refuse", refuse)

    async with served(adapter, tmp_path) as site:
        await site.load("p", load)
        for _ in range(REQUESTS):
            assert await site.status("/x") == status
            assert await site.status("/grouped") == status
            assert await site.status("/typed?number=x") == 400
            with pytest.raises(httpx.RemoteProtocolError):
                await site.status("/streamed")
            with pytest.raises(HTTPError):
                await site.manager.run_command("refuse")
        assert site.manager.error_count("p") == 0
        assert site.errors == []
        assert site.active("p")


async def test_a_503_that_does_not_count_switches_nothing_off(adapter: str, tmp_path: Path) -> None:
    def busy() -> None:
        raise HTTPError(503, "too many at once", headers={"retry-after": "1"}, counts=False)

    def broken() -> None:
        raise HTTPError(503)

    def load(context: Any) -> None:
        context.add_route("GET", "/busy", busy)
        context.add_route("GET", "/broken", broken)

    async with served(adapter, tmp_path) as site:
        await site.load("p", load)
        for _ in range(REQUESTS):
            answer = await site.client.get(f"{site.url}/busy")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["detail"] == "too many at once"
        assert site.manager.error_count("p") == 0
        assert site.errors == []
        for _ in range(THRESHOLD):
            assert await site.status("/broken") == 503
        assert site.manager.error_count("p") == THRESHOLD


# -- who is counted


async def test_an_error_that_a_middleware_lets_pass_is_not_its_own(
    adapter: str, tmp_path: Path
) -> None:
    async def passes(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        return answer

    async def changes(request: Request, call_next: Any) -> Response:
        try:
            answer: Response = await call_next(request)
        except KeyError as error:
            if request.path == "/changed":
                raise ValueError("my own") from error
            raise
        return answer

    async def stream() -> AsyncIterator[bytes]:
        yield b"one"
        raise KeyError(2)

    def load(context: Any) -> None:
        for path in ("/broken", "/changed"):
            context.add_route("GET", path, broken)
        context.add_route("GET", "/stream", stream)

    async with served(adapter, tmp_path) as site:
        await site.load("outer", lambda context: context.add_middleware(passes))
        await site.load("inner", lambda context: context.add_middleware(changes))
        await site.load("p", load)
        counts = []
        for path in ("/broken", "/stream", "/changed"):
            try:
                assert await site.status(path) == 500
            except httpx.RemoteProtocolError:
                assert path == "/stream"
            counts.append([site.manager.error_count(name) for name in ("outer", "inner", "p")])
        assert counts == [[0, 0, 1], [0, 0, 2], [0, 1, 2]]


@pytest.mark.parametrize("error", [GeneratorExit, SystemExit, "group"])
async def test_what_is_no_exception_counts_too(adapter: str, tmp_path: Path, error: Any) -> None:
    def fail() -> None:
        raise BaseExceptionGroup("two", [SystemExit(1)]) if error == "group" else error(1)

    async def later() -> None:
        fail()

    def load(context: Any) -> None:
        context.add_route("GET", "/now", fail)
        context.add_route("GET", "/later", later)
        context.add_command("now", fail)
        context.add_command("later", later)

    async with served(adapter, tmp_path) as site:
        await site.load("p", load)
        assert await site.status("/now") == 500
        assert await site.status("/later") == 500
        assert site.manager.error_count("p") == 2
        for name in ("now", "later"):
            with pytest.raises(Exception, match=name):
                await site.manager.run_command(name)
        assert site.manager.error_count("p") == 4
