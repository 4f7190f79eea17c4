"""Plugins that failed once they were loaded show why; so do those that need what is absent."""

from typing import Any

import pytest

from veko import DependencyError, LoadError, NotFoundError, State, VekoError

pytestmark = pytest.mark.anyio
BROKEN = """
import pathlib
def load(): pass
def activate():
    if pathlib.Path(__file__).with_suffix(".broken").exists(): raise RuntimeError("port taken")
"""


async def test_A5_a_plugin_that_cannot_be_switched_on_shows_why(home: Any) -> None:
    path = home.plugin("one", BROKEN)
    async with home.manager() as manager:
        await manager.toggle_plugin("one", False)
        path.with_suffix(".broken").touch()
        with pytest.raises(LoadError, match="port taken"):
            await manager.toggle_plugin("one", True)
        (info,) = manager.list_plugins()
        assert (info.state, info.loaded, info.active) == (State.FAILED, True, False)
        assert info.error_count == 1
        health = manager.check_plugin_health("one")
        assert health.health == "critical"
        assert any("failed in activate" in why and "port taken" in why for why in health.reasons)
        assert manager.get_plugin("one").state is State.FAILED
        path.with_suffix(".broken").unlink()
        assert await manager.toggle_plugin("one", True) is True
        assert manager.list_plugins()[0].state is State.ACTIVE
        assert not any("activate" in why for why in manager.check_plugin_health("one").reasons)


async def test_A6_a_plugin_that_failed_both_ways_stays_listed(home: Any) -> None:
    """Neither its new version loads nor the one before."""
    text = (
        "import pathlib\ndef load():\n  assert not pathlib.Path(__file__ + '.x').exists(), 'full'"
    )
    path = home.plugin("one", text, reload="restart")
    async with home.manager() as manager:
        home.plugin("one", text, reload="restart", description="new")
        path.with_name("one.py.x").touch()
        with pytest.raises(VekoError):
            await manager.reload_plugin("one")
        (info,) = manager.list_plugins()
        assert (info.name, info.state, info.loaded, info.active) == (
            "one", State.FAILED, False, False,
        )  # fmt: skip
        health = manager.check_plugin_health("one")
        assert (health.health, health.loaded) == ("critical", False)
        assert any("full" in reason for reason in health.reasons)
        assert manager.get_plugin("one").state is State.FAILED
        with pytest.raises(NotFoundError, match=r"has failed.*full"):
            await manager.reload_plugin("one")
        path.with_name("one.py.x").unlink()
        await manager.load_plugin("one")
        assert manager.list_plugins()[0].state is State.ACTIVE
        path.with_name("one.py.x").touch()
        with pytest.raises(VekoError):
            await manager.reload_plugin("one")
        await manager.unload_plugin("one")
        assert manager.list_plugins() == []
        assert manager.get_plugin("one") is None


async def test_A6_a_plugin_that_never_loaded_is_not_listed(home: Any) -> None:
    home.plugin("one", "def load(): 1 / 0")
    async with home.manager() as manager:
        assert manager.list_plugins() == []
        assert manager.get_plugin("one") is None


async def test_M3_a_message_says_whether_what_is_needed_is_off_not_loaded_or_missing(
    home: Any,
) -> None:
    base, user = home.plugin("base"), home.plugin("user", dependencies=["base>=1"])
    lost = home.plugin("lost", dependencies=["bases"])
    async with home.manager(auto_load=False) as manager:
        with pytest.raises(DependencyError) as caught:
            await manager.load_plugin("user")
        assert f"'base' is not loaded; it is in {base}" in str(caught.value)
        assert "Load base first" in str(caught.value)
        with pytest.raises(DependencyError) as caught:
            await manager.load_plugin("lost")
        assert "'bases' is missing" in str(caught.value)
        await manager.load_plugin("base")
        await manager.toggle_plugin("base", False)
        with pytest.raises(DependencyError) as caught:
            await manager.load_plugin("user")
        assert "'base' is switched off" in str(caught.value)
        assert "Switch base on first" in str(caught.value)
        report = await manager.load_all_plugins()
        assert "'base' is switched off" in str(report.failed["user"])
        assert "'bases' is missing" in str(report.failed["lost"])
        await manager.toggle_plugin("base", True)
        await manager.load_plugin("user")
        await manager.toggle_plugin("base", False, cascade=True)
        with pytest.raises(DependencyError, match="Switch base on first"):
            await manager.toggle_plugin("user", True)
    assert user.exists()
    assert lost.exists()


async def test_M3_without_validation_a_message_says_so_too(home: Any) -> None:
    home.plugin("base")
    home.plugin("user", dependencies=["base"])
    async with home.manager(enable_validation=False) as manager:
        await manager.unload_plugin("user")
        await manager.toggle_plugin("base", False)
        with pytest.raises(DependencyError, match="Switch base on first"):
            await manager.load_plugin("user")


async def test_M3_what_has_failed_is_named_as_such(home: Any) -> None:
    home.plugin("base", "def load(): 1 / 0")
    home.plugin("user", dependencies=["base"])
    async with home.manager() as manager:
        with pytest.raises(DependencyError, match=r"'base' has failed.*ZeroDivisionError"):
            await manager.load_plugin("user")
