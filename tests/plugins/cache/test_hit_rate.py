"""Hits and misses in the metrics, and in what is exported."""

from typing import Any

import httpx
import pytest

from .conftest import Start

pytestmark = pytest.mark.anyio


async def test_hits_and_misses_are_in_the_metrics(start: Start) -> None:
    app = await start(prometheus="/metrics")

    def load(context: Any) -> None:
        context.add_route("GET", "/page", context.cache.cached(60), lambda: "page")

    cache = (await app.plugin("guest", load)).cache
    await app.plugin("idle")
    assert app.manager.metrics.get("idle").cache.rate is None
    await cache.get("k")
    await cache.set("k", 1)
    await cache.get("k")
    await cache.get_or_set("k", lambda: 2)
    await cache.get_or_set("other", lambda: 2)
    transport = httpx.ASGITransport(app.manager.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for _ in range(3):
            assert (await client.get("/page")).text == "page"
        text = (await client.get("/metrics")).text
    found = app.manager.metrics.get("guest").cache
    assert (found.hits, found.misses, found.rate) == (4, 3, 4 / 7)
    lines = [line for line in text.splitlines() if line.startswith("veko_cache_lookups")]
    assert any('result="hit"' in line and "guest" in line and " 4" in line for line in lines)
    assert any('result="miss"' in line and " 3" in line for line in lines)
    assert not any("idle" in line for line in lines)


async def test_without_a_cache_or_with_anothers_there_is_no_rate(start: Start) -> None:
    app = await start(None, core={})  # type: ignore[arg-type]
    await app.plugin("own", lambda context: context.provide("cache", object()))
    assert app.manager.metrics.get("own").cache is None
