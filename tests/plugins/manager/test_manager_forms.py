"""Section M: what a plugin may be, what it says of itself, and its four functions."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from veko import Context, Plugin
from veko.errors import ManifestError
from veko_plugins import PluginManager


class Greeter(Plugin):
    name = "greeter"
    version = "1.2.0"
    description = "Greets."
    default_config = {"word": "hello"}

    def load(self, config: dict[str, str], context: Context) -> None:
        context.app.append((self.name, config["word"]))


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution that is really installed, as far as anything can tell."""
    site = tmp_path / "site"
    info = site / "veko_tiny_thing-3.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: veko-tiny-thing\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[veko.plugins]\ntiny = veko_tiny_thing:plugin\n")
    (info / "RECORD").write_text("")
    (site / "veko_tiny_thing.py").write_text(
        "from veko import Plugin\n"
        "class plugin(Plugin):\n"
        "    name = 'tiny'\n"
        "    version = '3.1'\n"
        "    def load(self, app): app.append('tiny')\n"
    )
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("veko_tiny_thing", None)


async def test_M_a_module_file(home: Any) -> None:
    home.plugin("filed", "def load(app): app.append(1)", description="A file.")
    seen: list[int] = []
    async with home.manager(seen) as manager:
        plugin = manager.get_plugin("filed")
        assert seen == [1]
        assert (plugin.name, plugin.version) == ("filed", "1.0.0")
        assert plugin.source == home.folder / "filed.py"
        assert isinstance(plugin.module, types.ModuleType)
        assert plugin.module.description == "A file."


async def test_M_a_package_folder_without_plugin_toml(home: Any) -> None:
    home.package(
        "pack",
        """
        from .inside import word
        name, version = "pack", "2.0"
        def load(app): app.append(word)
        """,
        inside="word = 'from inside'",
    )
    seen: list[str] = []
    async with home.manager(seen) as manager:
        assert seen == ["from inside"]
        assert manager.get_plugin("pack").source == home.folder / "pack"


async def test_M_a_package_folder_with_plugin_toml(home: Any) -> None:
    path = home.package("pack", "def load(app, config): app.append(config)")
    (path / "plugin.toml").write_text(
        'name = "packed"\nversion = "2.1"\ndescription = "Told in TOML."\n'
        'dependencies = ["base"]\n[default_config]\nsize = 3\n'
    )
    home.plugin("base")
    seen: list[dict[str, int]] = []
    async with home.manager(seen) as manager:
        (info,) = [info for info in manager.list_plugins() if info.name == "packed"]
        assert (info.version, info.description) == ("2.1", "Told in TOML.")
        assert info.dependencies == ("base",)
        assert seen == [{"size": 3}]


async def test_M_a_folder_and_a_file_with_a_class_in_it(home: Any) -> None:
    body = """
    from veko import Plugin

    class Counting(Plugin):
        name = "{0}"
        version = "1.0.0"

        def load(self, app):
            app.append(self.name)
    """
    home.package("folder", body.format("folder"))
    (home.folder / "file.py").write_text(
        (home.folder / "folder" / "__init__.py").read_text().replace('"folder"', '"file"')
    )
    seen: list[str] = []
    async with home.manager(seen) as manager:
        assert sorted(seen) == ["file", "folder"]
        assert {info.name for info in manager.list_plugins()} == {"file", "folder"}


async def test_M_a_subclass_an_instance_and_reloading_them(home: Any) -> None:
    seen: list[tuple[str, str]] = []
    async with home.manager(seen) as manager:
        plugin = await manager.load_plugin(Greeter)
        assert (plugin.name, plugin.version, plugin.source) == ("greeter", "1.2.0", None)
        await manager.unload_plugin("greeter")
        instance = Greeter()
        plugin = await manager.load_plugin(instance, {"word": "hi"})
        assert plugin.module is instance
        await manager.reload_plugin("greeter", {"word": "hey"})
        assert seen == [("greeter", "hello"), ("greeter", "hi"), ("greeter", "hey")]


async def test_M_a_mapping(home: Any) -> None:
    seen: list[object] = []
    mapping = {
        "name": "mapped",
        "version": "0.1.0",
        "default_config": {"a": 1},
        "load": lambda app, config, context: seen.append((app, config, context.name)),
        "unload": lambda: seen.append("unload"),
        "helper": len,
    }
    async with home.manager("the app") as manager:
        plugin = await manager.load_plugin(mapping)
        assert plugin.exports["helper"] is len
        await manager.reload_plugin("mapped", {"a": 2})
        await manager.unload_plugin("mapped")
    assert seen == [
        ("the app", {"a": 1}, "mapped"),
        ("the app", {"a": 2}, "mapped"),
        "unload",
        "unload",
    ]


