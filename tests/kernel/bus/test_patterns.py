"""Patterns: by segment, matched when a plan is made, deaf to errors unless they name them."""

import itertools

import pytest

from veko import Bus, VekoError
from veko._bus.events import MANY, matches, matching

MATCHES = [
    ("plugin:*", "plugin:load", True),
    ("plugin:*", "plugin", False),
    ("plugin:*", "plugin:a:b", False),
    ("plugin:*", "plugins:a", False),
    ("*:load", "plugin:load", True),
    ("*:load", "a:b:load", False),
    ("**:load", "load", True),
    ("**:load", "a:b:load", True),
    ("plugin:**", "plugin", True),
    ("plugin:**", "plugin:a", True),
    ("plugin:**", "plugin:a:b:c", True),
    ("plugin:**", "other:a", False),
    ("a:**:z", "a:z", True),
    ("a:**:z", "a:b:c:z", True),
    ("a:**:z", "a:b:c", False),
    ("*", "one", True),
    ("*", "one:two", False),
    ("**", "one:two:three", True),
    ("*:*", "one:two", True),
    # A pattern hears `log` and errors only if its last segment names them.
    ("*", "log", False),
    ("**", "log", False),
    ("**:log", "log", True),
    ("**", "plugin:error", False),
    ("plugin:*", "plugin:error", False),
    ("*:error", "plugin:error", True),
    ("**:error", "plugin:x:error", True),
    ("**", "plugin:x:error", False),
    ("*", "error", True),
    ("**", "error:handle", True),
    ("**", "catalog", True),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("pattern", "event", "heard"), MATCHES)
async def test_patterns(pattern: str, event: str, heard: bool) -> None:
    bus = Bus()
    seen: list[object] = []
    subscription = bus.on(pattern, seen.append)
    assert bus.heard(event) is heard
    await bus.emit(event, "value")
    assert seen == (["value"] if heard else [])
    subscription.cancel()
    assert not bus.heard(event)


def fits(want: list[str], have: list[str]) -> bool:
    if not want:
        return not have
    if want[0] == "**":
        return any(fits(want[1:], have[i:]) for i in range(len(have) + 1))
    return bool(have) and want[0] in ("*", have[0]) and fits(want[1:], have[1:])


def test_every_short_pattern_matches_segment_by_segment() -> None:
    names = [":".join(one) for n in (1, 2, 3, 4) for one in itertools.product("ab", repeat=n)]
    names += ["", "a:", ":b", "a.c", "a\n:b", "log", "a:log", "error", "a:error", "a:b:error"]
    many = [*names, *(f"c{number}" for number in range(MANY))]  # matched by an expression
    for length in (1, 2, 3, 4):
        for segments in itertools.product(("a", "b", "*", "**"), repeat=length):
            pattern = ":".join(segments)
            for name in names:
                quiet = name == "log" or name.endswith(":error")
                expected = fits(list(segments), name.split(":")) and not quiet
                assert matches(pattern, name) is expected, (pattern, name)
            heard = [name for name in many if matches(pattern, name)]
            assert matching([pattern, pattern], many) == heard
    assert not matches("a.c", "abc")


@pytest.mark.parametrize("name", ["", ":", "a:", ":a", "a::b", "a*", "a:b*", "***", "a:*b:c"])
async def test_names_that_are_not_valid(name: str) -> None:
    with pytest.raises(VekoError, match="not the name"):
        Bus().on(name, print)


async def test_patterns_and_names_share_one_order() -> None:
    bus = Bus()
    seen: list[str] = []
    bus.on("a:b", lambda: seen.append("name 10"))
    bus.on("a:*", lambda: seen.append("pattern 10"))
    bus.on("**", lambda: seen.append("all 20"), priority=20)
    bus.on("a:b", lambda: seen.append("late 10"))
    await bus.emit("a:b")
    assert seen == ["all 20", "name 10", "pattern 10", "late 10"]


async def test_a_pattern_reaches_events_whose_plan_was_made_before() -> None:
    bus = Bus()
    seen: list[str] = []
    emit = bus.emitter("a:b")
    await emit()
    await bus.emit("a:c")
    pattern = bus.on("a:*", lambda: seen.append("heard"))
    await emit()
    await bus.emit("a:c")
    assert seen == ["heard", "heard"]
    pattern.cancel()
    await emit()
    assert len(seen) == 2


async def test_dynamic_names_are_bounded() -> None:
    bus = Bus()
    count = 0

    def hear(value: object) -> None:
        nonlocal count
        count += 1

    bus.on("user:*", hear)
    bus.on("kept", hear)
    emit = bus.emitter("kept")
    await emit()
    for number in range(10_000):
        await bus.emit(f"user:{number}")
        if number % 1000 == 0:
            await emit()
    assert count == 10_011
    assert len(bus.live) <= 4096
