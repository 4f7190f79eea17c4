"""Metrics: calls and latency by plugin and event, and handlers that notice nothing of it."""

import asyncio
import gc
import logging
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko import HookError, HookTimeout, Kernel, ServiceError, Stop
from veko_plugins import CallMetrics, HTTPError, PluginManager, PluginMetrics
from veko_plugins.health import Health
from veko_plugins.metrics import OTHER, Metrics

NS = 1e-9


class Clock:
    """Nanoseconds; a handler that takes some moves it on."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(clock=clock)


@pytest.fixture
async def kernel(metrics: Metrics) -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(metrics)
        yield kernel


def made(load: Callable[..., Any], name: str = "busy", **manifest: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **manifest}


def hooked(event: str, fn: Callable[..., Any], name: str = "busy", **options: Any) -> Any:
    """A plugin of one hook."""

    def load(context: Any) -> None:
        context.hook(event, fn, **options)

    return made(load, name)


def known(metrics: Metrics, name: str = "busy") -> PluginMetrics:
    found = metrics.get(name)
    assert found is not None
    return found


# -- A14


@pytest.mark.anyio
async def test_A14_calls_and_latency_by_event(
    kernel: Kernel, metrics: Metrics, clock: Clock
) -> None:
    def load(context: Any) -> None:
        def quick() -> None:
            clock.now += 1_000

        async def slow(took: int) -> None:
            clock.now += took
            await asyncio.sleep(0)

        context.hook("quick", quick)
        context.hook("slow", slow)

    await kernel.load(made(load))
    for _ in range(96):
        await kernel.bus.emit("quick")
    for took in (10_000_000, 20_000_000, 3_000_000_000, 4_000_000_000):
        await kernel.bus.emit("slow", took)
    found = known(metrics)
    assert found.calls == 100
    assert found.p50 == pytest.approx(1_000 * NS, rel=0.045)
    assert found.p95 == pytest.approx(1_000 * NS, rel=0.045)
    assert found.p99 == pytest.approx(3, rel=0.045)
    assert set(found.events) == {"quick", "slow"}
    assert isinstance(found.events["slow"], CallMetrics)
    assert found.events["slow"].calls == 4
    assert found.events["slow"].p50 == pytest.approx(0.02, rel=0.045)
    assert found.events["slow"].p99 == pytest.approx(4, rel=0.045)
    with pytest.raises(AttributeError):
        found.calls = 0  # type: ignore[misc]


@pytest.mark.anyio
async def test_A14_a_plugin_that_was_never_called(kernel: Kernel, metrics: Metrics) -> None:
    await kernel.load(hooked("never", lambda: None))
    found = known(metrics)
    assert (found.calls, found.p50, found.p95, found.p99, found.events) == (0, None, None, None, {})
    assert found.error_count == 0
    assert found.health is None  # nobody provides that here
    assert 0 <= found.uptime < 5
    assert found.last_check.tzinfo is UTC
    assert datetime.now(UTC) - found.last_check < timedelta(seconds=5)


@pytest.mark.anyio
async def test_A14_none_of_unknown_plugins(kernel: Kernel, metrics: Metrics) -> None:
    assert metrics.get("nobody") is None
    await kernel.load(hooked("tick", lambda: None))
    await kernel.bus.emit("tick")
    assert known(metrics).calls == 1
    await kernel.unload("busy")
    assert metrics.get("busy") is None
    await kernel.load(hooked("tick", lambda: None))
    assert known(metrics).calls == 0


@pytest.mark.anyio
async def test_A14_errors_and_health(
    kernel: Kernel, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")
    await kernel.load(Health(warn_threshold=1, error_threshold=2, cool_down=1000))

    def fail() -> None:
        raise ValueError("broken")

    await kernel.load(hooked("fail", fail))
    seen = []
    for _ in range(4):
        await kernel.bus.emit("fail")
        found = known(metrics)
        seen.append((found.calls, found.error_count, found.health))
    assert seen == [(1, 1, "healthy"), (2, 2, "warning"), (3, 3, "critical"), (3, 3, "critical")]


@pytest.mark.anyio
async def test_A14_counts_go_on_over_toggle_and_reload(kernel: Kernel, metrics: Metrics) -> None:
    await kernel.load(hooked("tick", lambda: None))
    await kernel.bus.emit("tick")
    await kernel.toggle("busy")
    await kernel.bus.emit("tick")
    await kernel.toggle("busy")
    await kernel.bus.emit("tick")
    await kernel.reload(hooked("tick", lambda: None))
    await kernel.bus.emit("tick")
    assert known(metrics).calls == 3


@pytest.mark.anyio
async def test_A14_patterns_are_counted_together(kernel: Kernel, metrics: Metrics) -> None:
    await kernel.load(hooked("user:*", lambda: None))
    for number in range(5000):
        await kernel.bus.emit(f"user:{number}")
    assert {event: one.calls for event, one in known(metrics).events.items()} == {"user:*": 5000}


@pytest.mark.anyio
async def test_A14_events_without_end_take_bounded_memory(kernel: Kernel, metrics: Metrics) -> None:
    kept: list[Any] = []
    await kernel.load(made(lambda context: kept.append(context)))
    for number in range(1100):
        handle = kept[0].hook(f"user:{number}", lambda: None)
        await kernel.bus.emit(f"user:{number}")
        handle.cancel()
    found = known(metrics)
    assert found.calls == 1100
    assert len(found.events) == 1001
    assert found.events[OTHER].calls == 100


@pytest.mark.anyio
async def test_A14_memory_is_asked_of_tracemalloc_or_not_known(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    (folder / "pack").mkdir(parents=True)
    body = "name = {!r}\nversion = '1'\nkept = []\ndef load(): kept.extend(bytes(1000) for _ in {})"
    (folder / "small.py").write_text(body.format("small", "range(0)"))
    (folder / "large.py").write_text(body.format("large", "range(1000)"))
    (folder / "pack" / "__init__.py").write_text(body.format("pack", "range(500)"))
    options: dict[str, Any] = {"adapter": None, "storage": "sqlite:///:memory:"}
    async with PluginManager(root=tmp_path, **options) as manager:
        assert known(manager.metrics, "large").memory is None
    tracemalloc.start()
    try:
        async with PluginManager(root=tmp_path, **options) as manager:
            await manager.load_plugin(made(lambda: None, "in-memory"))
            small, large, pack = (
                known(manager.metrics, name).memory for name in ("small", "large", "pack")
            )
            assert small is not None
            assert large is not None
            assert pack is not None
            assert small < 100_000
            assert 1_000_000 < large < 1_200_000
            assert 500_000 < pack < 700_000
            assert known(manager.metrics, "in-memory").memory is None
    finally:
        tracemalloc.stop()


# -- quantiles


@pytest.mark.anyio
@given(st.lists(st.integers(1, 2**39), min_size=1, max_size=200))
async def test_A14_quantiles_are_within_the_stated_error(durations: list[int]) -> None:
    clock = Clock()
    metrics = Metrics(clock=clock)

    def take(took: int) -> None:
        clock.now += took

    async with Kernel() as kernel:
        await kernel.load(metrics)
        await kernel.load(hooked("take", take))
        for took in durations:
            await kernel.bus.emit("take", took)
        found = known(metrics)
        ordered = sorted(durations)
        for q, answer in ((50, found.p50), (95, found.p95), (99, found.p99)):
            exact = ordered[max(1, -(-len(ordered) * q // 100)) - 1]
            assert answer == pytest.approx(exact * NS, rel=0.045)
        # A genuine exponential histogram: each count lies within its bounds.
        [counts] = metrics.histograms("busy").values()
        assert sum(counts) == len(durations)
        for i, count in enumerate(counts[1:], 1):
            inside = sum(2 ** ((i - 1) / 8) < took <= 2 ** (i / 8) for took in durations)
            assert count == inside


@pytest.mark.anyio
async def test_A14_what_takes_no_time_or_days_is_counted(
    kernel: Kernel, metrics: Metrics, clock: Clock
) -> None:
    def take(took: int) -> None:
        clock.now += took

    await kernel.load(hooked("take", take))
    await kernel.bus.emit("take", 0)
    assert known(metrics).p50 == pytest.approx(1 * NS, rel=0.1)
    await kernel.bus.emit("take", 10**15)
    found = known(metrics)
    assert found.calls == 2
    assert found.p99 == pytest.approx(1100, rel=0.1)


# -- handlers notice nothing


HOT = 1100
"""Emissions after which a plan is compiled."""


@pytest.mark.anyio
@pytest.mark.parametrize("emissions", [1, HOT])
async def test_A14_values_pass_and_arguments_are_cut(
    kernel: Kernel, metrics: Metrics, emissions: int
) -> None:
    seen: list[Any] = []

    def load(context: Any) -> None:
        def none() -> None:
            seen.append(())

        def one(value: int) -> int:
            return value + 1

        async def two(value: int, extra: str, more: str = "default") -> int:
            seen.append((value, extra, more))
            return value * 2

        def every(*args: Any) -> None:
            seen.append(args)

        for fn in (none, one, two, every):
            context.hook("sum", fn)

    await kernel.load(made(load))
    for _ in range(emissions):
        del seen[:]
        assert await kernel.bus.emit("sum", 1, "a", "b") == 4
        assert seen == [(), (2, "a", "default"), (4, "a", "b")]
    assert known(metrics).calls == 4 * emissions


@pytest.mark.anyio
@pytest.mark.parametrize("emissions", [1, HOT])
async def test_A14_stop_ends_a_chain_and_is_counted(
    kernel: Kernel, metrics: Metrics, emissions: int
) -> None:
    async def stop(value: int) -> None:
        raise Stop(value + 1)

    def load(context: Any) -> None:
        context.hook("sum", stop)
        context.hook("sum", lambda value: value * 100, priority=1)

    await kernel.load(made(load))
    for _ in range(emissions):
        assert await kernel.bus.emit("sum", 1) == 2
    assert known(metrics).calls == emissions
    assert await kernel.bus.first("sum", 1) == 2
    assert await kernel.bus.gather("sum", 1) == [2, 100]
    assert known(metrics).calls == emissions + 3


@pytest.mark.anyio
@pytest.mark.parametrize("emissions", [1, HOT])
async def test_A14_too_few_arguments_are_the_emissions_fault(
    kernel: Kernel, metrics: Metrics, emissions: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")

    def wants(value: int, extra: str) -> None:
        pass

    async def waits(value: int, extra: str) -> None:
        pass

    def load(context: Any) -> None:
        context.hook("few", wants)
        context.hook("few", waits)

    errors: list[str] = []
    kernel.bus.on("error:handle", lambda error: errors.append(str(error)))
    await kernel.load(made(load))
    for _ in range(emissions):
        await kernel.bus.emit("few", 1, "x")
    await kernel.bus.emit("few", 1)
    missing = "missing 1 required positional argument: 'extra'"
    assert [error.rpartition("<locals>.")[2] for error in errors] == [
        f"wants() {missing}", f"waits() {missing}",
    ]  # fmt: skip
    assert known(metrics).calls == 2 * emissions


@pytest.mark.anyio
@pytest.mark.parametrize("emissions", [1, HOT])
async def test_A14_errors_are_the_handlers_own(
    kernel: Kernel, metrics: Metrics, emissions: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")
    error = ValueError("mine")
    reports: list[Any] = []
    kernel.bus.on("error:handle", lambda error, origin: reports.append((error, origin)))

    async def fail(fails: bool) -> None:
        if fails:
            raise error

    await kernel.load(hooked("fail", fail))
    for _ in range(emissions):
        await kernel.bus.emit("fail", False)
    with pytest.raises(ValueError, match="mine") as caught:
        await kernel.bus.emit("fail", True, strict=True)
    assert caught.value is error
    assert await kernel.bus.emit("fail", True) is True
    [(reported, origin)] = reports
    assert reported is error
    assert (origin.plugin, origin.event) == ("busy", "fail")
    assert origin.handler.endswith("fail")
    assert known(metrics).calls == emissions + 2


@pytest.mark.anyio
@pytest.mark.parametrize("emissions", [0, HOT])
async def test_A14_time_limits_hold(
    kernel: Kernel, metrics: Metrics, emissions: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")
    errors: list[Exception] = []
    kernel.bus.on("error:handle", lambda error: errors.append(error))

    async def hang(hangs: bool) -> None:
        if hangs:
            await asyncio.Event().wait()

    await kernel.load(hooked("hang", hang, timeout=0.01))
    for _ in range(emissions):
        await kernel.bus.emit("hang", False)
    await kernel.bus.emit("hang", True)
    [error] = errors
    assert isinstance(error, HookTimeout)
    assert "hang did not end within 0.01 s" in str(error)
    assert known(metrics).calls == emissions + 1


@pytest.mark.anyio
async def test_A14_cancelled_calls_are_counted(kernel: Kernel, metrics: Metrics) -> None:
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    await kernel.load(hooked("hang", hang))
    task = asyncio.create_task(kernel.bus.emit("hang"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert known(metrics).calls == 1
    emission = kernel.bus.emit("hang")
    emission.send(None)
    emission.close()
    assert known(metrics).calls == 2
    assert known(metrics).error_count == 0


@pytest.mark.anyio
async def test_A14_a_def_that_returns_a_coroutine_is_still_told(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "veko")
    errors: list[Exception] = []
    kernel.bus.on("error:handle", lambda error: errors.append(error))

    async def work() -> None:
        pass

    await kernel.load(hooked("odd", lambda: work()))
    await kernel.bus.emit("odd")
    assert isinstance(errors[0], HookError)
    assert "returned a coroutine" in str(errors[0])


@pytest.mark.anyio
async def test_A14_other_interceptors_may_make_it_async(kernel: Kernel, metrics: Metrics) -> None:
    def wrap(event: str, subscription: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        async def later(*args: Any) -> Any:
            await asyncio.sleep(0)
            return call(*args)

        return later if event == "sum" else call

    kernel.bus.intercept(wrap)
    await kernel.load(hooked("sum", lambda value: value + 1))
    assert await kernel.bus.emit("sum", 1) == 2
    assert known(metrics).calls == 1


@pytest.mark.anyio
async def test_A14_the_hosts_own_handlers_are_left_as_they_are(
    kernel: Kernel, metrics: Metrics, clock: Clock
) -> None:
    kernel.bus.on("tick", lambda: None)
    kernel.bus.on("tick", lambda: None, owner="host")
    before = clock.now
    await kernel.bus.emit("tick")
    assert clock.now == before
    assert metrics.get("host") is None


@pytest.mark.anyio
async def test_A14_nothing_is_counted_while_it_is_off(kernel: Kernel, metrics: Metrics) -> None:
    await kernel.load(hooked("tick", lambda: None))
    await kernel.load(hooked("tick", lambda: None, "gone"))
    await kernel.bus.emit("tick")
    await kernel.toggle("metrics", False)
    await kernel.bus.emit("tick")
    await kernel.unload("gone")
    await kernel.load(hooked("tick", lambda: None, "gone2"))
    await kernel.toggle("metrics", True)
    await kernel.bus.emit("tick")
    assert known(metrics).calls == 2
    assert known(metrics, "gone2").calls == 1
    assert metrics.histograms("gone") == {}


@pytest.mark.anyio
@pytest.mark.parametrize("emissions", [0, HOT])
async def test_A14_a_plugin_may_unload_itself_from_a_timed_hook(
    kernel: Kernel, metrics: Metrics, emissions: int
) -> None:
    async def leave(leaves: bool) -> None:
        if leaves:
            await kernel.unload("busy")

    await kernel.load(hooked("leave", leave))
    for _ in range(emissions):
        await kernel.bus.emit("leave", False)
    async with asyncio.timeout(5):
        await kernel.bus.emit("leave", True)
    assert kernel.get("busy") is None


@pytest.mark.anyio
async def test_A14_what_it_timed_is_not_kept(kernel: Kernel) -> None:
    class Held:
        def tick(self) -> None:
            pass

        async def tock(self) -> None:
            pass

    held = Held()
    reference = weakref.ref(held)

    def load(context: Any, held: Held = held) -> None:
        context.hook("tick", held.tick)
        context.hook("tock", held.tock)

    plugin = made(load)
    await kernel.load(plugin)
    for _ in range(HOT):
        await kernel.bus.emit("tick")
        await kernel.bus.emit("tock")
    await kernel.unload("busy")
    del held, load, plugin
    gc.collect()
    assert reference() is None


# -- through the manager


async def test_O6_A14_the_manager_measures_unless_told_otherwise(tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": tmp_path, "adapter": None, "auto_load": False}
    async with PluginManager(**options) as manager:
        await manager.load_plugin(hooked("tick", lambda: None))
        await manager.bus.emit("tick")
        found = known(manager.metrics)
        assert (found.calls, found.health) == (1, "healthy")
        assert found.p50 is not None
        assert 0 < found.p50 < 1
        assert manager.metrics.get("nobody") is None
    with pytest.raises(ServiceError, match="enable_metrics"):
        manager.metrics.get("busy")
    async with PluginManager(**options, enable_metrics=False) as manager:
        await manager.load_plugin(hooked("tick", lambda: None))
        with pytest.raises(ServiceError, match="enable_metrics"):
            manager.metrics.get("busy")
        assert not any(info.name == "metrics" for info in manager.list_plugins(core=True))


async def test_A14_routes_middleware_commands_and_tasks_count_too(tmp_path: Path) -> None:
    ended = asyncio.Event()

    def load(context: Any) -> None:
        async def around(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        def get(number: int) -> float:
            return 1 / number

        def refuse() -> None:
            raise HTTPError(404)

        async def work() -> None:
            ended.set()

        def tick() -> None:
            raise ValueError(1)

        context.add_middleware(around)
        context.add_route("GET", "/shop/{number:int}", get)
        context.add_route("GET", "/refuse", refuse)
        context.add_command("prune", lambda number: 1 / number)
        context.spawn(work)
        context.every(0.01, tick)

    options: dict[str, Any] = {"root": tmp_path, "auto_load": False, "error_threshold": 1_000}
    async with PluginManager(**options) as manager:
        await manager.load_plugin(made(load))
        await asyncio.wait_for(ended.wait(), 5)
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("/shop/1", "/shop/2", "/shop/0", "/refuse"):
                await client.get(path)
            await manager.run_command("prune", 1)
            with pytest.raises(ZeroDivisionError):
                await manager.run_command("prune", 0)
            async with asyncio.timeout(5):
                while not [key for key in known(manager.metrics).events if "tick" in key]:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            found = known(manager.metrics)
            events = {key.rpartition(".")[2]: value for key, value in found.events.items()}
            assert {key: (events[key].calls, events[key].errors) for key in events} | {
                "tick": (1, 1)
            } == {
                "GET /shop/{number:int}": (3, 1),
                "GET /refuse": (1, 0),  # an answer that a client can cause is no failure
                "around": (4, 1),
                "command prune": (2, 1),
                "work": (1, 0),
                "tick": (1, 1),
            }
            assert found.calls >= 12
            assert events["GET /refuse"].p50 is not None
            # Switched off, it measures nothing; it continues when it is on again.
            await manager.kernel.toggle("metrics", False)
            await client.get("/shop/1")
            await manager.kernel.toggle("metrics", True)
            assert known(manager.metrics).events["GET /shop/{number:int}"].calls == 3
            await client.get("/shop/1")
            assert known(manager.metrics).events["GET /shop/{number:int}"].calls == 4


# -- the begin of a call is the end of the one before


@pytest.mark.anyio
@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_runs_between_two_handlers_counts_for_neither(
    kernel: Kernel, metrics: Metrics, clock: Clock, hot: bool, is_async: bool
) -> None:
    def taking(took: int, fails: bool = False) -> Callable[..., Any]:
        def handler() -> None:
            clock.now += took
            if fails:
                raise ValueError

        async def waits() -> None:
            await asyncio.sleep(0)
            handler()

        return waits if is_async else handler

    def reports(error: BaseException) -> None:
        clock.now += 1_000_000

    def load(context: Any) -> None:
        context.hook("tick", taking(1_000, fails=True), priority=50)
        context.hook("tick", taking(2_000), priority=40)
        context.hook("tick", taking(3_000), priority=20)

    await kernel.load(made(load))
    await kernel.load(hooked("tick", taking(4_000), name="other", priority=10))
    kernel.bus.on("error:handle", reports)
    kernel.bus.on("tick", taking(500_000), priority=30)  # the application's own
    for _ in range(1_100 if hot else 1):
        await kernel.bus.emit("tick")
    counts = metrics.histograms("busy")["tick"]
    calls = 1_100 if hot else 1
    found = {round(2 ** ((slot - 0.5) / 8)): count for slot, count in enumerate(counts) if count}
    assert list(found.values()) == [calls] * 3
    for took, expected in zip(found, (1_000, 2_000, 3_000), strict=True):
        assert took == pytest.approx(expected, rel=0.045)
    other = known(metrics, "other")
    assert other.p99 == pytest.approx(4_000 * NS, rel=0.045)
