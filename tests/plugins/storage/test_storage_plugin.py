"""The core plugin: a namespace for each plugin, and events around what they write."""

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from veko import Context, Event, Kernel, OptionError, Plugin, ServiceError, StorageError
from veko_plugins.storage import Engine, Query, Storage


class Links(Plugin):
    name = "links"
    version = "1.0.0"

    async def load(self, context: Context) -> None:
        self.context = context
        self.storage: Any = context.storage


class Other(Links):
    name = "other"


async def _loaded(kernel: Kernel, path: Path, plugin: type[Links] = Links) -> Any:
    await kernel.load(Storage(path))
    made = plugin()
    await kernel.load(made)
    return made.storage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".veko" / "storage.db"


async def test_each_plugin_has_its_own_namespace_that_stays(path: Path) -> None:
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        other = Other()
        await kernel.load(other)
        storage.set("key", 1)
        await other.storage.set("key", 2)
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        assert storage.get("key") == 1
        assert storage.name == "links"
        engine = kernel.use("storage")
        assert isinstance(engine, Engine)
        assert engine.namespaces() == ["links", "other"]


async def test_writes_in_load_stay_when_load_fails(path: Path) -> None:
    class Failing(Links):
        async def load(self, context: Context) -> None:
            context.storage.set("tries", context.storage.get("tries", 0) + 1)
            raise RuntimeError("no")

    async with Kernel() as kernel:
        await kernel.load(Storage(path))
        for _ in range(2):
            with pytest.raises(Exception, match="no"):
                await kernel.load(Failing())
        assert kernel.use("storage").namespace("links").get("tries") == 2


async def test_unloading_the_storage_closes_it_and_takes_the_context_back(path: Path) -> None:
    async with Kernel() as kernel:
        plugin = Links()
        await kernel.load(Storage(path))
        await kernel.load(plugin)
        plugin.storage.set("key", 1)
        await kernel.unload("storage")

        with pytest.raises(StorageError, match="closed"):
            plugin.storage.get("key")
        with pytest.raises(AttributeError, match="storage"):
            _ = plugin.context.storage
        with pytest.raises(ServiceError):
            kernel.use("storage")
        await kernel.load(Storage(path))
        assert plugin.context.storage.get("key") == 1


async def test_file_that_cannot_be_opened_fails_the_load(path: Path) -> None:
    _damage(path)
    async with Kernel() as kernel:
        with pytest.raises(Exception, match="damaged") as caught:
            await kernel.load(Storage(path))
        assert "storage" in str(caught.value)
        with pytest.raises(ServiceError):
            kernel.use("storage")


def _damage(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)


async def test_connect_and_disconnect_fire_with_the_engine(path: Path) -> None:
    seen: list[tuple[str, bool, Engine]] = []
    async with Kernel() as kernel:
        for event in ("database:connect", "database:disconnect"):
            kernel.bus.on(
                event,
                lambda engine, event=event: seen.append((event, "open" in repr(engine), engine)),
            )
        await kernel.load(Storage(path))
        engine = kernel.use("storage")
    assert seen == [("database:connect", True, engine), ("database:disconnect", True, engine)]


async def test_events_are_declared(path: Path) -> None:
    async with Kernel() as kernel:
        await kernel.load(Storage(path))
        found = {event.name: event for event in kernel.bus.events if "database" in event.name}
        assert found.keys() == {"database:connect", "database:query", "database:disconnect"}
        query: Event = found["database:query"]
        assert query.returns
        assert all(event.doc for event in found.values())


async def test_query_shows_each_write(path: Path) -> None:
    seen: list[tuple[str, str, tuple[str, ...], dict[str, object], bool]] = []

    def look(query: Query) -> None:
        seen.append((query.operation, query.namespace, query.keys, query.entries, query.started))

    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        await storage.set("unseen", 1)
        subscription = kernel.bus.on("database:query", look)
        await storage.set("a", [1])
        storage.update({"b": 2, "c": 3})
        storage.delete("b")
        await storage.clear()
        subscription.cancel()
        await storage.set("unseen", 2)
        assert dict(storage.items()) == {"unseen": 2}
    assert seen == [
        ("set", "links", ("a",), {"a": [1]}, False),
        ("update", "links", ("b", "c"), {"b": 2, "c": 3}, False),
        ("delete", "links", ("b",), {}, False),
        ("clear", "links", (), {}, False),
    ]


async def test_hook_stands_around_a_query(path: Path) -> None:
    steps: list[object] = []

    async def around(query: Query) -> None:
        steps.append("before")
        steps.append(await query)
        steps.append(await query)  # run once, however often it is awaited
        steps.append("after")

    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        kernel.bus.on("database:query", around)
        await storage.update({"a": 1, "b": 2})
        steps.append("durable")
        assert dict(storage.items()) == {"a": 1, "b": 2}
    assert steps == ["before", 2, 2, "after", "durable"]


