"""Crashes are counted over generations; the third within five minutes ends the restarts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from veko import Context, Kernel, LoadError, Plugin, VekoError
from veko_plugins.health import Health
from veko_plugins.remote.crashes import Crashes


class Shop(Plugin):
    name = "shop"
    version = "1.0.0"
    description = "A plugin whose worker crashes"

    def load(self, context: Context) -> None:
        pass


class Remote(Plugin):
    name = "remote"
    version = "1.0.0"
    description = "Owns the tasks"
    core = True

    def __init__(self, reload: Callable[[str], Awaitable[object]]) -> None:
        self.reloads = reload
        self.now = 0.0

    def load(self, context: Context) -> None:
        self.crashes = Crashes(context, self.reloads, clock=lambda: self.now)


class Story:
    """Reloads shop, and says what happened."""

    def __init__(self, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = kernel
        self.waits: list[float] = []
        self.errors: list[str] = []
        self.reloads = 0
        self.fail: Exception | None = None
        self.during: Callable[[], None] = lambda: None
        self.remote = Remote(self.reload)
        kernel.bus.on("plugin:error", lambda name, error: self.errors.append(error.message))
        self._sleep = asyncio.sleep
        monkeypatch.setattr("veko_plugins.remote.crashes.asyncio.sleep", self.wait)

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self._sleep(0)

    async def reload(self, name: str) -> None:
        self.reloads += 1
        self.during()
        if self.fail is not None:
            raise self.fail
        await self.kernel.reload(Shop())

    async def crash(self, text: str = "it ended") -> None:
        self.remote.crashes.crashed("shop", VekoError(text))
        for _ in range(200):
            await self._sleep(0)

    def health(self) -> Any:
        return self.kernel.registry.get("service", "health").value.check("shop")  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def story_of(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Story]:
    async with Kernel() as kernel:
        story = Story(kernel, monkeypatch)
        await kernel.load(Health())
        await kernel.load(story.remote)
        await kernel.load(Shop())
        yield story


async def test_the_third_crash_within_five_minutes_ends_the_restarts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with story_of(monkeypatch) as story:
        await story.crash("one")
        assert (story.reloads, story.waits) == (1, [0.1])
        story.remote.now = 100
        await story.crash("two")
        assert (story.reloads, story.waits) == (2, [0.1, 0.2])
        assert story.health().health == "healthy"
        story.remote.now = 299
        await story.crash("three")
        assert story.reloads == 2
        why = "its process crashed 3 times within 300 s and is not started again"
        assert story.errors == ["one", "two", "three", f"{why}; the last time, three"]
        assert story.health().health == "critical"
        assert why in story.health().reasons
        assert story.kernel.get("shop").active  # type: ignore[union-attr]


async def test_a_reload_by_hand_starts_the_count_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with story_of(monkeypatch) as story:
        for text in ("one", "two", "three"):
            await story.crash(text)
        assert story.health().health == "critical"
        await story.kernel.reload(Shop())
        assert story.health().health != "critical"
        await story.crash("four")
        assert (story.reloads, story.waits[-1]) == (3, 0.1)


async def test_crashes_that_are_far_apart_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with story_of(monkeypatch) as story:
        for crash in range(6):
            story.remote.now = 400.0 * crash
            await story.crash()
        assert story.reloads == 6
        assert story.waits == [0.1] * 6


async def test_a_restart_that_fails_counts_as_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    async with story_of(monkeypatch) as story:
        story.fail = LoadError("no such module", plugin="shop")
        await story.crash("one")
        assert (story.reloads, story.waits) == (2, [0.1, 0.2])
        assert story.errors[-1].endswith("the last time, no such module")
        assert story.health().health == "critical"


async def test_a_crash_of_the_new_generation_while_the_reload_runs_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with story_of(monkeypatch) as story:
        story.during = lambda: story.remote.crashes.crashed("shop", VekoError("at once"))
        await story.crash("one")
        assert story.reloads == 2
        assert story.errors[:2] == ["one", "at once"]
        assert story.health().health == "critical"


async def test_unloading_a_plugin_ends_its_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    async with story_of(monkeypatch) as story:
        story.remote.crashes.crashed("shop", VekoError("one"))
        await story.kernel.unload("shop")
        await story.crash("ignored")
        assert "shop" not in {record.name for record in story.kernel.records()}
