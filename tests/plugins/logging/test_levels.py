"""Levels by plugin and by logger: at the start, while it runs, by configuration and in code."""

import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from veko import ConfigError, Context, Kernel, OptionError
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager

PLUGIN = """
import logging
name, version = "shop-1", "1.0.0"
log = logging.getLogger(__name__)

def load(context):
    context.hook("tick", tick)

def tick():
    for level in ("debug", "info", "warning"):
        getattr(log, level)("%s by logger", level)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        yield kernel


@pytest.fixture
def console() -> io.StringIO:
    return io.StringIO()


async def context_of(kernel: Kernel, name: str) -> Context:
    found: list[Context] = []
    await kernel.load(
        {"name": name, "version": "1.0.0", "load": lambda context: found.append(context)}
    )
    return found[0]


def messages(console: io.StringIO) -> list[str]:
    return [json.loads(line)["message"] for line in console.getvalue().splitlines()]


async def test_a_plugin_has_a_level_of_its_own_at_once(
    kernel: Kernel, console: io.StringIO
) -> None:
    logs = Logging()
    await kernel.load(logs)
    logs.configure("info", format="json", stream=console, levels={"a": "debug"})
    a, b = await context_of(kernel, "a"), await context_of(kernel, "b")

    def log(text: str) -> None:
        for context in (a, b):
            context.log("debug", f"{context.name} debug {text}")
            context.log("warning", f"{context.name} warning {text}")

    log("1")
    assert messages(console) == ["a debug 1", "a warning 1", "b warning 1"]
    await kernel.update_config("logging", {"levels": {"a": None, "b": "error"}})
    log("2")
    assert messages(console)[3:] == ["a warning 2"]
    await logs.set_level("b", "debug")
    log("3")
    assert messages(console)[4:] == ["a warning 3", "b debug 3", "b warning 3"]
    assert (logs.level_of("a"), logs.level_of("b")) == ("info", "debug")
    await kernel.update_config("logging", {"level": "error"})
    log("4")
    assert messages(console)[7:] == ["b debug 4", "b warning 4"]
    await kernel.unload("logging")
    assert logging.getLogger("veko.plugin.b").level == logging.NOTSET


@pytest.mark.parametrize(
    "changes",
    [
        {"level": "inof"}, {"level": 0}, {"level": True}, {"levels": {"a": "loud"}},
        {"loggers": {"x": 10**9}}, {"format": "xml"}, {"max_bytes": -1}, {"backups": -1},
        {"colour": "red"}, {"levels": ["a"]},
    ],
)  # fmt: skip
async def test_a_configuration_that_makes_no_sense_is_refused_and_the_old_one_stays(
    kernel: Kernel, console: io.StringIO, changes: dict[str, Any]
) -> None:
    logs = Logging()
    await kernel.load(logs)
    logs.configure("info", format="json", stream=console, levels={"a": "debug"})
    before = logs.config
    with pytest.raises(ConfigError, match=r"logging|level|expected|Object"):
        await kernel.update_config("logging", changes)
    assert logs.config == before
    (await context_of(kernel, "a")).log("debug", "still")
    assert messages(console) == ["still"]


async def test_a_section_that_makes_no_sense_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "veko.toml").write_text('[plugins.logging]\nlevel = "inof"\n')
    manager = PluginManager(root=tmp_path, adapter=None, storage="none")
    with pytest.raises(Exception, match="Did you mean 'info'"):
        await manager.start()


async def test_set_level_without_a_kernel_and_with_a_wrong_level(console: io.StringIO) -> None:
    logs = Logging()
    logs.configure("info", stream=console)
    await logs.set_level("a", "debug")
    assert logging.getLogger("veko.plugin.a").level == logging.DEBUG
    with pytest.raises(ConfigError, match="unknown"):
        await logs.set_level("a", "loud")
    with pytest.raises(OptionError, match="unknown"):
        logs.configure(levels={"a": "loud"})
    logs.reset()
    assert logging.getLogger("veko.plugin.a").level == logging.NOTSET


async def test_a_section_configures_and_module_loggers_have_the_level_of_their_plugin(
    tmp_path: Path,
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shop.py").write_text(PLUGIN)
    (tmp_path / "veko.toml").write_text("""
adapter = "asgi"
storage = "none"
[plugins.logging]
file = "logs/veko.log"
format = "json"
process = true
levels = { shop-1 = "debug" }
loggers = { "some.library" = "info" }
""")
    logger = logging.getLogger("some.library")
    manager = PluginManager(root=tmp_path)
    async with manager:
        await manager.bus.emit("tick")
        logger.info("of a library")
        logger.debug("unheard")
        await manager.reload_plugin("shop-1")
        await manager.bus.emit("tick")
        await manager.use("logging").set_level("shop-1", "warning")
        await manager.bus.emit("tick")
    entries = [json.loads(line) for line in (tmp_path / "logs/veko.log").read_text().splitlines()]
    own = [entry["message"].split()[0] for entry in entries if entry.get("plugin") == "shop-1"]
    assert own == ["debug", "info", "warning", "debug", "info", "warning", "warning"]
    (library,) = [entry for entry in entries if entry.get("logger") == "some.library"]
    assert library["message"] == "of a library"
    assert logger.level == logging.NOTSET


async def test_a_change_of_levels_keeps_the_handlers(kernel: Kernel, tmp_path: Path) -> None:
    logs = Logging()
    await kernel.load(logs, {"file": str(tmp_path / "a.log")})
    before = list(logging.getLogger("veko").handlers)
    await kernel.update_config("logging", {"levels": {"a": "debug"}, "level": "debug"})
    assert logging.getLogger("veko").handlers == before
    await kernel.update_config("logging", {"file": str(tmp_path / "b.log")})
    (await context_of(kernel, "a")).log("info", "there")
    assert "there" in (tmp_path / "b.log").read_text()
    assert "there" not in (tmp_path / "a.log").read_text()
    assert len(logging.getLogger("veko").handlers) == 2


async def test_a_change_to_a_file_that_cannot_be_written_is_refused(
    kernel: Kernel, tmp_path: Path
) -> None:
    logs = Logging()
    await kernel.load(logs, {"file": str(tmp_path / "a.log")})
    with pytest.raises(OptionError, match="the log file cannot be written"):
        await kernel.update_config("logging", {"file": str(tmp_path)})
    (await context_of(kernel, "a")).log("info", "there")
    assert "there" in (tmp_path / "a.log").read_text()
    assert kernel.get("logging").config["file"] == str(tmp_path / "a.log")  # type: ignore[union-attr]


async def test_a_level_that_is_off_formats_nothing(kernel: Kernel, console: io.StringIO) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("it was formatted")

    logs = Logging()
    await kernel.load(logs)
    logs.configure("info", stream=console)
    context = await context_of(kernel, "a")
    context.log("debug", "x", Costly())
    logging.getLogger("veko.plugin.a").debug("%s", Costly())
    assert console.getvalue() == ""
