"""What type checkers refuse of the manager. Checked by tests/test_typing.py, never run."""

from veko_plugins import PluginManager
from veko_plugins.manager import ManagerOptions


def made_with_options() -> None:
    PluginManager(adapterr="asgi")  # refused
    PluginManager(max_retries="x")  # refused
    PluginManager(adapter=3)  # refused
    PluginManager(plugins_dir=3)  # refused
    PluginManager(dev_mode="yes")  # refused
    PluginManager(core={"storage": 3})  # refused
    PluginManager(plugins={"shop": 3})  # refused
    PluginManager(directory="app")  # refused
    PluginManager(origins={})  # refused
    PluginManager(None, "app")  # refused
    options: ManagerOptions = {"watch_ignore": 1}  # refused
    PluginManager(**options)


async def called(manager: PluginManager) -> None:
    await manager.load_plugin(3)  # refused
    await manager.reload_plugin("shop", ["size"])  # refused
    await manager.unload_plugin("shop", True)  # refused
    await manager.toggle_plugin("shop", "on")  # refused
    manager.unwatch(["*.log"])  # refused
    manager.use(3)  # refused
