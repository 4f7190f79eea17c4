"""The ledger: its parts add up to what the process used, and each payer pays for what it did."""

import asyncio
import gc
import json
import math
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest

from veko import ConfigError, Kernel, OptionError
from veko_plugins import PluginManager
from veko_plugins.ledger import Ledger, Usage
from veko_plugins.ledger.sampler import HOST, Sampler

WORK = Path(__file__).with_name("work.py")
QUIET: dict[str, Any] = {"auto_load": False, "storage": "memory:", "adapter": None, "watchdog": 0}


def made(name: str, load: Any = lambda context: None) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load}


def burn(seconds: float) -> float:
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        sum(range(100))
    return time.thread_time() - begin


def spent(*args: str) -> tuple[dict[str, Any], Usage]:
    """Run the application of `work.py`; return what it says that it used, and the report."""
    done = subprocess.run(
        [sys.executable, WORK, *args], check=True, capture_output=True, text=True, timeout=120
    )
    truth, report = done.stdout.splitlines()
    return json.loads(truth), msgspec.json.decode(report, type=Usage)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Usage]:
    return spent(str(tmp_path_factory.mktemp("work")), "0.04", "8")


# -- samples


class Token:
    """Something that can be referred to weakly."""


@pytest.mark.skipif(not hasattr(signal, "SIGPROF"), reason="needs SIGPROF")
def test_samples_keep_no_emission_alive() -> None:
    """A frame that held itself would hold its callers: an unload waits for what they hold."""
    failures: list[Exception] = []
    sampler = Sampler(lambda frame: HOST, 3600.0, failures.append)

    def emission() -> weakref.ref[Token]:
        token = Token()
        others = threading.Thread(target=burn, args=(0.05,))
        others.start()
        others.join()
        signal.raise_signal(signal.SIGPROF)
        return weakref.ref(token)

    sampler.start()
    gc.collect()
    gc.disable()
    try:
        assert emission()() is None
        assert sampler.samples == 1
        assert sampler.method == "signal"
    finally:
        gc.enable()
        sampler.stop()
    assert not failures


# -- sums


def test_the_parts_add_up_to_what_the_process_used(worked: tuple[dict[str, Any], Usage]) -> None:
    truth, usage = worked
    parts = usage.host + usage.unloaded + sum(one.cpu for one in usage.plugins)
    assert parts == pytest.approx(usage.cpu, rel=1e-6)
    assert usage.cpu == pytest.approx(truth["total"], rel=0.05)
    assert sum(one.share for one in usage.plugins) == pytest.approx(
        1 - usage.host / usage.cpu, rel=1e-6
    )


def test_each_plugin_pays_for_its_hooks_routes_middleware_threads_and_tasks(
    worked: tuple[dict[str, Any], Usage],
) -> None:
    truth, usage = worked
    assert usage.method == "signal"
    assert usage.samples > 100
    found = {one.plugin: one.cpu for one in usage.plugins}
    assert set(found) == {"hooking", "serving", "around", "working"}
    for name, cpu in found.items():
        assert cpu == pytest.approx(truth["spent"][name], abs=margin(usage, truth["spent"][name]))


def test_each_route_pays_for_its_requests(worked: tuple[dict[str, Any], Usage]) -> None:
    truth, usage = worked
    found = {one.route: one for one in usage.routes}
    assert set(found) == {"GET /loop", "GET /thread"}
    around = truth["spent"]["around"] / 2  # it stands around both, as often
    for route, one in found.items():
        cpu = truth["routes"][route] + around
        assert one.plugin == "serving"
        assert one.cpu == pytest.approx(cpu, abs=margin(usage, cpu))
        assert one.calls == 8
        assert one.waited is not None


def margin(usage: Usage, cpu: float) -> float:
    """Five standard errors of a part that is divided by samples, and 1% for what is not work."""
    share = cpu / usage.cpu
    return (5 * math.sqrt(share * (1 - share) / usage.samples) + 0.01) * usage.cpu


