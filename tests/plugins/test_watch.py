"""The watcher: real files, real managers, and the events that come of what happens to files."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veko import Event, Kernel
from veko.errors import OptionError, StateError
from veko_plugins import PluginManager
from veko_plugins.watch import EVENTS, Watch

pytestmark = pytest.mark.anyio
SOURCE = "name = {!r}\nversion = '1.0.0'\ndef load(): pass\n"


class Heard:
    """What was told, and who waits for it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str | None]] = []
        self._bell = asyncio.Event()

    def on(self, event: str) -> Callable[..., None]:
        def heard(path: Path, plugin: str | None) -> None:
            assert isinstance(path, Path)
            assert path.is_absolute()
            self.events.append((event, path.name, plugin))
            self._bell.set()

        return heard

    async def until(self, *wanted: tuple[str, str, str | None]) -> None:
        async with asyncio.timeout(10):
            while not set(wanted) <= set(self.events):
                self._bell.clear()
                await self._bell.wait()

    async def another(self) -> None:
        async with asyncio.timeout(10):
            self._bell.clear()
            await self._bell.wait()

    async def all(self, folder: Path) -> list[tuple[str, str, str | None]]:
        """All that was told, taken out, once one more file, made now and last in order, was."""
        last = ("file:add", f"zz-last-{len(os.listdir(folder))}.txt", None)  # noqa: PTH208
        (folder / last[1]).write_text("last")
        await self.until(last)
        found = [one for one in self.events if one != last]
        self.events.clear()
        return found


def managed(root: Path, **options: Any) -> tuple[PluginManager, Heard]:
    heard = Heard()
    defaults = {"adapter": None, "storage": "sqlite:///:memory:", "watch_mode": True}
    options = {**defaults, "allow_hot_reload": False, **options}
    manager = PluginManager(root=root, **options)
    for event in EVENTS:
        manager.on(event.name, heard.on(event.name))
    return manager, heard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "plugins"
    found.mkdir()
    return found


def test_H_file_events_are_declared_whether_watched_or_not(tmp_path: Path) -> None:
    manager = PluginManager(root=tmp_path)
    declared = {event.name: event for event in manager.events()}
    for event in EVENTS:
        assert declared[event.name] == Event(event.name, Path, doc=event.doc)


async def test_O5_nothing_is_watched_without_watch_mode(folder: Path) -> None:
    manager, _ = managed(folder.parent, watch_mode=False)
    async with manager:
        assert "watch" not in {info.name for info in manager.list_plugins(core=True)}
        with pytest.raises(StateError, match="watch_mode=True"):
            manager.unwatch("*.log")


async def test_H_file_add(folder: Path) -> None:
    manager, heard = managed(folder.parent)
    async with manager:
        (folder / "new.py").write_text(SOURCE.format("brand.new"))
        (folder / "notes.txt").write_text("no plugin")
        await heard.until(("file:add", "new.py", "brand.new"), ("file:add", "notes.txt", None))


async def test_H_file_change(folder: Path) -> None:
    (folder / "one.py").write_text(SOURCE.format("first"))
    package = folder / "two"
    package.mkdir()
    (package / "__init__.py").write_text(SOURCE.format("second"))
    (package / "page.html").write_text("before")
    manager, heard = managed(folder.parent)
    async with manager:
        assert {info.name for info in manager.list_plugins()} == {"first", "second"}
        (folder / "one.py").write_text(SOURCE.format("first") + "# more\n")
        (package / "page.html").write_text("after")
        assert sorted(await heard.all(folder)) == [
            ("file:change", "one.py", "first"),
            ("file:change", "page.html", "second"),
        ]


async def test_H_file_delete(folder: Path) -> None:
    (folder / "one.py").write_text(SOURCE.format("first"))
    manager, heard = managed(folder.parent)
    async with manager:
        (folder / "one.py").unlink()
        await heard.until(("file:delete", "one.py", "first"))
        await manager.unload_plugin("first")
        (folder / "gone.txt").write_text("here")
        await heard.until(("file:add", "gone.txt", None))
        (folder / "gone.txt").unlink()
        await heard.until(("file:delete", "gone.txt", None))


async def test_H_file_events_of_a_plugin_that_hooks_them(folder: Path) -> None:
    (folder / "hooked.py").write_text(
        SOURCE.format("hooked").replace("def load(): pass", "") + "def load(context):\n"
        "    context.hook('file:add', lambda path, plugin: context.provide('seen', path))\n"
        "    context.hook('file:add', lambda path: 'ignored')\n"
    )
    manager, _ = managed(folder.parent)
    async with manager:
        (folder / "data.json").write_text("{}")
        async with asyncio.timeout(10):
            assert await manager.kernel.when("seen") == folder / "data.json"


async def test_O5_two_edits_of_one_size_in_one_second_both_count(folder: Path) -> None:
    (folder / "one.txt").write_text("1")
    manager, heard = managed(folder.parent)
    async with manager:
        for text in "23":
            (folder / "one.txt").write_text(text)
            await heard.another()
        assert await heard.all(folder) == [("file:change", "one.txt", None)] * 2


