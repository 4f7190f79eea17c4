"""`veko serve` under SIGHUP, with either server, with streams and sockets under way."""

import re
import signal
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Running(Protocol):
    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def text(self) -> str: ...
    def wait_for(self, pattern: str) -> re.Match[str]: ...
    def ends(self) -> int: ...


Start = Callable[..., Running]
SERVERS = ("uvicorn", "granian")

ONE = """
import asyncio
name = "{name}"
version = "{version}"

def load(context):
    context.add_route("GET", "/{name}", lambda: version)

def unload():
    print("{name} says goodbye", flush=True)
"""
STREAM = """
import asyncio
name = "stream"
version = "1.0.0"

def load(context):
    context.add_route("GET", "/endless", endless)
    context.add_route("GET", "/slow", slow)
    context.add_websocket("/socket", listen)

async def endless():
    while True:
        yield b"x"
        await asyncio.sleep(0.05)

async def slow():
    print("slow has begun", flush=True)
    await asyncio.sleep(0.7)
    return "done"

async def listen(socket):
    async for message in socket:
        await socket.send(message)
"""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    write(root, "one", "1.0.0")
    (root / "veko.toml").write_text("max_retries = 0\n")
    return root


def write(root: Path, name: str, version: str) -> Path:
    file = root / "plugins" / f"{name}.py"
    file.write_text(ONE.format(name=name, version=version))
    return file


def test_sighup_makes_what_runs_what_lies_on_disk(start: Start, served: Path) -> None:
    write(served, "gone", "1.0.0")
    same = write(served, "same", "1.0.0")
    veko = start("serve", served, "--port", 0)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    with httpx.Client(base_url=url) as client:  # one connection all along
        assert client.get("/one").text == "1.0.0"
        write(served, "one", "1.1.0")
        write(served, "new", "1.0.0")
        (served / "plugins" / "gone.py").unlink()
        same.touch()
        (served / "veko.toml").write_text("max_retries = 1\n[plugins.one]\ncolour = 'red'\n")
        veko.process.send_signal(signal.SIGHUP)
        veko.wait_for(r"settings max_retries has changed: restart to apply it")
        veko.wait_for(r"settings plugins\.one has changed")
        veko.wait_for(r"reloaded one 1\.1\.0")
        veko.wait_for(r"unloaded gone: its files are gone")
        veko.wait_for(r"loaded   new 1\.0\.0")
        assert client.get("/one").text == "1.1.0"
        assert client.get("/new").text == "1.0.0"
        assert client.get("/gone").status_code == 404
        (served / "plugins" / "one.py").write_text("name = ")
        veko.process.send_signal(signal.SIGHUP)
        veko.wait_for(r"one failed: .*one\.py")
        veko.wait_for(r"failed   one \(the old one keeps running\)")
        assert client.get("/one").text == "1.1.0"
        write(served, "one", "1.2.0")
        veko.process.send_signal(signal.SIGHUP)
        veko.wait_for(r"reloaded one 1\.2\.0")
        veko.process.send_signal(signal.SIGHUP)
        veko.wait_for("nothing  has changed")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    assert "reloaded same" not in veko.text


def test_sighups_queue_and_harm_no_request(start: Start, served: Path) -> None:
    (served / "plugins" / "stream.py").write_text(STREAM)
    veko = start("serve", served, "--port", 0)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.get, f"{url}/slow", timeout=30)
        veko.wait_for("slow has begun")
        for version in ("1.1.0", "1.2.0", "1.3.0"):
            write(served, "one", version)
            (served / "plugins" / "stream.py").write_text(STREAM.replace("1.0.0", version))
            veko.process.send_signal(signal.SIGHUP)
        veko.wait_for(r"reloaded stream 1\.3\.0")
        assert answer.result().text == "done"
    assert httpx.get(f"{url}/one").text == "1.3.0"
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0


@pytest.mark.parametrize("server", SERVERS)
def test_streams_and_sockets_are_cut_when_the_time_is_over(
    start: Start, served: Path, server: str
) -> None:
    (served / "plugins" / "stream.py").write_text(STREAM)
    veko = start("serve", served, "--port", 0, "--server", server, "--grace", 4, "--access-log")
    url = veko.wait_for(r"Listening on (\S+)")[1]
    with (
        ThreadPoolExecutor(1) as pool,
        connect(f"{url.replace('http', 'ws')}/socket") as websocket,
        httpx.stream("GET", f"{url}/endless") as response,
    ):
        websocket.send("hi")
        assert websocket.recv() == "hi"
        pieces = response.iter_raw()
        assert next(pieces)
        answer = pool.submit(httpx.get, f"{url}/slow", timeout=30)
        veko.wait_for("slow has begun")
        veko.process.send_signal(signal.SIGTERM)
        assert answer.result().text == "done"
        with pytest.raises(httpx.TransportError):
            for _ in pieces:
                pass
        with pytest.raises(ConnectionClosed):
            websocket.recv()
    assert veko.ends() == 0
    assert "one says goodbye" in veko.text
    assert "Traceback" not in veko.text
    assert re.search(r"GET /slow HTTP/1.1\" 200", veko.text)


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_says_nothing_of_its_own(start: Start, served: Path, server: str) -> None:
    veko = start("serve", served, "--port", 0, "--server", server)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    assert httpx.get(f"{url}/one").text == "1.0.0"
    veko.process.terminate()
    assert veko.ends() == 0
    assert {*re.findall(r"http://[^\s/]+", veko.text)} == {url}
    assert server not in veko.text


@pytest.mark.parametrize("server", SERVERS)
def test_requests_whose_headers_are_too_many_or_too_large(
    start: Start, served: Path, server: str
) -> None:
    veko = start("serve", served, "--port", 0, "--server", server)
    port = int(veko.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1])
    for headers in (b"a: b\r\n" * 150, b"a: " + b"x" * 100_000 + b"\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /one HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 431 ")
    assert httpx.get(f"http://127.0.0.1:{port}/one").text == "1.0.0"


def test_forwarded_addresses_are_believed_only_of_whom_it_is_said(
    start: Start, served: Path
) -> None:
    (served / "plugins" / "who.py").write_text(
        'name = "who"\nversion = "1.0.0"\n\ndef load(context):\n'
        '    context.add_route("GET", "/who", lambda request: request.client.host)\n'
    )
    headers = {"x-forwarded-for": "192.0.2.7"}
    for words, wanted in (
        ((), "127.0.0.1"),
        (("--forwarded-allow-ips", "10.0.0.0/8"), "127.0.0.1"),
        (("--forwarded-allow-ips", "10.0.0.0/8, 127.0.0.1"), "192.0.2.7"),
    ):
        veko = start("serve", served, "--port", 0, *words)
        url = veko.wait_for(r"Listening on (\S+)")[1]
        assert httpx.get(f"{url}/who", headers=headers).text == wanted
        veko.process.send_signal(signal.SIGTERM)
        assert veko.ends() == 0
        assert "GET /who" not in veko.text