def test_short_work_after_a_wait_is_seen(tmp_path: Path) -> None:
    """Samples come when the system's clock ticks, and what they weigh must not depend on waits."""
    script = tmp_path / "short.py"
    script.write_text(SHORT)
    done = subprocess.run(
        [sys.executable, script], check=True, capture_output=True, text=True, timeout=120
    )
    found = json.loads(done.stdout)
    # Of a, 13% of the process, there are only some thirty samples; weighing them by the time since
    # the sample before would make a third of it.
    assert 0.45 < found["cpus"]["a"] / found["truth"]["a"] < 2.5
    assert 0.6 < found["cpus"]["b"] / found["truth"]["b"] < 1.2


SHORT = """
import asyncio, json, time
from veko import Kernel
from veko_plugins.ledger import Ledger

truth = {}

def burn(name, seconds):
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        sum(range(20))
    truth[name] = truth.get(name, 0) + time.thread_time() - begin

async def main():
    async with Kernel() as kernel:
        await kernel.load(Ledger(), {"interval": 0.004})
        for name, seconds in (("a", 0.0005), ("b", 0.003)):
            def load(context, name=name, seconds=seconds):
                async def hook(): burn(name, seconds)
                context.hook("tick", hook)
            await kernel.load({"name": name, "version": "1.0.0", "load": load})
        while sum(truth.values()) < 2:
            await kernel.bus.emit("tick")
            await asyncio.sleep(0.002)
        usage = kernel.use("ledger").report()
        cpus = {one.plugin: one.cpu for one in usage.plugins}
        found = {"cpu": usage.cpu, "samples": usage.samples, "cpus": cpus, "truth": truth}
        print(json.dumps(found))

asyncio.run(main())
"""


# -- on and off


@pytest.mark.anyio
async def test_it_is_off_unless_something_asks_for_it(tmp_path: Path) -> None:
    async def on(**options: Any) -> bool:
        async with PluginManager(root=tmp_path, **QUIET, **options) as manager:
            return manager.kernel.registry.get("service", "ledger") is not None

    assert not await on()
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL
    assert await on(ledger=True)
    assert await on(plugins={"ledger": {}})
    assert await on(plugins={"shop": {"budget": {"cpu": 0.5}}})
    assert not await on(plugins={"shop": {"price": 3}})
    assert signal.getsignal(signal.SIGPROF) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0


def test_a_budget_without_the_ledger_is_refused(tmp_path: Path) -> None:
    given = {"shop": {"budget": {"cpu": 0.5}}}
    for options in ({"ledger": False}, {"core": {"ledger": None}}):
        with pytest.raises(OptionError, match=r"\[plugins\.shop\.budget\] needs the ledger"):
            PluginManager(root=tmp_path, **QUIET, plugins=given, **options)


def test_a_process_that_never_stops_its_ledger_ends_well(tmp_path: Path) -> None:
    script = tmp_path / "abandoned.py"
    script.write_text(
        "import asyncio, time\n"
        "from veko import Kernel\n"
        "from veko_plugins.ledger import Ledger\n"
        "class Slow:\n"
        "    def __del__(self):\n"
        "        begin = time.thread_time()\n"
        "        while time.thread_time() - begin < 0.1: pass\n"
        "loop = asyncio.new_event_loop()\n"
        "async def main():\n"
        "    kernel = await Kernel().__aenter__()\n"
        "    await kernel.load(Ledger(), {'interval': 0.001})\n"
        "    return kernel\n"
        "kept = loop.run_until_complete(main()), Slow()\n"
        "import sys; sys.kept = kept\n"
    )
    done = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.anyio
async def test_it_samples_from_a_thread_where_the_signal_is_taken() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGPROF, lambda number, frame: heard.append(number))
    try:
        async with Kernel() as kernel:
            await kernel.load(Ledger(), {"interval": 0.002})
            await kernel.load(
                made("busy", lambda context: context.hook("work", lambda: burn(0.5) and None))
            )
            await kernel.bus.emit("work")
            await asyncio.sleep(0)
            usage = kernel.use("ledger").report()
        assert usage.method == "thread"
        assert usage.plugins[0].cpu > 0.2
        assert signal.getsignal(signal.SIGPROF) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGPROF, before)
    assert heard == []


