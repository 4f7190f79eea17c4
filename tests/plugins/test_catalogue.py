"""The catalogue beside section H of the parity table: what is declared, and with what it is fired.

`SECTION_H` is that section, written out. Each of its events is declared with this payload, may be
answered or not, and has a test that causes it; one run that causes them all checks what they
are fired with.
"""

import ast
import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from websockets.asyncio.client import connect

from veko import Context, LogRecord, Origin, Plugin, PluginRecord, as_plugin
from veko.errors import LoadError, NotFoundError, VekoError
from veko_plugins import PluginManager, Request, Response, Route
from veko_plugins._lib.database_events import BaseQuery, DataSource
from veko_plugins._source.source import Source, SourceImport
from veko_plugins.auth import User
from veko_plugins.cache import Draft
from veko_plugins.http import HTTPError, WebSocket, find_adapter
from veko_plugins.ledger import Overrun
from veko_plugins.transpile import Code
from veko_plugins.watchdog import Block

pytestmark = pytest.mark.anyio
TESTS = Path(__file__).parents[1]
NAME = str | None


class Row(NamedTuple):
    """An event: its payload, whether handlers answer it, the other arguments, a test's name."""

    payload: Any
    returns: bool
    rest: tuple[Any, ...]
    test: str


_APP = "test_H_app_events_come_after_the_plugins"
_AROUND = "test_H_request_and_response_events_in_order"
_STEPS = "test_H_plugin_events_before_each_step_and_after"
_STORED = "test_H_database_events"
SECTION_H = {
    "app:init": Row(object, False, (), _APP),
    "app:start": Row(object, False, (), _APP),
    "app:stop": Row(object, False, (), _APP),
    "app:restart": Row(object, False, (), _APP),
    "route:load": Row(list, True, (), "test_H_route_load_changes_the_list_of_routes"),
    "route:create": Row(Route, True, (), "test_H_route_create_guards_changes_and_refuses"),
    "route:update": Row(Route, False, (), "test_H_route_update_and_route_delete"),
    "route:delete": Row(Route, False, (), "test_H_route_update_and_route_delete"),
    "route:refuse": Row(
        Route, False, (Exception,), "test_a_route_that_a_late_guard_refuses_is_out_of_service"
    ),
    "request:start": Row(
        Request, True, (), "test_H_request_start_may_change_the_request_or_answer"
    ),
    "request:end": Row(Request, False, (Response,), _AROUND),
    "request:error": Row(
        BaseException, True, (Request,), "test_H_request_error_may_change_the_error_or_answer"
    ),
    "response:start": Row(
        Response, True, (Request,), "test_H_response_start_may_change_the_response"
    ),
    "response:end": Row(Response, False, (Request,), _AROUND),
    "response:error": Row(Response, False, (Request,), "test_H_response_error_when_sending_fails"),
    "websocket:connect": Row(
        WebSocket, False, (), "test_H_websocket_connect_hears_first_and_may_refuse"
    ),
    "websocket:message": Row(
        str | bytes, True, (WebSocket,), "test_H_websocket_message_may_change_what_comes"
    ),
    "websocket:disconnect": Row(
        WebSocket, False, (), "test_H_websocket_disconnect_once_whatever_ended_it"
    ),
    "middleware:add": Row(object, True, (), "test_H_middleware_add_and_remove"),
    "middleware:remove": Row(object, False, (), "test_H_middleware_add_and_remove"),
    "error:handle": Row(
        BaseException, True, (Origin,), "test_H_error_handle_gets_every_error_and_its_origin"
    ),
    "error:critical": Row(
        BaseException, False, (Origin,), "test_H_error_critical_when_a_plugin_is_stopped"
    ),
    "file:add": Row(Path, False, (NAME,), "test_H_file_add"),
    "file:change": Row(Path, False, (NAME,), "test_H_file_change"),
    "file:delete": Row(Path, False, (NAME,), "test_H_file_delete"),
    "plugin:load": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:unload": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:activate": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:deactivate": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:reload": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:rollback": Row(
        str, False, (PluginRecord, str), "test_H_plugin_rollback_when_new_code_fails"
    ),
    "plugin:error": Row(NAME, False, (BaseException,), "test_H_plugin_error_and_plugin_timeout"),
    "plugin:timeout": Row(NAME, False, (BaseException,), "test_H_plugin_error_and_plugin_timeout"),
    # A plugin that is about to load or reload is not what its record says yet, but its generation.
    "config:validate": Row(object, True, (object,), "test_H_config_validate_and_config_change"),
    "config:change": Row(
        object, False, (PluginRecord,), "test_H_config_validate_and_config_change"
    ),
    "dev:hotreload": Row(str, False, (Path,), "test_H_dev_hotreload_after_a_reload"),
    "auth:login": Row(User, False, (Request | None,), "test_H_auth_login_may_refuse"),
    "auth:logout": Row(User, False, (Request | None,), "test_H_auth_logout_once_for_a_session"),
    "auth:register": Row(User, False, (Request | None,), "test_H_auth_register_may_refuse"),
    "cache:get": Row(str, False, (), "test_H_cache_get_first_answer_wins"),
    "cache:set": Row(str, False, (object, float, Draft), "test_H_cache_set_may_change_or_refuse"),
    "cache:delete": Row(str, False, (), "test_H_cache_delete_and_cache_clear"),
    "cache:clear": Row(str, False, (tuple, NAME), "test_H_cache_delete_and_cache_clear"),
    "database:connect": Row(DataSource, False, (), _STORED),
    "database:query": Row(BaseQuery, True, (), _STORED),
    "database:disconnect": Row(DataSource, False, (), _STORED),
    "plugin:loaded": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:unloaded": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:retired": Row(str, False, (PluginRecord, Plugin), _STEPS),
    "plugin:activated": Row(str, False, (PluginRecord,), _STEPS),
    "plugin:deactivated": Row(str, False, (PluginRecord,), _STEPS),
    "log": Row(LogRecord, False, (), "test_H_log_is_an_event"),
    # Not in the section, in the design:
    "context:create": Row(Context, False, (), "test_H_context_create_attaches_by_hand"),
    "plugin:resolve": Row(object, True, (), "test_H_plugin_resolve_answers_for_a_name"),
    "source:import": Row(
        Source, True, (SourceImport,), "test_H_source_import_answers_with_a_plugin"
    ),
    "source:imported": Row(Plugin, False, (Source,), "test_H_source_imported_refuses_a_plugin"),
    "source:transpile": Row(Code, True, (), "test_H_source_transpile_gets_the_code_of_a_suffix"),
    "dev:debug": Row(PluginRecord, False, (str,), "test_H_dev_debug_when_a_breakpoint_is_reached"),
    "dev:profile": Row(
        PluginRecord, False, (Path,), "test_d5_profile_counts_calls_time_errors_and_draws"
    ),
    "budget:exceeded": Row(Overrun, False, (str,), "test_a_plugin_over_its_budget_is_warned_about"),
    "loop:blocked": Row(Block, False, (NAME,), "test_it_names_plugin_hook_file_and_line"),
}
LATER: set[str] = set()
"""Of the plugins that other issues bring: whoever declares one gives it a row above."""


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a manager and its core plugins declare, without anything in the settings."""

    async def declarations() -> dict[str, Any]:
        async with managed(tmp_path_factory.mktemp("app"), auto_load=False) as manager:
            return {event.name: event for event in manager.events()}

    return asyncio.run(declarations())


def managed(root: Path, app: object = None, **options: Any) -> PluginManager:
    options = {"storage": "sqlite:///:memory:", "max_retries": 0, **options}
    return PluginManager(app, root=root, **options)


def made(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


@pytest.mark.parametrize("name", SECTION_H)
def test_H_is_declared(declared: dict[str, Any], name: str) -> None:
    event = declared[name]
    assert event.payload == SECTION_H[name].payload
    assert event.returns is SECTION_H[name].returns
    assert len(event.doc) > len("When, and with what.")
    assert event.doc.endswith(".")


def test_H_nothing_else_is_declared(declared: dict[str, Any]) -> None:
    assert set(declared) == set(SECTION_H), "what is new wants a row; see LATER too"
    assert not LATER & set(SECTION_H)


def test_H_what_ends_a_chain_is_declared(declared: dict[str, Any]) -> None:
    stops = {name: event.stops for name, event in declared.items() if event.stops is not None}
    assert stops == {
        "auth:login": HTTPError,
        "auth:register": HTTPError,
        "request:start": Response | HTTPError,
        "request:error": Response,
        "websocket:connect": Response | HTTPError,
        "source:import": Plugin | VekoError,
        "source:imported": VekoError,
        "source:transpile": SyntaxError | LoadError,
    }


def test_H_each_event_has_a_test_that_causes_it() -> None:
    found = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    missing = {name: row.test for name, row in SECTION_H.items() if row.test not in found}
    assert not missing


def test_H_each_event_has_a_line_in_the_docs() -> None:
    page = (TESTS.parent / "docs" / "reference" / "events.md").read_text("utf-8")
    assert {name for name in SECTION_H if f"| `{name}` |" not in page} == set()


async def test_H_context_create_attaches_by_hand(tmp_path: Path) -> None:
    seen: list[str] = []

    def greet(context: Any) -> None:
        assert isinstance(context, Context)
        context.greeting = f"hello, {context.name}"

    def load(context: Any) -> None:
        seen.append(context.greeting)

    async with managed(tmp_path, auto_load=False) as manager:
        await manager.load_plugin(
            made("greeter", lambda context: context.hook("context:create", greet))
        )
        await manager.load_plugin(made("guest", load))
        await manager.unload_plugin("greeter")
        with pytest.raises(VekoError, match="greeting"):
            await manager.load_plugin(made("late", load))
    assert seen == ["hello, guest"]


async def test_H_plugin_resolve_answers_for_a_name(tmp_path: Path) -> None:
    asked: list[Any] = []

    def answer(wanted: Any) -> Any:
        asked.append(wanted)
        return made("found") if wanted == "elsewhere" else None

    async with managed(tmp_path, auto_load=False) as manager:
        await manager.load_plugin(
            made("resolver", lambda context: context.hook("plugin:resolve", answer))
        )
        assert (await manager.load_plugin("elsewhere")).name == "found"
        with pytest.raises(NotFoundError):
            await manager.load_plugin(Path("nowhere.py"))
    assert asked == ["elsewhere", Path("nowhere.py")]


async def test_H_source_import_answers_with_a_plugin(tmp_path: Path) -> None:
    plugins, freed = tmp_path / "plugins", []
    plugins.mkdir()
    for name in ("here", "other", "refused"):
        plugins.joinpath(f"{name}.py").write_text(
            f"name, version = {name!r}, str('1.0.0')\n\ndef load(): ...\n"
        )

    async def answer(source: Source, asked: SourceImport) -> Any:
        if source.name == "refused":
            raise LoadError("it is not wanted", step="import", plugin="refused")
        if source.name != "other":
            return None
        asked.dispose = lambda: freed.append(source.name)
        return as_plugin(made("other", description="made elsewhere"))

    async with managed(tmp_path, auto_load=False) as manager:
        failed: list[Any] = []
        manager.on("plugin:error", lambda name, error: failed.append((name, str(error))))
        load = lambda context: context.hook("source:import", answer)  # noqa: E731
        await manager.load_plugin(made("importer", load))
        report = await manager.load_all_plugins()
        assert sorted(report.loaded) == ["here", "other"]
        assert failed == [("refused", "it is not wanted (plugin refused)")]
        assert manager.bus.live.registry.get("service", "loading").value.content("other") == {}
        assert (await manager.validate_plugin("other")).name == "other"
        assert freed == ["other"]  # it was imported to look at it
        await manager.reload_plugin("other")
        assert freed == ["other"] * 2
        assert {one.name: one.description for one in manager.list_plugins()}["other"] == (
            "made elsewhere"
        )
        await manager.unload_plugin("other")
        assert freed == ["other"] * 3


async def test_H_source_transpile_gets_the_code_of_a_suffix(tmp_path: Path) -> None:
    path = tmp_path / "shop.shout"
    path.write_text("NAME, VERSION = 'shop', '1'\nDEF LOAD(): ...\n")
    seen: list[Code] = []

    def load(context: Any) -> None:
        context.add_transpiler(".shout", lambda text, path: text.lower())
        context.hook("source:transpile", seen.append, priority=50)

    async with managed(tmp_path, auto_load=False) as manager:
        await manager.load_plugin(made("quiet", load))
        await manager.load_plugin(path)
        assert [(code.path, code.suffix, code.text) for code in seen] == [
            (path, ".shout", path.read_text())
        ]
        assert manager.get_plugin("shop") is not None


async def test_a_source_is_not_imported_if_its_importer_fails(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = tmp_path / "guest.py"
    path.write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
        "name, version = 'guest', '1'\n\ndef load(): ...\n"
    )

    def answer(source: Source) -> None:
        raise RuntimeError("no process is left")

    async with managed(tmp_path, auto_load=False) as manager:
        # A hook on everything that returns its argument does not answer in another's stead.
        await manager.load_plugin(
            made("all", lambda context: context.hook("**", lambda *args: args[0], priority=50))
        )
        await manager.load_plugin(
            made("importer", lambda context: context.hook("source:import", answer))
        )
        with pytest.raises(RuntimeError, match="no process is left"):
            await manager.load_plugin(path)
    assert not ran.exists()


async def test_H_error_critical_when_the_system_cannot_start(tmp_path: Path) -> None:
    told: list[Any] = []
    manager = managed(tmp_path, required=("missing",))
    manager.on("error:critical", lambda error, origin: told.append((error, origin)))
    with pytest.raises(LoadError, match="missing") as caught:
        await manager.start()
    assert told == [(caught.value, Origin(handler="start"))]


async def test_H_config_change_when_a_reload_gives_another(tmp_path: Path) -> None:
    told: list[Any] = []
    async with managed(tmp_path, auto_load=False) as manager:
        manager.on("config:change", lambda config, plugin: told.append((config, plugin.name)))
        await manager.load_plugin(made("guest", default_config={"size": 1}))
        await manager.reload_plugin("guest")
        assert told == []
        await manager.reload_plugin("guest", {"size": 2})
        assert told == [({"size": 2}, "guest")]


async def test_H_each_event_is_fired_with_the_arguments_of_its_row(tmp_path: Path) -> None:
    heard: dict[str, list[tuple[Any, ...]]] = {}
    app = object()
    (tmp_path / "plugins").mkdir()
    manager = managed(
        tmp_path,
        app,
        watch_mode=True,
        timeout=0.2,
        probation=60,
        auth=True,
        cache="memory:",
        plugins={"greedy": {"budget": {"cpu": 1e-6}}},
    )
    bell = asyncio.Event()

    def listener(event: str) -> Callable[..., None]:
        def listen(*args: Any) -> None:
            heard.setdefault(event, []).append(args)
            bell.set()

        return listen

    async def until(event: str) -> None:
        async with asyncio.timeout(10):
            while event not in heard:
                bell.clear()
                await bell.wait()

    for event in SECTION_H:
        manager.on(event, listener(event), core=True)
    async with manager:
        await cause_all(manager, tmp_path, until)
        await manager.restart()
    assert set(SECTION_H) - set(heard) == set()
    for event, calls in heard.items():
        row = SECTION_H[event]
        for args in calls:
            assert len(args) == 1 + len(row.rest), (event, args)
            for given, kind in zip(args, (row.payload, *row.rest), strict=True):
                assert isinstance(given, kind), (event, args)
            if event.startswith("app:"):
                assert args == (app,)
    assert {args[1].name for args in heard["config:validate"]} >= {"guest", "storage"}


async def cause_all(manager: PluginManager, root: Path, until: Callable[[str], Any]) -> None:
    contexts: list[Any] = []

    def load(context: Any) -> None:
        async def stream() -> AsyncIterator[bytes]:
            yield b"a"
            raise OSError("dry")

        async def through(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        contexts.append(context)
        context.add_route("GET", "/fine", lambda: "fine")
        context.add_route("GET", "/broken", lambda: 1 / 0)
        context.add_route("GET", "/dry", lambda: stream())
        context.add_middleware(through)
        context.add_websocket("/echo", echo)

    async def echo(socket: WebSocket) -> None:
        async for message in socket:
            await socket.send(message)

    async def hangs() -> None:
        await asyncio.Event().wait()

    await manager.load_plugin(made("guest", load), {"size": 1})
    async with served(manager) as client:
        assert (await client.get("/fine")).text == "fine"
        assert (await client.get("/broken")).status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/dry")
        await until("response:error")
        async with connect(f"ws://{client.base_url.netloc.decode()}/echo") as peer:
            await peer.send("hello")
            assert await peer.recv() == "hello"
        await until("websocket:disconnect")
    await manager.toggle_plugin("guest", False)
    await manager.toggle_plugin("guest", True)
    await manager.reload_plugin("guest", {"size": 2})
    await until("route:update")

    def refuse(route: Route) -> None:
        raise ValueError(route.path)

    late = contexts[-1].hook("route:create", refuse)
    await late
    await until("route:refuse")
    late.cancel()
    contexts[-1].log("info", "here")
    await contexts[-1].storage.set("key", "value")
    await contexts[-1].cache.set("key", "value")
    assert await contexts[-1].cache.get("key") == "value"
    await contexts[-1].cache.delete("key")
    await contexts[-1].cache.clear()
    await manager.unload_plugin("guest")
    for event in ("route:delete", "middleware:remove", "log"):
        await until(event)
    with pytest.raises(LoadError):
        await manager.load_plugin(made("slow", hangs))
    with pytest.raises(NotFoundError):
        await manager.load_plugin("unknown")
    await manager.load_plugin(
        made("quiet", lambda context: context.add_transpiler(".loud", lambda text, _: text.lower()))
    )
    path = root / "loud.loud"
    path.write_text("NAME, VERSION = 'loud', '1'\nDEF LOAD(): ...\n")
    await manager.load_plugin(path)
    path = root / "plugins" / "note.txt"
    path.write_text("1")
    await until("file:add")
    path.write_text("2")
    await until("file:change")
    path.unlink()
    await until("file:delete")
    manager.bus.on("block", lambda value: time.sleep(0.3))
    await manager.bus.emit("block")
    await until("loop:blocked")
    await manager.load_plugin(
        made("greedy", lambda context: context.hook("greed", lambda: sum(range(5_000_000))))
    )
    await manager.bus.emit("greed")
    await until("budget:exceeded")
    auth = manager.use("auth")
    await auth.register("joe", "correct horse")
    await auth.logout(token=(await auth.login("joe", "correct horse")).access_token)
    await take_back(manager, root, until)
    await manager.profile_plugin("shop", 0.01)
    await manager.debug_plugin("shop").breakpoint("here")


async def take_back(manager: PluginManager, root: Path, until: Callable[[str], Any]) -> None:
    """Save a plugin, and a version of it that fails."""
    path = root / "plugins" / "shop.py"
    source = "name = 'shop'\nversion = '{}'\ndef load(context): context.hook('tick', {})\n"
    path.write_text(source.format("1", "lambda: None"))
    await until("dev:hotreload")
    heard = asyncio.Event()
    observer = manager.on("dev:hotreload", heard.set)
    path.write_text(source.format("2", "lambda: 1 / 0"))
    await asyncio.wait_for(heard.wait(), 10)
    observer.cancel()
    for _ in range(manager.options.error_threshold + 1):
        await manager.bus.emit("tick")
    await until("plugin:rollback")


@asynccontextmanager
async def served(manager: PluginManager) -> AsyncIterator[httpx.AsyncClient]:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = asyncio.create_task(
        find_adapter("litestar").serve(
            manager.asgi,
            "127.0.0.1",
            0,
            started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
            stop=stop,
            drain_timeout=5.0,
            lifespan=False,
        )
    )
    try:
        async with httpx.AsyncClient(base_url=await listening) as client:
            yield client
    finally:
        stop.set()
        await server
