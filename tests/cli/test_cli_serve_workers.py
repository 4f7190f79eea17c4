"""`veko serve --workers N`: several processes on one socket, kept and stopped by another."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import httpx
import pytest


class Running(Protocol):
    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def text(self) -> str: ...
    def wait_for(self, pattern: str) -> re.Match[str]: ...
    def ends(self) -> int: ...


Start = Callable[..., Running]
Run = Callable[..., subprocess.CompletedProcess[str]]

PLUGIN = """
import asyncio, os, sys, threading
name = "one"
version = "1.0.0"

def load(context):
    context.add_route("GET", "/pid", lambda: os.getpid())
    context.add_route("GET", "/version", lambda: version)
    context.add_route("POST", "/exit", lambda: os._exit(7))
    context.add_route("GET", "/slow", slow)

async def slow():
    print("slow has begun", flush=True)
    await asyncio.sleep(0.5)
    return "done"

def unload():
    print(f"unloaded in {os.getpid()}", flush=True)
"""


@pytest.fixture
def stateless(tmp_path: Path) -> Path:
    """An application that does without a storage."""
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "one.py").write_text(PLUGIN)
    (root / "veko.toml").write_text('storage = "none"\nmax_retries = 0\n')
    return root


def pids(url: str, wanted: int) -> set[int]:
    """Ask, each time on a new connection, until that many processes have answered."""
    found: set[int] = set()
    for _ in range(2000):
        try:
            found.add(httpx.get(f"{url}/pid").json())
        except httpx.TransportError:
            continue
        if len(found) == wanted:
            break
    return found


def test_two_workers_share_a_socket_and_stop_together(start: Start, stateless: Path) -> None:
    veko = start("serve", stateless, "--port", 0, "--workers", 2)
    url = veko.wait_for(r"Listening on (\S+), 2 workers")[1]
    assert veko.text.count("loaded   one") == 1
    found = pids(url, 2)
    assert len(found) == 2
    assert veko.process.pid not in found
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    assert veko.lines[-1] == "Stopped"
    for pid in found:
        assert f"unloaded in {pid}" in veko.text
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_dies_is_replaced_and_sighup_reaches_all(
    start: Start, stateless: Path
) -> None:
    veko = start("serve", stateless, "--port", 0, "--workers", 2)
    url = veko.wait_for(r"Listening on (\S+),")[1]
    first = pids(url, 2)
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/exit")
    number = veko.wait_for(r"worker (\d) \(process \d+\) exited with code 7; a new one starts")[1]
    (old,) = first - pids(url, 1)  # whoever is left, or the new one
    file = stateless / "plugins" / "one.py"
    file.write_text(PLUGIN.replace("1.0.0", "1.1.0"))
    veko.process.send_signal(signal.SIGHUP)
    veko.wait_for(rf"worker {3 - int(number)}: reloaded one 1\.1\.0")
    assert len(pids(url, 2) | {old}) >= 2
    veko.process.send_signal(signal.SIGINT)
    assert veko.ends() == 0


def test_workers_that_go_on_dying_end_everything(start: Start, stateless: Path) -> None:
    veko = start("serve", stateless, "--port", 0, "--workers", 2)
    url = veko.wait_for(r"Listening on (\S+),")[1]
    gave_up = False
    while veko.process.poll() is None and not gave_up:
        try:
            httpx.post(f"{url}/exit")
        except httpx.TransportError:
            gave_up = veko.process.poll() is not None
    assert veko.ends() == 1
    assert "for the 3rd time in 5 minutes" in veko.text


def test_workers_end_with_their_supervisor(start: Start, stateless: Path) -> None:
    veko = start("serve", stateless, "--port", 0, "--workers", 2, "--grace", 2)
    url = veko.wait_for(r"Listening on (\S+),")[1]
    found = pids(url, 2)
    veko.process.send_signal(signal.SIGKILL)
    assert veko.ends() == -signal.SIGKILL  # reads to the end: nobody holds the output any more
    for pid in found:
        assert f"unloaded in {pid}" in veko.text


def test_a_second_signal_ends_the_workers_too(start: Start, stateless: Path) -> None:
    veko = start("serve", stateless, "--port", 0, "--workers", 2)
    url = veko.wait_for(r"Listening on (\S+),")[1]
    assert len(pids(url, 2)) == 2
    while veko.process.poll() is None:
        veko.process.send_signal(signal.SIGINT)
    assert veko.ends() == 128 + signal.SIGINT  # reads to the end: no worker holds the output


def test_what_keeps_a_worker_from_starting_is_said_once(veko: Run, stateless: Path) -> None:
    (stateless / "veko.toml").write_text('storage = "none"\nmax_retries = 0\nrequired = ["two"]\n')
    done = veko("serve", stateless, "--port", 0, "--workers", 3)
    assert done.returncode == 1
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("veko: ")]
    assert "worker 1 did not start" in line
    assert "two" in line


@pytest.mark.parametrize(
    ("settings", "words", "why"),
    [
        ("", (), "SQLite belongs to one process"),
        ('storage = "none"\nwatch_mode = true\n', (), "watch_mode is for one process"),
        ('storage = "none"\n', ("--dev",), "dev_mode is for one process"),
    ],
)
def test_what_several_workers_cannot_do_is_refused(
    veko: Run, stateless: Path, settings: str, words: tuple[str, ...], why: str
) -> None:
    (stateless / "veko.toml").write_text(settings)
    done = veko("serve", stateless, "--port", 0, "--workers", 2, *words)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert why in line
    assert done.stdout == ""


def test_all_workers_write_one_log_file_and_say_which_they_are(
    start: Start, stateless: Path, tmp_path: Path
) -> None:
    file = tmp_path / "logs" / "veko.log"
    veko = start(
        "serve", stateless, "--port", 0, "--workers", 2, "--access-log",
        "--log-file", file, "--log-format", "json",
    )  # fmt: skip
    url = veko.wait_for(r"Listening on (\S+),")[1]
    pids(url, 2)
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    assert [path.name for path in file.parent.iterdir()] == ["veko.log"]
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    served = {entry.get("worker") for entry in entries if "GET /pid HTTP/1.1" in entry["message"]}
    assert served == {1, 2}
    said = [entry["message"] for entry in entries if "worker" not in entry]
    assert any(line.startswith("Listening on http://") for line in said)
    assert said[-2:] == ["Stopping", "Stopped"]
