"""The life of a plugin, simulated with the whole manager: what holds, and planted faults."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from veko import LoadTimeout
from veko.testing import Simulation, SimulationFailure, TaskLeft, simulate
from veko_plugins import PluginManager
from veko_plugins.testing import PluginLife

RUNS = 60
SOUND = """
import asyncio
name = "shop"
version = "1.0.0"

class Cart:
    closed = False
    async def put(self):
        assert not self.closed, "used after unload()"
        await asyncio.sleep(0)

async def load(context):
    cart = Cart()
    global close
    def close():
        cart.closed = True
    async def buy():
        await cart.put()
        context.storage.set("sold", context.storage.get("sold", 0) + 1)
        return "sold"
    async def loaded(name, plugin):
        await cart.put()
    async def tick():
        while True:
            await asyncio.sleep(1)
            await cart.put()
    context.add_route("GET", "/buy", buy)
    context.add_route("GET", "/wait", lambda: "in a thread")
    context.hook("plugin:loaded", loaded)
    context.provide("cart", cart)
    await asyncio.sleep(0.1)
    context.spawn(tick)

def unload():
    close()
"""
FAULTS: dict[str, tuple[str, str, type[BaseException] | tuple[type[BaseException], ...]]] = {
    "a task that outlives it": (
        "    context.spawn(tick)",
        "    tasks.append(asyncio.create_task(tick()))",
        (AssertionError, TaskLeft),
    ),
    "unload that waits for what never comes": (
        "def unload():\n    close()",
        "async def unload():\n    close()\n    await asyncio.Event().wait()",
        LoadTimeout,
    ),
    "a route that only the first generation has": (
        '    context.add_route("GET", "/wait"',
        '    if len(tasks) == 0: tasks.append(1); context.add_route("GET", "/wait"',
        AssertionError,
    ),
    "closed before its calls have ended": (
        "def unload():\n    close()",
        "def deactivate():\n    close()\n\ndef unload():\n    pass",
        AssertionError,
    ),
}


@pytest.fixture
def life(tmp_path: Path) -> Callable[..., PluginLife]:
    def make(text: str, **options: Any) -> PluginLife:
        file = tmp_path / "plugins" / "shop.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

        def manager() -> PluginManager:
            return PluginManager(
                root=tmp_path,
                auto_load=False,
                max_retries=0,
                watchdog=0,
                storage="memory:",
                adapter="asgi",
            )

        return PluginLife(manager, file, **options)

    return make


def test_the_manager_and_a_plugin_without_faults_stand_any_order(life: Any) -> None:
    done = simulate(life(SOUND), runs=RUNS)
    assert done.runs == RUNS
    assert done.orders > RUNS / 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plugin_with_a_fault_is_found_out(fault: str, life: Any) -> None:
    old, new, expected = FAULTS[fault]
    assert old in SOUND
    text = SOUND.replace(old, new).replace("import asyncio", "import asyncio\ntasks = []", 1)
    if fault.startswith("a route"):
        text = text.replace(
            "tasks = []", "import builtins\ntasks = vars(builtins).setdefault('_t', [])"
        )
    with pytest.raises(SimulationFailure) as caught:
        simulate(life(text), runs=200)
    assert isinstance(caught.value.__cause__, expected), caught.value


def test_a_workload_runs_beside_the_operations(life: Any) -> None:
    seen = 0

    async def workload(simulation: Simulation, manager: PluginManager) -> None:
        nonlocal seen
        cart = manager.use("cart")
        seen += 1
        await anyio.lowlevel.checkpoint()
        assert not cart.closed, "a stale generation"

    with pytest.raises(SimulationFailure, match="a stale generation"):
        simulate(life(SOUND, workload=workload), runs=200)
    assert seen


PROGRAM = """
import sys
from veko.testing import simulate
from veko_plugins import PluginManager
from veko_plugins.testing import PluginLife

root = sys.argv[1]

def manager():
    return PluginManager(root=root, auto_load=False, max_retries=0, watchdog=0,
                         storage="memory:", adapter="asgi")

life = PluginLife(manager, "shop")
simulate(life, runs=[0])
done = simulate(life, runs=8)
print(done.digest, done.steps)
"""


def test_the_manager_runs_the_same_in_another_process(life: Any, tmp_path: Path) -> None:
    life(SOUND)
    seen = set()
    for hash_seed in ("0", "4711"):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert ran.returncode == 0, ran.stderr
        seen.add(ran.stdout)
    assert len(seen) == 1, seen


# -- the command


@pytest.fixture
def application(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        file = tmp_path / "plugins" / "shop.py"
        file.parent.mkdir()
        file.write_text(text)
        return tmp_path

    return make


def test_the_command_simulates(application: Any, veko: Any) -> None:
    root = application(SOUND)
    ran = veko("test", "shop", "--no-tests", "--simulate", "60", cwd=root)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"shop: 60 runs, in \d+ orders of their tasks: no failure", ran.stdout)


def test_the_command_reports_a_failure_and_repeats_it(application: Any, veko: Any) -> None:
    old, new, _ = FAULTS["closed before its calls have ended"]
    root = application(SOUND.replace(old, new))
    words = ["test", "shop", "--no-tests", "--tier", "none", "--simulate", "60"]
    ran = subprocess.run(  # it also takes the time to make the failure smaller
        [sys.executable, "-m", "veko_plugins.cli", *words],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "used after unload()" in ran.stdout
    seed = re.search(r"Repeat it with: veko test shop --seed (\S+)", ran.stdout)
    assert seed is not None, ran.stdout
    again = veko("test", "shop", "--seed", seed[1], cwd=root)
    assert again.returncode == 1
    assert "used after unload()" in again.stdout


@pytest.mark.parametrize("words", [("--seed", "x"), ("--simulate", "-1"), ("--simulate", "x")])
def test_wrong_usage_is_refused(words: tuple[str, str], application: Any, veko: Any) -> None:
    ran = veko("test", "shop", "--no-tests", *words, cwd=application(SOUND))
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
