"""Arguments of wrong types are refused where they are given, with what to give instead."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from veko import Kernel, VekoError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio


def nothing() -> None: ...


OF_THE_KERNEL: dict[str, Callable[[Kernel], Any]] = {
    "timeout": lambda k: Kernel(timeout="x"),
    "drain_timeout": lambda k: Kernel(drain_timeout=None),
    "hook_timeout": lambda k: Kernel(hook_timeout="x"),
    "on: priority": lambda k: k.bus.on("x", nothing, priority="x"),
    "on: event": lambda k: k.bus.on(5, nothing),
    "on: handler": lambda k: k.bus.on("x", 5),
    "on: timeout": lambda k: k.bus.on("x", nothing, timeout="x"),
    "emit": lambda k: k.bus.emit(5),
    "emitter": lambda k: k.bus.emitter(5),
    "heard": lambda k: k.bus.heard(5),
    "first": lambda k: k.bus.first(5),
    "gather": lambda k: k.bus.gather(None),
    "declare": lambda k: k.bus.declare("x"),
    "load": lambda k: k.load(5),
    "unload": lambda k: k.unload([]),
    "toggle": lambda k: k.toggle(5),
    "toggle: active": lambda k: k.toggle("p", "off"),
    "reload": lambda k: k.reload(5),
    "update_config": lambda k: k.update_config([], {}),
    "update_config: changes": lambda k: k.update_config("p", 5),
    "use": lambda k: k.use(5),
    "when": lambda k: k.when([]),
    "post": lambda k: k.post(5),
}
OF_THE_CONTEXT: dict[str, Callable[[Any], Any]] = {
    "hook: priority": lambda c: c.hook("x", nothing, priority="x"),
    "hook: priority, decorator": lambda c: c.hook("x", priority="x")(nothing),
    "hook: event": lambda c: c.hook(5, nothing),
    "hook: event, decorator": lambda c: c.hook(None),
    "hook: handler": lambda c: c.hook("x", "y"),
    "hook: timeout": lambda c: c.hook("x", nothing, timeout="x"),
    "remove_hook": lambda c: c.remove_hook(5, nothing),
    "provide": lambda c: c.provide(5, 1),
    "attach": lambda c: c.attach([], nothing),
    "attach: factory": lambda c: c.attach("x", 5),
    "spawn": lambda c: c.spawn(5),
    "every": lambda c: c.every("x", nothing),
    "every: nothing": lambda c: c.every(None, nothing),
    "every: function": lambda c: c.every(1, 5),
    "enter": lambda c: c.enter(5),
    "use": lambda c: c.use([]),
    "when": lambda c: c.when(5),
    "get_plugin": lambda c: c.get_plugin([]),
    "update_config": lambda c: c.update_config(5),
    "log": lambda c: c.log([], "x"),
    "register: key": lambda c: c.register("thing", [], 1),
    "intercept": lambda c: c.intercept(5),
    "intercept_step": lambda c: c.intercept_step(5),
    "probe": lambda c: c.probe(5),
    "declare": lambda c: c.declare(5),
    "add_kind": lambda c: c.add_kind(5),
    "add_command": lambda c: c.add_command(5, nothing),
    "add_command: function": lambda c: c.add_command("x", 5),
    "add_route": lambda c: c.add_route("GET", "/x", 5),
    "add_middleware: priority": lambda c: c.add_middleware(nothing, priority="x"),
}
OF_THE_MANAGER: dict[str, Callable[[PluginManager], Any]] = {
    "load_plugin": lambda m: m.load_plugin(None),
    "load_plugin: config": lambda m: m.load_plugin({"name": "q", "version": "1"}, 5),
    "unload_plugin": lambda m: m.unload_plugin([]),
    "reload_plugin": lambda m: m.reload_plugin(None),
    "reload_plugin: config": lambda m: m.reload_plugin("p", 5),
    "toggle_plugin": lambda m: m.toggle_plugin([]),
    "toggle_plugin: active": lambda m: m.toggle_plugin("p", "off"),
    "validate_plugin": lambda m: m.validate_plugin(None),
    "validate_plugin: list": lambda m: m.validate_plugin([]),
    "get_plugin": lambda m: m.get_plugin([]),
    "check_plugin_health": lambda m: m.check_plugin_health(None),
    "profile_plugin": lambda m: m.profile_plugin([]),
    "profile_plugin: duration": lambda m: m.profile_plugin("p", "x"),
    "profile_plugin: path": lambda m: m.profile_plugin("p", 0.01, path=5),
    "error_count": lambda m: m.error_count([]),
    "backup_plugins": lambda m: m.backup_plugins(5),
    "restore_plugins": lambda m: m.restore_plugins(None),
    "on": lambda m: m.on(5, nothing),
    "on: function": lambda m: m.on("x", 5),
    "use": lambda m: m.use(5),
    "run_command": lambda m: m.run_command([]),
    "create_simple_plugin": lambda m: m.create_simple_plugin(5, nothing),
    "create_simple_plugin: load": lambda m: m.create_simple_plugin("x", 5),
}
CALLS: dict[str, Callable[[PluginManager, Any], Any]] = {
    **{f"kernel.{n}": lambda m, c, f=f: f(m.kernel) for n, f in OF_THE_KERNEL.items()},
    **{f"context.{n}": lambda m, c, f=f: f(c) for n, f in OF_THE_CONTEXT.items()},
    **{f"manager.{n}": lambda m, c, f=f: f(m) for n, f in OF_THE_MANAGER.items()},
}


async def test_a_wrong_type_is_refused_with_a_remedy(home: Any) -> None:
    contexts: list[Any] = []
    wrong: dict[str, object] = {}
    async with home.manager(adapter="asgi", auto_load=False) as manager:
        await manager.load_plugin(
            {"name": "p", "version": "1", "load": lambda context: contexts.append(context)}
        )
        for name, call in CALLS.items():
            try:
                answer = call(manager, contexts[0])
                if inspect.iscoroutine(answer):
                    answer = await answer
                wrong[name] = answer
            except VekoError as error:
                if not error.remedy and not getattr(error, "faults", ()):
                    wrong[name] = error
            except Exception as error:
                wrong[name] = error
        assert manager.get_plugin("p").active
    assert wrong == {}
