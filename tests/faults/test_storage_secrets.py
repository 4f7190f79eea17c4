"""What lies in `.veko` is whole or refused, has one owner and one reader, and holds no secret."""

import asyncio
import dataclasses
import gzip
import io
import logging
import os
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Generic, NewType, TypeVar

import attrs
import httpx
import msgspec
import pydantic
import pytest
import typing_extensions

from veko import VekoError
from veko_plugins import PluginManager
from veko_plugins._lib.masking import masked_text
from veko_plugins._lib.secret_fields import secret_names
from veko_plugins.logging import Logging

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes and files"),
]

SECRET = "hunter2-hunter2"

# -- the storage's owner

HOST = """
import asyncio, os, signal, sys, time
from veko_plugins import PluginManager

def child():
    time.sleep(60)

async def load(context):
    if sys.argv[2] == "fork":
        pid = os.fork()
        if not pid:
            child()
            os._exit(0)
    else:
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        pid = process.pid
    print(pid, flush=True)

async def main():
    async with PluginManager(root=sys.argv[1], adapter=None, auto_load=False) as manager:
        await manager.load_plugin({"name": "p", "version": "1.0.0", "load": load})
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
def test_a_child_of_a_host_that_was_killed_does_not_own_the_storage(
    tmp_path: Path, how: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOST, str(tmp_path), how],
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stdout is not None
        child = int(host.stdout.readline())
        host.send_signal(signal.SIGKILL)
        host.wait(10)
        try:
            again = started(tmp_path)
        finally:
            os.kill(child, signal.SIGKILL)
    assert again.returncode == 0, again.stderr[-500:]


START = """
import asyncio, sys
from veko_plugins import PluginManager

async def main():
    async with PluginManager(root=sys.argv[1], adapter=None) as manager:
        print("loaded", *manager.report.loaded)

