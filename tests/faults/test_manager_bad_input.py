"""Folders full of plugins that cannot be: each is told apart, the others load and serve."""

import asyncio
import gc
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko import State
from veko.errors import (
    ConflictError,
    DependencyError,
    LoadError,
    LoadTimeout,
    ManifestError,
    NotFoundError,
    VekoError,
)
from veko_plugins import PluginManager
from veko_plugins.http import find_adapter

HEAD = "name = {name!r}\nversion = '1.0.0'\n"
EVERYTHING = """
import threading
async def around(request, call_next):
    return await call_next(request)
def register(context):
    context.hook("app:start", lambda: None)
    context.hook("request:start", lambda: None)
    context.hook("plugin:*", lambda: None)
    context.add_middleware(around)
    context.add_route("GET", "/bad/" + context.name, lambda: "bad")
    context.add_command("bad:" + context.name, lambda: None)
    context.provide("bad." + context.name, object())
    context.attach("bad_" + context.name, lambda context: None)
    context.spawn(__import__("asyncio").sleep, 100)
    context.every(100, lambda: None)
"""
GOOD = """
def load(context):
    context.add_route("GET", "/" + context.name, lambda: context.name)
"""


@asynccontextmanager
async def serving(manager: PluginManager) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a manager on a socket."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = asyncio.create_task(
        find_adapter("litestar").serve(
            manager.asgi,
            "127.0.0.1",
            0,
            started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
            stop=stop,
            drain_timeout=5.0,
        )
    )
    try:
        async with httpx.AsyncClient(base_url=await listening) as client:
            yield client
    finally:
        stop.set()
        await server


def write(folder: Path, name: str, text: str, *, says: str | None = None) -> Path:
    path = folder / f"{name}.py"
    path.write_text(HEAD.format(name=name if says is None else says) + text)
    return path


def belongings(manager: PluginManager, plugin: str) -> list[object]:
    """Everything in the registry that belongs to a plugin."""
    registry = manager.kernel.registry
    kinds = [entry.key for entry in registry.entries("kind")]
    return [
        entry
        for kind in {*kinds, "kind", "event", "hook", "pattern", "service", "attach"}
        for entry in registry.entries(kind)
        if getattr(entry.owner, "name", entry.owner) == plugin
    ]


def imported() -> set[str]:
    return {name for name in sys.modules if name.startswith("veko_generation.")}


class Fault:
    """A faulty plugin, and what must be said of it."""

    def __init__(self, error: type[Exception], *words: str, step: str | None = None) -> None:
        self.error = error
        self.words = words
        self.step = step


