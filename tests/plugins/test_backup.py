"""A9 and A10: a backup has all of an application, and brings it back whole or not at all."""

import asyncio
import contextlib
import datetime as dt
import gc
import json
import os
import resource
import stat
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko import ConfigError, Plugin, VekoError
from veko_plugins import PluginManager
from veko_plugins.backup import BackupError
from veko_plugins.storage import Namespace

pytestmark = pytest.mark.anyio

SECRET = "hunter2-hunter2"


class Notes(Plugin):
    """Keeps notes; its memory goes to the storage when it stops, as careless plugins do."""

    version = "1.0.0"

    def __init__(self, name: str = "notes", **manifest: Any) -> None:
        self.name = name
        self.storage: Namespace
        self.configs: list[Any] = []
        self.fail = False
        self.memory: object = None
        for key, value in manifest.items():
            setattr(self, key, value)

    def load(self, config: Any, context: Any) -> None:
        if self.fail:
            raise ValueError("it fails now")
        self.configs.append(config)
        self.storage = context.storage
        self.memory = self.storage.get("memory")

    def unload(self) -> None:
        self.storage.set("memory", self.memory)


def make(root: Path, **options: Any) -> PluginManager:
    return PluginManager(root=root, **{"max_retries": 0, "adapter": None, **options})


def config_of(manager: PluginManager, name: str) -> Any:
    record = manager.get_plugin(name)
    assert record is not None
    return record.config


def whole(manager: PluginManager) -> dict[str, Any]:
    """All that a backup speaks of, as it is now."""
    engine = manager.use("storage")
    return {
        "plugins": [
            (info.name, info.active, config_of(manager, info.name))
            for info in manager.list_plugins()
        ],
        "storage": {name: dict(engine.namespace(name).items()) for name in engine.namespaces()},
    }


async def test_A9_A10_everything_comes_back(tmp_path: Path) -> None:
    one, two = Notes("one"), Notes("two", dependencies=("one",))
    async with make(tmp_path) as manager:
        await manager.load_plugin(one, {"size": 1, "tuple": (1, b"2")})
        await manager.load_plugin(two)
        await one.storage.update({"a": 1, "b": [1, (2, {3})]})
        await manager.use("storage").namespace("nobody").set("kept", True)
        await manager.toggle_plugin("two", False)
        before = whole(manager)
        path = await manager.backup_plugins()

        await one.storage.clear()
        one.memory = "what it would write over the restored storage"
        await two.storage.set("new", 1)
        await manager.use("storage").namespace("nobody").clear()
        await manager.kernel.update_config("one", {"size": 2, "more": 3})
        await manager.toggle_plugin("two", True)

        report = await manager.restore_plugins(path)

        assert whole(manager) == before
        assert report.plugins == ["one", "two"]
        assert abs(dt.datetime.now(dt.UTC) - report.made_at) < dt.timedelta(minutes=1)
        with pytest.raises(AttributeError):
            report.made_at = dt.datetime.now(dt.UTC)
        assert one.configs[-1] == {"size": 1, "tuple": (1, b"2")}
        assert one.memory is None


async def test_A9_by_default_it_goes_under_veko_and_never_over_another(tmp_path: Path) -> None:
    async with make(tmp_path) as manager:
        paths = [await manager.backup_plugins() for _ in range(3)]
    assert len(set(paths)) == 3
    for path in paths:
        assert path.parent == tmp_path / ".veko" / "backups"
        assert dt.datetime.strptime(path.name[:16], "%Y%m%dT%H%M%SZ")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 or os.name != "posix"


async def test_A9_it_reads_with_any_tool(tmp_path: Path) -> None:
    notes = Notes()
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes, {"size": 1})
        await notes.storage.update({"a": "text", "b": b"hi", "c": dt.date(2026, 1, 2)})
        path = await manager.backup_plugins(tmp_path / "new" / "b.jsonl")

    head, plugin, *rest, end = map(json.loads, path.read_text().splitlines())
    assert head["format"] == "veko-backup"
    assert head["version"] == 1
    assert plugin["plugin"] == {
        "name": "notes", "version": "1.0.0", "source": None, "active": True,
        "config": {"size": 1}, "left_out": [],
    }  # fmt: skip
    assert rest == [
        {"namespace": "notes"}, ["a", "text"], ["b", {"$bytes": "aGk="}],
        ["c", {"$date": "2026-01-02"}],
    ]  # fmt: skip
    assert end["end"]["lines"] == 6


