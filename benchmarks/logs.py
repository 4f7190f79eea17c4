"""What does a log record cost?

    python benchmarks/logs.py [--seconds N] [--quick]

A JSON line with four fields to a rotated file: by Veko, by python-json-logger with the standard
library's rotating file, and by structlog, which has no rotation. The records are the same, and Veko
masks secrets, escapes, bounds, and locks the file for other processes besides. Then the line alone,
without writing it, and a record whose level is off.
"""

from __future__ import annotations

import argparse
import io
import logging
import tempfile
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog
from _harness import Batch, batch, compare, pinned
from _report import Report, script
from pythonjsonlogger.json import JsonFormatter

from veko_plugins.logging import JSONFormatter, open_log

EXTRA = {"order": 4711, "customer": "joe", "total": 12.5, "tags": ["tea", "new"]}
LOG = 'log.info("sold %s", "tea", extra=extra)'
SIZE = 10_000_000


def logger(name: str, handler: logging.Handler, formatter: logging.Formatter) -> logging.Logger:
    """Return a logger that has this handler only."""
    found = logging.getLogger(name)
    for former in found.handlers[:]:
        found.removeHandler(former)
        former.close()
    found.propagate = False
    found.setLevel(logging.INFO)
    handler.setFormatter(formatter)
    found.addHandler(handler)
    return found


class Nothing(logging.Handler):
    """Formats a record and writes it to nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def events(file: Any) -> Any:
    """Return a logger of structlog that writes JSON to a file."""
    return structlog.wrap_logger(
        structlog.WriteLogger(file),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def theirs() -> logging.Formatter:
    """Return the formatter of python-json-logger, with the same fields."""
    return JsonFormatter("{asctime}{levelname}{name}{message}", style="{")


async def contenders(folder: Path) -> dict[str, Batch]:
    """Set everything up."""
    ours = logger("veko.plugin.ours", open_log(folder / "ours", SIZE, 1), JSONFormatter())
    handler = RotatingFileHandler(folder / "peer", maxBytes=SIZE, backupCount=1, encoding="utf-8")
    peer = logger("peer", handler, theirs())
    plain = logger("veko.plugin.plain", Nothing(), JSONFormatter())
    plain_peer = logger("plain_peer", Nothing(), theirs())
    log = 'log.info("sold tea", **extra)'
    off = 'log.debug("sold %s", "tea")'
    file = (folder / "events").open("a", encoding="utf-8")
    return {
        "file: Veko": batch(LOG, log=ours, extra=EXTRA),
        "file: python-json-logger": batch(LOG, log=peer, extra=EXTRA),
        "file: structlog": batch(log, log=events(file), extra=EXTRA),
        "line: Veko": batch(LOG, log=plain, extra=EXTRA),
        "line: python-json-logger": batch(LOG, log=plain_peer, extra=EXTRA),
        "line: structlog": batch(log, log=events(io.StringIO()), extra=EXTRA),
        "off: Veko's logger of a plugin": batch(off, log=ours),
        "off: standard library": batch(off, log=peer),
        "off: structlog": batch(off, log=events(file)),
    }


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure all."""
    with tempfile.TemporaryDirectory() as folder, pinned():
        timings = await compare(lambda: contenders(Path(folder)), seconds=given.seconds)
    bases = {"file": "file: Veko", "line": "line: Veko", "off": "off: Veko's logger of a plugin"}
    rows = [
        [
            name,
            f"{timings.median(name):,.0f}",
            f"{timings.ratio(name, bases[name[: name.index(':')]]):.2f}×",
        ]
        for name in timings.names
    ]
    report.table(["a record", "ns", "by Veko"], rows)


if __name__ == "__main__":
    script(measure, seconds=6)
