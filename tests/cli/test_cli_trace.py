"""`veko trace`: the traces of an application that is being served."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio


async def veko(*words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "veko_plugins.cli", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def on_a_terminal(*words: str) -> str:
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "veko_plugins.cli", *words, stdout=theirs
    )
    os.close(theirs)
    assert await process.wait() == 0
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    return shown


async def test_traces_as_trees_and_as_a_file(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.hook("request:start", lambda request: None)
        context.add_route("GET", "/hello", lambda: "hello")
        context.add_route("GET", "/fail", lambda: {}["key"])

    settings = {"tracing": {"keep": 10, "jaeger": "/jaeger"}}
    options: dict[str, Any] = {"adapter": "asgi", "storage": "none", "plugins": settings}
    async with PluginManager(root=tmp_path, auto_load=False, **options) as manager:
        await manager.load_plugin({"name": "greet", "version": "1.0.0", "load": load})
        stop = asyncio.Event()
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            manager.use("http").serve(
                port=0, stop=stop, started=lambda host, port: ready.set_result(f"{host}:{port}")
            )
        )
        url = f"http://{await ready}"
        async with httpx.AsyncClient() as client:
            await client.get(f"{url}/fail")
            await client.get(f"{url}/hello")
        await manager.use("tracing").flush()
        code, shown, _ = await veko("trace", f"{url}/jaeger")
        assert code == 0
        assert "ms  GET /hello  200\n" in shown
        assert "ms  GET /fail  500  failed: KeyError: 'key'\n" in shown
        assert "load greet" in shown
        assert "relay" not in shown, "observers are served by a core plugin"
        assert "load openapi" not in shown, "core plugins are the same at each start"
        assert "ms    request:start" in shown
        assert "ms      greet.<lambda>" in shown
        file = tmp_path / "traces.json"
        assert "\x1b[31m" in await on_a_terminal("trace", f"{url}/jaeger")
        code, shown, _ = await veko("trace", f"{url}/jaeger", "--jaeger", str(file))
        assert (code, "3 traces in" in shown) == (0, True)
        code, _, told = await veko("trace", f"{url}/jaeger", "--jaeger", str(file / "below"))
        assert (code, "cannot be written" in told, "Traceback" in told) == (1, True, False)
        found = json.loads(file.read_text())["data"]
        names = {span["operationName"] for one in found for span in one["spans"]}
        assert names >= {"GET /hello", "GET /fail", "load greet"}
        stop.set()
        await serving


@pytest.mark.parametrize("url", ["localhost:8000", "http://localhost:port", "http://127.0.0.1/a b"])
async def test_an_address_that_is_none(url: str) -> None:
    code, _, told = await veko("trace", url)
    assert code == 1
    assert f"no traces at {url}" in told
    assert "Traceback" not in told


async def test_nobody_serves_them() -> None:
    code, _, told = await veko("trace", "http://127.0.0.1:9/jaeger")
    assert code == 1
    assert "no traces at http://127.0.0.1:9/jaeger" in told
    assert "Traceback" not in told