@pytest.mark.parametrize("storage", [None, "sqlite:///:memory:", "power"])
async def test_A9_what_was_written_and_not_awaited_is_in_it(
    tmp_path: Path, storage: str | None
) -> None:
    if storage == "power":
        storage = f"sqlite:///{tmp_path}/s.db?durability=power"
    notes = Notes()
    async with make(tmp_path, storage=storage) as manager:
        await manager.load_plugin(notes)
        notes.storage.set("a", 1)
        path = await manager.backup_plugins()
        notes.storage.set("a", 2)
        notes.memory = 3
        await manager.restore_plugins(path)
        assert notes.storage.items() == [("a", 1)]


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.datetimes() | st.datetimes(timezones=st.just(dt.UTC)) | st.dates()
    | st.times() | st.timedeltas() | st.decimals(allow_nan=False) | st.uuids()
)  # fmt: skip
hashable = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.sets(hashable, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["$", "$bytes", "$dict"]), inner)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=10,
)  # fmt: skip
contents = st.dictionaries(
    st.sampled_from(["notes", "other", "$x", "é"]),
    st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=5),
)


def typed(value: Any) -> Any:
    """A value with the types of all that is in it, so that 1, True and 1.0 differ."""
    if isinstance(value, dict):
        return dict, sorted((repr(typed(k)), repr(typed(v))) for k, v in value.items())
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(typed(item)) for item in value)
    return type(value), repr(value)


def test_A10_any_storage_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def round_trip(stored: dict[str, dict[str, object]], later: dict[str, Any]) -> None:
        async with make(tmp_path_factory.mktemp("home"), storage="sqlite:///:memory:") as manager:
            engine = manager.use("storage")
            for name, entries in stored.items():
                await engine.namespace(name).update(entries)
            before = whole(manager)["storage"]
            path = await manager.backup_plugins()
            for name, entries in later.items():
                await engine.namespace(name).clear()
                await engine.namespace(name).update(entries)
            await manager.restore_plugins(path)
            after = whole(manager)["storage"]
            for name in before:
                assert typed(after[name]) == typed(before[name])

    @given(contents, contents)
    def check(stored: dict[str, dict[str, object]], later: dict[str, Any]) -> None:
        asyncio.run(round_trip(stored, later))

    check()


async def test_A10_what_json_cannot_hold_comes_back(tmp_path: Path) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    odd = {
        "nan": float("nan"), "inf": float("-inf"), "big": 2**3000, "zone": Decimal("sNaN"),
        "deep": deep, "id": UUID(int=1), "exact": 2**53 + 1,
    }  # fmt: skip
    notes = Notes()
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes)
        await notes.storage.update(odd)
        path = await manager.backup_plugins()
        await notes.storage.clear()
        await manager.restore_plugins(path)
        assert {key: repr(value) for key, value in notes.storage.items() if key != "memory"} == {
            key: repr(value) for key, value in odd.items()
        }


# -- refused: nothing changes


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def cut_line(data: bytes) -> bytes:
    return b"\n".join(data.splitlines()[:-1]) + b"\n"


def drop_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:2] + lines[3:])


def alter(data: bytes) -> bytes:
    return data.replace(b'"a",1', b'"a",2')


def newer(data: bytes) -> bytes:
    return data.replace(b'"version":1', b'"version":2', 1)


def nothing(_: bytes) -> bytes:
    return b""


def noise(_: bytes) -> bytes:
    return bytes(range(256)) * 1000


def other_json(_: bytes) -> bytes:
    return b'{"format": "tar", "version": 1}\n{}\n'


def state(data: bytes) -> bytes:
    return data.replace(b"veko-backup", b"veko-state", 1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cut off"), (cut_line, "cut off"), (drop_line, "checksum"), (alter, "checksum"),
        (newer, "format 2"), (nothing, "not a Veko backup"), (noise, "not a Veko backup"),
        (other_json, "not a Veko backup"), (state, "but a state"),
    ],
)  # fmt: skip
async def test_A10_a_file_that_is_not_a_sound_backup_changes_nothing(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    notes = Notes()
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes)
        await notes.storage.set("a", 1)
        path = await manager.backup_plugins()
        await notes.storage.set("a", 3)
        path.write_bytes(damage(path.read_bytes()))
        record, before = manager.get_plugin("notes"), whole(manager)

        with pytest.raises(BackupError, match=words) as caught:
            await manager.restore_plugins(path)

        assert whole(manager) == before
        assert manager.get_plugin("notes") is record  # it never stopped
    assert caught.value.path == path
    assert caught.value.remedy
    assert not list((tmp_path / ".veko").glob("*.staged*"))


