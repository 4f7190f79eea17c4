"""The search for plugins that make something fail: how many probes it takes, what it says."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import PluginManager
from veko_plugins.cli.replaying import application
from veko_plugins.logging import Logging
from veko_plugins.recording import (
    SearchError,
    bisect_recording,
    find_culprits,
    read_recording,
)

pytestmark = pytest.mark.anyio
NAMES = [f"p{number:02}" for number in range(64)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_planted_set_is_found_in_few_probes(size: int) -> None:
    draw = random.Random(size)
    for _ in range(100):
        planted = set(draw.sample(NAMES, size))

        async def fails(chosen: Sequence[str], planted: set[str] = planted) -> bool:
            return planted <= set(chosen)

        found = await find_culprits(NAMES, fails)
        assert found.names == sorted(planted)
        assert found.probes <= (12, 20, 28)[size - 1]


async def test_every_pair_of_64_takes_at_most_40_probes() -> None:
    most = 0
    for pair in itertools.combinations(NAMES, 2):

        async def fails(chosen: Sequence[str], pair: tuple[str, ...] = pair) -> bool:
            return set(pair) <= set(chosen)

        found = await find_culprits(NAMES, fails)
        assert tuple(found.names) == pair
        most = max(most, found.probes)
    assert most <= 40


async def test_what_is_found_fails_and_nothing_of_it_is_superfluous() -> None:
    """Also where a plugin prevents the failure, so that more of them may fail less."""
    draw = random.Random(7)
    for _ in range(200):
        tables = [frozenset(draw.sample(NAMES[:12], draw.randint(1, 4))) for _ in range(4)]
        healer = draw.choice(NAMES[12:16])

        async def fails(chosen: Sequence[str], tables: Any = tables, healer: str = healer) -> bool:
            given = set(chosen)
            return any(one <= given for one in tables) and (healer not in given or len(given) > 10)

        found = await find_culprits(NAMES[:16], fails)
        assert await fails(found.names)
        for name in found.names if len(found.names) > 1 else []:
            assert not await fails([one for one in found.names if one != name])


async def test_what_never_or_always_fails_is_said() -> None:
    async def never(_: Sequence[str]) -> bool:
        return False

    async def always(_: Sequence[str]) -> bool:
        return True

    with pytest.raises(SearchError, match="does not fail with all plugins on"):
        await find_culprits(NAMES, never)
    with pytest.raises(SearchError, match="fails without any plugin"):
        await find_culprits(NAMES, always)
    with pytest.raises(SearchError, match="does not fail"):
        await find_culprits([], never)


async def test_what_is_flaky_is_said() -> None:
    draw = random.Random(1)
    ends = set()
    for _ in range(100):

        async def fails(chosen: Sequence[str]) -> bool:
            return "p05" in chosen and draw.random() < 0.5

        try:
            found = await find_culprits(NAMES, fails)
        except SearchError as error:
            ends.add("flaky" if "flaky" in str(error) else "other")
        else:
            assert "p05" in found.names
            ends.add("found")
    assert "flaky" in ends


PLUGIN = """
name, version = {name!r}, "1.0.0"

def load(app, config, context):
    context.hook("sale", lambda sale: {{**sale, {name!r}: 1}})
"""
CHARGES = """
    context.hook("sale", lambda sale: {**sale, "cents": str(sale["cents"])}, priority=20)
"""
COUNTS = """
    def count(sale):
        assert isinstance(sale["cents"], int)
    context.hook("sale", count, priority=5)
    context.add_route("GET", "/sum", lambda: "0")
"""


async def record_pair(root: Path, first: str, second: str) -> Path:
    """Record the failure of `second` that there is only if `first` is on."""
    root.joinpath("plugins").mkdir()
    for name in NAMES:
        extra = {first: CHARGES, second: COUNTS}.get(name, "")
        root.joinpath("plugins", f"{name}.py").write_text(PLUGIN.format(name=name) + extra)
    manager = PluginManager(
        root=root, adapter="asgi", storage="memory:", max_retries=0, watchdog=0,
        plugins={"recording": {"control": False, "dump_on_failure": False}},
    )  # fmt: skip
    async with manager:
        await manager.bus.emit("sale", {"cents": 7})
        path: Path = await manager.use("recording").dump()
        return path


async def test_a_planted_pair_among_64_plugins_of_a_recording(tmp_path: Path) -> None:
    recording = read_recording(await record_pair(tmp_path, "p17", "p42"))
    (failure,) = recording.failures
    async with application(recording, None, Logging()) as (manager, replay, _):
        began = time.process_time()
        found = await bisect_recording(manager, replay, recording, failure)
        took = time.process_time() - began
        assert found.names == ["p17", "p42"]
        assert found.probes <= 40
        assert took < 10  # of this process alone
        assert all(info.active for info in manager.list_plugins()), "all are on again"


async def test_a_recording_that_does_not_fail_any_more(tmp_path: Path) -> None:
    path = await record_pair(tmp_path, "p01", "p02")
    recording = read_recording(path)
    await asyncio.to_thread(
        tmp_path.joinpath("plugins", "p01.py").write_text, PLUGIN.format(name="p01")
    )
    async with application(recording, None, Logging()) as (manager, replay, _):
        with pytest.raises(SearchError, match="does not fail with all plugins"):
            await bisect_recording(manager, replay, recording, recording.failures[0])
