"""The live feed: what it sends, what it costs, and clients that do not read."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.plugins.admin.conftest import TOKEN, Control, Home, http_client, until

from veko_plugins import PluginManager
from veko_plugins.admin import AdminClient, AdminError, Configure, Operations, StreamEvent
from veko_plugins.admin.feed import MOST
from veko_plugins.admin.wire import events_of

pytestmark = pytest.mark.anyio


async def first(stream: AsyncIterator[StreamEvent], topic: str, **fields: Any) -> StreamEvent:
    """The first message of a topic whose data has these fields."""
    async with asyncio.timeout(20):
        async for event in stream:
            data = event.data if isinstance(event.data, dict) else {}
            if event.topic == topic and fields.items() <= data.items():
                return event
    raise AssertionError(f"the stream ended without {topic} {fields}")


async def watched(operations: Operations, *topics: str, **given: Any) -> AsyncIterator[StreamEvent]:
    """What is sent, after everything has begun."""
    raw = await operations.feed.stream(",".join(topics), **given)
    assert await anext(raw) == b"retry: 2000\n\n"
    return events_of(raw)


async def closed(operations: Operations, *streams: Any) -> None:
    for stream in streams:
        await stream.aclose()
    await operations.feed.close()


async def test_what_happens_is_sent_by_topic(
    manager: PluginManager, operations: Operations
) -> None:
    stream = await watched(operations, "plugins", "changes", "logs", "stats", "events")
    await operations.toggle("cart", False)
    assert (await first(stream, "changes", target="cart")).data["verb"] == "toggle"
    moved = await first(stream, "plugins", name="cart")
    assert moved.data["plugin"]["state"] == "inactive"
    await manager.bus.emit("order:lost", 1)
    record = await first(stream, "logs", plugin="shop", level="error")
    assert "order 1 is lost" in record.data["message"]
    await manager.bus.emit("nobody:hears", 1)
    async with asyncio.timeout(20):
        async for event in stream:
            if event.topic == "events" and "nobody:hears" in event.data["counts"]:
                break
    stats = await first(stream, "stats")
    assert {row["name"] for row in stats.data["plugins"]} == {"shop", "cart"}
    await closed(operations, stream)


async def test_nothing_is_subscribed_while_nobody_looks(
    manager: PluginManager, operations: Operations
) -> None:
    def subscribed() -> tuple[int, int]:
        registry = manager.bus.registry
        hooks = [e for e in registry.entries("hook") if e.owner is None]
        return len(hooks), len(list(registry.entries("pattern")))

    before = subscribed()
    stream = await watched(operations)
    assert subscribed() != before
    other = await watched(operations, "events")
    await stream.aclose()
    await other.aclose()
    await operations.feed.close()
    assert subscribed() == before
    assert operations.logs.heard is None
    assert operations.history.heard is None


async def test_ten_thousand_events_a_second_cost_a_few_messages(
    manager: PluginManager, operations: Operations
) -> None:
    stream = await watched(operations, "events")
    emit = manager.bus.emitter("many:events")
    for _ in range(10_000):
        await emit(1)
    seen, messages = 0, 0
    async with asyncio.timeout(20):
        async for event in stream:
            messages += 1
            seen += event.data["counts"].get("many:events", 0)
            assert len(event.data["latest"]) <= 50
            if seen == 10_000:
                break
    assert messages < 200
    await closed(operations, stream)


async def test_a_client_that_stops_reading_is_told_how_much_it_missed(
    operations: Operations,
) -> None:
    stream = await watched(operations, "logs")
    quick = await watched(operations, "logs")
    for number in range(MOST + 500):
        operations.feed._send("logs", {"number": number}, level=0)
    missed = await anext(stream)
    assert (missed.topic, missed.data) == ("dropped", {"count": 500})
    assert (await anext(stream)).data == {"number": 500}
    assert (await anext(quick)).topic == "dropped"
    await closed(operations, stream, quick)


async def test_what_came_after_an_id_is_sent_again_or_reset(operations: Operations) -> None:
    keeps = await watched(operations, "logs")
    for number in range(5):
        operations.feed._send("logs", number, level=0)
    events = [await anext(keeps) for _ in range(5)]
    again = await watched(operations, "logs", after=events[2].id)
    assert [(await anext(again)).data for _ in range(2)] == [3, 4]
    for unknown in ("other-3", "x", f"{events[0].id}99", "-1", "\u0000"):
        reset = await watched(operations, "logs", after=unknown)
        assert (await anext(reset)).topic == "reset"
        await reset.aclose()  # type: ignore[attr-defined]
    for number in range(600):
        operations.feed._send("logs", number, level=0)
    too_old = await watched(operations, "logs", after=events[0].id)
    assert (await anext(too_old)).topic == "reset"
    await closed(operations, keeps, again, too_old)


async def test_records_are_filtered_by_level_and_plugin(operations: Operations) -> None:
    stream = await watched(operations, "logs", plugin="shop", level="warning")
    send = operations.feed._send
    send("logs", "too low", plugin="shop", level=1)
    send("logs", "another's", plugin="cart", level=4)
    send("logs", "this one", plugin="shop", level=3)
    assert (await anext(stream)).data == "this one"
    await closed(operations, stream)


async def test_too_many_clients_and_unknown_topics_are_refused(operations: Operations) -> None:
    with pytest.raises(AdminError) as caught:
        await operations.feed.stream("plugin")
    assert caught.value.status == 422
    streams = [await watched(operations, "changes") for _ in range(32)]
    with pytest.raises(AdminError) as caught:
        await operations.feed.stream()
    assert caught.value.status == 503
    await closed(operations, *streams)


async def test_the_stream_over_the_socket_ends_with_the_client(
    manager: PluginManager, operations: Operations, control: Control
) -> None:
    async with control(manager) as client:
        stream = client.stream("changes")
        reading = asyncio.ensure_future(anext(stream))
        await until(lambda: operations.feed._clients)
        change = await client.toggle("cart", False)
        event = await reading
        assert event.data["id"] == change.id
        await stream.aclose()  # type: ignore[attr-defined]
        await until(lambda: not operations.feed._clients)


async def test_the_stream_over_http_ends_when_the_server_stops(home: Home) -> None:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with home.manager() as manager:
        serving = asyncio.ensure_future(
            manager.use("http").serve(
                port=0,
                started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
                stop=stop,
            )
        )
        url = await listening
        client = AdminClient(url, token=TOKEN, timeout=20)
        stream = client.stream("changes", "stats")
        assert (await anext(stream)).topic == "stats"
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/_veko/api/stream")).status_code == 401
        began = time.monotonic()
        stop.set()
        async with asyncio.timeout(20):
            async for _ in stream:
                pass
            await serving
        assert time.monotonic() - began < 15


async def test_a_configuration_is_told_without_its_secrets(
    operations: Operations, manager: PluginManager
) -> None:
    raw = await operations.feed.stream("changes,plugins,logs")
    await anext(raw)
    await operations.apply(Configure("shop", value={"api_key": "brand-new-key", "size": 12}))
    await manager.bus.emit("order:lost", 1)
    text = b""
    async with asyncio.timeout(20):
        async for piece in raw:
            text += piece
            if b"event: plugins" in text and b"event: changes" in text and b"event: logs" in text:
                break
    assert b"brand-new-key" not in text
    await raw.aclose()  # type: ignore[attr-defined]
    await operations.feed.close()


async def test_the_feed_is_served_with_its_media_type(home: Home) -> None:
    async with home.manager() as manager, http_client(manager) as http:
        assert (await http.get("stream?topics=nothing")).status_code == 422
        assert (await http.get("stream?level=loud")).status_code == 422
