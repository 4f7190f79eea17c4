"""Log handlers: nothing until configured, then console and file, and nothing left at unload."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from veko import Context, Kernel, LogRecord, OptionError, Plugin
from veko_plugins.logging import Logging
from veko_plugins.tracing import Tracing


class Writer(Plugin):
    name = "writer"
    version = "1.0.0"
    default_config = {"password": "hunter2"}

    context: Context

    def load(self, context: Context) -> None:
        Writer.context = context


@pytest.fixture
def logs() -> Iterator[Logging]:
    logs = Logging()
    yield logs
    logs.reset()


@pytest.fixture
async def context(logs: Logging) -> AsyncIterator[Context]:
    async with Kernel() as kernel:
        await kernel.load(logs)
        await kernel.load(Writer)
        yield Writer.context


@pytest.fixture
def console() -> io.StringIO:
    return io.StringIO()


@pytest.mark.anyio
async def test_touches_nothing_until_configured(context: Context) -> None:
    logger = logging.getLogger("veko")
    assert logger.handlers == []
    assert logger.level == logging.NOTSET


@pytest.mark.anyio
async def test_a_line_says_level_plugin_message_and_fields(
    context: Context, logs: Logging, console: io.StringIO
) -> None:
    logs.configure("info", stream=console)
    context.log("debug", "unheard")
    context.log("success", "made it", {"n": 1}, code="abc")
    line = console.getvalue().rstrip("\n")
    assert line.split(maxsplit=1)[1] == 'success writer  made it  details={"n":1}  code=abc'


@pytest.mark.anyio
@pytest.mark.parametrize("level", ["debug", "info", "success", "warning", "error"])
async def test_levels(context: Context, logs: Logging, console: io.StringIO, level: str) -> None:
    logs.configure(level, stream=console)
    order = ["debug", "info", "success", "warning", "error"]
    for one in order:
        context.log(one, "x")
    shown = [line.split()[1] for line in console.getvalue().splitlines()]
    assert shown == order[order.index(level) :]


@pytest.mark.anyio
async def test_json_lines(context: Context, logs: Logging, console: io.StringIO) -> None:
    logs.configure("info", format="json", stream=console)
    context.log("warning", "odd", {"path": Path("/x"), 1: 2}, time="mine", n=3)
    entry = json.loads(console.getvalue())
    assert datetime.fromisoformat(entry.pop("time")).tzinfo is not None
    assert entry == {
        "level": "warning",
        "plugin": "writer",
        "message": "odd",
        "details": {"path": repr(Path("/x")), "1": 2},
        "n": 3,
    }


@pytest.mark.anyio
async def test_json_lines_tell_the_trace(
    context: Context, logs: Logging, console: io.StringIO
) -> None:
    tracing = Tracing()
    await context.kernel.load(tracing, {"keep": 1})
    logs.configure("info", format="json", stream=console)
    context.hook("tick", lambda: context.log("info", "inside"))
    await context.kernel.bus.emit("tick")
    context.log("info", "outside")
    inside, outside = map(json.loads, console.getvalue().splitlines())
    (found,) = await tracing.traces(1)
    assert inside["trace_id"] == found["traceID"]
    assert inside["span_id"] in {span["spanID"] for span in found["spans"]}
    assert not {"trace_id", "span_id"} & outside.keys()


@pytest.mark.anyio
@pytest.mark.parametrize("format", ["text", "json"])
async def test_a_record_is_one_line_whatever_was_logged(
    context: Context, logs: Logging, console: io.StringIO, format: str
) -> None:
    logs.configure("info", format=format, stream=console)  # type: ignore[arg-type]
    loop: list[object] = []
    loop.append(loop)
    context.log("info", "a\nb\x1b[2J\r%s", {"k": "c\nd"}, e="f\ng")
    context.log("info", "object", object())
    context.log("info", "bytes", b"\xff", nan=float("nan"))
    context.log("info", "cycle", loop)
    context.log("info", "surrogate \ud800", "\ud800")
    lines = console.getvalue().split("\n")
    assert len(lines) == 6
    assert "\x1b" not in console.getvalue()


@pytest.mark.anyio
async def test_values_of_secrets_are_not_written(
    context: Context, logs: Logging, console: io.StringIO
) -> None:
    logs.configure("debug", stream=console)
    context.log("info", "in", {"user": "u", "Password": "s3cret"}, api_key="s3cret")
    context.log("info", "in", [{"headers": {"Authorization": "s3cret"}}])
    assert "s3cret" not in console.getvalue()
    assert "hunter2" not in console.getvalue()
    assert '"user":"u"' in console.getvalue()


@pytest.mark.anyio
async def test_a_file_is_made_appended_to_and_rotated(
    context: Context, logs: Logging, console: io.StringIO, tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "veko.log"
    logs.configure("info", file, stream=console, max_bytes=200, backups=2)
    for number in range(20):
        context.log("info", f"record {number:02} ü")
    assert "record 19 ü" in file.read_text("utf-8")
    kept = sorted(path.name for path in file.parent.iterdir())
    assert kept == ["veko.log", "veko.log.1", "veko.log.2"]
    assert all(path.stat().st_size <= 200 for path in file.parent.iterdir())


@pytest.mark.anyio
async def test_the_file_has_tracebacks_the_console_at_debug_only(
    context: Context, logs: Logging, console: io.StringIO, tmp_path: Path
) -> None:
    file = tmp_path / "veko.log"

    async def fails() -> None:
        raise ValueError("no")

    context.hook("tick", fails)
    logs.configure("info", file, stream=console)
    await context.kernel.bus.emit("tick")
    assert "no" in console.getvalue()
    assert "Traceback" not in console.getvalue()
    assert "Traceback" in file.read_text()
    logs.configure("debug", stream=console)
    await context.kernel.bus.emit("tick")
    assert "Traceback" in console.getvalue()


@pytest.mark.anyio
async def test_a_file_that_cannot_be_written_is_said(logs: Logging, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="cannot be written") as caught:
        logs.configure(file=tmp_path / "file" / "veko.log")
    assert caught.value.path == tmp_path / "file" / "veko.log"
    assert logging.getLogger("veko").handlers == []


@pytest.mark.anyio
async def test_unknown_levels_and_formats_are_said(logs: Logging) -> None:
    with pytest.raises(OptionError, match="Did you mean 'info'"):
        logs.configure("inof")
    with pytest.raises(OptionError, match="'text' or 'json'"):
        logs.configure(format="xml")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_handlers_and_level_go_with_the_plugin(
    context: Context, logs: Logging, tmp_path: Path
) -> None:
    logger = logging.getLogger("veko")
    logger.setLevel(logging.ERROR)
    try:
        logs.configure("info", tmp_path / "a.log", stream=io.StringIO())
        logs.configure("debug", tmp_path / "b.log", stream=io.StringIO())
        assert len(logger.handlers) == 2
        await context.kernel.unload("logging")
        assert logger.handlers == []
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.anyio
async def test_every_record_is_the_event_log(context: Context) -> None:
    heard: list[LogRecord] = []
    done = context.kernel.bus
    done.on("log", heard.append)
    context.log("debug", "quiet", {"n": 1}, code=2)
    await context.kernel.bus.emit("nothing")
    import anyio

    with anyio.fail_after(5):
        while not heard:
            await anyio.lowlevel.checkpoint()
    record = heard[0]
    assert (record.type, record.message, record.plugin) == ("debug", "quiet", "writer")
    assert (record.details, record.fields) == ({"n": 1}, {"code": 2})
    assert record.timestamp.tzinfo is not None


@pytest.mark.parametrize("without_rich", [False, True])
def test_a_terminal_gets_readable_lines_with_rich_and_without(without_rich: bool) -> None:
    program = f"""
import sys
if {without_rich}:
    sys.modules["rich"] = sys.modules["rich.console"] = None
import logging
from veko_plugins.logging import Logging
from veko_plugins.tracing import Tracing
logs = Logging()
logs.configure("info")
logging.getLogger("veko.plugin.links").warning("[bold]odd[/bold]")
logs.reset()
"""
    controller, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", program],
            stderr=terminal,
            check=True,
            timeout=30,
            env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": ""},
        )
        text = os.read(controller, 4096).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert "warning links  [bold]odd[/bold]" in text
    assert ("\x1b[" in text) is not without_rich
