"""Health: errors are counted in a window, and a breaker switches off what fails too often."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko import Kernel, NotFoundError, Origin, Plugin, RefusedError
from veko_plugins import BreakerError, PluginManager
from veko_plugins.health import Health

FAR = 1000.0
"""Seconds that no test waits for."""


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Plugins fail on purpose here; pytest keeps what is logged."""
    caplog.set_level(logging.CRITICAL, "veko")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Heard(list[tuple[Any, ...]]):
    """Emissions of some events, and a way to wait for the next ones."""

    def __init__(self, kernel: Kernel, *events: str) -> None:
        super().__init__()
        self._more = asyncio.Event()
        for event in events:
            kernel.bus.on(event, self._hear(event), priority=-1_000_000)

    def _hear(self, event: str) -> Callable[..., None]:
        def hear(*args: object) -> None:
            self.append((event, *args))
            self._more.set()

        return hear

    async def until(self, event: str, name: str, times: int = 1) -> None:
        async with asyncio.timeout(5):
            while sum(one[:2] == (event, name) for one in self) < times:
                self._more.clear()
                await self._more.wait()


def made(name: str = "shaky", **manifest: Any) -> dict[str, Any]:
    """A plugin that fails on `fail`, and as long as wanted in `load`-made tasks."""

    def load(context: Any) -> None:
        def fail() -> None:
            raise ValueError("broken")

        context.hook(f"fail:{name}", fail)

    return {"name": name, "version": "1.0.0", "load": load, **manifest}


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, turn by turn of the loop, for what no event tells."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Home:
    """A kernel with a `health`, and a plugin that can be made to fail."""

    def __init__(self, kernel: Kernel, health: Health) -> None:
        self.kernel = kernel
        self.health = health
        self.heard = Heard(
            kernel, "plugin:error", "error:critical", "plugin:activated", "plugin:deactivated"
        )

    async def fail(self, times: int = 1, name: str = "shaky") -> None:
        for _ in range(times):
            await self.kernel.bus.emit(f"fail:{name}")

    def active(self, name: str = "shaky") -> bool:
        record = self.kernel.get(name)
        assert record is not None
        return record.active

    @property
    def switched(self) -> list[tuple[str, str]]:
        return [(event[7:], name) for event, name, *_ in self.heard if event.endswith("activated")]


Open = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Open]:
    """Start a kernel with a `health` of the given options and the plugin `shaky`."""
    kernels: list[Kernel] = []

    async def start(**options: Any) -> Home:
        health = Health(**{"cool_down": FAR, "trial": FAR, "error_threshold": 2, **options})
        kernel = await Kernel().__aenter__()
        kernels.append(kernel)
        await kernel.load(health)
        home = Home(kernel, health)
        await kernel.load(made())
        return home

    yield start
    for kernel in kernels:
        await kernel.__aexit__(None, None, None)


# -- A7


@pytest.mark.anyio
async def test_A7_a_plugin_that_does_not_fail_is_healthy(start: Open) -> None:
    home = await start()
    health = home.health.check("shaky")
    assert (health.name, health.loaded, health.active) == ("shaky", True, True)
    assert (health.error_count, health.recent_errors) == (0, 0)
    assert (health.health, health.reasons) == ("healthy", ())
    assert 0 <= health.uptime < 5
    with pytest.raises(AttributeError):
        health.health = "critical"


@pytest.mark.anyio
async def test_A7_more_errors_than_the_thresholds_are_a_warning_and_critical(start: Open) -> None:
    home = await start(warn_threshold=2, error_threshold=4)
    found = []
    for _ in range(5):
        await home.fail()
        found.append(home.health.check("shaky").health)
    assert found == ["healthy", "healthy", "warning", "warning", "critical"]
    health = home.health.check("shaky")
    assert (health.error_count, health.recent_errors, health.active) == (5, 5, False)
    assert "5 errors within 60 s" in health.reasons[0]
    assert "ValueError: broken" in health.reasons[0]
    await home.heard.until("plugin:deactivated", "shaky")
    await eventually(lambda: "tried again in" in home.health.check("shaky").reasons[0])


@pytest.mark.anyio
async def test_A7_a_plugin_that_failed_to_load_is_critical_and_says_why(start: Open) -> None:
    home = await start()

    def load() -> None:
        raise OSError("no disk")

    with pytest.raises(Exception, match="no disk"):
        await home.kernel.load({"name": "never", "version": "1.0.0", "load": load})
    health = home.health.check("never")
    assert (health.loaded, health.active, health.health) == (False, False, "critical")
    assert "failed in load" in health.reasons[0]
    assert "no disk" in health.reasons[0]
    assert health.uptime == 0


@pytest.mark.anyio
async def test_A7_one_switched_off_by_hand_is_healthy(start: Open) -> None:
    home = await start()
    await home.kernel.toggle("shaky", False)
    health = home.health.check("shaky")
    assert (health.loaded, health.active, health.health) == (True, False, "healthy")


@pytest.mark.anyio
async def test_A7_an_unknown_name_names_the_known_ones(start: Open) -> None:
    home = await start()
    with pytest.raises(NotFoundError, match="shaky"):
        home.health.check("nobody")


# -- A13: counting


@pytest.mark.anyio
async def test_A13_errors_leave_the_window(start: Open) -> None:
    clock = Clock()
    home = await start(window=60, clock=clock, warn_threshold=1)
    for _ in range(20):  # never more than two within a minute
        await home.fail()
        clock.now += 31
    assert home.active()
    health = home.health.check("shaky")
    assert (health.error_count, health.recent_errors, health.health) == (20, 1, "healthy")
    await home.fail()
    assert home.health.check("shaky").health == "warning"
    clock.now += 61.1
    assert home.health.check("shaky").recent_errors == 0


@pytest.mark.anyio
async def test_A13_a_burst_is_counted_in_bounded_memory(start: Open) -> None:
    clock = Clock()
    home = await start(window=60, clock=clock, error_threshold=10_000)
    for _ in range(500):
        await home.fail(4)
        clock.now += 0.5
    recent = home.health.check("shaky").recent_errors
    assert 480 <= recent <= 488
    assert home.health.check("shaky").error_count == 2000


@pytest.mark.anyio
async def test_A13_what_fails_while_an_error_is_handled_counts_too(start: Open) -> None:
    home = await start()

    def load(context: Any) -> None:
        def no_help(*_: object) -> None:
            raise ValueError("again")

        context.hook("error:handle", no_help)

    await home.kernel.load({"name": "helper", "version": "1.0.0", "load": load})
    home.kernel.bus.on("tick", lambda: 1 / 0)
    for _ in range(3):
        await home.kernel.bus.emit("tick")
    assert not home.active("helper")
    assert home.health.check("helper").health == "critical"


@pytest.mark.anyio
async def test_A13_errors_of_the_host_are_nobodys(start: Open) -> None:
    home = await start()
    home.kernel.bus.on("tick", lambda: 1 / 0)
    home.kernel.bus.on("tick", lambda: 1 / 0, owner="nobody")
    for _ in range(9):
        await home.kernel.bus.emit("tick")
    assert home.active()
    assert home.switched == [("activated", "shaky")]


@pytest.mark.anyio
async def test_A13_a_reload_that_fails_is_not_held_against_what_runs(start: Open) -> None:
    home = await start()
    for _ in range(5):
        with pytest.raises(Exception, match="load"):
            await home.kernel.reload({**made(), "load": lambda: 1 / 0})
    assert home.active()
    assert home.health.check("shaky").health == "healthy"


@pytest.mark.anyio
async def test_A13_core_plugins_are_counted_but_stay_on(start: Open) -> None:
    home = await start()

    class Ours(Plugin):
        name = "ours"
        version = "1.0.0"
        core = True

        def load(self, context: Any) -> None:
            context.hook("tick", lambda: 1 / 0)

    await home.kernel.load(Ours)
    for _ in range(9):
        await home.kernel.bus.emit("tick")
    health = home.health.check("ours")
    assert (health.active, health.recent_errors, health.health) == (True, 9, "critical")
    assert home.heard[-1][0] == "plugin:error"


# -- A13: the breaker


@pytest.mark.anyio
async def test_A13_past_the_threshold_it_is_off_at_once_and_is_said(start: Open) -> None:
    home = await start()
    await home.fail(2)
    assert home.active()
    await home.fail()
    assert not home.active()
    await home.heard.until("plugin:deactivated", "shaky")
    critical = [args for event, *args in home.heard if event == "error:critical"]
    [[error, origin]] = critical
    assert isinstance(error, BreakerError)
    assert error.plugin == "shaky"
    assert "3 errors within 60 s" in str(error)
    assert isinstance(origin, Origin)
    assert origin.plugin == "shaky"
    assert ("plugin:error", "shaky", error) in home.heard
    assert home.health.check("shaky").error_count == 3


@pytest.mark.anyio
async def test_A13_it_waits_for_no_call_that_runs_in_it(start: Open) -> None:
    home = await start()
    go = asyncio.Event()

    def load(context: Any) -> None:
        async def slow() -> None:
            await go.wait()

        context.hook("slow", slow, timeout=None)
        context.hook("fail:busy", lambda: 1 / 0)

    await home.kernel.load({"name": "busy", "version": "1.0.0", "load": load})
    slow = asyncio.create_task(home.kernel.bus.emit("slow"))
    await asyncio.sleep(0)
    await home.fail(3, "busy")
    assert not home.active("busy")
    assert ("deactivated", "busy") not in home.switched
    await home.heard.until("plugin:error", "busy", 4)  # reported while the call still runs
    assert not slow.done()
    go.set()
    await slow
    await home.heard.until("plugin:deactivated", "busy")


def using(name: str, service: str) -> dict[str, Any]:
    """A plugin that uses one service and provides another."""

    def load(context: Any) -> None:
        context.use(service)
        context.provide(name, object())

    return {"name": name, "version": "1.0.0", "load": load}


@pytest.mark.anyio
async def test_A13_those_that_use_its_services_go_and_come_with_it(start: Open) -> None:
    home = await start(cool_down=0.01)

    def load(context: Any) -> None:
        context.hook("fail:shop", lambda: 1 / 0)
        context.provide("shop", object())

    await home.kernel.load({"name": "shop", "version": "1.0.0", "load": load})
    await home.kernel.load(using("needy", "shop"))
    await home.kernel.load(using("needier", "needy"))
    await home.kernel.load(made("declares", dependencies=["shop", "needy"]))
    await home.kernel.load(made("other"))
    await home.fail(3, "shop")
    await home.heard.until("plugin:deactivated", "needier")
    assert not home.active("needy")
    assert home.active("other")
    assert home.active("declares")  # it uses nothing that is gone
    assert "plugin that it needs" in home.health.check("needy").reasons[0]
    await home.heard.until("plugin:activated", "needier", 2)
    assert home.active("shop")
    assert home.active("needy")
    assert home.health.check("needy").health == "healthy"
    assert [name for verb, name in home.switched if verb == "deactivated"] == [
        "needier", "needy", "shop",
    ]  # fmt: skip


@pytest.mark.anyio
async def test_A13_half_open_one_more_error_opens_it_for_twice_as_long(start: Open) -> None:
    home = await start(cool_down=0.01, max_cool_down=0.03)
    delays = []
    await home.fail(3)
    for turn in (1, 2, 3):
        await home.heard.until("plugin:activated", "shaky", turn + 1)
        health = home.health.check("shaky")
        assert (health.active, health.health) == (True, "warning")
        assert "on trial" in health.reasons[0]
        await home.fail()
        assert not home.active()
        await home.heard.until("plugin:deactivated", "shaky", turn + 1)
        errors = [args[0] for event, *args in home.heard if event == "error:critical"]
        delays.append(str(errors[-1]).rpartition("again in ")[2])
    assert delays == ["0.02 s.", "0.03 s.", "0.03 s."]


@pytest.mark.anyio
async def test_A13_a_quiet_trial_closes_it(start: Open) -> None:
    home = await start(cool_down=0.01, trial=0.01)
    await home.fail(3)
    await home.heard.until("plugin:activated", "shaky", 2)
    await eventually(lambda: home.health.check("shaky").health == "healthy")
    await home.fail(2)
    assert home.active()
    await home.fail()
    assert not home.active()


@pytest.mark.anyio
async def test_A13_a_plugin_that_fails_as_soon_as_it_is_on_stays_with_the_breaker(
    start: Open,
) -> None:
    home = await start(cool_down=0.01, error_threshold=0)

    def load(context: Any) -> None:
        def fail() -> None:
            raise ValueError("at once")

        async def work() -> None:
            while True:
                await asyncio.sleep(0)
                await context.kernel.fault(ValueError("at work"), plugin="eager")

        context.hook("plugin:activated", fail)
        context.spawn(work)

    await home.kernel.load({"name": "eager", "version": "1.0.0", "load": load})
    await home.heard.until("plugin:deactivated", "eager", 4)
    waits = [
        str(args[0]).rpartition("again in ")[2]
        for event, *args in home.heard
        if event == "error:critical"
    ]
    assert waits[:4] == ["0.01 s.", "0.02 s.", "0.04 s.", "0.08 s."]
    await home.kernel.unload("eager")


