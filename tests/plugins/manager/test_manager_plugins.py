"""Section A: the manager's own life, and what it does to plugins."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from veko import Bus, State
from veko.errors import (
    ConfigError,
    ConflictError,
    DependencyError,
    LoadError,
    LoadTimeout,
    NotFoundError,
    RefusedError,
    ServiceError,
    StateError,
    VekoError,
)
from veko_plugins import PluginInfo, PluginManager, Stats

ROUTE = "def load(context): context.add_route('GET', '/here', lambda: {!r})"


def made(name: str, load: Any = lambda: None, **manifest: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **manifest}


# -- A0


async def test_A0_start_stop_and_restart(home: Any) -> None:
    home.plugin(
        "hooked",
        """
        def load(app, context):
            app.append("load")
            for event in ("init", "start", "stop", "restart"):
                context.hook(f"app:{event}", lambda it, event=event: app.append((event, it is app)))
        def unload(app): app.append("unload")
        """,
    )
    seen: list[Any] = []
    manager = home.manager(seen)
    assert manager.state == "created"
    assert await manager.start() is None
    assert manager.state == "running"
    assert seen == ["load", ("init", True), ("start", True)]
    assert isinstance(manager.bus, Bus)
    with pytest.raises(StateError, match="running"):
        await manager.start()
    del seen[:]
    await manager.restart()
    assert manager.state == "running"
    assert seen == [
        ("restart", True), ("stop", True), "unload", "load", ("init", True), ("start", True),
    ]  # fmt: skip
    del seen[:]
    await manager.stop()
    assert seen == [("stop", True), "unload"]
    assert manager.state == "stopped"
    assert manager.list_plugins() == []
    await manager.stop()
    await manager.start()
    assert manager.get_plugin("hooked") is not None
    await asyncio.create_task(manager.stop())


async def test_A0_the_manager_is_a_context_manager(home: Any) -> None:
    home.plugin("one")
    async with home.manager() as manager:
        assert isinstance(manager, PluginManager)
        assert manager.state == "running"
        assert manager.use("storage") is not None
        with pytest.raises(ServiceError, match="nothing"):
            manager.use("nothing")
    assert manager.state == "stopped"
    with pytest.raises(LookupError, match="from inside"):
        async with home.manager() as manager:
            raise LookupError("from inside")
    assert manager.state == "stopped"


async def test_A0_stop_waits_whoever_asks(home: Any) -> None:
    going, go = asyncio.Event(), asyncio.Event()

    async def unload() -> None:
        going.set()
        await go.wait()

    manager = home.manager()
    await manager.start()
    await manager.load_plugin(made("slow", unload=unload))
    first = asyncio.create_task(manager.stop())
    await going.wait()
    second = asyncio.create_task(manager.stop())
    await asyncio.sleep(0)
    assert not second.done()
    go.set()
    await asyncio.gather(first, second)
    assert manager.state == "stopped"


async def test_A0_a_start_that_is_given_up_stops_soon(home: Any) -> None:
    home.plugin("hangs", "import asyncio\nasync def load(): await asyncio.Event().wait()")
    manager = home.manager()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await manager.start()
    assert manager.state == "stopped"


async def test_A0_subscriptions_made_before_the_start_are_kept(home: Any) -> None:
    home.plugin("one")
    seen: list[str] = []
    manager = home.manager()
    manager.bus.on("plugin:loaded", lambda name: seen.append(name))
    async with manager:
        assert "one" in seen


async def test_A0_asgi_starts_with_the_servers_lifespan(home: Any, serve: Any) -> None:
    home.plugin("here", ROUTE.format("here"))
    manager = home.manager()
    async with serve(manager, lifespan=True) as client:
        assert manager.state == "running"
        assert (await client.get("/here")).text == "here"
    assert manager.state == "stopped"
    async with manager, serve(manager, lifespan=True) as client:
        assert (await client.get("/here")).text == "here"
    assert manager.state == "stopped"


async def test_A0_asgi_is_mounted_into_an_application(home: Any) -> None:
    from litestar import Litestar
    from litestar.handlers import ASGIRouteHandler

    home.plugin("here", ROUTE.format("here"))
    async with home.manager() as manager:

        async def mounted(scope: Any, receive: Any, send: Any) -> None:
            await manager.asgi(scope, receive, send)

        handler = ASGIRouteHandler("/plugins", is_mount=True, copy_scope=True)(mounted)
        transport = httpx.ASGITransport(
            Litestar([handler], openapi_config=None, logging_config=None)
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/plugins/here")).text == "here"


async def test_A0_asgi_answers_503_while_the_manager_is_not_started(home: Any, serve: Any) -> None:
    home.plugin("here", ROUTE.format("here"))
    manager = home.manager()
    async with serve(manager) as client:
        answer = await client.get("/here")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        async with manager:
            assert (await client.get("/here")).text == "here"
        assert (await client.get("/here")).status_code == 503


async def test_A0_required_plugins(home: Any) -> None:
    home.plugin("broken", "def load(): raise ValueError('no luck')")
    manager = home.manager(required=["broken", "absent"])
    with pytest.raises(LoadError, match=r"broken: .*no luck.*absent: it was not found"):
        await manager.start()
    assert manager.state == "stopped"
    home.plugin("broken")
    home.plugin("absent")
    async with manager:
        assert len(manager.list_plugins()) == 2


# -- A1


async def test_A1_load_plugin_by_name_by_path_and_as_an_object(home: Any, tmp_path: Path) -> None:
    home.plugin("named", "def load(app, config): app.append(config)")
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text((home.folder / "named.py").read_text().replace("named", "elsewhere"))
    seen: list[Any] = []
    async with home.manager(seen, auto_load=False) as manager:
        plugin = await manager.load_plugin("named", {"option": 1})
        assert (plugin.name, plugin.state, plugin.active) == ("named", State.ACTIVE, True)
        assert plugin is manager.get_plugin("named")
        assert plugin.config == {"option": 1} == seen[0]
        await manager.load_plugin(elsewhere)
        await manager.unload_plugin("elsewhere")
        await manager.load_plugin(str(elsewhere), {"option": 2})
        assert seen[1:] == [{}, {"option": 2}]
        await manager.load_plugin(made("object", lambda app: app.append("object")))
        assert seen[3:] == ["object"]


async def test_A1_what_cannot_be_loaded(home: Any) -> None:
    home.plugin("there")
    async with home.manager() as manager:
        with pytest.raises(NotFoundError, match="there"):
            await manager.load_plugin("ther")
        with pytest.raises(NotFoundError, match=r"nowhere\.py"):
            await manager.load_plugin(Path("nowhere.py"))
        with pytest.raises(ConflictError, match=r"there.*active.*there\.py"):
            await manager.load_plugin("there")
        for form in (3, None, object()):
            with pytest.raises(VekoError, match="plugin"):
                await manager.load_plugin(form)
        assert [info.name for info in manager.list_plugins()] == ["there"]


async def test_A1_one_plugin_loaded_twice_at_once_is_loaded_once(home: Any) -> None:
    home.plugin("slow", "import asyncio\nasync def load(): await asyncio.sleep(0)")
    async with home.manager(auto_load=False) as manager:
        results = await asyncio.gather(
            *(manager.load_plugin("slow") for _ in range(3)), return_exceptions=True
        )
        assert [isinstance(result, VekoError) for result in results].count(True) == 2
        plugin = manager.get_plugin("slow")
        assert plugin.active
        assert plugin.module.__name__ in __import__("sys").modules
        await manager.reload_plugin("slow")
        await manager.unload_plugin("slow")


async def test_A1_a_config_that_is_refused(home: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"minimum": 3}}}
    home.plugin("strict", config_schema=schema)
    async with home.manager(auto_load=False) as manager:
        with pytest.raises(ConfigError) as caught:
            await manager.load_plugin("strict", {"a": "x", "b": 1})
        for word in ("strict", "a", "'x'", "b", "3"):
            assert word in str(caught.value)
        assert manager.get_plugin("strict") is None
        await manager.load_plugin("strict", {"a": 1})


# -- A2, A15


async def test_A2_the_report_of_load_all_plugins(home: Any) -> None:
    home.plugin("good")
    home.plugin("broken", "def load(): raise ValueError('no luck')")
    home.plugin("needs", dependencies=["broken"])
    home.plugin("deep", dependencies=["needs"])
    async with home.manager(auto_load=False) as manager:
        report = await manager.load_all_plugins()
        assert report is manager.report
        with pytest.raises(AttributeError):
            report.loaded = []
        assert report.loaded == ["good"]
        assert list(report.failed) == ["broken"]
        assert "no luck" in str(report.failed["broken"])
        assert set(report.skipped) == {"needs", "deep"}
        assert "broken" in report.skipped["needs"]
        assert "'needs', which needs 'broken'" in report.skipped["deep"]
        home.plugin("broken")
        report = await manager.load_all_plugins()
        assert set(report.loaded) == {"broken", "needs", "deep"}
        assert report.failed == report.skipped == {}


async def test_A15_dependencies_decide_the_order_then_priority(home: Any) -> None:
    body = "def load(app, context): app.append(context.name)"
    home.plugin("plugin-a", body, dependencies=["plugin-c"])
    home.plugin("plugin-b", body, dependencies=["plugin-a", "plugin-c"])
    home.plugin("plugin-c", body)
    home.plugin("high", body, priority=50)
    home.plugin("low", body, priority=1)
    seen: list[str] = []
    async with home.manager(seen):
        assert seen == ["high", "plugin-c", "plugin-a", "plugin-b", "low"]


async def test_A15_independent_plugins_load_concurrently(home: Any) -> None:
    body = """
    async def load(app):
        await app.wait()
    """
    for name in ("a", "b", "c"):
        home.plugin(name, body)
    async with home.manager(asyncio.Barrier(3), timeout=5) as manager:
        assert sorted(manager.report.loaded) == ["a", "b", "c"]


async def test_A15_a_circle_is_shown(home: Any) -> None:
    home.plugin("a", dependencies=["b"])
    home.plugin("b", dependencies=["c"])
    home.plugin("c", dependencies=["a"])
    home.plugin("outside", dependencies=["c"])
    home.plugin("free")
    async with home.manager() as manager:
        assert manager.report.loaded == ["free"]
        for name in "abc":
            error = manager.report.failed[name]
            assert isinstance(error, DependencyError)
            assert "a -> b -> c -> a" in str(error)
            assert error.path == home.folder / f"{name}.py"
        assert "outside" in manager.report.skipped


# -- A3


async def test_A3_unload_refuses_while_active_plugins_depend_on_it(home: Any) -> None:
    home.plugin("base", "def load(): pass\ndef unload(app): app.append('base')")
    for name, need in (("left", "base"), ("right", "base"), ("top", "left")):
        home.plugin(
            name,
            f"def load(): pass\ndef unload(app): app.append({name!r})",
            dependencies=[need],
        )
    seen: list[str] = []
    async with home.manager(seen) as manager:
        with pytest.raises(DependencyError, match="left, right"):
            await manager.unload_plugin("base")
        assert len(manager.list_plugins()) == 4
        assert await manager.unload_plugin("base", cascade=True) is None
        assert manager.list_plugins() == []
        assert seen[-1] == "base"
        assert seen.index("top") < seen.index("left")
        with pytest.raises(NotFoundError, match="base"):
            await manager.unload_plugin("base")
        with pytest.raises(NotFoundError):
            await manager.unload_plugin("storage")


async def test_A3_an_inactive_dependent_does_not_hold_it(home: Any) -> None:
    home.plugin("base")
    home.plugin("user", dependencies=["base"])
    async with home.manager() as manager:
        await manager.toggle_plugin("user", False)
        await manager.unload_plugin("base")
        with pytest.raises(DependencyError, match="base"):
            await manager.toggle_plugin("user", True)
        await manager.load_plugin("base")
        assert await manager.toggle_plugin("user", True)


async def test_A3_an_unload_that_raises_is_reported_and_unloads_all_the_same(
    home: Any, serve: Any
) -> None:
    home.plugin("stubborn", f"{ROUTE.format('here')}\ndef unload(): raise ValueError('never')")
    errors: list[tuple[str, str]] = []
    async with home.manager() as manager, serve(manager) as client:
        manager.on("plugin:error", lambda name, error: errors.append((name, str(error))))
        await manager.unload_plugin("stubborn")
        assert manager.get_plugin("stubborn") is None
        assert (await client.get("/here")).status_code == 404
    assert errors[0][0] == "stubborn"
    assert "never" in errors[0][1]


async def test_A3_a_plugin_asks_for_its_own_unloading(home: Any, serve: Any) -> None:
    def load(app: PluginManager, context: Any) -> None:
        async def leave() -> str:
            await app.unload_plugin("leaver")
            return "gone"

        context.add_route("GET", "/leave", leave)

    manager = home.manager()
    manager.app = manager.kernel.app = manager
    async with manager, serve(manager) as client:
        await manager.load_plugin(made("leaver", load))
        assert (await client.get("/leave")).text == "gone"
        assert (await client.get("/leave")).status_code == 404


# -- A4


async def test_A4_reload_takes_the_new_source_and_merges_the_config(home: Any, serve: Any) -> None:
    home.plugin("here", ROUTE.format("old"), default_config={"a": 1, "b": {"c": 1}})
    async with home.manager() as manager, serve(manager) as client:
        home.plugin("here", ROUTE.format("new"), version="1.1.0", default_config={"a": 1})
        plugin = await manager.reload_plugin("here", {"b": {"d": 2}})
        assert plugin is manager.get_plugin("here")
        assert (plugin.version, plugin.config) == ("1.1.0", {"a": 1, "b": {"d": 2}})
        assert (await client.get("/here")).text == "new"
        plugin = await manager.reload_plugin("here", {"a": 3})
        assert plugin.config == {"a": 3, "b": {"d": 2}}
        with pytest.raises(NotFoundError, match="nobody"):
            await manager.reload_plugin("nobody")


@pytest.mark.parametrize(
    "broken",
    [
        "def load(:",
        "raise ValueError('import')",
        "def load(): raise ValueError('load')",
        "def load(): pass\ndef activate(): raise ValueError('activate')",
        "import sys\ndef load(): sys.exit(3)",
        "def unload(): pass",
        "def load(context):\n"
        "    context.add_route('GET', '/here', lambda: 1)\n"
        "    context.add_route('GET', '/here', lambda: 2)",
        "def load(context): context.add_route('GET', '/{', lambda: 1)",
    ],
)
async def test_A4_a_new_version_that_fails_leaves_the_old_one_running(
    home: Any, serve: Any, broken: str
) -> None:
    home.plugin("here", ROUTE.format("old") + "\ndef unload(app): app.append('unloaded')")
    seen: list[str] = []
    errors: list[str] = []
    async with home.manager(seen, max_retries=3) as manager, serve(manager) as client:
        manager.on("plugin:error", lambda name, error: errors.append(name))
        before = manager.get_plugin("here").module
        home.plugin("here", broken, version="2.0.0")
        with pytest.raises(VekoError, match="here"):
            await manager.reload_plugin("here")
        assert (await client.get("/here")).text == "old"
        plugin = manager.get_plugin("here")
        assert (plugin.version, plugin.active, plugin.module) == ("1.0.0", True, before)
        assert errors == ["here"]
        assert seen == []
        home.plugin("here", ROUTE.format("new"), version="3.0.0")
        await manager.reload_plugin("here")
        assert (await client.get("/here")).text == "new"
        assert seen == ["unloaded"]


async def test_A4_an_inactive_plugin_stays_inactive_when_reloaded(home: Any, serve: Any) -> None:
    home.plugin("here", ROUTE.format("old"))
    async with home.manager() as manager, serve(manager) as client:
        await manager.toggle_plugin("here", False)
        home.plugin("here", ROUTE.format("new"), version="2.0.0")
        plugin = await manager.reload_plugin("here")
        assert (plugin.active, plugin.version) == (False, "2.0.0")
        assert (await client.get("/here")).status_code == 404
        await manager.toggle_plugin("here", True)
        assert (await client.get("/here")).text == "new"


async def test_A4_a_plugin_that_changes_its_name_reloads_to_it(home: Any) -> None:
    home.plugin("here")
    async with home.manager() as manager:
        text = (home.folder / "here.py").read_text()
        (home.folder / "here.py").write_text(text.replace("'here'", "'there'"))
        assert (await manager.reload_plugin("here")).name == "there"
        assert [info.name for info in manager.list_plugins()] == ["there"]


async def test_A4_a_plugin_that_the_kernel_was_given_is_reloaded_too(home: Any) -> None:
    seen: list[str] = []
    async with home.manager() as manager:
        await manager.kernel.load(made("direct", lambda: seen.append("load")))
        await manager.reload_plugin("direct")
        assert seen == ["load", "load"]


# -- A5


async def test_A5_toggle_plugin(home: Any) -> None:
    home.plugin("base")
    home.plugin("user", dependencies=["base"])
    async with home.manager() as manager:
        assert await manager.toggle_plugin("user", False) is False
        assert await manager.toggle_plugin("user", False) is False
        assert manager.get_plugin("user").state == "inactive"
        assert await manager.toggle_plugin("user") is True
        assert await manager.toggle_plugin("user", True) is True
        with pytest.raises(DependencyError, match="user"):
            await manager.toggle_plugin("base")
        assert manager.get_plugin("base").active
        with pytest.raises(NotFoundError, match="nobody"):
            await manager.toggle_plugin("nobody")
        with pytest.raises(NotFoundError):
            await manager.toggle_plugin("nobody", True)


async def test_A5_an_activate_that_raises_leaves_it_off_and_is_reported(home: Any) -> None:
    home.plugin(
        "moody",
        "def load(): pass\ndef activate(app):\n    if app: raise ValueError('not today')",
    )
    mood: list[int] = []
    errors: list[str] = []
    async with home.manager(mood) as manager:
        manager.on("plugin:error", lambda name, error: errors.append(name))
        await manager.toggle_plugin("moody", False)
        mood.append(1)
        with pytest.raises(LoadError, match="not today"):
            await manager.toggle_plugin("moody", True)
        assert not manager.get_plugin("moody").active
        assert errors == ["moody"]
        mood.clear()
        assert await manager.toggle_plugin("moody", True)


async def test_A5_a_hook_may_refuse(home: Any) -> None:
    async with home.manager() as manager:

        def never(name: str) -> None:
            raise PermissionError(f"{name} stays")

        manager.bus.on("plugin:deactivate", never)
        await manager.load_plugin(made("kept"))
        with pytest.raises(RefusedError, match="kept stays"):
            await manager.toggle_plugin("kept", False)
        assert manager.get_plugin("kept").active


# -- A6, A8


async def test_A6_list_plugins(home: Any) -> None:
    before = datetime.now(UTC)
    home.plugin("base", description="The base.")
    home.plugin("user", type="auth", dependencies=["base"])
    home.plugin("off")
    home.plugin("broken", "def load(): raise ValueError('no luck')")
    async with home.manager() as manager:
        await manager.toggle_plugin("off", False)
        infos = {info.name: info for info in manager.list_plugins()}
        assert set(infos) == {"base", "user", "off"}
        info = infos["base"]
        assert isinstance(info, PluginInfo)
        assert (info.version, info.description) == ("1.0.0", "The base.")
        assert (info.type, infos["user"].type) == ("generic", "auth")
        assert (info.state, info.loaded, info.active) == (State.ACTIVE, True, True)
        assert infos["off"].state == "inactive"
        assert (infos["off"].loaded, infos["off"].active) == (True, False)
        assert before <= info.loaded_at <= datetime.now(UTC)
        assert info.loaded_at.utcoffset() == timedelta(0)
        assert 0 < info.load_duration < 5
        assert info.error_count == 0
        assert infos["user"].dependencies == ("base",)
        assert info.source == str(home.folder / "base.py")
        with pytest.raises(AttributeError):
            info.name = "other"
        assert msgspec.json.decode(msgspec.json.encode(info))["name"] == "base"
        assert manager.get_plugin("broken") is None
        assert manager.get_plugin("storage") is None
        assert {"storage", "routes", "commands"} <= {
            i.name for i in manager.list_plugins(core=True)
        }
        await manager.unload_plugin("off")
        assert manager.get_plugin("off") is None
        assert "off" not in {info.name for info in manager.list_plugins()}


@pytest.mark.parametrize(
    ("type_", "load"),
    [
        ("middleware", "context.add_middleware(lambda request, call_next: call_next(request))"),
        ("router", "context.add_route('GET', '/x', lambda: 1)"),
        ("api", "context.add_route('GET', '/api/x', lambda: 1)"),
        ("websocket", "context.add_websocket('/x', lambda socket: None)"),
        ("cli", "context.add_command('x', lambda: 1)"),
        ("generic", "context.hook('app:start', lambda: 1)"),
    ],
)
async def test_M10_the_type_is_found_out(home: Any, type_: str, load: str) -> None:
    home.plugin("typed", f"def load(context): {load}")
    async with home.manager() as manager:
        assert manager.list_plugins()[0].type == type_


async def test_A8_get_stats(home: Any) -> None:
    home.plugin(
        "all",
        """
        async def around(request, call_next): return await call_next(request)
        def fails(): raise ValueError
        def load(context):
            context.hook("app:start", lambda: None)
            context.hook("app:start", lambda: None)
            context.hook("plugin:*", lambda: None)
            context.hook("breaks", fails)
            context.add_middleware(around)
            context.add_route("GET", "/a", lambda: 1)
            context.add_route("POST", "/a", lambda: 1)
            context.add_websocket("/a", lambda socket: None)
            context.add_command("a", lambda: 1)
        """,
    )
    home.plugin("quiet")
    home.plugin("broken", "def load(): raise ValueError('no luck')")
    async with home.manager() as manager:
        stats = manager.get_stats()
        assert isinstance(stats, Stats)
        assert (stats.total, stats.active, stats.loaded, stats.loading) == (2, 2, 2, 0)
        assert (stats.hooks, stats.hook_callbacks) == (3, 4)
        assert (stats.middleware, stats.routes, stats.commands) == (1, 2, 1)
        errors = stats.errors
        await manager.bus.emit("breaks")
        assert manager.get_stats().errors == errors + 1
        assert manager.error_count("all") == 1
        assert 0 < manager.get_stats().uptime < 60
        await manager.toggle_plugin("all", False)
        stats = manager.get_stats()
        assert (stats.total, stats.active, stats.loaded) == (2, 1, 2)
        assert (stats.hooks, stats.hook_callbacks, stats.routes) == (0, 0, 0)
        await manager.unload_plugin("all")
        assert manager.get_stats().total == 1


# -- A12


async def test_A12_on_and_off(home: Any) -> None:
    seen: list[tuple[object, ...]] = []
    manager = home.manager()
    manager.on("plugin:loaded", lambda name, plugin: seen.append(("loaded", name, plugin.name)))
    manager.on("plugin:unloaded", lambda name: seen.append(("unloaded", name)))
    manager.on("plugin:error", lambda name, error: seen.append(("error", name, type(error))))

    async def log(record: Any) -> None:
        await asyncio.sleep(0)
        seen.append((record.type, record.message, record.details, record.plugin))

    manager.on("log", log)
    async with manager:

        def load(context: Any) -> None:
            context.log("info", "a", "b")
            context.hook("breaks", lambda: 1 / 0)

        seen.clear()
        await manager.load_plugin(made("guest", load))
        await manager.bus.emit("breaks")
        await manager.unload_plugin("guest")
    assert ("loaded", "guest", "guest") in seen
    assert ("error", "guest", ZeroDivisionError) in seen
    assert ("unloaded", "guest") in seen
    assert ("info", "a", "b", "guest") in seen


async def test_A12_observers_change_nothing_and_are_cut_to_what_they_accept(home: Any) -> None:
    async with home.manager() as manager:
        seen: list[object] = []

        def first(value: object) -> str:
            seen.append(value)
            return "changed"

        def breaks() -> None:
            raise ValueError("an observer")

        manager.on("event", first)
        manager.on("event", lambda: seen.append("nothing"))
        manager.on("event", lambda *args: seen.append(args))
        manager.on("event", breaks)
        assert await manager.bus.emit("event", 1, 2) == 1
        assert seen == [1, "nothing", (1, 2)]
        manager.off("event", first)
        manager.off("event", first)
        await manager.bus.emit("event", 5)
        assert 5 not in seen


async def test_A12_observers_outlive_a_restart_and_are_held(home: Any) -> None:
    home.plugin("one")
    seen: list[str] = []
    manager = home.manager()

    def observe() -> None:
        manager.on("plugin:loaded", lambda name: seen.append(name))

    observe()
    __import__("gc").collect()
    async with manager:
        assert seen.count("one") == 1
        await manager.restart()
        assert seen.count("one") == 2


async def test_A12_an_observer_is_called_by_every_event_of_a_pattern(home: Any) -> None:
    async with home.manager() as manager:
        seen: list[str] = []
        manager.on("plugin:*", lambda name: seen.append(name))
        await manager.load_plugin(made("guest"))
        assert set(seen) == {"guest"}


async def test_hooks_by_event(home: Any) -> None:
    home.plugin("hooked", "def load(context): context.hook('app:start', lambda: 1, 30)")
    async with home.manager() as manager:
        (subscription,) = manager.hooks["app:start"]
        assert (subscription.owner.name, subscription.priority) == ("hooked", 30)


# -- O


async def test_O1_plugins_dir_may_be_several(home: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    home.plugin("here")
    (other / "there.py").write_text("name = 'there'\nversion = '1'\ndef load(): pass\n")
    async with home.manager() as manager:
        assert {info.name for info in manager.list_plugins()} == {"here"}
    for folders in (["plugins", other], [home.folder, "other"]):
        async with home.manager(plugins_dir=folders) as manager:
            assert {info.name for info in manager.list_plugins()} == {"here", "there"}
    async with home.manager(plugins_dir="other") as manager:
        assert {info.name for info in manager.list_plugins()} == {"there"}


async def test_O1_the_default_folder_may_be_missing(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path) as manager:
        assert manager.list_plugins() == []
        assert manager.report.failed == {}


async def test_O2_auto_load(home: Any) -> None:
    home.plugin("one")
    async with home.manager(auto_load=False) as manager:
        assert manager.list_plugins() == []
        report = await manager.load_all_plugins()
        assert report.loaded == ["one"]


async def test_O8_allow_hot_reload_is_on_by_default(home: Any) -> None:
    home.plugin("one")
    assert home.manager().options.allow_hot_reload is True
    async with home.manager(allow_hot_reload=False) as manager:
        assert manager.options.allow_hot_reload is False
        home.plugin("one", version="2.0.0")
        assert (await manager.reload_plugin("one")).version == "2.0.0"


async def test_O9_max_retries(home: Any) -> None:
    body = """
    tries = 0
    def load(app, context):
        global tries
        tries += 1
        assert tries == 1, "each try begins with a fresh module"
        context.hook("again", lambda: None)
        app.append("try")
        if len(app) < 3:
            raise OSError("not yet")
    """
    home.plugin("late", body)
    assert PluginManager(root=home.root).options.max_retries == 3
    tries: list[str] = []
    async with home.manager(tries, max_retries=2) as manager:
        assert len(tries) == 3
        assert manager.get_plugin("late").active
        assert manager.report.loaded == ["late"]
        assert manager.get_stats().hook_callbacks == 1
    tries.clear()
    async with home.manager(tries, max_retries=1) as manager:
        assert len(tries) == 2
        assert "not yet" in str(manager.report.failed["late"])


async def test_O9_a_bad_manifest_is_not_tried_again(home: Any) -> None:
    home.plugin("bad", "def unload(): pass")
    begin = asyncio.get_running_loop().time()
    errors: list[str] = []
    manager = home.manager(max_retries=50)
    manager.on("plugin:error", lambda name, error: errors.append(name))
    async with manager:
        assert list(manager.report.failed) == ["bad"]
    assert errors == ["bad"]
    assert asyncio.get_running_loop().time() - begin < 2


@pytest.mark.parametrize("step", ["load", "activate"])
async def test_O10_timeout(home: Any, step: str) -> None:
    other = "" if step == "load" else "\ndef load(): pass"
    home.plugin("hangs", f"import asyncio\nasync def {step}(): await asyncio.Event().wait(){other}")
    assert PluginManager(root=home.root).options.timeout == 30.0
    timeouts: list[str] = []
    manager = home.manager(timeout=0.5)
    manager.on("plugin:timeout", lambda name, error: timeouts.append(name))
    async with manager:
        error = manager.report.failed["hangs"]
        assert isinstance(error, LoadTimeout)
        assert "0.5 s" in str(error)
        assert timeouts == ["hangs"]


async def test_O12_enable_hooks(home: Any, serve: Any) -> None:
    home.plugin(
        "hooked",
        """
        def load(app, context):
            for event in ("app:start", "request:start", "mine"):
                context.hook(event, lambda: app.append("hook"))
            context.add_route("GET", "/", lambda: "served")
        """,
    )
    seen: list[str] = []
    async with home.manager(seen, enable_hooks=False) as manager, serve(manager) as client:
        observed: list[str] = []
        manager.on("mine", lambda: observed.append("observer"))
        await manager.bus.emit("mine")
        assert (await client.get("/")).text == "served"
        assert (seen, observed) == ([], ["observer"])
        assert manager.get_stats().hook_callbacks == 0


async def test_O14_core_plugins_are_replaced_or_left_out(home: Any) -> None:
    seen: list[str] = []
    mine = made("storage", lambda: seen.append("mine"))
    async with home.manager(core={"storage": mine, "routes": None}) as manager:
        assert seen == ["mine"]
        with pytest.raises(ServiceError):
            manager.use("http")
        with pytest.raises(VekoError, match="add_route"):
            await manager.load_plugin(
                made("guest", lambda context: context.add_route("GET", "/", lambda: 1))
            )
        await manager.load_plugin(made("other"))
