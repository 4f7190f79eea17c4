"""Hot reload: files that are saved, made, moved and deleted, and what becomes of their plugins."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from veko import LoadError, PluginRecord
from veko_plugins import PluginManager
from veko_plugins.probation import ProbationError

pytestmark = pytest.mark.anyio
PLUGIN = """
name = {name!r}
version = {version!r}
{more}
def load(context):
    context.hook("ask:{name}", lambda: {answer!r})
"""


class Project:
    """An application whose files are edited while it runs."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.folder = root / "plugins"
        defaults = {"adapter": None, "storage": "sqlite:///:memory:", "max_retries": 0}
        self.manager = PluginManager(root=root, watch_mode=True, **defaults, **options)
        self.told: list[tuple[Any, ...]] = []
        self._bell = asyncio.Event()
        for event in ("dev:hotreload", "plugin:error", "plugin:unloaded", "plugin:rollback"):
            self.manager.on(event, self._on(event))
        self.manager.on("log", lambda record: self._hear("log", record.message))

    def _on(self, event: str) -> Callable[..., None]:
        return lambda *args: self._hear(event, *args)

    def _hear(self, *told: Any) -> None:
        self.told.append(told)
        self._bell.set()

    async def until(self, event: str, begin: str = "") -> tuple[Any, ...]:
        """Wait until something is told whose first argument begins so; it is told no more."""
        async with asyncio.timeout(10):
            while True:
                for told in self.told:
                    if told[0] == event and str(told[1]).startswith(begin):
                        self.told.remove(told)
                        return told
                self._bell.clear()
                await self._bell.wait()

    def save(self, name: str, answer: object, more: str = "", version: str = "1.0.0") -> Path:
        """Write a plugin of one file, as it is to answer."""
        path = self.folder / f"{name}.py"
        path.write_text(PLUGIN.format(name=name, version=version, more=more, answer=answer))
        return path

    async def ask(self, name: str) -> Any:
        return await self.manager.bus.emit(f"ask:{name}", None)

    async def reloaded(self, name: str) -> Path:
        path: Path = (await self.until("dev:hotreload", name))[2]
        return path

    async def failed(self, name: str) -> str:
        """Wait until a failure is reported, and what is done about it; returns both."""
        error = (await self.until("plugin:error", name))[2]
        return f"{error}; {(await self.until('log', f'failed {name}'))[1]}"

    def record(self, name: str) -> PluginRecord:
        found = self.manager.get_plugin(name)
        assert found is not None
        return found

    async def nothing_more(self) -> None:
        """Let another plugin reload; what came before it was told before it."""
        self.save("other", "saved again" + "!" * len(self.told))
        await self.reloaded("other")
        kept = [told for told in self.told if told[0] != "log"]
        assert kept == [], kept


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "plugins").mkdir()

    @asynccontextmanager
    async def made(
        prepare: Callable[[Project], object] = lambda _: None, **options: Any
    ) -> AsyncIterator[Project]:
        one = Project(tmp_path, **options)
        prepare(one)
        async with one.manager:
            yield one

    return made


def shop(one: Project) -> None:
    one.save("shop", "old")


def three(one: Project) -> None:
    one.save("shop", "old")
    one.save("other", "there")


async def test_D8_O8_a_saved_plugin_reloads(project: Any) -> None:
    async with project(shop) as one:
        assert await one.ask("shop") == "old"
        path = one.save("shop", "new", version="1.1.0")
        assert await one.reloaded("shop") == path
        assert await one.ask("shop") == "new"
        message = (await one.until("log", "reloaded"))[1]
        assert message.startswith("reloaded shop 1.1.0 in ")
        assert message.endswith(" ms")


async def test_a_saved_plugin_reloads_to_the_name_that_its_file_says(project: Any) -> None:
    async with project(shop) as one:
        path = one.save("shop", "old")
        path.write_text(path.read_text().replace("name = 'shop'", "name = 'store'"))
        assert await one.reloaded("store") == path
        assert (await one.until("log", "reloaded shop as store 1.0.0"))[1].endswith(" ms")
        await one.until("plugin:unloaded", "shop")
        path.write_text(path.read_text().replace("name = 'store'", "name = 'store'; more = 1"))
        assert await one.reloaded("store") == path


async def test_H_dev_hotreload_after_a_reload(project: Any) -> None:
    async with project(shop) as one:
        path = one.save("shop", "new")
        assert await one.until("dev:hotreload") == ("dev:hotreload", "shop", path)


