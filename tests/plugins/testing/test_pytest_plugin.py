"""The pytest plugin: what its fixtures give, what its checks find, what it costs."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = 120
GREETER = """
import asyncio
from pathlib import Path

name = "greeter"
version = "1.0.0"
default_config = {"greeting": "hello"}

def load(context):
    def greet(who: str) -> str:
        return f"{context.config['greeting']} {who}"

    async def echo(socket):
        async for message in socket:
            if message == "bye":
                break
            await socket.send(message.upper())

    async def tick():
        await context.emit("tick", 1)

    def on_greeting(text):
        return text + "!"

    context.add_route("GET", "/greet/{who}", greet)
    context.add_websocket("/echo", echo)
    context.hook("greeting", on_greeting)
    context.every(60, tick)
"""
Outcomes = dict[str, str]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Outcomes, str]]:
    """Run a file of tests in a pytest with this plugin and anyio's; return outcomes and output."""

    def run(body: str, *words: str, ini: str = "") -> tuple[Outcomes, str]:
        (tmp_path / "greeter.py").write_text(GREETER)
        (tmp_path / "pytest.ini").write_text(
            f"[pytest]\nanyio_mode = auto\nfilterwarnings = error\n{ini}\n"
        )
        (tmp_path / "test_it.py").write_text(
            "import asyncio, signal, sys, threading, time\nfrom pathlib import Path\n"
            "import anyio, pytest\n\nPLUGIN = Path(__file__).with_name('greeter.py')\n"
            f"BACKENDS = [('asyncio', {{}})]\n{body}"
        )
        words = words or ("-p", "veko_pytest")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider",
             "-p", "anyio", "--strict-markers", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"},
        )  # fmt: skip
        text = done.stdout + done.stderr
        outcomes: Outcomes = {}
        for line in text.splitlines():
            if line.startswith("test_it.py::"):
                name, _, outcome = line.removeprefix("test_it.py::").partition(" ")
                found = outcome.split()[0]
                outcomes[name] = "ERROR" if found == "ERROR" else found
        return outcomes, text

    return run


ON_ASYNCIO = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"


def test_the_fixtures(run: Callable[..., tuple[Outcomes, str]]) -> None:
    outcomes, text = run(
        ON_ASYNCIO
        + """
async def test_http(load_plugin, client):
    await load_plugin(PLUGIN, {"greeting": "good morning"})
    assert (await client.get("/greet/ann")).text == "good morning ann"
    assert (await client.get("/nothing")).status_code == 404

async def test_websocket(load_plugin, client):
    await load_plugin(PLUGIN)
    async with client.websocket("/echo") as socket:
        await socket.send("hi")
        assert await socket.receive() == "HI"
    with pytest.raises(Exception, match="refused with 404|closed with"):
        async with client.websocket("/nothing"):
            pass

async def test_recorder(load_plugin, manager, bus_recorder):
    await load_plugin(PLUGIN)
    assert (await bus_recorder.wait_for("plugin:loaded")).value == "greeter"
    async def later():
        await asyncio.sleep(0)
        await manager.bus.emit("greeting", "one")
        await manager.bus.emit("greeting", "two")
    task = asyncio.create_task(later())
    found = await bus_recorder.wait_for("greeting", lambda text: text == "two")
    assert found.args == ("two",)
    await task
    assert [one.value for one in bus_recorder["greeting"]] == ["one", "two"]
    assert "nobody:listens" not in bus_recorder
    await manager.bus.emit("nobody:listens", 1, 2)
    assert bus_recorder["nobody:listens"][0].args == (1, 2)
    with pytest.raises(AssertionError, match="'never' was not emitted within 0.01 s; .*greeting"):
        await bus_recorder.wait_for("never", timeout=0.01)

async def test_clock(load_plugin, bus_recorder, clock):
    await load_plugin(PLUGIN)
    begin, wall = time.perf_counter(), time.time()
    await clock.move(59)
    assert len(bus_recorder["plugin:greeter:tick"]) == 0
    await clock.move(1.5)
    assert len(bus_recorder["plugin:greeter:tick"]) == 1
    await clock.move(3600)
    assert len(bus_recorder["plugin:greeter:tick"]) == 61
    assert time.time() - wall > 3660
    assert time.perf_counter() - begin < 60
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(500):
            await clock.move(501)
            await asyncio.sleep(0)

async def test_kernel(kernel, load_plugin, bus_recorder):
    def load(context):
        context.hook("x", lambda value: 2)
    await load_plugin({"name": "a", "version": "1", "load": load})
    assert await kernel.bus.emit("x", 1) == 2
    await bus_recorder.wait_for("x")

async def test_leaks(load_plugin, manager, plugin_leaks):
    await load_plugin(PLUGIN)
    await manager.reload_plugin("greeter")
    assert await plugin_leaks("greeter") == []
    sys.held = manager.get_plugin("greeter").module.load
    await manager.reload_plugin("greeter")
    (leak,) = await plugin_leaks("greeter")
    assert (leak.holder, leak.held) == ("attribute `held` of module sys", "function load")
    del sys.held

def test_sync(manager, plugin_failures):
    assert manager.state == "running"

@pytest.fixture
def veko_options():
    return {"adapter": "asgi", "storage": "none"}

async def test_options(manager):
    assert manager.options.adapter == "asgi"
"""
    )
    assert set(outcomes.values()) == {"PASSED"}, text
    assert len(outcomes) == 8


