"""`veko serve --workers 2` with a cache on one Redis: one computes, deletions reach all."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

PLUGIN = """
import asyncio
import os

from veko_plugins import Context

name = "site"
version = "1.0.0"


def load(context: Context) -> None:
    cache = context.cache

    async def page(name: str) -> dict[str, int]:
        with open("calls", "a") as file:
            file.write(f"{name}\\n")
        await asyncio.sleep(1)
        return {"worker": os.getpid()}

    async def clear() -> dict[str, int]:
        await cache.clear(path="/pages")
        return {"worker": os.getpid()}

    context.add_route("GET", "/pages/{name}", cache.cached(60), page)
    context.add_route("POST", "/clear", clear)
    context.add_route("GET", "/who", lambda: {"worker": os.getpid()})
"""


@pytest.fixture
def served(tmp_path: Path, start_server: Any, start: Callable[..., Any]) -> Iterator[Any]:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plugins.joinpath("site.py").write_text(PLUGIN)
    with start_server("redis") as server:
        tmp_path.joinpath("veko.toml").write_text(
            f'cache = "{server.url}"\nstorage = "{server.url}"\n'
        )
        veko = start("serve", tmp_path, "--port", "0", "--workers", "2")
        yield veko
        veko.process.terminate()
        assert veko.ends() == 0, veko.text


def ask(url: str, method: str = "GET") -> Any:
    """Make a request on a connection of its own, so that any worker may get it."""
    answer = httpx.request(method, url, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_workers_make_a_page_once_and_delete_it_together(tmp_path: Path, served: Any) -> None:
    url = served.wait_for(r"Listening on (\S+), 2 workers")[1]
    calls = tmp_path / "calls"
    end = time.monotonic() + 60
    workers: set[int] = set()
    while len(workers) < 2 and time.monotonic() < end:
        workers.add(ask(f"{url}/who")["worker"])
    assert len(workers) == 2
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(ask, [f"{url}/pages/a"] * 40))
    assert len({answer["worker"] for answer in answers}) == 1
    assert calls.read_text() == "a\n"
    cleared: set[int] = set()
    number = 1
    while cleared != workers and time.monotonic() < end:  # each of them deletes for both
        cleared.add(ask(f"{url}/clear", "POST")["worker"])
        number += 1
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(ask, [f"{url}/pages/a"] * 10))
        assert calls.read_text() == "a\n" * number
    assert cleared == workers