@pytest.mark.anyio
async def test_A13_one_that_cannot_be_switched_on_again_waits_longer(start: Open) -> None:
    home = await start(cool_down=0.01)
    broken = False

    def activate() -> None:
        if broken:
            raise OSError("port taken")

    await home.kernel.load({**made("late"), "activate": activate})
    broken = True
    await home.fail(3, "late")
    await home.heard.until("plugin:error", "late", 5)
    assert "port taken" in str(home.heard[-1][2])
    await eventually(lambda: home.health.check("late").health == "critical")
    assert "port taken" in home.health.check("late").reasons[0]
    broken = False
    await home.heard.until("plugin:activated", "late", 2)
    assert home.health.check("late").health == "warning"


@pytest.mark.anyio
async def test_A13_a_hook_may_refuse_it_and_that_is_said(start: Open) -> None:
    home = await start(cool_down=0.01)
    refuse = True

    def guard(name: str) -> None:
        if refuse and name == "shaky":
            raise PermissionError("not this one")

    home.kernel.bus.on("plugin:deactivate", guard)
    await home.fail(3)
    async with asyncio.timeout(5):
        while not any(one[0] == "error:critical" for one in home.heard):
            await home.heard._more.wait()
            home.heard._more.clear()
    assert home.active()
    error = next(error for event, error, *_ in home.heard if event == "error:critical")
    assert "could not be switched off" in str(error)
    assert "not this one" in str(error)
    with pytest.raises(RefusedError):
        await home.kernel.toggle("shaky", False)
    refuse = False
    await eventually(lambda: home.health.check("shaky").health == "healthy")
    await home.fail(3)
    assert not home.active()


# -- A13: by hand


@pytest.mark.anyio
async def test_A13_one_switched_on_by_hand_is_left_alone(start: Open) -> None:
    home = await start(cool_down=0.01)
    await home.fail(3)
    await home.kernel.toggle("shaky", True)
    assert home.health.check("shaky").health == "healthy"
    await home.fail(2)
    assert home.active()
    await home.fail()
    assert not home.active()


@pytest.mark.anyio
async def test_A13_one_switched_off_by_hand_on_trial_stays_off(start: Open) -> None:
    home = await start(cool_down=0.005)
    await home.fail(3)
    await home.heard.until("plugin:activated", "shaky", 2)
    await home.kernel.toggle("shaky", False)
    await home.kernel.load(made("other"))
    await home.fail(3, "other")
    await home.heard.until("plugin:activated", "other", 2)  # as long as that takes
    assert not home.active()
    assert home.health.check("shaky").health == "healthy"


@pytest.mark.anyio
async def test_A13_new_code_is_tried_at_once(start: Open) -> None:
    home = await start()
    await home.fail(3)
    await home.heard.until("plugin:deactivated", "shaky")
    assert not home.active()
    await home.kernel.reload({**made(), "load": lambda: None})
    await home.heard.until("plugin:activated", "shaky", 2)
    assert home.health.check("shaky").health == "warning"
    await home.kernel.reload(made())  # on trial: what is new again is not
    await home.fail(2)
    assert home.active()


@pytest.mark.anyio
async def test_A13_unloading_ends_it_and_nothing_is_kept(start: Open) -> None:
    home = await start()
    await home.fail(3)
    await home.heard.until("plugin:deactivated", "shaky")
    record = weakref.ref(home.kernel.get("shaky"))
    await home.kernel.unload("shaky")
    home.heard.clear()
    await eventually(lambda: gc.collect() >= 0 and record() is None)
    await home.kernel.load(made())
    assert home.health.check("shaky").health == "healthy"
    await home.fail(2)
    assert home.active()


@pytest.mark.anyio
async def test_A13_it_goes_on_after_health_was_off(start: Open) -> None:
    home = await start(cool_down=0.01)
    await home.kernel.load(made("other"))
    await home.fail(3)
    await home.fail(3, "other")
    await home.heard.until("plugin:deactivated", "shaky")
    await home.heard.until("plugin:deactivated", "other")
    await home.kernel.toggle("health", False)
    before = home.switched.count(("activated", "shaky"))
    if not home.active("other"):
        await home.kernel.toggle("other", True)
    await home.fail(9, "other")
    assert home.active("other")  # nobody counts
    await home.kernel.toggle("health", True)
    await home.heard.until("plugin:activated", "shaky", max(2, before))
    assert home.active()


