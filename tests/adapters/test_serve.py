"""Servers in one's own task: bounds on headers, what is not there, a socket that is given."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from veko import OptionError
from veko_adapters import _serve, _uvicorn
from veko_plugins import PluginManager


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(0.6)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


async def talk(port: int, *pieces: bytes) -> bytes:
    """Send, wait a moment after each piece, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_headers_that_do_not_end_hold_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_uvicorn, "HEADERS_TIMEOUT", 0.3)
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        _serve.serve(app, "127.0.0.1", 0, started=lambda _, p: port.set_result(p), stop=stop)
    )
    at = await port
    nothing, some, slow = await asyncio.gather(
        talk(at),
        talk(at, b"GET / HTTP/1.1\r\nhost: x\r\n"),
        # The request that is late stands behind one that is being answered, which is not harmed.
        talk(at, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP"),
    )
    assert (nothing, some) == (b"", b"")
    assert slow.startswith(b"HTTP/1.1 200 ")
    assert slow.endswith(b"ok")
    stop.set()
    await serving


async def test_an_unknown_server_is_refused(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, storage="none", adapter="asgi") as manager:
        with pytest.raises(OptionError, match="Use one of uvicorn, granian"):
            await manager.use("http").serve(port=0, server="gunicorn")


async def test_a_server_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "veko_adapters._granian", raising=False)
    monkeypatch.setitem(sys.modules, "granian", None)
    monkeypatch.setitem(sys.modules, "granian._granian", None)
    async with PluginManager(root=tmp_path, storage="none", adapter="asgi") as manager:
        with pytest.raises(OptionError, match=r"pip install 'veko\[granian\]'"):
            await manager.use("http").serve(port=0, server="granian")


async def test_a_socket_that_listens_already_is_served(tmp_path: Path) -> None:
    listener = _serve.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with PluginManager(root=tmp_path, storage="none", adapter="asgi") as manager:
        serving = asyncio.create_task(
            manager.use("http").serve(
                listener=listener, stop=stop, started=lambda *at: started.set_result(at)
            )
        )
        assert await started == ("127.0.0.1", port)
        answer = await talk(port, b"GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 404 ")
        stop.set()
        await serving
    assert listener.fileno() == -1
