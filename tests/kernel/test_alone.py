"""The kernel runs with anyio and msgspec only, and its bus without the life cycle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import veko

KERNEL = Path(veko.__file__).parent
ALLOWED = {"veko", "anyio", "msgspec"}
NEEDED_BY_ANYIO = {"idna", "sniffio", "typing_extensions", "exceptiongroup"}
NEEDED_BY_TRIO = {"trio", "attr", "attrs", "outcome", "sortedcontainers"}

PROGRAM = """
import sys
from importlib.machinery import PathFinder

class Strangers:
    "Refuses every module that is neither Python's own nor allowed."
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ALLOWED and PathFinder.find_spec(top):
            raise ModuleNotFoundError(f"refused: {name}", name=name)

ALLOWED = set(sys.argv[2:])
sys.meta_path.insert(0, Strangers())
for name in [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]:
    if not name.startswith("__"):
        del sys.modules[name]

import anyio
import veko

async def main():
    async def double(value):
        await anyio.sleep(0)
        return value * 2

    class Adder(veko.Plugin):
        name, version = "adder", "1.0.0"

        def load(self, context):
            context.hook("sum", lambda value: value + 1, priority=5)

    async with veko.Kernel() as kernel:
        kernel.bus.on("sum", double, timeout=5)
        await kernel.load(Adder)
        return await kernel.bus.emit("sum", 20)

print(anyio.run(main, backend=sys.argv[1]))
tops = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
print(*sorted(tops & {"veko", "anyio", "msgspec", "trio"}))
"""

BUS_ALONE = """
import sys
import types
from pathlib import Path

package = types.ModuleType("veko")  # not executed: it would import the life cycle
package.__path__ = [sys.argv[2]]
sys.modules["veko"] = package

import anyio
import veko._bus.bus
import veko._bus.frames
import veko._bus.posts

async def main():
    bus = veko._bus.bus.Bus()
    seen = []
    async def double(value):
        await anyio.sleep(0)
        return value * 2

    def fail(value):
        raise ValueError(value)

    class Named:
        name = "shop"

    bus.on("sum", double, timeout=5)
    bus.on("sum", fail, owner=Named(), priority=7)
    gone = bus.on("sum", lambda value: value + 1, priority=5)
    bus.on("plugin:error", lambda name, error: seen.append(name))
    first = await bus.emit("sum", 20)
    with bus.pin():
        gone.cancel()
        assert await bus.emit("sum", 20) == first
    assert await bus.emit("sum", 20) == first - 1
    assert seen == ["shop"] * 3
    posts = veko._bus.posts.Posts(bus)
    posts.open()
    posts.add("plugin:error", "posted", None)
    async with anyio.create_task_group() as group:
        group.start_soon(posts.run)
        await posts.close(5)
    assert seen.pop() == "posted"
    return first

print(anyio.run(main, backend=sys.argv[1]))
print(*sorted(n for n in sys.modules if n.startswith("veko") and "veko._bus" not in n))
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_bus_runs_without_the_life_cycle(backend: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", BUS_ALONE, backend, KERNEL],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["41", "veko veko.errors"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_runs_with_its_own_dependencies_only(backend: str, tmp_path: Path) -> None:
    allowed = ALLOWED | NEEDED_BY_ANYIO | (NEEDED_BY_TRIO if backend == "trio" else set())
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", PROGRAM, backend, *sorted(allowed)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    answer, modules = ran.stdout.splitlines()
    assert answer == "41"
    expected = {"anyio", "msgspec", "veko"} | ({"trio"} if backend == "trio" else set())
    assert set(modules.split()) == expected


def test_imports_nothing_else_even_lazily() -> None:
    strangers = {
        f"{path.name}: {name}"
        for path in KERNEL.rglob("*.py")
        for name in _imported(path)
        if name not in ALLOWED | sys.stdlib_module_names
    }
    assert strangers == set()


def _imported(path: Path) -> set[str]:
    found = set()
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            # It never runs, and type checkers bring this one with them.
            node.body = [n for n in node.body if getattr(n, "module", "") != "typing_extensions"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found
