"""What a plugin is: every form becomes a Plugin with a checked manifest, all faults at once."""

import types
from pathlib import Path
from typing import Any

import pytest

from veko import Kernel, Manifest, ManifestError, Plugin, as_plugin

FULL: dict[str, Any] = {
    "name": "full.plugin-1_x",
    "version": "1.2.3",
    "description": "All fields.",
    "author": "Somebody",
    "license": "MIT",
    "homepage": "https://example.org",
    "repository": "https://example.org/git",
    "dependencies": ["auth", "db>=2,<3"],
    "peer_dependencies": ["msgspec>=0.19"],
    "engines": {"python": ">=3.11"},
    "default_config": {"a": 1},
    "config_schema": {"type": "object"},
    "hooks": ["app:start"],
    "permissions": ["read:files"],
    "type": "api",
    "priority": 20,
    "reload": "restart",
}


def load(context: Any) -> None: ...


def in_form(form: str, fields: dict[str, Any]) -> Any:
    if form == "mapping":
        return fields
    if form == "module":
        module = types.ModuleType("made")
        vars(module).update(fields)
        return module
    functions = {k: staticmethod(v) if callable(v) else v for k, v in fields.items()}
    made = type("Made", (Plugin,), functions)
    return made if form == "class" else made()


FORMS = pytest.mark.parametrize("form", ["mapping", "module", "class", "instance"])


@FORMS
def test_every_form_gives_the_same_manifest(form: str) -> None:
    obj = in_form(form, {**FULL, "load": load})
    made = as_plugin(obj, source=Path("somewhere.py"))
    assert isinstance(made, Plugin)
    manifest = made.manifest
    assert isinstance(manifest, Manifest)
    for field, value in FULL.items():
        assert getattr(manifest, field) == (tuple(value) if isinstance(value, list) else value)
    assert made.source == Path("somewhere.py")
    assert made.life_cycle("load") is not None
    assert made.life_cycle("unload") is None
    assert "full.plugin-1_x" in repr(made)


@FORMS
def test_defaults(form: str) -> None:
    manifest = as_plugin(in_form(form, {"name": "p", "version": "1", "load": load})).manifest
    assert manifest == Manifest(name="p", version="1")
    assert (manifest.priority, manifest.reload, manifest.type) == (10, "swap", None)


@FORMS
def test_all_faults_at_once(form: str) -> None:
    with pytest.raises(ManifestError) as caught:
        as_plugin(
            in_form(form, {"name": "Bad Name", "priority": "high", "reload": "never", "unload": 3}),
            source=Path("bad.py"),
        )
    message = str(caught.value)
    for fault in ("version is missing", "Bad Name", "priority", "'never'", "load() is missing"):
        assert fault in message
    assert caught.value.path == Path("bad.py")
    assert "bad.py" in message
    paths = [fault.path for fault in caught.value.faults]
    assert sorted(paths) == ["load()", "name", "priority", "reload", "unload", "version"]


@pytest.mark.parametrize("name", ["", "-a", ".a", "A", "a b", "a/b", "a:b", "é", "a" * 129])
def test_names_that_are_not_sound(name: str) -> None:
    with pytest.raises(ManifestError, match="name"):
        as_plugin({"name": name, "version": "1", "load": load})


@pytest.mark.parametrize("obj", [3, None, "text", object(), load])
def test_what_is_no_plugin(obj: Any) -> None:
    with pytest.raises(ManifestError, match="is not a plugin"):
        as_plugin(obj)


def test_an_unknown_required_argument_is_a_fault() -> None:
    with pytest.raises(ManifestError, match="request"):
        as_plugin({"name": "p", "version": "1", "load": lambda context, request: None})
    as_plugin({"name": "p", "version": "1", "load": lambda context, request=None: None})


def test_exports_are_the_public_names_unless_given() -> None:
    module = in_form("module", {"name": "p", "version": "1", "load": load, "x": 1, "_y": 2})
    exports = as_plugin(module).exports
    assert exports["x"] == 1
    assert "_y" not in exports
    module.exports = {"only": "this"}
    assert as_plugin(module).exports == {"only": "this"}
    assert as_plugin(module).module is module


CALLS: dict[str, tuple[Any, Any]] = {
    "none": (lambda: (), ()),
    "one": (lambda config: (config,), ("config",)),
    "other order": (lambda context, app: (context, app), ("context", "app")),
    "all": (lambda app, config, context: (app, config, context), ("app", "config", "context")),
    "default": (lambda context, extra=1: (context, extra), ("context", 1)),
    "star": (lambda *args: args, ("app", "config", "context")),
    "named": (lambda **named: named, {"app": "app", "config": "config", "context": "context"}),
    "keyword only": (lambda *, context: (context,), ("context",)),
}


@pytest.mark.parametrize("call", CALLS)
def test_functions_get_the_arguments_that_they_name(call: str) -> None:
    function, expected = CALLS[call]
    made = as_plugin({"name": "p", "version": "1", "load": function})
    assert made.call_life_cycle("load", "app", "config", "context") == expected


def test_positional_only_arguments() -> None:
    def function(app: Any, /, context: Any) -> tuple[Any, Any]:
        return app, context

    made = as_plugin({"name": "p", "version": "1", "load": function})
    assert made.call_life_cycle("load", "app", "config", "context") == ("app", "context")


@pytest.mark.anyio
@FORMS
async def test_every_form_loads(kernel: Kernel, form: str) -> None:
    seen: list[Any] = []

    async def loads(context: Any, config: Any) -> None:
        seen.append((context.name, config))

    obj = in_form(form, {"name": "p", "version": "1", "load": loads})
    record = await kernel.load(obj, {"a": 1})
    assert seen == [("p", {"a": 1})]
    assert record.module is (obj if form != "class" else record.plugin)
    await kernel.unload("p")
    await kernel.load(obj)
    assert len(seen) == 2


@pytest.mark.anyio
async def test_a_bad_manifest_leaves_no_trace(kernel: Kernel) -> None:
    with pytest.raises(ManifestError):
        await kernel.load({"name": "p", "load": load})
    assert kernel.records() == ()


def test_exports_leave_out_what_is_computed() -> None:
    class Counting(Plugin):
        name = "counting"
        version = "1"
        limit = 3

        def load(self) -> None:
            self.count = 0

        @property
        def left(self) -> int:
            return self.limit - self.count

    made = as_plugin(Counting)
    assert made.exports["limit"] == 3
    assert "left" not in made.exports


def test_a_class_may_use_ordinary_names_for_its_own() -> None:
    class Busy(Plugin):
        name = "busy"
        version = "1"

        def load(self) -> str:
            return self.call() + self.step()

        def call(self) -> str:
            return "own "

        def step(self) -> str:
            return "names"

    assert as_plugin(Busy).call_life_cycle("load", None, None, None) == "own names"


def test_a_plugin_that_was_a_mapping_has_the_fields_of_its_manifest() -> None:
    plugin = as_plugin({"name": "shop", "version": "2.0.0", "author": "me", "load": lambda: None})
    assert (plugin.name, plugin.version) == ("shop", "2.0.0")
    assert getattr(plugin, "author") == "me"  # noqa: B009
    assert not hasattr(plugin, "autor")
    assert as_plugin(plugin).manifest == plugin.manifest
