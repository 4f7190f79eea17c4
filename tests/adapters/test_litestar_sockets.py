"""Litestar's own WebSocket handlers and listeners behind our table."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Controller, WebSocket, get, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, WebSocketException
from litestar.handlers import BaseRouteHandler, WebsocketListener
from litestar.params import FromHeader, FromPath, FromQuery
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from veko import RouteError
from veko_adapters.conformance import Site, served
from veko_adapters.litestar import LitestarAdapter

pytestmark = pytest.mark.anyio


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with served(LitestarAdapter()) as found:
        yield found


def dial(site: Site, path: str) -> connect:
    return connect(f"ws{site.url.removeprefix('http')}{path}", proxy=None)


async def refused(site: Site, path: str) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await dial(site, path)
    return caught.value.response.status_code


def no(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    raise NotAuthorizedException("no")


@websocket("/own/{n:int}")
async def own(socket: WebSocket[Any, Any, Any], n: FromPath[int], q: FromQuery[int]) -> None:
    await socket.accept()
    await socket.send_json({"n": n, "q": q})
    while True:
        await socket.send_text(await socket.receive_text())


@websocket("/guarded", guards=[no])
async def guarded(socket: WebSocket[Any, Any, Any]) -> None:
    raise AssertionError


@websocket("/closes")
async def closes(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    raise WebSocketException(code=4005, detail="enough")


@websocket("/fails")
async def fails(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    raise RuntimeError("mine")


class Listener(WebsocketListener):
    path = "/listen"

    def on_receive(self, data: dict[str, int]) -> dict[str, int]:
        return {key: value + 1 for key, value in data.items()}


class Both(Controller):
    path = "/both"

    @get("/", sync_to_thread=False)
    def page(self) -> str:
        return "page"

    @websocket("/")
    async def talk(self, socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text("talk")
        await socket.close()


async def test_handlers_listeners_and_controllers_are_taken_as_they_are(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_routes(own, Listener, Both, path="/ls")
        context.hook("websocket:message", lambda message, socket: message.replace("a", "b"))

    async with site.plugin(load):
        async with dial(site, "/ls/own/3?q=5") as peer:
            assert await peer.recv() == '{"n":3,"q":5}'
            await peer.send("banana")
            assert await peer.recv() == "bbnbnb", "messages pass the hooks"
        async with dial(site, "/ls/listen") as peer:
            await peer.send('{"a": 1}')
            assert await peer.recv() == '{"b":2}'
        assert (await site.client.get("/ls/both")).text == "page"
        async with dial(site, "/ls/both") as peer:
            assert await peer.recv() == "talk"
            await peer.wait_closed()
            assert peer.close_code == 1000
        assert site.errors() == 0


async def test_errors_are_said_in_our_words(site: Site) -> None:
    async with site.plugin(lambda context: context.add_routes(own, guarded, closes, fails)):
        assert await refused(site, "/guarded") == 401
        assert await refused(site, "/own/3") == 400
        assert await refused(site, "/own/3?q=x") == 400
        assert site.errors() == 0
        for path, code, errors in (("/closes", 4005, 0), ("/fails", 1011, 1)):
            async with dial(site, path) as peer, asyncio.timeout(10):
                await peer.wait_closed()
                assert (peer.close_code, site.errors()) == (code, errors)


async def test_they_are_closed_with_their_plugin(site: Site) -> None:
    async with (
        site.plugin(lambda context: context.add_routes(own, Listener)),
        dial(site, "/own/1?q=1") as one,
        dial(site, "/listen") as two,
    ):
        await one.recv()
        await two.send('{"a": 1}')
        await two.recv()
        await site.kernel.toggle("guest", False)
        async with asyncio.timeout(10):
            for peer in (one, two):
                await peer.wait_closed()
                assert peer.close_code == 1012
        assert site.errors() == 0


async def test_what_litestar_would_convert_is_refused_for_a_plain_socket(site: Site) -> None:
    async def handler(socket: Any, key: FromHeader[str]) -> None: ...

    with pytest.raises(RouteError, match="WEBSOCKET /x"):
        async with site.plugin(lambda context: context.add_websocket("/x", handler)):
            pass
