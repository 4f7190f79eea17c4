"""`veko serve --workers N` with a storage that the workers share."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

SECONDS = 30.0
CONTROL = """
import asyncio, logging, os
name = "control"
version = "1.0.0"

def load(context):
    storage, kernel = context.storage, context.kernel

    async def count():
        while True:
            now = storage.get("n")
            if await storage.compare_and_set("n", now, (now or 0) + 1):
                return {"pid": os.getpid(), "n": storage.get("n")}

    async def keep(value: str):
        await storage.set("kept", value)
        return {"pid": os.getpid()}

    def show():
        other = kernel.get("other")
        return {
            "pid": os.getpid(), "kept": storage.get("kept"), "n": storage.get("n"),
            "active": other.active, "colour": other.config["colour"],
            "level": logging.getLogger("veko.plugin.other").getEffectiveLevel(),
        }

    async def level(name: str):
        await context.use("logging").set_level("other", name)
        return os.getpid()

    async def toggle(active: bool):
        await kernel.toggle("other", active)
        return os.getpid()

    async def paint(colour: str):
        await kernel.update_config("other", {"colour": colour})
        return os.getpid()

    context.add_route("GET", "/show", show)
    context.add_route("POST", "/count", count)
    context.add_route("POST", "/keep", keep)
    context.add_route("POST", "/toggle", toggle)
    context.add_route("POST", "/paint", paint)
    context.add_route("POST", "/level", level)
"""
OTHER = """
name = "other"
version = "1.0.0"
default_config = {"colour": "red"}

def load(context):
    pass
"""


@pytest.fixture
def application(tmp_path: Path, server: Any) -> Path:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "control.py").write_text(CONTROL)
    (root / "plugins" / "other.py").write_text(OTHER)
    url = f"{server.url}?prefix=w{os.getpid()}_{time.monotonic_ns()}"
    (root / "veko.toml").write_text(f'storage = "{url}"\nmax_retries = 0\nadapter = "asgi"\n')
    return root


def _all_show(url: str, wanted: dict[str, object], workers: int = 2) -> set[int]:
    """Ask, each time on a new connection, until that many workers show what is wanted."""
    found: set[int] = set()
    end = time.monotonic() + SECONDS
    last: dict[str, Any] = {}
    while len(found) < workers:
        assert time.monotonic() < end, f"{last} is not {wanted}"
        try:
            last = httpx.get(f"{url}/show").raise_for_status().json()
        except httpx.TransportError:
            continue
        if wanted.items() <= last.items():
            found.add(last["pid"])
        else:
            found.discard(last["pid"])
            time.sleep(0.01)
    return found


def test_workers_share_a_storage_and_switch_together(
    start: Callable[..., Any], application: Path
) -> None:
    veko = start("serve", application, "--port", 0, "--workers", 2)
    url = veko.wait_for(r"Listening on (\S+), 2 workers")[1]
    pids = _all_show(url, {"kept": None, "active": True, "colour": "red"})
    httpx.post(f"{url}/keep?value=this").raise_for_status()
    for _ in range(20):
        httpx.post(f"{url}/count").raise_for_status()
    assert _all_show(url, {"kept": "this", "n": 20}) == pids
    httpx.post(f"{url}/toggle?active=false").raise_for_status()
    assert _all_show(url, {"active": False}) == pids
    httpx.post(f"{url}/toggle?active=true").raise_for_status()
    _all_show(url, {"active": True})
    httpx.post(f"{url}/paint?colour=blue").raise_for_status()
    _all_show(url, {"colour": "blue", "active": True})
    httpx.post(f"{url}/toggle?active=false").raise_for_status()
    _all_show(url, {"colour": "blue", "active": False})
    assert _all_show(url, {"level": 20}) == pids
    httpx.post(f"{url}/level?name=debug").raise_for_status()
    assert _all_show(url, {"level": 10}) == pids
    os.kill(min(pids), signal.SIGKILL)
    veko.wait_for("a new one starts")
    end = time.monotonic() + SECONDS
    wanted = {"colour": "blue", "active": False, "level": 10}
    while (now := _all_show(url, wanted)) == pids or min(pids) in now:
        assert time.monotonic() < end
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    again = start("serve", application, "--port", 0, "--workers", 2)
    url = again.wait_for(r"Listening on (\S+), 2 workers")[1]
    _all_show(url, {"kept": "this", "n": 20, "colour": "red", "active": True, "level": 20})
    again.process.send_signal(signal.SIGTERM)
    assert again.ends() == 0
