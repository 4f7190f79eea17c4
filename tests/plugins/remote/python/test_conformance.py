"""The same plugins, in the host's process and in workers, confined or not: all is the same.

Each scenario loads plugins from files, drives them through the manager (HTTP over a real server,
hooks, commands, WebSockets, storage, reload, toggle, unload), and returns what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from veko import Origin
from veko_plugins import PluginManager
from veko_plugins.remote import Permissions, Remote
from veko_plugins.remote.launcher import Confinement, missing

Mode = Literal["here", "worker", "confined"]
Seen = list[Any]
Scenario = Callable[["Application"], Awaitable[Seen]]
SCENARIOS: list[Scenario] = []
SECONDS = 20.0


class Trusting(Permissions):
    """Lets workers do everything: here they are compared with the host's own process."""

    def grants(self, *args: Any, **named: Any) -> None:
        return None


def scenario(fn: Scenario) -> Scenario:
    SCENARIOS.append(fn)
    return fn


class Application:
    """An application in a folder, served on a free port.

    Args:
        folder: Its folder.
        mode: Where its plugins run: here, in workers, or in workers that may do nothing.

    Attributes:
        failures: What failed: plugin, part, class, text, file and line.
    """

    def __init__(self, folder: Path, mode: Mode) -> None:
        self.folder = folder
        self.mode = mode
        self.manager: PluginManager
        self.client: httpx.AsyncClient
        self.port = 0
        self.failures: list[tuple[Any, ...]] = []
        self.events: list[Any] = []

    def plugin(self, name: str, text: str, version: str = "1.0.0", **fields: Any) -> Path:
        path = self.folder / "plugins" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        lines = [f"name = {name!r}", f"version = {version!r}"]
        fields["isolation"] = "process" if self.mode == "confined" else "none"
        lines += [f"{key} = {value!r}" for key, value in fields.items()]
        path.write_text("\n".join(lines) + "\n" + textwrap.dedent(text))
        return path

    def failed(self, error: BaseException, origin: Origin) -> None:
        trace, where = error.__traceback__, None
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if file.startswith(str(self.folder)):
                where = f"{Path(file).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        path = getattr(error, "path", None)
        if where is None and path is not None:
            where = f"{path.name}:{error.line}"  # type: ignore[attr-defined]
        text = getattr(error, "message", str(error))
        self.failures.append((origin.plugin, origin.part, type(error).__name__, text, where))

    @contextlib.asynccontextmanager
    async def serving(self, config: Any = None, **options: Any) -> AsyncIterator[None]:
        options = {"adapter": "asgi", "max_retries": 0, **options}
        sections = {f"plugins.{name}": section for name, section in (config or {}).items()}
        (self.folder / "veko.toml").write_text("".join(
            f"[{name}]\n" + "".join(f"{key} = {value!r}\n" for key, value in section.items())
            for name, section in sections.items()
        ))  # fmt: skip
        if self.mode == "worker":
            remote = Remote(self.folder, sandbox=True)
            options["core"] = {"permissions": Trusting(self.folder), "remote": remote}
        manager = self.manager = PluginManager(
            root=self.folder, storage=f"sqlite:///{self.folder}/data.db", **options
        )
        manager.bus.on("error:handle", self.failed, observe=True)
        async with manager:
            stop, started = asyncio.Event(), asyncio.Event()

            def at(host: str, port: int) -> None:
                self.port = port
                started.set()

            serving = asyncio.create_task(
                manager.use("http").serve(port=0, started=at, stop=stop, drain_timeout=2.0)
            )
            await started.wait()
            url = f"http://127.0.0.1:{self.port}"
            try:
                async with httpx.AsyncClient(base_url=url, timeout=SECONDS) as self.client:
                    yield
            finally:
                stop.set()
                await serving

    async def get(self, path: str, method: str = "GET", **more: Any) -> tuple[Any, ...]:
        """Return status, content type, the plugins' own headers, and the body."""
        answer = await self.client.request(method, path, **more)
        own = sorted((k, v) for k, v in answer.headers.items() if k.startswith("x-"))
        return answer.status_code, answer.headers.get("content-type"), own, answer.text