def test_a_plugins_failure_fails_the_test(run: Callable[..., tuple[Outcomes, str]]) -> None:
    outcomes, text = run(
        ON_ASYNCIO
        + """
async def test_fails(load_plugin, manager):
    await load_plugin(PLUGIN)
    assert await manager.bus.emit("greeting", 7) == 7

async def test_expects(load_plugin, manager, plugin_failures):
    await load_plugin(PLUGIN)
    with plugin_failures.expect(TypeError, plugin="greeter", match="unsupported") as found:
        await manager.bus.emit("greeting", 7)
    assert found[0].handler.endswith("on_greeting")
    with pytest.raises(AssertionError, match="nothing failed"):
        with plugin_failures.expect():
            await manager.bus.emit("greeting", "x")

async def test_expects_another(load_plugin, manager, plugin_failures):
    await load_plugin(PLUGIN)
    with pytest.raises(AssertionError, match="did not happen: greeter: .*TypeError"):
        with plugin_failures.expect(KeyError):
            await manager.bus.emit("greeting", 7)

async def test_allows(load_plugin, manager, plugin_failures):
    await load_plugin(PLUGIN)
    plugin_failures.allow("greeter")
    await manager.bus.emit("greeting", 7)
    assert len(plugin_failures.failures) == 1

@pytest.mark.plugin_failures("greeter")
async def test_marked(load_plugin, manager):
    await load_plugin(PLUGIN)
    await manager.bus.emit("greeting", 7)

@pytest.mark.plugin_failures("another")
async def test_marked_for_another(load_plugin, manager):
    await load_plugin(PLUGIN)
    await manager.bus.emit("greeting", 7)

@pytest.mark.plugin_failures
async def test_unloading(load_plugin, manager):
    def unload():
        raise ValueError("in unload")
    await load_plugin({"name": "bad", "version": "1", "load": lambda: None, "unload": unload})

async def test_unloading_fails(load_plugin):
    def unload():
        raise ValueError("in unload")
    await load_plugin({"name": "bad", "version": "1", "load": lambda: None, "unload": unload})

async def test_the_hosts_own_failures_are_its_own(manager):
    manager.bus.on("x", lambda value: 1 / 0)
    await manager.bus.emit("x", 1)
"""
    )
    assert outcomes["test_fails"] == outcomes["test_marked_for_another"] == "FAILED", text
    assert outcomes.pop("test_unloading_fails") == "ERROR", text
    failed = {name for name, outcome in outcomes.items() if outcome != "PASSED"}
    assert failed == {"test_fails", "test_marked_for_another"}, text
    assert "on_greeting on greeting failed at" in text
    assert re.search(r"failed at .*greeter.py:\d+: TypeError", text)


