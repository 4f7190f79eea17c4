"""Routes, middlewares and WebSockets of a Python plugin in a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from veko_plugins.http import HTTPError, SocketClosed
from veko_plugins.remote.python.kinds import Marked

from .conftest import Start, request


async def test_a_handler_gets_the_arguments_that_it_names(start: Start) -> None:
    host = await start("""
        import threading
        from msgspec import Struct

        class Item(Struct):
            name: str
            price: float = 1.0

        def show(id: int, limit: int = 3, *, request):
            return {"id": id, "limit": limit, "thread": threading.current_thread().name,
                    "url": request.url, "client": list(request.client)}

        async def add(data: Item):
            return {"name": data.name, "price": data.price}

        def load(context):
            context.add_route("GET", "/items/{id:int}", show)
            context.add_route("POST", "/items", add)
    """)
    where = {"route": "/items/{id:int}", "params": {"id": 7}}
    status, headers, body, _ = await host.request("/items/7?limit=2", **where)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert b'"id":7,"limit":2' in body
    assert b"AnyIO worker thread" in body  # a `def` handler does not hold the loop
    assert b'"url":"http://test/items/7?limit=2","client":["10.0.0.1",7]' in body
    for sent in (b'{"name":"tea"}', Chunks(b'{"name"', b':"tea"}')):
        json = {"content-type": "application/json"}
        _, _, body, _ = await host.request("/items", method="POST", body=sent, headers=json)
        assert body == b'{"name":"tea","price":1.0}'
    with pytest.raises(HTTPError) as refused:
        await host.request("/items/7?limit=x", **where)
    assert refused.value.status == 400
    assert [(one.location, one.name) for one in refused.value.errors] == [("query", "limit")]


class Chunks:
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        async def run() -> AsyncIterator[bytes]:
            for chunk in self._chunks:
                yield chunk

        return run()


async def test_what_a_handler_returns_is_what_it_is_in_process(start: Start) -> None:
    host = await start("""
        from veko_plugins import Response

        async def numbers():
            for number in range(3):
                yield f"{number};"

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 203, "headers": [(b"x-a", b"1")]})
            await send({"type": "http.response.body", "body": scope["path"].encode()})

        def load(context):
            context.add_route("GET", "/text", lambda: "text")
            context.add_route("GET", "/none", lambda: None)
            context.add_route("GET", "/own", lambda: Response(b"raw", 201, {"x-own": "yes"}))
            context.add_route("GET", "/stream", numbers)
            context.add_routes(app, path="/app")
    """)
    assert (await host.request("/text"))[2] == b"text"
    assert (await host.request("/none"))[0] == 204
    status, headers, body, _ = await host.request("/own")
    assert (status, headers["x-own"], body) == (201, "yes", b"raw")
    assert (await host.request("/stream"))[2] == ["0;", "1;", "2;"]
    status, headers, body, _ = await host.request("/app")
    assert (status, headers["x-a"], body) == (203, "1", b"/app/")


async def test_an_error_keeps_its_class_its_text_and_its_line(start: Start) -> None:
    host = await start("""
        from veko_plugins import HTTPError

        class Broke(ValueError):
            pass

        def deep():
            raise Broke("no tea left")

        async def break_():
            try:
                deep()
            except Broke as error:
                error.add_note("in the kitchen")
                raise

        async def refuse():
            raise HTTPError(409, "taken", headers={"retry-after": "3"})

        async def grouped():
            raise ExceptionGroup("both", [ValueError("a"), KeyError("b")])

        def load(context):
            context.add_route("GET", "/break", break_)
            context.add_route("GET", "/refuse", refuse)
            context.add_route("GET", "/grouped", grouped)
    """)
    with pytest.raises(ValueError, match=r"^no tea left") as broke:
        await host.request("/break")
    assert (type(broke.value).__name__, str(broke.value)) == ("Broke", "no tea left")
    assert broke.value.__notes__ == ["in the kitchen"]
    last = broke.traceback[-1]
    assert (last.path.name, last.lineno + 1, last.name) == ("shop.py", 9, "deep")
    with pytest.raises(HTTPError) as refused:
        await host.request("/refuse")
    assert (refused.value.status, refused.value.detail) == (409, "taken")
    assert refused.value.headers == {"retry-after": "3"}
    with pytest.raises(ExceptionGroup) as both:
        await host.request("/grouped")
    assert [repr(one) for one in both.value.exceptions] == ["ValueError('a')", "KeyError('b')"]


MIDDLEWARE = """
    class User:
        name = "ada"

    async def around(request, call_next):
        request.state["user"] = User()
        request.state["seen"] = ["around"]
        response = await call_next(request)
        response.headers["x-around"] = str(response.status)
        return response

    async def stopping(request, call_next):
        return {"stopped": True}

    async def hello(request):
        return {"user": type(request.state["user"]).__name__, "seen": request.state["seen"]}

    def load(context):
        context.add_middleware(around, priority=20)
        context.add_middleware(stopping)
        context.add_route("GET", "/hello", around, hello)
