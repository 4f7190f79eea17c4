"""Bad input in the plugin folder and the settings: a clear error each, and the rest loads."""

import os
from pathlib import Path

import pytest

from veko import OptionError, VekoError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio
GOOD = "version = '1.0.0'\ndef load(): pass\n"


async def test_each_fault_has_its_error_and_the_rest_loads(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    outside = tmp_path / "outside.py"
    outside.write_text("name = 'outside'\n" + GOOD)
    (folder / "good.py").write_text("name = 'good'\n" + GOOD)
    (folder / "linked.py").symlink_to(outside)
    (folder / "latin.py").write_bytes(b"name = 'caf\xe9'\n")
    with (folder / "huge.py").open("wb") as file:
        file.truncate(100 * 2**20)
    schema = "config_schema = {'type': 'objct'}\n"
    (folder / "schema.py").write_text("name = 'schema'\n" + schema + GOOD)
    shape = "config_schema = {'properties': {'port': {'type': 'integer'}}}\n"
    (folder / "shape.py").write_text("name = 'shape'\n" + shape + GOOD)
    words = {
        "linked": "link out of the plugin folder",
        "latin": "not UTF-8",
        "huge": "104,857,600 bytes",
        "schema": "config_schema is not a JSON Schema",
        "shape": "port: ",
    }
    options = {"max_retries": 0, "adapter": None, "storage": "sqlite:///:memory:"}
    sections = {"shape": {"port": "x"}}
    async with PluginManager(root=tmp_path, plugins=sections, **options) as manager:
        assert manager.report.loaded == ["good"]
        assert set(manager.report.failed) == set(words)
        for name, word in words.items():
            error = manager.report.failed[name]
            assert isinstance(error, VekoError)
            assert word in str(error)
            assert error.remedy
    async with PluginManager(root=tmp_path, allow_symlinks=True, **options) as manager:
        assert "outside" in manager.report.loaded


async def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    (good / "good.py").write_text("name = 'good'\n" + GOOD)
    bad.write_text("not a folder")
    folders = [good, bad]
    async with PluginManager(root=tmp_path, plugins_dir=folders, adapter=None) as manager:
        assert manager.report.loaded == ["good"]
        (error,) = manager.report.failed.values()
        assert os.fspath(bad) in str(error)


def test_an_unknown_option_has_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="strict_peers"):
        PluginManager(root=tmp_path, strict_peer=True)
