"""Processes beside the benchmark: contenders that serve, wrk that asks them, and storages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from _report import Report, progress

__all__ = ["Load", "child", "on_core", "storages", "wrk"]


class Load(NamedTuple):
    """What wrk saw.

    Attributes:
        rate: Requests a second.
        tail: The 99th percentile of the time of an answer, in ms.
    """

    rate: float
    tail: float

    @classmethod
    def median(cls, loads: Iterable[Self]) -> Load:
        """Return the medians of several."""
        return Load(*(statistics.median(column) for column in zip(*loads, strict=True)))


def on_core(which: Callable[[Iterable[int]], int], command: list[str]) -> list[str]:
    """Return a command that runs on one core (`min`: the first, `max`: the last), if it can."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(cores) < 2 or shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(which(cores)), *command]


@contextlib.contextmanager
def child(
    command: list[str], core: Callable[[Iterable[int]], int] | None = min
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a process until its standard input is closed; gives the first line that it prints."""
    process = subprocess.Popen(
        on_core(core, command) if core else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def wrk(url: str, seconds: float, connections: int = 50) -> Load:
    """Ask a server for the same again and again.

    Raises:
        SystemExit: It did not answer each request with success.
    """
    # wrk counts whole seconds.
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", url]
    said = subprocess.run(on_core(max, command), capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"{url} did not answer well:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert rate is not None
    assert tail is not None
    return Load(float(rate[1]), float(tail[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[tail[2]])


def storages(
    stack: contextlib.ExitStack,
    report: Report,
    kinds: tuple[str, ...] = ("redis", "postgres", "nats"),
) -> dict[str, str]:
    """Start servers as the tests of the storages do, where they are installed; return their URLs.

    Args:
        stack: Ends them.
        report: Says which are missing.
        kinds: Which.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import pytest
    from tests.storages.conftest import running

    urls: dict[str, str] = {}
    for kind in kinds:
        progress(f"starting {kind}")
        try:
            urls[kind] = stack.enter_context(running(kind)).url
        except pytest.skip.Exception as error:
            report.say(f"{kind} was not measured: {error}")
    return urls