"""


async def test_a_middleware_calls_what_is_behind_it_at_the_host(start: Start) -> None:
    host = await start(MIDDLEWARE)
    around, stopping = (number for verb, number in host.order if verb == "add_middleware")
    assert host.more["add_middleware", around][2] == 20

    async def behind(sent: list[Any]) -> dict[str, Any]:
        state, _ = sent
        assert state["seen"] == ["around"]
        status, headers, body, after = await host.run(
            "add_route", ("GET", "/hello"), request("/hello", state=state)
        )
        return {"status": status, "headers": headers, "body": body, "state": after}

    status, headers, body, state = await host.run("add_middleware", around, request(), behind)
    assert (status, dict(headers)["x-around"]) == (200, "200")
    # The object that has no JSON stayed in the worker, and was itself again for the handler.
    assert body == b'{"user":"User","seen":["around"]}'
    assert set(state) == {"user", "seen"}
    _, _, body, _ = await host.run("add_middleware", stopping, request(), behind)
    assert body == b'{"stopped":true}'
    _, options = host.more["add_route", ("GET", "/hello")][3:]
    assert len(options["middlewares"]) == 1


async def test_a_middleware_meets_the_errors_of_what_is_behind_it(start: Start) -> None:
    host = await start("""
        from veko_plugins import HTTPError

        async def catching(request, call_next):
            try:
                return await call_next(request)
            except HTTPError as error:
                return {"caught": error.status}
            except ValueError as error:
                return {"caught": str(error)}

        def load(context):
            context.add_middleware(catching)
    """)
    [(_, number)] = host.order

    def failing(error: Exception) -> Any:
        async def behind(sent: object) -> object:
            raise error

        return behind

    for error, caught in ((HTTPError(404), b"404"), (ValueError("bad"), b'"bad"')):
        answer = await host.run("add_middleware", number, request(), failing(error))
        assert answer[2] == b'{"caught":' + caught + b"}"
    with pytest.raises(KeyError, match="let pass"):
        await host.run("add_middleware", number, request(), failing(KeyError("let pass")))


class Peer:
    """The host's socket."""

    def __init__(self, *messages: str | bytes) -> None:
        self.messages = list(messages)
        self.sent: list[Any] = []

    async def receive(self) -> str | bytes:
        if not self.messages:
            raise SocketClosed(1001, "going")
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def accept(self, subprotocol: Any, headers: Any) -> None:
        self.sent.append(("accept", subprotocol, headers))

    async def close(self, code: int, reason: str) -> None:
        self.sent.append(("close", code, reason))

    def mark(self, **more: Any) -> Marked:
        names = ("receive", "send", "accept", "close")
        own = {name: getattr(self, name) for name in names}
        return Marked("socket", {
            "url": "/chat/tea?a=1", "path": "/chat/tea", "headers": {"host": "test"}, "ip": "::1",
            "params": {"room": "tea"}, "state": {}, "subprotocols": ["v2"], **own, **more,
        })  # fmt: skip


async def test_a_websocket_is_the_real_class_over_the_hosts_socket(start: Start) -> None:
    host = await start("""
        from veko_plugins import HTTPError
        from veko_plugins.http import WebSocket

        async def chat(socket: WebSocket, room: str):
            await socket.accept("v2", {"x-room": room})
            async for message in socket:
                await socket.send(message.upper() if isinstance(message, str) else message[::-1])
            seen.append((socket.code, socket.reason, socket.query["a"]))

        async def refuse(socket):
            raise HTTPError(403, "members only")

        seen = []

        def load(context):
            context.add_websocket("/chat/{room}", chat)
            context.add_websocket("/no", refuse)
            context.add_command("seen", lambda: seen)
    """)
    peer = Peer("hi", b"ab")
    assert await host.run("add_websocket", "/chat/{room}", peer.mark()) is None
    assert peer.sent == [("accept", "v2", [["x-room", "tea"]]), "HI", b"ba"]
    assert await host.run("add_command", "seen", [], {}) == [[1001, "going", "1"]]
    with pytest.raises(HTTPError) as refused:
        await host.run("add_websocket", "/no", Peer().mark())
    assert refused.value.status == 403
