"""`debug_plugin`: looking into a loaded plugin, and switching it."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from veko import PluginRecord
from veko.errors import NotFoundError, ServiceError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio
SOURCE = """
name, version, default_config = "shop", "1.2.0", {"size": 1}

def price(value): return value + 1
def load(context):
    context.hook("price", price)
    context.hook("price", print, priority=50)
    context.hook("sale:*", price)
    context.provide("prices", price)
    context.add_command("prune", price)
    context.add_route("GET", "/prices", lambda: "1")
"""
LEAKING = SOURCE + "    import colorsys; colorsys.kept_for_good = [price]\n"


class Settings(msgspec.Struct):
    key: Annotated[str, msgspec.Meta(extra={"secret": True})] = "of the schema"
    api_token: str = "by its name"
    url: str = "redis://joe:hidden@host/0"
    size: int = 3


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    (tmp_path / "shop.py").write_text(SOURCE)
    options: dict[str, Any] = {"storage": "none", "max_retries": 0}
    async with PluginManager(root=tmp_path, **options) as manager:
        await manager.load_plugin(tmp_path / "shop.py")
        yield manager


async def test_D4_inspect(manager: PluginManager) -> None:
    await manager.load_plugin(
        manager.create_simple_plugin("till", lambda context: context.use("prices"))
    )
    found = manager.debug_plugin("shop").inspect()
    assert found.info == next(one for one in manager.list_plugins() if one.name == "shop")
    assert (found.generation, found.retiring, found.last_error) == (1, 0, None)
    assert found.registered == {
        "hook": ("price", "price"),
        "pattern": ("sale:*",),
        "service": ("prices",),
        "command": ("prune",),
        "route": ("GET /prices",),
    }
    assert found.needed_by == ("till",)
    assert manager.debug_plugin("till").inspect().uses == {"prices": "shop"}
    assert msgspec.json.encode(found)


async def test_D4_config_without_secrets(manager: PluginManager) -> None:
    plugin = manager.create_simple_plugin("vault", lambda: None, config_schema=Settings)
    await manager.load_plugin(plugin)
    config = manager.debug_plugin("vault").config()
    assert config["size"] == 3
    for secret in ("of the schema", "by its name", "hidden"):
        assert secret not in str(config)


async def test_D4_an_error_is_shown_without_secrets(manager: PluginManager) -> None:
    def fail() -> None:
        raise OSError("no answer from redis://joe:hidden@host/0")

    plugin = manager.create_simple_plugin("poor", lambda context: context.hook("ask", fail))
    await manager.load_plugin(plugin)
    await manager.bus.emit("ask")
    found = manager.debug_plugin("poor").inspect()
    assert found.info.error_count == 1
    assert found.last_error is not None
    assert "no answer" in found.last_error
    assert "hidden" not in found.last_error


async def test_D4_metrics(manager: PluginManager, tmp_path: Path) -> None:
    await manager.bus.emit("sale:all", 1)
    assert manager.debug_plugin("shop").metrics().calls == 1
    async with PluginManager(root=tmp_path / "x", enable_metrics=False, storage="none") as other:
        await other.load_plugin(other.create_simple_plugin("bare", lambda: None))
        with pytest.raises(ServiceError, match="nothing is measured"):
            other.debug_plugin("bare").metrics()


async def test_D4_hooks_in_the_order_of_their_calls(manager: PluginManager) -> None:
    hooks = manager.debug_plugin("shop").hooks()
    assert list(hooks) == ["price", "sale:*"]
    assert [one.priority for one in hooks["price"]] == [50, 10]
    assert hooks["price"] == manager.hooks["price"]


async def test_D4_reload_and_toggle(manager: PluginManager) -> None:
    debug = manager.debug_plugin("shop")
    assert (await debug.reload({"size": 2})).config == {"size": 2}
    assert debug.inspect().generation == 2
    assert await debug.toggle() is False
    assert debug.inspect().info.active is False
    assert await debug.toggle(True) is True


async def test_D4_leaks_are_named_after_the_unload_too(
    manager: PluginManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colorsys.kept_for_good", None, raising=False)
    debug = manager.debug_plugin("shop")
    await debug.reload()
    assert await debug.leaks() == []
    (tmp_path / "shop.py").write_text(LEAKING)
    await debug.reload()
    await manager.unload_plugin("shop")
    leaks = await debug.leaks()
    assert {leak.plugin for leak in leaks} == {"shop"}
    assert any("kept_for_good" in str(leak) for leak in leaks)
    with pytest.raises(NotFoundError, match="any more"):
        debug.inspect()


async def test_H_dev_debug_when_a_breakpoint_is_reached(manager: PluginManager) -> None:
    seen: list[tuple[str, str]] = []

    def heard(plugin: PluginRecord, message: str) -> None:
        seen.append((plugin.name, message))

    manager.on("dev:debug", heard)
    await manager.debug_plugin("shop").breakpoint("before the sale")
    assert seen == [("shop", "before the sale")]


@pytest.mark.parametrize("dev_mode", [True, False])
async def test_D4_a_breakpoint_stops_in_the_debugger_in_dev_mode_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dev_mode: bool
) -> None:
    stops: list[str] = []
    async with PluginManager(root=tmp_path, dev_mode=dev_mode, storage="none") as manager:
        await manager.load_plugin(manager.create_simple_plugin("shop", lambda: None))
        manager.on("dev:debug", lambda plugin, message: stops.append(message))
        monkeypatch.setattr(sys, "breakpointhook", lambda: stops.append("stopped"))
        await manager.debug_plugin("shop").breakpoint("here")
    assert stops == (["here", "stopped"] if dev_mode else ["here"])


async def test_D4_a_plugin_that_is_not_loaded(manager: PluginManager, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no plugin named 'shoop' is loaded"):
        manager.debug_plugin("shoop")
    with pytest.raises(NotFoundError, match="the manager is created"):
        PluginManager(root=tmp_path, storage="none").debug_plugin("shop")
