"""Settings without effect are said at the start, and one that would pretend is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest

from veko import OptionError
from veko_plugins import PluginManager


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"plugins": {"link": {}}}, "[plugins.link]: there is no plugin of that name"),
        ({"plugins": {"link": {}}}, "Did you mean 'links'?"),
        ({"plugins": {"links": {}}}, None),
        ({"plugins": {"broken": {}}}, None),
        ({"plugins": {"storage": {}}}, None),
        ({"probation": 3}, None),
    ],
)
async def test_settings_without_effect_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], said: str | None
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plugins.joinpath("links.py").write_text(
        'name = "links"\nversion = "1"\n\ndef load():\n    pass\n'
    )
    plugins.joinpath("broken.py").write_text('name = "broken"\nversion = "1"\n')
    with caplog.at_level(logging.WARNING, "veko.manager"):
        async with PluginManager(root=tmp_path, adapter=None, max_retries=0, **settings):
            pass
    found = [record.getMessage() for record in caplog.records if record.name == "veko.manager"]
    if said is None:
        assert found == []
    else:
        assert any(said in line for line in found)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"plugins": {"storge": {}}}, ["[plugins.storge]: there is no plugin of that name."]),
        ({"plugins": {"given-later": {}}}, []),
    ],
)
async def test_without_auto_load_settings_without_effect_are_reported_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], said: list[str]
) -> None:
    with caplog.at_level(logging.WARNING, "veko.manager"):
        async with PluginManager(root=tmp_path, adapter=None, auto_load=False, **settings):
            pass
    found = [record.getMessage() for record in caplog.records if record.name == "veko.manager"]
    assert len(found) == len(said)
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True))


@pytest.mark.parametrize("name", ["remote", "permissions"])
def test_a_sandbox_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=f"enable_sandbox needs the core plugin '{name}'"):
        PluginManager(root=tmp_path, enable_sandbox=True, core={name: None})
