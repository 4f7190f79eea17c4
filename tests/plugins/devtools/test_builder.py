"""The builder: each step is checked, and `build` reports everything at once."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import veko_plugins
from veko import Event, ManifestError, RouteError, VekoError
from veko_plugins import PluginBuilder, PluginManager, create_plugin_builder


async def talk(socket: Any) -> None:
    async for message in socket:
        await socket.send(message)


async def stamp(request: Any, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-stamp"] = "yes"
    return response


async def test_D2_each_method_of_the_builder(tmp_path: Path) -> None:
    seen: list[object] = []
    built = (
        create_plugin_builder()
        .name("built")
        .version("2.0.0")
        .description("Built.")
        .author("Somebody")
        .depends(["base"])
        .depends("other>=1,<2", "third")
        .config({"size": 3})
        .config_schema({"type": "object", "properties": {"size": {"type": "integer"}}})
        .manifest(priority=20, license="MIT")
        .required()
        .route("get", "/built/{number:int}", stamp, lambda number: {"number": number})
        .websocket("/talk", talk)
        .middleware(stamp, 5)
        .hook("app:start", lambda: seen.append("start"))
        .hook(Event("counted", payload=int, returns=True), lambda value: value + 1, 20)
        .command("built:test", lambda: "ran", "A test.")
        .every(3600, lambda: None)
        .provide("built", 7)
        .load(lambda config, context: seen.append((context.name, config)))
        .activate(lambda: seen.append("on"))
        .deactivate(lambda: seen.append("off"))
        .unload(lambda: seen.append("gone"))
        .build()
    )
    manifest = built.manifest
    assert (manifest.name, manifest.version, manifest.priority) == ("built", "2.0.0", 20)
    assert (manifest.description, manifest.author, manifest.license) == (
        "Built.", "Somebody", "MIT",
    )  # fmt: skip
    assert manifest.dependencies == ("base", "other>=1,<2", "third")
    assert manifest.required
    async with PluginManager(root=tmp_path, adapter="asgi", max_retries=0) as manager:
        for name in ("base", "other", "third"):
            await manager.load_plugin(create_plugin_builder().name(name).build())
        await manager.load_plugin(built)
        assert seen == [("built", {"size": 3}), "on"]
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/built/5")
            assert (answer.json(), answer.headers["x-stamp"]) == ({"number": 5}, "yes")
        assert await manager.bus.emit("counted", 1) == 2
        assert await manager.run_command("built:test") == "ran"
        assert manager.use("built") == 7
        await manager.unload_plugin("built")
        assert seen[2:] == ["off", "gone"]


WRONG: dict[str, tuple[Callable[[PluginBuilder], object], type[VekoError], str]] = {
    "name: capitals": (lambda b: b.name("My Shop"), ManifestError, "Did you mean 'my-shop'"),
    "name: path": (lambda b: b.name("../etc/passwd"), ManifestError, "'etc-passwd'"),
    "name: accents": (lambda b: b.name("Café Ünïcode"), ManifestError, "'cafe-unicode'"),
    "name: nothing": (lambda b: b.name("***"), ManifestError, "does not match"),
    "name: type": (lambda b: b.name(5), ManifestError, "name"),  # type: ignore[arg-type]
    "name: long": (lambda b: b.name("a" * 200), ManifestError, "128 characters"),
    "version": (lambda b: b.version("one"), ManifestError, "PEP 440"),
    "depends": (lambda b: b.depends("db>=>1"), ManifestError, r"dependencies\[0\]"),
    "depends: type": (lambda b: b.depends(5), ManifestError, "dependencies"),  # type: ignore[arg-type]
    "config": (lambda b: b.config([1]), ManifestError, "default_config"),  # type: ignore[arg-type]
    "schema": (lambda b: b.config_schema({"type": "strin"}), ManifestError, "config_schema"),
    "manifest": (lambda b: b.manifest(verzion="1"), ManifestError, "Did you mean 'version'"),
    "manifest: several": (
        lambda b: b.manifest(version="x", type="y"), ManifestError, "version.*type",
    ),
    "manifest: None": (lambda b: b.manifest(version=None), ManifestError, "version is None"),
    "method": (lambda b: b.route("GTE", "/", print), RouteError, "Did you mean 'GET'"),
    "path": (lambda b: b.route("GET", "x", print), RouteError, "does not start with '/'"),
    "path: converter": (lambda b: b.route("GET", "/{a:in}", print), RouteError, "converter"),
    "no handler": (lambda b: b.route("GET", "/x"), RouteError, "has no handler"),
    "handler": (lambda b: b.route("GET", "/x", 5), VekoError, "must be a function"),  # type: ignore[arg-type]
    "websocket": (lambda b: b.websocket("x", talk), RouteError, "does not start with '/'"),
    "middleware": (lambda b: b.middleware(5), VekoError, "a middleware must"),  # type: ignore[arg-type]
    "priority": (lambda b: b.middleware(stamp, "high"), VekoError, "a number"),  # type: ignore[arg-type]
    "priority: nan": (lambda b: b.hook("x", print, float("nan")), VekoError, "a number"),
    "event": (lambda b: b.hook(5, print), VekoError, "the name of an event"),  # type: ignore[call-overload]
    "hook": (lambda b: b.hook("x", 5), VekoError, "the handler of x"),  # type: ignore[call-overload]
    "command": (lambda b: b.command("x", 5), VekoError, "the command x"),  # type: ignore[arg-type]
    "every": (lambda b: b.every(0, print), VekoError, "seconds"),
    "provide": (lambda b: b.provide(5, 5), VekoError, "the name of a service"),  # type: ignore[arg-type]
    "load": (lambda b: b.load(5), VekoError, "must be a function"),  # type: ignore[arg-type]
    "load: parameters": (lambda b: b.load(lambda kontext: 0), ManifestError, "'kontext'"),
    "unload": (lambda b: b.unload(lambda kontext: 0), ManifestError, r"unload\(\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_step_refuses_what_is_wrong_and_changes_nothing(case: str) -> None:
    call, error, message = WRONG[case]
    builder = create_plugin_builder().name("shop")
    with pytest.raises(error, match=message):
        call(builder)
    built = builder.build()
    assert (built.manifest.name, built.manifest.version) == ("shop", "1.0.0")
    assert built.manifest.dependencies == ()


def test_build_reports_everything_at_once() -> None:
    builder = (
        create_plugin_builder()
        .route("GET", "/x", print)
        .route("get", "/x", print)
        .command("a", print)
        .command("a", print)
        .provide("s", 1)
        .provide("s", 2)
    )
    with pytest.raises(ManifestError) as caught:
        builder.build()
    assert [str(fault) for fault in caught.value.faults] == [
        "name is missing: call .name(…)",
        "the route GET /x is added 2 times",
        "the command a is added 2 times",
        "the service s is added 2 times",
    ]
    with pytest.raises(ManifestError, match="cannot depend on itself"):
        create_plugin_builder().name("shop").depends("shop>=1").build()


def test_what_was_built_stays_as_it_is() -> None:
    builder = create_plugin_builder().name("shop").depends("a").config({"b": {"c": 1}})
    first = builder.build()
    builder.name("other").depends("x")
    assert (first.manifest.name, first.manifest.dependencies) == ("shop", ("a",))
    assert builder.build().manifest.dependencies == ("a", "x")


def test_the_manager_has_the_functions_too() -> None:
    for name in ("create_dev_plugin", "create_plugin_builder", "create_simple_plugin"):
        assert getattr(PluginManager, name) is getattr(veko_plugins, name)
    assert str(inspect.signature(PluginManager.create_simple_plugin)).startswith("(name: ")