def sealed(lines: list[object]) -> bytes:
    """A file whose checksum fits, whatever it says."""
    from hashlib import sha256

    head = {"format": "veko-backup", "version": 1, "made_at": MADE_AT, "veko": "2.0.0"}
    data = b"".join(json.dumps(line).encode() + b"\n" for line in (head, *lines))
    end = {"lines": len(lines) + 1, "sha256": sha256(data).hexdigest()}
    return data + json.dumps({"end": end}).encode() + b"\n"


MADE_AT = "2026-01-02T03:04:05+00:00"
PLUGIN = {"name": "notes", "version": "1.0.0", "active": True}


@pytest.mark.parametrize(
    "lines",
    [
        [[1, 2, 3]],
        ["text"],
        [["key", "without a namespace"]],
        [{"plugin": {"name": "../x", "version": "1", "active": True}}],
        [{"plugin": {"name": "notes"}}],
        [{"plugin": PLUGIN}, {"plugin": PLUGIN}],
        [{"plugin": {**PLUGIN, "config": {"a": {"$what": 1}}}}],
        [{"plugin": {**PLUGIN, "config": {"a": {"$int": []}}}}],
        [{"namespace": ""}],
        [{"namespace": "a"}, ["", 1]],
        [{"namespace": "a"}, ["k" * 600, 1]],
        [{"namespace": "a"}, ["k", {"$bytes": "é"}]],
        [{"namespace": "a"}, ["k", {"$datetime": "yesterday"}]],
        [{"namespace": "a"}, ["k", {"$decimal": "x"}]],
        [{"namespace": "a"}, ["k", {"$set": [[1]]}]],
        [{"namespace": "a"}, ["k", {"$set": 1}]],
        [{"namespace": "a"}, ["k", {"$dict": [[[], 1]]}]],
        [{"namespace": "a"}, ["k", 1], ["k", 2]],
    ],
    ids=lambda lines: json.dumps(lines)[:60],
)
async def test_A10_a_forged_backup_changes_nothing(tmp_path: Path, lines: list[object]) -> None:
    notes = Notes()
    path = tmp_path / "forged.jsonl"
    path.write_bytes(sealed(lines))
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes)
        await notes.storage.set("a", 3)
        record, before = manager.get_plugin("notes"), whole(manager)

        with pytest.raises(VekoError):
            await manager.restore_plugins(path)

        assert whole(manager) == before
        assert manager.get_plugin("notes") is record


async def test_A10_a_backup_from_elsewhere_names_what_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    async with make(tmp_path / "there") as manager:
        await manager.load_plugin(Notes("alien"))
        path = await manager.backup_plugins()
    async with make(tmp_path / "here") as manager:
        await manager.load_plugin(Notes())
        record = manager.get_plugin("notes")
        with pytest.raises(BackupError, match=r"not here: alien.*another application's") as caught:
            await manager.restore_plugins(path)
        assert manager.get_plugin("notes") is record
    assert caught.value.path == path


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe with a name")
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "locked"])
async def test_A10_a_path_that_cannot_be_read_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "target"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "locked":
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
        path.touch(0o000)
    async with make(tmp_path) as manager:
        with pytest.raises(BackupError) as caught:
            await manager.restore_plugins(path)
    assert caught.value.path == path
    assert caught.value.remedy


async def test_A9_a_path_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    async with make(tmp_path) as manager:
        for path, words in (
            (tmp_path, "folder"),
            (file, "already exists"),
            (file / "inside.jsonl", "cannot be written"),
            (Path("/proc/nothing/b.jsonl"), "cannot be written"),
        ):
            with pytest.raises(BackupError, match=words) as caught:
                await manager.backup_plugins(path)
            assert caught.value.path == path
            assert caught.value.remedy
    assert file.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
async def test_A9_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    import signal

    notes = Notes()
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes)
        await notes.storage.set("large", "x" * 300_000)
        former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(BackupError, match=r"cannot be written.*Free space"):
                await manager.backup_plugins()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, former)
        assert list((tmp_path / ".veko" / "backups").iterdir()) == []

        path = await manager.backup_plugins()
        await notes.storage.set("large", 1)
        before = whole(manager)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(VekoError, match="Free space"):
                await manager.restore_plugins(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, former)
        assert whole(manager) == before


# -- refused by a plugin: as it was