# -- through the manager


def manager(root: Path, **options: Any) -> PluginManager:
    return PluginManager(root=root, max_retries=0, **{"auto_load": False, **options})


async def test_A7_A13_the_manager_answers_503_for_what_is_off(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        def broken() -> None:
            raise ValueError("broken")

        context.add_route("GET", "/broken", broken)
        context.add_route("GET", "/fine", lambda: {"fine": True})

    async with manager(tmp_path) as it:
        await it.load_plugin({"name": "shaky", "version": "1.0.0", "load": load})
        transport = httpx.ASGITransport(it.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [(await client.get("/broken")).status_code for _ in range(13)]
            assert answers == [500] * 11 + [503] * 2
            assert (await client.get("/fine")).json() == {"fine": True}
            health = it.check_plugin_health("shaky")
            assert (health.health, health.error_count, health.active) == ("critical", 11, True)
            assert it.error_count("shaky") == 11
            assert await it.toggle_plugin("shaky", True)
            assert (await client.get("/broken")).status_code == 500
            assert it.check_plugin_health("shaky").health == "healthy"


async def test_A13_thresholds_are_options(tmp_path: Path) -> None:
    async with manager(tmp_path, error_threshold=1, warn_threshold=0, adapter=None) as it:
        await it.load_plugin(made())
        await it.bus.emit("fail:shaky")
        assert it.check_plugin_health("shaky").health == "warning"
        await it.bus.emit("fail:shaky")
        assert it.check_plugin_health("shaky").health == "critical"


async def test_A13_switched_off_by_hand_it_is_not_tried_again(tmp_path: Path) -> None:
    health = Health(error_threshold=0, cool_down=0.02)
    async with manager(tmp_path, core={"health": health}, adapter=None) as it:
        heard = Heard(it.kernel, "plugin:activated", "plugin:deactivated")
        for name in ("shaky", "other"):
            await it.load_plugin(made(name))
            await it.bus.emit(f"fail:{name}")
            if name == "shaky":
                await it.toggle_plugin("shaky", False)
        await heard.until("plugin:activated", "other", 2)
        assert not it.kernel.get("shaky").active
        assert it.check_plugin_health("shaky").health == "healthy"


async def test_A13_switching_it_on_by_hand_does_not_silence_the_breaker(tmp_path: Path) -> None:
    health = Health(error_threshold=0, cool_down=FAR)

    def load(context: Any) -> None:
        context.hook("plugin:activated", lambda name: 1 / len(name[5:]))  # fails for `shaky`

    async with manager(tmp_path, core={"health": health}, adapter=None) as it:
        await it.load_plugin(made(load=load))
        await eventually(lambda: not it.kernel.get("shaky").active)
        assert await it.toggle_plugin("shaky", True)
        await eventually(lambda: not it.kernel.get("shaky").active)
        assert it.check_plugin_health("shaky").health == "critical"


async def test_A7_it_can_be_left_out(tmp_path: Path) -> None:
    async with manager(tmp_path, core={"health": None}, adapter=None) as it:
        await it.load_plugin(made())
        for _ in range(30):
            await it.bus.emit("fail:shaky")
        assert it.get_plugin("shaky").active
        assert it.error_count("shaky") == 30
        assert await it.toggle_plugin("shaky") is False
        with pytest.raises(Exception, match="health"):
            it.check_plugin_health("shaky")


async def test_A13_it_all_starts_anew_after_a_restart(tmp_path: Path) -> None:
    health = Health(error_threshold=0, cool_down=FAR)
    it = manager(tmp_path, core={"health": health}, adapter=None)
    async with it:
        await it.load_plugin(made())
        await it.bus.emit("fail:shaky")
        assert it.check_plugin_health("shaky").health == "critical"
        await it.restart()
        assert it.get_plugin("shaky") is not None
        assert it.check_plugin_health("shaky").health == "healthy"


async def test_A13_what_the_application_requires_is_never_switched_off(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "guard.py").write_text(
        "name = 'guard'\nversion = '1'\n"
        "def fail(value):\n    raise ValueError('broke')\n"
        "def load(context):\n    context.hook('ask', fail)\n"
    )
    async with PluginManager(plugins_dir=folder, required=["guard"], adapter=None) as manager:
        for _ in range(20):
            await manager.bus.emit("ask", 1)
        health = manager.check_plugin_health("guard")
        assert (health.active, health.health, health.error_count) == (True, "critical", 20)
