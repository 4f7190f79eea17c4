"""Variables such as `VEKO_PLUGINS__GUARD__TOKEN` reach a plugin's configuration."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from veko import ConfigError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server(msgspec.Struct):
    host: str = "localhost"
    ports: list[int] = []


class Settings(msgspec.Struct):
    name: str = ""
    count: int = 0
    ratio: float = 0.0
    on: bool = False
    where: Path | None = None
    api_key: Annotated[str, msgspec.Meta(extra={"secret": True})] = ""
    server: Server = msgspec.field(default_factory=Server)
    camel: str = msgspec.field(default="", name="camelCase")


@dataclasses.dataclass
class Record:
    name: str = ""
    tags: list[str] = dataclasses.field(default_factory=list)
    on: bool = False


class Model(pydantic.BaseModel):
    token: pydantic.SecretStr = pydantic.SecretStr("")
    count: int = 0
    tags: list[str] = []
    aliased: str = pydantic.Field(default="", alias="theAlias")


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer"},
        "on": {"type": "boolean"},
        "server": {"type": "object", "properties": {"host": {"type": "string"}}},
    },
}


@pytest.fixture
def config_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    async def load(
        variables: dict[str, str],
        *,
        name: str = "guard",
        files: str = "",
        arguments: dict[str, Any] | None = None,
        given: dict[str, Any] | None = None,
        **manifest: Any,
    ) -> Any:
        (tmp_path / "veko.toml").write_text(files)
        for variable, text in variables.items():
            monkeypatch.setenv(variable, text)
        async with PluginManager(
            root=tmp_path, auto_load=False, storage="none", adapter=None, plugins=arguments or {}
        ) as manager:
            form = manager.create_simple_plugin(name, lambda: None, **manifest)
            return (await manager.load_plugin(form, given)).config

    return load


async def test_a_variable_reaches_the_configuration(config_of: Any) -> None:
    assert await config_of({"VEKO_PLUGINS__GUARD__TOKEN": "abc"}) == {"token": "abc"}


@pytest.mark.parametrize("name", ["my-plugin", "my.plugin", "my_plugin"])
async def test_names_match_without_case_dashes_and_dots(config_of: Any, name: str) -> None:
    variables = {
        "VEKO_PLUGINS__my_Plugin__KEY": "abc",
        "VEKO_PLUGINS__MY_PLUGIN__LOG_LEVEL": "x",
    }
    found = await config_of(variables, name=name, default_config={"apiKey": "", "log-level": "y"})
    assert found == {"apiKey": "", "log-level": "x", "key": "abc"}


async def test_a_struct_types_its_fields(config_of: Any) -> None:
    found = await config_of(
        {
            "VEKO_PLUGINS__GUARD__NAME": "00123",
            "VEKO_PLUGINS__GUARD__COUNT": "7",
            "VEKO_PLUGINS__GUARD__RATIO": "0.5",
            "VEKO_PLUGINS__GUARD__ON": "yes",
            "VEKO_PLUGINS__GUARD__WHERE": "/tmp/x",
            "VEKO_PLUGINS__GUARD__API_KEY": "12345",
            "VEKO_PLUGINS__GUARD__SERVER__HOST": "12",
            "VEKO_PLUGINS__GUARD__SERVER__PORTS": "[1, 2]",
            "VEKO_PLUGINS__GUARD__CAMELCASE": "true",
        },
        config_schema=Settings,
    )
    assert found == Settings(
        "00123", 7, 0.5, True, Path("/tmp/x"), "12345", Server("12", [1, 2]), "true"
    )


async def test_a_dataclass_a_model_and_a_json_schema_do_too(config_of: Any) -> None:
    begin = "VEKO_PLUGINS__GUARD__"
    variables = {f"{begin}NAME": "1", f"{begin}TAGS": '["1"]', f"{begin}ON": "off"}
    assert await config_of(variables, config_schema=Record) == Record("1", ["1"], False)
    variables = {
        "VEKO_PLUGINS__OTHER__TOKEN": "12345",
        "VEKO_PLUGINS__OTHER__COUNT": "3",
        "VEKO_PLUGINS__OTHER__TAGS": '["a"]',
        "VEKO_PLUGINS__OTHER__THEALIAS": "5",
    }
    model = await config_of(variables, name="other", config_schema=Model)
    assert (model.token.get_secret_value(), model.count, model.tags) == ("12345", 3, ["a"])
    assert model.aliased == "5"
    variables = {
        "VEKO_PLUGINS__THIRD__NAME": "1",
        "VEKO_PLUGINS__THIRD__COUNT": "2",
        "VEKO_PLUGINS__THIRD__ON": "on",
        "VEKO_PLUGINS__THIRD__SERVER__HOST": "3",
    }
    found = await config_of(variables, name="third", config_schema=SCHEMA)
    assert found == {"name": "1", "count": 2, "on": True, "server": {"host": "3"}}


async def test_defaults_type_what_has_no_schema(config_of: Any) -> None:
    found = await config_of(
        {
            "VEKO_PLUGINS__GUARD__TEXT": "12",
            "VEKO_PLUGINS__GUARD__ON": "off",
            "VEKO_PLUGINS__GUARD__COUNT": "12",
            "VEKO_PLUGINS__GUARD__LIST": "[1]",
            "VEKO_PLUGINS__GUARD__NEW": '{"a": true}',
            "VEKO_PLUGINS__GUARD__LONG": "1" * 30,
            "VEKO_PLUGINS__GUARD__ODD": "NaN",
            "VEKO_PLUGINS__GUARD__DEEP": "[" * 100_000,
            "VEKO_PLUGINS__GUARD__SUB__KEY": "3",
        },
        default_config={"text": "", "on": True, "count": 1, "list": [], "sub": {"key": "", "b": 1}},
    )
    assert found == {
        "text": "12", "on": False, "count": 12, "list": [1], "new": {"a": True},
        "long": int("1" * 30), "odd": "NaN", "deep": "[" * 100_000, "sub": {"key": "3", "b": 1},
    }  # fmt: skip


async def test_arguments_override_variables_and_these_the_files(config_of: Any) -> None:
    found = await config_of(
        {f"VEKO_PLUGINS__GUARD__{name}": "variable" for name in "BCD"},
        files="[plugins.guard]\na = 'file'\nb = 'file'\nc = 'file'\n",
        arguments={"guard": {"c": "argument", "d": "argument"}},
        given={"d": "given"},
        default_config=dict.fromkeys("abcde", "default"),
    )
    assert found == {
        "a": "file", "b": "variable", "c": "argument", "d": "given", "e": "default",
    }  # fmt: skip


async def test_a_wrong_value_is_an_error_that_never_shows_a_secret(config_of: Any) -> None:
    class Guarded(msgspec.Struct, forbid_unknown_fields=True):
        pin: Annotated[int, msgspec.Meta(extra={"secret": True})]

    with pytest.raises(ConfigError, match="pin") as caught:
        await config_of({"VEKO_PLUGINS__GUARD__PIN": "hunter2"}, config_schema=Guarded)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="pinn") as caught:
        await config_of(
            {"VEKO_PLUGINS__GUARD__PIN": "1", "VEKO_PLUGINS__GUARD__PINN": "hunter2"},
            config_schema=Guarded,
        )
    assert "hunter2" not in str(caught.value)


async def test_core_plugins_are_configured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VEKO_PLUGINS__TRACING__KEEP", "7")
    async with PluginManager(root=tmp_path, auto_load=False, storage="none") as manager:
        record = manager.kernel.get("tracing")
        assert record is not None
        assert record.config["keep"] == 7


async def test_the_start_names_variables_without_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "guard.py").write_text(
        'name = "guard"\nversion = "1.0.0"\ndef load(): ...\n'
    )
    monkeypatch.setenv("VEKO_TIMOUT", "hunter2")
    monkeypatch.setenv("VEKO_PLUGINS__GARD__TOKEN", "hunter2")
    monkeypatch.setenv("VEKO_PORT", "tcp://10.0.0.7:8000")
    with caplog.at_level(logging.DEBUG, "veko"):
        async with PluginManager(root=tmp_path, storage="none", adapter=None):
            pass
    said = [(one.levelname, one.getMessage()) for one in caplog.records if "VEKO_" in one.message]
    assert said == [
        ("WARNING", "VEKO_TIMOUT is not an option. Did you mean 'VEKO_TIMEOUT'?"),
        ("DEBUG", "VEKO_PORT is ignored: Kubernetes sets it for a service"),
        (
            "WARNING",
            "VEKO_PLUGINS__GARD__TOKEN: there is no plugin of that name. Did you mean 'guard'?",
        ),
    ]
    assert "hunter2" not in caplog.text
