"""The recorder: what is recorded, how much of it, and what is never written."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from veko import ConfigError
from veko_plugins import PluginManager
from veko_plugins.recording import Recorder, Recording, RecordingError, ask_running, read_recording
from veko_plugins.recording.entries import Command, Emission, Failure, Request, Socket, Task
from veko_plugins.testing.client import Client

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


SHOP = """
name, version = "shop", "1.0.0"


def load(app, config, context):
    @context.hook("order:placed")
    async def reserve(order, password=None):
        if order["count"] < 0:
            raise ValueError("no such count")
        await context.emit("reserved", order["count"])
        order["reserved"] = True

    @context.hook("login")
    def login(user, password):
        return None

    @context.hook("plugin:shop:reserved")
    def seen(count):
        return count + 1

    async def buy(request):
        data = await request.json()
        return {"bought": data["item"]}

    async def echo(socket):
        await socket.accept()
        async for message in socket:
            if message == "boom":
                raise RuntimeError("boom")
            await socket.send(message.upper())

    async def prune(days: int):
        if days == 0:
            raise LookupError("nothing to prune")
        return days

    context.add_route("POST", "/buy", buy)
    context.add_websocket("/echo", echo)
    context.add_command("prune", prune)
"""


def manager_of(root: Path, **config: Any) -> PluginManager:
    root.joinpath("plugins").mkdir(exist_ok=True)
    root.joinpath("plugins", "shop.py").write_text(SHOP)
    sections = {"recording": {"control": False, **config}}
    return PluginManager(
        root=root, adapter="asgi", storage="memory:", max_retries=0, watchdog=0, plugins=sections
    )


async def recorded(manager: PluginManager) -> Recording:
    return read_recording(await manager.use("recording").dump())


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task or thread does."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the code under test sets no event
            await asyncio.sleep(0.01)


def of(recording: Recording, kind: type[Any]) -> list[Any]:
    return [one for one in recording.entries if type(one) is kind]


async def test_emissions_are_recorded_as_they_began_and_with_what_came_of_them(
    tmp_path: Path,
) -> None:
    async with manager_of(tmp_path) as manager:
        order = {"count": 2, "tags": ("a", b"b", {1})}
        await manager.bus.emit("order:placed", order)
        found = await recorded(manager)
    placed, reserved = of(found, Emission)
    assert (placed.event, reserved.event) == ("order:placed", "plugin:shop:reserved")
    assert placed.args[0]["count"] == 2
    assert "reserved" not in placed.args[0], "handlers change what they get"
    assert placed.outcome[0]["reserved"] is True
    assert reserved.parent == placed.number
    assert placed.parent is None
    assert reserved.args == [2]
    assert reserved.outcome == [3]
    assert found.cut is None
    assert [one.name for one in found.plugins] == ["shop"]


@pytest.mark.parametrize("hot", [False, True])
async def test_plans_and_loops_record_alike(tmp_path: Path, hot: bool) -> None:
    async with manager_of(tmp_path) as manager:
        for _ in range(1500 if hot else 0):
            await manager.bus.emit("login", "ann", "geheim")
        manager.use("recording").start()
        await manager.bus.emit("login", "bob", "hunter2", "more")
        *_, last = of(await recorded(manager), Emission)
        assert last.event == "login"
        assert last.args == ["bob", "********", "more"]
        assert last.outcome is None


async def test_a_request_is_recorded_with_body_and_answer_and_without_secrets(
    tmp_path: Path,
) -> None:
    async with manager_of(tmp_path) as manager, Client(manager.asgi) as client:
        await client.post(
            "/buy?token=t0p&x=1",
            json={"item": "pen", "card": {"password": "p4ss"}},
            headers={"authorization": "Bearer abc", "x-api-key": "k3y"},
        )
        dumped = await manager.use("recording").dump()
        (request,) = of(read_recording(dumped), Request)
    assert request.method == "POST"
    assert request.url == "/buy?token=%2A%2A%2A%2A%2A%2A%2A%2A&x=1"
    assert msgspec.json.decode(request.body) == {"item": "pen", "card": {"password": "********"}}
    assert request.status == 200
    assert msgspec.json.decode(request.answer) == {"bought": "pen"}
    text = dumped.read_text()
    assert not [secret for secret in ("t0p", "p4ss", "abc", "k3y") if secret in text]
    assert len(request.masked) == 4


async def test_a_websocket_a_command_and_their_failures_are_recorded(tmp_path: Path) -> None:
    async with manager_of(tmp_path, dump_on_failure=False) as manager:
        async with Client(manager.asgi) as client, client.websocket("/echo") as socket:
            await socket.send("hello")
            assert await socket.receive() == "HELLO"
            await socket.send("boom")
            with pytest.raises(Exception, match="1011"):
                await socket.receive()
        with pytest.raises(LookupError):
            await manager.run_command("prune", 0)
        await manager.run_command("prune", days=3)
        found = await recorded(manager)
    (socket_entry,) = of(found, Socket)
    assert socket_entry.received == ["hello", "boom"]
    assert socket_entry.sent == ["HELLO"]
    assert socket_entry.closed == 1011
    failed, fine = of(found, Command)
    assert (failed.args, failed.failed) == ([0], "LookupError")
    assert (fine.named, fine.outcome) == ({"days": 3}, [3])
    first, second = of(found, Failure)
    assert (first.plugin, first.error, first.parent) == (
        "shop",
        "RuntimeError",
        socket_entry.number,
    )
    assert (second.error, second.parent) == ("LookupError", failed.number)
    assert second.line is not None
    assert found.stimuli == [socket_entry, failed, fine]


async def test_a_failure_writes_a_file_once_for_its_kind(tmp_path: Path) -> None:
    async with manager_of(tmp_path) as manager:
        recorder: Recorder = manager.use("recording")
        for _ in range(3):
            await manager.bus.emit("order:placed", {"count": -1})
        await until(recorder.files)
        await manager.bus.emit("order:placed", {"count": -1})
        await asyncio.sleep(0.2)
        (file,) = recorder.files()
    found = read_recording(file)
    assert found.header.why == "shop failed: ValueError"
    failure = found.failures[0]
    assert found.ancestors(failure)[0].event == "order:placed"  # type: ignore[union-attr]
    assert failure.message == "no such count"
    assert file.stat().st_mode & 0o077 == 0


async def test_the_tape_is_bounded_in_entries_and_bytes(tmp_path: Path) -> None:
    async with manager_of(tmp_path, entries=1000, megabytes=1) as manager:
        recorder: Recorder = manager.use("recording")
        for number in range(5000):
            await manager.bus.emit("login", number, "")
        assert 700 <= len(recorder._tape) <= 1000 + 257
        for _ in range(1000):
            await manager.bus.emit("login", "x" * 20_000, "")
        assert recorder._tape._bytes <= 2**20
        for _ in range(3000):
            await manager.bus.emit("login", "x" * 200_000, "")
        assert recorder._tape.dropped > 0
        found = await recorded(manager)
    assert found.header.dropped > 0
    assert "$opaque" in of(found, Emission)[-1].args[0]


class Odd:
    """Has a representation that fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Order(msgspec.Struct):
    """A payload of the application's own."""

    item: str
    secret_code: str


async def test_what_cannot_be_written_is_opaque(tmp_path: Path) -> None:
    circle: list[Any] = []
    circle.append(circle)
    async with manager_of(tmp_path) as manager:
        for value in (Odd(), object(), circle, lambda: None, 2**80, float("nan"), Order("a", "b")):
            await manager.bus.emit("login", value, {"fine": 1})
        found = of(await recorded(manager), Emission)
    odd, thing, round_, function, big, nan, order = [one.args[0] for one in found]
    assert "RuntimeError" in odd["$opaque"]
    assert "object" in thing["$opaque"]
    assert "deeply" in str(round_)
    assert "lambda" in function["$opaque"]
    assert big == {"$int": hex(2**80)}
    assert nan == {"$float": "nan"}
    assert order["$struct"][2] == {"item": "a", "secret_code": "********"}


async def test_stopped_it_puts_nothing_around_emissions(tmp_path: Path) -> None:
    async with manager_of(tmp_path, always=False) as manager:
        recorder: Recorder = manager.use("recording")

        def around() -> int:
            plan = manager.bus.plan("login")
            assert plan is not None
            return len(plan._around)

        off = around()
        await manager.bus.emit("login", 1, "")
        assert len(recorder._tape) == 0
        recorder.start()
        assert around() == off + 1
        await manager.bus.emit("login", 1, "")
        found = read_recording(await recorder.stop())
        assert [one.event for one in of(found, Emission)] == ["login"]
        assert around() == off
        with pytest.raises(RecordingError, match="does not record"):
            await recorder.stop()


async def test_a_running_application_is_asked_from_outside(tmp_path: Path) -> None:
    async with manager_of(tmp_path, always=False, control=True) as manager:
        folder = manager.use("recording").folder
        await until(folder.joinpath("control.json").exists)
        assert folder.joinpath("control.json").stat().st_mode & 0o077 == 0
        assert not (await asyncio.to_thread(ask_running, folder, "where")).recording
        assert (await asyncio.to_thread(ask_running, folder, "start")).recording
        await manager.bus.emit("login", 1, "")
        answer = await asyncio.to_thread(ask_running, folder, "stop")
        assert answer.path is not None
        assert len(read_recording(answer.path).entries) == 1
        with pytest.raises(RecordingError, match="does not record"):
            await asyncio.to_thread(ask_running, folder, "stop")
    assert not folder.joinpath("control.json").exists()
    with pytest.raises(RecordingError, match="not running"):
        ask_running(folder, "where")


async def test_a_folder_that_cannot_be_written_is_a_warning_and_the_application_runs_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a file"
    folder.write_text("in the way")
    async with manager_of(tmp_path, folder=str(folder)) as manager:
        await manager.bus.emit("order:placed", {"count": -1})
        await until(lambda: "cannot be written" in caplog.text)
        await manager.bus.emit("login", 1, "")
        with pytest.raises(RecordingError, match="cannot be written"):
            await manager.use("recording").dump()


def test_a_wrong_configuration_is_refused(tmp_path: Path) -> None:
    async def start() -> None:
        async with manager_of(tmp_path, entries=-1):
            pass

    with pytest.raises(ConfigError, match="recording"):
        asyncio.run(start())


async def test_tasks_are_recorded_as_what_causes_emissions(tmp_path: Path) -> None:
    tmp_path.joinpath("plugins").mkdir()
    tmp_path.joinpath("plugins", "timer.py").write_text(
        "name, version = 'timer', '1.0.0'\n"
        "def load(app, config, context):\n"
        "    context.hook('plugin:timer:tick', lambda n: None)\n"
        "    async def tick():\n"
        "        await context.emit('tick', 1)\n"
        "        raise OSError('gone')\n"
        "    context.spawn(tick)\n"
    )
    async with manager_of(tmp_path, dump_on_failure=False) as manager:
        deadline = time.monotonic() + 10
        while not (failures := of(found := await recorded(manager), Failure)):
            assert time.monotonic() < deadline
    (task,) = [one for one in of(found, Task) if one.plugin == "timer"]
    (tick,) = [one for one in of(found, Emission) if one.event == "plugin:timer:tick"]
    assert (task.plugin, tick.parent, failures[0].parent) == ("timer", task.number, task.number)
    assert found.stimuli == []
