"""`veko trace`: the traces of an application that is being served."""

import asyncio
import json
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


async def test_traces_as_trees_and_as_a_file(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.hook("request:start", lambda request: None)
        context.add_route("GET", "/hello", lambda: "hello")

    settings = {"tracing": {"keep": 10, "jaeger": "/jaeger", "events": {"step": 0}}}
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
            await client.get(f"{url}/hello")
        await manager.use("tracing").flush()
        code, shown, _ = await veko("trace", f"{url}/jaeger")
        assert code == 0
        assert "ms  GET /hello" in shown
        assert "ms    request:start" in shown
        assert "ms      greet.<lambda>" in shown
        file = tmp_path / "traces.json"
        code, shown, _ = await veko("trace", f"{url}/jaeger", "--jaeger", str(file))
        assert (code, "1 traces in" in shown) == (0, True)
        code, _, told = await veko("trace", f"{url}/jaeger", "--jaeger", str(file / "below"))
        assert (code, "cannot be written" in told, "Traceback" in told) == (1, True, False)
        (found,) = json.loads(file.read_text())["data"]
        assert {span["operationName"] for span in found["spans"]} >= {"GET /hello"}
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