async def test_a_returned_result_stands_for_the_query(path: Path) -> None:
    """As the original writes such hooks: `const result = await query(); return result`."""
    seen: list[object] = []
    failures: list[BaseException] = []

    async def original(query: Query) -> object:
        result = await query
        return result  # noqa: RET504

    async def after(query: Query) -> object:
        seen.append((query.operation, query.keys, query.started, await query))
        return await query

    async with Kernel() as kernel:
        kernel.bus.on("error:handle", failures.append)
        storage = await _loaded(kernel, path)
        kernel.bus.on("database:query", original)
        kernel.bus.on("database:query", after)
        await storage.update({"a": 1, "b": 2})
        await storage.set("a", 3)
        assert dict(storage.items()) == {"a": 3, "b": 2}
    assert seen == [("update", ("a", "b"), True, 2), ("set", ("a",), True, 1)]
    assert failures == []


async def test_a_returned_result_of_a_replaced_query_stands_for_it(path: Path) -> None:
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)

        async def replace(query: Query) -> object:
            return await query.replace({"a": "REPLACED"})

        kernel.bus.on("database:query", replace)
        await storage.set("a", "first")
        assert dict(storage.items()) == {"a": "REPLACED"}


async def test_two_hooks_and_the_end_run_it_once(path: Path) -> None:
    async def around(query: Query) -> None:
        await query

    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        kernel.bus.on("database:query", around)
        kernel.bus.on("database:query", around)
        for number in range(5):
            storage.set("key", number)
        await storage.set("key", 5)
        assert storage.get("key") == 5


async def test_hook_replaces_a_query(path: Path) -> None:
    def shout(query: Query) -> Query | None:
        if query.operation == "set":
            return query.replace({key: str(old).upper() for key, old in query.entries.items()})
        return None

    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        kernel.bus.on("database:query", shout)
        handle = storage.set("key", "quiet")
        assert storage.get("key") == "quiet"
        await handle
        assert storage.get("key") == "QUIET"
        await storage.update({"key": "quiet"})
        assert storage.get("key") == "quiet"
        await storage.set("key", "end")
    async with Kernel() as kernel:
        assert (await _loaded(kernel, path)).get("key") == "END"


async def test_bad_replacement_is_refused_and_the_write_goes_on(path: Path) -> None:
    failures: list[str] = []

    def bad(query: Query) -> Query:
        return query.replace({"key": print})

    def ill_typed(query: Query) -> Any:
        return "a query"

    async with Kernel() as kernel:
        kernel.bus.on("error:handle", lambda error: failures.append(str(error)))
        storage = await _loaded(kernel, path)
        kernel.bus.on("database:query", bad)
        kernel.bus.on("database:query", ill_typed)
        await storage.set("key", 1)
        assert storage.get("key") == 1
    assert len(failures) == 2
    assert "builtin_function" in failures[0]


async def test_failing_and_hanging_hooks_do_not_stop_the_write(path: Path) -> None:
    async def hang(query: Query) -> None:
        await asyncio.Event().wait()

    def fail(query: Query) -> None:
        raise RuntimeError("no")

    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        kernel.bus.on("database:query", hang, timeout=0.05)
        kernel.bus.on("database:query", fail)
        await asyncio.gather(*(_wait(storage.set(f"{n}", n)) for n in range(10)))
        assert len(storage) == 10


async def _wait(handle: Any) -> None:
    await handle


async def test_writes_inside_a_hook_do_not_fire_it_again(path: Path) -> None:
    seen: list[str] = []
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        other = Other()
        await kernel.load(other)

        async def audit(query: Query) -> None:
            seen.append(query.namespace)
            await query
            await other.storage.set("count", len(seen))
            await storage.set("last", list(query.keys))  # the namespace that is being written

        kernel.bus.on("database:query", audit)
        await storage.set("a", 1)
        await storage.set("b", 2)
        await other.storage.set("own", 1)

        assert seen == ["links", "links", "other"]
        assert other.storage.get("count") == 3
        assert dict(storage.items()) == {"a": 1, "b": 2, "last": ["own"]}


async def test_hook_that_writes_the_same_key_first_leaves_memory_and_disk_alike(
    path: Path,
) -> None:
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)

        async def meddle(query: Query) -> None:
            await storage.set("key", "the hook's")

        kernel.bus.on("database:query", meddle)
        storage.set("key", "first")
        await storage.set("key", "second")
        live = storage.get("key")
    async with Kernel() as kernel:
        assert (await _loaded(kernel, path)).get("key") == live == "second"


async def test_writes_reach_the_disk_in_their_order_whatever_hooks_take(path: Path) -> None:
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        gate = asyncio.Event()

        async def first_is_slow(query: Query) -> None:
            if query.entries.get("key") == 1:
                await gate.wait()
            await query

        kernel.bus.on("database:query", first_is_slow)
        handles = [storage.set("key", number) for number in (1, 2, 3)]
        assert storage.get("key") == 3
        storage.forget()
        assert storage.get("key") == 3
        gate.set()
        for handle in handles:
            await handle
        assert storage.get("key") == 3
    async with Kernel() as kernel:
        assert (await _loaded(kernel, path)).get("key") == 3


