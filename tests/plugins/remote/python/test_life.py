"""The life of a Python plugin in a worker: steps, failures, tasks, ends."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from veko.errors import LoadError, ManifestError, VekoError
from veko_plugins.remote.python.packages import linked_packages
from veko_plugins.remote.python.runtime import Python

from .conftest import Start, request

LIFE = """
    import asyncio
    from contextlib import asynccontextmanager
    steps = []

    @asynccontextmanager
    async def resource():
        steps.append("entered")
        yield
        context_.log("info", "left")

    async def load(context):
        global context_
        context_ = context
        steps.append("load")
        await context.enter(resource())
        context.every(0.01, lambda: steps.append("tick") if "tick" not in steps else None)
        context.add_command("steps", lambda: steps)

    async def activate(context):
        steps.append("activate")
        context.add_route("GET", "/active", lambda: "yes")

    def deactivate():
        steps.append("deactivate")

    def unload(context):
        context.log("info", f"unload after {steps[-1]}")
"""


async def test_the_host_runs_each_step_and_tasks_run_while_it_is_on(start: Start) -> None:
    host = await start(LIFE, steps=1)
    # Until the host goes on, nothing runs, and it has been shown what load() registered.
    assert host.order == [("add_command", "steps")]
    await asyncio.sleep(0.05)
    await host.call("activate")
    assert host.order[-1] == ("add_route", ("GET", "/active"))
    await asyncio.sleep(0.1)
    found = await host.run("add_command", "steps", [], {})
    assert found == ["load", "entered", "activate", "tick"]
    await host.call("deactivate")
    assert host.removed == [2]  # what activate() registered goes
    await host.call("activate")
    assert host.order[-1] == ("add_route", ("GET", "/active"))
    assert (await host.request("/active"))[2] == b"yes"
    await host.call("deactivate")
    await host.call("unload")
    assert [one[1] for one in host.logged] == ["unload after deactivate", "left"]
    host.connection.note("shutdown")
    assert await host.ends() == 0


async def test_a_plugin_that_the_host_refuses_is_unloaded(start: Start) -> None:
    host = await start(LIFE, steps=1)
    await host.call("unload")
    assert [one[1] for one in host.logged] == ["unload after entered", "left"]


@pytest.mark.parametrize("step", ["load", "activate"])
async def test_a_step_that_fails_raises_what_it_raised(start: Start, step: str) -> None:
    host = await start(
        f"""
        class Cold(Exception): ...
        def load(): ...
        def {step}(context):
            raise Cold("no water")
        """,
        steps=0,
    )

    async def load() -> None:
        await host.call("load", {"config": {}, "storage": None})
        await host.call("activate")

    with pytest.raises(Exception, match=r"^no water$") as failed:
        await load()
    assert type(failed.value).__name__ == "Cold"
    assert (failed.traceback[-1].path.name, failed.traceback[-1].lineno + 1) == ("shop.py", 6)
    assert host.failed == []  # the host's own kernel reports it


async def test_a_route_that_cannot_be_served_fails_the_load(start: Start) -> None:
    host = await start(
        """
        def load(context):
            context.add_route("GET", "/x/{id}", lambda id, other: None)
            context.add_route("GET", "/x/{name}", lambda name: None)
        """,
        steps=1,
    )
    with pytest.raises(VekoError, match=r"GET /x/"):
        await host.call("activate")


async def test_what_cannot_be_imported_says_where(start: Start) -> None:
    with pytest.raises(LoadError, match=r"shop\.py.*2|SyntaxError") as failed:
        await start("x = (\n", steps=0)
    assert failed.value.path is not None
    with pytest.raises(ManifestError) as invalid:
        await start("version = 3\n", steps=0)
    assert {fault.path for fault in invalid.value.faults} >= {"name", "load()"}


async def test_a_task_that_fails_is_reported_to_the_host(start: Start) -> None:
    host = await start("""
        async def work():
            raise LookupError("nothing there")

        def load(context):
            context.spawn(work)
    """)
    await host.until(lambda: host.failed)
    [(error, handler)] = host.failed
    assert (type(error), str(error), handler) == (LookupError, "nothing there", "work")


async def test_state_is_handed_over(start: Start) -> None:
    host = await start("""
        state = {"when": (1, 2)}
        def load(context):
            context.add_command("state", lambda: state["when"])
        def export_state():
            return state
        def import_state(given, version):
            state["when"] = [*given["when"], version]
    """)
    assert host.answers["description"]["steps"] == ["load", "export_state", "import_state"]
    assert await host.call("export_state") == {"when": (1, 2)}
    await host.call("import_state", {"when": [3]}, "0.9")
    assert await host.run("add_command", "state", [], {}) == [3, "0.9"]


async def test_it_runs_the_sources_that_the_host_sends(start: Start, tmp_path: Path) -> None:
    host = await start("def load(context): ...", steps=0)
    path = str(tmp_path / "shop.py")
    old = b'name, version = "shop", "0.5"\ndef load(context):\n    context.log("info", "old")\n'
    described = await host.call("describe", {"sources": {path: old}})
    assert described["fields"]["version"] == "0.5"
    await host.call("load", {"config": {}, "storage": None})
    assert host.logged[0][1] == "old"


async def test_a_package_imports_its_own_modules(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "parts.py").write_text("VALUE = 5\n")
    text = 'from .parts import VALUE\nfrom pack.parts import VALUE as same\nname = "shop"\n'
    (folder / "__init__.py").write_text(text + 'version = "1"\ndef load(): ...\n')
    host = await start("def load(context): ...", steps=0)
    described = await host.call("describe", {"path": str(folder), "kind": "package"})
    assert described["constants"] == {"VALUE": 5, "same": 5}


async def test_the_worker_ends_with_its_host(start: Start) -> None:
    host = await start(LIFE)
    await host.connection.close()
    assert await host.ends() == 0


async def test_printing_reading_and_noise_do_not_touch_the_protocol(
    start: Start, tmp_path: Path
) -> None:
    host = await start("""
        import os, sys
        def load(context):
            print("printed")
            os.write(1, b"raw\\n")
            os.write(0, b"") if False else None
            context.log("info", repr(sys.stdin.read()))
    """)
    assert host.logged == [("info", "''", None, {})]
    assert (tmp_path / "stderr.txt").read_text() == "printed\nraw\n"


def test_another_interpreter_sees_the_hosts_packages_and_nothing_else(tmp_path: Path) -> None:
    folder = linked_packages(tmp_path / "cache")
    names = {one.name for one in folder.iterdir()}
    assert {"veko", "veko_plugins", "veko_adapters", "anyio"} <= names
    assert not {"msgspec", "pytest", "pip"} & names
    assert linked_packages(tmp_path / "cache") == folder


def test_an_environment_without_msgspec_says_what_it_needs(tmp_path: Path) -> None:
    bare = tmp_path / "env"
    (bare / "bin").mkdir(parents=True)
    (bare / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (bare / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    with pytest.raises(VekoError, match=r"msgspec.*needs msgspec in the host's version"):
        Python(bare / "bin" / "python", tmp_path / "cache").prepare()


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
async def test_a_handler_cannot_end_the_worker(start: Start, error: str) -> None:
    host = await start(f"""
        def leave(): raise {error}
        async def leave_too(request): raise {error}
        def hook(): raise {error}
        def load(context):
            context.add_command("leave", leave)
            context.add_route("GET", "/leave", leave_too)
            context.hook("a:b", hook)
            context.add_route("GET", "/", lambda: "here")
    """)
    for verb, key in (("add_command", "leave"), ("add_route", ("GET", "/leave")), ("hook", "a:b")):
        with pytest.raises(Exception) as failed:
            await host.run(verb, key, *([request()] if verb == "add_route" else ()))
        assert type(failed.value).__name__ == error.partition("(")[0]
    assert (await host.request("/"))[2] == b"here"
