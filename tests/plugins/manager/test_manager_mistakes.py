"""What somebody calls wrongly is said in our words, and changes nothing."""

from pathlib import Path
from typing import Any

import pytest

from veko import ConfigError, ConflictError, ManifestError, ServiceError, VekoError
from veko_plugins import PluginManager


def shop(context: Any) -> None:
    context.add_command("config", lambda: context.config)
    context.add_command("update", context.update_config)


SHOP = {"name": "shop", "version": "1.0.0", "load": shop}


@pytest.mark.parametrize("wrong", ["port=25", "", [], [("port", 25)], 25])
async def test_a_configuration_that_is_no_mapping_is_refused(tmp_path: Path, wrong: Any) -> None:
    async with PluginManager(root=tmp_path, adapter=None) as manager:
        with pytest.raises(ConfigError, match=f"{type(wrong).__name__}, not a mapping .*shop"):
            await manager.load_plugin(SHOP, wrong)
        assert manager.get_plugin("shop") is None

        await manager.load_plugin(SHOP, {"port": 1})
        with pytest.raises(ConfigError, match="not a mapping"):
            await manager.reload_plugin("shop", wrong)
        with pytest.raises(ConfigError, match="not a mapping"):
            await manager.run_command("update", wrong)
        assert await manager.run_command("config") == {"port": 1}


@pytest.mark.parametrize("event", [3, None, b"tick"])
async def test_an_event_that_is_no_name_is_refused(tmp_path: Path, event: Any) -> None:
    async with PluginManager(root=tmp_path, adapter=None) as manager:
        for on in (manager.on, manager.bus.on):
            with pytest.raises(VekoError, match="an event must be a name or an Event, not "):
                on(event, print)


async def test_a_manager_that_does_not_run_says_so(tmp_path: Path) -> None:
    manager = PluginManager(root=tmp_path, adapter=None)
    with pytest.raises(ServiceError, match=r"the manager is created.*await manager\.start\(\)"):
        await manager.load_plugin(SHOP)
    async with manager:
        pass
    with pytest.raises(ServiceError, match="the manager is stopped"):
        await manager.run_command("config")


async def test_a_source_with_stray_bytes_in_a_comment_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    folder.joinpath("latin.py").write_bytes(
        b'name = "latin"\nversion = "1"\n# caf\xe9\ndef load(): pass\n'
    )
    folder.joinpath("said.py").write_bytes(
        b'# coding: latin-1\nname = "said"\nversion = "1"\n# caf\xe9\ndef load(): pass\n'
    )
    async with PluginManager(root=tmp_path, adapter=None) as manager:
        assert manager.report.loaded == ["said"]
        assert "not UTF-8" in manager.report.why("latin")
        assert "latin.py:3" in manager.report.why("latin")


def test_a_field_of_a_simple_plugin_that_there_is_not_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"verzion is not a field\. Did you mean 'version'"):
        PluginManager.create_simple_plugin("shop", shop, verzion="2.0.0")
    PluginManager.create_simple_plugin("shop", shop, license="MIT", unload=lambda: None)


async def test_a_declared_pattern_stands_for_the_hooks_under_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load(context: Any) -> None:
        for event in ("app:start", "request:start", "plugin:x:y", "plugin:x:y:z"):
            context.hook(event, lambda: None)

    plugin = {"name": "shop", "version": "1.0.0", "load": load}
    async with PluginManager(root=tmp_path, adapter=None) as manager:
        await manager.load_plugin({**plugin, "hooks": ["app:*", "plugin:*:y"]})
    said = [
        r.getMessage() for r in caplog.records if "which is not in its `hooks`" in r.getMessage()
    ]
    assert len(said) == 2
    assert "'plugin:x:y:z'" in said[0]
    assert "'request:start'" in said[1]


OPTIONAL = ("admin", "auth", "cache", "ledger", "metrics", "recording", "tracing", "watchdog")
"""Core plugins that options switch on or off."""


async def test_a_core_plugin_that_is_on_keeps_its_name(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"recording": {}, "tracing": {}}
    options = {"enable_api": True, "auth": True, "cache": "memory:", "plugins": sections}
    async with PluginManager(root=tmp_path, adapter="asgi", **options) as manager:
        names = [record.name for record in manager.kernel.records() if record.core]
        assert set(names) >= {*OPTIONAL, "backup", "health", "storage"}
        for name in names:
            with pytest.raises(ConflictError, match="core plugin: give yours another `name`"):
                await manager.load_plugin({"name": name, "version": "1.0.0", "load": print})


async def test_the_name_of_a_core_plugin_that_is_off_is_free(tmp_path: Path) -> None:
    options = {"enable_metrics": False, "watchdog": 0, "ledger": False}
    async with PluginManager(root=tmp_path, adapter=None, **options) as manager:
        for name in OPTIONAL:
            await manager.load_plugin({"name": name, "version": "1.0.0", "load": print})
        assert {plugin.name for plugin in manager.list_plugins()} == set(OPTIONAL)
