"""Section H: each event that the manager and its core plugins fire, by causing it."""

import asyncio
from typing import Any

import msgspec
import pytest

from veko import Origin, Stop
from veko.errors import ConfigError, LoadTimeout, RefusedError, VekoError
from veko_plugins import PluginManager, Request, Response, Route


def made(name: str, load: Any = lambda: None, **manifest: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **manifest}


async def held(manager: PluginManager, name: str = "guest") -> Any:
    """Load a plugin and return its context."""
    found: list[Any] = []
    await manager.load_plugin(made(name, lambda context: found.append(context)))
    return found[0]


class Recorder:
    """A plugin that writes down what it hears."""

    def __init__(self, *events: str) -> None:
        self.events = events
        self.heard: list[tuple[Any, ...]] = []
        self.bell = asyncio.Event()

    def plugin(self) -> dict[str, Any]:
        return made("recorder", self.load)

    def load(self, context: Any) -> None:
        for event in self.events:
            context.hook(event, self._listener(event))

    def _listener(self, event: str) -> Any:
        def listen(*args: Any) -> None:
            self.heard.append((event, *args))
            self.bell.set()

        return listen

    def names(self) -> list[str]:
        return [event for event, *_ in self.heard]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.heard) < count:
                self.bell.clear()
                await self.bell.wait()


async def test_H_app_events_come_after_the_plugins(home: Any) -> None:
    app = object()
    recorder = Recorder("app:init", "app:start", "app:stop", "app:restart")
    order: list[str] = []
    manager = home.manager(app, core={"recorder": recorder.plugin()})
    manager.on("plugin:loaded", lambda name: order.append(name))
    manager.on("app:init", lambda: order.append("app:init"))
    home.plugin("late", priority=-5)
    async with manager:
        assert order[-2:] == ["late", "app:init"]
        await manager.restart()
    assert recorder.names() == [
        "app:init", "app:start", "app:restart", "app:stop", "app:init", "app:start", "app:stop",
    ]  # fmt: skip
    assert all(args == (app,) for _, *args in recorder.heard for args in [tuple(args)])


async def test_H_route_load_changes_the_list_of_routes(home: Any, serve: Any) -> None:
    async with home.manager() as manager, serve(manager) as client:
        context = await held(manager, "changer")
        seen: list[Any] = []

        def change(routes: list[Route]) -> list[Route] | None:
            if routes[0].plugin != "target":
                return None
            seen.append([route.path for route in routes])
            extra = Route("GET", "/extra", lambda: "extra", (), "target")
            return [*(route for route in routes if route.path != "/dropped"), extra]

        await context.hook("route:load", change)

        def load(context: Any) -> None:
            for path in ("/kept", "/dropped"):
                context.add_route("GET", path, lambda: "here")

        await manager.load_plugin(made("target", load))
        assert seen == [["/kept", "/dropped"]]
        assert (await client.get("/kept")).text == "here"
        assert (await client.get("/extra")).text == "extra"
        assert (await client.get("/dropped")).status_code == 404
        await manager.unload_plugin("target")
        assert (await client.get("/extra")).status_code == 404


async def test_H_route_create_guards_changes_and_refuses(home: Any, serve: Any) -> None:
    async def guard(request: Request, call_next: Any) -> Response:
        return Response("no entry", 401)

    def protect(route: Route) -> Route | None:
        if route.path == "/refused":
            raise PermissionError("not this one")
        if route.path.startswith("/admin/"):
            return msgspec.structs.replace(route, middlewares=(guard, *route.middlewares))
        return None

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(
            made(
                "target",
                lambda context: [
                    context.add_route("GET", path, lambda: "in") for path in ("/admin/x", "/free")
                ],
            )
        )
        assert (await client.get("/admin/x")).text == "in"
        await manager.load_plugin(
            made("guard", lambda context: context.hook("route:create", protect))
        )
        assert (await client.get("/admin/x")).status_code == 401
        assert (await client.get("/free")).text == "in"
        with pytest.raises(VekoError, match=r"GET /refused.*not this one.*rival"):
            await manager.load_plugin(
                made(
                    "rival",
                    lambda context: [
                        context.add_route("GET", path, lambda: 1) for path in ("/r", "/refused")
                    ],
                )
            )
        assert (await client.get("/r")).status_code == 404
        await manager.toggle_plugin("guard", False)
        assert (await client.get("/admin/x")).text == "in"
        await manager.toggle_plugin("guard", True)
        assert (await client.get("/admin/x")).status_code == 401
        await manager.unload_plugin("guard")
        assert (await client.get("/admin/x")).text == "in"


