"""What a Python plugin in a worker accesses: named, refused, counted; connections by the host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from veko_plugins.remote.accesses import Accesses, Watch
from veko_plugins.remote.broker import Broker, Channel
from veko_plugins.remote.launcher import Confinement, missing
from veko_plugins.remote.permissions import Grants, grants
from veko_plugins.remote.python.runtime import Python

from .conftest import Start

PLUGIN = """
    import asyncio, os, socket, subprocess, urllib.request

    def attempt(fn):
        try:
            return fn()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def fetch(host, port):
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as answer:
            return answer.read().decode()

    async def fetch_async(host, port):
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
            found = await reader.read()
            writer.close()
            return found.decode().rpartition("\\n")[2]
        except OSError as error:
            return f"{type(error).__name__}: {error}"

    def load(context):
        add = context.add_command
        add("read", lambda path: attempt(lambda: len(open(path).read())))
        add("write", lambda path: attempt(lambda: open(path, "w").close()))
        add("run", lambda: attempt(lambda: subprocess.run(["true"])))
        add("listen", lambda: attempt(lambda: socket.socket().bind(("127.0.0.1", 8080))))
        add("env", lambda name: os.environ.get(name))
        add("fetch", lambda host, port: attempt(lambda: fetch(host, port)))
        add("threaded", lambda host, port: asyncio.to_thread(attempt, lambda: fetch(host, port)))
        add("fetch_async", fetch_async)
"""


def granted(folder: Path, *permissions: str, everything: bool = False) -> Grants:
    found = grants(permissions, folder=folder / "shop.py", directory=folder, plugin="shop")
    return Grants(
        permissions=found.permissions, folder=found.folder, directory=found.directory,
        plugin="shop", everything=everything,
    )  # fmt: skip


async def test_what_is_not_granted_is_refused_and_named(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "in.txt").write_text("four")
    allowed = granted(tmp_path, "read:files:./data", "env:read:HOST_NAME")
    host = await start(PLUGIN, granted=Python.granted(allowed, brokered=False))

    async def run(name: str, *args: Any) -> Any:
        return await host.run("add_command", name, list(args), {})

    assert await run("read", str(data / "in.txt")) == 4
    assert await run("read", str(tmp_path / "shop.py")) > 100  # its own file, always
    refused = 'read:files:/etc/passwd is not granted to the plugin shop. If it needs that, add "rea'
    assert refused in await run("read", "/etc/passwd")
    for name, args in (("write", [str(data / "in.txt")]), ("run", []), ("listen", [])):
        assert "is not granted" in await run(name, *args), name
    assert await run("env", "SECRET") is None
    assert (data / "in.txt").read_text() == "four"
    await host.until(lambda: len(host.noted) >= 6)
    file = tmp_path / "shop.py"
    line = 1 + next(
        number for number, text in enumerate(file.read_text().splitlines()) if '"read"' in text
    )
    assert ("used", "read:files", str(data / "in.txt"), f"{file}:{line}") in host.noted
    assert ("denied", "read:files", "/etc/passwd", f"{file}:{line}") in host.noted
    denied = {note[1:3] for note in host.noted if note[0] == "denied"}
    assert {
        ("write:files", str(data / "in.txt")), ("process:spawn", "true"), ("env:read", "SECRET"),
        ("net:listen", "127.0.0.1:8080"),
    } <= denied  # fmt: skip


async def test_a_plugin_that_is_observed_may_do_all_and_it_is_noted(
    start: Start, tmp_path: Path
) -> None:
    watched = Python.granted(granted(tmp_path, everything=True), brokered=False)
    host = await start(PLUGIN, granted=watched)
    assert await host.run("add_command", "read", ["/etc/passwd"], {}) > 0
    await host.run("add_command", "write", [str(tmp_path / "out.txt")], {})
    await host.until(lambda: len(host.noted) >= 2)
    assert [note[:3] for note in host.noted] == [
        ("used", "read:files", "/etc/passwd"),
        ("used", "write:files", str(tmp_path / "out.txt")),
    ]


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"tea")

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("confined", [False, True])
async def test_the_host_connects_for_blocking_and_async_code(
    start: Start, tmp_path: Path, server: int, confined: bool
) -> None:
    if confined and (lacks := missing(Confinement())):
        pytest.skip(f"this system cannot confine: {lacks}")
    allowed = granted(tmp_path, f"net:connect:localhost:{server}")
    broker, reports = Broker(), list[str]()
    accesses = Accesses(lambda plugin, text: reports.append(text))
    channel = Channel(broker, Watch(accesses, "shop", allowed))
    try:
        host = await start(
            PLUGIN,
            granted=Python.granted(allowed, brokered=True),
            channel=channel.worker,
            confine=allowed if confined else None,
        )
        channel.started()
        for name in ("fetch", "threaded", "fetch_async"):
            answer = await host.run("add_command", name, ["localhost", server], {})
            assert answer == "tea", name
            answer = await host.run("add_command", name, ["127.0.0.2", server], {})
            assert f"net:connect:127.0.0.2:{server} is not granted" in answer, name
        found = [(one.value, one.granted, one.times) for one in accesses.of("shop")]
        assert (f"localhost:{server}", True, 3) in found
        assert (f"127.0.0.2:{server}", False, 3) in found
        assert all("shop.py:" in one.where for one in accesses.of("shop"))
    finally:
        channel.close()
        broker.close()


def test_the_application_is_no_package_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m veko` has put the working folder on the path."""
    home = tmp_path / "app"
    for folder in (home / ".venv" / "lib", tmp_path / "lib"):
        folder.mkdir(parents=True)
        monkeypatch.syspath_prepend(str(folder))
    for folder in (home, tmp_path, Path("/")):
        monkeypatch.syspath_prepend(str(folder))
    read = Python().reads(home)
    assert {home / ".venv" / "lib", tmp_path / "lib"} <= set(read)
    assert not [path for path in read if home.is_relative_to(path)]