async def test_O8_what_is_not_allowed_is_watched_and_not_reloaded(project: Any) -> None:
    async with project(shop, allow_hot_reload=False) as one:
        heard = asyncio.Event()
        one.manager.on("file:change", heard.set)
        one.save("shop", "new")
        await asyncio.wait_for(heard.wait(), 10)
        assert await one.ask("shop") == "old"
        assert "reload" not in {info.name for info in one.manager.list_plugins(core=True)}


async def test_D8_the_same_content_reloads_nothing(project: Any) -> None:
    async with project(three) as one:
        before = one.record("shop").generation
        one.save("shop", "old")
        (one.folder / "shop.py").touch()
        await one.nothing_more()
        assert one.record("shop").generation == before


async def test_D8_many_files_of_a_package_are_one_reload(project: Any) -> None:
    def prepare(one: Project) -> None:
        three(one)
        package = one.folder / "pack"
        (package / "deep").mkdir(parents=True)
        (package / "plugin.toml").write_text("name = 'pack'\nversion = '1.0.0'\n")
        (package / "__init__.py").write_text(
            "from .deep.part import answer\n"
            "def load(context): context.hook('ask:pack', lambda: answer)\n"
        )
        (package / "deep" / "part.py").write_text("answer = 'old'\n")

    async with project(prepare) as one:
        package = one.folder / "pack"
        for number in range(40):
            (package / "deep" / f"more_{number}.py").write_text("x = 1\n")
        (package / "deep" / "part.py").write_text("answer = 'new'\n")
        await one.reloaded("pack")
        assert await one.ask("pack") == "new"
        (package / "plugin.toml").write_text("name = 'pack'\nversion = '1.1.0'\n")
        assert await one.reloaded("pack") == package / "plugin.toml"
        assert one.record("pack").version == "1.1.0"
        assert one.record("pack").generation <= 4
        await one.nothing_more()


@pytest.mark.parametrize("way", ["rename", "delete first", "backup"])
async def test_D8_editors_that_write_by_rename(project: Any, way: str) -> None:
    async with project(shop) as one:
        path = one.folder / "shop.py"
        text = path.read_text().replace("'old'", "'new'")
        if way == "delete first":
            path.unlink()
            await asyncio.to_thread(lambda: None)
            path.write_text(text)
        else:
            if way == "backup":
                path.rename(one.folder / "shop.py~")
            (one.folder / ".shop.py.swp").write_text(text)
            (one.folder / ".shop.py.swp").rename(path)
        await one.reloaded("shop")
        assert await one.ask("shop") == "new"
        assert not [told for told in one.told if told[0] == "plugin:unloaded"]


@pytest.mark.parametrize("told", [True, False])
async def test_D8_a_plugin_whose_file_is_renamed_goes_on_from_there(
    project: Any, told: bool
) -> None:
    def prepare(one: Project) -> None:
        path = one.save("shop", "old")
        if not told:  # what only running it tells
            path.write_text(path.read_text().replace("name = 'shop'", "name = 'sh' + 'op'"))

    async with project(prepare) as one:
        (one.folder / "shop.py").rename(one.folder / "store.py")
        await one.reloaded("shop")
        assert one.record("shop").source == one.folder / "store.py"
        one.save("shop", "back")
        (one.folder / "store.py").unlink()
        await one.until("dev:hotreload", "shop")
        assert await one.ask("shop") == "back"


async def test_D8_new_and_deleted_plugins(project: Any) -> None:
    async with project(three) as one:
        one.save("needy", "here", "dependencies = ['later']")
        assert "later" in await one.failed("needy")
        one.save("later", "there")
        await one.reloaded("later")
        await one.reloaded("needy")
        assert await one.ask("needy") == "here"
        (one.folder / "later.py").unlink()
        await one.until("log", "later keeps running though its files are gone")
        assert await one.ask("later") == "there"
        (one.folder / "needy.py").unlink()
        await one.until("plugin:unloaded", "needy")
        await one.until("plugin:unloaded", "later")
        assert await one.ask("later") is None
        assert {info.name for info in one.manager.list_plugins()} == {"shop", "other"}


