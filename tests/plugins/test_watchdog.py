"""The watchdog names who blocks the event loop."""

import asyncio
import gc
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from veko import Kernel, Plugin
from veko_plugins import PluginManager
from veko_plugins.watchdog import Block, LoopBlocked, Watchdog

pytestmark = pytest.mark.anyio

SLOW = """
import time
name = "slow"
version = "1.0.0"

def load(context):
    context.hook("tick", on_tick)

def on_tick(value):
    helper()

def helper():
    time.sleep(0.2)  # here
"""
LINE = 1 + SLOW.splitlines().index("    time.sleep(0.2)  # here")


class Guest(Plugin):
    version = "1.0.0"

    def __init__(self, load: Callable[[Any], Any], name: str = "guest") -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        return self._load(context)


def nap() -> None:
    time.sleep(0.15)


class Heard:
    """The blocks and errors that were reported."""

    def __init__(self, kernel: Kernel) -> None:
        self._blocks: asyncio.Queue[Block] = asyncio.Queue()
        self.errors: list[tuple[str, Exception]] = []
        kernel.bus.on("loop:blocked", lambda block: self._blocks.put_nowait(block))
        kernel.bus.on("plugin:error", lambda name, error: self.errors.append((name, error)))

    async def block(self, handler: str = "") -> Block:
        """Wait for a block of a handler; a busy machine may cause others."""
        async with asyncio.timeout(10):
            while not (block := await self._blocks.get()).handler.endswith(handler):
                pass
            return block


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(Watchdog(0.05))
        yield kernel


async def test_it_names_plugin_hook_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    async with PluginManager(root=tmp_path, watchdog=0.05) as manager:
        heard = Heard(manager.kernel)
        await manager.bus.emit("tick", 1)
        block = await heard.block("on_tick")
        assert (block.plugin, block.event, block.handler) == ("slow", "tick", "on_tick")
        assert (block.path, block.line) == (str(folder / "slow.py"), LINE)
        assert block.seconds >= 0.1
        assert "helper" in block.stack
        assert "time.sleep(0.2)" in block.stack
        [(name, error)] = heard.errors
        assert name == "slow"
        assert isinstance(error, LoopBlocked)
        assert f"line {LINE}" in str(error)
        assert "on_tick() of tick blocked the event loop" in str(error)
        assert manager.error_count("slow") == 1


async def test_a_place_is_reported_once_and_counted(kernel: Kernel) -> None:
    def load(context: Any) -> None:
        context.hook("tick", lambda v: time.sleep(v))

    await kernel.load(Guest(load))
    heard = Heard(kernel)
    for seconds in (0.1, 0.3, 0.1):
        await kernel.bus.emit("tick", seconds)
        block = await heard.block("<lambda>")
    assert (block.plugin, block.count) == ("guest", 3)
    assert block.seconds >= 0.2
    assert [name for name, _ in heard.errors] == ["guest"]
    assert block in kernel.use("watchdog").blocks


async def test_what_waits_without_blocking_is_left_alone(kernel: Kernel) -> None:
    async def patient(value: Any) -> None:
        await asyncio.to_thread(time.sleep, 0.2)

    await kernel.load(Guest(lambda context: context.hook("tick", patient)))
    heard = Heard(kernel)
    await kernel.bus.emit("tick")
    kernel.bus.on("after", lambda v: time.sleep(0.1))
    await kernel.bus.emit("after")  # the host's own block comes first, if there was another
    block = await heard.block("<lambda>")
    assert block.plugin is None
    assert not heard.errors