async def test_H_route_update_and_route_delete(home: Any) -> None:
    recorder = Recorder("route:update", "route:delete")
    home.plugin("here", "def load(context): context.add_route('GET', '/here', lambda: 1)")
    async with home.manager() as manager:
        await manager.load_plugin(recorder.plugin())
        await manager.reload_plugin("here")
        await recorder.until(1)
        event, route = recorder.heard[0]
        assert event == "route:update"
        assert isinstance(route, Route)
        assert (route.method, route.path, route.plugin) == ("GET", "/here", "here")
        assert route.handler.__module__ == manager.get_plugin("here").module.__name__
        await manager.unload_plugin("here")
        await recorder.until(2)
        event, route = recorder.heard[1]
        assert (event, route.path) == ("route:delete", "/here")


async def test_H_request_and_response_events_in_order(home: Any, serve: Any) -> None:
    recorder = Recorder(
        "request:start", "response:start", "response:end", "request:end", "request:error",
        "response:error",
    )  # fmt: skip
    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(recorder.plugin())
        await manager.load_plugin(
            made("target", lambda context: context.add_route("GET", "/x", lambda: "x"))
        )
        assert (await client.get("/x?q=1")).text == "x"
        await recorder.until(4)
        events = ["request:start", "response:start", "response:end", "request:end"]
        assert recorder.names() == events
        (_, request), (_, response, second), (_, third, fourth), (_, fifth, sixth) = recorder.heard
        assert isinstance(request, Request)
        assert isinstance(response, Response)
        assert (request.path, request.query["q"]) == ("/x", "1")
        assert second is fourth is fifth is request
        assert third is sixth is response
        assert response.status == 200
        await client.get("/nothing")
        assert len(recorder.heard) == 4, "it was not matched"


async def test_H_request_start_may_change_the_request_or_answer(home: Any, serve: Any) -> None:
    def start(request: Request) -> Request | Response | None:
        request.state["user"] = "ada"
        if "stop" in request.query:
            return Response("stopped", 403)
        if "raise" in request.query:
            raise Stop(Response("raised", 402))
        return request

    async with home.manager() as manager, serve(manager) as client:
        context = await held(manager)
        context.hook("request:start", start)
        later: list[str] = []
        context.hook("request:start", lambda request: later.append(request.state["user"]), 1)
        await context.add_route("GET", "/x", lambda request: request.state["user"])
        assert (await client.get("/x")).text == "ada"
        answer = await client.get("/x?stop=1")
        assert (answer.status_code, answer.text) == (403, "stopped")
        answer = await client.get("/x?raise=1")
        assert (answer.status_code, answer.text) == (402, "raised")
        assert later == ["ada"]


async def test_H_response_start_may_change_the_response(home: Any, serve: Any) -> None:
    def start(response: Response, request: Request) -> Response | None:
        response.headers["x-path"] = request.path
        return Response("another", 202) if "other" in request.query else None

    async with home.manager() as manager, serve(manager) as client:
        context = await held(manager)
        context.hook("response:start", start)
        await context.add_route("GET", "/x", lambda: "x")
        answer = await client.get("/x")
        assert (answer.text, answer.headers["x-path"]) == ("x", "/x")
        answer = await client.get("/x?other=1")
        assert (answer.status_code, answer.text) == (202, "another")


