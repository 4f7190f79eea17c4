"""Many plugins load one after the other without keeping the event loop to themselves."""

import anyio
import anyio.lowlevel
import pytest
from tests.plugins.manager.conftest import Home

pytestmark = pytest.mark.anyio


async def test_other_tasks_run_while_many_plugins_load(home: Home) -> None:
    for number in range(64):
        home.plugin(f"p{number}")
    async with home.manager(adapter=None, auto_load=False) as manager:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            await anyio.lowlevel.checkpoint()
            report = await manager.load_all_plugins()
            assert len(report.loaded) == 64
            group.cancel_scope.cancel()
        assert turns >= 8


async def test_many_plugins_load_in_order(home: Home) -> None:
    names = [f"p{number:02}" for number in range(30)]
    for name in names:
        home.plugin(name)
    async with home.manager(adapter=None, auto_load=False) as manager:
        report = await manager.load_all_plugins()
        assert report.loaded == names


async def test_one_plugin_makes_many_others_ready(home: Home) -> None:
    home.plugin("base")
    for number in range(30):
        home.plugin(f"p{number:02}", dependencies=["base"])
    async with home.manager(adapter=None, auto_load=False) as manager:
        report = await manager.load_all_plugins()
        assert report.loaded == ["base", *(f"p{number:02}" for number in range(30))]
