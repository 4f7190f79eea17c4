"""An application with users: routes that are open, guarded, for administrators; on each adapter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import Context, PluginManager, Request, Response
from veko_plugins.auth import Auth, Credentials, Tokens
from veko_plugins.http import WebSocket

QUICK = {"hash_memory": 8, "hash_time": 1, "hash_lanes": 1}
"""Settings with which a hash takes no time."""
PASSWORD = "correct horse"
JOE = {"name": "joe", "password": PASSWORD}


def load(context: Context) -> None:
    auth: Auth = context.use("auth")

    async def register(data: Credentials, request: Request) -> dict[str, str]:
        return {"name": (await auth.register(data.name, data.password, request=request)).name}

    async def login(data: Credentials, request: Request) -> Tokens:
        return await auth.login(data.name, data.password, request=request)

    async def enter(data: Credentials, request: Request) -> Response:
        tokens = await auth.login(data.name, data.password, request=request)
        response = Response({"csrf": tokens.csrf_token})
        auth.set_cookies(response, tokens)
        return response

    async def refresh(request: Request) -> Tokens:
        given = (await request.json()) if await request.body() else {}
        return await auth.refresh(given.get("refresh_token"), request=request)

    async def logout(request: Request) -> Response:
        user = await auth.logout(request)
        response = Response({"name": user.name if user else None})
        auth.clear_cookies(response)
        return response

    async def me(request: Request) -> dict[str, str]:
        return {"name": request.state["user"].name}

    async def greet(request: Request) -> dict[str, str | None]:
        user = await auth.user(request)
        return {"name": user.name if user else None}

    async def echo(socket: WebSocket) -> None:
        await socket.send(socket.state["user"].name)
        async for message in socket:
            await socket.send(message)

    context.add_route("POST", "/register", register)
    context.add_route("POST", "/login", login)
    context.add_route("POST", "/enter", enter)
    context.add_route("POST", "/refresh", refresh)
    context.add_route("POST", "/logout", logout)
    context.add_route("GET", "/greet", greet)
    context.add_route("POST", "/greet", greet)
    context.add_route("GET", "/me", auth.require(), me)
    context.add_route("POST", "/me", auth.require(), me)
    context.add_route("GET", "/page", auth.require(login="/enter"), me)
    context.add_route("GET", "/admin", auth.require("admin"), me)
    context.add_route("GET", "/posts", auth.require("posts:write"), me)
    context.add_websocket("/echo", auth.require(), echo)


APP = {"name": "app", "version": "1.0.0", "load": load}


@asynccontextmanager
async def managed(root: Path, *plugins: Any, **more: Any) -> AsyncIterator[PluginManager]:
    """A manager with `auth`; settings of `auth` in `settings`, other options as they are."""
    settings = {**QUICK, **more.pop("settings", {})}
    options: dict[str, Any] = {
        "storage": "memory:", "auto_load": False, "adapter": "asgi", "max_retries": 0,
        "auth": True, "plugins": {"auth": settings}, **more,
    }  # fmt: skip
    async with PluginManager(root=root, **options) as manager:
        for plugin in plugins or (APP,):
            await manager.load_plugin(plugin)
        yield manager


def client_of(manager: PluginManager, address: str = "192.0.2.1") -> httpx.AsyncClient:
    """A client from an address."""
    transport = httpx.ASGITransport(manager.asgi, client=(address, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://app.example")


@pytest.fixture(params=["asgi", "litestar", "starlette"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bearer(tokens: Any) -> dict[str, str]:
    """The header with an access token."""
    token = tokens["access_token"] if isinstance(tokens, dict) else tokens.access_token
    return {"authorization": f"Bearer {token}"}


async def signed_up(client: httpx.AsyncClient) -> dict[str, Any]:
    """Register joe, log him in, and return the tokens."""
    answer = await client.post("/register", json=JOE)
    assert answer.is_success, answer.text
    answer = await client.post("/login", json=JOE)
    assert answer.is_success, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens
