"""Restarting the manager from wherever it is asked for, and what a restart keeps."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko import State, StateError, VekoError
from veko_plugins import PluginManager, Request

pytestmark = pytest.mark.anyio
SECONDS = 5.0
"""Within this everything here ends; calls would be cut off after `drain_timeout`, 30 s."""


def plugin(load: Callable[..., Any], name: str = "p", **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(int(SECONDS / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


@pytest.mark.parametrize("verb", ["restart", "stop"])
async def test_A0_a_request_is_answered_that_restarts_the_application(
    home: Any, serve: Any, verb: str
) -> None:
    ended: list[str] = []
    manager = home.manager(adapter="litestar")

    def load(context: Any) -> None:
        async def again() -> str:
            await getattr(manager, verb)()
            return f"{manager.state} after {verb}"

        context.add_route("GET", "/again", again)
        context.add_route("GET", "/alive", lambda: "alive")

    async with manager, serve(manager) as client, asyncio.timeout(SECONDS):
        await manager.load_plugin(plugin(load, unload=lambda: ended.append("unloaded")))
        for count in (1, 2):
            answer = await client.get("/again")
            wanted = "running after restart" if verb == "restart" else "stopped after stop"
            assert (answer.status_code, answer.text) == (200, wanted)
            assert ended == ["unloaded"] * count
            if verb == "stop":
                assert (await client.get("/alive")).status_code == 503
                return
            assert (await client.get("/alive")).text == "alive"


@pytest.mark.parametrize("event", ["x", "request:start", "plugin:loaded"])
async def test_A0_a_hook_returns_that_restarts_the_application(
    home: Any, serve: Any, event: str
) -> None:
    heard: list[str] = []
    manager = home.manager()

    def load(context: Any) -> None:
        async def hook(*_: Any) -> None:
            if not heard:
                heard.append("begins")
                await manager.restart()
                heard.append(manager.state)

        context.hook(event, hook)
        context.add_route("GET", "/alive", lambda: "alive")

    async with manager, serve(manager) as client, asyncio.timeout(SECONDS):
        await manager.load_plugin(plugin(load))
        if event == "x":
            await manager.bus.emit("x")
        elif event == "plugin:loaded":
            await manager.load_plugin(plugin(lambda: None, "other"))
        assert (await client.get("/alive")).text == "alive"
        assert heard == ["begins", "running"]
        assert manager.get_plugin("p") is not None


@pytest.mark.parametrize("how", ["spawn", "every", "command"])
async def test_A0_a_task_and_a_command_restart_the_application(home: Any, how: str) -> None:
    began: list[str] = []
    manager = home.manager()

    async def again(*_: Any) -> str:
        if not began:
            began.append(how)
            await manager.restart()
        return "done"

    def load(context: Any) -> None:
        if how == "spawn":
            context.spawn(again)
        elif how == "every":
            context.every(0.01, again)
        else:
            context.add_command("again", again)

    async with manager, asyncio.timeout(SECONDS):
        restarted = asyncio.Event()
        manager.on("app:start", lambda: restarted.set())
        await manager.load_plugin(plugin(load))
        if how == "command":
            assert await manager.run_command("again") == "done"
        await restarted.wait()
        await until(lambda: manager.state == "running")
        assert manager.get_plugin("p") is not None


async def test_A0_restart_keeps_plugins_toggles_and_configurations(
    home: Any, tmp_path: Path
) -> None:
    """Those from files load again from their files, as these are now."""
    home.plugin("base")
    home.plugin("filed", dependencies=["given"], default_config={"a": 1})
    away = tmp_path / "elsewhere.py"
    away.write_text('name = "elsewhere"\nversion = "1.0.0"\ndef load(): pass\n')
    given = plugin(lambda: None, "given", dependencies=["base"])
    async with home.manager() as manager, asyncio.timeout(SECONDS):
        assert set(manager.report.failed) == {"filed"}
        await manager.load_plugin(given, {"secret": object})
        await manager.load_plugin("filed", {"a": 2})
        await manager.load_plugin(away, {"deep": {"x": 1}})
        await manager.kernel.update_config("filed", {"b": 3})
        await manager.toggle_plugin("filed")
        away.write_text(away.read_text().replace("1.0.0", "1.1.0"))
        home.plugin("fresh")
        for _ in "12":
            await manager.restart()
            assert manager.report.failed == {}
            state = {one.name: one.active for one in manager.list_plugins()}
            assert state == {
                "base": True, "given": True, "filed": False, "elsewhere": True, "fresh": True,
            }  # fmt: skip
            assert manager.get_plugin("filed").config == {"a": 2, "b": 3}
            assert manager.get_plugin("given").config == {"secret": object}
            assert manager.get_plugin("elsewhere").config == {"deep": {"x": 1}}
            assert manager.get_plugin("elsewhere").version == "1.1.0"
            assert manager.get_plugin("given").module is given


async def test_A0_a_restart_without_auto_load_loads_what_was_loaded(home: Any) -> None:
    home.plugin("one")
    home.plugin("two")
    async with home.manager(auto_load=False) as manager:
        await manager.load_plugin("one")
        await manager.restart()
        assert [one.name for one in manager.list_plugins()] == ["one"]


async def test_A0_a_plugin_whose_file_is_gone_is_reported_by_a_restart(home: Any) -> None:
    path = home.plugin("one")
    home.plugin("two", dependencies=["one"])
    async with home.manager() as manager:
        path.unlink()
        await manager.restart()
        assert set(manager.report.failed) | set(manager.report.skipped) == {"one", "two"}
        assert manager.list_plugins() == []


async def test_A0_two_restarts_at_once_are_one(home: Any) -> None:
    home.plugin("one")
    stops: list[str] = []
    async with home.manager() as manager, asyncio.timeout(SECONDS):
        manager.on("app:stop", lambda: stops.append("stop"))
        await asyncio.gather(manager.restart(), manager.restart(), manager.restart())
        assert stops == ["stop"]
        assert manager.state == "running"
        assert manager.get_plugin("one") is not None


async def test_A0_stopping_wins_over_a_restart(home: Any) -> None:
    home.plugin("slow", "import asyncio\nasync def load(): await asyncio.sleep(0.05)")
    async with asyncio.timeout(SECONDS):
        for pause in (0.0, 0.02, 0.08):
            manager = home.manager()
            await manager.start()
            restarting = asyncio.create_task(manager.restart())
            await asyncio.sleep(pause)
            await manager.stop()
            [outcome] = await asyncio.gather(restarting, return_exceptions=True)
            assert outcome is None or isinstance(outcome, StateError)
            assert manager.state == "stopped"


async def test_A0_a_caller_that_is_cancelled_does_not_take_the_restart_with_it(home: Any) -> None:
    home.plugin("one")
    async with home.manager() as manager, asyncio.timeout(SECONDS):
        started = asyncio.Event()
        manager.on("app:start", lambda: started.set())
        restarting = asyncio.create_task(manager.restart())
        await asyncio.sleep(0)
        restarting.cancel()
        await started.wait()
        await asyncio.wait([restarting])
        assert restarting.cancelled()
        await until(lambda: manager.state == "running")


async def test_A0_a_restart_that_does_not_come_back_says_why(
    home: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = home.plugin("one")
    manager = home.manager(required=["one"])
    await manager.start()
    path.write_text("name = 'one'\nversion = '1'\ndef load(): 1 / 0\n")
    with caplog.at_level(logging.ERROR), pytest.raises(VekoError, match="one"):
        await manager.restart()
    assert manager.state == "stopped"
    assert "did not start again" in caplog.text


@pytest.mark.parametrize("verb", ["restart", "stop"])
@pytest.mark.parametrize("event", ["app:restart", "app:stop", "app:start"])
async def test_A0_handlers_of_a_restart_cannot_wait_for_it(
    home: Any, event: str, verb: str
) -> None:
    raised: list[str] = []
    manager = home.manager()
    acting = False

    async def act() -> None:
        if acting:
            try:
                await getattr(manager, verb)()
            except StateError as error:
                raised.append(str(error))

    manager.bus.on(event, act)
    await manager.start()
    acting = True
    async with asyncio.timeout(SECONDS):
        [outcome] = await asyncio.gather(manager.restart(), return_exceptions=True)
        acting = False
        await manager.stop()
    if verb == "restart":
        assert outcome is None
        assert "cannot restart" in raised[0]
    assert manager.state == "stopped"


@pytest.mark.parametrize("verb", ["restart", "stop"])
async def test_A0_load_cannot_wait_for_the_end_of_the_application(home: Any, verb: str) -> None:
    manager: PluginManager = home.manager()

    async def load() -> None:
        await getattr(manager, verb)()

    async with manager, asyncio.timeout(SECONDS):
        with pytest.raises(VekoError, match="within an operation"):
            await manager.load_plugin(plugin(load))
        assert manager.state == "running"


async def test_A0_a_server_outlives_a_restart(home: Any) -> None:
    """`veko serve` serves the same application before and after, and 503 meanwhile."""
    hold, holding = asyncio.Event(), asyncio.Event()
    manager = home.manager()

    async def unload() -> None:
        holding.set()
        await hold.wait()

    def load(context: Any) -> None:
        async def again(request: Request) -> str:
            await manager.restart()
            return "back"

        context.add_route("GET", "/again", again)
        context.add_route("GET", "/alive", lambda: "alive")

    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with manager, asyncio.timeout(SECONDS):
        await manager.load_plugin(plugin(load))
        await manager.load_plugin(plugin(lambda: None, "slow", unload=unload))
        server = asyncio.create_task(
            manager.use("http").serve(
                port=0,
                started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
                stop=stop,
            )
        )
        async with httpx.AsyncClient(base_url=await listening) as client:
            first = asyncio.create_task(client.get("/again"))
            await holding.wait()
            assert (await client.get("/nothing")).status_code in {404, 503}
            hold.set()
            assert (await first).text == "back"
            assert (await client.get("/alive")).text == "alive"
        stop.set()
        await server


async def test_A0_what_a_breaker_has_off_is_tried_again_by_a_restart(home: Any) -> None:
    def fail() -> None:
        raise ValueError("always")

    async with home.manager(error_threshold=2) as manager, asyncio.timeout(SECONDS):
        await manager.load_plugin(plugin(lambda context: context.hook("x", fail)))
        for _ in range(5):
            await manager.bus.emit("x")
        record = manager.get_plugin("p")
        await until(lambda: record.state is State.INACTIVE)
        await manager.restart()
        assert manager.get_plugin("p").active