async def test_A10_a_configuration_that_does_not_fit_any_more_stops_nobody(tmp_path: Path) -> None:
    notes = Notes()
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes, {"size": "large"})
        path = await manager.backup_plugins()
        await manager.unload_plugin("notes")
        newer = Notes(config_schema={"properties": {"size": {"type": "integer"}}})
        await manager.load_plugin(newer, {"size": 3})
        record = manager.get_plugin("notes")

        with pytest.raises(BackupError, match=r"size.*nothing was changed") as caught:
            await manager.restore_plugins(path)

        assert isinstance(caught.value.__cause__, ConfigError)
        assert manager.get_plugin("notes") is record
        assert caught.value.plugin == "notes"


@pytest.mark.parametrize("when", ["load", "toggle", "unload"])
async def test_A10_if_a_step_fails_everything_is_as_before(tmp_path: Path, when: str) -> None:
    plugins = [Notes("one"), Notes("two", dependencies=("one",)), Notes("three")]
    async with make(tmp_path) as manager:
        for plugin in plugins:
            await manager.load_plugin(plugin, {"n": 1})
            await plugin.storage.set("a", 1)
        if when == "toggle":
            await manager.toggle_plugin("three", False)
        path = await manager.backup_plugins()
        await manager.kernel.update_config("one", {"n": 2})
        await manager.toggle_plugin("three")
        for plugin in plugins:
            await plugin.storage.update({"a": 2, "memory": None})
        before = whole(manager)

        def refuse(name: str) -> None:
            if name == "three":
                raise ValueError("not now")

        hooked = {"toggle": "plugin:deactivate", "unload": "plugin:unload"}.get(when)
        hook = manager.bus.on(hooked, refuse) if hooked else None
        if when == "load":
            plugins[2].load = failing_once(plugins[2])  # type: ignore[method-assign]

        with pytest.raises(VekoError, match=r"not now|fails once"):
            await manager.restore_plugins(path)

        if hook is not None:
            hook.cancel()
        assert whole(manager) == before
        await manager.restore_plugins(path)
        assert all(plugin.storage.get("a") == 1 for plugin in plugins)


def failing_once(plugin: Notes) -> Callable[..., None]:
    """A `load` that fails the first time."""
    failed = False

    def load(config: Any, context: Any) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise ValueError("it fails once")
        Notes.load(plugin, config, context)

    return load


async def test_A10_what_cannot_be_brought_back_is_told(tmp_path: Path) -> None:
    one, two = Notes("one"), Notes("two")
    async with make(tmp_path) as manager:
        await manager.load_plugin(one)
        await manager.load_plugin(two)
        path = await manager.backup_plugins()
        await one.storage.set("a", 2)
        two.fail = True
        with pytest.raises(VekoError, match=r"two could not be brought back: .*it fails now"):
            await manager.restore_plugins(path)
        assert [info.name for info in manager.list_plugins()] == ["one"]
        assert one.storage.get("a") == 2


# -- plugins from files, and those that the backup does not know


def write(root: Path, name: str, version: str = "1.0.0", **manifest: object) -> Path:
    folder = root / "plugins"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    fields = {"name": name, "version": version, **manifest}
    lines = [f"{key} = {value!r}" for key, value in fields.items()]
    path.write_text("\n".join([*lines, "def load(): pass", ""]))
    return path


async def test_A10_plugins_are_loaded_from_where_they_are_now(tmp_path: Path) -> None:
    write(tmp_path, "one")
    write(tmp_path, "two")
    async with make(tmp_path, plugins={"one": {"a": 1}}) as manager:
        path = await manager.backup_plugins()
    write(tmp_path, "one", "1.1.0")
    write(tmp_path, "later")
    async with make(tmp_path, plugins={"one": {"a": 2, "b": 3}}) as manager:
        await manager.unload_plugin("two")
        report = await manager.restore_plugins(path)
        assert {info.name for info in manager.list_plugins()} == {"one", "two", "later"}
        assert config_of(manager, "one") == {"a": 1}
    assert report.versions == {"one": ("1.0.0", "1.1.0")}
    assert report.others == ["later"]


async def test_A10_a_broken_source_is_found_before_anything_stops(tmp_path: Path) -> None:
    source = write(tmp_path, "one")
    async with make(tmp_path) as manager:
        path = await manager.backup_plugins()
        source.write_text("this is not Python")
        record = manager.get_plugin("one")
        with pytest.raises(BackupError, match="nothing was changed"):
            await manager.restore_plugins(path)
        assert manager.get_plugin("one") is record