FAULTS: dict[str, tuple[str, Fault]] = {
    "syntax": ("def load(:\n    pass", Fault(LoadError, "syntax error", "Fix the line")),
    "nameless": ("name = None\ndef load(): pass", Fault(ManifestError, "name is missing")),
    "loadless": ("def unload(): pass", Fault(ManifestError, "load() is missing")),
    "raises": (
        EVERYTHING + "def load(context):\n    register(context)\n    raise ValueError('no luck')",
        Fault(LoadError, "ValueError: no luck", step="load"),
    ),
    "hangs": (
        EVERYTHING
        + "async def load(context):\n    register(context)\n"
        + "    await __import__('asyncio').Event().wait()",
        Fault(LoadTimeout, "load()", "0.2 s", "timeout", step="load"),
    ),
    "swallows": (
        EVERYTHING
        + "async def load(context):\n    register(context)\n"
        + "    import asyncio\n    while True:\n"
        + "        try: await asyncio.Event().wait()\n"
        + "        except asyncio.CancelledError: pass",
        Fault(LoadTimeout, "load()", "0.2 s", step="load"),
    ),
    "exits": (
        EVERYTHING + "import sys\ndef load(context):\n    register(context)\n    sys.exit(3)",
        Fault(LoadError, "SystemExit", step="load"),
    ),
    "exits-async": (
        EVERYTHING + "import sys\nasync def load(context):\n    register(context)\n    sys.exit()",
        Fault(LoadError, "SystemExit", step="load"),
    ),
    "exits-early": ("import sys\nsys.exit(1)\ndef load(): pass", Fault(LoadError, "sys.exit")),
    "imports": (
        "import veko_no_such_thing\ndef load(): pass",
        Fault(LoadError, "peer_dependencies"),
    ),
    "activates": (
        EVERYTHING + "def load(context): register(context)\n"
        "def activate(): raise ValueError('not today')",
        Fault(LoadError, "activate()", "not today", step="activate"),
    ),
    "route": (
        EVERYTHING + "def load(context):\n    register(context)\n"
        "    context.add_route('GET', '/good', lambda: 'stolen')",
        Fault(ConflictError, "GET /good", "'good'"),
    ),
    "badroute": (
        EVERYTHING + "def load(context):\n    register(context)\n"
        "    context.add_route('GET', '/{x', lambda: 1)",
        Fault(VekoError, "/{x"),
    ),
    "service": (
        "def load(context): context.provide('http', 1)",
        Fault(ConflictError, "http", "routes"),
    ),
    "eats": ("load = 3", Fault(ManifestError, "load is 3")),
    "signature": ("def load(a, b): pass", Fault(ManifestError, "'a'", "'b'")),
    "missing": (
        "dependencies = ['nowhere']\ndef load(): pass",
        Fault(DependencyError, "nowhere"),
    ),
    "circle-a": (
        "dependencies = ['circle-b']\ndef load(): pass",
        Fault(DependencyError, "circle-a -> circle-b -> circle-a"),
    ),
    "circle-b": (
        "dependencies = ['circle-a']\ndef load(): pass",
        Fault(DependencyError, "circle-a -> circle-b -> circle-a"),
    ),
    "itself": ("dependencies = ['itself']\ndef load(): pass", Fault(DependencyError, "itself")),
    "badly-needs": ("dependencies = ['good>=9']\ndef load(): pass", Fault(DependencyError, ">=9")),
    "oddly-needs": ("dependencies = ['???']\ndef load(): pass", Fault(VekoError, "???")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugin folder with two good plugins."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    write(plugins, "good", GOOD + "\npriority = 99")
    write(plugins, "also-good", GOOD)
    return plugins


def manager_of(folder: Path, **options: Any) -> PluginManager:
    # In memory: a busy disk may take longer than the time limit that is tested here.
    return PluginManager(
        root=folder.parent,
        **{"max_retries": 0, "timeout": 0.2, "storage": "sqlite:///:memory:", **options},
    )


async def test_everything_bad_at_once(folder: Path) -> None:
    for name, (text, _) in FAULTS.items():
        write(folder, name, text)
    write(folder, "after", GOOD + "\ndependencies = ['raises']")
    write(folder, "after-that", GOOD + "\ndependencies = ['after']")
    write(folder, "after-missing", GOOD + "\ndependencies = ['missing']")
    (folder / "empty.py").write_text("")
    (folder / "latin.py").write_bytes(HEAD.format(name="latin").encode() + b"word = '\xe9'\n")
    (folder / "nulls.py").write_bytes(b"name = 'nulls'\0\n")
    (folder / "no-init").mkdir()
    (folder / "no-init" / "code.py").write_text(HEAD.format(name="no-init") + GOOD)
    (folder / "notes.txt").write_text("nothing to see")
    (folder / "dangling.py").symlink_to(folder / "nowhere.py")
    write(folder, "outer", GOOD, says="../x")
    write(folder, "long", GOOD, says="x" * 300)
    write(folder, "void", GOOD, says="")
    write(folder, "core", GOOD, says="storage")
    write(folder, "twin-1", GOOD, says="twin")
    write(folder, "twin-2", GOOD, says="twin")
    modules, threads = imported(), set(threading.enumerate())
    told: dict[str | None, list[BaseException]] = {}
    manager = manager_of(folder)
    manager.on("plugin:error", lambda name, error: told.setdefault(name, []).append(error))
    async with manager, serving(manager) as client:
        failed, report = manager.report.failed, manager.report
        assert set(report.loaded) == {"good", "also-good", "twin"}
        assert {info.name for info in manager.list_plugins()} == set(report.loaded)
        for name in ("good", "also-good", "twin"):
            assert (await client.get(f"/{name}")).text == name
        for name, (_, fault) in FAULTS.items():
            error = failed[name]
            text = str(error)
            assert isinstance(error, fault.error), (name, error)
            assert isinstance(error, VekoError)
            for word in (name, f"{name}.py", *fault.words):
                assert word in text, (name, word, text)
            assert error.path == folder / f"{name}.py"
            assert error.remedy, name
            assert name in told, name
            assert len(told[name]) == 1, (name, told[name])
            assert "\n" not in text
            if fault.step is not None:
                assert error.step == fault.step
            record = manager.kernel.get(name)
            assert record is None or record.state is State.FAILED
            assert manager.get_plugin(name) is None
            assert belongings(manager, name) == []
            assert (await client.get(f"/bad/{name}")).status_code == 404
        others = {
            "empty": ("name is missing", "empty.py"),
            "latin": ("UTF-8", "latin.py:3"),
            "nulls": ("null", "nulls.py"),
            "dangling": ("link", "dangling.py"),
            "outer": ("'../x'", "outer.py"),
            "long": ("x" * 40, "long.py"),
            "void": ("name", "void.py"),
            "twin": ("twin-1.py", "twin-2.py"),
            "storage": ("storage", "core.py"),
        }
        by_text = {str(error): error for error in failed.values()}
        for key, words in others.items():
            found = [text for text in by_text if all(word in text for word in words)]
            assert len(found) == 1, (key, words, sorted(by_text))
            assert len(found[0]) < 700
            assert getattr(by_text[found[0]], "remedy", None)
        assert not any("no-init" in text or "notes" in text for text in by_text)
        assert set(report.skipped) == {"after", "after-that", "after-missing"}
        assert "needs 'raises', which failed to load" in report.skipped["after"]
        assert "needs 'after', which needs 'raises'" in report.skipped["after-that"]
        assert "'missing'" in report.skipped["after-missing"]
        assert manager.get_stats().hooks == 0
        assert manager.get_stats().routes == 3
        assert len(imported() - modules) == 3
        work = {task for task in asyncio.all_tasks() if "repeat" in repr(task)}
        assert not work
    assert imported() == modules
    for thread in set(threading.enumerate()) - threads:
        if "storage" in thread.name:
            thread.join(10)  # it has been told to end
            assert not thread.is_alive()


@pytest.mark.parametrize("name", FAULTS)
async def test_each_alone_by_name_and_then_mended(folder: Path, name: str) -> None:
    fault = FAULTS[name][1]
    for other in ("circle-a", "circle-b") if name.startswith("circle") else (name,):
        write(folder, other, FAULTS[other][0])
    modules = imported()
    manager = manager_of(folder, auto_load=False)
    async with manager:
        await manager.load_plugin("good")
        errors: list[str | None] = []
        manager.on("plugin:error", lambda plugin: errors.append(plugin))
        before = manager.kernel.registry
        with pytest.raises(VekoError) as caught:
            await manager.load_plugin(name)
        assert isinstance(caught.value, fault.error) or name.startswith(("circle", "itself"))
        assert name in str(caught.value)
        assert caught.value.remedy
        assert errors == [name]
        assert belongings(manager, name) == []
        for kind in ("route", "middleware", "command", "hook", "pattern", "service", "attach"):
            assert manager.kernel.registry.entries(kind) == before.entries(kind)
        assert len(imported() - modules) == 1
        write(folder, name, GOOD)
        plugin = await manager.load_plugin(name)
        assert (plugin.active, plugin.error) == (True, None)
        await manager.unload_plugin(name)
        gc.collect()
        assert len(imported() - modules) == 1


async def test_an_unreadable_file(folder: Path) -> None:
    path = write(folder, "secret", GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):  # nothing is unreadable to root: a socket is to anybody
        path.unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    async with manager_of(folder) as manager:
        assert set(manager.report.loaded) == {"good", "also-good"}
        with pytest.raises(VekoError, match=r"secret"):
            await manager.load_plugin("secret")


async def test_a_folder_without_an_init_is_told_when_it_is_asked_for(folder: Path) -> None:
    (folder / "no-init").mkdir()
    async with manager_of(folder) as manager:
        assert manager.report.failed == {}
        with pytest.raises(NotFoundError, match=r"__init__\.py"):
            await manager.load_plugin(folder / "no-init")
        with pytest.raises(NotFoundError, match="no-init"):
            await manager.load_plugin("no-init")


@pytest.mark.parametrize("name", ["../x", "", "x" * 300, "storage", "..", "/", "a\0b", "é"])
async def test_hostile_names_are_asked_for(folder: Path, name: str) -> None:
    outside = folder.parent / "x.py"
    outside.write_text(HEAD.format(name="x") + GOOD)
    async with manager_of(folder) as manager:
        with pytest.raises(VekoError) as caught:
            await manager.load_plugin(name if name != "../x" else "plugins/../../nowhere/x")
        assert caught.value.remedy
        assert len(str(caught.value)) < 700
        for ask in (manager.unload_plugin, manager.reload_plugin, manager.toggle_plugin):
            if name != "storage":
                with pytest.raises(NotFoundError):
                    await ask(name)
        assert manager.get_plugin(name) is None


async def test_a_plugin_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "plugins").write_text("not a folder")
    async with PluginManager(root=tmp_path) as manager:
        (error,) = manager.report.failed.values()
        assert str(tmp_path / "plugins") in str(error)


# -- at request time

RAISING = """
import sys
def load(context):
    def breaks(): raise ValueError("a secret")
    async def breaks_later(): raise LookupError("a secret")
    def exits(): sys.exit(3)
    async def exits_later(): sys.exit(3)
    context.add_route("GET", "/breaks", breaks)
    context.add_route("GET", "/breaks-later", breaks_later)
    context.add_route("GET", "/exits", exits)
    context.add_route("GET", "/exits-later", exits_later)
    async def around(request, call_next): return await call_next(request)
    context.add_route("GET", "/exits-inside", around, exits_later)
    async def stops(request, call_next): sys.exit(4)
    context.add_route("GET", "/exits-around", stops, breaks)
"""
PATHS = ["/breaks", "/breaks-later", "/exits", "/exits-later", "/exits-inside", "/exits-around"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_handler_that_fails_is_answered_counted_and_attributed(
    folder: Path, path: str
) -> None:
    write(folder, "raising", RAISING)
    errors: list[tuple[str | None, BaseException]] = []
    origins: list[Any] = []
    failing: list[Any] = []
    async with manager_of(folder) as manager, serving(manager) as client:
        manager.on("plugin:error", lambda name, error: errors.append((name, error)))
        manager.on("error:handle", lambda error, origin: origins.append(origin))
        manager.on("request:error", lambda error, request: failing.append(request.path))
        for count in (1, 2, 3):
            answer = await client.get(path)
            assert answer.status_code == 500
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == 500
            assert "secret" not in answer.text
            assert manager.error_count("raising") == count
            assert manager.get_plugin("raising").error_count == count
        assert [name for name, _ in errors] == ["raising"] * 3
        assert [origin.plugin for origin in origins] == ["raising"] * 3
        assert failing == [path] * 3
        assert (await client.get("/good")).text == "good"
        assert manager.error_count("good") == 0
        assert manager.get_stats().errors == 3


@pytest.mark.parametrize(
    "event", ["request:start", "response:start", "response:end", "request:end", "request:error"]
)
@pytest.mark.parametrize("how", ["raise ValueError('a secret')", "__import__('sys').exit(3)"])
async def test_a_hook_that_fails_is_counted_and_attributed_and_the_request_answered(
    folder: Path, event: str, how: str
) -> None:
    write(
        folder,
        "hooking",
        f"def load(context):\n"
        f"    def sync(*args): {how}\n"
        f"    async def later(*args): {how}\n"
        f"    context.hook({event!r}, sync)\n"
        f"    context.hook({event!r}, later)\n",
    )
    write(folder, "raising", RAISING)
    errors: list[str | None] = []
    async with manager_of(folder) as manager, serving(manager) as client:
        manager.on("plugin:error", lambda name: errors.append(name))
        path, status = ("/breaks", 500) if event == "request:error" else ("/good", 200)
        closed = event == "request:start"  # the first hook that fails refuses the request
        status = 500 if closed else status
        for _ in range(3):
            answer = await client.get(path)
            assert answer.status_code == status
            assert "secret" not in answer.text
        done = asyncio.Event()
        manager.on("request:end", done.set)
        await client.get("/also-good")
        await asyncio.wait_for(done.wait(), 5)
        expected = {"request:error": 6, "request:start": 4}.get(event, 8)
        while errors.count("hooking") < expected:
            await asyncio.wait_for(client.get("/nothing-here"), 5)
        assert manager.error_count("hooking") == expected
        assert manager.error_count("good") == 0


async def test_a_hook_that_hangs_is_ended_and_the_request_refused(folder: Path) -> None:
    write(
        folder,
        "hanging",
        "import asyncio\ndef load(context):\n"
        "    async def hang(request): await asyncio.Event().wait()\n"
        "    context.hook('request:start', hang, timeout=0.05)\n",
    )
    async with manager_of(folder) as manager, serving(manager) as client:
        assert (await client.get("/good")).status_code == 503
        assert manager.error_count("hanging") == 1


async def test_middleware_that_fails_is_attributed(folder: Path) -> None:
    write(
        folder,
        "guarding",
        "def load(context):\n"
        "    async def breaks(request, call_next): raise ValueError('a secret')\n"
        "    context.add_middleware(breaks)\n",
    )
    async with manager_of(folder) as manager, serving(manager) as client:
        answer = await client.get("/good")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert (manager.error_count("guarding"), manager.error_count("good")) == (1, 0)
        await manager.toggle_plugin("guarding", False)
        assert (await client.get("/good")).text == "good"


async def test_a_command_that_fails_is_attributed(folder: Path) -> None:
    write(
        folder,
        "commanding",
        "def load(context):\n"
        "    context.add_command('breaks', lambda: 1 / 0)\n"
        "    context.add_command('exits', lambda: __import__('sys').exit(3))\n",
    )
    async with manager_of(folder) as manager:
        with pytest.raises(ZeroDivisionError):
            await manager.run_command("breaks")
        with pytest.raises(VekoError, match="3"):
            await manager.run_command("exits")
        assert manager.error_count("commanding") == 2


async def test_O4_dev_mode_tells_what_went_wrong(folder: Path) -> None:
    write(folder, "raising", RAISING)
    async with manager_of(folder, dev_mode=True) as manager, serving(manager) as client:
        answer = await client.get("/breaks")
        assert answer.status_code == 500
        assert "a secret" in answer.text
        assert "raising.py" in answer.text
