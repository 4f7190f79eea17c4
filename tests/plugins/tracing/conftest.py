"""Receivers that are not ours: `oteltap` for OTLP over HTTP, the official service on grpcio."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Tap:
    """A collector, and what came to it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[Span] = []
        self._more = asyncio.Event()

    def add(self, span: Span) -> None:
        self.spans.append(span)
        self._more.set()

    async def until(self, enough: Callable[[list[Span]], bool], seconds: float = 10.0) -> None:
        """Wait until enough spans have come."""
        async with asyncio.timeout(seconds):
            while not enough(self.spans):
                self._more.clear()
                await self._more.wait()

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def tree(self) -> dict[str, Any]:
        """The names of all spans, each under its parent's."""
        return tree(self.spans)


def tree(spans: list[Span]) -> dict[str, Any]:
    below: dict[bytes, list[Span]] = {}
    ids = {span.span_id for span in spans}
    assert len(ids) == len(spans), "ids are unique"
    for span in spans:
        parent = span.parent_span_id if span.parent_span_id in ids else b""
        below.setdefault(parent, []).append(span)

    def made(parent: bytes) -> dict[str, Any]:
        inside = sorted(below.get(parent, ()), key=lambda span: span.start_time_unix_nano)
        found: dict[str, Any] = {}
        for span in inside:
            name, number = span.name, 1
            while name in found:
                number += 1
                name = f"{span.name} #{number}"
            found[name] = made(span.span_id)
        return found

    return made(b"")


def attributes(span: Span) -> dict[str, Any]:
    """The attributes of a span as Python values."""
    return {pair.key: value_of(pair.value) for pair in span.attributes}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind)


@pytest.fixture
async def tap() -> AsyncIterator[Tap]:
    port = free_port()
    found = Tap(port)
    async with OtelTapHttpProtobufReceiver(
        OtelTapHttpProtobufReceiverSettings(http_port=port)
    ) as receiver:

        async def listen() -> None:
            async for span in receiver.stream_traces():
                found.add(span)

        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        yield found
        task.cancel()
        await asyncio.wait([task])