async def test_A9_A10_secrets_are_not_in_it_and_are_those_of_now(tmp_path: Path) -> None:
    schema = {"properties": {"password": {"type": "string", "writeOnly": True}}}
    write(tmp_path, "one", config_schema=schema)
    section = {"password": SECRET, "size": 1}
    async with make(tmp_path, plugins={"one": section}) as manager:
        path = await manager.backup_plugins()
        assert SECRET not in path.read_text()
        await manager.kernel.update_config("one", {"password": "newer", "size": 2})
        report = await manager.restore_plugins(path)
        assert config_of(manager, "one") == {"password": "newer", "size": 1}
        assert report.secrets_missing == {}
    async with make(tmp_path) as manager:
        report = await manager.restore_plugins(path)
        assert config_of(manager, "one") == {"size": 1}
        assert report.secrets_missing == {"one": ["password"]}


# -- while the application runs


async def test_A10_a_plugin_may_restore_what_it_is_in(tmp_path: Path) -> None:
    done = asyncio.Event()
    async with make(tmp_path) as manager:
        notes = Notes()

        async def ask() -> None:
            with contextlib.suppress(asyncio.CancelledError):  # as it stops for the restore
                await manager.restore_plugins(path)
            done.set()

        def load(context: Any) -> None:
            context.add_command("restore", lambda: context.spawn(ask) and None)

        await manager.load_plugin(notes)
        await manager.load_plugin(manager.create_simple_plugin("asker", load))
        await notes.storage.set("a", 1)
        path = await manager.backup_plugins()
        await notes.storage.set("a", 2)
        await manager.run_command("restore")
        await done.wait()
        await manager.backup_plugins()  # behind the restore
        assert notes.storage.get("a") == 1
        assert len(manager.list_plugins()) == 2


async def test_A9_A10_the_loop_goes_on_while_much_is_written_and_read(tmp_path: Path) -> None:
    notes = Notes()
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes)
        await notes.storage.update({f"k{n}": {"n": n, "t": (n,)} for n in range(20_000)})
        path = tmp_path / "b.jsonl"
        gc.collect()
        gc.freeze()  # a collection of all that the suite has made takes longer than a slice
        try:
            for work in (manager.backup_plugins, manager.restore_plugins):
                gaps: list[float] = []
                watch = asyncio.create_task(watched(gaps))
                begin = time.perf_counter()
                await work(path)
                took = time.perf_counter() - begin
                watch.cancel()
                await asyncio.wait([watch])
                assert max(gaps) < took / 3, (max(gaps), took)
        finally:
            gc.unfreeze()


async def watched(gaps: list[float]) -> None:
    """Note how long each turn of the loop takes."""
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0)
        gaps.append(time.perf_counter() - begin)


async def test_A9_writes_go_on_while_a_backup_is_made_and_are_not_in_it(tmp_path: Path) -> None:
    notes = Notes()
    async with make(tmp_path) as manager:
        await manager.load_plugin(notes)
        await notes.storage.update({f"k{n:05}": 0 for n in range(10_000)})
        saving = asyncio.create_task(manager.backup_plugins())
        number = 0
        while not saving.done():
            number += 1
            await notes.storage.update({"k00000": number, "k09999": number})
        lines = saving.result().read_text().splitlines()
        found = {json.loads(line)[1] for line in lines if line.startswith(('["k00000', '["k09999'))}
        assert len(found) == 1, "it is of two moments"
        assert number > 1


async def test_A9_stopping_ends_what_is_under_way(tmp_path: Path) -> None:
    notes = Notes()
    manager = make(tmp_path)
    await manager.start()
    await manager.load_plugin(notes)
    await notes.storage.update({f"k{n:05}": n for n in range(20_000)})
    saving = asyncio.create_task(manager.backup_plugins())
    await asyncio.sleep(0)
    await manager.stop()
    with pytest.raises(BackupError, match="is stopping"):
        await saving
    assert not [*(tmp_path / ".veko" / "backups").glob("*")]


async def test_A9_a_storage_of_another_kind_is_told_from_ours(tmp_path: Path) -> None:
    class Other(Plugin):
        name = "storage"
        version = "1.0.0"

        def load(self, context: Any) -> None:
            context.provide("storage", self)

    async with make(tmp_path, core={"storage": Other()}) as manager:
        with pytest.raises(BackupError, match="service `transfer`"):
            await manager.backup_plugins()
