"""How plugins end, and how an application ends whatever they do: in order, in bounded time."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from veko_plugins import PluginManager, Request
from veko_plugins.http import Response


class Running(Protocol):
    process: subprocess.Popen[str]
    lines: list[str]

    @property
    def text(self) -> str: ...
    def wait_for(self, pattern: str) -> re.Match[str]: ...
    def ends(self) -> int: ...


Start = Callable[..., Running]


def plugin(load: Any, name: str = "p", **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


# -- a plugin that ends what is not its own

GOOD = """
name = "good"
version = "1.0.0"

def load(context):
    context.add_route("GET", "/alive", lambda: "alive")

def unload():
    print("good says goodbye", flush=True)
"""
EVIL = """
import asyncio, sys
name = "evil"
version = "1.0.0"

def interrupt():
    raise KeyboardInterrupt

async def leave():
    sys.exit(3)

async def interrupt_later():
    raise KeyboardInterrupt

def load(context):
    kept = []

    def own_task():
        kept.append(asyncio.ensure_future(leave()))

    def own_task_interrupted():
        kept.append(asyncio.ensure_future(interrupt_later()))

    def call_soon():
        asyncio.get_running_loop().call_soon(sys.exit, 3)

    def call_soon_interrupted():
        asyncio.get_running_loop().call_soon(interrupt)

    def spawned():
        context.spawn(leave)

    def spawned_interrupted():
        context.spawn(interrupt_later)

    def cancels_all():
        for task in asyncio.all_tasks():
            task.cancel()

    def stops_the_loop():
        asyncio.get_running_loop().stop()

    def in_a_route():
        raise KeyboardInterrupt

    for fn in (own_task, own_task_interrupted, call_soon, call_soon_interrupted, spawned,
               spawned_interrupted, cancels_all, stops_the_loop, in_a_route):
        def run(fn=fn):
            fn()
            return "done"
        context.add_route("GET", "/" + fn.__name__, lambda request, fn=fn: fn() or "done")
"""
ACTS = [
    "own_task", "own_task_interrupted", "call_soon", "call_soon_interrupted", "spawned",
    "spawned_interrupted", "cancels_all", "stops_the_loop", "in_a_route",
]  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_an_application_goes_on_or_ends_in_order_and_names_the_plugin(
    start: Start, tmp_path: Path, act: str
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "good.py").write_text(GOOD)
    (tmp_path / "plugins" / "evil.py").write_text(EVIL)
    veko = start("serve", tmp_path, "--port", 0, "--grace", 2)
    url = veko.wait_for(r"Listening on (\S+)")[1]
    with suppress(httpx.HTTPError):
        httpx.get(f"{url}/{act}", timeout=5)
    try:
        goes_on = httpx.get(f"{url}/alive", timeout=5).text == "alive"
    except httpx.HTTPError:
        goes_on = False
    if goes_on:
        veko.process.send_signal(signal.SIGTERM)
    try:
        code = veko.process.wait(6)  # three times the grace
    except subprocess.TimeoutExpired:
        pytest.fail(
            f"it {'serves on and hears no signal' if goes_on else 'neither serves nor ends'}"
        )
    veko.ends()
    after = veko.text.partition("Listening on")[2]
    assert "good says goodbye" in after
    assert "evil" in after, "nobody is named"
    assert not goes_on or code == 0


NATIVE = """
import asyncio
from veko import Kernel

async def main():
    async with Kernel(timeout=0.5) as kernel:
        def load(context):
            context.spawn(asyncio.sleep, 1_000)
        end = lambda: print("unloaded")
        await kernel.load({"name": "p", "version": "1.0.0", "load": load, "unload": end})
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)
    print("left")

asyncio.run(main())
"""


def test_a_kernel_ends_though_all_its_tasks_were_cancelled_natively() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NATIVE], capture_output=True, text=True, timeout=5, check=False
    )
    assert "unloaded" in done.stdout


EMBEDDED = """
import asyncio, sys
from veko_plugins import PluginManager

async def leave():
    {act}

async def main():
    manager = PluginManager(root=".", adapter="asgi", storage="sqlite:///:memory:", auto_load=False)
    async with manager:
        for name in ("first", "second"):
            await manager.load_plugin({{
                "name": name, "version": "1.0.0", "load": lambda context: None,
                "unload": lambda name=name: print(name, "unloaded", flush=True),
            }})
        kept = asyncio.ensure_future(leave())
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
ENDS = {
    "exits": ("sys.exit(3)", 3),
    "interrupts": ("raise KeyboardInterrupt", None),
    "cancels": ("[task.cancel() for task in asyncio.all_tasks()]", None),
    "stops": ("asyncio.get_running_loop().stop()", None),
}


@pytest.mark.parametrize("act", ENDS)
def test_an_embedding_script_ends_in_order(tmp_path: Path, act: str) -> None:
    code, wanted = ENDS[act]
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED.format(act=code)],
        cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["ready", "second unloaded", "first unloaded"]
    assert wanted in (None, done.returncode)
    assert done.returncode != 0