async def test_the_hosts_own_code_is_a_warning(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard(kernel)
    with caplog.at_level(logging.WARNING, "veko.watchdog"):
        nap()
        block = await heard.block("nap")
    assert block.plugin is None
    assert block.handler == "nap"
    assert block.path == __file__
    assert f"{__file__}:{block.line}" in caplog.text
    assert not heard.errors


async def test_a_slow_load_is_a_warning_and_no_fault(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard(kernel)
    with caplog.at_level(logging.WARNING, "veko.watchdog"):
        await kernel.load(Guest(lambda context: nap()))
        await heard.block("nap")
    assert not heard.errors
    assert "blocked the event loop" in caplog.text


async def test_a_slow_import_is_a_warning_and_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "plugins" / "slow.py"
    file.parent.mkdir()
    file.write_text(SLOW)
    async with PluginManager(root=tmp_path, watchdog=0.05) as manager:
        heard = Heard(manager.kernel)
        file.write_text(f"{SLOW}\nhelper()\n")
        with caplog.at_level(logging.WARNING, "veko.watchdog"):
            await manager.reload_plugin("slow")
            block = await heard.block("<module>")
        assert block.plugin == "slow"
        assert not heard.errors
        assert "slow: <module>() blocked the event loop" in caplog.text


async def test_a_loop_that_stays_blocked_is_written_about_meanwhile(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    written = threading.Event()

    class Writing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.set()

    def stuck(value: Any) -> None:
        assert written.wait(10)

    await kernel.load(Guest(lambda context: context.hook("tick", stuck)))
    heard = Heard(kernel)
    logger, handler = logging.getLogger("veko.watchdog"), Writing()
    logger.addHandler(handler)
    try:
        await kernel.bus.emit("tick")
        await heard.block("stuck")
    finally:
        logger.removeHandler(handler)
    assert "still is" in caplog.text
    assert "stuck" in caplog.text


async def test_it_lets_go_of_what_it_looks_at_before_it_reads_any_file(
    kernel: Kernel, tmp_path: Path
) -> None:
    source = tmp_path / "slow.py"
    os.mkfifo(source)  # reading it blocks until this test writes to it
    names: dict[str, Any] = {"os": os, "source": source, "kept": [], "Thing": Kernel}
    code = """
def on_tick(value):
    local = Thing()
    kept.append(weakref.ref(local))
    while len(kept) < 2:
        try:
            kept.append(os.open(source, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            pass  # nobody reads yet
"""
    exec(compile(f"import weakref\n{code}", source, "exec"), names)
    heard = Heard(kernel)
    await kernel.load(Guest(lambda context: context.hook("tick", names["on_tick"])))
    await kernel.bus.emit("tick", 1)
    local, file = names["kept"]
    gc.collect()
    left = local()
    os.close(file)
    await heard.block("on_tick")
    assert left is None


async def test_it_ends_with_its_plugin(kernel: Kernel) -> None:
    def watching() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "veko-watchdog"]

    assert len(watching()) == 1
    await kernel.unload("watchdog")
    assert not watching()


async def test_it_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    async with PluginManager(root=tmp_path, watchdog=0) as manager:
        assert "watchdog" not in {info.name for info in manager.list_plugins(core=True)}
    async with PluginManager(root=tmp_path) as manager:
        assert manager.use("watchdog").threshold == 0.1


SUSPENDED = """
import asyncio, sys
from veko import Kernel
from veko_plugins.watchdog import Watchdog

async def main():
    async with Kernel() as kernel:
        await kernel.load(Watchdog(0.05))
        kernel.bus.on("loop:blocked", lambda block: print("blocked", block.line, flush=True))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.sleep(0)

asyncio.run(main())
"""


def test_a_process_that_was_suspended_is_not_blamed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUSPENDED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        threading.Event().wait(0.5)  # the time that must not be blamed on the plugin
        os.kill(process.pid, signal.SIGCONT)
        said, _ = process.communicate("go\n", timeout=20)
    assert said == ""


async def test_imports_that_no_plugin_asked_for_are_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "veko_test_slow.py").write_text("import time\ntime.sleep(0.15)\n")
    monkeypatch.syspath_prepend(tmp_path)
    async with Kernel() as kernel:
        heard = Heard(kernel)
        await kernel.load(Watchdog(0.05))
        importlib.import_module("veko_test_slow")
        await heard.block()
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
