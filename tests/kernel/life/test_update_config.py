"""Changing a plugin's configuration while something else happens to the plugin."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import ConfigError, Context, Kernel, PluginRecord, StateError, VekoError

pytestmark = pytest.mark.anyio


def plugin(load: Any = lambda: None, version: str = "1", **more: Any) -> dict[str, Any]:
    return {"name": "p", "version": version, "load": load, **more}


@pytest.fixture
def changes(kernel: Kernel) -> list[Any]:
    """Collect what `config:change` carries, and whether the plugin has that configuration."""
    seen: list[Any] = []
    kernel.bus.on(
        "config:change", lambda config, record: seen.append((config, record.config == config))
    )
    return seen


@pytest.mark.parametrize("step", ["load", "activate"])
async def test_a_plugin_changes_its_configuration_while_it_loads(
    kernel: Kernel, changes: list[Any], step: str
) -> None:
    async def work(context: Context) -> None:
        assert await context.update_config({"n": 2}) == context.config
        assert changes == [], "nobody hears of a configuration that is not live"

    steps: dict[str, Any] = {"load": lambda: None, step: work}
    record = await kernel.load(plugin(**steps, default_config={"n": 1, "m": 1}), {"m": 3})
    assert record.config == {"n": 2, "m": 3}
    assert changes == [({"n": 2, "m": 3}, True)]


async def test_two_updates_within_load_both_count(kernel: Kernel) -> None:
    async def slowly(config: Any) -> None:
        await anyio.lowlevel.checkpoint()

    async def load(context: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(context.update_config, {"a": 1})
            group.start_soon(context.update_config, {"b": 2})

    kernel.bus.on("config:validate", slowly)
    assert (await kernel.load(plugin(load))).config == {"a": 1, "b": 2}


async def test_nobody_hears_of_the_configuration_of_a_load_that_fails(
    kernel: Kernel, changes: list[Any]
) -> None:
    async def load(context: Context) -> None:
        await context.update_config({"n": 2})
        raise ValueError("no")

    with pytest.raises(VekoError):
        await kernel.load(plugin(load))
    assert changes == []
    await kernel.load(plugin())
    assert kernel.get("p").config == {}  # type: ignore[union-attr]


async def test_a_refused_change_within_load_keeps_what_there_is(kernel: Kernel) -> None:
    def validate(config: dict[str, Any]) -> None:
        if config.get("n") == 2:
            raise ConfigError("2 is too much", plugin="p", remedy="Give 1.")

    async def load(context: Context) -> None:
        with pytest.raises(ConfigError, match="too much"):
            await context.update_config({"n": 2})

    kernel.bus.on("config:validate", validate)
    assert (await kernel.load(plugin(load), {"n": 1})).config == {"n": 1}


@pytest.mark.parametrize("kind", ["swap", "restart"])
async def test_a_new_version_changes_its_configuration_while_it_loads(
    kernel: Kernel, changes: list[Any], kind: str
) -> None:
    async def load(context: Context) -> None:
        await context.update_config({"n": 2})

    await kernel.load(plugin(), {"n": 1})
    record = await kernel.reload(plugin(load, "2", reload=kind))
    assert record.config == {"n": 2}
    assert changes == [({"n": 2}, True)]


@pytest.mark.parametrize("step", ["activate", "deactivate"])
async def test_a_plugin_changes_its_configuration_while_it_is_switched(
    kernel: Kernel, changes: list[Any], step: str
) -> None:
    calls = 0

    async def work(context: Context) -> None:
        nonlocal calls
        calls += 1
        await context.update_config({"n": calls})

    await kernel.load(plugin(**{step: work}))
    await kernel.toggle("p", False)
    await kernel.toggle("p", True)
    assert kernel.get("p").config == {"n": calls}  # type: ignore[union-attr]
    assert changes[-1] == ({"n": calls}, True)


@pytest.mark.parametrize("verb", ["unload", "toggle", "restart"])
async def test_a_call_may_configure_its_plugin(kernel: Kernel, verb: str) -> None:
    """The plugin is on its way out and waits for the call: the call must not wait for it."""
    began, go = anyio.Event(), anyio.Event()
    held: list[Context] = []

    async def handler() -> None:
        began.set()
        await go.wait()
        await held[0].update_config({"n": 2})

    def load(context: Context) -> None:
        held.append(context)
        context.hook("x", handler, timeout=None)

    await kernel.load(plugin(load), {"n": 1})
    with anyio.fail_after(3):  # the calls would be cut after 5
        async with anyio.create_task_group() as group:
            group.start_soon(kernel.bus.emit, "x")
            await began.wait()
            if verb == "unload":
                group.start_soon(kernel.unload, "p")
            elif verb == "toggle":
                group.start_soon(kernel.toggle, "p", False)
            else:
                group.start_soon(kernel.reload, plugin(version="2", reload="restart"))
            await anyio.wait_all_tasks_blocked()
            go.set()
    record = kernel.get("p")
    assert verb == "unload" or (record is not None and record.config == {"n": 2})


async def test_validation_that_changes_what_it_validates_is_refused(kernel: Kernel) -> None:
    held: list[Context] = []
    raised: list[StateError] = []

    async def validate(config: Any) -> None:
        if held:
            try:
                await held[0].update_config({"m": 1})
            except StateError as error:
                raised.append(error)

    kernel.bus.on("config:validate", validate)
    await kernel.load(plugin(lambda context: held.append(context)))
    with anyio.fail_after(5):
        await held[0].update_config({"n": 1})
        await kernel.reload(plugin(version="2"))
    assert len(raised) == 2
    assert all(error.remedy for error in raised)
    assert kernel.get("p").config == {"n": 1}  # type: ignore[union-attr]


async def test_config_validate_carries_the_record(kernel: Kernel) -> None:
    """During a reload, as it will be: a schema is that of the new version."""
    seen: list[tuple[bool, str, Any]] = []

    def validate(config: Any, record: PluginRecord) -> None:
        seen.append((isinstance(record, PluginRecord), record.version, record.manifest.type))

    kernel.bus.on("config:validate", validate)
    await kernel.load(plugin(type="api"))
    await kernel.update_config("p", {"n": 1})
    await kernel.reload(plugin(version="2", type="auth"))
    assert seen == [(True, "1", "api"), (True, "1", "api"), (True, "2", "auth")]