@pytest.mark.parametrize("seed", range(8))
async def test_memory_and_disk_agree_whatever_hooks_do(path: Path, seed: int) -> None:
    dice = random.Random(seed)
    model: dict[str, object] = {}
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)

        async def meddle(query: Query) -> Query | None:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            match dice.randrange(5):
                case 0:
                    await query
                case 1:
                    raise RuntimeError("no")
                case 2 if query.operation in {"set", "update"}:
                    return query.replace(query.entries)
                case 3:
                    storage.set("hook", dice.random())
            return None

        subscriptions = [kernel.bus.on("database:query", meddle) for _ in range(2)]
        handles = []
        for number in range(200):
            key = f"k{dice.randrange(6)}"
            match dice.randrange(8):
                case 0:
                    handles.append(storage.clear())
                    model.clear()
                case 1 | 2:
                    handles.append(storage.delete(key))
                    model.pop(key, None)
                case _:
                    handles.append(storage.set(key, [number]))
                    model[key] = [number]
            if not dice.randrange(5):
                await asyncio.sleep(0)
            if not dice.randrange(40):
                await handles[-1]
            if number == 150:
                subscriptions.pop().cancel()
        for handle in handles:
            await handle
        live = dict(storage.items())
        assert {key: value for key, value in live.items() if key != "hook"} == model
    async with Kernel() as kernel:
        assert dict((await _loaded(kernel, path)).items()) == live


async def test_closing_runs_what_hooks_still_hold(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko_plugins.storage.plugin._HOOKS_TIMEOUT", 0.05)
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)

        async def hang(query: Query) -> None:
            await asyncio.Event().wait()

        kernel.bus.on("database:query", hang)
        for number in range(3):
            storage.set("key", number)
    async with Kernel() as kernel:
        assert (await _loaded(kernel, path)).get("key") == 2


async def test_failure_that_nobody_awaited_is_in_the_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Kernel() as kernel:
        storage = await _loaded(kernel, path)
        engine: Engine = kernel.use("storage")
        await storage.set("key", 1)
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE entry")
        connection.close()
        storage.set("key", 2)
        with pytest.raises(StorageError, match="no such table"):
            await storage.set("key", 3)  # of the same turn: somebody has heard of it
        assert not caplog.records
        storage.set("key", 4)
        with pytest.raises(StorageError, match="no such table"):
            await engine.namespace("other").set("key", 5)
    lost = [record for record in caplog.records if "a write failed" in record.getMessage()]
    assert [record.name for record in lost] == ["veko.plugin.storage"]
    assert "plugin links" in lost[0].getMessage()


@pytest.mark.parametrize(
    ("target", "path", "durability"),
    [
        ("data/storage.db", "data/storage.db", "process"),
        (Path("data/storage.db"), str(Path("data/storage.db")), "process"),
        ("sqlite:///data/storage.db", "data/storage.db", "process"),
        ("sqlite:////var/storage.db", "/var/storage.db", "process"),
        ("sqlite:///my%20data.db", "my data.db", "process"),
        ("sqlite:///:memory:", ":memory:", "process"),
        (":memory:", ":memory:", "process"),
        ("memory:", ":memory:", "process"),
        ("sqlite:///s.db?durability=power", "s.db", "power"),
    ],
)
def test_target(target: str | Path, path: str, durability: str) -> None:
    storage = Storage(target)

    assert (storage.path, storage.durability) == (path, durability)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("mysql://localhost", "mysql"),
        ("mongodb://localhost/x", "mongodb"),
        ("sqlite://s.db", "slashes"),
        ("sqlite:///", "slashes"),
        ("", "path"),
        ("sqlite:///s.db?durability=some", "durability=power"),
        ("sqlite:///s.db?mode=ro", "mode=ro"),
    ],
)
def test_unknown_target_names_those_known(target: str, word: str) -> None:
    with pytest.raises(OptionError, match=word) as caught:
        Storage(target)
    assert "Known" in str(caught.value) or "sqlite:///" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("redis://u:secret@localhost?prefix=A-b", "prefix"),
        ("redis://u:secret@localhost:port", "redis://user:password@host:port/0"),
        ("nats://u:secret@localhost?stream=x", "nats://user:password@host:port"),
    ],
)
def test_wrong_parts_of_a_servers_url_are_named(target: str, word: str) -> None:
    with pytest.raises(OptionError) as caught:
        Storage(target)
    assert word in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Kernel() as kernel:
        storage = await _loaded(kernel, Path(":memory:"))
        await storage.set("key", [1])
        storage.forget()
        assert storage.get("key") == [1]
    assert not any(_listing(tmp_path))


def _listing(folder: Path) -> list[Path]:
    return [*folder.iterdir()]