# -- budgets


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def with_budget(tmp_path: Path, clock: Clock, budget: object, **options: Any) -> PluginManager:
    given = {**QUIET, **options, "core": {"ledger": Ledger(clock=clock)}}
    return PluginManager(root=tmp_path, plugins={"busy": {"budget": budget}}, **given)


def busy(context: Any) -> None:
    context.hook("work", lambda: burn(0.3) and None)


@pytest.mark.anyio
async def test_a_plugin_over_its_budget_is_warned_about(tmp_path: Path, clock: Clock) -> None:
    async with with_budget(tmp_path, clock, {"cpu": 0.001, "window": 10}) as manager:
        heard: list[Any] = []
        manager.on("budget:exceeded", lambda overrun, name: heard.append((overrun, name)))
        await manager.load_plugin(made("busy", busy))
        ledger = manager.use("ledger")
        await ledger.tick()
        assert heard == []
        await manager.bus.emit("work")
        for _ in range(3):  # once, however long it lasts
            clock.now += 1
            await ledger.tick()
        ((overrun, name),) = heard
        assert (name, overrun.plugin, overrun.resource) == ("busy", "busy", "cpu")
        assert overrun.used > overrun.budget == 0.001
        assert not overrun.switched_off
        health = manager.check_plugin_health("busy")
        assert health.active
        assert health.health == "warning"
        assert "of a core within 10 s; its budget is" in health.reasons[0]
        assert ledger.get("busy").exceeded == health.reasons
        clock.now += 30
        await ledger.tick()
        assert manager.check_plugin_health("busy").health == "healthy"


@pytest.mark.anyio
async def test_a_plugin_over_its_budget_is_switched_off_and_tried_again(
    tmp_path: Path, clock: Clock
) -> None:
    budget = {"cpu": 0.001, "window": 10, "then": "off"}
    async with with_budget(tmp_path, clock, budget) as manager:
        off = asyncio.Event()
        manager.on("plugin:deactivated", lambda name: off.set())
        await manager.load_plugin(made("busy", busy))
        await manager.bus.emit("work")
        clock.now += 1
        await manager.use("ledger").tick()
        async with asyncio.timeout(10):
            await off.wait()
        health = manager.check_plugin_health("busy")
        assert not health.active
        assert health.health == "critical"
        assert "its budget is" in health.reasons[0]
        await manager.toggle_plugin("busy", True)
        await manager.use("ledger").tick()  # what it used before does not count twice
        assert manager.check_plugin_health("busy").health == "healthy"


@pytest.mark.anyio
@pytest.mark.parametrize("why", ["required", "guard"])
async def test_what_protects_others_is_never_switched_off(
    tmp_path: Path, clock: Clock, why: str
) -> None:
    def guards(context: Any) -> None:
        busy(context)
        if why == "guard":
            context.hook("request:start", lambda request: None)

    budget = {"cpu": 0.001, "then": "off"}
    async with with_budget(tmp_path, clock, budget, adapter="asgi") as manager:
        heard: list[Any] = []
        manager.on("budget:exceeded", heard.append)
        await manager.load_plugin({**made("busy", guards), "required": why == "required"})
        await manager.bus.emit("work")
        clock.now += 1
        await manager.use("ledger").tick()
        assert [one.switched_off for one in heard] == [False]
        health = manager.check_plugin_health("busy")
        assert (health.active, health.health) == (True, "warning")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("budget", "fault"),
    [
        ({}, "it limits nothing; give at least one of cpu, blocked, memory"),
        ({"cpu": 0}, "cpu: expected `float` > 0"),
        ({"cpu": "half"}, "cpu: expected `float"),
        ({"cpus": 1}, "cpus"),
        ({"cpu": 1, "window": 0.1}, "window: expected `float` >= 1"),
        ({"cpu": 1, "then": "kill"}, "then: invalid enum value 'kill'"),
        ({"memory": "much"}, "memory: expected bytes, as a number or as '64 MiB', got 'much'"),
        ({"memory": 100}, "memory: nothing measures it: set memory = true in [plugins.ledger]"),
        ({"blocked": 1}, "blocked: nothing measures it: the option `watchdog` is 0"),
        ({"cpu": math.nan}, "cpu"),
    ],
    ids=["empty", "zero", "text", "unknown", "window", "then", "size", "memory", "blocked", "nan"],
)
async def test_a_budget_that_is_not_valid_refuses_the_plugin(
    tmp_path: Path, clock: Clock, budget: dict[str, Any], fault: str
) -> None:
    async with with_budget(tmp_path, clock, budget) as manager:
        with pytest.raises(ConfigError) as caught:
            await manager.load_plugin(made("busy", busy))
    assert fault in str(caught.value)
    assert "[plugins.busy.budget]" in str(caught.value)