def test_an_embedding_script_hears_signals_after_a_plugin_was_interrupted(tmp_path: Path) -> None:
    script = EMBEDDED.format(act="pass").replace(
        '"load": lambda context: None', '"load": lambda context: context.spawn(interrupt)'
    )
    script = script.replace(
        "async def main", "async def interrupt():\n    raise KeyboardInterrupt\n\nasync def main"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert out.splitlines() == ["second unloaded", "first unloaded"]
    assert "first failed: KeyboardInterrupt" in errors


# -- a plugin that does not end

HANGS = {
    "waits": "async def unload():\n    await asyncio.Event().wait()\n",
    "swallows": (
        "async def unload():\n    while True:\n        try:\n            await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError:\n            pass\n"
    ),
}


@pytest.mark.parametrize("kind", HANGS)
def test_a_plugin_that_hangs_in_unload_keeps_no_other_from_its_own(
    start: Start, tmp_path: Path, kind: str
) -> None:
    """They unload in reverse order; the one that hangs stands in the middle."""
    (tmp_path / "plugins").mkdir()
    head = 'import asyncio\nname = "{}"\nversion = "1.0.0"\n{}\ndef load():\n    pass\n\n'
    for name, needs, unload in [
        ("first", "", 'def unload():\n    print("first says goodbye", flush=True)\n'),
        ("second", 'dependencies = ["first"]', HANGS[kind]),
        (
            "third",
            'dependencies = ["second"]',
            'def unload():\n    print("third says goodbye", flush=True)\n',
        ),
    ]:
        (tmp_path / "plugins" / f"{name}.py").write_text(head.format(name, needs) + unload)
    veko = start("serve", tmp_path, "--port", 0, "--grace", 2)
    veko.wait_for("Listening on")
    veko.process.send_signal(signal.SIGTERM)
    veko.process.wait(8)
    veko.ends()
    assert "third says goodbye" in veko.text
    assert "first says goodbye" in veko.text


# -- what counts as a plugin's fault

ERRORS: dict[str, Callable[[], BaseException]] = {
    "GeneratorExit": GeneratorExit,
    "SystemExit": lambda: SystemExit(1),
    "group": lambda: ExceptionGroup("some", [ValueError("a")]),
    "base group": lambda: BaseExceptionGroup("some", [GeneratorExit()]),
}
WHERE = [
    "hook", "async hook", "limited hook", "first", "async first", "gather", "async gather",
    "strict", "async strict", "spawn", "every", "unload", "deactivate", "async unload",
    "resource", "route", "async route", "middleware",
]  # fmt: skip
RAISED_IN_TASKS = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "group with KeyboardInterrupt": lambda: BaseExceptionGroup("some", [KeyboardInterrupt()]),
}


CASES = [(where, error) for where in WHERE for error in ERRORS] + [
    (where, error)
    for where in ("spawn", "every", "unload", "deactivate", "async unload", "resource", "route")
    for error in RAISED_IN_TASKS
]


@pytest.mark.anyio
@pytest.mark.parametrize(("where", "error"), CASES)
async def test_whatever_a_handler_raises_is_its_plugins_fault(
    tmp_path: Path, where: str, error: str
) -> None:
    make = {**ERRORS, **RAISED_IN_TASKS}[error]

    def fail(*args: Any) -> None:
        raise make()

    async def afail(*args: Any) -> None:
        raise make()

    async def around(request: Request, call_next: Any) -> Response:
        raise make()

    async def handle(request: Request) -> None:
        raise make()

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        yield
        raise make()

    async def load(context: Any) -> None:
        if where in ("spawn", "every"):
            _ = context.spawn(afail) if where == "spawn" else context.every(0.01, fail)
        elif where == "middleware":
            context.add_middleware(around)
        elif where.endswith("route"):
            context.add_route("GET", "/x", (lambda: fail()) if where == "route" else handle)
        elif where == "resource":
            await context.enter(resource())
        else:
            fn = afail if where.startswith(("async", "limited")) else fail
            context.hook("x", fn, timeout=5.0 if where == "limited hook" else None)

    more: dict[str, Any] = {}
    if where.endswith(("unload", "deactivate")):
        more = {
            where.rsplit(maxsplit=1)[-1]: (lambda: fail())
            if " " not in where
            else (lambda: afail())
        }
    failed = asyncio.Event()
    counted: list[int] = []

    def count(name: str, error: BaseException) -> None:
        counted.append(manager.error_count("p"))
        failed.set()

    async with PluginManager(
        root=tmp_path, adapter="asgi", storage="sqlite:///:memory:", auto_load=False
    ) as manager:
        manager.on("plugin:error", count)
        await manager.load_plugin(plugin(load, **more))
        transport = httpx.ASGITransport(manager.asgi, raise_app_exceptions=False)
        if where.endswith(("hook", "first", "gather")):
            verb = {"hook": "emit"}.get(where.rsplit(maxsplit=1)[-1], where.rsplit(maxsplit=1)[-1])
            await getattr(manager.bus, verb)("x", 1)
        elif where.endswith("strict"):
            with pytest.raises(BaseException) as caught:
                await manager.bus.emit("x", 1, strict=True)
            assert isinstance(caught.value, Exception)
            assert "p" in str(getattr(caught.value, "__notes__", "")) + str(caught.value)
            return  # whoever emits strictly gets the failure
        elif where.endswith(("route", "middleware")):
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                assert (await client.get("/x")).status_code == 500
        elif where.endswith("deactivate"):
            await manager.toggle_plugin("p")
        elif where.endswith("unload") or where == "resource":
            await manager.unload_plugin("p")
        await asyncio.wait_for(failed.wait(), 2)
        assert counted[0] >= 1
        await manager.load_plugin(plugin(lambda: None, "other"))  # the kernel is alive
