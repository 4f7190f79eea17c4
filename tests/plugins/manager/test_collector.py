"""The garbage collector runs seldom while plugins load, and as before afterwards."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from veko_plugins.manager.collector import SELDOM, seldom_collected

THRESHOLD = (700, 10, 10)


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLD)
    yield
    gc.set_threshold(*before)


async def test_the_collector_runs_seldom_while_plugins_load(home: Any) -> None:
    home.plugin("good", "import gc\ndef load(app): app.append(gc.get_threshold()[0])")
    home.plugin("bad", "def load(): raise ValueError")
    seen: list[int] = []
    async with home.manager(seen, auto_load=False) as manager:
        report = await manager.load_all_plugins()
        assert set(report.failed) == {"bad"}
        assert seen == [SELDOM]
        assert gc.get_threshold() == THRESHOLD
        assert gc.isenabled()


async def test_a_load_that_is_cancelled_restores_the_collector(home: Any) -> None:
    home.plugin(
        "hangs",
        "import asyncio\nasync def load(app):\n    app.set()\n    await asyncio.sleep(60)",
    )
    begun = asyncio.Event()
    async with home.manager(begun, auto_load=False) as manager:
        loading = asyncio.ensure_future(manager.load_all_plugins())
        await begun.wait()
        assert gc.get_threshold()[0] == SELDOM
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert gc.get_threshold() == THRESHOLD


def test_the_last_to_leave_restores_the_collector() -> None:
    one, other = seldom_collected(), seldom_collected()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert gc.get_threshold()[0] == SELDOM
    other.__exit__(None, None, None)
    assert gc.get_threshold() == THRESHOLD


@pytest.mark.parametrize("young", [0, SELDOM * 2])
def test_who_has_the_collector_run_less_keeps_that(young: int) -> None:
    gc.set_threshold(young, 5, 5)
    with seldom_collected():
        assert gc.get_threshold() == (young, 5, 5)
    assert gc.get_threshold() == (young, 5, 5)


def test_a_threshold_that_is_set_meanwhile_stays() -> None:
    with seldom_collected():
        gc.set_threshold(900, 9, 9)
    assert gc.get_threshold() == (900, 9, 9)