asyncio.run(main())
"""


def started(root: Path) -> subprocess.CompletedProcess[str]:
    """Start an application in a process of its own, and stop it."""
    return subprocess.run(
        [sys.executable, "-c", START, str(root)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


async def test_two_hosts_still_exclude_each_other(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, adapter=None, auto_load=False):
        other = await asyncio.to_thread(started, tmp_path)
    assert other.returncode != 0
    assert str(os.getpid()) in other.stderr, "the message names the process that has it"


# -- a storage that is not whole


async def filled(root: Path) -> Path:
    """Make a storage with something in it; returns its file."""

    async def load(context: Any) -> None:
        await context.storage.set("a", 1)

    async with PluginManager(root=root, adapter=None, auto_load=False) as manager:
        await manager.load_plugin({"name": "p", "version": "1.0.0", "load": load})
    return root / ".veko" / "storage.db"


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_storage_that_was_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    file = await filled(tmp_path)
    os.truncate(file, size)
    manager = PluginManager(root=tmp_path, adapter=None, auto_load=False)
    with pytest.raises(VekoError, match=r"(?i)restore|backup") as caught:
        async with manager:
            pass
    assert str(file) in str(caught.value)
    assert file.stat().st_size == size, "nothing was changed in it"


def test_a_cache_file_that_is_a_fifo_holds_no_start_up(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "p.py").write_text('name = "p"\nversion = "1.0.0"\ndef load(): pass\n')
    assert started(tmp_path).returncode == 0
    state = tmp_path / ".veko"
    caches = [path for path in state.rglob("*") if path.is_file() and "storage" not in path.name]
    assert caches, "the code of plugins is cached below .veko"
    for path in caches:
        path.unlink()
        os.mkfifo(path)
    again = started(tmp_path)
    assert "loaded p" in again.stdout, again.stderr[-500:]


async def test_what_veko_writes_is_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        (tmp_path / "plugins").mkdir()
        text = 'name = "p"\nversion = "1.0.0"\nasync def load(context):\n'
        text += '    await context.storage.set("a", 1)\n'
        (tmp_path / "plugins" / "p.py").write_text(text)
        async with PluginManager(root=tmp_path, adapter=None) as manager:
            await manager.save_state()
            await manager.backup_plugins()
            state = tmp_path / ".veko"
            modes = {
                path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode)
                for path in [state, *state.rglob("*")]
            }
    finally:
        os.umask(before)
    loose = {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077}
    assert not loose


# -- secrets in what is written down

Token = NewType("Token", str)
Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
SecretToken = NewType("SecretToken", Secret)  # type: ignore[valid-newtype, unused-ignore]
Alias = typing_extensions.TypeAliasType("Alias", pydantic.SecretStr)


class Inner(msgspec.Struct):
    token: SecretToken


class OfNewType(msgspec.Struct):
    token: SecretToken


class OfAnnotatedNewType(msgspec.Struct):
    token: Annotated[Token, msgspec.Meta(extra={"secret": True})]


@dataclasses.dataclass
class OfDataclass:
    token: SecretToken


class OfAlias(pydantic.BaseModel):
    token: Alias


class OfList(msgspec.Struct):
    token: list[SecretToken]


class Nested(msgspec.Struct):
    inner: dict[str, Inner]


class Model(pydantic.BaseModel):
    token: pydantic.Secret[str]


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    token: pydantic.SecretStr = pydantic.Field(validation_alias="TOKEN")


class Choices(pydantic.BaseModel):
    token: pydantic.SecretStr = pydantic.Field(
        validation_alias=pydantic.AliasChoices("token", "key")
    )


class Routed(pydantic.BaseModel):
    token: pydantic.SecretStr = pydantic.Field(
        validation_alias=pydantic.AliasPath("access", "token")
    )


class Generated(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=str.upper)
    token: pydantic.SecretStr


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    token: pydantic.SecretStr


class StrictStruct(msgspec.Struct, forbid_unknown_fields=True):
    token: Secret


class Typed(typing_extensions.TypedDict):
    token: typing_extensions.Required[SecretToken]


@attrs.define
class Attrs:
    token: SecretToken


class Recursive(msgspec.Struct):
    inner: Typed


T = TypeVar("T")


class Box(msgspec.Struct, Generic[T]):
    value: T


class Boxed(msgspec.Struct):
    token: Box[SecretToken]


class Marked(pydantic.BaseModel):
    token: str = pydantic.Field(json_schema_extra={"writeOnly": True}, alias="TOKEN")


FLAT = {"token": SECRET}
SCHEMAS: dict[str, tuple[Any, dict[str, Any]]] = {
    "NewType": (OfNewType, FLAT),
    "annotated NewType": (OfAnnotatedNewType, FLAT),
    "dataclass": (OfDataclass, FLAT),
    "alias": (OfAlias, FLAT),
    "list": (OfList, {"token": [SECRET]}),
    "nested": (Nested, {"inner": {"a": FLAT}}),
    "pydantic Secret": (Model, FLAT),
    "validation alias": (Aliased, {"TOKEN": SECRET}),
    "validation alias by name": (Aliased, FLAT),
    "alias choices": (Choices, {"key": SECRET}),
    "alias path": (Routed, {"access": {"token": SECRET}}),
    "alias generator": (Generated, {"TOKEN": SECRET}),
    "typed dictionary": (Typed, FLAT),
    "attrs": (Attrs, FLAT),
    "nested typed dictionary": (Recursive, {"inner": FLAT}),
    "generic": (Boxed, {"token": {"value": SECRET}}),
    "mapping": (dict[str, SecretToken], {"any": SECRET}),
    "marked field with an alias": (Marked, {"TOKEN": SECRET}),
}


@pytest.mark.parametrize("kind", SCHEMAS)
async def test_no_secret_lies_in_states_and_backups(tmp_path: Path, kind: str) -> None:
    schema, config = SCHEMAS[kind]
    async with PluginManager(
        root=tmp_path, adapter=None, auto_load=False, storage="sqlite:///:memory:"
    ) as manager:
        plugin = {"name": "p", "version": "1.0.0", "load": lambda: None, "config_schema": schema}
        await manager.load_plugin(plugin, config)
        state = await manager.save_state()
        backup = await manager.backup_plugins()
    assert SECRET.encode() not in state.read_bytes()
    assert SECRET.encode() not in plain(backup)


def plain(file: Path) -> bytes:
    """What a backup holds, unpacked if it is packed."""
    data = file.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs the statement `type`")
def test_an_alias_that_contains_itself_is_searched_to_its_end() -> None:
    names = {"SecretToken": SecretToken}
    exec("type Json = dict[str, Json] | SecretToken", names)
    assert secret_names(names["Json"]) == {None}


STRICT_SCHEMA = {
    "properties": {"token": {"type": "string", "writeOnly": True}},
    "additionalProperties": {"type": "integer"},
}
STRICT = {"pydantic": Strict, "struct": StrictStruct, "JSON Schema": STRICT_SCHEMA}


@pytest.mark.parametrize("schema", STRICT.values(), ids=STRICT)
async def test_a_misspelt_secret_is_not_echoed(
    tmp_path: Path, schema: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with PluginManager(
        root=tmp_path, adapter=None, auto_load=False, storage="sqlite:///:memory:"
    ) as manager:
        plugin = {"name": "p", "version": "1.0.0", "load": lambda: None, "config_schema": schema}
        with pytest.raises(VekoError) as caught:
            await manager.load_plugin(plugin, {"tokn": SECRET})
    assert SECRET not in shown(caught.value)
    assert SECRET not in caplog.text


def shown(error: BaseException | None) -> str:
    """All that a log shows of an error: its causes and what it was raised while handling, too."""
    return "" if error is None else "".join(traceback.format_exception(error)) + repr(error)


# -- passwords in what is configured


@pytest.mark.parametrize(
    "options",
    [
        {"storage": f"redis://u:{SECRET}@127.0.0.1:9/0"},
        {"storage": f"sqlite://u:{SECRET}@h/x?durability=nonsense"},
        {"storage": f"postgres://u:{SECRET}@127.0.0.1:9/x"},
        {"otlp": f"http://u:{SECRET}@127.0.0.1:PORT"},
        {"otlp": f"ftp://u:{SECRET}@127.0.0.1:9"},
        {"otlp": f"http://u:{SECRET}/x@127.0.0.1:9"},
        {"prometheus": f"http://u:{SECRET}@127.0.0.1:9"},
        {"plugins": {"absent": {"token": SECRET}}},
        {"plugins": {"absent": {"url": f"amqp://u:{SECRET}@h"}}},
    ],
    ids=["redis", "sqlite", "postgres", "otlp", "otlp scheme", "otlp port", "prometheus", "section",
         "URL in a section"],
)  # fmt: skip
async def test_no_password_shows_in_errors_logs_and_options(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "plugins").mkdir()
    said = ""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    collector = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = str(collector.sockets[0].getsockname()[1])
    if "otlp" in options:
        options = {"otlp": options["otlp"].replace("PORT", port)}
    try:
        manager = PluginManager(
            root=tmp_path, adapter=None, **{"storage": "sqlite:///:memory:", **options}
        )
        said += repr(manager.options) + repr(manager)
        async with manager:
            said += repr(manager.options)
    except VekoError as error:
        said += shown(error)
    finally:
        collector.close()
        await collector.wait_closed()
    assert SECRET not in said
    assert SECRET not in caplog.text


async def test_a_misread_setting_does_not_show_its_password(tmp_path: Path) -> None:
    (tmp_path / "veko.toml").write_text(f'[storage]\nurl = "redis://u:{SECRET}@h"\n')
    with pytest.raises(VekoError) as caught:
        PluginManager(root=tmp_path, adapter=None)
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("format", ["text", "json"])
async def test_no_log_line_shows_a_password_in_a_url(tmp_path: Path, format: Any) -> None:
    """Whatever raised it: a driver's error quotes the URL that it was given."""
    url, file = f"redis://u:{SECRET}@h/0", tmp_path / "logs" / "veko.log"
    logs = Logging()
    logs.configure(file=file, format=format, stream=io.StringIO(), max_bytes=500)
    try:
        plugin = logging.getLogger("veko.plugin.p")
        try:
            raise ConnectionError(f"cannot connect to {url}")
        except ConnectionError:
            plugin.exception("no connection to %s", url)
        plugin.warning("https://%s@h/x?token=%s", SECRET, SECRET)
        file.chmod(0o640)
        for _ in range(5):
            plugin.info("rotated")
    finally:
        logs.reset()
    written = list(file.parent.iterdir())
    assert len(written) > 1
    assert all(SECRET not in path.read_text() for path in written)
    assert "redis://u:********@h/0" in "".join(path.read_text() for path in written)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} <= {0o640, 0o600}
    assert stat.S_IMODE(file.stat().st_mode) == 0o640, "as its operator has set it"