@pytest.mark.anyio
async def test_a_plugin_may_have_a_field_of_that_name_itself(tmp_path: Path, clock: Clock) -> None:
    class Config(msgspec.Struct):
        budget: dict[str, int]

    async with with_budget(tmp_path, clock, {"chairs": 3}) as manager:
        record = await manager.load_plugin({**made("busy"), "config_schema": Config})
        assert record.config == Config({"chairs": 3})
        assert manager.use("ledger").get("busy").budget is None


@pytest.mark.anyio
async def test_a_plugin_does_not_see_its_budget(tmp_path: Path, clock: Clock) -> None:
    async with with_budget(tmp_path, clock, {"cpu": 0.5}) as manager:
        record = await manager.load_plugin(made("busy"), {"size": 1})
        assert record.config == {"size": 1}
        await manager.reload_plugin("busy")
        assert manager.get_plugin("busy").config == {"size": 1}
        assert manager.use("ledger").get("busy").budget.cpu == 0.5


@pytest.mark.anyio
async def test_what_blocks_the_loop_is_counted(tmp_path: Path, clock: Clock) -> None:
    manager = with_budget(tmp_path, clock, {"blocked": 0.05}, watchdog=0.05)
    async with manager:
        heard, blocked = [], asyncio.Event()
        manager.on("budget:exceeded", heard.append)
        manager.on("loop:blocked", lambda block: blocked.set())
        await manager.load_plugin(
            made("busy", lambda context: context.hook("work", lambda: time.sleep(0.3)))
        )
        async with asyncio.timeout(20):
            while not blocked.is_set():
                await manager.bus.emit("work")
                await asyncio.sleep(0.05)
        await manager.use("ledger").tick()
        assert [one.resource for one in heard] == ["blocked"]
        assert manager.use("ledger").get("busy").blocked > 0.05


@pytest.mark.anyio
async def test_memory_is_traced_if_asked_for(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "busy.py").write_text(
        "name, version, kept = 'busy', '1.0.0', []\n"
        "def load(context): context.hook('work', lambda: kept.append(bytearray(3_000_000)))\n"
    )
    given = {"busy": {"budget": {"memory": "1 MB"}}, "ledger": {"memory": True}}
    core = {"ledger": Ledger(clock=clock)}
    options = {**QUIET, "auto_load": True}
    async with PluginManager(root=tmp_path, plugins=given, core=core, **options) as manager:
        heard: list[Any] = []
        manager.on("budget:exceeded", heard.append)
        await manager.bus.emit("work")
        await manager.use("ledger").tick()
        clock.now += 60
        await manager.use("ledger").tick()
        assert [one.resource for one in heard] == ["memory"]
        assert 3_000_000 < manager.use("ledger").get("busy").memory < 4_000_000


# -- leaving


@pytest.mark.anyio
async def test_what_an_unloaded_plugin_used_stays_in_the_sum(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, ledger=True, **QUIET) as manager:
        await manager.load_plugin(made("busy", busy))
        await manager.bus.emit("work")
        ledger = manager.use("ledger")
        used = ledger.get("busy").cpu
        assert used > 0.1
        await manager.unload_plugin("busy")
        usage = ledger.report()
        assert usage.plugins == ()
        assert usage.unloaded == pytest.approx(used, rel=0.2)
        assert usage.unloaded + usage.host == pytest.approx(usage.cpu, rel=1e-6)
        assert msgspec.json.encode(usage)
