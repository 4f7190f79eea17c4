"""A11: which plugins are on, with what configuration, is saved and comes back."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from veko import Plugin
from veko_plugins import PluginManager
from veko_plugins.backup import BackupError

pytestmark = pytest.mark.anyio

SECRET = "hunter2-hunter2"


class Simple(Plugin):
    """A plugin that remembers the configurations that it was loaded with."""

    name = "simple"
    version = "1.0.0"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def load(self, config: Any) -> None:
        if isinstance(config, dict) and config.get("fail"):
            raise ValueError("it is told to fail")
        self.seen.append(config)


class Login(msgspec.Struct):
    user: str
    password: Annotated[str, msgspec.Meta(extra={"secret": True})]


class Access(msgspec.Struct):
    login: Login
    token: Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": True})] = ""


SCHEMA = {
    "type": "object",
    "properties": {
        "password": {"type": "string", "format": "password"},
        "keys": {"type": "array", "items": {"type": "string", "writeOnly": True}},
        "size": {"type": "integer"},
    },
}


def write(root: Path, name: str, body: str = "def load(): pass", **manifest: object) -> None:
    """Write a plugin of one file."""
    folder = root / "plugins"
    folder.mkdir(exist_ok=True)
    fields = {"name": name, "version": "1.0.0", **manifest}
    lines = [f"{key} = {value!r}" for key, value in fields.items()]
    (folder / f"{name}.py").write_text("\n".join([*lines, body, ""]))


def make(root: Path, **options: Any) -> PluginManager:
    return PluginManager(root=root, max_retries=0, adapter=None, **options)


async def test_A11_what_was_off_is_off_again_after_a_restart(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write(tmp_path, name)
    async with make(tmp_path) as manager:
        await manager.toggle_plugin("two", False)
        await manager.save_state()

    async with make(tmp_path) as manager:
        assert all(info.active for info in manager.list_plugins())
        report = await manager.restore_state()

        assert {info.name for info in manager.list_plugins() if not info.active} == {"two"}
    assert report.switched_off == ["two"]
    assert sorted(report.unchanged) == ["one", "three"]
    assert abs(datetime.now(UTC) - report.saved_at) < timedelta(minutes=1)
    with pytest.raises(AttributeError):
        report.saved_at = datetime.now(UTC)


async def test_A11_what_was_on_is_switched_on_and_loaded_again(tmp_path: Path) -> None:
    write(tmp_path, "one")
    write(tmp_path, "two", dependencies=["one"])
    async with make(tmp_path) as manager:
        await manager.save_state()
        await manager.unload_plugin("two")
        await manager.toggle_plugin("one", False)

        report = await manager.restore_state()

        assert [info.active for info in manager.list_plugins()] == [True, True]
    assert report.switched_on == ["one"]
    assert report.loaded == ["two"]
    assert report.failed == {}


async def test_A11_the_configuration_comes_back_exactly(tmp_path: Path) -> None:
    simple = Simple()
    async with make(tmp_path) as manager:
        given = {"a": 1, "tuple": (1, 2), "path": Path("x"), "deep": {"list": [1, {"b": b"c"}]}}
        await manager.load_plugin(simple, given)
        await manager.save_state()
        await manager.kernel.update_config("simple", {"a": 2, "more": True})

        report = await manager.restore_state()

        assert manager.kernel.records()[-1].config == given
    assert report.configured == ["simple"]
    assert simple.seen == [given, given]  # a new generation: load() gets it too


async def test_A11_sections_of_the_settings_do_not_come_through(tmp_path: Path) -> None:
    write(tmp_path, "one")
    async with make(tmp_path, plugins={"one": {"a": 1}}) as manager:
        await manager.save_state()
    async with make(tmp_path, plugins={"one": {"a": 2, "b": 3}}) as manager:
        await manager.restore_state()
        one = manager.get_plugin("one")
        assert one is not None
        assert one.config == {"a": 1}
        await manager.unload_plugin("one")
        await manager.restore_state()
        one = manager.get_plugin("one")
        assert one is not None
        assert one.config == {"a": 1}


async def test_A11_a_plugin_that_is_no_more_is_reported_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    write(tmp_path, "gone")
    write(tmp_path, "here")
    async with make(tmp_path) as manager:
        await manager.toggle_plugin("here", False)
        await manager.save_state()
    (tmp_path / "plugins" / "gone.py").unlink()
    write(tmp_path, "new")

    async with make(tmp_path) as manager:
        report = await manager.restore_state()
        here = manager.get_plugin("here")
        assert here is not None
        assert not here.active

    assert list(report.missing) == ["gone"]
    assert "gone.py" in report.missing["gone"]
    assert report.others == ["new"]


async def test_A11_one_that_fails_stays_as_it_is_and_the_rest_goes_on(tmp_path: Path) -> None:
    simple = Simple()
    write(tmp_path, "other")
    async with make(tmp_path) as manager:
        await manager.load_plugin(simple, {"fail": False, "n": 1})
        record = manager.get_plugin("simple")
        assert record is not None
        assert record.current is not None
        record.current.given["fail"] = True
        await manager.save_state()
        record.current.given["fail"] = False
        await manager.toggle_plugin("other", False)

        report = await manager.restore_state()

        assert record.active
        assert record.config == {"fail": False, "n": 1}
        assert record.current.given == {"fail": False, "n": 1}
    assert "told to fail" in report.failed["simple"]
    assert report.switched_on == ["other"]


@pytest.mark.parametrize(
    ("schema", "config", "secrets"),
    [
        (SCHEMA, {"password": SECRET, "size": 3}, ["password"]),
        (SCHEMA, {"keys": [SECRET], "size": 3}, ["keys"]),
        ({"properties": {"a": SCHEMA}}, {"a": {"password": SECRET, "size": 1}}, ["a.password"]),
        ({"properties": {"all": {"items": SCHEMA}}}, {"all": [{"password": SECRET}]}, ["all"]),
        (Access, {"login": {"user": "u", "password": SECRET}}, ["login.password"]),
        (Access, {"login": {"user": "u", "password": "p"}, "token": SECRET}, ["token"]),
    ],
)
async def test_A11_secrets_are_not_written_and_kept_from_the_present(
    tmp_path: Path, schema: Any, config: dict[str, Any], secrets: list[str]
) -> None:
    plugin = Simple()
    plugin.config_schema = schema  # type: ignore[attr-defined]
    async with make(tmp_path) as manager:
        await manager.load_plugin(plugin, config)
        path = await manager.save_state()
        text = path.read_text()
        assert SECRET not in text
        left = {".".join(p) for p in json.loads(text.splitlines()[1])["left_out"]}
        assert set(secrets) <= left

        report = await manager.restore_state()

        assert report.unchanged == ["simple"]
        assert report.secrets_missing == {}


async def test_A11_a_secret_that_is_nowhere_is_told_of(tmp_path: Path) -> None:
    write(tmp_path, "one", config_schema=SCHEMA)
    async with make(tmp_path, plugins={"one": {"password": SECRET, "size": 1}}) as manager:
        await manager.save_state()
    async with make(tmp_path) as manager:
        report = await manager.restore_state()
        one = manager.get_plugin("one")
        assert one is not None
        assert one.config == {"size": 1}
    assert report.secrets_missing == {"one": ["password"]}


async def test_A11_what_cannot_be_written_down_is_left_out(tmp_path: Path) -> None:
    marker = object()
    async with make(tmp_path) as manager:
        given = {"a": 1, "deep": {"thing": marker, "b": 2}, "text": "\ud800"}
        await manager.load_plugin(Simple(), given)
        await manager.save_state()
        await manager.kernel.update_config("simple", {"a": 2})

        report = await manager.restore_state()

        simple = manager.get_plugin("simple")
        assert simple is not None
        assert simple.config == given
    assert report.failed == {}


async def test_A11_the_settings_may_say_that_it_happens_by_itself(tmp_path: Path) -> None:
    write(tmp_path, "one")
    settings = {"state": {"restore": True, "save": True}}
    async with make(tmp_path, plugins=settings) as manager:
        await manager.toggle_plugin("one", False)
    async with make(tmp_path, plugins=settings) as manager:
        one = manager.get_plugin("one")
        assert one is not None
        assert not one.active


async def test_A11_without_a_saved_state_it_says_so(tmp_path: Path) -> None:
    async with make(tmp_path) as manager:
        with pytest.raises(BackupError, match=r"no state was saved .*state\.jsonl.*save_state"):
            await manager.restore_state()


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def alter(data: bytes) -> bytes:
    return data.replace(b'"active":true', b'"active":null')


def newer(data: bytes) -> bytes:
    return data.replace(b'"version":1', b'"version":7', 1)


@pytest.mark.parametrize(
    ("damage", "words"), [(cut, "cut off"), (alter, "checksum"), (newer, "format 7")]
)
async def test_A11_a_damaged_state_changes_nothing(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    write(tmp_path, "one")
    async with make(tmp_path) as manager:
        path = await manager.save_state()
        await manager.toggle_plugin("one", False)
        path.write_bytes(damage(path.read_bytes()))

        with pytest.raises(BackupError, match=words) as caught:
            await manager.restore_state()

        one = manager.get_plugin("one")
        assert one is not None
        assert not one.active
    assert caught.value.path == path
    assert caught.value.remedy


async def test_A11_saving_where_nothing_can_be_written_says_so(tmp_path: Path) -> None:
    async with make(tmp_path) as manager:
        (tmp_path / ".veko" / "state.jsonl").mkdir()
        with pytest.raises(BackupError, match="folder"):
            await manager.save_state()
    assert not list((tmp_path / ".veko").glob("*.tmp"))
