"""The logging of a whole process: everything on standard error is a record."""

import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from veko_plugins.logging import Logging, structlog_settings

SECONDS = 60.0
BEGIN = """
import logging, os, signal, sys, threading, time, warnings
from veko_plugins.logging import Logging
logs = Logging()
logs.configure("info", format="json", process=True)
"""


@pytest.fixture
def logs() -> Iterator[Logging]:
    logs = Logging()
    yield logs
    logs.reset()


def run(program: str, code: int = 0) -> list[dict[str, Any]]:
    """Run a program; every line on its standard error is an object."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_warnings_prints_and_other_loggers_are_records() -> None:
    found = run("""
warnings.warn("old thing")
print("to stderr", file=sys.stderr)
sys.stderr.write("a line ")
sys.stderr.write("in pieces\\nand ")
sys.stderr.flush()
logging.getLogger("library").warning("from a library")
logging.getLogger("library").info("unheard")
logging.warning("on the root")
import traceback
try: 1 / 0
except ZeroDivisionError: traceback.print_exc()
""")
    texts = [(entry["logger"], entry["message"]) for entry in found]
    assert texts[0] == ("py.warnings", "<string>:7: UserWarning: old thing")
    assert texts[1:6] == [
        ("stderr", "to stderr"), ("stderr", "a line in pieces"), ("stderr", "and"),
        ("library", "from a library"), ("root", "on the root"),
    ]  # fmt: skip
    assert texts[-1] == ("stderr", "ZeroDivisionError: division by zero")


def test_what_nothing_caught_is_a_record() -> None:
    found = run(
        """
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
class Late:
    def __del__(self): raise ValueError("in del")
Late()
raise KeyError("at last")
""",
        1,
    )
    messages = [entry["message"] for entry in found]
    assert messages[0] == (
        "the thread worker ended with an exception: ZeroDivisionError: division by zero"
    )
    assert "Late.__del__" in messages[1]
    assert "ValueError: in del" in messages[1]
    assert messages[2] == "an exception was not caught: KeyError: 'at last'"
    assert all("Traceback" in entry["error"] for entry in found)


def test_a_handler_of_the_application_that_prints_does_not_go_round() -> None:
    found = run("""
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
logging.warning("once")
""")
    assert [(entry["logger"], entry["message"]) for entry in found] == [
        ("root", "once"), ("stderr", "once"),
    ]  # fmt: skip


def test_a_handler_that_raises_costs_nobody_else_a_record() -> None:
    found = run("""
class Broken(logging.Handler):
    def emit(self, record):
        try: raise RuntimeError("broken handler")
        except RuntimeError: self.handleError(record)
logging.getLogger().addHandler(Broken())
logging.getLogger("veko.plugin.a").info("goes on")
logging.getLogger("veko.plugin.a").info("and on")
""")
    own = [entry["message"] for entry in found if entry.get("plugin") == "a"]
    assert own == ["goes on", "and on"]
    assert any("broken handler" in entry["message"] for entry in found)


def test_signal_handlers_threads_and_del_write_whole_lines() -> None:
    found = run("""
log = logging.getLogger("veko.plugin.a")
ticks = 0
def on_signal(number, frame):
    global ticks
    ticks += 1
    log.info("signal %d %s", ticks, "s" * 300)
signal.signal(signal.SIGALRM, on_signal)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
class Late:
    def __del__(self): log.info("del")
def work(name):
    for i in range(300):
        log.info("%s %d", name, i)
        Late()
threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(3)]
for thread in threads: thread.start()
work("main")
for thread in threads: thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
assert logs.lost == 0
log.info("ticks %d", ticks)
""")
    messages = [entry["message"] for entry in found]
    for name in ("main", "thread0", "thread1", "thread2"):
        own = [message for message in messages if message.startswith(f"{name} ")]
        assert own == [f"{name} {i}" for i in range(300)]
    assert messages.count("del") == 1200
    signals = [int(m.split()[1]) for m in messages if m.startswith("signal ")]
    assert sorted(signals) == list(range(1, int(messages[-1].split()[1]) + 1))


def test_a_console_that_is_gone_costs_the_application_nothing(tmp_path: Path) -> None:
    program = f"""