async def test_H_request_error_may_change_the_error_or_answer(home: Any, serve: Any) -> None:
    seen: list[tuple[str, str]] = []

    def on_error(error: BaseException, request: Request) -> BaseException | Response | None:
        seen.append((str(error), request.path))
        if "answer" in request.query:
            return Response("sorry", 418)
        return None

    def breaks() -> None:
        raise ValueError("broke")

    async with home.manager() as manager, serve(manager) as client:
        context = await held(manager)
        context.hook("request:error", on_error)
        await context.add_route("GET", "/x", breaks)
        assert (await client.get("/x")).status_code == 500
        answer = await client.get("/x?answer=1")
        assert (answer.status_code, answer.text) == (418, "sorry")
        assert seen == [("broke", "/x")] * 2
        assert manager.error_count("guest") == 2


async def test_H_response_error_when_sending_fails(home: Any, serve: Any) -> None:
    recorder = Recorder("response:error")

    async def stream() -> Any:
        yield b"a" * 10
        raise OSError("the source dried up")

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(recorder.plugin())
        context = await held(manager)
        await context.add_route("GET", "/x", lambda: stream())
        with pytest.raises(Exception, match=r"peer|incomplete|disconnected"):
            await client.get("/x")
        await recorder.until(1)
        _, response, request = recorder.heard[0]
        assert isinstance(response, Response)
        assert request.path == "/x"
        assert manager.error_count("guest") == 1