async def test_D8_a_folder_that_is_still_written_loads_when_it_is_whole(project: Any) -> None:
    async with project(three) as one:
        package = one.folder / "pack"
        package.mkdir()
        (package / "__init__.py").write_text(
            "from .part import answer\nname, version = 'pack', '1'\n"
            "def load(context): context.hook('ask:pack', lambda: answer)\n"
        )
        assert "part" in await one.failed("pack")
        (package / "part.py").write_text("answer = 'whole'\n")
        await one.reloaded("pack")
        assert await one.ask("pack") == "whole"
        shutil.rmtree(package)
        await one.until("plugin:unloaded", "pack")


async def test_D8_what_failed_at_the_start_is_loaded_when_it_is_mended(project: Any) -> None:
    def prepare(one: Project) -> None:
        three(one)
        (one.folder / "broken.py").write_text("def load(:\n")

    async with project(prepare) as one:
        one.save("broken", "mended")
        await one.reloaded("broken")
        assert await one.ask("broken") == "mended"


async def test_D8_a_copy_is_told_and_takes_the_place_of_what_is_deleted(project: Any) -> None:
    async with project(shop) as one:
        path = one.save("shop", "copy")
        await one.reloaded("shop")
        copy = one.folder / "copy.py"
        copy.write_text(path.read_text().replace("'copy'", "'second copy'"))
        await one.until("log", f"{copy} is not loaded: shop runs from {path}")
        path.unlink()
        assert await one.reloaded("shop") == copy
        assert await one.ask("shop") == "second copy"


async def test_D8_what_is_made_anew_is_tried_anew(project: Any) -> None:
    async with project(three) as one:
        path = one.folder / "shop.py"
        path.write_text(BROKEN["syntax"][0])
        await one.failed("shop")
        path.rename(one.folder.parent / "aside.py")
        await one.until("plugin:unloaded", "shop")
        (one.folder.parent / "aside.py").rename(path)
        await one.failed("shop")


async def test_D8_a_linked_plugin_reloads_as_its_files_change(project: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "__init__.py").write_text(
        "name, version = 'linked', '1'\n"
        "from .models import number\n"
        "def load(context): context.hook('ask:linked', lambda: number)\n"
    )
    (outside / "models.py").write_text("number = 1\n")

    async with project(three, allow_symlinks=True) as one:
        (one.folder / "linked").symlink_to(outside)
        await one.reloaded("linked")
        assert await one.ask("linked") == 1
        (outside / "models.py").write_text("number = 2\n")
        await one.reloaded("linked")
        assert await one.ask("linked") == 2


async def test_D8_a_link_that_a_start_refuses_is_refused(project: Any, tmp_path: Path) -> None:
    async with project(shop) as one:
        path = one.save("shop", "new")
        await one.reloaded("shop")
        outside = tmp_path / "outside.py"
        outside.write_text(path.read_text().replace("new", "newer"))
        path.unlink()
        path.symlink_to(outside)
        assert "is a link out of the plugin folder" in await one.failed("shop")
        assert await one.ask("shop") == "new"


LATE = """
import asyncio
name, version = "base", {version!r}
def load(context):
    async def connect():
        await asyncio.sleep({seconds})
        context.provide("db", {version!r})
    context.spawn(connect)
"""
NEEDY = """
name, version, dependencies = {name!r}, "1", {needs!r}
async def load(context):
    found = {get}
    context.hook("ask:{name}", lambda: found)
"""


async def test_A4_C9_a_provider_from_a_task_reloads_under_those_that_need_it_in_load(
    project: Any,
) -> None:
    def prepare(one: Project) -> None:
        (one.folder / "base.py").write_text(LATE.format(version="1", seconds=0))
        for name, needs, get in (
            ("waits", ["base"], "await context.when('db')"),
            ("uses", ["waits"], "context.use('db')"),
        ):
            form = NEEDY.format(name=name, needs=needs, get=get)
            (one.folder / f"{name}.py").write_text(form)

    async with project(prepare, timeout=0.5) as one:
        base = one.folder / "base.py"
        for name in ("waits", "uses"):
            assert await one.ask(name) == "1"
        base.write_text(LATE.format(version="2", seconds=0.01))
        await one.reloaded("base")
        assert [await one.ask(name) for name in ("waits", "uses")] == ["2", "2"]
        base.write_text(LATE.format(version="3", seconds=60))
        assert "did not provide 'db' within 0.5 s" in await one.failed("base")
        assert [await one.ask(name) for name in ("waits", "uses")] == ["2", "2"]
        assert [one.record(name).version for name in ("base", "waits", "uses")] == ["2", "1", "1"]
        await one.manager.reload_plugin("waits")
        base.write_text(LATE.format(version="4", seconds=0))
        await one.reloaded("base")
        await one.manager.reload_plugin("base")
        assert [await one.ask(name) for name in ("waits", "uses")] == ["4", "4"]