def test_masking_a_long_text_is_linear() -> None:
    text = "a://b:" * 20_000
    begin = time.perf_counter()
    masked_text(text)
    assert time.perf_counter() - begin < 2


# -- a storage that is half there


async def test_a_log_without_its_storage_is_refused(tmp_path: Path) -> None:
    file = await filled(tmp_path)
    file.unlink()
    file.with_name("storage.db-wal").write_bytes(b"x" * 5_000)
    with pytest.raises(VekoError, match="is gone"):
        async with PluginManager(root=tmp_path, adapter=None, auto_load=False):
            pass
    assert file.with_name("storage.db-wal").read_bytes() == b"x" * 5_000


async def test_what_a_killed_creation_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".veko").mkdir()
    (tmp_path / ".veko" / "storage.db.new").write_bytes(b"half")
    await filled(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_storage_that_is_no_file_is_refused_at_once(tmp_path: Path, make: Any) -> None:
    (tmp_path / ".veko").mkdir()
    make(tmp_path / ".veko" / "storage.db")
    done = started(tmp_path)
    assert done.returncode != 0
    assert "not a regular file" in done.stderr


# -- passwords in errors that plugins raise


CONNECTS = f"""
name = "connects"
version = "1.0.0"
URL = "amqp://u:{SECRET}@127.0.0.1:9"

def load(context):
    raise ConnectionError(f"cannot connect to {{URL}}")
"""
FAILS = f"""
name = "fails"
version = "1.0.0"

def load(context):
    def broken():
        raise ConnectionError("cannot connect to amqp://u:{SECRET}@127.0.0.1:9")

    context.add_route("GET", "/broken", broken)
    context.add_command("broken", broken)
"""


@pytest.mark.parametrize(
    "words",
    [["list"], ["list", "--json"], ["run", "broken"], ["backup"], ["--debug", "run", "broken"]],
    ids=" ".join,
)
def test_no_command_prints_a_password_in_an_error(
    tmp_path: Path, veko: Callable[..., subprocess.CompletedProcess[str]], words: list[str]
) -> None:
    application(tmp_path)
    done = veko(*words)
    assert "cannot connect to amqp://u:********@" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def application(root: Path) -> None:
    (root / "plugins").mkdir()
    (root / "plugins" / "connects.py").write_text(CONNECTS)
    (root / "plugins" / "fails.py").write_text(FAILS)
    (root / "veko.toml").write_text("max_retries = 0\n")


def test_no_answer_or_log_of_a_server_shows_a_password(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    application(tmp_path)
    veko = start("serve", "--port", 0, "--dev")
    url = veko.wait_for(r"Listening on (http://\S+)")[1]
    answer = httpx.get(f"{url}/broken")
    assert answer.status_code == 500
    assert "cannot connect to amqp://u:********@" in answer.text
    veko.process.send_signal(signal.SIGTERM)
    veko.ends()
    assert SECRET not in answer.text
    assert "cannot connect" in veko.text
    assert SECRET not in veko.text


async def test_no_health_shows_a_password(tmp_path: Path) -> None:
    application(tmp_path)
    async with PluginManager(root=tmp_path, adapter=None, max_retries=0) as manager:
        health = manager.use("health").check("connects")
        assert "cannot connect" in repr(health)
        assert SECRET not in repr(health)