async def test_O5_an_editor_that_replaces_a_file_has_changed_it(folder: Path) -> None:
    (folder / "one.py").write_text(SOURCE.format("first"))
    manager, heard = managed(folder.parent)
    async with manager:
        (folder / ".one.py.swp").write_text("vim")
        (folder / "4913").write_text("vim")
        (folder / "one.py").rename(folder / "one.py~")
        (folder / "one.py").write_text(SOURCE.format("first") + "# new\n")
        (folder / "one.py~").unlink()
        (folder / "sedAbCdEf").write_text(SOURCE.format("first") + "# newer\n")
        (folder / "sedAbCdEf").replace(folder / "one.py")
        assert await heard.all(folder) == [("file:change", "one.py", "first")]


async def test_O5_many_writes_are_told_once(folder: Path) -> None:
    manager, heard = managed(folder.parent)
    async with manager:
        with (folder / "big.txt").open("w") as file:
            for _ in range(100):
                file.write("line\n")
                file.flush()
        assert await heard.all(folder) == [("file:add", "big.txt", None)]


async def test_O5_what_tools_write_is_not_told(folder: Path) -> None:
    manager, heard = managed(folder.parent)
    async with manager:
        for place in ("__pycache__", ".veko", ".git", "pkg/__pycache__", "pkg/node_modules/a"):
            (folder / place).mkdir(parents=True)
            (folder / place / "x.py").write_text("x")
        for name in (
            ".#x.py",
            "#x.py#",
            "x.py~",
            ".x.py.swp",
            "x.tmp",
            "x.pyc",
            "x.py___jb_tmp___",
        ):
            (folder / name).write_text("x")
        assert await heard.all(folder) == []


