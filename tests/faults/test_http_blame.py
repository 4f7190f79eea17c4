"""Who is blamed for a request that failed, and what that costs: the one who failed, nobody else."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from veko_adapters.conformance._wire import request, wire
from veko_plugins import PluginManager, Request
from veko_plugins.http import Response, Route, find_adapter

pytestmark = pytest.mark.anyio

REQUESTS = 15
"""More than the errors after which a plugin is switched off."""


@pytest.fixture(params=["asgi", "litestar", "starlette"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def served(
    adapter: str, root: Path, **options: Any
) -> AsyncIterator[tuple[PluginManager, str]]:
    """Serve a manager on a socket."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with PluginManager(
        root=root, adapter=adapter, storage="sqlite:///:memory:", auto_load=False, **options
    ) as manager:
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
            yield manager, await listening
        finally:
            stop.set()
            await server


def plugin(name: str, load: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


async def around(request: Request, call_next: Any) -> Response:
    """Check a password, and fail on one that is not ASCII."""
    if not hmac.compare_digest(request.headers.get("authorization", ""), "Bearer secret"):
        return Response(status=401)
    answer: Response = await call_next(request)
    return answer


def vault(context: Any) -> None:
    context.add_route("GET", "/secret", lambda: "the secret")


def errors(manager: PluginManager, name: str) -> int:
    record = manager.get_plugin(name)
    assert record is not None
    return record.error_count


# -- guards


async def test_a_guard_in_a_middleware_refuses_however_often_it_fails(
    adapter: str, tmp_path: Path
) -> None:
    async with served(adapter, tmp_path) as (manager, url):
        await manager.load_plugin(plugin("guard", lambda context: context.add_middleware(around)))
        await manager.load_plugin(
            plugin(
                "vault", lambda context: context.add_route("GET", "/secret", lambda: "the secret")
            )
        )
        attack = request("GET", "/secret", "authorization: Bearer \xe9")
        for number in range(REQUESTS):
            async with wire(url) as connection:
                answer = await connection.ask(attack)
            assert answer is not None
            assert answer.status in {500, 503}, (number, answer)
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/secret")).status_code in {401, 500, 503}
            allowed = await client.get("/secret", headers={"authorization": "Bearer secret"})
            assert (allowed.status_code, allowed.text) == (200, "the secret")
        assert errors(manager, "vault") == 0


async def test_a_middleware_put_on_by_route_create_is_its_own_plugins(
    adapter: str, tmp_path: Path
) -> None:
    def guard(context: Any) -> None:
        @context.hook("route:create")  # type: ignore[untyped-decorator, unused-ignore]
        def protect(route: Route) -> Route:
            return msgspec.structs.replace(route, middlewares=(around, *route.middlewares))

    async with served(adapter, tmp_path) as (manager, url):
        await manager.load_plugin(plugin("guard", guard))
        await manager.load_plugin(
            plugin(
                "vault", lambda context: context.add_route("GET", "/secret", lambda: "the secret")
            )
        )
        attack = request("GET", "/secret", "authorization: Bearer \xe9")
        for _ in range(REQUESTS):
            async with wire(url) as connection:
                answer = await connection.ask(attack)
            assert answer is not None
            assert answer.status in {500, 503}, answer
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/secret")).status_code == 401
        assert errors(manager, "vault") == 0
        assert errors(manager, "guard") > 0


# -- the watchdog

OUTER = """
name = "outer"
version = "1.0.0"

async def around(request, call_next):
    return await call_next(request)

def load(context):
    context.add_middleware(around)
"""
FORMS = """
name = "forms"
version = "1.0.0"

def take(data: dict) -> int:
    return len(data["a"])

def load(context):
    context.add_route("POST", "/form", take)
"""


async def test_a_middleware_is_not_blamed_for_a_form_that_a_route_decodes(
    adapter: str, tmp_path: Path
) -> None:
    """The form is decoded for the route, within the middleware's `call_next`."""
    blocked: list[str | None] = []
    for name, text in {"outer": OUTER, "forms": FORMS}.items():
        (tmp_path / f"{name}.py").write_text(text)
    async with served(adapter, tmp_path, watchdog=0.05) as (manager, url):
        manager.on("loop:blocked", lambda block: blocked.append(block.plugin))
        for name in ("outer", "forms"):
            await manager.load_plugin(tmp_path / f"{name}.py")
        body = b"a=" + b"%41" * 1_000_000
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            headers = {"content-type": "application/x-www-form-urlencoded"}
            answer = await client.post("/form", content=body, headers=headers)
        assert answer.status_code == 200
        await asyncio.sleep(0.2)  # four times the threshold: it has been reported by then
        assert "outer" not in blocked
        assert errors(manager, "outer") == 0
