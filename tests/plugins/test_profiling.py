"""Profiling a plugin: where its time goes, as a flame graph."""

import asyncio
import math
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from veko.errors import NotFoundError, OptionError, StateError
from veko_plugins import PluginManager
from veko_plugins.profiling import PluginProfile

pytestmark = pytest.mark.anyio

BUSY = """
import time
name = "busy"
version = "1.0.0"
kept = []

def load(context):
    context.hook("work", on_work)

def on_work(value):
    if value < 0:
        raise ValueError(value)
    compute(value)

def compute(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    kept.append(bytearray(10_000))
"""


def elsewhere(value: float) -> None:
    sum(range(20_000))


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "busy.py").write_text(BUSY)
    async with PluginManager(root=tmp_path, watchdog=0) as manager:
        manager.bus.on("work", elsewhere)
        yield manager


@asynccontextmanager
async def work(manager: PluginManager, value: float) -> AsyncIterator[None]:
    """Let the plugin work meanwhile."""

    async def go() -> None:
        while True:
            await manager.bus.emit("work", value)
            await asyncio.sleep(0)

    working = asyncio.create_task(go())
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait([working])


async def test_d5_profile_counts_calls_time_errors_and_draws(
    manager: PluginManager, tmp_path: Path
) -> None:
    fired: list[Any] = []
    manager.bus.on("dev:profile", lambda record, path: fired.append((record.name, path)))
    async with work(manager, 0.005):
        profile = await manager.profile_plugin("busy", 0.3)
    assert profile.name == "busy"
    assert 0.3 <= profile.duration < 5
    assert profile.calls is not None
    assert profile.calls > 3
    assert 0 < profile.time <= profile.duration
    assert (profile.errors, profile.memory) == (0, None)
    assert profile.path.parent == tmp_path / ".veko" / "profiles"
    page = profile.path.read_text("utf-8")
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert "compute" in page
    assert "elsewhere" not in page
    assert fired == [("busy", profile.path)]
    assert [path.name for path in profile.path.parent.iterdir()] == [profile.path.name]


async def test_H_dev_profile_fires_with_the_plugin_and_the_file(
    manager: PluginManager, tmp_path: Path
) -> None:
    fired: asyncio.Queue[Any] = asyncio.Queue()
    manager.on("dev:profile", lambda *args: fired.put_nowait(args))
    path = tmp_path / "busy.html"
    with pytest.raises(NotFoundError):
        await manager.profile_plugin("nobody", 0.01, path=path)
    assert fired.empty()
    await manager.profile_plugin("busy", 0.01, path=path)
    async with asyncio.timeout(30):
        assert await fired.get() == (manager.get_plugin("busy"), path)


async def test_errors_are_counted(manager: PluginManager) -> None:
    async with work(manager, -1.0):
        profile = await manager.profile_plugin("busy", 0.05)
    assert profile.errors > 0


async def test_a_file_for_speedscope(manager: PluginManager, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "busy.speedscope.json"
    async with work(manager, 0.005):
        profile = await manager.profile_plugin("busy", 0.2, path=path)
    assert profile.path == path
    found = msgspec.json.decode(path.read_bytes())
    names = {frame["name"] for frame in found["shared"]["frames"]}
    assert {"on_work", "compute"} <= names
    assert "elsewhere" not in names


async def test_memory_is_traced_only_while_asked_for(manager: PluginManager) -> None:
    async with work(manager, 0.001):
        profile = await manager.profile_plugin("busy", 0.2, memory=True)
    assert profile.memory is not None
    assert profile.memory >= 10_000
    assert not tracemalloc.is_tracing()


async def test_a_plugin_that_does_nothing_has_an_empty_graph(manager: PluginManager) -> None:
    profile = await manager.profile_plugin("busy", 0.02)
    assert (profile.time, profile.calls) == (0.0, 0)
    assert profile.path.is_file()


async def test_bad_requests_say_what_to_do(manager: PluginManager, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        await manager.profile_plugin("nobody", 0.01)
    for duration in (0, -1, math.nan, math.inf):
        with pytest.raises(OptionError, match="above 0"):
            async with asyncio.timeout(5):
                await manager.profile_plugin("busy", duration)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.html", tmp_path, tmp_path / "a\0b.html"):
        with pytest.raises(OptionError, match="cannot be written"):
            await manager.profile_plugin("busy", 0.01, path=path)
    assert not list(tmp_path.parent.glob("*.part"))


async def test_one_at_a_time_and_a_cancelled_one_ends(manager: PluginManager) -> None:
    running: asyncio.Task[PluginProfile] = asyncio.create_task(
        manager.profile_plugin("busy", 1_000)
    )
    await asyncio.sleep(0)
    with pytest.raises(StateError, match="running already"):
        await manager.profile_plugin("busy", 0.01)
    running.cancel()
    await asyncio.wait([running])
    assert (await manager.profile_plugin("busy", 0.01)).name == "busy"