async def tried(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except Exception as error:
        return type(error).__name__, getattr(error, "message", str(error))


@scenario
async def handlers(app: Application) -> Seen:
    app.plugin(
        "shop",
        """
        import asyncio, dataclasses
        from msgspec import Struct
        from veko_plugins import HTTPError, Request, Response

        @dataclasses.dataclass
        class Item:
            name: str
            price: float = 1.0

        class Broke(ValueError): ...

        def show(id: int, limit: int = 3): return {"id": id, "limit": limit}
        async def add(data: Item): return data
        async def raw(request: Request):
            return {"body": (await request.body()).decode(), "query": dict(request.query),
                    "cookie": request.cookies.get("a"), "path": request.path}
        async def form(request): return dict(await request.form())
        async def numbers():
            for number in range(3):
                yield f"{number};"
                await asyncio.sleep(0)
        async def half():
            yield "one"
            raise Broke("half way")
        def deep(): raise Broke("no tea")
        async def break_(): deep()
        def thread(): deep()
        async def refuse(): raise HTTPError(409, "taken", headers={"x-why": "taken"})
        async def own(): return Response("<b>", 201, {"x-own": "1"}, "text/html")
        async def bad(): return object()
        def load(context):
            add_route = context.add_route
            add_route("GET", "/items/{id:int}", show)
            add_route("POST", "/items", add)
            add_route("POST", "/raw", raw)
            add_route("POST", "/form", form)
            for path, handler in {"/numbers": numbers, "/half": half, "/break": break_,
                                  "/thread": thread, "/refuse": refuse, "/own": own, "/bad": bad,
                                  "/none": lambda: None, "/text": lambda: "t"}.items():
                add_route("GET", path, handler)
        """,
    )
    seen: Seen = []
    async with app.serving():
        paths = ("/items/7?limit=2", "/items/x", "/items/7?limit=x", "/numbers", "/break",
                 "/thread", "/refuse", "/own", "/bad", "/none", "/text", "/nowhere")  # fmt: skip
        for path in paths:
            seen.append((path, await app.get(path)))
        seen.append(await app.get("/items", "POST", json={"name": "tea"}))
        seen.append(await app.get("/items", "POST", json={"price": "x"}))
        seen.append(await app.get("/items", "POST", content=b"{", headers={"content-type": "a/b"}))
        long = b"x" * 300_000
        cookies = {"cookie": "a=b"}
        seen.append(await app.get("/raw?a=1&b=2", "POST", content=b"hello", headers=cookies))
        seen.append(len((await app.get("/raw", "POST", content=long))[3]))
        seen.append(await app.get("/form", "POST", data={"a": "1"}))
        seen.append(await app.get("/items", "PUT"))
        seen.append(await tried(app.get("/half")))
        seen.append(app.manager.error_count("shop"))
    return [*seen, *app.failures]


@scenario
async def hooks_and_middleware(app: Application) -> Seen:
    app.plugin(
        "first",
        """
        import time
        from msgspec.structs import replace
        from veko_plugins import HTTPError, Response

        class User:
            name = "ada"

        async def around(request, call_next):
            request.state["user"] = User()
            request.state["path"] = request.path
            try:
                response = await call_next(request)
            except LookupError as error:
                response = Response(f"caught {error}", 502)
            response.headers["x-around"] = str(response.status)
            return response

        async def only(request, call_next):
            if request.query.get("stop"):
                return Response("stopped", 202)
            return await call_next(request)

        async def begin(request):
            request.state["began"] = 1
            if request.path == "/forbidden":
                raise HTTPError(403, "no")
            if request.path == "/cached":
                return Response("cached", 203)
            if request.path == "/crash":
                raise RuntimeError("hook broke")

        def finish(response, request):
            response.headers["x-began"] = str(request.state.get("began"))

        async def replace_error(error, request):
            if isinstance(error, KeyError):
                return Response("sorry", 500)

        async def check(request, call_next):
            if "authorization" not in request.headers:
                raise HTTPError(401)
            return await call_next(request)

        def guard(route):
            if route.path.startswith("/private"):
                return replace(route, middlewares=(check, *route.middlewares))

        async def show(request):
            return {"user": request.state["user"].name, **{k: v for k, v in request.state.items()
                    if k != "user"}}

        def load(context):
            context.add_middleware(around, priority=20)
            context.hook("request:start", begin)
            context.hook("response:start", finish)
            context.hook("request:error", replace_error)
            context.hook("route:create", guard)
            context.add_route("GET", "/show", only, show)
        """,
    )
    app.plugin(
        "second",
        """
        async def inner(request, call_next):
            response = await call_next(request)
            response.headers["x-inner"] = request.state["path"]
            return response

        def fail(error):
            def handler(): raise error
            return handler

        def load(context):
            context.add_middleware(inner)
            for path in ("/open", "/private/a", "/forbidden", "/cached", "/crash"):
                context.add_route("GET", path, lambda: "second")
            context.add_route("GET", "/key", fail(KeyError("gone")))
            context.add_route("GET", "/lookup", fail(LookupError("lost")))
            context.add_route("GET", "/value", fail(ValueError("bad")))
        """,
    )
    seen: Seen = []
    async with app.serving():
        paths = ("/show", "/show?stop=1", "/open", "/private/a", "/forbidden", "/cached", "/crash",
                 "/key", "/lookup", "/value", "/nowhere")  # fmt: skip
        for path in paths:
            seen.append((path, await app.get(path)))
        seen.append(await app.get("/private/a", headers={"authorization": "me"}))
        await app.manager.toggle_plugin("first", False)
        seen += [await app.get("/private/a"), await app.get("/show")]
        await app.manager.toggle_plugin("first", True)
        seen += [await app.get("/private/a"), await app.get("/show")]
        await app.manager.unload_plugin("first")
        seen += [await tried(app.get("/open"))]
    return [*seen, *app.failures]


@scenario
async def events_and_services(app: Application) -> Seen:
    app.plugin(
        "maker",
        """
        class Mail:
            limit = 3
            async def send(self, to, copy=False): return [to, copy]

        RATE = 2
        async def double(number): return number * RATE

        def load(context):
            context.provide("mail", Mail())
            context.provide("rates", {"eur": 2})
            context.hook("plugin:user:asked", lambda value: value + 1)
            context.hook("order:paid", lambda amount, who: amount * 2)
            context.add_command("sum", lambda a, b=2: int(a) + b, "Adds")
            async def broken(): raise LookupError("not there")
            context.add_command("broken", broken)
            context.log("warning", "made", {"n": 1}, item="tea")
        """,
    )
    app.plugin(
        "user",
        """
        async def load(context):
            mail = await context.when("mail")
            context.use("rates")
            maker = context.get_plugin("maker")

            async def use():
                return [await context.use("mail").send("ada", copy=True), mail.limit,
                        context.use("rates")["eur"], await context.emit("asked", 4),
                        await maker.exports["double"](4), maker.version, maker.active,
                        [one.name for one in context.list_plugins()]]
            context.add_command("use", use)
        """,
        dependencies=["maker"],
    )
    seen: Seen = []
    async with app.serving():
        manager = app.manager
        manager.on("log", lambda record: seen.append((record.plugin, record.type, record.message)))
        seen.append(await manager.run_command("use"))
        seen.append(await manager.bus.emit("order:paid", 5, "ada"))
        seen.append(await manager.run_command("sum", 1, b=5))
        seen.append(await manager.use("commands").invoke("sum", ["4"]))
        seen.append(await tried(manager.run_command("sum")))
        seen.append(await tried(manager.run_command("broken")))
        seen.append(sorted((i.name, i.type, str(i.state)) for i in manager.list_plugins()))
        seen.append(await tried(manager.unload_plugin("maker")))
        stats = manager.get_stats()
        seen.append((stats.active, stats.commands, stats.routes))
    return [*seen, *app.failures]


@scenario
async def sockets(app: Application) -> Seen:
    app.plugin(
        "chat",
        """
        from veko_plugins import HTTPError

        async def around(request, call_next):
            if request.query.get("stop"):
                raise HTTPError(429)
            request.state["around"] = True
            return await call_next(request)

        async def connecting(socket):
            if socket.query.get("refuse"):
                raise HTTPError(402, "pay")

        async def echo(socket, room: str):
            await socket.accept(headers={"x-room": room})
            async for message in socket:
                if message == "end":
                    await socket.close(4001, "enough")
                elif message == "fail":
                    raise ValueError("socket broke")
                else:
                    await socket.send(message if isinstance(message, bytes) else {"got": message})

        async def refuse(socket): raise HTTPError(403, "members only")

        def load(context):
            context.add_websocket("/chat/{room}", echo)
            context.add_websocket("/no", refuse)
            context.add_middleware(around)
            context.hook("websocket:connect", connecting)
            context.hook("websocket:message", lambda m, socket: m.upper() if m == "up" else None)
        """,
    )
    seen: Seen = []
    async with app.serving():
        url = f"ws://127.0.0.1:{app.port}"
        for words in (["hi", "up", b"raw", "end"], ["fail"]):
            async with connect(f"{url}/chat/tea") as socket:
                seen.append(socket.response.headers["x-room"])
                with contextlib.suppress(ConnectionClosed):
                    for word in words:
                        await socket.send(word)
                        seen.append(await socket.recv())
                await socket.wait_closed()
                seen.append((socket.close_code, socket.close_reason))
        for path in ("/no", "/chat/tea?refuse=1", "/chat/tea?stop=1", "/nowhere"):
            try:
                async with connect(f"{url}{path}"):
                    seen.append("let in")
            except InvalidStatus as error:
                seen.append(error.response.status_code)
    return [*seen, *app.failures]


@scenario
async def storage_and_config(app: Application) -> Seen:
    app.plugin(
        "keeper",
        """
        from decimal import Decimal
        from msgspec import Struct

        class Settings(Struct):
            limit: int
            name: str = "tea"

        config_schema = Settings
        default_config = {"name": "coffee"}

        def load(context, config):
            storage = context.storage
            storage.set("runs", storage.get("runs", 0) + 1)

            async def keep():
                await storage.set("price", Decimal("1.5"))
                storage.update({"a": (1, 2), "b": b"x"})
                await storage.delete("nothing")
                return [str(storage.get("price")), sorted(storage.keys()), storage.get("runs")]

            async def change(limit):
                return (await context.update_config({"limit": limit})).limit

            context.add_command("keep", keep)
            context.add_command("change", change)
            context.add_command("config", lambda: [type(context.config).__name__,
                                                   context.config.limit, context.config.name])
            context.hook("config:change", lambda config: context.log("info", "changed"))
        """,
    )
    seen: Seen = []
    async with app.serving({"keeper": {"limit": 3}}):
        manager = app.manager
        seen.append(await manager.run_command("keep"))
        seen.append(await manager.run_command("config"))
        seen.append(await manager.run_command("change", 8))
        seen.append(await manager.run_command("config"))
        seen.append(await tried(manager.run_command("change", "many")))
        await manager.reload_plugin("keeper", {"limit": 9})
        seen.append(await manager.run_command("config"))
        seen.append(await tried(manager.reload_plugin("keeper", {"limit": "x"})))
        seen.append(await manager.run_command("keep"))
    async with app.serving({"keeper": {"limit": 1}}):
        seen.append(await app.manager.run_command("keep"))
    async with app.serving({"keeper": {"limit": []}}):
        seen.append([(one.name, str(one.state)) for one in app.manager.list_plugins()])
    return seen


@scenario
async def reloads(app: Application) -> Seen:
    text = """
        state = {{"count": 0}}
        def load(context):
            context.log("info", "load {0}")
            context.add_route("GET", "/count", lambda: state["count"])
            context.add_command("add", lambda: state.update(count=state["count"] + 1))
            context.every(60, lambda: None)
            {1}
        def activate(context): context.log("info", "activate {0}")
        def deactivate(context): context.log("info", "deactivate {0}")
        def unload(context): context.log("info", "unload {0}")
        def export_state(): return state
        def import_state(given, version): state.update(given)
    """
    app.plugin("counter", text.format(1, ""), "1.0.0")
    seen: Seen = []
    async with app.serving():
        manager = app.manager
        manager.on("log", lambda record: seen.append(record.message))
        await manager.run_command("add")
        app.plugin("counter", text.format(2, ""), "2.0.0")
        await manager.reload_plugin("counter")
        seen.append(await app.get("/count"))
        app.plugin("counter", text.format(3, "raise OSError('no')"), "3.0.0")
        seen.append(await tried(manager.reload_plugin("counter")))
        seen.append((await app.get("/count"), manager.get_plugin("counter").version))
        app.plugin("counter", "def load(:", "4.0.0")
        seen.append((await tried(manager.reload_plugin("counter")))[0])
        seen.append(await app.get("/count"))
        await manager.toggle_plugin("counter", False)
        seen.append(await app.get("/count"))
        await manager.toggle_plugin("counter", True)
        seen.append(await app.get("/count"))
        await manager.unload_plugin("counter")
        seen.append(await app.get("/count"))
    return [*seen, *app.failures]


@scenario
async def tasks_and_late_routes(app: Application) -> Seen:
    app.plugin(
        "late",
        """
        import asyncio
        async def load(context):
            async def work():
                await context.add_route("GET", "/late", lambda: "late")
                context.hook("a:b", lambda value: value + 1)
                await context.storage.set("done", True)
                raise LookupError("task broke")
            context.spawn(work)
            context.add_command("conflict", lambda: taken(context))
        async def taken(context):
            await context.add_route("GET", "/late", lambda: "again")
        """,
    )
    failed = asyncio.Event()
    seen: Seen = []
    async with app.serving():
        app.manager.bus.on("plugin:error", lambda *_: failed.set(), observe=True)
        if not app.failures:
            async with asyncio.timeout(SECONDS):
                await failed.wait()
        seen.append(await app.get("/late"))
        seen.append(await app.manager.bus.emit("a:b", 1))
        seen.append(await tried(app.manager.run_command("conflict")))
    return [*seen, *app.failures]


@scenario
async def limits_and_breakers(app: Application) -> Seen:
    app.plugin(
        "frail",
        """
        import asyncio

        async def slow(request):
            if request.path == "/slow":
                await asyncio.sleep(30)

        async def late(value):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                context_.log("info", "cut")
                raise

        async def hang(request):
            context_.log("info", "hang began")
            try:
                await asyncio.sleep(30)
            finally:
                context_.log("info", "hang ended")

        def fail(): raise ValueError("always")

        def load(context):
            global context_
            context_ = context
            context.hook("request:start", slow, timeout=0.2)
            context.hook("order:paid", late, timeout=0.2)
            context.add_route("GET", "/slow", lambda: "never")
            context.add_route("GET", "/fail", fail)
            context.add_route("GET", "/fine", lambda: "fine")
            context.add_route("GET", "/hang", hang)
        """,
    )
    seen: Seen = []
    async with app.serving(error_threshold=3, drain_timeout=0.3):
        manager, logged, began = app.manager, list[str](), asyncio.Event()
        manager.on("log", lambda record: logged.append(record.message))
        manager.on("log", lambda record: began.set() if "began" in record.message else None)
        seen.append(await app.get("/slow"))
        seen.append(await manager.bus.emit("order:paid", 5))
        seen += [(await app.get("/fail"))[0] for _ in range(6)]
        seen.append(await app.get("/fine"))
        health = manager.check_plugin_health("frail")
        seen.append((health.health, health.error_count, health.reasons))
        hanging = asyncio.create_task(app.get("/hang"))
        async with asyncio.timeout(SECONDS):
            await began.wait()
        await manager.unload_plugin("frail")
        seen.append((await hanging)[:2])
        seen.append(sorted(logged))
    return [*seen, *app.failures]


@scenario
async def loads_that_fail(app: Application) -> Seen:
    seen: Seen = []
    for name, text in {
        "raising": "def load(): raise OSError('no disk')",
        "importing": "raise LookupError('at import')\ndef load(): ...",
        "syntax": "def load(:",
        "missing": "import nothing_like_it\ndef load(): ...",
        "nothing": "x = 1",
        "badroute": "def bad(a: print): ...\n"
        "def load(context): context.add_route('GET', '/x/{a}', bad)",
        "wrongcall": "def load(context): context.add_route('NOPE', '/x', print)",
        "activating": "def load(): ...\ndef activate(): raise ValueError('late')",
    }.items():
        app.plugin(name, text)
    async with app.serving():
        seen += [(i.name, str(i.state)) for i in app.manager.list_plugins()]
    return [*seen, *sorted(app.failures, key=str)]


@pytest.mark.parametrize("mode", ["worker", "confined"])
@pytest.mark.parametrize("run", SCENARIOS, ids=lambda run: run.__name__)
async def test_a_plugin_behaves_the_same_in_a_worker(
    run: Scenario, mode: Mode, tmp_path: Path
) -> None:
    if mode == "confined" and (lacks := missing(Confinement())):
        pytest.skip(f"this system cannot confine: {lacks}")
    found: list[list[str]] = []
    where: tuple[Mode, ...] = ("here", mode)
    for one in where:
        folder = tmp_path / one
        folder.mkdir()
        seen = await run(Application(folder, one))
        found.append([repr(one).replace(str(folder), "") for one in seen])
    here, worker = found
    assert worker == here
