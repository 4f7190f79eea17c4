"""Applications that are managed, and what asks them."""

import asyncio
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager
from veko_plugins.admin import API, AdminClient, ControlSocket, Operations, admin_token

TOKEN = "an-operators-token-0123456789"
VIEWER = "a-viewers-token-0123456789"

SHOP = """
from typing import Annotated
import msgspec

class Settings(msgspec.Struct, kw_only=True):
    size: Annotated[int, msgspec.Meta(ge=1)] = 10
    title: str = "shop"
    api_key: Annotated[str, msgspec.Meta(extra={"secret": True})] = "hush-hush"
    limits: dict[str, int] = {}

name = "shop"
version = "1.2.0"
description = "Sells"
config_schema = Settings
permissions = ["net:connect:pay.example"]

def load(context):
    context.add_route("GET", "/shop", lambda: {"size": context.config.size}, sync_to_thread=False)
    context.add_route("GET", "/shop/{item:int}", lambda item: item, sync_to_thread=False)
    context.add_command("restock", restock, "Fills the shelves")
    context.provide("stock", {"apples": 3})
    context.hook("order:paid", paid)
    context.hook("order:lost", lost)

def restock(amount: int, *, fast: bool = False) -> dict[str, int]:
    return {"amount": amount}

def paid(order): pass

def lost(order): raise ValueError(f"order {order} is lost")
"""
CART = """
name = "cart"
version = "1.0.0"
dependencies = ["shop>=1"]

def load(context):
    context.use("stock")
    context.add_route("GET", "/cart", lambda: {"cart": []}, sync_to_thread=False)
"""


class Home:
    """An application's directory, with the plugins `shop` and `cart`, which needs it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "plugins"
        self.folder.mkdir(parents=True)
        self.plugin("shop", SHOP)
        self.plugin("cart", CART)

    def plugin(self, name: str, text: str) -> Path:
        """Write a plugin."""
        path = self.folder / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        return path

    def manager(self, **options: Any) -> PluginManager:
        """Make a manager that serves the API with tokens of its own."""
        given: dict[str, Any] = {"max_retries": 0, "enable_api": True, "adapter": "asgi"} | options
        sections = {"admin": {"token": TOKEN, "viewer_token": VIEWER}}
        given["plugins"] = sections | given.get("plugins", {})
        return PluginManager(root=self.root, **given)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An application with two plugins."""
    return Home(tmp_path / "app")


@pytest.fixture
async def manager(home: Home) -> AsyncIterator[PluginManager]:
    """A manager that runs, with the API."""
    async with home.manager() as manager:
        yield manager


@pytest.fixture
async def operations(manager: PluginManager) -> Operations:
    """The verbs."""
    return await manager.administration()


def http_client(
    manager: PluginManager, token: str | None = TOKEN, **given: Any
) -> httpx.AsyncClient:
    """Return an HTTP client of a manager's API."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app=manager.asgi, client=given.pop("client", ("127.0.0.1", 1)))
    return httpx.AsyncClient(
        transport=transport,
        base_url="http://localhost/_veko/api/",
        headers=headers | given.pop("headers", {}),
        **given,
    )


@pytest.fixture
async def http(manager: PluginManager) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the token of an operator."""
    async with http_client(manager) as client:
        yield client


Control = Callable[..., AbstractAsyncContextManager[AdminClient]]


@pytest.fixture
def control() -> Control:
    """Open a manager's control socket; gives a client of it."""

    @asynccontextmanager
    async def control(manager: PluginManager) -> AsyncIterator[AdminClient]:
        async def find() -> API:
            await manager.administration()
            found: API = manager.use("admin:api")
            return found

        opened = ControlSocket(manager.options.directory, find)
        await opened.open()
        try:
            yield AdminClient.local(manager.options.directory, timeout=20)
        finally:
            await opened.close()

    return control


async def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


__all__ = ["TOKEN", "VIEWER", "Home", "admin_token", "http_client", "until"]
