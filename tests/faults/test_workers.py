"""Workers that hang, crash, flood and send garbage: the plugin pays, the host answers throughout.

The host's loop must turn all the time: within 100 ms of its own processor time: other processes
use the machine too.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import PluginManager

pytest.importorskip("deno", reason="JavaScript plugins need Deno")

SCRIPT = """\
module.exports = {
  name: 'shop', version: '1.0.0',
  async load(app, config, context) {
    await context.storage.set('loads', (context.storage.get('loads') ?? 0) + 1);
    context.hook('shop:ask', (value) => value + 1);
    context.hook('shop:hang', () => { while (true) {} });
    context.hook('shop:exit', () => { process.exit(3); });
    context.hook('shop:kill', () => { process.kill(process.pid, 'SIGKILL'); });
    context.hook('shop:print', (lines) => {
      const text = new TextEncoder().encode('a line that nobody wants to read\\n'.repeat(1000));
      for (let i = 0; i < lines / 1000; i++) Deno.stderr.writeSync(text);
      return 'printed';
    });
    context.hook('shop:log', (lines) => {
      for (let i = 0; i < lines; i++) console.log('a line that nobody wants to read');
      return 'logged';
    });
  },
};
"""

PYTHON = """\
import asyncio
import os

name = "shop"
version = "1.0.0"
isolation = "process"


def load(context):
    context.hook("shop:ask", lambda value: value + 1)
    context.hook("shop:garbage", garbage)


async def garbage(text):
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                os.write(descriptor, text.encode("latin-1"))
        except OSError:
            pass
    await asyncio.Event().wait()
"""


class Shop:
    """An application with the plugin."""

    def __init__(self, manager: PluginManager) -> None:
        self.manager = manager
        self.errors: list[str] = []
        self.crashed = asyncio.Event()
        self.loaded = asyncio.Event()
        bus = manager.kernel.bus
        bus.on("plugin:error", self._failed)
        bus.on("plugin:loaded", lambda name: self.loaded.set())

    def _failed(self, name: str, error: Exception) -> None:
        self.errors.append(f"{name}: {error}")
        if "process" in str(error):
            self.crashed.set()

    async def ask(self, what: str, *args: Any) -> Any:
        return await self.manager.kernel.bus.emit(f"shop:{what}", *args)

    async def back(self) -> None:
        """Wait until the plugin answers again."""
        async with asyncio.timeout(20):
            while await self.ask("ask", 1) != 2:
                self.loaded.clear()
                await asyncio.wait_for(self.loaded.wait(), 20)

    async def crash(self, what: str, *args: Any) -> None:
        self.crashed.clear()
        asked = asyncio.ensure_future(self.ask(what, *args))
        await asyncio.wait_for(self.crashed.wait(), 20)
        await asyncio.wait([asked])

    def health(self) -> Any:
        return self.manager.check_plugin_health("shop")


@contextlib.asynccontextmanager
async def shop(root: Path, *, python: bool = False) -> AsyncIterator[Shop]:
    folder = root / "plugins"
    folder.mkdir()
    (folder / ("shop.py" if python else "shop.js")).write_text(PYTHON if python else SCRIPT)
    options: dict[str, Any] = {"learn": True} if python else {}  # confined by nothing
    async with PluginManager(root=root, adapter="asgi", watchdog=0, **options) as manager:
        shop = Shop(manager)
        gaps: list[float] = []

        async def turn() -> None:
            last = time.thread_time()
            while True:
                await asyncio.sleep(0.005)
                gaps.append((now := time.thread_time()) - last)
                last = now

        turning = asyncio.ensure_future(turn())
        try:
            yield shop
        finally:
            turning.cancel()
            await asyncio.wait([turning])
        assert max(gaps) < 0.1


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("hang", "blocked: no answer to a ping for 2.0 s"),
        ("exit", "exit status 3"),
        ("kill", "signal 9"),
    ],
)
async def test_a_worker_that_ends_is_named_and_replaced(
    tmp_path: Path, what: str, said: str
) -> None:
    async with shop(tmp_path) as app:
        await app.crash(what, 1)
        assert any(said in error for error in app.errors), app.errors
        assert all(error.startswith("shop: ") for error in app.errors)
        await app.back()
        assert app.health().health != "critical"


GARBAGE = {
    "\xff\xff\xff\xff\xff\xff\xff\xff": "sent a frame of 4294967291 bytes, at most 16777216",
    "\x40\x00\x00\x00\x00\x00\x00\x08": "sent a frame of 1073741820 bytes",
    "hello, I am HTTP": "sent a frame of",
    "\x00\x00\x00\x07\x00\x00\x00\x03[[[": "sent a frame that is not JSON",
}


@pytest.mark.parametrize("text", GARBAGE)
async def test_garbage_on_the_connection_ends_the_worker(tmp_path: Path, text: str) -> None:
    async with shop(tmp_path, python=True) as app:
        await app.crash("garbage", text)
        assert any(GARBAGE[text] in error for error in app.errors), app.errors
        await app.back()


async def test_the_third_crash_within_five_minutes_is_the_last(tmp_path: Path) -> None:
    async with shop(tmp_path) as app:
        for crash in range(3):
            await app.crash("exit", 1)
            if crash < 2:
                await app.back()
        async with asyncio.timeout(10):
            while app.health().health != "critical":  # noqa: ASYNC110 (nothing else says it)
                await asyncio.sleep(0.01)
        assert any("crashed 3 times within 300 s" in reason for reason in app.health().reasons)
        assert any("crashed 3 times within 300 s" in error for error in app.errors)
        assert app.manager.kernel.get("shop").active  # type: ignore[union-attr]
        await app.manager.reload_plugin("shop")
        await app.back()
        assert app.health().health != "critical"


@pytest.mark.parametrize("what", ["print", "log"])
async def test_a_flood_of_output_is_cut_and_counted(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = 3_000_000 if what == "print" else 200_000
    async with shop(tmp_path) as app:
        with caplog.at_level("INFO"):
            before = len(caplog.records)
            assert await app.ask(what, lines) == ("printed" if what == "print" else "logged")
            assert await app.ask("ask", 1) == 2
            await asyncio.sleep(1.2)
        assert len(caplog.records) - before < 20_000
        assert any("not logged" in record.message for record in caplog.records)
