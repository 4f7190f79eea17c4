"""`veko serve`: what it says, what it answers, and how it stops."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def plugin(application: Path, name: str, body: str) -> None:
    """Add a plugin whose `load(context)` has this body."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    (application / "plugins" / f"{name}.py").write_text(
        f'import asyncio, time\nname = "{name}"\nversion = "1.0.0"\n\ndef load(context):\n{lines}\n'
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_and_stops_gracefully(
    start: Start, application: Path, number: signal.Signals
) -> None:
    veko = start("serve", application, "--port", 0)
    url = veko.wait_for(r"Listening on (http://127\.0\.0\.1:\d+)")[1]
    assert "loaded   hello 1.2.3  Says hello" in veko.text
    assert "failed   broken" in veko.text
    assert "no luck" in veko.text
    assert "skipped  needy" in veko.text
    assert "success" not in veko.text
    assert "info    hello  hello is here" in veko.text
    veko.wait_for(rf"try  curl {url}/hello")
    response = httpx.get(f"{url}/hello")
    assert response.json() == {"hello": "world"}
    veko.process.send_signal(number)
    assert veko.ends() == 0
    assert "hello says goodbye" in veko.text
    assert veko.lines[-1] == "Stopped"
    assert "Traceback" not in veko.text


def test_serves_the_application_of_the_working_directory(start: Start, application: Path) -> None:
    veko = start("serve", "--port", 0, cwd=application)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    assert httpx.get(f"{url}/hello").status_code == 200
    assert httpx.get(f"{url}/nothing").status_code == 404


def test_a_request_under_way_is_finished(start: Start, application: Path) -> None:
    gate = application / "gate"
    plugin(
        application,
        "slow",
        f"""
from pathlib import Path
async def slow():
    print("slow has begun", flush=True)
    while not Path({str(gate)!r}).exists():
        await asyncio.sleep(0.01)
    return "done"
context.add_route("GET", "/slow", slow)
""",
    )
    veko = start("serve", application, "--port", 0)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.get, f"{url}/slow", timeout=30)
        veko.wait_for("slow has begun")
        veko.process.send_signal(signal.SIGTERM)
        veko.wait_for("Stopping")
        gate.touch()
        assert answer.result().text == "done"
    assert veko.ends() == 0


def test_a_request_that_does_not_end_is_cut_off(start: Start, application: Path) -> None:
    plugin(
        application,
        "endless",
        """
async def endless():
    print("endless has begun", flush=True)
    await asyncio.Event().wait()
context.add_route("GET", "/endless", endless)
""",
    )
    veko = start("serve", application, "--port", 0, "--grace", 1)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.get, f"{url}/endless", timeout=30)
        veko.wait_for("endless has begun")
        veko.process.send_signal(signal.SIGTERM)
        assert veko.ends() == 0
        assert answer.exception() is not None or answer.result().status_code >= 500


def test_a_plugin_that_blocks_the_loop_is_not_waited_for(start: Start, application: Path) -> None:
    plugin(
        application,
        "blocking",
        """
async def block():
    print("blocking has begun", flush=True)
    time.sleep(600)
context.add_route("GET", "/block", block)
""",
    )
    veko = start("serve", application, "--port", 0, "--grace", 0.5)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.get, f"{url}/block", timeout=30)
        veko.wait_for("blocking has begun")
        veko.process.send_signal(signal.SIGTERM)
        assert veko.ends() == 1
        assert answer.exception() is not None
    assert "did not stop in time" in veko.text


def test_a_thread_that_a_plugin_left_is_not_waited_for(start: Start, application: Path) -> None:
    plugin(
        application,
        "threaded",
        """
import threading
threading.Thread(target=time.sleep, args=(600,)).start()
""",
    )
    veko = start("serve", application, "--port", 0, "--grace", 1)
    veko.wait_for("Listening")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 1
    assert "Stopped" in veko.text
    assert "did not stop in time" in veko.text


def test_a_second_signal_ends_it_at_once(start: Start, application: Path) -> None:
    plugin(
        application,
        "blocking",
        """
def block():
    print("blocking has begun", flush=True)
    time.sleep(600)
context.spawn(block)
""",
    )
    veko = start("serve", application, "--port", 0)
    veko.wait_for("blocking has begun")
    while veko.process.poll() is None:
        veko.process.send_signal(signal.SIGINT)
    assert veko.ends() == 128 + signal.SIGINT


def test_a_signal_while_plugins_load_stops_it(start: Start, application: Path) -> None:
    (application / "plugins" / "waits.py").write_text(
        """
import asyncio
name = "waits"
version = "1.0.0"
async def load():
    print("waits is loading", flush=True)
    await asyncio.Event().wait()
"""
    )
    veko = start("serve", application, "--port", 0, "--grace", 2)
    veko.wait_for("waits is loading")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    assert "Traceback" not in veko.text
    assert "Listening" not in veko.text


def test_a_port_that_is_taken_is_one_line(veko: Run, application: Path, taken: int) -> None:
    done = veko("serve", application, "--port", taken)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"127.0.0.1:{taken}" in done.stderr
    assert "--port" in done.stderr


def test_an_address_that_is_not_here_is_one_line(veko: Run, application: Path) -> None:
    done = veko("serve", application, "--host", "192.0.2.1", "--port", 0)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_adapter_that_is_not_there_is_one_line(veko: Run, application: Path) -> None:
    done = veko("serve", application, "--port", 0, "--adapter", "nothing")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_failing_handler_is_logged_and_the_server_goes_on(
    start: Start, application: Path, tmp_path: Path
) -> None:
    plugin(
        application,
        "fails",
        """
def fails():
    raise ValueError("the wrong day")
context.add_route("GET", "/fails", fails)
""",
    )
    file = tmp_path / "logs" / "veko.log"
    veko = start("serve", application, "--port", 0, "--log-file", file, "--log-format", "json")
    url = veko.wait_for(r"Listening on (\S+)")[1]
    assert httpx.get(f"{url}/fails").status_code == 500
    assert httpx.get(f"{url}/hello").status_code == 200
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    assert any("the wrong day" in entry["message"] for entry in entries)
    assert any("Traceback" in entry.get("error", "") for entry in entries)
    assert any(entry["message"] == "hello is here" for entry in entries)


def test_log_level(start: Start, application: Path) -> None:
    veko = start("serve", application, "--port", 0, "--log-level", "error")
    veko.wait_for("Listening")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    assert "hello is here" not in veko.text


def test_an_empty_application_is_served(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    veko = start("serve", "--port", 0)
    veko.wait_for("no plugins")
    url = veko.wait_for(r"Listening on (\S+)")[1]
    assert httpx.get(url).status_code == 404
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0


def test_does_not_start_without_a_required_plugin(veko: Run, application: Path) -> None:
    plugin(application, "guard", "raise ValueError('no key')")
    path = application / "plugins" / "guard.py"
    path.write_text("required = True\n" + path.read_text())
    done = veko("serve", application, "--port", 0)
    assert done.returncode == 1
    assert "required plugins did not load: guard: " in done.stderr
    assert "no key" in done.stderr
    assert "Listening" not in done.stdout