async def test_O5_a_folder_moved_in_and_out(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "pkg"
    (outside / "deep" / "er").mkdir(parents=True)
    (outside / "__init__.py").write_text(SOURCE.format("pkg"))
    (outside / "deep" / "er" / "x.txt").write_text("x")
    manager, heard = managed(tmp_path)
    async with manager:
        outside.rename(folder / "pkg")
        await heard.until(("file:add", "__init__.py", "pkg"), ("file:add", "x.txt", "pkg"))
        (folder / "pkg" / "deep" / "er" / "x.txt").write_text("xx")
        await heard.until(("file:change", "x.txt", "pkg"))
        (folder / "pkg").rename(outside)
        await heard.until(("file:delete", "x.txt", None), ("file:delete", "__init__.py", None))
        heard.events.clear()
        shutil.copytree(outside, folder / "pkg")
        assert sorted(await heard.all(folder)) == [
            ("file:add", "__init__.py", "pkg"),
            ("file:add", "x.txt", "pkg"),
        ]


async def test_O5_plugin_folders_that_come_go_and_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    manager, heard = managed(tmp_path)
    async with manager:
        folder.mkdir()
        (folder / "one.txt").write_text("1")
        await heard.until(("file:add", "one.txt", None))
        (folder / "two.txt").write_text("2")
        await heard.until(("file:add", "two.txt", None))
        shutil.rmtree(folder)
        await heard.until(("file:delete", "one.txt", None), ("file:delete", "two.txt", None))
        other = tmp_path / "other"
        other.mkdir()
        (other / "three.txt").write_text("3")
        other.rename(folder)
        await heard.until(("file:add", "three.txt", None))
        (folder / "three.txt").write_text("33")
        await heard.until(("file:change", "three.txt", None))


async def test_O5_what_the_system_does_not_report_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Polling as watchfiles does it overlooks what changes twice in a second.
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    manager, heard = managed(folder.parent)
    async with manager:
        (folder / "one.txt").write_text("1")
        await heard.until(("file:add", "one.txt", None))
        (folder / "one.txt").write_text("2")
        await heard.until(("file:change", "one.txt", None))


async def test_O1_several_folders_are_watched(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    manager, heard = managed(tmp_path, plugins_dir=("a", "b"))
    async with manager:
        (tmp_path / "a" / "x.txt").write_text("x")
        (tmp_path / "b" / "y.txt").write_text("y")
        await heard.until(("file:add", "x.txt", None), ("file:add", "y.txt", None))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
async def test_O1_a_folder_that_is_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "plugins").symlink_to(real)
    manager, heard = managed(tmp_path)
    paths: list[Path] = []
    manager.on("file:add", lambda path: paths.append(path))
    async with manager:
        (real / "x.txt").write_text("x")
        await heard.until(("file:add", "x.txt", None))
        assert paths == [tmp_path / "plugins" / "x.txt"]


@pytest.mark.parametrize("allowed", [True, False])
async def test_O5_folders_that_links_lead_to(folder: Path, tmp_path: Path, allowed: bool) -> None:
    outside, inside = tmp_path / "outside", folder / "inside"
    for place in (outside, inside):
        place.mkdir()
        (place / f"{place.name}.txt").write_text("x")
        (place / "round").symlink_to(place)
        (folder / f"to-{place.name}").symlink_to(place)
    manager, heard = managed(tmp_path, allow_symlinks=allowed)
    paths: list[Path] = []
    manager.on("file:change", lambda path: paths.append(path))
    async with manager:
        (outside / "outside.txt").write_text("xx")
        if allowed:
            await heard.until(("file:change", "outside.txt", None))
        (inside / "inside.txt").write_text("xx")
        while folder / "to-inside" / "inside.txt" not in paths:
            await heard.another()
        (folder / "late").symlink_to(outside)
        if allowed:
            await heard.until(("file:add", "outside.txt", None))
        told = {one for one in await heard.all(folder) if one[1] != "inside.txt"}
        both = {("file:change", "outside.txt", None), ("file:add", "outside.txt", None)}
        assert told == (both if allowed else set())


async def test_O14_watch_ignore(folder: Path) -> None:
    manager, heard = managed(folder.parent, watch_ignore=("*.log", "pkg/data/*", "logs/"))
    for place in ("pkg/data/deep", "logs", "data"):
        (folder / place).mkdir(parents=True)
    async with manager:
        for name in ("a.log", "pkg/data/x.txt", "pkg/data/deep/x.txt", "logs/x.txt"):
            (folder / name).write_text("x")
        for name in ("a.txt", "data/y.txt", "pkg/z.txt"):
            (folder / name).write_text("x")
        assert sorted(name for _, name, _ in await heard.all(folder)) == ["a.txt", "y.txt", "z.txt"]


async def test_D8_unwatch_while_running_and_over_a_restart(folder: Path) -> None:
    (folder / "old.log").write_text("x")
    manager, heard = managed(folder.parent)
    async with manager:
        (folder / "a.log").write_text("x")
        await heard.until(("file:add", "a.log", None))
        manager.unwatch("*.log", str(folder / "secret" / "*"))
        heard.events.clear()
        (folder / "b.log").write_text("x")
        (folder / "old.log").unlink()
        (folder / "secret").mkdir()
        (folder / "secret" / "x.txt").write_text("x")
        assert await heard.all(folder) == []
        await manager.restart()
        (folder / "c.log").write_text("x")
        assert await heard.all(folder) == []
        assert manager.use("watch").ignored == ("*.log", str(folder / "secret" / "*"))


@pytest.mark.parametrize("pattern", ["", "/", ["*.log"], None])
async def test_D8_patterns_that_are_none(folder: Path, pattern: Any) -> None:
    manager, _ = managed(folder.parent)
    async with manager:
        with pytest.raises(OptionError, match="not a pattern"):
            manager.unwatch("*.txt", pattern)
        assert manager.use("watch").ignored == ()


async def test_O5_switched_off_it_tells_nothing(folder: Path) -> None:
    manager, heard = managed(folder.parent)
    async with manager:
        await manager.toggle_plugin("watch", False)
        (folder / "a.txt").write_text("a")
        await manager.toggle_plugin("watch", True)
        assert await heard.all(folder) == []


async def test_O5_stopping_does_not_wait_for_a_change(folder: Path) -> None:
    manager, _ = managed(folder.parent)
    await manager.start()
    async with asyncio.timeout(0.9):  # its thread looks each second if nothing happens
        await manager.stop()


async def test_O5_a_failing_hook_does_not_end_it(folder: Path) -> None:
    manager, heard = managed(folder.parent)
    async with manager:
        manager.bus.on("file:add", lambda path: 1 / 0)
        (folder / "a.txt").write_text("a")
        await heard.until(("file:add", "a.txt", None))
        (folder / "b.txt").write_text("b")
        await heard.until(("file:add", "b.txt", None))


async def test_O5_it_works_on_a_kernel_alone(folder: Path) -> None:
    heard = Heard()
    async with Kernel() as kernel:
        kernel.bus.on("file:add", heard.on("file:add"))
        await kernel.load(Watch([folder]))
        (folder / "a.txt").write_text("a")
        await heard.until(("file:add", "a.txt", None))


LIMITED = """
import asyncio, os, pathlib, resource, watchfiles
from veko import Kernel
from veko_plugins.watch import Watch

async def main():
    told = asyncio.Event()
    def tell(name, error):
        print(name, type(error).__name__, error, flush=True)
        told.set()
    async with Kernel() as kernel:
        kernel.bus.on("plugin:error", tell)
        most = max(map(int, os.listdir("/proc/self/fd")))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        await kernel.load(Watch([pathlib.Path.cwd()]))
        await told.wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is made as Linux has it")
def test_O5_a_system_that_does_not_let_itself_be_asked(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=30,
        check=False,
    )
    assert ran.stdout.startswith("watch LoadError the plugin folders cannot be watched"), ran.stderr
    assert "WATCHFILES_FORCE_POLLING=1" in ran.stdout


def test_O5_without_watchfiles_the_message_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "sys.modules['watchfiles'] = None\n"
        "import importlib.util\n"
        "from veko_plugins import PluginManager\n"
        "asyncio.run(PluginManager(adapter=None, watch_mode=True).start())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ran.returncode == 1
    assert "OptionError" in ran.stderr
    assert "pip install 'veko[watch]'" in ran.stderr
