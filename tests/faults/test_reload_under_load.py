"""Reloading under load: a real server, real sockets, half of the versions broken.

Fifty connections ask for a plugin's routes all the time while it is saved again and again; another
one has a stream open, and one a WebSocket of another plugin. Its hook, middleware, route and
service each leave the number of their version in an answer: all four must be the same.
`benchmarks/reload_load.py` is the long form.
"""

import asyncio
import itertools
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio
CONNECTIONS = 50
RELOADS = 50
SHOP = """
import asyncio
name = "shop"
version = "1.0.{number}"

def load(context):
    def start(request):
        request.state["hook"] = {number}
    async def around(request, call_next):
        request.state["middleware"] = {number}
        return await call_next(request)
    def answer(request):
        found = request.state["hook"], request.state["middleware"], {number}
        return " ".join(map(str, (*found, context.use("number"))))
    async def stream():
        for _ in range(20):
            yield b"{number} "
            await asyncio.sleep(0.005)
    context.hook("request:start", start)
    context.add_middleware(around)
    context.provide("number", {number})
    context.add_route("GET", "/shop/a", answer)
    context.add_route("GET", "/shop/{{name}}/b", answer)
    context.add_route("GET", "/stream", stream)
    {more}
"""
OTHER = """
name = "other"
version = "1.0.0"

def load(context):
    async def echo(socket):
        async for message in socket:
            await socket.send(message)
    context.add_websocket("/echo", echo)
    context.add_route("GET", "/other", lambda: "other")
"""
BROKEN = ("raise ValueError('no')", "import nowhere_at_all", "x = (", "context.add_route('GET', "
          "'/other', lambda: 1)")  # fmt: skip


class Load:
    """Clients of a server, and what they saw."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seen: Counter[str] = Counter()
        self.wrong: list[object] = []
        self.done = False

    async def ask(self, path: str) -> None:
        """Ask for a path all the time on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        request = f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()
        try:
            while not self.done:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if found := re.search(r"content-length: (\d+)", head):
                    body = await reader.readexactly(int(found[1]))
                else:
                    body = b""
                    while size := int(await reader.readline(), 16):
                        body += (await reader.readexactly(size + 2))[:-2]
                    await reader.readline()
                words = body.decode().split()
                if not head.startswith("http/1.1 200 ") or len(set(words)) != 1:
                    self.wrong.append((path, head, body))
                self.seen[path] += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            self.wrong.append((path, error))
        finally:
            writer.close()

    async def talk(self) -> None:
        """Talk over one WebSocket all the time."""
        async with connect(f"ws://127.0.0.1:{self._port}/echo") as socket:
            for number in itertools.count():
                await socket.send(str(number))
                if await socket.recv() != str(number):
                    self.wrong.append("the WebSocket mixes messages up")
                self.seen["socket"] += 1
                if self.done:
                    return


async def line(process: Process, pattern: str) -> re.Match[str]:
    """Wait until the server says something."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        said = b""
        while text := await process.stdout.readline():
            said += text
            if found := re.search(pattern, text.decode()):
                return found
    raise AssertionError(f"it ended without {pattern!r}:\n{said.decode()}")


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[tuple[Process, int]]:
    words = ("-m", "veko_plugins.cli", "serve", "--dev", "--port", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=root, stdout=PIPE, stderr=STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield process, int((await line(process, r"Listening on \S+:(\d+)"))[1])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_no_request_is_lost_in_fifty_reloads(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    path = folder / "shop.py"
    path.write_text(SHOP.format(number=0, more=""))
    (folder / "other.py").write_text(OTHER)
    (tmp_path / "veko.toml").write_text('storage = "none"\n')
    async with serving(tmp_path) as (process, port):
        load = Load(port)
        paths = ["/shop/a", "/shop/x/b", "/other"]
        async with asyncio.TaskGroup() as group:
            group.create_task(load.ask("/stream"))
            group.create_task(load.talk())
            for number in range(CONNECTIONS):
                group.create_task(load.ask(paths[number % 3]))
            for number in range(1, RELOADS + 1):
                broken = number % 2 == 0
                more = BROKEN[number // 2 % len(BROKEN)] if broken else ""
                path.write_text(SHOP.format(number=number, more=more))
                said = await line(process, r"(reloaded|failed) shop")
                assert said[1] == ("failed" if broken else "reloaded"), number
            load.done = True
    assert load.wrong == []
    assert set(load.seen) == {*paths, "/stream", "socket"}
    assert min(load.seen.values()) > 1
    assert process.returncode == 0