async def test_D8_what_was_unloaded_by_hand_stays_so(project: Any) -> None:
    async with project(three) as one:
        await one.manager.unload_plugin("shop")
        await one.until("plugin:unloaded", "shop")
        one.save("shop", "new")
        await one.nothing_more()
        assert one.manager.get_plugin("shop") is None
        await one.manager.load_plugin("shop")
        one.save("shop", "newer")
        await one.reloaded("shop")
        assert await one.ask("shop") == "newer"


async def test_D8_an_empty_file_is_being_written(project: Any) -> None:
    async with project(three) as one:
        text = (one.folder / "shop.py").read_text()
        (one.folder / "shop.py").write_text("")
        (one.folder / "new.py").write_text("")
        await one.nothing_more()
        assert await one.ask("shop") == "old"
        (one.folder / "shop.py").write_text(text.replace("old", "new"))
        await one.reloaded("shop")
        assert await one.ask("shop") == "new"


async def test_D8_plugins_that_restart(project: Any) -> None:
    def save(one: Project, version: str, port: str) -> None:
        (one.folder / "door.py").write_text(
            f"name, version, reload = 'door', {version!r}, 'restart'\n"
            "from pathlib import Path\n"
            f"lock = Path({str(one.folder.parent / 'lock')!r})\n"
            "def load(context):\n"
            f"    number = int({port!r})\n"
            "    lock.mkdir()\n"
            "    context.hook('ask:door', lambda: number)\n"
            "def unload(): lock.rmdir()\n"
        )

    async with project(lambda one: save(one, "1", "1")) as one:
        save(one, "2", "2")
        await one.reloaded("door")
        assert await one.ask("door") == 2
        save(one, "3", "none")
        await one.until("plugin:error", "door")
        await one.until("log", "failed door")
        assert await one.ask("door") == 2
        modules = [name for name in sys.modules if name.startswith("veko_generation.door")]
        assert len(modules) == 1
        (one.folder.parent / "lock").rename(one.folder.parent / "taken")
        (one.folder.parent / "lock").write_text("nobody can have it")
        save(one, "4", "4")
        assert (await one.until("log", "failed door"))[1].endswith(": it is down")
        (one.folder.parent / "lock").unlink()
        save(one, "5", "5")
        await one.reloaded("door")
        assert await one.ask("door") == 5


