"""Which requests are recorded: what the client decided counts, otherwise the ratio."""

import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def load(context: Any) -> None:
    async def answer() -> str:
        return "here"

    context.hook("request:start", lambda request: None)
    context.add_route("GET", "/here", answer)


async def recorded(tmp_path: Path, sample: float, requests: int, **headers: str) -> list[str]:
    """The ids of the traces that are kept of some requests."""
    manager = PluginManager(
        root=tmp_path,
        auto_load=False,
        storage="memory:",
        adapter="asgi",
        watchdog=0,
        plugins={"tracing": {"keep": 200, "events": {"http": sample}}},
    )
    async with manager:
        await manager.load_plugin({"name": "guest", "version": "1.0.0", "load": load})
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(requests):
                (await client.get("/here", headers=headers)).raise_for_status()
        traces = await manager.use("tracing").traces()
    return [
        trace["traceID"]
        for trace in traces
        if any(span["operationName"] == "GET /here" for span in trace["spans"])
    ]


async def test_the_ratio_decides_where_a_trace_begins(tmp_path: Path) -> None:
    assert len(await recorded(tmp_path, 0.0, 20)) == 0
    assert len(await recorded(tmp_path, 1.0, 20)) == 20
    random.seed(7)
    assert 30 < len(await recorded(tmp_path, 0.5, 100)) < 70


@pytest.mark.parametrize("sample", [0.0, 0.5, 1.0])
async def test_what_the_client_has_decided_counts(tmp_path: Path, sample: float) -> None:
    wanted = f"00-{TRACE}-{PARENT}-01"
    assert await recorded(tmp_path, sample, 1, traceparent=wanted) == [TRACE]
    unwanted = f"00-{TRACE}-{PARENT}-00"
    assert await recorded(tmp_path, sample, 1, traceparent=unwanted) == []
