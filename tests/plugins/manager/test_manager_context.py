"""Section C: what a plugin holds in its hand, under a manager."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from veko import Handle, LogRecord, Stop, Subscription
from veko.errors import (
    ConfigError,
    HookTimeout,
    ServiceError,
    StorageError,
    TransactionError,
    VekoError,
)
from veko_plugins import Response


def made(name: str, load: Any, **manifest: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **manifest}


async def held(manager: Any, name: str = "guest", **manifest: Any) -> Any:
    """Load a plugin and return its context."""
    found: list[Any] = []
    await manager.load_plugin(made(name, lambda context: found.append(context), **manifest))
    return found[0]


async def test_C1_log(home: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "veko.plugin")
    records: list[LogRecord] = []
    async with home.manager() as manager:
        manager.on("log", records.append)
        context = await held(manager)
        before = datetime.now(UTC)
        for level in ("debug", "info", "success", "warning", "error"):
            assert context.log(level, "a message") is None
        context.log("info", "with more", {"id": 3}, user="ada")
        with pytest.raises(VekoError, match=r"'loud'.*debug, info"):
            context.log("loud", "no such level")
    assert [r.type for r in records[:5]] == ["debug", "info", "success", "warning", "error"]
    last = records[-1]
    assert (last.message, last.details, last.fields) == ("with more", {"id": 3}, {"user": "ada"})
    assert last.plugin == "guest"
    assert last.timestamp.utcoffset() == timedelta(0)
    assert last.timestamp >= before
    ours = [record for record in caplog.records if record.name == "veko.plugin.guest"]
    assert [record.levelname for record in ours][:5] == [
        "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR",
    ]  # fmt: skip
    assert {getattr(record, "plugin", None) for record in ours} == {"guest"}


async def test_C1_log_inside_load_and_from_a_thread(home: Any) -> None:
    messages: list[str] = []
    async with home.manager() as manager:
        manager.on("log", lambda record: messages.append(record.message))

        async def load(context: Any) -> None:
            context.log("info", "loading")
            await asyncio.to_thread(context.log, "info", "from a thread")

        await manager.load_plugin(made("guest", load))
    assert messages == ["loading", "from a thread"]


async def test_C2_add_middleware_in_order_of_priority(home: Any, serve: Any) -> None:
    def around(word: str) -> Any:
        async def middleware(request: Any, call_next: Any) -> Any:
            request.state.setdefault("in", []).append(word)
            response = await call_next(request)
            response.headers["x-out"] = response.headers.get("x-out", "") + word
            return response

        return middleware

    def load(context: Any) -> None:
        assert isinstance(context.add_middleware(around("b")), Handle)
        context.add_middleware(around("c"))
        context.add_middleware(around("a"), priority=20)
        context.add_middleware(around("d"), 5)
        context.add_route("GET", "/in", lambda request: request.state["in"])

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(made("guest", load))
        answer = await client.get("/in")
        assert (answer.json(), answer.headers["x-out"]) == ([*"abcd"], "dcba")
        await manager.toggle_plugin("guest", False)
        assert (await client.get("/in")).status_code == 404
        assert "x-out" not in (await client.get("/in")).headers


async def test_C2_middleware_may_answer_itself(home: Any, serve: Any) -> None:
    async def closed(request: Any, call_next: Any) -> Response:
        return Response("closed", 503)

    def load(context: Any) -> None:
        context.add_route("GET", "/open", lambda: "open")
        context.add_route("GET", "/closed", closed, lambda: "never")

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(made("guest", load))
        answer = await client.get("/closed")
        assert (answer.status_code, answer.text) == (503, "closed")
        assert (await client.get("/open")).text == "open"


async def test_C3_add_route_parameters_and_arguments(home: Any, serve: Any) -> None:
    def load(context: Any) -> None:
        def item(id: int, limit: int = 10) -> dict[str, int]:
            return {"id": id, "limit": limit}

        async def rest(rest: str, request: Any) -> list[str]:
            return [rest, request.path_params["rest"]]

        async def create(data: dict[str, int]) -> dict[str, int]:
            return {key: value + 1 for key, value in data.items()}

        context.add_route("GET", "/text/{id}", lambda id: id)
        context.add_route("GET", "/items/{id:int}", item)
        context.add_route("GET", "/files/{rest:path}", rest)
        context.add_route("post", "/items", create)

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(made("guest", load))
        assert (await client.get("/text/7")).text == "7"
        assert (await client.get("/items/7?limit=3")).json() == {"id": 7, "limit": 3}
        assert (await client.get("/items/7")).json() == {"id": 7, "limit": 10}
        assert (await client.get("/items/seven")).status_code == 404
        assert (await client.get("/items/7?limit=x")).status_code == 400
        assert (await client.get("/files/a/b.txt")).json() == ["a/b.txt"] * 2
        assert (await client.post("/items", json={"a": 1})).json() == {"a": 2}
        assert (await client.post("/items", json=["a"])).status_code == 400
        assert (await client.delete("/items/7")).status_code == 405


async def test_C3_what_a_handler_may_return(home: Any, serve: Any) -> None:
    async def stream() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    answers = {
        "json": lambda: {"a": [1, None]},
        "list": lambda: [1],
        "number": lambda: 1,
        "text": lambda: "é",
        "bytes": lambda: b"\xff",
        "response": lambda: Response({"made": 1}, 201, {"x-a": "b"}),
        "typed": lambda: Response("<p>", media_type="text/html"),
        "empty": lambda: Response(),
        "stream": lambda: stream(),
    }

    def load(context: Any) -> None:
        for name, answer in answers.items():
            context.add_route("GET", f"/{name}", answer)

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(made("guest", load))
        found = {name: await client.get(f"/{name}") for name in answers}
    assert found["json"].json() == {"a": [1, None]}
    assert found["json"].headers["content-type"] == "application/json"
    assert (found["list"].json(), found["number"].json()) == ([1], 1)
    assert found["text"].text == "é"
    assert found["bytes"].content == b"\xff"
    response = found["response"]
    assert (response.status_code, response.json(), response.headers["x-a"]) == (
        201, {"made": 1}, "b",
    )  # fmt: skip
    assert found["typed"].headers["content-type"].startswith("text/html")
    assert (found["empty"].status_code, found["empty"].content) == (200, b"")
    assert found["stream"].text == "ab"


async def test_C3_what_a_request_has(home: Any, serve: Any) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: Any) -> str:
        seen.update(
            method=request.method,
            path=request.path,
            url=str(request.url),
            params=dict(request.path_params),
            query=dict(request.query),
            header=request.headers["X-Thing"],
            cookies=dict(request.cookies),
            client=request.client.host,
            state=request.state,
            body=await request.body(),
            json=await request.json(),
        )
        return "ok"

    async def form(request: Any) -> dict[str, str]:
        return dict(await request.form())

    def load(context: Any) -> None:
        context.add_route("POST", "/look/{a}", handler)
        context.add_route("POST", "/form", form)

    async with home.manager() as manager, serve(manager) as client:
        await manager.load_plugin(made("guest", load))
        headers = {"x-thing": "1", "cookie": "c=d"}
        await client.post("/look/b%20c?q=1", content=b'{"x": 1}', headers=headers)
        assert (await client.post("/form", data={"k": "v"})).json() == {"k": "v"}
        base = str(client.base_url).rstrip("/")
    assert seen == {
        "method": "POST",
        "path": "/look/b c",
        "url": f"{base}/look/b%20c?q=1",
        "params": {"a": "b c"},
        "query": {"q": "1"},
        "header": "1",
        "cookies": {"c": "d"},
        "client": "127.0.0.1",
        "state": {},
        "body": b'{"x": 1}',
        "json": {"x": 1},
    }


async def test_C3_a_route_added_after_load_is_live_when_awaited(home: Any, serve: Any) -> None:
    async with home.manager() as manager, serve(manager) as client:
        failed: asyncio.Queue[str] = asyncio.Queue()
        manager.on("plugin:error", lambda name, error: failed.put_nowait(name))
        gone = asyncio.Event()
        manager.on("route:delete", gone.set)
        context = await held(manager)
        handle = await context.add_route("GET", "/late", lambda: "late")
        assert (await client.get("/late")).text == "late"
        with pytest.raises(VekoError, match="guest"):
            await context.add_route("GET", "/late", lambda: "again")
        assert await failed.get() == "guest"
        assert manager.error_count("guest") == 1
        handle.cancel()
        handle.cancel()
        await asyncio.wait_for(gone.wait(), 5)
        assert (await client.get("/late")).status_code == 404


async def test_C4_hook_priority_order_and_value(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)
        seen: list[str] = []

        async def doubled(value: int) -> int:
            seen.append("doubled")
            return value * 2

        def plus(value: int) -> int:
            seen.append("plus")
            return value + 1

        subscription = context.hook("sum", doubled)
        assert isinstance(subscription, Subscription)
        context.hook("sum", plus)
        context.hook("sum", lambda: seen.append("looks on"), priority=20)
        assert await manager.bus.emit("sum", 3) == 7
        assert seen == ["looks on", "doubled", "plus"]
        context.hook("sum", lambda value: (_ for _ in ()).throw(Stop(100)), 15)
        assert await manager.bus.emit("sum", 3) == 100


async def test_C4_hook_as_a_decorator(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)

        @context.hook("greet", priority=20)
        async def loud(word: str) -> str:
            return word.upper()

        @context.hook("greet")
        def polite(word: str) -> str:
            return f"{word}, please"

        assert await manager.bus.emit("greet", "tea") == "TEA, please"
        assert polite("x") == "x, please"
        assert await loud("x") == "X"
        context.remove_hook("greet", loud)
        assert await manager.bus.emit("greet", "tea") == "tea, please"


async def test_C4_hook_on_a_pattern(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)
        seen: list[object] = []
        context.hook("plugin:*", lambda name: seen.append(name))
        deep: list[object] = []
        context.hook("plugin:**", lambda value: deep.append(value))
        await manager.load_plugin(made("other", lambda: None))
        assert set(seen) == {"other"}
        assert len(seen) == 4
        await context.emit("said", 5)
        assert 5 not in seen
        assert deep[-1] == 5


async def test_C4_hook_is_limited_to_five_seconds(home: Any) -> None:
    async with home.manager() as manager:
        errors: list[tuple[str, BaseException]] = []
        timeouts: list[str] = []
        manager.on("plugin:error", lambda name, error: errors.append((name, error)))
        manager.on("plugin:timeout", lambda name, error: timeouts.append(name))
        context = await held(manager)

        async def hangs(value: int) -> int:
            await asyncio.Event().wait()
            return 7

        assert context.hook("slow", hangs).timeout == 5.0
        context.remove_hook("slow", hangs)
        context.hook("slow", hangs, timeout=0.01)
        assert context.hook("never", hangs, timeout=None).timeout is None
        assert await manager.bus.emit("slow", 1) == 1
        assert isinstance(errors[0][1], HookTimeout)
        assert (errors[0][0], timeouts) == ("guest", ["guest"])
        assert manager.get_plugin("guest").error_count == 1


async def test_C5_remove_hook(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)

        class Bound:
            def method(self, value: int) -> int:
                return value + 1

        bound = Bound()
        context.hook("some:hook", bound.method)
        context.hook("some:hook", bound.method)
        other = context.hook("some:hook", lambda value: value + 10)
        assert await manager.bus.emit("some:hook", 0) == 12
        assert context.remove_hook("some:hook", bound.method)
        assert await manager.bus.emit("some:hook", 0) == 10
        assert not context.remove_hook("some:hook", bound.method)
        other.cancel()
        assert await manager.bus.emit("some:hook", 0) == 0
        assert manager.get_stats().hooks == 0


async def test_C5_remove_hook_inside_load_and_from_inside_the_hook(home: Any) -> None:
    seen: list[str] = []

    def load(context: Any) -> None:
        def never() -> None:
            seen.append("never")

        def once() -> None:
            seen.append("once")
            context.remove_hook("go", once)

        context.hook("go", never)
        context.remove_hook("go", never)
        context.hook("go", once)

    async with home.manager() as manager:
        await manager.load_plugin(made("guest", load))
        await manager.bus.emit("go")
        await manager.bus.emit("go")
        assert seen == ["once"]


async def test_C6_add_command(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)

        async def greet(name: str, *, times: int = 1) -> str:
            return " ".join([f"hello {name}"] * times)

        context.add_command("greet", greet, "Greets.")
        context.add_command("plain", lambda: 1)
        assert await manager.run_command("greet", "ada", times=2) == "hello ada hello ada"
        assert await manager.run_command("plain") == 1
        told = {command.name: command.description for command in manager.use("commands").list()}
        assert told == {"greet": "Greets.", "plain": ""}
        with pytest.raises(VekoError, match="Did you mean 'greet'"):
            await manager.run_command("gret")
        with pytest.raises(VekoError, match="greet"):
            await manager.run_command("greet", nobody=1)
        await manager.toggle_plugin("guest", False)
        with pytest.raises(VekoError, match="no command"):
            await manager.run_command("greet", "ada")


async def test_C7_storage(home: Any) -> None:
    async with home.manager() as manager:
        one, two = await held(manager, "one"), await held(manager, "two")
        storage = one.storage
        assert storage.get("missing") is None
        assert storage.get("missing", 3) == 3
        await storage.set("count", 1)
        storage.set("ignored handle", {"a": [1, datetime(2024, 1, 1, tzinfo=UTC)]})
        await storage.update({"x": 1, "y": 2})
        assert sorted(storage.keys()) == ["count", "ignored handle", "x", "y"]
        assert dict(storage.items())["y"] == 2
        await storage.delete("x")
        assert storage.get("x") is None
        assert two.storage.get("count") is None
        with pytest.raises(StorageError, match="provide"):
            storage.set("function", lambda: None)
        await manager.unload_plugin("one")
    async with home.manager() as manager:
        again = await held(manager, "one")
        assert again.storage.get("count") == 1
        assert again.storage.get("ignored handle")["a"][1].year == 2024
        await again.storage.clear()
        assert list(again.storage.keys()) == []


async def test_C8_get_plugin_and_list_plugins(home: Any) -> None:
    home.plugin("dep", "def helper(): return 'helped'\ndef load(): pass", default_config={"a": 1})
    home.plugin("exporting", "exports = {'x': 1}\ndef load(): pass")
    home.plugin(
        "user",
        """
        def load(app, context):
            app.append(context.get_plugin("dep").module.helper())
        """,
        dependencies=["dep"],
    )
    seen: list[str] = []
    async with home.manager(seen) as manager:
        assert seen == ["helped"]
        context = await held(manager)
        plugin = context.get_plugin("dep")
        assert (plugin.name, plugin.version, plugin.config) == ("dep", "1.0.0", {"a": 1})
        assert (plugin.state, plugin.active) == ("active", True)
        assert plugin.exports["helper"]() == "helped"
        assert context.get_plugin("exporting").exports == {"x": 1}
        assert context.get_plugin("nobody") is None
        assert context.get_plugin("storage") is None
        names = ["dep", "exporting", "user", "guest"]
        assert sorted(p.name for p in context.list_plugins()) == sorted(names)
        await manager.unload_plugin("exporting")
        assert context.get_plugin("exporting") is None


async def test_C9_provide_use_and_when(home: Any) -> None:
    async with home.manager() as manager:
        user = await held(manager, "user")
        with pytest.raises(ServiceError, match="clock"):
            user.use("clock")
        waiting = asyncio.create_task(user.when("clock"))
        value = object()
        await manager.load_plugin(made("clocks", lambda context: context.provide("clock", value)))
        assert await waiting is value
        assert user.use("clock") is value
        assert manager.use("clock") is value
        with pytest.raises(VekoError, match=r"clock.*clocks"):
            await manager.load_plugin(
                made("rival", lambda context: context.provide("clock", value))
            )
        with pytest.raises(VekoError, match="user"):
            await manager.unload_plugin("clocks")
        await manager.unload_plugin("user")
        other = await held(manager, "other")
        await manager.unload_plugin("clocks")
        with pytest.raises(ServiceError, match="clock"):
            other.use("clock")


async def test_C9_a_service_of_an_inactive_plugin_says_so(home: Any) -> None:
    async with home.manager() as manager:
        await manager.load_plugin(made("clocks", lambda context: context.provide("clock", 1)))
        context = await held(manager)
        await manager.toggle_plugin("clocks", False)
        with pytest.raises(ServiceError, match=r"clocks.*inactive"):
            context.use("clock")
        await manager.toggle_plugin("clocks", True)
        assert context.use("clock") == 1


async def test_C11_spawn_and_every_end_with_the_plugin(home: Any) -> None:
    beats: asyncio.Queue[str] = asyncio.Queue()
    ended: list[str] = []

    async def works(word: str) -> None:
        beats.put_nowait(word)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(word)

    def load(context: Any) -> None:
        context.spawn(works, "spawned")
        context.every(0.001, lambda: beats.put_nowait("beat"))

    async with home.manager() as manager:
        tasks = asyncio.all_tasks()
        await manager.load_plugin(made("guest", load))
        found = {await beats.get() for _ in range(5)}
        assert found == {"spawned", "beat"}
        await manager.unload_plugin("guest")
        assert ended == ["spawned"]
        assert asyncio.all_tasks() == tasks
        while not beats.empty():
            beats.get_nowait()
        await manager.load_plugin(made("guest", load))
        await beats.get()
        await manager.toggle_plugin("guest", False)
        assert asyncio.all_tasks() == tasks
        assert ended == ["spawned"] * 2
        await manager.toggle_plugin("guest", True)
        found = {await beats.get() for _ in range(5)}
        assert found == {"spawned", "beat"}


async def test_C11_a_task_that_fails_is_reported(home: Any) -> None:
    async with home.manager() as manager:
        failed: asyncio.Queue[tuple[str, BaseException]] = asyncio.Queue()
        manager.on("plugin:error", lambda name, error: failed.put_nowait((name, error)))
        context = await held(manager)

        def breaks() -> None:
            raise ValueError("broke")

        async def exits() -> None:
            raise SystemExit(3)

        context.spawn(breaks)
        assert str((await failed.get())[1]) == "broke"
        context.spawn(exits)
        assert (await failed.get())[0] == "guest"
        handle = context.every(0.001, breaks)
        for _ in range(2):
            assert (await failed.get())[0] == "guest"
        handle.cancel()
        with pytest.raises(VekoError, match="0"):
            context.every(0, breaks)


async def test_C12_config_and_update_config(home: Any) -> None:
    schema = {"type": "object", "properties": {"size": {"type": "integer"}}}
    async with home.manager() as manager:
        changes: list[tuple[Any, str]] = []
        manager.on("config:change", lambda config, plugin: changes.append((config, plugin.name)))
        context = await held(
            manager, config_schema=schema, default_config={"size": 1, "deep": {"a": 1}}
        )
        assert context.config == {"size": 1, "deep": {"a": 1}}
        await context.update_config({"deep": {"b": 2}})
        assert context.config == {"size": 1, "deep": {"a": 1, "b": 2}}
        assert changes == [(context.config, "guest")]
        with pytest.raises(ConfigError, match="size"):
            await context.update_config({"size": "big"})
        assert context.config["size"] == 1
        assert len(changes) == 1
        assert manager.get_plugin("guest").config is context.config


async def test_C12_changes_made_at_once_are_both_kept(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)

        async def slow(config: Any) -> None:
            await asyncio.sleep(0)

        context.hook("config:validate", slow)
        await asyncio.gather(context.update_config({"a": 1}), context.update_config({"b": 2}))
        assert context.config == {"a": 1, "b": 2}


async def test_C13_emit_and_app(home: Any) -> None:
    app = object()
    async with home.manager(app) as manager:
        context = await held(manager)
        assert context.app is app
        seen: list[tuple[object, ...]] = []
        listener = await held(manager, "listener")
        listener.hook("plugin:guest:said", lambda word, more: seen.append((word, more)))
        listener.hook("plugin:guest:sum", lambda value: value + 1)
        observed: list[object] = []
        manager.on("plugin:guest:said", lambda *args: observed.append(args))
        await context.emit("said", "hello", 1)
        assert seen == [("hello", 1)]
        assert observed == [("hello", 1)]
        assert await context.emit("sum", 1) == 2
        assert await context.emit("nobody hears", 1) == 1
        assert await context.emit("nothing") is None


async def test_C14_enter_is_left_when_the_plugin_unloads(home: Any) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def opened(word: str) -> AsyncIterator[str]:
        seen.append(f"open {word}")
        try:
            yield word
        finally:
            seen.append(f"close {word}")

    async def load(context: Any) -> None:
        assert await context.enter(opened("a")) == "a"
        assert await context.enter(opened("b")) == "b"

    async def fails(context: Any) -> None:
        await context.enter(opened("c"))
        raise ValueError("after opening")

    async with home.manager() as manager:
        await manager.load_plugin(made("guest", load))
        await manager.toggle_plugin("guest", False)
        assert seen == ["open a", "open b"]
        await manager.unload_plugin("guest")
        assert seen[2:] == ["close b", "close a"]
        del seen[:]
        with pytest.raises(VekoError, match="after opening"):
            await manager.load_plugin(made("guest", fails))
        assert seen == ["open c", "close c"]


async def test_C_what_load_registers_takes_effect_when_it_returns(home: Any, serve: Any) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def load(context: Any) -> None:
        route = context.add_route("GET", "/all", lambda: "all")
        context.hook("all", lambda value: value + 1)
        context.add_command("all", lambda: "all")
        context.provide("all", "all")
        assert context.use("all") == "all"
        with pytest.raises(TransactionError, match="load"):
            await route
        entered.set()
        await go.wait()

    async with home.manager() as manager, serve(manager) as client:
        loading = asyncio.create_task(manager.load_plugin(made("guest", load)))
        await entered.wait()
        assert (await client.get("/all")).status_code == 404
        assert await manager.bus.emit("all", 1) == 1
        assert manager.get_plugin("guest") is None
        assert manager.get_stats().loading == 1
        go.set()
        await loading
        assert (await client.get("/all")).text == "all"
        assert await manager.bus.emit("all", 1) == 2
        assert await manager.run_command("all") == manager.use("all") == "all"
        assert manager.get_stats().loading == 0


async def test_C_a_context_kept_beyond_unload_says_so(home: Any) -> None:
    async with home.manager() as manager:
        context = await held(manager)
        await manager.unload_plugin("guest")
        for use in (
            lambda: context.hook("app:start", lambda: None),
            lambda: context.add_route("GET", "/x", lambda: None),
            lambda: context.spawn(lambda: None),
        ):
            with pytest.raises(VekoError, match="unloaded"):
                use()
