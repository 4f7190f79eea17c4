"""Every failure of a plugin's code is one record of one line in the log, which says where it was.

Real files, a real server, real clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager

HEAD = 'name = "shop"\nversion = "1.0.0"\n'


@asynccontextmanager
async def running(
    folder: Path, body: str, caplog: pytest.LogCaptureFixture, **options: Any
) -> AsyncIterator[PluginManager]:
    plugins = folder / "plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "shop.py").write_text(HEAD + body)
    caplog.set_level(logging.INFO, logger="veko")
    async with PluginManager(root=folder, adapter="asgi", storage="none", **options) as manager:
        yield manager


async def get(manager: PluginManager, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=manager.asgi)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://veko") as client:
        return await client.get(path)


def records(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def line_of(folder: Path, text: str) -> str:
    file = folder / "plugins" / "shop.py"
    number = next(i for i, one in enumerate(file.read_text().splitlines(), 1) if text in one)
    return f"{file}:{number}"


ROUTE = """
def load(app, config, context):
    context.add_route("GET", "/items/{id:int}", item)

def item(id: int, token: str = ""):
    return find(id)

def find(id):
    return {}[id]  # here
"""


async def test_a_handler_that_raises_is_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, ROUTE, caplog) as manager:
        caplog.clear()
        assert (await get(manager, "/items/2?token=hush")).status_code == 500
        where = line_of(tmp_path, "# here")
        assert records(caplog) == [
            f"shop failed: KeyError: 2 (handler item, request GET /items/2, file {where})"
        ]


MIDDLEWARE = """
async def around(request, call_next):
    raise ValueError("no")  # here

def load(app, config, context):
    context.add_middleware(around)
    context.add_route("GET", "/", lambda: "x")
"""


async def test_a_middleware_that_raises_is_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, MIDDLEWARE, caplog) as manager:
        caplog.clear()
        assert (await get(manager, "/")).status_code == 500
        where = line_of(tmp_path, "# here")
        assert records(caplog) == [
            f"shop failed: ValueError: no (handler around, request GET /, file {where})"
        ]


HOOK = """
def look(response, request):
    raise ValueError("no")  # here

def load(app, config, context):
    context.hook("response:start", look)
    context.add_route("GET", "/", lambda: "x")
"""


@pytest.mark.parametrize("times", [1, 1_100], ids=["cold", "compiled"])
async def test_a_hook_that_raises_is_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    options = {"error_threshold": 10_000}
    async with running(tmp_path, HOOK, caplog, **options) as manager:
        for _ in range(times):
            caplog.clear()
            assert (await get(manager, "/")).status_code == 200
        where = line_of(tmp_path, "# here")
        facts = f"handler shop.look, event response:start, request GET /, file {where}"
        assert records(caplog) == [f"shop failed: ValueError: no ({facts})"]


TASKS = """
import asyncio

async def task():
    raise RuntimeError("one\\ntwo")  # here

async def group():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(task())

def boom():
    raise RuntimeError("boom")  # there

def load(app, config, context):
    context.add_command("boom", boom)
    context.hook("plugin:shop:go", lambda what: context.spawn({"task": task, "group": group}[what]))
"""


@pytest.mark.parametrize("what", ["task", "group"])
async def test_a_task_that_raises_is_one_record_of_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async with running(tmp_path, TASKS, caplog) as manager:
        caplog.clear()
        failed = asyncio.Event()
        manager.on("plugin:error", lambda name, error: failed.set())
        await manager.bus.emit("plugin:shop:go", what)
        await asyncio.wait_for(failed.wait(), 10)
        where = line_of(tmp_path, "# here")
        assert records(caplog) == [
            rf"shop failed: RuntimeError: one\ntwo (handler {what}, file {where})"
        ]


async def test_a_command_that_raises_is_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, TASKS, caplog) as manager:
        caplog.clear()
        with pytest.raises(RuntimeError):
            await manager.run_command("boom")
        where = line_of(tmp_path, "# there")
        assert records(caplog) == [
            f"shop failed: RuntimeError: boom (handler command boom, file {where})"
        ]


LOAD = """
def load(app, config, context):
    raise KeyError("db")  # here
"""


async def test_a_load_that_raises_says_the_line_once_and_tries_are_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, LOAD, caplog, max_retries=1):
        where = line_of(tmp_path, "# here")
        facts = f"(handler shop.load, file {where})"
        first, last = (one for one in caplog.records if "shop failed" in one.getMessage())
        assert (first.levelname, first.exc_info) == ("WARNING", None)
        assert first.getMessage().endswith("It is tried again.")
        assert last.levelname == "ERROR"
        expected = f"shop failed: LoadError: load() raised KeyError: 'db' {facts}"
        assert last.getMessage().startswith(expected)


async def test_a_reload_that_fails_is_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, ROUTE, caplog) as manager:
        caplog.clear()
        file = tmp_path / "plugins" / "shop.py"
        file.write_text(HEAD + LOAD)
        with pytest.raises(Exception, match="KeyError"):
            await manager.reload_plugin("shop")
        assert len(records(caplog)) == 1


LONG = """
def load(app, config, context):
    context.add_route("GET", "/{rest:path}", item)

def item(rest: str):
    raise ValueError("x" * 100_000)
"""


async def test_no_record_is_long_and_none_has_a_line_of_the_clients_making(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, LONG, caplog) as manager:
        caplog.clear()
        await get(manager, "/" + "y" * 5_000 + "%0A%1B[31mroot logged in")
        (text,) = records(caplog)
        assert len(text) < 1_500
        assert text.isprintable()


SOCKET = """
async def talk(socket):
    await socket.accept()
    raise ValueError("no")  # here

def load(app, config, context):
    context.add_websocket("/talk", talk)
"""


async def test_a_websocket_handler_that_raises_is_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, SOCKET, caplog) as manager:
        caplog.clear()
        messages = iter([{"type": "websocket.connect"}])
        sent: list[Any] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/talk", "headers": [], "query_string": b""}
        scope |= {"asgi": {"version": "3.0"}, "subprotocols": [], "scheme": "ws"}
        await manager.asgi(scope, receive, send)
        where = line_of(tmp_path, "# here")
        assert records(caplog) == [
            f"shop failed: ValueError: no (handler talk, request WebSocket /talk, file {where})"
        ]


GUARD = """
def check(request):
    return {}["key"]  # here

def load(app, config, context):
    context.hook("request:start", check)
    context.add_route("GET", "/", lambda: "x")
"""


async def test_a_guard_that_raises_is_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, GUARD, caplog) as manager:
        caplog.clear()
        await get(manager, "/")
        where = line_of(tmp_path, "# here")
        facts = f"handler shop.check, event request:start, request GET /, file {where}"
        assert records(caplog) == [f"shop failed: KeyError: 'key' ({facts})"]
