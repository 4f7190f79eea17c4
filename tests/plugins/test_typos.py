"""Typing errors that nothing refuses are warnings, at the start and in `validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from veko_plugins import PluginManager

HEAD = 'name = "shop"\nversion = "1.0.0"\n'
HOOKS = HEAD + "def load(context):\n    context.hook({event!r}, lambda *a: None)\n"
CONFIG = HEAD + "default_config = {'color': 'red', 'limits': {'day': 1}}\ndef load(context): ...\n"


def manager_of(folder: Path, **options: Any) -> PluginManager:
    return PluginManager(root=folder, adapter="asgi", storage="none", **options)


async def warnings_of(folder: Path, source: str, **options: Any) -> tuple[list[str], list[str]]:
    """Return what is logged at the start, and what validation says, about typing errors."""
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "shop.py").write_text(source)
    logged: list[str] = []
    manager = manager_of(folder, **options)
    manager.on("log", lambda record: logged.append(record.message))
    async with manager:
        report = await manager.validate_plugin(folder / "plugins" / "shop.py")
    found = [one for one in report.warnings if "is not required" not in one]
    return [one for one in logged if one.startswith("shop: ")], found


async def test_an_event_that_is_nearly_declared_is_a_warning(tmp_path: Path) -> None:
    logged, validated = await warnings_of(tmp_path, HOOKS.format(event="response:strat"))
    expected = "it hooks 'response:strat', which is not declared. Did you mean 'response:start'?"
    assert logged == [f"shop: {expected}"]
    assert validated == [expected]


@pytest.mark.parametrize(
    "event", ["ask", "order:paid", "plugin:*", "**", "plugin:later:adding", "response:start", "log"]
)
async def test_other_events_are_no_typing_errors(tmp_path: Path, event: str) -> None:
    assert await warnings_of(tmp_path, HOOKS.format(event=event)) == ([], [])


async def test_an_event_that_another_plugin_declares_later_is_none(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "zebra.py").write_text(
        "from veko import Event\nname, version, priority = 'zebra', '1.0.0', 1\n"
        "def load(context): context.declare(Event('response:starts'))\n"
    )
    logged, _ = await warnings_of(tmp_path, HOOKS.format(event="response:starts"))
    assert logged == []


async def test_a_key_that_the_defaults_do_not_have_is_a_warning(tmp_path: Path) -> None:
    settings = {"shop": {"colour": "blue", "limits": {"dya": 2, "day": 3}}}
    found = await warnings_of(tmp_path, CONFIG, plugins=settings)
    expected = [
        "config.colour is not a key of its default_config. Did you mean 'color'?",
        "config.limits.dya is not a key of its default_config. Did you mean 'day'?",
    ]
    assert found == ([f"shop: {one}" for one in expected], expected)


async def test_without_defaults_every_key_may_be_read(tmp_path: Path) -> None:
    settings = {"shop": {"anything": 1}}
    source = HEAD + "def load(context): ...\n"
    assert await warnings_of(tmp_path, source, plugins=settings) == ([], [])


async def test_files_that_look_like_plugins_and_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "_shop.py").write_text(HEAD + "def load(context): ...\n")
    (folder / "_shared.py").write_text("LIMIT = 3\n")
    (folder / "other.ts").write_text("export const name = 'other'\n")
    logged: list[str] = []
    manager = manager_of(tmp_path, support_typescript=False)
    manager.on("log", lambda record: logged.append(record.message))
    async with manager:
        await manager.load_all_plugins()
    over = [one for one in logged if "passed over" in one]
    assert [Path(one.split(" ")[0]).name for one in over] == ["_shop.py", "other.ts"]


async def test_a_plugin_whose_section_says_enabled_false_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, needs in (("shop", "[]"), ("cart", "['shop']"), ("other", "[]")):
        text = f"name, version, dependencies = {name!r}, '1.0.0', {needs}\ndef load(): ...\n"
        (folder / f"{name}.py").write_text(text)
    settings = {"shop": {"enabled": False}, "other": {"enabled": True, "x": 1}}
    async with manager_of(tmp_path, plugins=settings) as manager:
        report = manager.report
        assert report.loaded == ["other"]
        assert report.off == {"shop": "enabled = false in [plugins.shop]"}
        assert report.failed == {}
        assert report.skipped == {
            "cart": "needs 'shop', which is left out (enabled = false in [plugins.shop])"
        }
        other = manager.get_plugin("other")
        assert other is not None
        assert other.config == {"x": 1}
        await manager.load_plugin("shop")  # asked for by name
        assert manager.get_plugin("shop") is not None


async def test_an_entry_point_is_left_out_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "ghost-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ghost\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[veko.plugins]\nghost = no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "plugins").mkdir()
    async with manager_of(tmp_path, plugins={"ghost": {"enabled": False}}) as manager:
        assert manager.report.failed == {}
        assert set(manager.report.off) == {"ghost"}
