"""Nobody gets past a guard: 1,000 requests at once while it fails, reloads, toggles and leaves."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from veko import VekoError
from veko_plugins import PluginManager

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unlogged")]

SHOP = """
name, version, priority = "shop", "1", 100

async def secret():
    return "secret"

def load(context):
    context.add_route("GET", "/secret", secret)
"""
HOOK = """
import asyncio, hmac
from veko_plugins.http import HTTPError
name, version, required = "guard", "1", True

async def check(request):
    await asyncio.sleep(0)
    token = request.headers.get("authorization", "")
    if token == "hang":
        await asyncio.sleep(60)
    if token == "swallow":
        try:
            await asyncio.sleep(60)
        except BaseException:
            return
    if token == "exit":
        raise SystemExit(3)
    if not hmac.compare_digest(token, "Bearer right"):
        raise HTTPError(401)

def load(context):
    context.hook("request:start", check, timeout=0.05)
"""
ROUTE = """
import hmac, msgspec
from veko_plugins.http import HTTPError
name, version, required = "guard", "1", True

async def check(request, call_next):
    if not hmac.compare_digest(request.headers.get("authorization", ""), "Bearer right"):
        raise HTTPError(401)
    return await call_next(request)

def load(context):
    @context.hook("route:create")
    def protect(route):
        return msgspec.structs.replace(route, middlewares=(check, *route.middlewares))
"""
BROKEN = 'name, version, required = "guard", "2", True\ndef load(): raise ValueError("no luck")\n'
TOKENS = ("", "Bearer wrong", "Bearer \xe9", "hang", "swallow", "exit")
CONNECTIONS, REQUESTS = 1_000, 3
"""Connections at once, and requests of each."""


async def ask(port: int, number: int, statuses: list[int], go: asyncio.Event) -> None:
    """Send requests without the right token, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await go.wait()
        for turn in range(REQUESTS):
            token = TOKENS[(number + turn) % len(TOKENS)]
            head = f"GET /secret HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n\r\n"
            writer.write(head.encode("latin-1"))
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            statuses.append(200 if b"secret" in body else int(answer.split(b" ")[1]))
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def disturb(
    manager: PluginManager, write: Callable[[str], object], source: str, stop: asyncio.Event
) -> int:
    """Fail, reload, switch and unload the guard until told to stop; return how often."""
    rounds = 0
    while not stop.is_set():
        rounds += 1
        write(BROKEN)
        with contextlib.suppress(VekoError):
            await manager.reload_plugin("guard")
        write(source + f"# {rounds}\n")
        await manager.reload_plugin("guard")
        await manager.toggle_plugin("guard", False)
        await asyncio.sleep(0.001)
        await manager.toggle_plugin("guard", True)
        await manager.unload_plugin("guard")
        await asyncio.sleep(0.001)
        write(BROKEN)
        with contextlib.suppress(VekoError):
            await manager.load_plugin("guard")
        write(source)
        await manager.load_plugin("guard")
    return rounds


@pytest.mark.parametrize("source", [HOOK, ROUTE], ids=["request:start", "route:create"])
@pytest.mark.parametrize("adapter", ["asgi", "litestar", "starlette"])
async def test_nobody_gets_past_a_guard(tmp_path: Path, source: str, adapter: str) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "shop.py").write_text(SHOP)
    path = folder / "guard.py"
    path.write_text(source)
    manager = PluginManager(
        root=tmp_path, adapter=adapter, max_retries=0, drain_timeout=2.0, watchdog=0,
        storage="sqlite:///:memory:",
    )  # fmt: skip
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with manager:
        serving = asyncio.create_task(
            manager.use("http").serve(
                port=0, started=lambda host, port: listening.set_result(port), stop=stop
            )
        )
        port = await listening
        statuses: list[int] = []
        clients = [asyncio.create_task(ask(port, n, statuses, go)) for n in range(CONNECTIONS)]
        disturbing = asyncio.create_task(disturb(manager, path.write_text, source, done))
        go.set()
        async with asyncio.timeout(50):
            await asyncio.gather(*clients)
        done.set()
        rounds = await disturbing
        stop.set()
        await serving
    assert len(statuses) == CONNECTIONS * REQUESTS
    assert statuses.count(200) == 0
    assert rounds > 0
    assert set(statuses) <= {401, 500, 503}
