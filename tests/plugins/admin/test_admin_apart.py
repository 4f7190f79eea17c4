"""An operator gets in, whatever the plugins of the application do to requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager

TOKEN = "an-operators-token-0123456789"


def refuse(*args: object) -> None:
    raise RuntimeError("nobody gets in")


async def wrap(request: Any, call_next: Any) -> Any:
    raise RuntimeError("nobody gets through")


def on_requests(context: Any) -> None:
    context.hook("request:start", refuse)


def on_responses(context: Any) -> None:
    def other(response: Any, request: Any) -> Any:
        response.headers["x-seen"] = "yes"
        return response

    context.hook("response:start", other)


def around(context: Any) -> None:
    context.add_middleware(wrap)


def on_routes(context: Any) -> None:
    def refuse_all(route: Any) -> None:
        raise PermissionError(route.path)

    context.hook("route:create", refuse_all)


def on_lists(context: Any) -> None:
    context.hook("route:load", lambda routes: [])


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    options: dict[str, Any] = {"plugins": {"admin": {"token": TOKEN}}}
    async with PluginManager(
        root=tmp_path,
        auto_load=False,
        adapter="asgi",
        storage="memory:",
        enable_api=True,
        **options,
    ) as manager:
        yield manager


def client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 5), raise_app_exceptions=False)
    return httpx.AsyncClient(
        transport=transport,
        base_url="http://localhost",
        headers={"authorization": f"Bearer {TOKEN}"},
    )


@pytest.mark.parametrize("load", [on_requests, around, on_routes, on_lists, on_responses])
async def test_no_plugin_stands_between_an_operator_and_the_api(
    manager: PluginManager, load: Callable[[Any], None]
) -> None:
    await manager.load_plugin({"name": "lockout", "version": "1.0.0", "load": load})
    async with client(manager.asgi) as ask:
        seen = await ask.get("/_veko/api/plugins/lockout")
        assert seen.status_code == 200
        assert "x-seen" not in seen.headers
        assert (await ask.get("/_veko/")).status_code == 200
        off = await ask.post("/_veko/api/plugins/lockout/toggle", json={"active": False})
        assert off.status_code == 200
    assert manager.list_plugins()[0].active is False


async def test_the_api_answers_while_a_required_plugin_is_down(manager: PluginManager) -> None:
    await manager.load_plugin(
        {"name": "guard", "version": "1.0.0", "required": True, "load": on_requests}
    )
    await manager.toggle_plugin("guard", False)
    async with client(manager.asgi) as ask:
        assert (await ask.get("/anything")).status_code == 503
        assert (await ask.get("/_veko/api/status")).status_code == 200
        on = await ask.post("/_veko/api/plugins/guard/toggle", json={"active": True})
        assert on.status_code == 200


async def test_a_token_is_needed_all_the_same(manager: PluginManager) -> None:
    await manager.load_plugin({"name": "lockout", "version": "1.0.0", "load": on_requests})
    async with client(manager.asgi) as ask:
        ask.headers["authorization"] = "Bearer wrong"
        assert (await ask.get("/_veko/api/status")).status_code == 401


async def test_a_plugin_cannot_hide_its_routes_below_the_prefix(manager: PluginManager) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/_veko/mine", lambda: "let in", sync_to_thread=False)
        context.add_route("GET", "/_vekoish", lambda: "let in", sync_to_thread=False)
        context.hook("request:start", refuse)

    await manager.load_plugin({"name": "sneak", "version": "1.0.0", "load": load})
    async with client(manager.asgi) as ask:
        assert (await ask.get("/_veko/mine")).status_code == 500
        assert (await ask.get("/_vekoish")).status_code == 500


async def test_below_a_mount_too(manager: PluginManager) -> None:
    await manager.load_plugin({"name": "lockout", "version": "1.0.0", "load": on_requests})

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await manager.asgi({**scope, "root_path": "/inner"}, receive, send)

    async with client(mounted) as ask:
        assert (await ask.get("/inner/_veko/api/status")).status_code == 200
        assert (await ask.get("/inner/other")).status_code == 404
        login = await ask.post("/inner/_veko/login", json={"token": TOKEN})
        assert "Path=/inner/_veko;" in login.headers["set-cookie"] + ";"
        del ask.headers["authorization"]
        assert (await ask.get("/inner/_veko/api/status")).status_code == 200