def test_what_a_test_leaves_behind_fails_it(run: Callable[..., tuple[Outcomes, str]]) -> None:
    leaks = {
        "task": ("async def wait():\n        await asyncio.sleep(60)\n"
                 "    asyncio.get_running_loop().kept = asyncio.create_task(wait(), name='lost')",
                 "task: 'lost'"),
        "timer": ("asyncio.get_running_loop().call_later(60, print)", "timer: <TimerHandle"),
        "thread": ("threading.Thread(target=time.sleep, args=(20,), name='slow',"
                   " daemon=True).start()", "thread: 'slow'"),
        "signal": ("signal.signal(signal.SIGUSR1, lambda *_: None)", "signal handler: .*SIGUSR1"),
        "module": ("record = manager.get_plugin('greeter')\n"
                   "    sys.modules['alias'] = record.module", "module in sys.modules: alias"),
        "listener": ("record = manager.get_plugin('greeter')\n"
                     "    manager.bus.on('x', record.module.load)", "greeter: registration: hook"),
        "handler": ("import logging\n    logging.getLogger('mine').addHandler("
                    "logging.NullHandler())", "log handler: .*of logger 'mine'"),
        "cwd": ("import os\n    os.chdir('/')", "working directory: /"),
    }  # fmt: skip
    body = ON_ASYNCIO
    for name, (code, _) in leaks.items():
        body += (
            f"\nasync def test_{name}(manager, load_plugin):\n"
            f"    await load_plugin(PLUGIN)\n    {code}\n"
        )
    body += """
@pytest.mark.leaves_behind("on purpose")
async def test_marked(manager):
    asyncio.get_running_loop().call_later(60, print)

async def test_clean(manager, load_plugin):
    await load_plugin(PLUGIN)
    async def wait():
        await asyncio.sleep(0)
    asyncio.create_task(wait())
"""
    _, text = run(body)
    for name, (_, expected) in leaks.items():
        assert re.search(rf"test_{name} ERROR", text), (name, text)
        assert re.search(expected, text), (name, text)
    assert "test_marked PASSED" in text
    assert "test_clean PASSED" in text
    assert "test_clean ERROR" not in text
    assert "test_marked ERROR" not in text


def test_backends(run: Callable[..., tuple[Outcomes, str]]) -> None:
    outcomes, text = run(
        """
@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

async def test_kernel(kernel, load_plugin, bus_recorder, clock):
    calls = []
    def load(context):
        context.every(10, lambda: calls.append(anyio.current_time()))
        context.hook("x", lambda value: value + 1)
    await load_plugin({"name": "a", "version": "1", "load": load})
    assert await kernel.bus.emit("x", 1) == 2
    await clock.move(100.5)
    assert len(calls) == 10
    assert [round(b - a) for a, b in zip(calls, calls[1:])] == [10] * 9

async def test_manager(manager):
    assert manager.state == "running"
"""
    )
    assert outcomes == {
        "test_kernel[asyncio]": "PASSED",
        "test_kernel[trio]": "PASSED",
        "test_manager[asyncio]": "PASSED",
        "test_manager[trio]": "SKIPPED",
    }, text


def test_the_checks_can_be_switched_off(run: Callable[..., tuple[Outcomes, str]]) -> None:
    body = (
        ON_ASYNCIO
        + """
async def test_both(manager, load_plugin):
    await load_plugin(PLUGIN)
    await manager.bus.emit("greeting", 7)
    asyncio.get_running_loop().call_later(60, print)
"""
    )
    outcomes, text = run(body, ini="veko_checks =")
    assert outcomes == {"test_both": "PASSED"}, text
    outcomes, text = run(body, ini="veko_checks = everything")
    assert outcomes == {}
    assert "everything" in text


def test_projects_own_fixtures_win(run: Callable[..., tuple[Outcomes, str]]) -> None:
    outcomes, text = run("""
@pytest.fixture
def manager():
    return "mine"

@pytest.fixture
def plugin_failures():
    return "mine too"

def test_own(manager, plugin_failures):
    assert (manager, plugin_failures) == ("mine", "mine too")
""")
    assert outcomes == {"test_own": "PASSED"}, text


def test_it_imports_nothing_until_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    heavy = ('veko', 'veko_plugins', 'msgspec', 'httpx')\n"
        "    assert [name for name in heavy if name in sys.modules] == []\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "veko_pytest"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout
