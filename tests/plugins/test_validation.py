"""Manifests, engines, peers, hooks and schemas: all faults at once, before anything runs."""

import asyncio
import itertools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from veko import ConfigError, DependencyError, Kernel, ManifestError, PluginRecord, VekoError
from veko_plugins import PluginManager
from veko_plugins._lib.manifests import PERMISSIONS, TYPES, findings
from veko_plugins._lib.secret_fields import MASK, masked, secret_names
from veko_plugins.manager import loading
from veko_plugins.validation import ValidationReport

pytestmark = pytest.mark.anyio

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a plugin of one file and return its path."""
    folder = tmp_path / "plugins"
    folder.mkdir()

    def write(name: str, body: str = "def load(): pass", **manifest: object) -> Path:
        fields = {"name": name, "version": "1.0.0", **manifest}
        lines = [f"{key} = {value!r}" for key, value in fields.items()]
        path = folder / f"{name}.py"
        path.write_text("\n".join([*lines, body]) + "\n")
        return path

    return write


def manager_of(make: Make, tmp_path: Path, **options: Any) -> PluginManager:
    given = {"max_retries": 0, "adapter": None, "storage": "sqlite:///:memory:", **options}
    return PluginManager(root=tmp_path, **given)


@pytest.fixture
def manage(make: Make, tmp_path: Path) -> Callable[..., PluginManager]:
    """Make a manager of the written plugins."""
    return lambda **options: manager_of(make, tmp_path, **options)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# -- manifests

WRONG: dict[str, tuple[object, str]] = {
    "version": ("one", "version: expected one of PEP 440 or SemVer (1.2.0"),
    "dependencies": (["ok", "???"], "dependencies[1]: expected a plugin and a range"),
    "peer_dependencies": (["((("], "peer_dependencies[0]: expected a requirement of PEP 508"),
    "engines": ({"veko": "newest"}, "engines.veko: 'newest' is neither a PEP 440 nor an npm"),
    "permissions": (["net:conect"], "permissions[0]: expected one of env:read"),
    "hooks": (["app::start"], "hooks[0]: expected the name of an event or a pattern"),
    "type": ("midleware", "type: expected one of api, auth"),
    "config_schema": ({"type": "objct"}, "config_schema is not a JSON Schema: type:"),
}


@pytest.mark.parametrize("field", WRONG)
async def test_M_each_wrong_value_names_field_value_and_what_was_expected(
    make: Make, manage: Callable[..., PluginManager], field: str
) -> None:
    value, fault = WRONG[field]
    make("good")
    path = make("bad", f"{field} = {value!r}\ndef load(): raise SystemError('it ran')")
    async with manage() as manager:
        error = manager.report.failed["bad"]
        assert isinstance(error, VekoError)
        assert fault in str(error)
        assert error.plugin == "bad"
        assert error.path == path
        if field not in {"engines", "config_schema"}:
            shown = value if isinstance(value, str) else list(value)[-1]  # type: ignore[call-overload]
            assert repr(shown) in str(error)
        assert manager.report.loaded == ["good"]


async def test_M_all_wrong_values_and_types_at_once(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    fields: dict[str, object] = {key: value for key, (value, _) in WRONG.items()}
    make("bad", **fields)
    make("typed", **fields | {"priority": "high", "hooks": [3, "a::b", 4], "description": 5})
    make("signed", "def load(a): pass", version="one")
    async with manage() as manager:
        text = str(manager.report.failed["bad"])
        for _, fault in WRONG.values():
            assert fault in text
        typed = str(manager.report.failed["typed"])
        for fault in (
            "priority: expected `float`, got `str`; it is 'high'",
            "hooks[0]: expected `str`, got `int`; it is 3",
            "hooks[1]: expected the name of an event",
            "hooks[2]: expected `str`, got `int`; it is 4",
            "description: expected `str`, got `int`; it is 5",
            *(fault for field, (_, fault) in WRONG.items() if field != "hooks"),
        ):
            assert fault in typed
        signed = str(manager.report.failed["signed"])
        assert "load(): unknown parameter 'a'" in signed
        assert "version: expected" in signed
        for error in manager.report.failed.values():
            assert isinstance(error, ManifestError)


async def test_M_an_object_is_checked_like_a_file(manage: Callable[..., PluginManager]) -> None:
    plugin = {"name": "given", "version": "one", "type": "odd", "load": lambda: None}
    async with manage() as manager:
        errors: list[str] = []
        manager.on("plugin:error", lambda name, error: errors.append(name))
        with pytest.raises(ManifestError, match=r"version: .*; type: "):
            await manager.load_plugin(plugin)
        assert errors == ["given"]
        assert manager.get_plugin("given") is None


async def test_M_a_reload_is_checked_too(make: Make, manage: Callable[..., PluginManager]) -> None:
    make("guest")
    async with manage() as manager:
        make("guest", permissions=["fly"])
        with pytest.raises(ManifestError, match=r"permissions\[0\]"):
            await manager.reload_plugin("guest")
        assert manager.get_plugin("guest").active  # type: ignore[union-attr]


async def test_O7_without_validation_values_are_not_looked_at(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    make("odd", permissions=["fly"], type="odd", engines={"python": "<3"}, version="one")
    async with manage(enable_validation=False) as manager:
        assert manager.report.loaded == ["odd"]
    async with manage(core={"validation": None}) as manager:
        assert manager.report.loaded == ["odd"]


@pytest.mark.parametrize(
    "given", ["1.0", "2.0.0rc1", "1!2.0", "2.0.0-rc.1", "1.2.3-alpha+build.5", "0.0.0", "v1.2.0"]
)
def test_M1_versions_of_both_kinds(given: str) -> None:
    assert findings({"version": given}).errors == []


@pytest.mark.parametrize("given", ["one", "1.2.x", "1..2", "1.2.3-", " ", "^1.2.0"])
def test_M1_what_is_no_version(given: str) -> None:
    assert findings({"version": given}).errors


@pytest.mark.parametrize(
    "given",
    [
        "https://example.com",
        "http://localhost:8000/x",
        "git+https://example.com/a/b.git",
        "git@example.com:a/b.git",
        "github:a/b",
        "a/b",
    ],
)
def test_M2_places_of_a_repository(given: str) -> None:
    assert findings({"repository": given}).warnings == []


async def test_M2_what_is_no_url_is_a_warning(
    make: Make, manage: Callable[..., PluginManager], caplog: pytest.LogCaptureFixture
) -> None:
    make("homely", homepage="nowhere", repository="some where", license="MIT")
    async with manage() as manager:
        assert manager.report.loaded == ["homely"]
    text = "\n".join(warnings(caplog))
    assert "homely: homepage: expected a URL (https://…); it is 'nowhere'" in text
    assert "homely: repository: expected a URL" in text


async def test_M3_what_is_needed_and_what_is_wrong_are_told_together(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    make("base", version="1.5.0")
    make("bad", dependencies=["base@^2.0.0", "nowhere"], permissions=["fly"])
    async with manage() as manager:
        text = str(manager.report.failed["bad"])
        for words in ("permissions[0]", "'base' is 1.5.0", "'nowhere' is missing"):
            assert words in text
        with pytest.raises(DependencyError) as caught:
            await manager.load_plugin(
                {
                    "name": "late",
                    "version": "1",
                    "load": lambda: None,
                    "dependencies": ["base<1"],
                    "engines": {"python": "<3"},
                }
            )
        assert "'base' is 1.5.0" in str(caught.value)
        assert "engines.python: <3 is wanted" in str(caught.value)


PEERS = {
    "nosuch-thing>=1": "nosuch-thing>=1 is wanted, nosuch-thing is not installed",
    "msgspec>=999": f"msgspec>=999 is wanted, msgspec {version('msgspec')} is installed",
}


async def test_M4_a_missing_or_wrong_peer_is_a_warning(
    make: Make, manage: Callable[..., PluginManager], caplog: pytest.LogCaptureFixture
) -> None:
    peers = [*PEERS, "msgspec", "anyio>=1,<99", "nosuch; python_version < '3'", "msgspec[x]"]
    make("peering", peer_dependencies=peers)
    async with manage() as manager:
        assert manager.report.loaded == ["peering"]
        await manager.reload_plugin("peering")
    told = [text for text in warnings(caplog) if "peer" in text]
    assert len(told) == 2, "each once"
    for number, words in enumerate(PEERS.values()):
        assert f"peering: peer_dependencies[{number}]: {words}" in told[number]


async def test_M4_strict_peers_make_it_an_error(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    make("peering", peer_dependencies=list(PEERS))
    make("fitting", peer_dependencies=["msgspec>=0.1"])
    async with manage(strict_peers=True) as manager:
        assert manager.report.loaded == ["fitting"]
        error = manager.report.failed["peering"]
        assert isinstance(error, DependencyError)
        for words in PEERS.values():
            assert words in str(error)


@pytest.mark.parametrize(
    ("engines", "fault"),
    [
        ({"python": ">=3.11", "veko": ">=1"}, None),
        ({"veko": "^2.0.0"}, None),
        ({"veko": "2.x", "python": "~3"}, None),
        ({"veko": "^1.0.0"}, "engines.veko: ^1.0.0 is wanted, this is 2"),
        ({"python": "~2.7"}, "engines.python: ~2.7 is wanted"),
        ({"node": ">=18"}, None),
        ({"pyton": ">=3"}, "engines.pyton: there is no such engine. Did you mean 'python'?"),
    ],
)
async def test_M5_engines(
    make: Make, manage: Callable[..., PluginManager], engines: object, fault: str | None
) -> None:
    make("picky", engines=engines)
    async with manage() as manager:
        if fault is None:
            assert manager.report.loaded == ["picky"]
        else:
            assert isinstance(manager.report.failed["picky"], DependencyError)
            assert fault in str(manager.report.failed["picky"])


async def test_M5_a_runtime_says_which_node_it_stands_for(
    manage: Callable[..., PluginManager],
) -> None:
    def picky(engine: str) -> dict[str, Any]:
        return {"name": "picky", "version": "1", "load": lambda: 0, "engines": {"node": engine}}

    async with manage() as manager:
        await manager.load_plugin(
            {
                "name": "runtime",
                "version": "1",
                "load": lambda context: context.provide("engine:node", "22.4.1"),
            }
        )
        assert (await manager.load_plugin(picky(">=18"))).active
        await manager.unload_plugin("picky")
        with pytest.raises(DependencyError, match=r"\^20 is wanted, this is 22\.4\.1"):
            await manager.load_plugin(picky("^20"))
        await manager.unload_plugin("runtime")
        # Python runs without one: it is a warning only.
        assert (await manager.load_plugin(picky("^20"))).active


# -- M7: schemas


class Login(msgspec.Struct):
    user: str
    password: Annotated[str, msgspec.Meta(min_length=8, extra={"secret": True})]


class Model(pydantic.BaseModel):
    title: str
    port: int = pydantic.Field(25, ge=1)
    tags: list[int] = []
    token: pydantic.SecretStr = pydantic.SecretStr("hunter2-default")
    pin: str = pydantic.Field("0000", min_length=4, json_schema_extra={"writeOnly": True})


@pydantic.dataclasses.dataclass
class Drawn:
    width: int
    height: int = 2


async def test_M7_a_pydantic_model_is_what_config_is(manage: Callable[..., PluginManager]) -> None:
    seen: list[Any] = []

    def plugin(schema: object, **default: object) -> dict[str, Any]:
        return {
            "name": "modelled",
            "version": "1",
            "config_schema": schema,
            "default_config": default,
            "load": lambda config: seen.append(config),
        }

    async with manage() as manager:
        record = await manager.load_plugin(plugin(Model, title="T"), {"port": 80})
        assert seen == [Model(title="T", port=80)]
        assert record.config is seen[0]
        changed = await manager.kernel.update_config("modelled", {"tags": ["3"]})
        assert changed == Model(title="T", port=80, tags=[3])
        bad = {"title": None, "port": 0, "tags": [1, "x"], "token": 3, "pin": "007"}
        with pytest.raises(ConfigError) as caught:
            await manager.kernel.update_config("modelled", bad)
        text = str(caught.value)
        for words in (
            "title: input should be a valid string; it is None",
            "port: input should be greater than or equal to 1; it is 0",
            "tags[1]: input should be a valid integer",
            "token: input should be a valid string",
            "pin: string should have at least 4 characters",
        ):
            assert words in text
        assert "007" not in text
        assert record.config == changed
        await manager.unload_plugin("modelled")
        with pytest.raises(ConfigError, match="title is missing"):
            await manager.load_plugin(plugin(Model))
        await manager.load_plugin(plugin(Drawn), {"width": 3})
        assert seen[-1] == Drawn(3, 2)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objct"},
        {"properties": []},
        {"$ref": "file:///etc/hostname"},
        "Shop",
        3,
        ["a"],
        object(),
        type("Bare", (), {"__init__": lambda self, a: None}),
        lambda config: config,
    ],
)
async def test_M7_a_schema_that_is_none_is_told_at_load(
    manage: Callable[..., PluginManager], schema: object
) -> None:
    loaded: list[str] = []
    plugin = {"name": "shop", "version": "1", "load": lambda: loaded.append("x")}
    async with manage() as manager:
        with pytest.raises(ConfigError, match="config_schema is ") as caught:
            await manager.load_plugin({**plugin, "config_schema": schema})
        assert caught.value.plugin == "shop"
        assert caught.value.remedy
        assert loaded == []
        assert (await manager.load_plugin(plugin)).active


# -- secrets

JSON_SCHEMA = {
    "type": "object",
    "properties": {
        "user": {"type": "string"},
        "password": {"type": "string", "format": "password"},
        "keys": {"type": "array", "items": {"type": "string", "writeOnly": True}},
        "named": {"type": "object", "additionalProperties": {"$ref": "#/$defs/secret"}},
        "nested": {"properties": {"token": {"anyOf": [{"writeOnly": True}, {"type": "null"}]}}},
    },
    "$defs": {"secret": {"writeOnly": True}},
}


@dataclass
class Outer:
    logins: list[Login]
    by_name: dict[str, Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": True})]]
    maybe: Annotated[str, msgspec.Meta(extra={"secret": True})] | None = None
    folder: Path = Path("data")


class Renamed(msgspec.Struct, rename="camel"):
    api_key: Annotated[str, msgspec.Meta(extra={"secret": True})]
    more: "Renamed | None" = None


@pytest.mark.parametrize(
    ("config", "schema", "shown"),
    [
        ({"a": {"b": 1}}, None, {"a": {"b": 1}}),
        ({"a": 1}, True, {"a": 1}),
        (
            {
                "user": "u",
                "password": "hunter2",
                "keys": ["hunter2"],
                "named": {"a": "hunter2"},
                "nested": {"token": "hunter2", "x": 1},
            },
            JSON_SCHEMA,
            {
                "user": "u",
                "password": MASK,
                "keys": MASK,
                "named": MASK,
                "nested": {"token": MASK, "x": 1},
            },
        ),
        ({"x": "hunter2"}, {"additionalProperties": {"writeOnly": True}}, {"x": MASK}),
        (Login("u", "hunter2!"), Login, {"user": "u", "password": MASK}),
        ({"user": "u", "password": 3}, Login, {"user": "u", "password": MASK}),
        (
            Outer([Login("u", "hunter2!")], {"a": "hunter2"}, "hunter2"),
            Outer,
            {
                "logins": [{"user": "u", "password": MASK}],
                "by_name": MASK,
                "maybe": MASK,
                "folder": "data",
            },
        ),
        (
            Renamed("hunter2", Renamed("hunter2")),
            Renamed,
            {"apiKey": MASK, "more": {"apiKey": MASK, "more": None}},
        ),
        (
            Model(title="T", token=pydantic.SecretStr("hunter2"), pin="hunter2"),
            Model,
            {"title": "T", "port": 25, "tags": [], "token": MASK, "pin": MASK},
        ),
    ],
)
def test_M7_secrets_are_masked(config: object, schema: object, shown: object) -> None:
    got = masked(config, schema)
    assert got == shown
    assert b"hunter2" not in msgspec.json.encode(got)


def test_M7_names_of_secrets() -> None:
    assert secret_names(Login) == {"password"}
    assert secret_names(JSON_SCHEMA) == {"password", "keys", "named", "token"}
    assert secret_names(None) == set()


async def test_M7_no_secret_in_errors_logs_or_what_the_manager_shows(
    manage: Callable[..., PluginManager], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fields = {"name": "shop", "version": "1", "load": lambda: None, "config_schema": Login}
    good = {"user": "u", "password": "hunter2-long"}
    async with manage() as manager:
        with pytest.raises(ConfigError) as caught:
            await manager.load_plugin(fields, {"user": 3, "password": "hunter2"})
        shown = [str(caught.value), repr(caught.value)]
        record = await manager.load_plugin(fields, good)
        with pytest.raises(ConfigError) as caught:
            await manager.kernel.update_config("shop", {"password": "hunter2", "user": []})
        shown += [str(caught.value), repr(record), repr(record.current), repr(record.plugin)]
        shown += [repr(manager.list_plugins()), repr(manager.get_stats()), repr(manager.report)]
        shown += [repr(manager.use("validation").masked(record.config, Login)), repr(manager)]
        assert record.config.password == "hunter2-long"
    assert "hunter2" not in "\n".join([*shown, caplog.text])


# -- hooks, permissions, types


async def test_M8_declared_hooks_are_checked_against_the_catalogue(
    make: Make, manage: Callable[..., PluginManager], caplog: pytest.LogCaptureFixture
) -> None:
    declares = (
        "from veko import Event\n"
        "def load(context): context.declare(Event('shop:sold', doc='Something was sold.'))"
    )
    make("a", hooks=["app:strat", "app:start", "shop:sold", "plugin:*", "plugin:b:mine", "x:y"])
    make("shop", declares)
    async with manage() as manager:
        assert set(manager.report.loaded) == {"a", "shop"}
        told = [text for text in warnings(caplog) if "hooks[" in text]
        assert len(told) == 2
        assert "a: hooks[0]: no event 'app:strat' is declared. Did you mean 'app:start'?" in told
        caplog.clear()
        late = {"name": "late", "version": "1", "load": lambda: None, "hooks": ["app:stpo"]}
        await manager.load_plugin(late)
        assert [t for t in warnings(caplog) if "late" in t and "'app:stop'" in t]


async def test_M8_using_a_hook_that_is_not_declared_is_a_warning_once(
    make: Make, manage: Callable[..., PluginManager], caplog: pytest.LogCaptureFixture
) -> None:
    body = (
        "def load(context):\n"
        "    for event in ('app:start', 'app:stop', 'app:stop', 'plugin:*'):\n"
        "        context.hook(event, lambda: None)\n"
    )
    make("listed", body, hooks=["app:start"])
    make("unlisted", body)
    async with manage() as manager:
        await manager.reload_plugin("listed")
        told = [text for text in warnings(caplog) if "hooks" in text]
        assert len(told) == 2
        assert any("listed: it hooks 'app:stop', which is not in its `hooks`" in t for t in told)
        assert any("'plugin:*'" in text for text in told)
        await manager.unload_plugin("listed")
        await manager.load_plugin("listed")
        assert len([text for text in warnings(caplog) if "hooks" in text]) == 4


@pytest.mark.parametrize("hooks", [[], ["app:start", "shop:*"]])
async def test_M8_a_hook_after_load_that_is_not_declared_is_a_warning_at_once(
    make: Make,
    manage: Callable[..., PluginManager],
    caplog: pytest.LogCaptureFixture,
    hooks: list[str],
) -> None:
    body = (
        "def load(context):\n"
        "    context.hook('app:start', lambda: context.hook('app:stop', lambda: None))\n"
        "    context.hook('app:start', lambda: context.hook('shop:sold', lambda: None))\n"
    )
    make("late", body, hooks=hooks)
    make("unlisted", body)
    async with manage():
        told = [text for text in warnings(caplog) if "not in its `hooks`" in text]
        assert any("it hooks 'app:stop'" in text for text in told)
        assert any("it hooks 'shop:sold'" in text for text in told) == (not hooks)
        assert any("it hooks 'app:start'" in text for text in told) == (not hooks)
        assert len(told) == (1 if hooks else 3)


async def test_A16_says_what_loading_would_say_of_the_configuration(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    """A plugin without a section is refused too, if its schema asks for something."""
    path = make("needy", config_schema={"required": ["host"]})
    async with manage(auto_load=False) as manager:
        report = await manager.validate_plugin(path)
        with pytest.raises(ConfigError) as caught:
            await manager.load_plugin(path)
        assert not report.ok
        assert report.errors == [caught.value.message]


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("env:read", ["HOME", "APP_*"]),
        ("net:connect", ["example.com", "example.com:443", "*.example.com", ":443", "[::1]:80"]),
        ("net:listen", ["8080", "127.0.0.1:8080"]),
        ("process:spawn", ["git", "/usr/bin/git"]),
        ("read:database", ["orders"]),
        ("read:files", ["./data", "a:b", "/var/data"]),
        ("write:database", ["orders"]),
        ("write:files", ["./data", "a:b", "../shared"]),
    ],
)
def test_M9_permissions_may_carry_a_scope(name: str, scopes: list[str]) -> None:
    assert name in PERMISSIONS
    permissions = [name, *(f"{name}:{scope}" for scope in scopes)]
    assert findings({"permissions": permissions}).errors == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("read:files:./data/../../etc", "'..' may only begin a relative path"),
        ("net:connect:http://example.com", "without a scheme or a path"),
        ("net:connect:127.1", "four numbers"),
        ("env:read:A=B", "the name of a variable"),
    ],
)
def test_M9_scopes_that_are_not_valid_are_errors(text: str, why: str) -> None:
    (fault,) = findings({"permissions": ["env:read", text]}).errors
    assert fault.path == "permissions[1]"
    assert why in fault.message
    assert f"it is {text!r}" in fault.message


@pytest.mark.parametrize(
    ("scope", "warns"),
    [
        ("", True), (":.", True), (":/", True), (":..", True), (":../..", True),
        (":./plugins", True), (":./plugins/x", True), (":./.veko/x", True), (":./veko.lock", True),
        (":./data", False), (":./pluginsdata", False), (":/var/data", False), (":../data", False),
    ],
)  # fmt: skip
def test_M9_writing_to_the_application_itself_is_a_warning(scope: str, warns: bool) -> None:
    found = findings({"permissions": [f"write:files{scope}", f"read:files{scope}"]})
    assert found.errors == []
    assert [fault.path for fault in found.warnings] == ["permissions[0]"] * warns


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("read:file", "read:files"),
        ("net:conect:example.com", "net:connect"),
        ("Read:Files", ""),
        ("read", ""),
        ("", ""),
        ("read:files:", ""),
        ("all", ""),
    ],
)
def test_M9_unknown_permissions_are_errors_with_the_nearest(name: str, near: str) -> None:
    (fault,) = findings({"permissions": [name]}).errors
    assert f"it is {name!r}" in fault.message
    assert f"Did you mean '{near}'?" in fault.message or not near


@pytest.mark.parametrize("kind", TYPES)
def test_M10_known_types(kind: str) -> None:
    assert findings({"type": kind}).errors == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("context.provide('database', 1)", "database"),
        ("context.provide('auth', 1); context.hook('app:start', lambda: 1)", "auth"),
        ("context.provide('redis-cache', 1)", "cache"),
        ("context.provide('author', 1)", "generic"),
        ("context.hook('cache:get', lambda key: 1); context.hook('cache:set', print)", "cache"),
        ("context.hook('auth:login', print); context.hook('app:start', print)", "generic"),
        ("context.add_command('x', print); context.hook('auth:login', print)", "cli"),
    ],
)
async def test_M10_the_type_is_found_out_from_services_and_hooks(
    make: Make, manage: Callable[..., PluginManager], body: str, kind: str
) -> None:
    make("typed", f"def load(context): {body}")
    async with manage() as manager:
        assert manager.list_plugins()[0].type == kind


async def test_M11_M12_M13_what_is_no_priority_and_no_function(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    make("bad", "unload = 3\npriority = float('nan')\ndef load(other): pass")
    make("nan", "priority = float('nan')\ndef load(): pass")
    async with manage() as manager:
        text = str(manager.report.failed["bad"])
        for words in (
            "load(): unknown parameter 'other'",
            "unload is 3, not a function",
            "priority: expected",
        ):
            assert words in text
        assert "priority: expected a number; it is nan" in str(manager.report.failed["nan"])


# -- C12


async def test_C12_changes_made_at_once_with_slow_checks_are_all_kept(
    manage: Callable[..., PluginManager],
) -> None:
    changed: list[Any] = []

    async def slow(config: Any) -> None:
        await asyncio.sleep(0)

    def load(context: Any) -> None:
        context.hook("config:validate", slow)
        context.hook("config:change", lambda config: changed.append(dict(config)))

    async with manage() as manager:
        record = await manager.load_plugin({"name": "busy", "version": "1", "load": load})
        wanted = {f"key{number}": number for number in range(12)}
        await asyncio.gather(
            *(manager.kernel.update_config("busy", {key: n}) for key, n in wanted.items())
        )
        assert record.config == wanted
        assert len(changed) == 12
        assert changed[-1] == wanted


# -- A16


async def test_A16_a_sound_plugin_is_validated_without_running_it(
    make: Make, manage: Callable[..., PluginManager], tmp_path: Path
) -> None:
    path = make("quiet", "raise SystemExit('it ran')\ndef load(app, config, *, context=None): pass")
    classy = path.with_name("classy.py")
    classy.write_text(
        "raise SystemExit('it ran')\nfrom veko import Plugin\n"
        "class Classy(Plugin):\n    name = 'classy'\n    version = '1.0'\n"
        "    async def load(self, context): pass\n"
    )
    package = path.with_name("folder")
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it ran')\ndef load(): pass\n")
    (package / "plugin.toml").write_text("name = 'folder'\nversion = '1.0'\n")
    async with manage(auto_load=False) as manager:
        for one, name in ((path, "quiet"), (classy, "classy"), (package, "folder")):
            report = await manager.validate_plugin(one)
            assert report == ValidationReport(str(one), name, True, [], [])
        assert (await manager.validate_plugin("quiet")).path == str(path)
        assert (await manager.validate_plugin("plugins/quiet.py")).ok
        assert manager.list_plugins() == []
        assert msgspec.json.decode(msgspec.json.encode(report, enc_hook=str))["ok"] is True
        with pytest.raises(AttributeError):
            report.ok = False  # type: ignore[misc]


async def test_A16_all_that_is_wrong_is_reported(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    fields: dict[str, object] = {key: value for key, (value, _) in WRONG.items()}
    path = make("bad", "raise SystemExit('it ran')\ndef load(): pass", **fields, homepage="x")
    async with manage(auto_load=False) as manager:
        report = await manager.validate_plugin(path)
        assert (report.path, report.name, report.ok) == (str(path), "bad", False)
        for _, fault in WRONG.values():
            assert len([text for text in report.errors if text.startswith(fault)]) == 1, fault
        assert len([text for text in report.errors if "'ok' is missing" in text]) == 1
        assert len(report.errors) == len(WRONG) + 1
        assert [text for text in report.warnings if text.startswith("homepage: ")]


async def test_A16_what_depends_on_the_application(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    make("near", version="3.0.0")
    peers = ["nosuch-thing>=1"]
    path = make("user", dependencies=["near", "far"], peer_dependencies=peers, hooks=["app:strat"],
                config_schema={"required": ["host"]})  # fmt: skip
    async with manage(auto_load=False, plugins={"user": {"port": 3}}) as manager:
        report = await manager.validate_plugin(path)
        missing, refused = report.errors
        assert "'far' is missing" in missing
        assert '"host" is a required property' in refused
        text = "\n".join(report.warnings)
        assert "'near'" not in text
        assert "nosuch-thing is not installed" in text
        assert "Did you mean 'app:start'?" in text
        assert len(report.warnings) == 2
    async with manage(auto_load=False, strict_peers=True) as manager:
        report = await manager.validate_plugin(path)
        assert not report.ok
        assert "nosuch-thing is not installed" in "\n".join(report.errors)


async def test_A16_where_the_source_does_not_tell_enough_it_is_imported_and_let_go(
    make: Make, manage: Callable[..., PluginManager], capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = {
        "typed": "import msgspec\nclass S(msgspec.Struct):\n    a: int = 1\nconfig_schema = S",
        "computed": "description = 'x' * 3",
        "mapped": "plugin = {'name': 'mapped', 'version': '1', 'load': print}",
        "wrapped": "import functools\n@functools.cache\ndef load(): pass",
        "raises": "description = 'x' * 3\nraise LookupError('no luck')",
        "odd": "config_schema = print",
    }
    paths = {
        name: make(
            name,
            f"print('ran {name}')\n{body}\n"
            + ("def load(): 1 / 0" if name not in {"mapped", "wrapped"} else ""),
        )
        for name, body in bodies.items()
    }
    async with manage(auto_load=False) as manager:
        modules = set(sys.modules)
        reports = {name: await manager.validate_plugin(path) for name, path in paths.items()}
        assert {name for name in sys.modules if name.startswith("veko_plugin")} <= modules
        assert [name for name, report in reports.items() if not report.ok] == ["raises", "odd"]
        assert "LookupError: no luck" in reports["raises"].errors[0]
        assert "config_schema is <built-in function print>" in reports["odd"].errors[0]
        assert manager.list_plugins() == []
    ran = capsys.readouterr().out.split("\n")
    assert [line.removeprefix("ran ") for line in ran if line] == list(bodies)


async def test_A16_what_is_no_plugin(
    make: Make, manage: Callable[..., PluginManager], tmp_path: Path
) -> None:
    folder = make("here").parent
    (folder / "syntax.py").write_text("name = 'syntax'\ndef load(:\n")
    (folder / "latin.py").write_bytes(b"name = 'caf\xe9'\n")
    (folder / "empty.py").write_text("")
    (folder / "core.py").write_text("name='storage'\nversion='1'\ndef load(): pass\n")
    with (folder / "huge.py").open("wb") as file:
        file.truncate(100 * 2**20)
    words = {
        "syntax.py": "syntax.py:2",
        "latin.py": "UTF-8",
        "empty.py": "name is missing",
        "core.py": "'storage' is the name of a core plugin",
        "huge.py": "104,857,600 bytes",
        "nothing.py": "there is no",
    }
    async with manage(auto_load=False) as manager:
        for name, word in words.items():
            report = await manager.validate_plugin(folder / name)
            assert not report.ok
            assert word in "\n".join(report.errors), name
        empty = await manager.validate_plugin(folder / "empty.py")
        assert empty.errors == ["name is missing", "version is missing", "load() is missing"]
        assert not (await manager.validate_plugin("no-such-plugin")).ok


async def test_A16_another_plugin_of_the_name(
    make: Make, manage: Callable[..., PluginManager], tmp_path: Path
) -> None:
    path = make("guest")
    copy = tmp_path / "guest.py"
    copy.write_text(path.read_text())
    async with manage() as manager:
        assert (await manager.validate_plugin(path)).warnings == []
        report = await manager.validate_plugin(copy)
        assert report.ok
        assert report.warnings == [f"name: 'guest' is already loaded, from {path}"]


# -- options


async def test_O14_required_says_which_and_why(
    make: Make, manage: Callable[..., PluginManager]
) -> None:
    make("good")
    make("bad", permissions=["fly"])
    manager = manage(required=["good", "bad", "gone"])
    with pytest.raises(VekoError) as caught:
        await manager.start()
    text = str(caught.value)
    assert "bad: bad is not valid: permissions[0]" in text
    assert "gone: it was not found" in text
    assert "good:" not in text
    assert manager.state == "stopped"


async def test_O9_waits_double_with_jitter_and_are_bounded(
    make: Make, manage: Callable[..., PluginManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(loading, "LONGEST_WAIT", 0.04)
    begun: list[float] = []

    def load() -> None:
        begun.append(asyncio.get_running_loop().time())
        raise OSError("not yet")

    async with manage(max_retries=4) as manager:
        with pytest.raises(VekoError, match="not yet"):
            await manager.load_plugin({"name": "late", "version": "1", "load": load})
    waits = [after - before for before, after in itertools.pairwise(begun)]
    assert len(waits) == 4
    for wait, longest in zip(waits, (0.01, 0.02, 0.04, 0.04), strict=True):
        assert wait >= longest / 2
    assert sum(waits) < 1


async def test_a_kernel_without_a_manager_checks_shapes_only() -> None:
    async with Kernel() as kernel:
        record: PluginRecord = await kernel.load(
            {"name": "odd", "version": "one", "permissions": ["fly"], "load": lambda: None}
        )
        assert record.active
