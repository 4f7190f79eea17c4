"""What JSON cannot say crosses as marks, which no client can forge."""

import asyncio
import gc
import math
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from veko_plugins.remote.protocol import Kinds, Lent, RemoteError, RemoteFunction

from .pair import pair, raw_pair

ECHO = {"methods": {"echo": lambda value: value}}


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


class Point:
    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (None, None),
        ([1, -2.5, True, "é\n", {"a": {}}], None),
        ((1, 2), [1, 2]),
        ({1: 2, 2.5: 3}, {"1": 2, "2.5": 3}),
        (MappingProxyType({"a": (1,)}), {"a": [1]}),
        ([Colour.RED, Number.ONE], ["red", 1]),
        (b"", None),
        ([b"\x00\xff", {"b": b"x" * 100_000}, b"\x01"], None),
        (bytearray(b"ab"), b"ab"),
        pytest.param(memoryview(b"abcd")[::2], b"ac", id="memoryview"),
        ("é" * 100_000, None),
        ({"long": "x" * 20_000, "short": "y"}, None),
        ("a\ud800b", "a�b"),
        (["\udc00" * 20_000], ["�" * 20_000]),
        ("\U0001f600", None),
        (datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), None),
        (datetime(2020, 1, 2, 3, 4, 5), datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (date(2020, 1, 2), datetime(2020, 1, 2, tzinfo=UTC)),
        pytest.param({1, "a"}, None, id="set"),  # its order differs from process to process
        (frozenset(), set()),
        (2**53, None),
        (float("nan"), None),
    ],
    ids=lambda value: repr(value)[:30].encode("ascii", "backslashreplace").decode(),
)
async def test_a_value_comes_back(value: Any, back: Any) -> None:
    async with pair(None, ECHO) as (host, _):
        answer = await host.call("echo", value)
        expected = back if back is not None else value
        if isinstance(expected, float) and math.isnan(expected):  # JSON has no NaN
            expected = None
        assert answer == expected
        assert type(answer) is type(expected)


async def test_a_function_is_called_and_comes_home_as_itself() -> None:
    kept: list[Any] = []

    def keep(function: RemoteFunction) -> RemoteFunction:
        kept.append(function)
        return function

    async def double(value: int) -> int:
        return 2 * value

    async with pair(None, {"methods": {"keep": keep}}) as (host, _):
        assert await host.call("keep", double) is double
        assert await host.call("keep", double) is double
        assert kept[0] is kept[1]
        assert kept[0].name.endswith("double")
        assert await kept[0](21) == 42
        with pytest.raises(RemoteError, match="argument"):
            await kept[0]()


async def test_a_function_is_released_when_nobody_has_it_any_more() -> None:
    async with pair(None, {"methods": {"take": lambda function: None}}) as (host, _):

        def function() -> None:
            return None

        for _ in range(3):
            await host.call("take", function)
        await host.call("take", None)  # what arrives later than the drop of the last one
        gc.collect()
        await host.ping(1)
        assert len(host._exports) == 0


async def test_an_error_crosses_as_a_value() -> None:
    async with pair(None, ECHO) as (host, _):
        error = await host.call("echo", ValueError("no"))
        assert isinstance(error, RemoteError)
        assert (error.type, error.message) == ("ValueError", "no")


async def numbers(count: int, ends: list[str]) -> AsyncIterator[int]:
    try:
        for number in range(count):
            yield number
    finally:
        ends.append("ended")


async def test_an_iterator_is_read_step_by_step_and_ended() -> None:
    ends: list[str] = []
    async with pair(None, {"methods": {"count": lambda n: numbers(n, ends)}}) as (host, worker):
        assert [n async for n in await host.call("count", 5)] == [0, 1, 2, 3, 4]
        assert ends == ["ended"]
        stream = await host.call("count", 5)
        assert await anext(stream) == 0
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await host.ping(1)
        await asyncio.sleep(0.01)
        assert ends == ["ended", "ended"]
        assert len(worker._exports) == 0


async def test_an_iterator_that_fails_says_so_once() -> None:
    async def fail() -> AsyncIterator[int]:
        yield 1
        raise KeyError("x")

    async with pair(None, {"methods": {"fail": fail}}) as (host, worker):
        stream = await host.call("fail")
        assert await anext(stream) == 1
        with pytest.raises(RemoteError, match="x"):
            await anext(stream)
        assert len(worker._exports) == 0


async def test_what_is_lent_can_be_withdrawn() -> None:
    kept: list[RemoteFunction] = []
    async with pair(None, {"methods": {"keep": kept.append}}) as (host, _):
        lent = host.lend(lambda: 1)
        assert isinstance(lent, Lent)
        await host.call("keep", lent)
        assert await kept[0]() == 1
        lent.withdraw()
        lent.withdraw()
        with pytest.raises(RemoteError, match="withdrawn by its owner") as raised:
            await kept[0]()
        assert raised.value.type == "GoneError"
        assert len(host._exports) == 0


async def test_further_kinds_may_hold_marks_themselves() -> None:
    kinds = Kinds(
        encode={Point: lambda point: ("point", point.x, point.y)},
        decode={"point": Point},
        other=str,
    )
    async with pair({"kinds": kinds}, ECHO | {"kinds": kinds}) as (host, _):
        point = await host.call("echo", Point(b"x", [Point(1, complex(1, 2))]))
        assert (point.x, point.y[0].x, point.y[0].y) == (b"x", 1, "(1+2j)")


async def test_what_a_client_sends_is_never_taken_for_a_mark() -> None:
    async with raw_pair(methods={"echo": lambda value: value}) as (host, raw):
        call = asyncio.ensure_future(host.call("take", {"$": ["own", 1]}, "x", b"y"))
        sent = (await raw.hear())[3]
        assert sent == [{"$": ["own", 1]}, "x", {raw.nonce: ["bytes", 0, 1]}]
        # The escaped form of the key is data, as is a key among others.
        escaped = f"\\u{ord(raw.nonce[0]):04x}{raw.nonce[1:]}"
        await raw.say(b'["call",1,"echo",[{"%s":["own",1]}],0]' % escaped.encode())
        assert (await raw.hear())[2] == {raw.nonce: ["own", 1]}
        await raw.say(["call", 2, "echo", [{raw.nonce: 1, "b": 2}], 0])
        assert (await raw.hear())[2] == {raw.nonce: 1, "b": 2}
        await raw.say(["ok", 1, None])
        await call


async def test_what_is_too_large_fails_at_its_sender() -> None:
    async with pair({"limit": 2**18}, ECHO) as (host, worker):
        with pytest.raises(ValueError, match=r"3000\d\d bytes are too many"):
            await worker.call("echo", b"x" * 300_000)
        with pytest.raises(ValueError, match=r"bytes of JSON are too many for a message, at most"):
            await host.call("echo", list(range(300_000)))
        with pytest.raises(RemoteError, match="too many for a message"):
            await host.call("echo", "x" * 2**18)
        assert await host.call("echo", 1) == 1
