"""What a worker prints is logged line by line, at a bounded rate."""

import asyncio
import os
import time
from collections.abc import Iterator

import pytest

from veko_plugins.remote.output import Output


class Printed:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.dropped = 0
        self.end, self.write = os.pipe()

    def open(self, most: int = 200) -> Output:
        return Output(self.end, self.lines.append, self._dropped, most=most)

    def _dropped(self, count: int) -> None:
        self.dropped += count


@pytest.fixture
def printed() -> Iterator[Printed]:
    printed = Printed()
    yield printed
    os.close(printed.write)


async def test_lines_are_logged_as_they_come_and_the_rest_at_the_end(printed: Printed) -> None:
    output = printed.open()
    os.write(printed.write, b"one\ntw")
    await asyncio.sleep(0.01)
    assert printed.lines == ["one"]
    os.write(printed.write, "o\r\n\n\xe9".encode("latin-1"))
    await asyncio.sleep(0.01)
    assert printed.lines == ["one", "two"]
    output.drain()
    assert printed.lines == ["one", "two", "�"]
    assert list(output.last) == printed.lines
    output.close()


async def test_a_line_without_end_is_cut(printed: Printed) -> None:
    output = printed.open()
    for _ in range(20):
        os.write(printed.write, b"x" * 2**15)
        await asyncio.sleep(0.001)
    os.write(printed.write, b"end of it\nnext\n")
    await asyncio.sleep(0.01)
    output.drain()
    assert printed.lines == ["x" * 2_000, "next"]


async def test_a_flood_costs_little_and_is_counted(printed: Printed) -> None:
    output = printed.open(most=50)
    line = b"a line of what a worker prints, as long as they are\n"
    chunk = line * (2**16 // len(line))
    count = 100 * 2**20 // len(chunk)

    def flood() -> None:
        for _ in range(count):
            os.write(printed.write, chunk)

    longest = 0.0
    writer = asyncio.create_task(asyncio.to_thread(flood))
    start = last = time.perf_counter()
    while not writer.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    took = last - start
    output.drain()
    lines = count * (len(chunk) // len(line))
    assert len(printed.lines) + printed.dropped == lines
    assert len(printed.lines) <= 50 * (took + 2)
    assert longest < 0.1
