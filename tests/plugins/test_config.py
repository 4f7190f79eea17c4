"""Configurations: sections, types and schemas, with every fault named and no secret shown."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import pytest

from veko import ConfigError, Context, Kernel, Plugin
from veko_plugins.config import Config

Secret = Annotated[str, msgspec.Meta(min_length=8, extra={"secret": True})]


class Limit(msgspec.Struct, forbid_unknown_fields=True):
    day: Annotated[int, msgspec.Meta(ge=1)]
    hour: int = 5


class Shop(msgspec.Struct, kw_only=True):
    title: str
    limit: Limit
    more: list[Limit] = []
    by_name: dict[str, Limit] = {}
    pair: tuple[int, str] = (1, "a")
    folder: Path = Path("data")
    maybe: Limit | None = None
    secret: Secret = "change-me-now"


@dataclass
class Plain:
    title: str
    count: int = 3
    tags: list[str] = field(default_factory=list)


def faults(schema: object, config: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config().check(config, schema, plugin="shop")
    assert caught.value.plugin == "shop"
    assert str(caught.value).startswith("the configuration of 'shop' does not match its schema")
    return str(caught.value)


def test_m7_a_struct_is_what_the_configuration_becomes() -> None:
    got = Config().check({"title": "T", "limit": {"day": 3}, "folder": "x"}, Shop)
    assert got == Shop(title="T", limit=Limit(3), folder=Path("x"))
    assert Config().check(got, Shop) is got


def test_m7_a_dataclass_is_what_the_configuration_becomes() -> None:
    assert Config().check({"title": "T", "tags": ["a"]}, Plain) == Plain("T", tags=["a"])
    assert "count: expected `int`, got `str`; it is '3'" in faults(Plain, {"count": "3"})
    assert "title is missing" in faults(Plain, {"count": "3"})


def test_m7_all_faults_of_a_type_at_once() -> None:
    text = faults(
        Shop,
        {
            "limit": {"day": 0, "hours": 2},
            "more": [{"day": 1}, {"day": "x"}, {}],
            "by_name": {"a.b": {"day": None}},
            "pair": [1, 2],
            "maybe": {"day": 1.5},
            "folder": 3,
        },
    )
    for fault in (
        "title is missing",
        "limit.day: expected `int` >= 1; it is 0",
        "limit.hours is unknown (Did you mean 'hour'?)",
        "more[1].day: expected `int`, got `str`; it is 'x'",
        "more[2].day is missing",
        "by_name.a.b.day: expected `int`, got `null`; it is None",
        "pair[1]: expected `str`, got `int`; it is 2",
        "maybe.day: expected `int`, got `float`; it is 1.5",
        "folder: expected `Path`, got `int`; it is 3",
    ):
        assert fault in text


class Disk(msgspec.Struct, tag="disk"):
    folder: str


class Server(msgspec.Struct, tag="server"):
    host: str
    password: Secret


class Extra(TypedDict):
    note: NotRequired[str]
    token: Secret


class Stored(msgspec.Struct):
    store: Disk | Server
    extra: Extra


def test_m7_faults_inside_unions_and_typed_dicts() -> None:
    store = {"type": "server", "host": 1, "password": "hunter2"}
    text = faults(Stored, {"store": store, "extra": {"note": 2, "token": "hunter2"}})
    for fault in (
        "store.host: expected `str`, got `int`",
        "store.password: expected `str` of length >= 8",
        "extra.note: expected `str`, got `int`; it is 2",
        "extra.token: expected `str` of length >= 8",
    ):
        assert fault in text
    assert "hunter2" not in text


@pytest.mark.parametrize("config", [None, 3, [], "text"])
def test_m7_a_configuration_of_the_wrong_shape(config: object) -> None:
    assert "schema: expected `object`" in faults(Shop, config)


def test_m7_a_fault_that_only_the_whole_shows() -> None:
    class Range(msgspec.Struct):
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    assert "low is above high" in faults(Range, {"low": 2, "high": 1})


def test_m7_faults_carry_path_and_message() -> None:
    with pytest.raises(ConfigError) as caught:
        Config().check({"title": 3, "limit": {"dy": 1}, "by_name": {4: {"day": 1}}}, Shop)
    assert [(fault.path, fault.message) for fault in caught.value.faults] == [
        ("title", "expected `str`, got `int`; it is 3"),
        ("limit.day", "is missing"),
        ("limit.dy", "is unknown (Did you mean 'day'?)"),
        ("by_name", "a key: expected `str`, got `int`"),
    ]


def test_m7_an_option_of_the_application_in_a_section_is_named() -> None:
    """A line that is appended to veko.toml belongs to the section above it."""

    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        title: str

    text = faults(Strict, {"title": "T", "enable_api": True, "adapter": "asgi"})
    assert text.endswith(
        "`enable_api`, `adapter` are options of the application: write them above the first "
        "[section] of veko.toml."
    )
    assert faults(Strict, {"title": "T", "colour": 1}).endswith("Fix the values that are named.")


def test_m7_what_is_no_type() -> None:
    class Odd:
        def __init__(self, value: int) -> None: ...

    for schema in (Odd, int | Odd | Shop, "Shop"):
        with pytest.raises(ConfigError):
            Config().check({}, schema, plugin="shop")


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "port": {"type": "integer", "minimum": 1},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "secret": {"$ref": "#/$defs/password"},
        "token": {"type": "string", "writeOnly": True, "minLength": 8},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"password": {"type": "string", "format": "password", "minLength": 8}},
}


def test_m7_all_faults_of_a_json_schema_at_once() -> None:
    text = faults(SCHEMA, {"port": "x", "hosts": ["a", 3], "extra": 1})
    for fault in (
        "port: it is not of type \"integer\"; it is 'x'",
        'hosts[1]: it is not of type "string"; it is 3',
        "Additional properties are not allowed ('extra' was unexpected)",
        '"name" is a required property',
    ):
        assert fault in text
    good = {"name": "n", "port": 3}
    assert Config().check(good, SCHEMA) is good
    assert Config().check(good, True) is good
    assert Config().check(good, None) is good


def test_m7_what_json_does_not_know() -> None:
    assert "it contains a value that JSON does not have: " in faults(SCHEMA, {"name": object()})


def test_m7_no_secret_is_shown() -> None:
    assert "hunter2" not in faults(SCHEMA, {"secret": "hunter2", "token": "hunter2", "port": 0})
    assert "hunter2" not in faults(Shop, {"title": 3, "secret": "hunter2"})
    assert "secret: expected `str` of length >= 8" in faults(Shop, {"secret": "hunter2"})
    nested = {"properties": {"db": {"properties": {"token": {"writeOnly": True, "type": "null"}}}}}
    text = faults(nested | {"maxProperties": 0}, {"db": {"token": "hunter2"}})
    assert "hunter2" not in text
    assert "db.token: it is not of type" in text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objct"},
        {"properties": 3},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"pattern": "("},
    ],
)
def test_m7_a_schema_that_is_none(schema: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="config_schema is not a JSON Schema") as caught:
        Config().check({}, schema, plugin="shop")
    assert caught.value.plugin == "shop"


def test_o7_without_validation_types_still_convert() -> None:
    config = Config(validate=False)
    assert config.check({"port": "x"}, SCHEMA) == {"port": "x"}
    assert isinstance(config.check({"title": "T"}, Plain), Plain)


def test_sections_are_under_what_is_given() -> None:
    sections = {"shop": {"a": {"x": 1, "y": 2}, "b": 3}}
    config = Config(sections)
    assert config.section("shop", {"a": {"y": 5}}) == {"a": {"x": 1, "y": 5}, "b": 3}
    assert config.section("other") == {}
    assert sections == {"shop": {"a": {"x": 1, "y": 2}, "b": 3}}


def test_without_jsonschema_the_message_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['jsonschema_rs'] = None\n"
        "from veko_plugins.config import Config\n"
        "try: Config().check({}, {'type': 'object'})\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install veko[manager]" in done.stdout


async def test_m6_m7_c12_the_kernel_asks_and_keeps_the_old_one() -> None:
    class Asking(Plugin):
        name = "shop"
        version = "1.0"
        default_config = {"title": "T", "limit": {"day": 3}}
        config_schema = Shop

        def load(self, context: Context) -> None:
            self.context = context

    plugin = Asking()
    async with Kernel() as kernel:
        await kernel.load(Config())
        with pytest.raises(ConfigError, match=r"limit\.day: expected `int` >= 1; it is 0"):
            await kernel.load(plugin, {"limit": {"day": 0}})
        await kernel.load(plugin, {"limit": {"hour": 1}})
        first = plugin.context.config
        assert first == Shop(title="T", limit=Limit(3, 1))
        with pytest.raises(ConfigError, match="title: expected `str`, got `int`; it is 4"):
            await plugin.context.update_config({"title": 4})
        assert plugin.context.config is first
        await plugin.context.update_config({"title": "U"})
        assert plugin.context.config == Shop(title="U", limit=Limit(3, 1))


async def test_others_may_change_a_configuration_before_it_is_checked() -> None:
    class Environment(Plugin):
        name = "environment"
        version = "1.0"

        def load(self, context: Context) -> None:
            context.hook("config:validate", lambda config: {**config, "title": "found"})

    class Asking(Plugin):
        name = "shop"
        version = "1.0"
        config_schema = Plain

        def load(self, config: Plain) -> None:
            assert config.title == "found"

    async with Kernel() as kernel:
        await kernel.load(Config())
        await kernel.load(Environment)
        record = await kernel.load(Asking)
        assert record.config == Plain("found")
