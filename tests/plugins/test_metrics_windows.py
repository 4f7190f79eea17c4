"""Latencies between two looks."""

import time

from veko_plugins import PluginManager


def load(context):  # type: ignore[no-untyped-def]
    context.hook("work", lambda seconds: time.sleep(seconds))


PLUGIN = {"name": "worker", "version": "1.0.0", "load": load}


async def test_a_window_measures_the_calls_since_the_last_look_only() -> None:
    async with PluginManager(auto_load=False, watchdog=0, adapter=None) as manager:
        await manager.load_plugin(PLUGIN)
        window = manager.use("metrics").window()
        assert "worker" not in window.take()
        for _ in range(20):
            await manager.bus.emit("work", 0)
        assert window.take()["worker"] < 0.02
        await manager.bus.emit("work", 0.03)
        assert window.take()["worker"] > 0.02  # the twenty before do not count
        assert "worker" not in window.take()


async def test_a_window_begins_again_with_a_plugin_that_was_unloaded_and_loaded() -> None:
    async with PluginManager(auto_load=False, watchdog=0, adapter=None) as manager:
        await manager.load_plugin(PLUGIN)
        for _ in range(5):
            await manager.bus.emit("work", 0)
        window = manager.use("metrics").window()
        await manager.unload_plugin("worker")
        await manager.load_plugin(PLUGIN)
        await manager.bus.emit("work", 0.03)
        assert window.take()["worker"] > 0.02
        await manager.unload_plugin("worker")
        assert "worker" not in window.take()
