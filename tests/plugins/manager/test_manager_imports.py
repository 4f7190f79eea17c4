"""Each generation is a module of its own, also if it is reloaded before `load_plugin` returns."""

import asyncio
from pathlib import Path

import anyio
import pytest

from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "plugins" / "shop.py"
    file.parent.mkdir()
    file.write_text("name, version = 'shop', '1.0.0'\ndef load(context): ...\n")
    return file


def change(plugin: Path) -> None:
    plugin.write_text(plugin.read_text().replace("1.0.0", "1.0.1"))


async def test_a_reload_while_load_has_not_returned_imports_the_source(plugin: Path) -> None:
    async with PluginManager(root=plugin.parents[1], auto_load=False, adapter=None) as manager:
        live, go_on = anyio.Event(), anyio.Event()

        async def loaded(name: str, record: object) -> None:
            live.set()
            await go_on.wait()

        subscription = manager.bus.on("plugin:loaded", loaded)
        async with anyio.create_task_group() as group:
            group.start_soon(manager.load_plugin, plugin)
            await live.wait()
            subscription.cancel()
            record = manager.get_plugin("shop")
            assert record is not None
            first = record.module
            change(plugin)
            await manager.reload_plugin("shop")
            assert record.version == "1.0.1"
            assert record.module is not first
            go_on.set()
        second = record.module
        await manager.reload_plugin("shop")
        assert record.module is not second


async def test_a_load_that_is_cancelled_when_it_is_live_can_be_reloaded(plugin: Path) -> None:
    async with PluginManager(root=plugin.parents[1], auto_load=False, adapter=None) as manager:
        live = anyio.Event()

        async def loaded(name: str, record: object) -> None:
            live.set()
            await anyio.sleep_forever()

        subscription = manager.bus.on("plugin:loaded", loaded)
        task = asyncio.create_task(manager.load_plugin(plugin))
        await live.wait()
        subscription.cancel()
        task.cancel()
        await asyncio.wait([task])
        record = manager.get_plugin("shop")
        assert record is not None
        first = record.module
        change(plugin)
        await manager.reload_plugin("shop")
        assert record.version == "1.0.1"
        assert record.module is not first
