"""Log records of a Python plugin in a process of its own, as the application's log shows them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from veko_plugins.manager import PluginManager
from veko_plugins.tracing import Tracing

SECONDS = 30.0
SHOP = """
import logging, threading, warnings
name, version, isolation = "shop-1", "1.0.0", "process"
log = logging.getLogger(__name__)

def load(context):
    context.hook("tick", tick)
    context.hook("said", lambda: context.log("warning", "said"))

def tick(what):
    if what == "all":
        log.warning("low on %s", "tea", extra={"left": 3, "password": "x"})
        logging.getLogger("some.library").warning("odd")
        logging.getLogger("some.library").info("chatter")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed")
        log.info("%d", "no number")
        warnings.warn("old")
        thread = threading.Thread(target=lambda: log.error("in a thread"))
        thread.start()
        thread.join()
    log.debug("debug %s", what)
    log.info("last %s", what)
"""
Rows = Callable[[str], Any]


class Log(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self._written = asyncio.Event()

    def write(self, text: str) -> int:
        self._written.set()
        return super().write(text)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    async def until(self, message: str) -> list[dict[str, Any]]:
        """Wait for a message; return the rows of the plugin."""
        async with asyncio.timeout(SECONDS):
            while not any(row["message"] == message for row in self.rows()):
                self._written.clear()
                await self._written.wait()
        return [row for row in self.rows() if row.get("plugin") == "shop-1"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shop.py").write_text(SHOP)
    manager = PluginManager(root=tmp_path, adapter=None, storage="none", core={"tracing": Tracing})
    async with manager:
        yield manager


@pytest.fixture
def log(manager: PluginManager) -> Log:
    log = Log()
    manager.use("logging").configure("info", format="json", stream=log)
    return log


async def test_level_logger_fields_and_traceback_arrive(manager: PluginManager, log: Log) -> None:
    # `configure` does not reach a worker that runs already; a change of the configuration does.
    await manager.use("logging").set_level("shop-1", "info")
    await manager.bus.emit("tick", "all")
    await log.until("in a thread")
    rows = await log.until("last all")
    by_message = {row["message"].partition(" (not")[0]: row for row in rows}
    low = by_message["low on tea"]
    assert (low["level"], low["left"], low["password"]) == ("warning", 3, "********")
    assert "logger" not in low
    assert by_message["odd"]["logger"] == "some.library"
    assert "chatter" not in by_message
    assert by_message["failed"]["level"] == "error"
    assert by_message["failed"]["error"].endswith("ZeroDivisionError: division by zero")
    assert "shop.py" in by_message["failed"]["error"]
    assert "'%d'" in by_message
    assert by_message["in a thread"]["level"] == "error"
    (warned,) = [row for row in rows if row.get("logger") == "py.warnings"]
    assert "UserWarning: old" in warned["message"]
    assert not any("debug" in row["message"] for row in rows)


async def test_a_level_that_is_set_reaches_the_worker(manager: PluginManager, log: Log) -> None:
    logging = manager.use("logging")
    await logging.set_level("shop-1", "debug")
    await manager.bus.emit("tick", "one")
    rows = await log.until("last one")
    assert [row["message"] for row in rows] == ["debug one", "last one"]
    await logging.set_level("shop-1", "error")
    await manager.bus.emit("tick", "two")
    await logging.set_level("shop-1", None)
    await manager.bus.emit("tick", "three")
    rows = await log.until("last three")
    assert [row["message"] for row in rows] == ["debug one", "last one", "last three"]


async def test_records_of_a_worker_have_the_trace_in_which_they_were_made(
    manager: PluginManager, log: Log
) -> None:
    await manager.use("logging").set_level("shop-1", "info")
    await manager.bus.emit("tick", "traced")
    (row,) = await log.until("last traced")
    await manager.bus.emit("said")
    said = (await log.until("said"))[-1]
    for found in (row, said):
        assert len(found["trace_id"]) == 32
        assert len(found["span_id"]) == 16
    assert row["trace_id"] != said["trace_id"]
