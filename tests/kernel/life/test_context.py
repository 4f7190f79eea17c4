"""The context: hooks, services, attachments, own events, configuration and the log."""

import logging
from datetime import UTC
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import (
    ConfigError,
    Context,
    DependencyError,
    Event,
    Kernel,
    LogRecord,
    RefusedError,
    ServiceError,
    VekoError,
)

pytestmark = pytest.mark.anyio


def plugin(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


async def held(kernel: Kernel, name: str = "p", **more: Any) -> Any:
    """Load a plugin and return its context."""
    contexts: list[Any] = []
    await kernel.load(plugin(name, lambda context: contexts.append(context), **more))
    return contexts[0]


async def test_what_a_context_is(kernel: Kernel) -> None:
    context = await held(kernel, default_config={"a": 1})
    assert isinstance(context, Context)
    assert (context.name, context.app, context.kernel) == ("p", "host", kernel)
    assert context.config == {"a": 1}
    assert context.plugin is kernel.get("p")
    assert "p" in repr(context)


async def test_hook_as_a_decorator(kernel: Kernel) -> None:
    context = await held(kernel)

    @context.hook("x", priority=5)
    def later(value: int) -> int:
        return value * 10

    @context.hook("x")
    async def first(value: int) -> int:
        return value + 1

    assert await kernel.bus.emit("x", 1) == 20
    assert later(3) == 30


async def test_remove_hook(kernel: Kernel) -> None:
    context = await held(kernel)

    def handler(value: int) -> int:
        return value + 1

    context.hook("x", handler)
    context.hook("x", handler)
    context.hook("y", handler)
    assert context.remove_hook("x", handler) is True
    assert context.remove_hook("x", handler) is False
    assert not kernel.bus.heard("x")
    assert kernel.bus.heard("y")
    other = await held(kernel, "other")
    assert other.remove_hook("y", handler) is False
    assert kernel.bus.heard("y")


async def test_hook_takes_a_declared_event(kernel: Kernel) -> None:
    context = await held(kernel)
    event = Event("greeting", payload=str, returns=True, doc="An example.")
    context.declare(event)

    def louder(text: str) -> str:
        return text.upper()

    assert context.hook(event, louder).event == "greeting"
    assert await kernel.bus.emit(event, "hello") == "HELLO"
    assert context.remove_hook(event, louder)
    assert await kernel.bus.emit(event, "hello") == "hello"
    context.hook(event)(louder)
    assert await kernel.bus.emit("greeting", "hello") == "HELLO"


async def test_own_events(kernel: Kernel) -> None:
    context = await held(kernel)
    kernel.bus.on("plugin:p:done", lambda value, more: (value, more))
    kernel.bus.on("plugin:*:done", lambda value: (*value, "pattern"), priority=0)
    assert await context.emit("done", 1, 2) == (1, 2, "pattern")
    assert await context.emit("unheard", 1) == 1


async def test_services(kernel: Kernel) -> None:
    context = await held(kernel)
    with pytest.raises(ServiceError, match="no service 'db'"):
        context.use("db")
    arrived: list[Any] = []

    async def wait() -> None:
        arrived.append(await context.when("db"))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        provider = await held(kernel, "db-plugin")
        provider.provide("other", 0)
        await anyio.wait_all_tasks_blocked()
        assert arrived == []
        provider.provide("db", "the database")
    assert arrived == ["the database"]
    assert await context.when("db") == context.use("db") == "the database"
    with pytest.raises(ServiceError, match="other"):
        context.use("nothing")


class Store:
    pass


class Files(Store):
    pass


async def test_services_are_found_by_type(kernel: Kernel) -> None:
    giver, user = await held(kernel, "giver"), await held(kernel, "user")
    with pytest.raises(ServiceError, match=r"no service is of type Store .*There is: none"):
        user.use(Store)
    files = Files()
    await giver.provide("files", files)
    assert user.use(Store) is user.use(Files) is kernel.use(Store) is files
    with pytest.raises(DependencyError, match="user need it"):
        await kernel.unload("giver")
    store = Store()
    await giver.provide("plain", store)
    with pytest.raises(ServiceError, match=r"several services are of type Store: files, plain"):
        user.use(Store)
    with pytest.raises(ServiceError, match="several"):
        await user.when(Store)
    assert user.use(Files) is files
    await kernel.toggle("giver", active=False, cascade=True)
    with pytest.raises(ServiceError, match="'files' belongs to giver, which is inactive"):
        kernel.use(Files)


async def test_a_service_is_waited_for_by_type(kernel: Kernel) -> None:
    giver, user = await held(kernel, "giver"), await held(kernel, "user")
    found: list[Store] = []

    async def wait() -> None:
        found.append(await user.when(Store))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        store = Store()
        await giver.provide("store", store)
    assert found == [store]
    with pytest.raises(DependencyError, match="user need it"):
        await kernel.unload("giver")


async def test_inside_load_a_plugin_finds_what_it_stages_by_type(kernel: Kernel) -> None:
    store, found = Store(), []

    def load(context: Context) -> None:
        context.provide("store", store)
        found.append(context.use(Store))

    await kernel.load({"name": "p", "version": "1.0.0", "load": load})
    assert found == [store]


async def test_attachments_are_made_once_a_context_at_first_use(kernel: Kernel) -> None:
    made: list[str] = []

    def factory(context: Any) -> dict[str, str]:
        made.append(context.name)
        return {"of": context.name}

    one = await held(kernel, "one")
    with pytest.raises(AttributeError, match="no attribute 'store'"):
        _ = one.store
    giver = await held(kernel, "giver")
    await giver.attach("store", factory)
    assert made == []
    assert one.store is one.store
    assert giver.store == {"of": "giver"}
    assert made == ["one", "giver"]
    kernel.bus.on("x", print)
    assert one.store == {"of": "one"}
    assert made == ["one", "giver"]
    await kernel.unload("giver")
    with pytest.raises(AttributeError):
        _ = one.store
    again = await held(kernel, "giver")
    await again.attach("store", lambda context: "new")
    assert one.store == "new"


async def test_attached_is_the_attribute_of_that_name(kernel: Kernel) -> None:
    one, giver = await held(kernel, "one"), await held(kernel, "giver")
    await giver.attach("store", lambda context: {"of": context.name})
    assert one.attached("store") is one.store
    for name in ("missing", "log", "_private"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'.*`dependencies`"):
            one.attached(name)


async def test_an_attachment_in_a_pin_is_the_pinned_ones(kernel: Kernel) -> None:
    def giving(value: str) -> Any:
        return plugin("giver", lambda context: context.attach("store", lambda context: value))

    user = await held(kernel)
    await kernel.load(giving("old"))
    pinned, swapped = anyio.Event(), anyio.Event()
    seen: list[str] = []

    async def request() -> None:
        with kernel.pin():
            pinned.set()
            await swapped.wait()
            seen.append(user.store)
        seen.append(user.store)

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await pinned.wait()
        group.start_soon(kernel.reload, giving("new"))
        await anyio.wait_all_tasks_blocked()
        swapped.set()
    assert seen == ["old", "new"]


@pytest.mark.parametrize("name", ["hook", "name", "kernel", "app", "config", "_private"])
async def test_the_kernels_own_names_cannot_be_attached(kernel: Kernel, name: str) -> None:
    context = await held(kernel)
    with pytest.raises(VekoError, match="own"):
        context.attach(name, lambda context: 1)


async def test_context_create_fires_for_every_context(kernel: Kernel) -> None:
    seen: list[str] = []
    kernel.bus.on("context:create", lambda context: seen.append(context.name))
    await held(kernel)
    await kernel.reload(plugin("p"))
    assert seen == ["p", "p"]


async def test_looking_at_other_plugins(kernel: Kernel) -> None:
    context = await held(kernel)
    other = await kernel.load(plugin("other"))
    with pytest.raises(VekoError):
        await kernel.load(plugin("broken", lambda: 1 / 0))
    assert context.get_plugin("other") is other
    assert context.get_plugin("broken") is None
    assert context.get_plugin("nobody") is None
    assert [record.name for record in context.list_plugins()] == ["p", "other"]


# -- configuration


async def test_config_is_merged_deep_and_shared_with_nobody(kernel: Kernel) -> None:
    default = {"a": {"x": 1, "y": [1]}, "b": 2}
    record = await kernel.load(plugin("p", default_config=default), {"a": {"x": 9}, "c": 3})
    assert record.config == {"a": {"x": 9, "y": [1]}, "b": 2, "c": 3}
    record.config["a"]["y"].append(2)
    assert default == {"a": {"x": 1, "y": [1]}, "b": 2}


async def test_update_config_validates_then_fires(kernel: Kernel) -> None:
    seen: list[Any] = []

    def validate(config: dict[str, Any]) -> dict[str, Any]:
        if config.get("n", 0) < 0:
            raise ConfigError("n is negative", plugin="p", remedy="Give one above.")
        return {**config, "checked": True}

    kernel.bus.on("config:validate", validate)
    kernel.bus.on("config:change", lambda config, plugin: seen.append((config, plugin.name)))
    context = await held(kernel, default_config={"n": 1, "deep": {"x": 1}})
    assert context.config == {"n": 1, "deep": {"x": 1}, "checked": True}
    assert seen == []
    new = await context.update_config({"n": 2, "deep": {"y": 2}})
    assert context.config == new == {"n": 2, "deep": {"x": 1, "y": 2}, "checked": True}
    assert seen == [(new, "p")]
    with pytest.raises(ConfigError, match="negative"):
        await context.update_config({"n": -1})
    assert context.config == new
    assert len(seen) == 1
    with pytest.raises(ConfigError):
        await kernel.load(plugin("q", default_config={"n": -5}))


async def test_two_updates_at_once_both_count(kernel: Kernel) -> None:
    async def slowly(config: Any) -> None:
        await anyio.lowlevel.checkpoint()

    kernel.bus.on("config:validate", slowly)
    context = await held(kernel)
    async with anyio.create_task_group() as group:
        group.start_soon(context.update_config, {"a": 1})
        group.start_soon(context.update_config, {"b": 2})
    assert context.config == {"a": 1, "b": 2}


# -- the log


async def test_the_log_is_a_logger_and_an_event(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "veko.plugin.p")
    records: list[LogRecord] = []
    all_told = anyio.Event()

    def hear(record: LogRecord) -> None:
        records.append(record)
        if len(records) == 5:
            all_told.set()

    kernel.bus.on("log", hear)
    context = await held(kernel)
    for level in ("debug", "info", "success", "warning", "error"):
        context.log(level, f"a {level}", {"more": 1}, request=7)
    with anyio.fail_after(2):
        await all_told.wait()
    assert [record.type for record in records] == ["debug", "info", "success", "warning", "error"]
    first = records[0]
    assert (first.message, first.details, first.plugin) == ("a debug", {"more": 1}, "p")
    assert first.fields == {"request": 7}
    assert first.timestamp.tzinfo is UTC
    logged = [record for record in caplog.records if record.name == "veko.plugin.p"]
    assert [record.levelname for record in logged] == [
        "DEBUG",
        "INFO",
        "SUCCESS",
        "WARNING",
        "ERROR",
    ]
    assert all(record.plugin == "p" for record in logged)  # type: ignore[attr-defined]
    with pytest.raises(VekoError, match="'loud' is not a log level"):
        context.log("loud", "no")


async def test_a_hook_on_log_that_fails_or_logs_does_not_recurse(kernel: Kernel) -> None:
    context = await held(kernel)
    count = 0
    reported = anyio.Event()

    def broken(record: LogRecord) -> None:
        nonlocal count
        count += 1
        reported.set()
        raise ValueError("cannot log")

    kernel.bus.on("log", broken)
    context.log("info", "one")
    with anyio.fail_after(2):
        await reported.wait()
    await anyio.wait_all_tasks_blocked()
    assert count == 1


# -- options


async def test_hooks_of_plugins_can_be_left_out() -> None:
    class Core:
        name, version, core = "core", "1", True

    async with Kernel(enable_hooks=False) as kernel:
        await kernel.load(plugin("p", lambda context: context.hook("x", lambda value: value + 1)))
        assert await kernel.bus.emit("x", 0) == 0
        kernel.bus.on("x", lambda value: value + 10)
        assert await kernel.bus.emit("x", 0) == 10


async def test_refusals_carry_their_cause(kernel: Kernel) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(name)

    kernel.bus.on("plugin:load", refuse)
    with pytest.raises(RefusedError, match="PermissionError"):
        await kernel.load(plugin("p"))
