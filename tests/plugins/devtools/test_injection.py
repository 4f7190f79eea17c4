"""`inject_code`: code before and after the `load()` of a plugin, undone by the next reload."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from veko import Plugin
from veko.errors import ConfigError, LoadError, NotFoundError, OptionError, StateError, VekoError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio
SOURCE = """
name, version, default_config = "shop", "1.2.0", {"size": 1}
LIMIT = 1
order = []

async def load(app, config, context):
    order.append("load")
    order.append(LIMIT)
    context.hook("ask", lambda: LIMIT)
"""


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    (tmp_path / "shop.py").write_text(SOURCE)
    options: dict[str, Any] = {"storage": "none", "max_retries": 0, "dev_mode": True}
    async with PluginManager("the app", root=tmp_path, **options) as manager:
        await manager.load_plugin(tmp_path / "shop.py")
        yield manager


def order(manager: PluginManager) -> list[Any]:
    record = manager.get_plugin("shop")
    assert record is not None
    found: list[Any] = record.module.order
    return found


async def test_D6_code_runs_before_and_after_load(manager: PluginManager) -> None:
    record = await manager.inject_code("shop", "order.append('before')", "before-load")
    assert record.name == "shop"
    assert order(manager) == ["before", "load", 1]
    await manager.inject_code("shop", "order.append('after')", "after-load")
    assert order(manager) == ["before", "load", 1, "after"]
    await manager.inject_code("shop", "order.append('other')", "before-load")
    assert order(manager) == ["other", "load", 1, "after"]


async def test_D6_it_has_the_arguments_of_load_and_waits(manager: PluginManager) -> None:
    await manager.inject_code(
        "shop",
        "import asyncio\n"
        "await asyncio.sleep(0)\n"
        "order.append((app, config['size'], context.name, plugin.module.LIMIT))\n"
        "if config['size'] == 1:\n"
        "    return\n"
        "order.append('never')\n",
    )
    assert order(manager)[2:] == [("the app", 1, "shop", 1)]


async def test_D6_what_it_registers_and_sets_goes_with_the_next_reload(
    manager: PluginManager,
) -> None:
    await manager.inject_code("shop", "global LIMIT; LIMIT = 5", "before-load")
    await manager.inject_code(
        "shop", "@context.hook('tell')\ndef answer():\n    return context.name, LIMIT\n"
    )
    assert await manager.bus.emit("tell") == ("shop", 5)
    assert await manager.bus.emit("ask") == 5
    await manager.reload_plugin("shop")
    assert await manager.bus.emit("tell") is None
    assert await manager.bus.emit("ask") == 1
    assert order(manager) == ["load", 1]


async def test_D6_it_shows_in_health_stats_and_inspection(manager: PluginManager) -> None:
    assert manager.check_plugin_health("shop").health == "healthy"
    await manager.inject_code("shop", "pass", "before-load")
    health = manager.check_plugin_health("shop")
    assert health.health == "warning"
    assert health.reasons == ("code was injected before-load; the next reload removes it",)
    assert manager.get_stats().injections == 1
    assert manager.debug_plugin("shop").inspect().registered["injection"] == ("before-load",)
    await manager.reload_plugin("shop")
    assert manager.check_plugin_health("shop").health == "healthy"
    assert manager.get_stats().injections == 0


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("x = ", "line 1: invalid syntax"),
        ("if True:\nx", "line 2: expected an indented block"),
        ("pass\nbreak", "line 2: 'break' outside loop"),
        ("yield 1", "a `yield` outside functions"),
        ("a\0b", "null bytes"),
        ("from os import *", "import \\* only allowed"),
        ("(" * 10_000, "line 1: too many nested parentheses"),
    ],
    ids=["syntax", "indentation", "break", "yield", "null", "star", "nested"],
)
async def test_D6_code_that_does_not_compile_changes_nothing(
    manager: PluginManager, code: str, why: str
) -> None:
    with pytest.raises(OptionError, match=why):
        await manager.inject_code("shop", code)
    record = manager.get_plugin("shop")
    assert record is not None
    assert (record.generation, record.error_count) == (1, 0)


async def test_D6_code_that_raises_leaves_the_plugin_as_it_was(manager: PluginManager) -> None:
    await manager.inject_code("shop", "order.append('before')", "before-load")
    with pytest.raises(
        LoadError, match="the code injected after-load raised ZeroDivisionError in line 2"
    ):
        await manager.inject_code("shop", "context.hook('tell', print)\n1 / 0")
    assert order(manager) == ["before", "load", 1]
    assert await manager.bus.emit("ask") == 1
    assert "tell" not in manager.hooks
    with pytest.raises(ConfigError, match="no"):
        await manager.inject_code("shop", "import veko; raise veko.ConfigError('no')")
    await manager.reload_plugin("shop")
    assert order(manager) == ["load", 1]


async def test_D6_it_has_the_time_limit_of_load(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SOURCE)
    options: dict[str, Any] = {"storage": "none", "dev_mode": True, "timeout": 0.1}
    async with PluginManager(root=tmp_path, **options) as manager:
        await manager.load_plugin(tmp_path / "shop.py")
        with pytest.raises(LoadError, match="load"):
            await manager.inject_code("shop", "import asyncio; await asyncio.sleep(3600)")
        assert order(manager) == ["load", 1]


async def test_D6_wrong_arguments(manager: PluginManager) -> None:
    with pytest.raises(OptionError, match=r"no injection point 'before'.*before-load"):
        await manager.inject_code("shop", "pass", "before")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="Loaded: shop"):
        await manager.inject_code("till", "pass")
    with pytest.raises(VekoError, match="the code"):
        await manager.inject_code("shop", 1)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        await manager.inject_code("storage", "pass")


async def test_D6_only_in_dev_mode(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, storage="none") as manager:
        await manager.load_plugin(manager.create_simple_plugin("till", lambda: None))
        with pytest.raises(StateError, match="--dev"):
            await manager.inject_code("till", "pass")


async def test_D6_a_plugin_given_as_an_object(manager: PluginManager) -> None:
    class Till(Plugin):
        name, version = "till", "1.0.0"
        loads = 0

        def load(self) -> None:
            self.loads += 1

    till = Till()
    await manager.load_plugin(till)
    await manager.inject_code("till", "context.provide('by', plugin)")
    assert manager.use("by") is till
    assert "call_life_cycle" not in vars(till)
    await manager.reload_plugin("till")
    assert manager.kernel.registry.get("service", "by") is None
    assert till.loads == 3


async def test_D6_a_plugin_that_restarts_comes_back_without_it(manager: PluginManager) -> None:
    loads = []
    plugin = manager.create_simple_plugin("till", lambda: loads.append(1), reload="restart")
    await manager.load_plugin(plugin)
    with pytest.raises(LoadError, match="raised KeyError"):
        await manager.inject_code("till", "raise KeyError('x')", "before-load")
    record = manager.get_plugin("till")
    assert record is not None
    assert record.active
    assert len(loads) == 2
    assert manager.get_stats().injections == 0


async def test_D6_those_that_need_it_reload_without_it(manager: PluginManager) -> None:
    seen: list[str] = []
    needs = manager.create_simple_plugin(
        "till", lambda context: seen.append(context.name), dependencies=["shop"]
    )
    await manager.load_plugin(needs)
    await manager.inject_code("shop", "order.append(context.name)")
    assert order(manager) == ["load", 1, "shop"]
    assert seen == ["till", "till"]
    assert manager.get_stats().injections == 1


async def test_D6_a_plugin_that_is_off_stays_off(manager: PluginManager) -> None:
    await manager.toggle_plugin("shop", False)
    await manager.inject_code("shop", "order.append('after')")
    assert order(manager) == ["load", 1, "after"]
    record = manager.get_plugin("shop")
    assert record is not None
    assert not record.active


async def test_D6_several_at_once(manager: PluginManager) -> None:
    codes = (f"order.append({number})" for number in range(10))
    await asyncio.gather(*(manager.inject_code("shop", code) for code in codes))
    assert order(manager)[:2] == ["load", 1]
    assert len(order(manager)) == 3
