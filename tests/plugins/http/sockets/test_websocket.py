"""WebSockets and the life of their plugins, over a real server."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from veko import RouteError, VekoError
from veko_adapters.conformance import Guest, Site, served
from veko_plugins.http import (
    HTTPError,
    Response,
    Route,
    SocketClosed,
    WebSocket,
    find_adapter,
)

pytestmark = pytest.mark.anyio
SECONDS = 10.0


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with served(find_adapter("litestar")) as found:
        yield found


def dial(site: Site, path: str) -> connect:
    return connect(f"ws{site.url.removeprefix('http')}{path}", proxy=None)


async def closed(peer: ClientConnection) -> int | None:
    async with asyncio.timeout(SECONDS):
        await peer.wait_closed()
    return peer.close_code


async def refused(site: Site, path: str) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await dial(site, path)
    return caught.value.response.status_code


async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


async def says(peer: ClientConnection, text: str = "x") -> bool:
    await peer.send(text)
    return await peer.recv() == text


class Life(Guest):
    """A plugin that notes what becomes of it."""

    def __init__(self, name: str, load: Any) -> None:
        super().__init__(name, load)
        self.notes: list[str] = []

    def deactivate(self) -> None:
        self.notes.append("deactivate")

    def unload(self) -> None:
        self.notes.append("unload")


def living(handler: Any, name: str = "guest", path: str = "/x") -> Life:
    return Life(name, lambda context: context.add_websocket(path, handler))


async def test_C10_add_websocket_and_take_it_back(site: Site) -> None:
    handles: list[Any] = []

    async def room(socket: WebSocket, name: str) -> None:
        await socket.send(f"hello, {name}")

    def load(context: Any) -> None:
        handles.append(context.add_websocket("/rooms/{name}", handler=room))

    async with site.plugin(load):
        await handles[0]
        peer = await dial(site, "/rooms/a")
        assert await peer.recv() == "hello, a"
        assert await closed(peer) == 1000
        handles[0].cancel()
        handles[0].cancel()
        assert await refused(site, "/rooms/a") == 404


async def test_C10_bad_arguments_are_refused_where_they_are_given(site: Site) -> None:
    def load(context: Any) -> None:
        for bad in (("x", echo), ("/x",), ("/x", 1), ("/x/{a}/{a}", echo), ("/x", 1, echo)):
            with pytest.raises(RouteError):
                context.add_websocket(*bad)
        with pytest.raises(RouteError, match="add_websocket"):
            context.add_route("WEBSOCKET", "/x", echo)

    async with site.plugin(load):
        pass
    async with site.plugin(lambda context: context.add_websocket("/x", echo)):
        with pytest.raises(VekoError, match="guest"):
            await site.kernel.load(living(echo, "second"))


async def test_C10_added_while_running(site: Site) -> None:
    contexts: list[Any] = []
    async with site.plugin(contexts.append):
        await contexts[0].add_websocket("/late", echo)
        async with dial(site, "/late") as peer:
            assert await says(peer)
            await site.kernel.toggle("guest", False)
            assert await closed(peer) == 1012


async def test_H_websocket_connect_hears_first_and_may_refuse(site: Site) -> None:
    ended: list[tuple[str, int | None]] = []

    async def decide(socket: WebSocket) -> object:
        how = socket.query.get("how")
        assert not socket.accepted
        if how == "close":
            await socket.close(1008)
        elif how == "raise":
            raise HTTPError(401)
        elif how == "answer":
            return Response(status=402)
        elif how == "return":
            return HTTPError(418)
        elif how == "fail":
            raise RuntimeError("mine")
        return None

    def load(context: Any) -> None:
        context.add_websocket("/x", echo)
        context.hook("websocket:connect", decide)
        context.hook("websocket:disconnect", lambda s: ended.append((s.query["how"], s.code)))

    async with site.plugin(load):
        assert await refused(site, "/x?how=close") == 403
        assert await refused(site, "/x?how=raise") == 401
        assert await refused(site, "/x?how=answer") == 402
        assert await refused(site, "/x?how=return") == 418
        assert site.errors() == 0
        assert await refused(site, "/x?how=fail") == 500  # the event fails closed
        assert site.errors() == 1
    assert [how for how, _ in ended] == ["close", "raise", "answer", "return", "fail"]


async def test_H_websocket_message_may_change_what_comes(site: Site) -> None:
    async def stop(message: str | bytes, socket: WebSocket) -> object:
        if message == "stop":
            await socket.close(4000)
        return b"binary" if message == "text" else None

    def load(context: Any) -> None:
        context.add_websocket("/x", echo)
        context.hook("websocket:message", stop)

    async with site.plugin(load), dial(site, "/x") as peer:
        await peer.send("text")
        assert await peer.recv() == b"binary"
        assert await says(peer, "other")
        await peer.send("stop")
        assert await closed(peer) == 4000


async def test_H_websocket_disconnect_once_whatever_ended_it(site: Site) -> None:
    ended: asyncio.Queue[tuple[str, int | None]] = asyncio.Queue()

    async def fails(socket: WebSocket) -> None:
        await socket.accept()
        raise RuntimeError("mine")

    async def waits(socket: WebSocket) -> None:
        await socket.accept()
        await asyncio.Event().wait()

    def load(context: Any) -> None:
        for handler in (echo, fails, waits):
            context.add_websocket(f"/{handler.__name__}", handler)

    def listen(context: Any) -> None:
        context.hook("websocket:disconnect", lambda s: ended.put_nowait((s.path, s.code)))

    async with site.plugin(listen, "listener"), asyncio.timeout(SECONDS):
        async with site.plugin(load):
            async with dial(site, "/echo"):
                pass
            assert await ended.get() == ("/echo", 1000)
            async with dial(site, "/fails") as peer:
                assert await closed(peer) == 1011
            assert await ended.get() == ("/fails", 1011)
            peer = await dial(site, "/waits")
        assert await closed(peer) == 1012
        assert await ended.get() == ("/waits", 1012)
        assert ended.empty()


@pytest.mark.parametrize("how", ["toggle", "unload", "reload"])
async def test_a_plugin_takes_its_sockets_with_it(site: Site, how: str) -> None:
    life = living(echo)

    async def noted(socket: WebSocket) -> None:
        try:
            await echo(socket)
        finally:
            await asyncio.sleep(0)
            life.notes.append(f"handler {socket.code}")

    life = living(noted)
    async with site.plugin(lambda context: context.add_websocket("/other", echo), "other"):
        await site.kernel.load(life)
        async with dial(site, "/x") as peer, dial(site, "/other") as other:
            assert await says(peer)
            if how == "toggle":
                await site.kernel.toggle("guest", False)
                assert await refused(site, "/x") == 404
                assert life.notes == ["handler 1012", "deactivate"]
            elif how == "unload":
                await site.kernel.unload("guest")
                assert life.notes == ["handler 1012", "deactivate", "unload"]
            else:
                await site.kernel.reload(living(echo))
                assert life.notes == ["handler 1012", "deactivate", "unload"]
            assert await closed(peer) == 1012
            assert await says(other)
        if how == "toggle":
            await site.kernel.toggle("guest", True)
        if how != "unload":
            async with dial(site, "/x") as peer:
                assert await says(peer)
                await site.kernel.unload("guest")
                assert await closed(peer) == 1012


async def test_a_handler_that_waits_elsewhere_is_cancelled(site: Site) -> None:
    notes: list[str] = []

    async def waits(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(SocketClosed):
                await socket.send("too late")
            notes.append("cancelled")
            raise

    async with site.plugin(lambda context: context.add_websocket("/x", waits)):
        peer = await dial(site, "/x")
        await site.kernel.toggle("guest", False)
        assert notes == ["cancelled"]
        assert await closed(peer) == 1012
        assert site.errors() == 0


async def test_a_handler_that_will_not_end_is_ended(site: Site) -> None:
    tries: list[int] = []

    async def stubborn(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                tries.append(1)

    async def deaf(socket: WebSocket) -> None:
        while True:
            try:
                await socket.receive()
            except SocketClosed:
                tries.append(2)
                await asyncio.Event().wait()

    def load(context: Any) -> None:
        context.add_websocket("/stubborn", stubborn)
        context.add_websocket("/deaf", deaf)

    async with site.plugin(load):
        peers = [await dial(site, "/stubborn"), await dial(site, "/deaf")]
        async with asyncio.timeout(SECONDS):
            await site.kernel.toggle("guest", False)
        assert [await closed(peer) for peer in peers] == [1012, 1012]
        assert sorted(tries) == [1, 2]


async def test_a_handler_may_unload_its_own_plugin(site: Site) -> None:
    async def last(socket: WebSocket) -> None:
        await socket.receive()
        await site.kernel.unload("guest")

    gone = asyncio.Event()
    site.kernel.bus.on("plugin:unloaded", lambda name: gone.set())
    await site.kernel.load(living(last))
    peer = await dial(site, "/x")
    await peer.send("now")
    assert await closed(peer) == 1012
    async with asyncio.timeout(SECONDS):
        await gone.wait()


async def test_a_handshake_under_way_ends_before_its_plugin(site: Site) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(socket: WebSocket) -> None:
        begun.set()
        await go.wait()
        await socket.accept()
        await echo(socket)

    life = living(slow)
    await site.kernel.load(life)
    dialling = asyncio.ensure_future(dial(site, "/x").__aenter__())
    await begun.wait()
    unloading = asyncio.ensure_future(site.kernel.unload("guest"))
    async with asyncio.timeout(SECONDS):
        while await refused(site, "/x") != 404:
            pass
        assert not unloading.done()
        go.set()
        peer = await dialling
        await unloading
        assert await closed(peer) == 1012
    assert life.notes == ["deactivate", "unload"]


async def test_a_guard_that_comes_and_goes_closes_nothing(site: Site) -> None:
    async def no(request: Any, call_next: Any) -> Response:
        return Response(status=401)

    def guard(route: Route) -> Route:
        return msgspec.structs.replace(route, middlewares=(no, *route.middlewares))

    async with (
        site.plugin(lambda context: context.add_websocket("/x", echo)),
        dial(site, "/x") as peer,
    ):
        async with site.plugin(lambda context: context.hook("route:create", guard), "guard"):
            assert await refused(site, "/x") == 401
            assert await says(peer)
        assert await says(peer)
        async with dial(site, "/x") as second:
            assert await says(second)
        await site.kernel.toggle("guest", False)
        assert await closed(peer) == 1012


async def test_ASGI_middleware_stands_around_a_socket(site: Site) -> None:
    def shouting(app: Any) -> Any:
        async def run(scope: Any, receive: Any, send: Any) -> None:
            async def loud() -> Any:
                message = await receive()
                if message.get("text"):
                    message = {**message, "text": message["text"].upper()}
                return message

            if b"refuse" in scope["query_string"]:
                await receive()
                await send({"type": "websocket.close", "code": 1008})
                return
            await app({**scope, "path": "/changed"}, loud, send)

        return run

    async def handler(socket: WebSocket) -> None:
        await socket.send(socket.path)
        await echo(socket)

    async with site.plugin(lambda c: c.add_websocket("/x", shouting, shouting, handler)):
        async with dial(site, "/x") as peer:
            assert await peer.recv() == "/changed"
            await peer.send("hello")
            assert await peer.recv() == "HELLO"
        assert await refused(site, "/x?refuse") == 403
        assert site.errors() == 0


async def test_two_hundred_sockets_leave_at_once_and_nothing_stays(site: Site) -> None:
    sockets: list[weakref.ref[WebSocket]] = []

    async def handler(socket: WebSocket) -> None:
        sockets.append(weakref.ref(socket))
        await echo(socket)

    record = await site.kernel.load(living(handler))
    assert record.current is not None
    for _ in range(20):
        async with dial(site, "/x") as peer:
            assert await says(peer)
    assert len(record.current.scope.tasks) == 1
    peers = await asyncio.gather(*(dial(site, "/x") for _ in range(200)))
    assert all(await asyncio.gather(*(says(peer) for peer in peers)))
    async with asyncio.timeout(SECONDS):
        await site.kernel.unload("guest")
    assert {await closed(peer) for peer in peers} == {1012}
    del handler, record
    for _ in range(20):
        await asyncio.sleep(0)
    gc.collect()
    assert [ref for ref in sockets if ref() is not None] == []


async def test_a_server_that_stops_closes_the_sockets() -> None:
    async def waits(socket: WebSocket) -> None:
        await socket.accept()
        await asyncio.Event().wait()

    def load(context: Any) -> None:
        context.add_websocket("/echo", echo)
        context.add_websocket("/waits", waits)

    async with asyncio.timeout(SECONDS):
        async with served(find_adapter("litestar")) as site:
            await site.kernel.load(Guest("guest", load))
            peers = [await dial(site, "/echo"), await dial(site, "/waits")]
            assert await says(peers[0])
        assert [await closed(peer) for peer in peers] == [1012, 1012]


async def test_a_context_variable_of_a_hook_reaches_the_handler(site: Site) -> None:
    from contextvars import ContextVar

    who: ContextVar[str] = ContextVar("who", default="nobody")

    async def handler(socket: WebSocket) -> None:
        await socket.send(who.get())

    def load(context: Any) -> None:
        context.add_websocket("/x", handler)
        context.hook("websocket:connect", lambda s: who.set(s.query["who"]) and None)

    async with site.plugin(load), dial(site, "/x?who=me") as peer:
        assert await peer.recv() == "me"


async def test_a_handshake_that_outlasts_its_plugin_is_refused_with_503() -> None:
    begun = asyncio.Event()

    async def slow(socket: WebSocket) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with served(find_adapter("litestar")) as site, asyncio.timeout(SECONDS):
        site.kernel.drain_timeout = 0.05
        async with site.plugin(lambda context: context.add_websocket("/x", slow)):
            dialling = asyncio.ensure_future(refused(site, "/x"))
            await begun.wait()
            await site.kernel.toggle("guest", False)
            assert await dialling == 503
