"""What can be stored, comes back as it was; what cannot, is refused by name."""

import asyncio
import enum
import math
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko import StorageError
from veko_plugins.storage import Engine, Namespace


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


class Record(msgspec.Struct):
    name: str


@pytest.fixture
async def storage() -> AsyncIterator[Namespace]:
    async with Engine(":memory:") as engine:
        yield engine.namespace("plugin")


async def _round_trip(path: Path, value: object) -> tuple[object, object]:
    async with Engine(path) as engine:
        storage = engine.namespace("plugin")
        await storage.set("key", value)
        live = storage.get("key")
    async with Engine(path) as engine:
        return live, engine.namespace("plugin").get("key")


@pytest.mark.parametrize(
    "value",
    [
        "text", "", "\0", "日本語 🙂", 0, -1, 2**64, -(2**200), 1.5, -0.0, math.inf, True, False,
        None, b"", b"\xff\0", [], {}, [1, [2, {"a": None}]], {"a": {"b": [b"c"]}}, (), (1, (2,)),
        [(1, 2), {3}], {1, 2}, frozenset({"a"}), {1: 2, None: 3, (1, 2): 4, b"k": 5},
        {date(2026, 1, 2): "day", UUID(int=7): [Decimal("0.10")]}, {frozenset({1}): (2,)},
        datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 678), date(2026, 1, 2), time(1, 2, 3, 4),
        timedelta(days=-1, microseconds=5), Decimal("1.50"), UUID(int=2**127), Level.HIGH,
        Point(1, 2), bytearray(b"x"),
    ],
    ids=repr,
)  # fmt: skip
async def test_value_comes_back_equal(tmp_path: Path, value: object) -> None:
    live, reopened = await _round_trip(tmp_path / "s.db", value)

    assert live == value
    assert reopened == value
    assert type(reopened) is type(live)


async def test_types_that_equal_one_another_are_kept_apart(storage: Namespace) -> None:
    await storage.update({"bool": True, "int": 1, "float": 1.0, "tuple": (1,), "list": [1]})

    found = {key: type(value) for key, value in storage.items()}

    assert found == {"bool": bool, "int": int, "float": float, "tuple": tuple, "list": list}


async def test_nan_comes_back(storage: Namespace) -> None:
    await storage.set("inside", [math.nan])
    await storage.set("alone", math.nan)

    inside: Any = storage.get("inside")
    alone: Any = storage.get("alone")
    assert math.isnan(inside[0])
    assert math.isnan(alone)


async def test_aware_datetime_comes_back_as_the_same_instant_in_utc(tmp_path: Path) -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    _, found = await _round_trip(tmp_path / "s.db", moment)

    assert isinstance(found, datetime)
    assert found == moment
    assert found.tzinfo == UTC


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.datetimes() | st.dates() | st.timedeltas() | st.uuids()
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.dates(), inner)
    | st.tuples(inner, inner),
    max_leaves=12,
)  # fmt: skip


@given(value=_PLAIN)
def test_any_plain_data_come_back_equal(value: object) -> None:
    async def check() -> None:
        async with Engine(":memory:") as engine:
            storage = engine.namespace("plugin")
            await storage.set("key", value)
            storage.forget()
            assert storage.get("key") == value

    asyncio.run(check())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (print, ["builtin_function_or_method"]),
        (lambda: None, ["function"]),
        (object(), ["object"]),
        ([1, {"deep": {2, print}}], ["builtin_function_or_method", "[1]['deep']"]),
        (Colour.RED, ["Colour"]),
        (Record("x"), ["Record"]),
        (range(3), ["range"]),
        (Record, ["StructMeta"]),
        ("\ud800", ["surrogates"]),
        (msgspec.Raw(b"\x01"), ["Raw"]),
        (msgspec.msgpack.Ext(1, b"\x90"), ["Ext"]),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), ["datetime"]),
    ],
)
async def test_refused_value_names_key_and_type(
    storage: Namespace, value: object, words: list[str]
) -> None:
    await storage.set("the key", "old")

    with pytest.raises(StorageError) as caught:
        storage.set("the key", value)

    text = str(caught.value)
    assert "'the key'" in text
    assert "context.provide" in text
    for word in words:
        assert word in text
    assert storage.get("the key") == "old"


async def test_sockets_and_circles_are_refused(storage: Namespace) -> None:
    circle: list[object] = []
    circle.append(circle)

    with socket.socket() as held, pytest.raises(StorageError, match="socket"):
        storage.set("key", held)
    with pytest.raises(StorageError, match="nested too deep"):
        storage.set("key", circle)


@pytest.mark.parametrize("wrap", [lambda blob: blob, lambda blob: [blob], lambda blob: (blob,)])
async def test_huge_value_is_refused(storage: Namespace, wrap: Callable[[bytes], object]) -> None:
    with pytest.raises(StorageError, match="file's name"):
        storage.set("key", wrap(b"\0" * (65 << 20)))

    assert storage.keys() == []


async def test_update_with_one_bad_value_changes_nothing(storage: Namespace) -> None:
    with pytest.raises(StorageError, match="'bad'"):
        storage.update({"good": 1, "bad": print})

    assert storage.keys() == []


@pytest.mark.parametrize("key", ["", "x" * 513, 1, None, b"x", [], "\ud800"])
async def test_bad_key_is_refused_everywhere(storage: Namespace, key: Any) -> None:
    for use in (
        lambda: storage.get(key),
        lambda: storage.set(key, 1),
        lambda: storage.delete(key),
    ):
        with pytest.raises(StorageError, match="key"):
            use()
    if not isinstance(key, list):
        with pytest.raises(StorageError, match="key"):
            storage.update({key: 1})


async def test_longest_key_and_odd_ones_are_taken(tmp_path: Path) -> None:
    keys = ["x" * 512, "é" * 512, "\0", "a\0b", "a\0c", " ", "%", "'"]
    async with Engine(tmp_path / "s.db") as engine:
        await engine.namespace("plugin").update({key: key for key in keys})
    async with Engine(tmp_path / "s.db") as engine:
        assert dict(engine.namespace("plugin").items()) == {key: key for key in keys}


async def test_what_get_gives_is_the_readers_own(storage: Namespace) -> None:
    given: list[object] = [1, [2]]
    storage.set("key", given)
    given.append("later")

    first: Any = storage.get("key")
    first[1].append("mine")
    items: Any = storage.items()
    items[0][1].append("mine too")

    assert storage.get("key") == [1, [2]]


async def test_default_only_stands_in_for_what_is_missing(storage: Namespace) -> None:
    storage.set("none", None)

    assert storage.get("none", 5) is None
    assert storage.get("missing", 5) == 5
    assert storage.get("missing") is None


async def test_update_takes_mappings_only(storage: Namespace) -> None:
    with pytest.raises(StorageError, match="mapping"):
        storage.update([("a", 1)])  # type: ignore[arg-type]
