"""A plugin whose file says another name is reloaded to that name, or stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from veko import LoadError
from veko.errors import ConflictError, DependencyError
from veko_plugins import PluginManager

BODY = """
name = {name!r}
version = "1.0.0"

def load(context):
    context.hook("ask", lambda: {name!r})
    context.add_command("greet", lambda: {name!r})
    {more}
"""


def write(folder: Path, file: str, name: str, more: str = "") -> None:
    (folder / "plugins").mkdir(exist_ok=True)
    text = BODY.format(name=name, more=more)
    (folder / "plugins" / f"{file}.py").write_text(text)


def manager_of(folder: Path) -> PluginManager:
    return PluginManager(root=folder, adapter=None, storage="none", max_retries=0)


async def test_it_reloads_to_its_new_name(tmp_path: Path) -> None:
    write(tmp_path, "shop", "shop")
    async with manager_of(tmp_path) as manager:
        write(tmp_path, "shop", "store")
        assert (await manager.reload_plugin("shop")).name == "store"
        assert [one.name for one in manager.list_plugins()] == ["store"]
        assert await manager.run_command("greet") == "store"
        write(tmp_path, "shop", "store", more="context.hook('more', lambda: 1)")
        await manager.reload_plugin("store")
        assert await manager.bus.emit("more") == 1


async def test_one_that_is_off_stays_off(tmp_path: Path) -> None:
    write(tmp_path, "shop", "shop")
    async with manager_of(tmp_path) as manager:
        await manager.toggle_plugin("shop", False)
        write(tmp_path, "shop", "store")
        await manager.reload_plugin("shop")
        (found,) = manager.list_plugins()
        assert (found.name, found.active) == ("store", False)


async def test_if_it_fails_the_old_one_keeps_running(tmp_path: Path) -> None:
    write(tmp_path, "shop", "shop")
    async with manager_of(tmp_path) as manager:
        write(tmp_path, "shop", "store", more="raise ValueError('no')")
        with pytest.raises(LoadError, match="ValueError: no"):
            await manager.reload_plugin("shop")
        assert [one.name for one in manager.list_plugins()] == ["shop"]
        assert await manager.run_command("greet") == "shop"
        write(tmp_path, "shop", "store")
        await manager.reload_plugin("shop")
        assert await manager.run_command("greet") == "store"


async def test_a_name_that_others_need_or_have_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "shop", "shop")
    (tmp_path / "plugins" / "other.py").write_text(
        "name, version, dependencies = 'other', '1.0.0', ['shop']\ndef load(): ...\n"
    )
    async with manager_of(tmp_path) as manager:
        write(tmp_path, "shop", "store")
        with pytest.raises(DependencyError, match="other need it as 'shop'"):
            await manager.reload_plugin("shop")
        write(tmp_path, "shop", "other")
        await manager.unload_plugin("other")
        await manager.load_plugin({"name": "other", "version": "1.0.0", "load": lambda: None})
        with pytest.raises(ConflictError, match="another plugin has that name"):
            await manager.reload_plugin("shop")
        assert await manager.run_command("greet") == "shop"