BROKEN = {
    "syntax": ("def load(:\n", "syntax error"),
    "import": ("import nowhere_at_all\nname, version = 'shop', '2'\ndef load(): pass\n", "nowhere"),
    "manifest": ("name, version = 'shop', 2\ndef load(): pass\n", "version"),
    "no load": ("name, version = 'shop', '2'\n", "load() is missing"),
    "config": (
        "name, version, config_schema = 'shop', '2', {'required': ['size']}\ndef load(): pass\n",
        "size",
    ),
    "raises": ("name, version = 'shop', '2'\ndef load():\n    raise ValueError('no')\n", "no"),
    "hangs": (
        "import asyncio\nname, version = 'shop', '2'\nasync def load(): await asyncio.sleep(60)\n",
        "did not end",
    ),
    "dependency": (
        "name, version, dependencies = 'shop', '2', ['nobody']\ndef load(): pass\n",
        "nobody",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_D8_a_broken_version_leaves_the_old_one(project: Any, fault: str) -> None:
    source, why = BROKEN[fault]
    async with project(three, timeout=0.2) as one:
        before = one.record("shop").generation
        (one.folder / "shop.py").write_text(source)
        message = await one.failed("shop")
        assert why in message
        assert message.endswith("; failed shop: version 1.0.0 keeps running")
        assert await one.ask("shop") == "old"
        assert one.record("shop").generation == before
        assert one.manager.error_count("shop") == 0
        (one.folder / "shop.py").touch()  # the same content is not tried again
        await one.nothing_more()
        one.save("shop", "mended")
        await one.reloaded("shop")
        assert await one.ask("shop") == "mended"


async def test_D8_a_failure_names_file_and_line(project: Any) -> None:
    async with project(shop) as one:
        (one.folder / "shop.py").write_text("name = 'shop'\nversion = '2'\nimport nowhere_at_all\n")
        _, name, error = await one.until("plugin:error", "shop")
        assert isinstance(error, LoadError)
        assert (name, error.path, error.line) == ("shop", one.folder / "shop.py", 3)


async def test_D8_a_load_that_hangs_gives_way_to_the_next_change(project: Any) -> None:
    async with project(shop, timeout=60) as one:
        one.manager.on("plugin:reload", one._on("plugin:reload"))
        (one.folder / "shop.py").write_text(BROKEN["hangs"][0])
        await one.until("plugin:reload", "shop")
        one.save("shop", "mended")
        await one.until("log", "aborted shop")
        await one.reloaded("shop")
        assert await one.ask("shop") == "mended"


async def test_D8_late_imports_are_of_their_own_generation(project: Any) -> None:
    def prepare(one: Project) -> None:
        package = one.folder / "pack"
        package.mkdir()
        (package / "__init__.py").write_text(
            "name, version = 'pack', '1'\n"
            "def load(context): context.hook('ask:pack', answer)\n"
            "def answer():\n    from . import late\n    return late.answer\n"
        )
        (package / "late.py").write_text("answer = 'old'\n")

    async with project(prepare) as one:
        package = one.folder / "pack"
        (package / "late.py").write_text("answer = 'new'\n")
        (package / "__init__.py").write_text("from . import late, nothing\n")
        await one.failed("pack")
        assert await one.ask("pack") == "old"
        modules = [name for name in sys.modules if name.startswith("veko_generation.pack")]
        assert len(modules) == 2


async def test_D8_dependents_reload_with_what_they_need(project: Any) -> None:
    def prepare(one: Project) -> None:
        one.save("base", "base", "number = 1")
        (one.folder / "above.py").write_text(
            "name, version, dependencies = 'above', '1', ['base']\n"
            "def load(context):\n"
            "    number = context.get_plugin('base').module.number\n"
            "    context.hook('ask:above', lambda: number)\n"
        )

    async with project(prepare) as one:
        one.save("base", "base", "number = 2")
        await one.reloaded("base")
        assert await one.ask("above") == 2
        one.save("base", "base", "del nothing")
        await one.failed("base")
        assert await one.ask("above") == 2


async def test_D8_both_of_two_plugins_that_change_together(project: Any) -> None:
    def prepare(one: Project) -> None:
        one.save("base", "base", "number = 1")
        one.save("above", "above", "dependencies = ['base']")

    async with project(prepare) as one:
        one.save("base", "base", "number = 2", version="2.0.0")
        one.save("above", "new", "dependencies = ['base>=2']")
        await one.reloaded("base")
        assert await one.ask("above") == "new"
        assert not [told for told in one.told if told[0] == "plugin:error"]


async def test_D8_what_a_new_version_needs_may_come_with_it_or_after_it(project: Any) -> None:
    async with project(three) as one:
        one.save("shop", "with bank", "dependencies = ['bank']")
        one.save("bank", "new")
        await one.reloaded("shop")
        assert await one.ask("shop") == "with bank"
        one.save("shop", "with other 2", "dependencies = ['other>=2']")
        await one.failed("shop")
        one.save("other", "there", version="2.0.0")
        await one.reloaded("shop")
        assert await one.ask("shop") == "with other 2"
        one.told.clear()
        one.save("early", "new")
        one.save("late", "new", "dependencies = ['early']")
        await one.reloaded("early")
        await one.reloaded("late")
        assert not [told for told in one.told if told[0] == "plugin:error"]


async def test_D8_what_fails_because_of_those_that_need_it_is_tried_when_they_change(
    project: Any,
) -> None:
    def prepare(one: Project) -> None:
        one.save("base", "one")
        one.save("middle", "one", "dependencies = ['base']")
        one.save("above", "one", "dependencies = ['middle', 'base<2']")

    async with project(prepare) as one:
        one.save("base", "two", version="2.0.0")
        await one.until("plugin:error", "above")
        path = one.save("above", "two", "dependencies = ['middle', 'base>=2']")
        await one.reloaded("base")
        assert await one.ask("base") == await one.ask("above") == "two"
        one.save("base", "three", "raise LookupError")
        await one.failed("base")
        one.told.clear()
        path.write_text(path.read_text())  # nothing is new
        one.save("middle", "new", "dependencies = ['base']")
        await one.failed("base")  # once: the other one has changed nothing
        await one.reloaded("middle")
        assert not [told for told in one.told if told[0] == "plugin:error"]


async def test_D8_a_service_that_goes_with_its_use(project: Any) -> None:
    def prepare(one: Project) -> None:
        (one.folder / "base.py").write_text(
            "name, version = 'base', '1'\ndef load(context): context.provide('s', 1)\n"
        )
        (one.folder / "user.py").write_text(
            "name, version, dependencies = 'user', '1', ['base']\n"
            "def load(context): context.hook('ask:user', lambda: context.use('s'))\n"
        )

    async with project(prepare) as one:
        assert await one.ask("user") == 1
        one.save("base", "without")
        one.save("user", "without", "dependencies = ['base']")
        await one.reloaded("base")
        assert await one.ask("base") == await one.ask("user") == "without"


async def test_D8_a_slow_load_and_a_file_that_is_saved_twice(project: Any) -> None:
    go_on = asyncio.Event()
    async with project(shop, app=go_on, timeout=60) as one:
        one.manager.on("plugin:reload", one._on("plugin:reload"))
        path = one.folder / "shop.py"
        path.write_text("name, version = 'shop', '2'\nasync def load(app): await app.wait()\n")
        await one.until("plugin:reload", "shop")
        path.write_text(path.read_text())
        await one.until("plugin:reload", "shop")
        go_on.set()
        await one.reloaded("shop")
        assert one.record("shop").version == "2"


async def test_D8_unwatched_files_and_files_that_are_written_all_the_time(project: Any) -> None:
    def prepare(one: Project) -> None:
        three(one)
        (one.folder / "pack").mkdir()
        (one.folder / "pack" / "__init__.py").write_text(
            "name, version = 'pack', '1'\ndef load(): pass\n"
        )

    async with project(prepare) as one:
        one.manager.unwatch("*.log")
        (one.folder / "pack" / "a.log").write_text("1")
        await one.nothing_more()
        for number in range(10):
            (one.folder / "pack" / "data.json").write_text(str(number))
            await one.reloaded("pack")
        (one.folder / "pack" / "data.json").write_text("once too often")
        await one.until("log", str(one.folder / "pack" / "data.json"))
        await one.nothing_more()


async def test_D8_settings_are_said_to_count_later(project: Any) -> None:
    async with project(shop) as one:
        (one.folder.parent / "veko.toml").write_text("[plugins.shop]\nsize = 1\n")
        await one.until("log", "the settings have changed")


async def test_D8_state_goes_over(project: Any) -> None:
    more = (
        "count = []\n"
        "def export_state(): return count\n"
        "def import_state(state, version): count.extend([*state, version])\n"
    )
    async with project(lambda one: one.save("shop", 1, more)) as one:
        one.save("shop", 2, more, version="1.1.0")
        await one.reloaded("shop")
        one.save("shop", 3, more, version="1.2.0")
        await one.reloaded("shop")
        assert one.record("shop").module.count == ["1.0.0", "1.1.0"]


# -- probation

FAILS = "def fails(): raise ValueError('new')\n"


async def fail(one: Project, times: int = 11) -> None:
    for _ in range(times):
        await one.manager.bus.emit("try:shop", None)


def fragile(one: Project, answer: str, version: str, *, fails: bool) -> None:
    body = f"raise ValueError({answer!r})" if fails else "return None"
    (one.folder / "shop.py").write_text(
        f"name, version = 'shop', {version!r}\n"
        "def load(context):\n"
        f"    context.hook('ask:shop', lambda: {answer!r})\n"
        "    context.hook('try:shop', attempt)\n"
        f"def attempt(value):\n    {body}\n"
    )


async def test_H_plugin_rollback_when_new_code_fails(project: Any) -> None:
    def prepare(one: Project) -> None:
        fragile(one, "old", "1.0.0", fails=False)
        one.save("other", "there")

    async with project(prepare, probation=60, required=("shop",)) as one:
        fragile(one, "new", "2.0.0", fails=True)
        await one.reloaded("shop")
        await fail(one, 10)
        assert await one.ask("shop") == "new"
        await fail(one, 1)
        _, name, record, why = await one.until("plugin:rollback")
        assert (name, record) == ("shop", one.record("shop"))
        assert "11 errors within 60 s" in why
        assert await one.ask("shop") == "old"
        assert one.record("shop").version == "1.0.0"
        assert one.manager.check_plugin_health("shop").health == "healthy"
        errors = [told[2] for told in one.told if told[0] == "plugin:error"]
        assert isinstance(errors[-1], ProbationError)
        assert "version 2.0.0 was rolled back to 1.0.0" in str(errors[-1])
        one.told.clear()
        (one.folder / "shop.py").touch()  # the same content does not come again
        await one.nothing_more()
        fragile(one, "mended", "2.0.1", fails=False)
        await one.reloaded("shop")
        assert await one.ask("shop") == "mended"


async def test_O14_two_reloads_at_once_leave_the_way_back(project: Any) -> None:
    def prepare(one: Project) -> None:
        fragile(one, "good", "1.0.0", fails=False)

    async with project(prepare, probation=60, allow_hot_reload=False) as one:
        fragile(one, "bad", "2.0.0", fails=True)
        reload = one.manager.reload_plugin
        await asyncio.gather(reload("shop"), reload("shop"))
        assert await one.ask("shop") == "bad"
        await fail(one, 11)
        await one.until("plugin:rollback")
        assert await one.ask("shop") == "good"


async def test_O14_the_last_that_stood_its_probation_is_gone_back_to(project: Any) -> None:
    def prepare(one: Project) -> None:
        fragile(one, "good", "1.0.0", fails=False)

    async with project(prepare, probation=60) as one:
        fragile(one, "first try", "2.0.0", fails=True)
        await one.reloaded("shop")
        fragile(one, "second try", "2.0.1", fails=True)
        await one.reloaded("shop")
        await fail(one)
        await one.until("plugin:rollback")
        assert await one.ask("shop") == "good"
        assert one.record("shop").active


async def test_O14_what_came_back_is_switched_off_as_any_other(project: Any) -> None:
    async with project(lambda one: fragile(one, "1", "1", fails=True), probation=60) as one:
        fragile(one, "2", "2", fails=True)
        await one.reloaded("shop")
        await fail(one)
        await one.until("plugin:rollback")
        await fail(one)
        assert not one.record("shop").active
        assert not [told for told in one.told if told[0] == "plugin:rollback"]


async def test_O14_probation_ends(project: Any) -> None:
    async with project(lambda one: fragile(one, "1", "1", fails=False), probation=0.05) as one:
        fragile(one, "2", "2", fails=True)
        await one.reloaded("shop")
        await one.until("log", "shop 2 has passed its probation")
        await fail(one)
        assert not one.record("shop").active
        assert one.record("shop").version == "2"


async def test_O14_a_state_that_cannot_go_back_is_left(project: Any) -> None:
    def version(one: Project, number: int, body: str) -> None:
        (one.folder / "shop.py").write_text(
            f"name, version = 'shop', '{number}'\n"
            "def load(context): context.hook('try:shop', attempt)\n"
            f"def attempt(value): {body}\n"
            "def export_state(): return version\n"
            "def import_state(state, version):\n"
            f"    if state > '{number}': raise ValueError('it is of a later version')\n"
        )

    async with project(lambda one: version(one, 1, "return"), probation=60) as one:
        version(one, 2, "1 / 0")
        await one.reloaded("shop")
        await fail(one)
        await one.until("plugin:rollback")
        assert one.record("shop").version == "1"
        assert one.record("shop").active


async def test_O14_a_package_comes_back_as_it_was(project: Any) -> None:
    def write(one: Project, answer: str, body: str) -> None:
        package = one.folder / "shop"
        package.mkdir(exist_ok=True)
        (package / "part.py").write_text(f"answer = {answer!r}\ndef attempt(value): {body}\n")
        (package / "__init__.py").write_text(
            "name, version = 'shop', '1'\n"
            "def load(context):\n"
            "    from .part import answer, attempt\n"
            "    context.hook('ask:shop', lambda: answer)\n"
            "    context.hook('try:shop', attempt)\n"
        )

    async with project(lambda one: write(one, "old", "return"), probation=60) as one:
        write(one, "new", "1 / 0")
        await one.reloaded("shop")
        assert await one.ask("shop") == "new"
        await fail(one)
        await one.until("plugin:rollback")
        assert await one.ask("shop") == "old"
