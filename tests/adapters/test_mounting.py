"""A manager inside an application of somebody else's: Litestar, Starlette, FastAPI."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi import WebSocket as FastAPIWebSocket
from litestar import Litestar, get, websocket
from litestar import WebSocket as LitestarWebSocket
from litestar.di import NamedDependency
from litestar.middleware import ASGIMiddleware
from litestar.params import FromPath
from litestar.testing import AsyncTestClient, TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute

from veko import Context, LoadError, OptionError, Plugin
from veko_adapters.litestar import VekoPlugin
from veko_plugins import PluginManager, Request


class Greeter(Plugin):
    name = "greeter"
    version = "1.0.0"

    def load(self, context: Context) -> None:
        context.add_route("GET", "/hello", lambda: {"hello": "world"})
        context.add_route("POST", "/hello", self.echo)
        context.add_route("GET", "/where", self.where)
        context.add_route("GET", "/numbers", self.numbers)
        context.add_route("GET", "/users/{name}/plugins", lambda name: [name])
        context.add_routes(native, path="/native")
        context.add_websocket("/echo", self.socket)

    async def echo(self, request: Request) -> Any:
        return await request.json()

    async def where(self, request: Request) -> dict[str, str]:
        return {"path": request.path, "url": str(request.url)}

    async def numbers(self) -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number
            await asyncio.sleep(0)

    async def socket(self, socket: Any) -> None:
        async for message in socket:
            await socket.send(f"{message}!")


@get("/{number:int}")
async def native(number: FromPath[int]) -> dict[str, int]:
    return {"native": number}


@get("/own")
async def own(veko: NamedDependency[PluginManager]) -> list[str]:
    return [plugin.name for plugin in veko.list_plugins()]


@get("/users/{name:str}")
async def user(name: FromPath[str]) -> str:
    return f"the application's {name}"


@websocket("/own-socket")
async def own_socket(socket: LitestarWebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.send_text("the application's")
    await socket.close()


def application(handlers: list[Any], **options: Any) -> Litestar:
    return Litestar(handlers, logging_config=None, **options)  # its log has a thread of its own


@pytest.fixture
def manager(tmp_path: Path) -> PluginManager:
    made = PluginManager(root=tmp_path)

    async def bring() -> None:
        await made.load_plugin(Greeter)

    made.kernel.bus.on("app:init", bring)
    return made


def test_litestar_its_own_routes_come_first(manager: PluginManager) -> None:
    app = application([own, user, own_socket], plugins=[VekoPlugin(manager)])
    assert manager.state == "created"
    with TestClient(app) as client:
        assert manager.state == "running"
        assert manager.app is app
        assert client.get("/own").json() == ["greeter"]
        assert client.post("/own").status_code == 405
        assert client.get("/users/jo").text == "the application's jo"
        assert client.get("/users/jo/plugins").json() == ["jo"]
        assert client.get("/schema/openapi.json").json()["paths"].keys() == {
            "/own",
            "/users/{name}",
        }
        assert client.get("/hello").json() == {"hello": "world"}
        assert client.post("/hello", json=[1, 2]).json() == [1, 2]
        assert client.get("/native/7").json() == {"native": 7}
        assert client.get("/nowhere").status_code == 404
        assert client.put("/hello").headers["allow"] == "GET, HEAD, OPTIONS, POST"
        assert client.get("/_veko_plugins/hello").status_code == 404
        with client.stream("GET", "/numbers") as response:
            assert [*response.iter_lines()] == ["0", "1", "2"]
        with client.websocket_connect("/own-socket") as socket:
            assert socket.receive_text() == "the application's"
        with client.websocket_connect("/echo") as socket:
            socket.send_text("hi")
            assert socket.receive_text() == "hi!"
    assert manager.state == "stopped"


def test_litestar_below_a_path(manager: PluginManager) -> None:
    app = application([own], plugins=[VekoPlugin(manager, path="/plugins/")])
    with TestClient(app) as client:
        assert client.get("/plugins/hello").json() == {"hello": "world"}
        assert client.get("/plugins/native/7").json() == {"native": 7}
        assert client.get("/hello").status_code == 404
        assert client.get("/pluginshello").status_code == 404
        assert client.get("/own").json() == ["greeter"]


async def test_litestar_the_lifespan_may_come_again(manager: PluginManager) -> None:
    app = application([own], plugins=[VekoPlugin(manager)])
    for _ in range(2):
        async with AsyncTestClient(app) as client:
            assert (await client.get("/hello")).json() == {"hello": "world"}
    assert manager.state == "stopped"


def test_litestar_its_middleware_stands_around_the_plugins(manager: PluginManager) -> None:
    class Guard(ASGIMiddleware):
        async def handle(self, scope: Any, receive: Any, send: Any, next_app: Any) -> None:
            headers = dict(scope["headers"])
            if headers.get(b"x-key") != b"open":
                answer: Any = PlainTextResponse("no", 401)
                await answer(scope, receive, send)
            else:
                await next_app(scope, receive, send)

    app = application([own], plugins=[VekoPlugin(manager)], middleware=[Guard()])
    with TestClient(app) as client:
        assert client.get("/own").status_code == 401
        assert client.get("/hello").status_code == 401
        assert client.get("/hello", headers={"x-key": "open"}).json() == {"hello": "world"}


async def test_litestar_what_keeps_the_manager_from_starting_is_told(tmp_path: Path) -> None:
    manager = PluginManager(root=tmp_path, required=("needed",))
    app = application([own], plugins=[VekoPlugin(manager)])
    with pytest.raises(ExceptionGroup) as caught:
        async with app.lifespan():
            raise AssertionError("it started")
    assert isinstance(caught.value.exceptions[0], LoadError)
    assert "needed" in str(caught.value.exceptions[0])
    assert manager.state == "stopped"


async def test_litestar_a_manager_that_runs_already_is_left_alone(manager: PluginManager) -> None:
    async with manager:
        async with AsyncTestClient(application([own], plugins=[VekoPlugin(manager)])) as client:
            assert (await client.get("/hello")).status_code == 200
        assert manager.state == "running"


def test_litestar_an_app_that_the_manager_has_stays(tmp_path: Path) -> None:
    manager = PluginManager("mine", root=tmp_path)
    with TestClient(application([], plugins=[VekoPlugin(manager)])):
        assert manager.app == "mine"


def test_litestar_the_path_begins_with_a_slash(manager: PluginManager) -> None:
    with pytest.raises(OptionError, match="does not start with '/'"):
        VekoPlugin(manager, path="plugins")


def _lifespan(manager: PluginManager) -> Callable[[Any], Any]:
    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with manager:
            yield

    return lifespan


def test_starlette(manager: PluginManager) -> None:
    async def home(_: Any) -> PlainTextResponse:
        return PlainTextResponse("home")

    app = Starlette(
        routes=[StarletteRoute("/", home), Mount("/plugins", manager.asgi)],
        lifespan=_lifespan(manager),
    )
    with TestClient(app) as client:
        assert client.get("/").text == "home"
        assert client.get("/plugins/hello").json() == {"hello": "world"}
        where = client.get("/plugins/where").json()
        assert where["path"] == "/where"
        assert where["url"] == "http://testserver.local/plugins/where"
        assert client.get("/plugins/native/7").json() == {"native": 7}
        assert client.get("/plugins/nowhere").headers["content-type"] == "application/problem+json"
        with client.stream("GET", "/plugins/numbers") as response:
            assert [*response.iter_lines()] == ["0", "1", "2"]
        with client.websocket_connect("/plugins/echo") as socket:
            socket.send_text("hi")
            assert socket.receive_text() == "hi!"
    assert manager.state == "stopped"


def test_fastapi_with_a_root_path_of_its_own(manager: PluginManager) -> None:
    app = FastAPI(lifespan=_lifespan(manager))

    @app.get("/own")
    async def own() -> list[str]:
        return [plugin.name for plugin in manager.list_plugins()]

    @app.websocket("/own-socket")
    async def own_socket(socket: FastAPIWebSocket) -> None:
        await socket.accept()
        await socket.close()

    app.mount("/", manager.asgi)
    with TestClient(app, root_path="/api") as client:
        assert client.get("/own").json() == ["greeter"]
        assert client.get("/api/hello").json() == {"hello": "world"}
        assert client.get("/hello").json() == {"hello": "world"}
        with client.websocket_connect("/echo") as socket:
            socket.send_text("hi")
            assert socket.receive_text() == "hi!"


def test_mounted_while_the_manager_does_not_run(manager: PluginManager) -> None:
    app = FastAPI()
    app.mount("/plugins", manager.asgi)
    with TestClient(app) as client:
        assert client.get("/plugins/hello").status_code == 503
