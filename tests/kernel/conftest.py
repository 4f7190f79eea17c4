"""The kernel's tests run on every backend that it promises to run on."""

import gc
import logging
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio.lowlevel
import pytest

import veko

_BACKENDS = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
if sys.platform == "win32":
    del _BACKENDS["uvloop"]

_SETTLE_TURNS = 20


@pytest.fixture(scope="module", params=_BACKENDS.values(), ids=_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run async tests on asyncio, uvloop and trio."""
    backend: tuple[str, dict[str, object]] = request.param
    return backend


@pytest.fixture
def on_asyncio(anyio_backend_name: str) -> None:
    """Skip where there are no futures: a trio task cannot await somebody's cancelled one."""
    if anyio_backend_name == "trio":
        pytest.skip("only asyncio has tasks that can be awaited")


@pytest.fixture
async def kernel() -> AsyncIterator[veko.Kernel]:
    """A kernel without plugins, with time limits that a test can wait for."""
    async with veko.Kernel(app="host", timeout=5, drain_timeout=5) as kernel:
        yield kernel


@pytest.fixture
def faults() -> Callable[[veko.Bus], list[tuple[BaseException, veko.Origin]]]:
    """Give a list that collects the errors that `error:handle` gets."""

    def collect(bus: veko.Bus) -> list[tuple[BaseException, veko.Origin]]:
        seen: list[tuple[BaseException, veko.Origin]] = []
        bus.on("error:handle", lambda error, origin: seen.append((error, origin)))
        return seen

    return collect


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Keep errors out of pytest's log records, which would keep their frames alive."""
    logger = logging.getLogger("veko")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


@pytest.fixture
def all_die(unlogged: None) -> Callable[..., Any]:
    """Give a function that fails if one of some weak references is still alive."""

    async def check(*references: "weakref.ref[Any]") -> None:
        for _ in range(_SETTLE_TURNS):
            gc.collect()
            if all(reference() is None for reference in references):
                return
            await anyio.lowlevel.checkpoint()
        alive = [reference() for reference in references if reference() is not None]
        holders = [type(h).__name__ for h in gc.get_referrers(alive[0]) if h is not alive]
        pytest.fail(f"still alive: {alive!r}, held by {holders}")

    return check