logs.configure("info", {str(tmp_path / "veko.log")!r}, "json", process=True)
os.close(2)
for number in range(5):
    logging.getLogger("veko.plugin.a").info("record %d", number)
assert logs.lost == 5, logs.lost
"""
    assert run(program) == []
    text = (tmp_path / "veko.log").read_text()
    assert text.count("record") >= 5
    assert text.count("log records are being lost: stderr cannot be written") == 1


def test_a_console_that_takes_no_more_does_not_stop_the_application() -> None:
    done = subprocess.run(
        [
            sys.executable, "-c",
            "import os, sys\nread, write = os.pipe()\nos.set_blocking(write, False)\n"
            "os.dup2(write, 2)\n" + BEGIN + "log = logging.getLogger('veko.plugin.a')\n"
            "for i in range(3): log.info('x' * 15000)\n"
            "while logs.lost == 0: log.info('y' * 15000)\n"
            "os.set_blocking(read, False)\nlost = logs.lost\n"
            "data = os.read(read, 2**20)\nlog.info('after')\ndata += os.read(read, 2**20)\n"
            "sys.stdout.buffer.write(data)\n",
        ],
        capture_output=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    found = []
    for line in done.stdout.splitlines():
        try:
            found.append(json.loads(line)["message"])
        except ValueError:
            found.append("torn")
    assert found.count("torn") <= 1  # the one that the full pipe cut; what follows is whole
    assert found[-1] == "after"
    assert "log records are missing here" in found[-2]


def test_everything_is_put_back(logs: Logging) -> None:
    root = logging.getLogger()
    before = (
        sys.stderr, sys.excepthook, sys.unraisablehook, threading.excepthook,
        warnings.showwarning, list(root.handlers), root.level,
    )  # fmt: skip
    for _ in range(2):
        logs.configure("debug", format="json", process=True)
    logs.reset()
    assert before == (
        sys.stderr, sys.excepthook, sys.unraisablehook, threading.excepthook,
        warnings.showwarning, list(root.handlers), root.level,
    )  # fmt: skip


def test_structlog_logs_in_our_format() -> None:
    pytest.importorskip("structlog")
    found = run("""
import structlog
from veko import Kernel
import asyncio
async def main():
    async with Kernel() as kernel:
        await kernel.load(logs)
        logs.configure("info", format="json", process=True)
        def load(context):
            log = structlog.get_logger("veko.plugin.shop").bind(user=3)
            log.info("sold %s", "tea", name="kept", password="x", level="own")
            log.debug("unheard")
            structlog.contextvars.bind_contextvars(request="r1")
            try: 1 / 0
            except ZeroDivisionError: log.exception("failed")
        await kernel.load({"name": "shop", "version": "1.0.0", "load": load})
asyncio.run(main())
assert not structlog.is_configured()
""")
    sold, failed = found
    assert (sold["plugin"], sold["message"], sold["user"]) == ("shop", "sold tea", 3)
    assert (sold["name"], sold["password"], sold["level"]) == ("kept", "********", "info")
    assert (failed["request"], failed["level"]) == ("r1", "error")
    assert "ZeroDivisionError" in failed["error"]


def test_an_application_that_has_configured_structlog_keeps_its_configuration() -> None:
    pytest.importorskip("structlog")
    found = run("""
import structlog
structlog.configure(
    processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
before = structlog.get_config()
structlog.get_logger("mine").warning("event", a=1)
from veko_plugins.logging.structlogs import adopt
adopt()
assert structlog.get_config() == before
""")
    (event,) = found
    assert (event["logger"], event["message"], event["a"]) == ("mine", "event", 1)


def test_settings_of_structlog_for_a_configuration_of_ones_own(
    logs: Logging, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog = pytest.importorskip("structlog")

    def stamped(logger: object, name: str, event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "stamp": 7}

    logs.configure("info", format="json")
    try:
        structlog.configure(**structlog_settings([stamped]))
        structlog.get_logger("veko.plugin.a").info("hello", x=1)
    finally:
        structlog.reset_defaults()
    entry = json.loads(capsys.readouterr().err)
    assert (entry["plugin"], entry["message"], entry["x"], entry["stamp"]) == ("a", "hello", 1, 7)


def test_structlog_is_not_imported_for_it() -> None:
    run("assert 'structlog' not in sys.modules")