async def test_H_middleware_add_and_remove(home: Any, serve: Any) -> None:
    removed = Recorder("middleware:remove")

    async def around(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-around"] = "first"
        return response

    async def instead(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-around"] = "instead"
        return response

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(removed.plugin())
        context = await held(manager)
        await context.add_route("GET", "/x", lambda: "x")
        added: list[Any] = []

        def replace(fn: Any) -> Any:
            added.append(fn)
            return instead

        context.hook("middleware:add", replace)
        handle = await context.add_middleware(around)
        assert added == [around]
        assert (await client.get("/x")).headers["x-around"] == "instead"
        handle.cancel()
        await removed.until(1)
        assert removed.heard[0][1] in (around, instead)
        assert "x-around" not in (await client.get("/x")).headers


async def test_H_error_handle_gets_every_error_and_its_origin(home: Any, serve: Any) -> None:
    def breaks(*_: Any) -> None:
        raise ValueError("broke")

    async with home.manager() as manager, serve(manager) as client:
        context = await held(manager)
        seen: list[tuple[str, Origin]] = []
        context.hook("error:handle", lambda error, origin: seen.append((str(error), origin)))
        context.hook("event", breaks)
        await manager.bus.emit("event")
        assert seen[-1][0] == "broke"
        assert seen[-1][1].plugin == "guest"
        assert seen[-1][1].event == "event"
        assert "breaks" in seen[-1][1].handler
        await context.add_route("GET", "/x", breaks)
        await client.get("/x")
        assert len(seen) == 2
        assert seen[1][1].plugin == "guest"
        assert seen[1][1].subject.path == "/x"
        with pytest.raises(VekoError):
            await manager.load_plugin(made("broken", lambda: breaks()))
        assert "broke" in seen[2][0]
        assert seen[2][1].plugin == "broken"


async def test_H_error_handle_may_replace_the_error(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)
        told: list[BaseException] = []
        manager.on("plugin:error", lambda name, error: told.append(error))
        context.hook("error:handle", lambda error, origin: KeyError("instead"))
        context.hook("event", lambda: 1 / 0)
        await manager.bus.emit("event")
        assert [type(error) for error in told] == [KeyError]


async def test_H_error_critical_when_a_plugin_is_stopped(home: Any) -> None:
    recorder = Recorder("error:critical")
    async with home.manager() as manager:
        await manager.load_plugin(recorder.plugin())
        with pytest.raises(VekoError):
            await manager.load_plugin(made("broken", lambda: 1 / 0))
        ((_, error, origin),) = recorder.heard
        assert "ZeroDivisionError" in str(error)
        assert "broken" in str(origin)


async def test_a_load_that_is_tried_again_is_critical_only_at_the_end(home: Any) -> None:
    tries: list[int] = []
    recorder = Recorder("error:critical", "plugin:error")

    def load() -> None:
        tries.append(1)
        if len(tries) != 3:
            raise ValueError("not yet")

    async with home.manager(max_retries=2) as manager:
        await manager.load_plugin(recorder.plugin())
        await manager.load_plugin(made("third", load))
        assert recorder.names() == ["plugin:error"] * 2
        recorder.heard.clear()
        with pytest.raises(VekoError, match="not yet"):
            await manager.load_plugin(made("never", load))
        assert recorder.names() == [*["plugin:error"] * 3, "error:critical"]
        assert manager.kernel.get("never").error == str(recorder.heard[-1][1])


async def test_H_plugin_events_before_each_step_and_after(home: Any) -> None:
    events = ("load", "activate", "deactivate", "unload", "reload", "loaded", "activated",
              "deactivated", "unloaded")  # fmt: skip
    recorder = Recorder(*(f"plugin:{event}" for event in events))
    async with home.manager() as manager:
        await manager.load_plugin(recorder.plugin())
        recorder.heard.clear()
        await manager.load_plugin(made("guest"))
        assert recorder.names() == [
            "plugin:load", "plugin:activate", "plugin:loaded", "plugin:activated",
        ]  # fmt: skip
        await manager.toggle_plugin("guest", False)
        assert recorder.names()[4:] == ["plugin:deactivate", "plugin:deactivated"]
        await manager.toggle_plugin("guest", True)
        assert recorder.names()[6:] == ["plugin:activate", "plugin:activated"]
        await manager.reload_plugin("guest")
        assert recorder.names()[8:][0] == "plugin:reload"
        assert "plugin:loaded" in recorder.names()[8:]
        mark = len(recorder.heard)
        await manager.unload_plugin("guest")
        last = recorder.names()[mark:]
        assert sorted(last[:2]) == ["plugin:deactivate", "plugin:unload"]
        assert set(last[2:]) == {"plugin:deactivated", "plugin:unloaded"}
        for _, name, plugin in recorder.heard:
            assert name == plugin.name == "guest"


@pytest.mark.parametrize("step", ["load", "activate", "deactivate", "unload", "reload"])
@pytest.mark.parametrize("how", ["def", "async def"])
async def test_H_raising_before_a_step_stops_it(home: Any, step: str, how: str) -> None:
    async with home.manager() as manager:
        context = await held(manager, "guard")

        def refuse(name: str) -> None:
            if name == "guest":
                raise PermissionError("not now")

        async def refuse_later(name: str) -> None:
            refuse(name)

        if step in ("load", "activate"):
            context.hook(f"plugin:{step}", refuse if how == "def" else refuse_later)
            with pytest.raises(RefusedError, match="not now"):
                await manager.load_plugin(made("guest"))
            assert manager.get_plugin("guest") is None
            return
        await manager.load_plugin(made("guest"))
        context.hook(f"plugin:{step}", refuse if how == "def" else refuse_later)
        act = {
            "deactivate": lambda: manager.toggle_plugin("guest", False),
            "unload": lambda: manager.unload_plugin("guest"),
            "reload": lambda: manager.reload_plugin("guest"),
        }[step]
        with pytest.raises(RefusedError, match="not now"):
            await act()
        plugin = manager.get_plugin("guest")
        assert plugin.active
        assert plugin.generation == 1


async def test_H_plugin_error_and_plugin_timeout(home: Any) -> None:
    recorder = Recorder("plugin:error", "plugin:timeout")
    async with home.manager(timeout=0.5) as manager:
        await manager.load_plugin(recorder.plugin())

        async def hangs() -> None:
            await asyncio.Event().wait()

        with pytest.raises(LoadTimeout):
            await manager.load_plugin(made("slow", hangs))
        assert sorted(recorder.names()) == ["plugin:error", "plugin:timeout"]
        for _, name, error in recorder.heard:
            assert name == "slow"
            assert isinstance(error, LoadTimeout)


async def test_H_config_validate_and_config_change(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager, "settings")

        def check(config: dict[str, Any], plugin: Any) -> dict[str, Any] | None:
            if plugin.name != "guest":
                return None
            if config.get("size") == 13:
                raise ValueError("13 is unlucky")
            return {**config, "checked": True}

        changes: list[Any] = []
        context.hook("config:validate", check)
        context.hook("config:change", lambda config, plugin: changes.append((config, plugin.name)))
        plugin = await manager.load_plugin(made("guest"), {"size": 1})
        assert plugin.config == {"size": 1, "checked": True}
        assert changes == []
        await manager.kernel.update_config("guest", {"size": 2})
        assert plugin.config == {"size": 2, "checked": True}
        assert changes == [({"size": 2, "checked": True}, "guest")]
        with pytest.raises(ConfigError, match=r"unlucky.*guest"):
            await manager.kernel.update_config("guest", {"size": 13})
        assert plugin.config["size"] == 2
        assert len(changes) == 1
        with pytest.raises(ConfigError, match=r"unlucky.*guest"):
            await manager.reload_plugin("guest", {"size": 13})
        assert plugin.config["size"] == 2


async def test_H_log_is_an_event(home: Any) -> None:
    recorder = Recorder("log")
    async with home.manager() as manager:
        await manager.load_plugin(recorder.plugin())
        context = await held(manager)
        context.log("warning", "look out", "there")
        await recorder.until(1)
        ((_, record),) = recorder.heard
        assert (record.type, record.message, record.details) == ("warning", "look out", "there")
        assert record.plugin == "guest"


async def test_H_plugins_hear_that_the_storage_opens_and_closes(home: Any) -> None:
    heard: list[object] = []
    home.plugin(
        "heard",
        """
        def load(app, context):
            for event in ("database:connect", "database:disconnect", "app:start"):
                context.hook(event, lambda one, event=event: app.append((event, one)))

        def unload(app):
            app.append("unload")
        """,
    )
    manager = home.manager(heard)
    async with manager:
        engine = manager.use("storage")
        assert heard == [("database:connect", engine), ("app:start", heard)]
        heard.clear()
        await manager.toggle_plugin("storage", False)
        await manager.toggle_plugin("storage", True)
        assert heard == [("database:disconnect", engine), ("database:connect", engine)]
        heard.clear()
    assert heard == [("database:disconnect", engine), "unload"]


async def test_H_database_events(home: Any) -> None:
    recorder = Recorder("database:connect", "database:disconnect")
    manager = home.manager()
    seen: list[str] = []
    manager.on("database:connect", lambda engine: seen.append(type(engine).__name__))
    manager.on("database:disconnect", lambda engine: seen.append(type(engine).__name__))
    async with manager:
        assert len(seen) == 1
        await manager.load_plugin(recorder.plugin())
        context = await held(manager)
        around: list[Any] = []

        async def watch(query: Any) -> None:
            around.append((query.operation, query.namespace))
            context.storage.set("inside", 1)
            around.append(await query)

        context.hook("database:query", watch)
        await context.storage.set("a", 1)
        assert around == [("set", "guest"), 1]
        assert context.storage.get("a") == 1
    assert len(seen) == 2


async def test_H_every_declared_event_tells_what_it_is(home: Any) -> None:
    async with home.manager() as manager:
        events = manager.events()
        names = [event.name for event in events]
        assert names == sorted(names)
        assert {
            "app:init", "app:start", "app:stop", "app:restart", "route:load", "route:create",
            "route:update", "route:delete", "request:start", "request:end", "request:error",
            "response:start", "response:end", "response:error", "middleware:add",
            "middleware:remove", "error:handle", "error:critical", "plugin:load", "plugin:unload",
            "plugin:activate", "plugin:deactivate", "plugin:reload", "plugin:error",
            "plugin:timeout", "config:validate", "config:change", "database:connect",
            "database:query", "database:disconnect", "plugin:loaded", "plugin:unloaded",
            "plugin:activated", "plugin:deactivated", "log",
        } <= set(names)  # fmt: skip
        assert all(event.doc for event in events)
        writable = {event.name for event in events if event.returns}
        assert writable >= {
            "route:load", "route:create", "request:start", "request:error", "response:start",
            "middleware:add", "error:handle", "config:validate", "database:query",
        }  # fmt: skip
        assert not writable & {"app:start", "request:end", "plugin:load", "config:change", "log"}