async def test_M_a_module_object(home: Any) -> None:
    module = types.ModuleType("by_hand")
    seen: list[str] = []
    vars(module).update(name="by-hand", version="1.0.0", load=lambda: seen.append("loaded"))
    async with home.manager() as manager:
        assert (await manager.load_plugin(module)).module is module
        assert seen == ["loaded"]


async def test_M_what_the_builder_builds(home: Any, serve: Any) -> None:
    seen: list[str] = []

    async def shout(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-shout"] = "yes"
        return response

    builder = PluginManager.create_plugin_builder()
    plugin = (
        builder.name("built")
        .version("2.0.0")
        .description("Built.")
        .author("Somebody")
        .depends(["base"])
        .config({"option": True})
        .route("GET", "/built", lambda: {"built": True})
        .middleware(shout)
        .hook("app:start", lambda: seen.append("hook"))
        .command("built:test", lambda: "ran", "A test.")
        .load(lambda config, context: seen.append(f"{context.name} {config}"))
        .build()
    )
    home.plugin("base")
    async with home.manager() as manager, serve(manager) as client:
        loaded = await manager.load_plugin(plugin)
        assert (loaded.version, loaded.manifest.author) == ("2.0.0", "Somebody")
        assert loaded.manifest.dependencies == ("base",)
        assert seen == ["built {'option': True}"]
        answer = await client.get("/built")
        assert (answer.json(), answer.headers["x-shout"]) == ({"built": True}, "yes")
        assert await manager.run_command("built:test") == "ran"
        await manager.bus.emit("app:start")
        assert seen[1:] == ["hook"]
        with pytest.raises(ManifestError, match="name is missing"):
            manager.create_plugin_builder().load(lambda: None).build()


async def test_D10_create_simple_plugin(home: Any) -> None:
    seen: list[object] = []
    async with home.manager() as manager:
        plugin = manager.create_simple_plugin(
            "simple", lambda context: seen.append(context.name), description="One function."
        )
        assert (plugin.manifest.name, plugin.manifest.description) == ("simple", "One function.")
        await manager.load_plugin(plugin)
        assert seen == ["simple"]


async def test_M_an_entry_point_of_an_installed_distribution(home: Any, distribution: Path) -> None:
    seen: list[str] = []
    async with home.manager(seen) as manager:
        assert seen == ["tiny"]
        assert manager.report.loaded == ["tiny"]
        await manager.unload_plugin("tiny")
        plugin = await manager.load_plugin("tiny")
        assert plugin.version == "3.1"
        await manager.reload_plugin("tiny")
        assert seen == ["tiny"] * 3


async def test_M1_M2_what_a_plugin_says_of_itself(home: Any) -> None:
    said = {
        "version": "1.2.3rc1",
        "description": "D",
        "author": "A",
        "license": "MIT",
        "homepage": "https://h.example",
        "repository": "https://r.example/x.git",
    }
    home.plugin("told-0.1_x", **said)
    async with home.manager() as manager:
        manifest = manager.get_plugin("told-0.1_x").manifest
        assert {key: getattr(manifest, key) for key in said} == said


@pytest.mark.parametrize("name", ["../x", "", "A", "a b", "-a", "é", "a" * 300, 7])
async def test_M1_names_that_are_none(home: Any, name: object) -> None:
    async with home.manager() as manager:
        with pytest.raises(ManifestError) as caught:
            await manager.load_plugin({"name": name, "version": "1", "load": lambda: None})
        assert "name" in str(caught.value)
        assert len(str(caught.value)) < 400
        assert manager.list_plugins() == []


async def test_M1_all_faults_are_told_at_once(home: Any) -> None:
    async with home.manager() as manager:
        with pytest.raises(ManifestError) as caught:
            await manager.load_plugin({"dependencies": "auth", "priority": "high", "load": 1})
        for word in ("name", "version", "dependencies", "priority", "load"):
            assert word in str(caught.value)


async def test_M3_dependencies_are_plugins_with_ranges(home: Any) -> None:
    home.plugin("db", version="2.5")
    home.plugin("good", dependencies=["db>=2,<3"])
    home.plugin("bad", dependencies=["db>=3"])
    async with home.manager() as manager:
        assert {info.name for info in manager.list_plugins()} == {"db", "good"}
        told = str(manager.report.failed["bad"])
        assert "db" in told
        assert "2.5" in told
        assert ">=3" in told
        with pytest.raises(Exception, match=r"db.*2\.5"):
            await manager.load_plugin("bad")


async def test_M6_default_config_is_merged_deep(home: Any) -> None:
    home.plugin(
        "configured",
        "def load(app, config): app.append(config)",
        default_config={"a": {"b": 1, "c": [1, 2]}, "d": 1},
    )
    seen: list[dict[str, Any]] = []
    settings = {"configured": {"a": {"b": 2}}}
    async with home.manager(seen, auto_load=False, plugins=settings) as manager:
        await manager.load_plugin("configured", {"a": {"c": [3]}, "e": None})
        assert seen == [{"a": {"b": 2, "c": [3]}, "d": 1, "e": None}]
        plugin = manager.get_plugin("configured")
        plugin.config["a"]["c"].append(4)
        await manager.unload_plugin("configured")
        await manager.load_plugin("configured")
        assert seen[1] == {"a": {"b": 2, "c": [1, 2]}, "d": 1}


async def test_M11_higher_priority_loads_first(home: Any) -> None:
    body = "def load(app, context): app.append(context.name)"
    home.plugin("a", body, priority=1)
    home.plugin("b", body)
    home.plugin("c", body, priority=30.5)
    home.plugin("d", body, priority=99, dependencies=["a"])
    seen: list[str] = []
    async with home.manager(seen) as manager:
        assert manager.get_plugin("b").manifest.priority == 10
    assert seen == ["c", "b", "a", "d"]


ARGUMENTS = {
    "load()": [],
    "load(app, config, context)": ["app", "config", "context"],
    "load(context)": ["context"],
    "load(context, app)": ["context", "app"],
    "load(config, *, app)": ["config", "app"],
    "load(app, extra=1)": ["app"],
}


@pytest.mark.parametrize("how", ["def", "async def"])
@pytest.mark.parametrize("signature", ARGUMENTS)
async def test_M12_load_gets_the_arguments_that_it_names(
    home: Any, how: str, signature: str
) -> None:
    home.plugin("args", f"seen = {{}}\n{how} {signature}:\n    seen.update(locals())")
    async with home.manager("the app") as manager:
        plugin = manager.get_plugin("args")
        seen = {key: value for key, value in plugin.module.seen.items() if key != "extra"}
        assert list(seen) == ARGUMENTS[signature] or set(seen) == set(ARGUMENTS[signature])
        assert seen.get("app", "the app") == "the app"
        assert seen.get("config", {}) == {}
        assert "context" not in seen or seen["context"].name == "args"


async def test_M12_load_that_names_something_else_is_refused(home: Any) -> None:
    home.plugin("args", "def load(application): pass")
    async with home.manager() as manager:
        told = str(manager.report.failed["args"])
        assert "application" in told
        assert "app, config, context" in told


@pytest.mark.parametrize("how", ["def", "async def"])
async def test_M13_unload_activate_and_deactivate(home: Any, how: str) -> None:
    steps = ("load", "unload", "activate", "deactivate")
    home.plugin(
        "steps",
        "\n".join(f"{how} {step}(app, config): app.append('{step}')" for step in steps),
    )
    seen: list[str] = []
    async with home.manager(seen) as manager:
        assert seen == ["load", "activate"]
        await manager.toggle_plugin("steps", False)
        assert seen[2:] == ["deactivate"]
        await manager.toggle_plugin("steps", True)
        assert seen[3:] == ["activate"]
        await manager.unload_plugin("steps")
        assert seen[4:] == ["deactivate", "unload"]
        await manager.load_plugin("steps")
        del seen[:]
    assert seen == ["deactivate", "unload"]


async def test_M13_an_inactive_plugin_is_not_deactivated_again(home: Any) -> None:
    steps = ("load", "unload", "activate", "deactivate")
    home.plugin("steps", "\n".join(f"def {step}(app): app.append('{step}')" for step in steps))
    seen: list[str] = []
    async with home.manager(seen) as manager:
        await manager.toggle_plugin("steps")
        del seen[:]
        await manager.unload_plugin("steps")
        assert seen == ["unload"]
