"""WebSockets: messages, refused handshakes, and how sockets end."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from veko_plugins.http import HTTPError, Request, Response, SocketClosed, WebSocket

from ._site import Site

pytestmark = pytest.mark.anyio

_SECONDS = 10.0
_LARGE = 1024 * 1024


def dial(site: Site, path: str, **options: Any) -> connect:
    """Connect to a WebSocket."""
    return connect(f"ws{site.url.removeprefix('http')}{path}", proxy=None, **options)


async def closing(peer: ClientConnection) -> tuple[int, str]:
    """Wait until the server closes the socket; return code and reason."""
    async with asyncio.timeout(_SECONDS):
        await peer.wait_closed()
    assert peer.close_code is not None
    return peer.close_code, peer.close_reason or ""


async def refusal(site: Site, path: str, **options: Any) -> tuple[int, bytes]:
    """Connect to a WebSocket that refuses; return the status and the body."""
    with pytest.raises(InvalidStatus) as caught:
        async with dial(site, path, **options):
            pass
    return caught.value.response.status_code, bytes(caught.value.response.body or b"")


def adding(path: str, *handlers: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda context: context.add_websocket(path, *handlers)


async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


async def test_a_socket_carries_text_binary_and_json(site: Site) -> None:
    async def handler(socket: WebSocket) -> None:
        await socket.send(await socket.receive_text())
        await socket.send(await socket.receive_bytes())
        await socket.send(bytearray(b"\x01"))
        await socket.send({"got": await socket.receive_json(list[int])})
        await socket.send_text("t")
        await socket.send_bytes(b"b")
        await socket.send_json("j")

    async with site.plugin(adding("/talk", handler)), dial(site, "/talk") as peer:
        await peer.send("héllo")
        assert await peer.recv() == "héllo"
        await peer.send(b"\x00\xff")
        assert await peer.recv() == b"\x00\xff"
        assert await peer.recv() == b"\x01"
        await peer.send("[1,2]")
        assert await peer.recv() == '{"got":[1,2]}'
        assert [await peer.recv() for _ in range(3)] == ["t", b"b", '"j"']
        assert await closing(peer) == (1000, "")


async def test_a_socket_knows_its_connection(site: Site) -> None:
    async def handler(socket: WebSocket) -> None:
        assert (socket.accepted, socket.closed, socket.code) == (False, False, None)
        await socket.send(
            [
                socket.method,
                socket.path,
                socket.path_params["room"],
                socket.query["q"],
                socket.headers["x-here"],
                socket.cookies["c"],
                socket.url.rpartition("/")[2],
                socket.client is not None and socket.client.host,
                socket.route is not None and socket.route.path,
                socket.state,
            ]
        )

    headers = {"x-here": "yes", "cookie": "c=1"}
    async with (
        site.plugin(adding("/rooms/{room:int}", handler)),
        dial(site, "/rooms/7?q=a%20b", additional_headers=headers) as peer,
    ):
        assert msgspec.json.decode(await peer.recv()) == [
            "WEBSOCKET", "/rooms/7", 7, "a b", "yes", "1", "7?q=a%20b", "127.0.0.1",
            "/rooms/{room:int}", {},
        ]  # fmt: skip


async def test_a_socket_handler_names_what_it_wants(site: Site) -> None:
    async def handler(room: int, socket: WebSocket, times: int = 1) -> None:
        await socket.send([room] * times)

    async with site.plugin(adding("/rooms/{room:int}", handler)):
        async with dial(site, "/rooms/3?times=2") as peer:
            assert await peer.recv() == "[3,3]"
        status, body = await refusal(site, "/rooms/3?times=x")
        assert (status, msgspec.json.decode(body)["errors"][0]["in"]) == (400, "query")
        assert site.errors() == 0


async def test_close_codes_go_both_ways(site: Site) -> None:
    ended: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()

    async def listen(socket: WebSocket) -> None:
        async for _ in socket:
            pass
        ended.set_result((socket.closed, socket.code, socket.reason))
        await socket.close(4009)

    async def leave(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(4002, "enough")
        await socket.close(4003)
        assert (socket.closed, socket.code, socket.reason) == (True, 4002, "enough")

    def load(context: Any) -> None:
        context.add_websocket("/listen", listen)
        context.add_websocket("/leave", leave)

    async with site.plugin(load):
        async with dial(site, "/listen") as peer:
            await peer.close(4001, "bye")
        assert await ended == (True, 4001, "bye")
        async with dial(site, "/leave") as peer:
            assert await closing(peer) == (4002, "enough")
        assert site.errors() == 0


async def test_what_cannot_be_sent_as_a_close_is_refused(site: Site) -> None:
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        for code, reason in ((999, ""), (1005, ""), (1006, ""), (5000, ""), (1000, "x" * 124)):
            with pytest.raises(ValueError, match=r"code|reason"):
                await socket.close(code, reason)
        await socket.close(3000, "é" * 61)

    async with site.plugin(adding("/x", handler)), dial(site, "/x") as peer:
        assert await closing(peer) == (3000, "é" * 61)


async def test_a_subprotocol_is_one_of_those_offered(site: Site) -> None:
    async def handler(socket: WebSocket) -> None:
        assert socket.subprotocols == ["v1", "v2"]
        with pytest.raises(Exception, match="v3"):
            await socket.accept("v3")
        await socket.accept("v2", {"x-room": "7"})
        await socket.accept("v1")
        await socket.receive()

    async with (
        site.plugin(adding("/x", handler)),
        dial(site, "/x", subprotocols=["v1", "v2"]) as peer,
    ):
        assert peer.subprotocol == "v2"
        assert peer.response is not None
        assert peer.response.headers["x-room"] == "7"


async def test_large_messages_and_fragments_arrive_whole(site: Site) -> None:
    async with site.plugin(adding("/echo", echo)), dial(site, "/echo", max_size=None) as peer:
        await peer.send("é" * _LARGE)
        assert await peer.recv() == "é" * _LARGE
        await peer.send(b"x" * _LARGE)
        assert await peer.recv() == b"x" * _LARGE
        await peer.send(["one ", "two ", "three"])
        assert await peer.recv() == "one two three"


async def test_a_socket_is_no_route_for_requests(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_websocket("/only", echo)
        context.add_websocket("/both", echo)
        context.add_route("GET", "/both", lambda: "page")

    async with site.plugin(load):
        answer = await site.client.get("/only")
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        assert (await site.client.get("/both")).text == "page"
        answer = await site.client.post("/both")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (await refusal(site, "/nowhere"))[0] == 404
        async with dial(site, "/both") as peer:
            await peer.send("x")
            assert await peer.recv() == "x"
    assert (await site.client.get("/only")).status_code == 404
    assert (await refusal(site, "/both"))[0] == 404


async def test_a_route_is_no_socket(site: Site) -> None:
    async with site.route("GET", "/page", lambda: "page"):
        assert (await refusal(site, "/page"))[0] == 404


async def test_a_handler_refuses_before_the_handshake(site: Site) -> None:
    async def raises(socket: WebSocket) -> None:
        raise HTTPError(403, "not you", headers={"x-why": "1"})

    async def answers(socket: WebSocket) -> Response:
        return Response("gone", status=410)

    async def closes(socket: WebSocket) -> None:
        await socket.close(1008)

    async def nothing(socket: WebSocket) -> None: ...

    async def odd(socket: WebSocket) -> None:
        raise HTTPError(499)

    def load(context: Any) -> None:
        for handler in (raises, answers, closes, nothing, odd):
            context.add_websocket(f"/{handler.__name__}", handler)

    async with site.plugin(load):
        status, body = await refusal(site, "/raises")
        assert (status, msgspec.json.decode(body)["detail"]) == (403, "not you")
        assert await refusal(site, "/answers") == (410, b"gone")
        assert (await refusal(site, "/closes"))[0] == 403
        assert (await refusal(site, "/nothing"))[0] == 403
        assert (await refusal(site, "/odd"))[0] == 400
        assert site.errors() == 0


async def test_a_handler_that_fails_is_at_fault(site: Site) -> None:
    async def before(socket: WebSocket) -> None:
        raise RuntimeError("secret")

    async def after(socket: WebSocket) -> None:
        await socket.accept()
        raise RuntimeError("secret")

    async def refuses(socket: WebSocket) -> None:
        await socket.receive_json(int)

    def load(context: Any) -> None:
        for handler in (before, after, refuses):
            context.add_websocket(f"/{handler.__name__}", handler)

    async with site.plugin(load):
        status, body = await refusal(site, "/before")
        assert (status, b"secret" in body, site.errors()) == (500, False, 1)
        async with dial(site, "/after") as peer:
            assert await closing(peer) == (1011, "")
        assert site.errors() == 2
        async with dial(site, "/refuses") as peer:
            await peer.send('"x"')
            assert (await closing(peer))[0] == 1007
        assert site.errors() == 2


async def test_a_peer_that_vanishes_is_nobodys_fault(site: Site) -> None:
    ends: asyncio.Queue[int] = asyncio.Queue()

    async def listens(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive()
        except SocketClosed as error:
            with pytest.raises(SocketClosed):
                await socket.send("x")
            ends.put_nowait(error.code)
            raise

    async def talks(socket: WebSocket) -> None:
        try:
            while True:
                await socket.send("x")
                await asyncio.sleep(0)
        finally:
            assert socket.closed
            ends.put_nowait(socket.code or 0)

    def load(context: Any) -> None:
        context.add_websocket("/listens", listens)
        context.add_websocket("/talks", talks)

    async with site.plugin(load), asyncio.timeout(_SECONDS):
        for path in ("/listens", "/talks"):
            peer = await dial(site, path)
            peer.transport.abort()
            await peer.wait_closed()
            assert await ends.get() in {1005, 1006}
        assert site.errors() == 0


async def test_middleware_guards_the_handshake(site: Site) -> None:
    seen: list[Any] = []

    async def globally(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        seen.append((request.method, response.status))
        return response

    async def guard(request: Request, call_next: Any) -> Any:
        if request.query.get("key") != "1":
            return Response("no", status=401, headers={"www-authenticate": "Key"})
        request.state["key"] = "1"
        return await call_next(request)

    async def handler(socket: WebSocket) -> None:
        await socket.send(socket.state)

    def load(context: Any) -> None:
        context.add_middleware(globally)
        context.add_websocket("/x", guard, handler)

    async with site.plugin(load):
        async with dial(site, "/x?key=1") as peer:
            assert await peer.recv() == '{"key":"1"}'
            assert (await closing(peer))[0] == 1000
        assert await refusal(site, "/x") == (401, b"no")
        assert (await refusal(site, "/nowhere"))[0] == 404
        assert seen == [("WEBSOCKET", 101), ("WEBSOCKET", 401), ("WEBSOCKET", 404)]
        assert site.errors() == 0


async def test_hooks_hear_a_socket_from_end_to_end(site: Site) -> None:
    seen: list[Any] = []
    over = asyncio.Event()

    def reverse(message: str | bytes, socket: WebSocket) -> str | bytes:
        seen.append((message, socket, socket.accepted))
        return message[::-1]

    def load(context: Any) -> None:
        context.add_websocket("/echo", echo)
        context.hook("websocket:connect", lambda s: seen.append(("connect", s, s.accepted)))
        context.hook("websocket:message", reverse)
        context.hook("websocket:disconnect", lambda s: seen.append(("over", s, s.code)))
        context.hook("websocket:disconnect", lambda s: over.set(), priority=0)

    async with site.plugin(load):
        async with dial(site, "/echo") as peer:
            await peer.send("ab")
            assert await peer.recv() == "ba"
            await peer.send(b"cd")
            assert await peer.recv() == b"dc"
        await over.wait()
    assert [(what, state) for what, _, state in seen] == [
        ("connect", False), ("ab", True), (b"cd", True), ("over", 1000),
    ]  # fmt: skip
    assert len({id(socket) for _, socket, _ in seen}) == 1


@pytest.mark.parametrize("status", [401, 503])
async def test_a_hook_may_refuse_the_handshake(site: Site, status: int) -> None:
    def guard(socket: WebSocket) -> None:
        raise HTTPError(status, "not now")

    def load(context: Any) -> None:
        context.add_websocket("/echo", echo)
        context.hook("websocket:connect", guard)

    async with site.plugin(load):
        assert (await refusal(site, "/echo"))[0] == status
        assert site.errors() == 0


async def test_a_plugin_that_leaves_closes_its_own_sockets_only(site: Site) -> None:
    async with site.plugin(adding("/theirs", echo), "other"), dial(site, "/theirs") as theirs:
        async with site.plugin(adding("/ours", echo)):
            ours = await dial(site, "/ours")
            await ours.send("x")
            assert await ours.recv() == "x"
        assert await closing(ours) == (1012, "")
        await theirs.send("still here")
        assert await theirs.recv() == "still here"
        with pytest.raises(InvalidStatus):
            await dial(site, "/ours")


async def test_a_method_called_websocket_is_no_handshake(site: Site) -> None:
    async with site.plugin(adding("/x", echo)):
        try:
            status = (await site.client.request("WEBSOCKET", "/x")).status_code
        except httpx.RemoteProtocolError:  # the server knows no such method
            return
        assert status >= 400
