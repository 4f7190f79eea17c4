"""Jaeger's query API: read by `jaeger-mcp`, a client that is not ours, and by hand."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager

from .test_tracing_receivers import served

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[tuple[PluginManager, str]]:
    """A server that has answered three requests."""
    settings = {"tracing": {"jaeger": "/jaeger", "service": "shop", "keep": 50}}
    async with served(tmp_path, plugins=settings) as (manager, url):
        async with httpx.AsyncClient(base_url=url) as client:
            for path in ("/orders/1", "/orders/2", "/broken"):
                await client.get(path)
        await manager.use("tracing").flush()
        yield manager, f"{url}/jaeger"


@pytest.fixture
def python() -> str:
    """The Python that has `jaeger-mcp`: what that needs does not go with what Veko needs."""
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    found = Path(sys.prefix) / "clients" / inside
    if not found.exists():
        missing = f"there is no jaeger-mcp at {found.parents[1]}: `make test` installs it"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return str(found)


@asynccontextmanager
async def running(*command: str, **env: str) -> AsyncIterator[Process]:
    """A process that is gone afterwards, whatever came; a minute is the most that it gets."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={**env, "PATH": ""}, limit=2**24
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


READ = """
import json, sys
from jaeger_mcp import JaegerClient
from jaeger_mcp.client import JaegerHTTPClient

client = JaegerClient(JaegerHTTPClient(url=sys.argv[1], retry_attempts=0))
found = client.search_traces("shop", operation="GET /orders/{id:int}")
failed = client.search_traces("shop", tags={"http.response.status_code": "500"})
trace = client.get_trace(found[0].trace_id)
print(json.dumps({
    "services": client.list_services(),
    "found": [[one.root_operation, one.root_service] for one in found],
    "errors": [one.errors_count for one in failed],
    "spans": {
        span.operation: [span.span_id, span.parent_span_id, span.duration_us, span.tags]
        for span in trace.spans
    },
    "edges": [[one.parent, one.child, one.call_count] for one in client.get_dependencies()],
    "critical": client.critical_path(trace.trace_id)["trace_id"] == trace.trace_id,
}))
"""


async def test_a_client_that_is_not_ours(api: tuple[PluginManager, str], python: str) -> None:
    _, url = api
    async with running(python, "-c", READ, url) as process:
        out, _ = await process.communicate()
    assert process.returncode == 0
    read = json.loads(out)
    assert read["services"] == ["shop"]
    assert read["found"] == [["GET /orders/{id:int}", "shop"]] * 2
    (errors,) = read["errors"]
    assert errors >= 1
    spans = read["spans"]
    id_of = {name: span[0] for name, span in spans.items()}
    parent_of = {name: span[1] for name, span in spans.items()}
    assert parent_of["GET /orders/{id:int}"] is None
    assert parent_of["orders.check"] == id_of["request:start"]
    assert parent_of["audit.stamp"] == id_of["response:start"]
    assert parent_of["write the log"] == id_of["audit.stamp"]
    assert spans["orders.check"][2] >= 2000
    assert spans["orders.check"][3]["veko.plugin"] == "orders"
    assert ["orders", "audit", 2] in [[*pair, min(2, count)] for *pair, count in read["edges"]]
    assert read["critical"]


async def test_its_tools_over_standard_input(api: tuple[PluginManager, str], python: str) -> None:
    _, url = api
    async with running(python, "-m", "jaeger_mcp.server", JAEGER_URL=url) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        async def ask(number: int, method: str, params: dict[str, Any]) -> Any:
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            process.stdin.write(json.dumps(message).encode() + b"\n")
            while True:
                answer = json.loads(await process.stdout.readline())
                if answer.get("id") == number:
                    return answer["result"]

        client = {"name": "test", "version": "1"}
        started = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client}
        await ask(1, "initialize", started)
        process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        found = await ask(2, "tools/call", {"name": "jaeger_list_services", "arguments": {}})
        assert found["structuredContent"]["services"] == ["shop"]
        given = {"service": "shop", "limit": 2}
        found = await ask(3, "tools/call", {"name": "jaeger_search_traces", "arguments": given})
        assert not found.get("isError"), found
        assert len(found["structuredContent"]["traces"]) == 2
        process.stdin.close()
        await process.wait()


async def test_the_filters(api: tuple[PluginManager, str]) -> None:
    _, url = api
    async with httpx.AsyncClient(base_url=url) as client:

        async def traces(**params: Any) -> list[Any]:
            answer = await client.get("/api/traces", params={"service": "shop", **params})
            assert answer.status_code == 200, answer.text
            found: list[Any] = answer.json()["data"]
            return found

        everything = await traces()
        assert len(await traces(limit=1)) == 1
        assert len(await traces(operation="GET /broken")) == 1
        assert len(await traces(operation="orders.check")) == 3
        assert await traces(operation="nothing") == []
        assert len(await traces(tag="veko.plugin:audit", operation="audit.stamp")) == 3
        assert len(await traces(tags='{"http.route": "/broken"}')) == 1
        assert len(await traces(tags='{"error": "true"}')) == 1
        assert len(await traces(operation="GET /orders/{id:int}", minDuration="2ms")) == 2
        assert await traces(minDuration="1h") == []
        assert len(await traces(maxDuration="1h")) == len(everything)
        first = min(span["startTime"] for trace in everything for span in trace["spans"])
        assert await traces(end=first - 1) == []
        assert len(await traces(start=first)) == len(everything)
        assert await traces(service="another") == []
        names = (await client.get("/api/services/shop/operations")).json()["data"]
        assert {"GET /orders/{id:int}", "orders.check", "load orders"} <= set(names)
        kinds = (await client.get("/api/operations?service=shop&spanKind=server")).json()["data"]
        assert {"name": "GET /broken", "spanKind": "server"} in kinds
        assert all(one["spanKind"] == "server" for one in kinds)
        one = everything[0]["traceID"]
        assert (await client.get(f"/api/traces/{one}")).json()["data"][0]["traceID"] == one


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/traces", 400),
        ("/api/traces?service=shop&minDuration=soon", 400),
        ("/api/traces?service=shop&maxDuration=" + "9" * 400 + "h", 400),
        ("/api/traces?service=shop&limit=many", 400),
        ("/api/traces?service=shop&tag=error", 400),
        ("/api/traces?service=shop&tags=%7B", 400),
        ("/api/traces/0123456789abcdef", 404),
        ("/api/traces/xyz", 400),
        ("/api/traces/" + "0" * 40, 400),
        ("/api/operations", 400),
        ("/api/dependencies?endTs=now", 400),
    ],
)
async def test_bad_queries(api: tuple[PluginManager, str], path: str, status: int) -> None:
    _, url = api
    async with httpx.AsyncClient() as client:
        assert (await client.get(url + path)).status_code == status


async def test_asking_leaves_no_trace(api: tuple[PluginManager, str]) -> None:
    manager, url = api
    before = len(await manager.use("tracing").traces())
    async with httpx.AsyncClient() as client:
        await client.get(f"{url}/api/services")
    assert len(await manager.use("tracing").traces()) == before


async def test_only_the_last_traces_are_kept(tmp_path: Path) -> None:
    async with served(tmp_path, plugins={"tracing": {"keep": 3}}) as (manager, url):
        async with httpx.AsyncClient(base_url=url) as client:
            for number in range(8):
                await client.get(f"/orders/{number}")
        found = await manager.use("tracing").traces()
        assert len(found) == 3
        file = json.loads(await manager.use("tracing").jaeger_file())
        assert [trace["traceID"] for trace in file["data"]] == [t["traceID"] for t in found]
