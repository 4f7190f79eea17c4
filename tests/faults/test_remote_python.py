"""Plugins in Python workers that misbehave on purpose: stopped, reported, and nobody else waits.

Each runs with `enable_sandbox`. While it misbehaves, another plugin's route is asked all the time.
"""

import asyncio
import os
import socket
import textwrap
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from veko_plugins.remote.launcher import Confinement, missing

from .remote_application import SECONDS, Watched, until

pytestmark = pytest.mark.skipif(
    bool(missing(Confinement())) and "CI" not in os.environ, reason="the kernel lacks Landlock"
)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[Watched, AsyncExitStack]]:
    async with AsyncExitStack() as stack:
        yield Watched(tmp_path), stack


HEAD = "name, version = 'bad', '1'\n"


def route(body: str, *, more: str = "", kind: str = "async def") -> str:
    permissions = "permissions = ['process:spawn']\n" if "a fork bomb" in body else ""
    return (
        f"{HEAD}{permissions}import asyncio, os, sys, socket, time\n{more}\n"
        f"def load(context):\n    {kind} bad():\n"
        + textwrap.indent(textwrap.dedent(body), "        ")
        + "\n    context.add_route('GET', '/bad', bad)\n"
        "    async def pid():\n        return {'pid': os.getpid()}\n"
        "    context.add_route('GET', '/pid', pid)\n"
    )


ENDS = {
    "a fork bomb": (
        "# a fork bomb: no more than 300 processes, whatever happens\n"
        "count = os.open('count', os.O_CREAT | os.O_APPEND | os.O_RDWR)\n"
        "while True:\n    try:\n"
        "        if os.fstat(count).st_size < 300 and os.fork() == 0: os.write(count, b'x')\n"
        "    except OSError: pass",
        "",
    ),
    "an endless loop": ("while True: pass", "blocked"),
    "a blocked event loop": ("time.sleep(60)", "blocked"),
    "memory": ("x = []\nwhile True: x.append(b'x' * 2**24)", "of memory"),
    "os._exit": ("os._exit(3)", "exit status 3"),
    "a segmentation fault": ("import ctypes; ctypes.string_at(0)", "signal 11"),
    "a signal to itself": ("os.kill(os.getpid(), 9)", "signal 9"),
    "garbage on the protocol": (
        "import stat\nfor fd in range(3, 64):\n    try:\n"
        "        if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, b'\\0' * 36)\n"
        "    except OSError: pass\nawait asyncio.sleep(60)",
        "",
    ),
    "a frame of 1 GiB": (
        "import stat\nfor fd in range(3, 64):\n    try:\n"
        "        if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, b'@\\0\\0\\0aaaa')\n"
        "    except OSError: pass\nawait asyncio.sleep(60)",
        "",
    ),
}


@pytest.mark.parametrize("what", ENDS)
async def test_it_costs_its_own_plugin_only(
    what: str, watched: tuple[Watched, AsyncExitStack]
) -> None:
    app, stack = watched
    body, why = ENDS[what]
    await app.start(stack, "bad.py", route(body))
    first = (await app.bad("/pid")).json()["pid"]
    async with app.asked():
        assert (await app.bad()).status_code == 503
        assert "its process" in await app.reported(why)
        again = await app.answers("/pid")  # it is started again
    assert again.json()["pid"] != first


REFUSED = {
    "reading /etc/passwd": "open('/etc/passwd')",
    "writing outside its folder": "open('/tmp/veko-outside', 'w')",
    "a process": "import subprocess; subprocess.run(['/bin/true'])",
    "a fork": "os.fork()",
    "a shell": "assert os.system('true') == 0, 'Permission denied'",
    "a signal to the host": "os.kill({host}, 9)",
    "tracing the host by ctypes": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.ptrace(16, {host}, 0, 0) == -1:\n"
        "    raise PermissionError(ctypes.get_errno(), 'not permitted')"
    ),
    "the memory of the host": "open('/proc/{host}/mem', 'rb')",
    "the environment of the host": "open('/proc/{host}/environ', 'rb')",
    "a link out of its folder": (
        "os.symlink('/etc/passwd', str(time.time())); open(os.listdir()[0])"
    ),
    "the socket of the host": "socket.socket(socket.AF_UNIX).connect('{socket}')",
    "a connection out": "socket.create_connection(('127.0.0.1', {port}), 2)",
    "a connection out, awaited": "await asyncio.open_connection('127.0.0.1', {port})",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_it_is_refused_and_named(
    what: str,
    watched: tuple[Watched, AsyncExitStack],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, stack = watched
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as server:
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        values = {"host": os.getpid(), "socket": tmp_path / "socket"}
        body = REFUSED[what].format(port=server.getsockname()[1], **values)
        await app.start(stack, "bad.py", route(body))
        async with app.asked():
            for _ in range(3):
                assert (await app.bad()).status_code == 500
            text = await app.reported("")
        assert "ermission" in text or "not permitted" in text or "denied" in text.lower(), text
        assert "bad.py:" in caplog.text  # and where
    assert "veko-outside" not in os.listdir("/tmp")  # noqa: PTH208


async def test_a_link_that_is_shipped_in_its_folder(
    watched: tuple[Watched, AsyncExitStack],
) -> None:
    app, stack = watched
    secret = app.root / "secret"
    secret.write_text("secret")
    package = app.root / "plugins" / "linked"
    package.mkdir(parents=True)
    (package / "out").symlink_to(secret)
    (package / "__init__.py").write_text(
        'name, version = "linked", "1"\nfrom pathlib import Path\n'
        "def load(context):\n    async def read():\n"
        "        return (Path(__file__).parent / 'out').read_text()\n"
        "    context.add_route('GET', '/read', read)\n"
    )
    (app.root / "plugins").rename(app.root / "aside")
    await app.start(stack, "bad.py", HEAD + "def load(): pass")
    await app.manager.load_plugin(app.root / "aside" / "linked")
    assert (await app.bad("/read")).status_code == 500


async def test_its_environment_is_empty(watched: tuple[Watched, AsyncExitStack]) -> None:
    app, stack = watched
    os.environ["VERY_SECRET"] = "1"
    try:
        await app.start(stack, "bad.py", route("return dict(os.environ)"))
        found = (await app.bad()).json()
    finally:
        del os.environ["VERY_SECRET"]
    assert set(found) <= {"HOME", "TMPDIR", "LC_CTYPE"}


async def test_swallowing_cancellation(watched: tuple[Watched, AsyncExitStack]) -> None:
    app, stack = watched
    stubborn = """
    def load(context):
        @context.hook("plugin:good:x", timeout=0.2)
        async def stubborn():
            import asyncio
            while True:
                try:
                    await asyncio.sleep(60)
                except BaseException:
                    pass
    """
    await app.start(stack, "bad.py", HEAD + textwrap.dedent(stubborn))
    async with app.asked():
        async with asyncio.timeout(SECONDS):
            await app.manager.bus.emit("plugin:good:x")
        await app.reported("0.2")
        async with asyncio.timeout(SECONDS):
            await app.manager.unload_plugin("bad")


async def test_a_flood_of_output(watched: tuple[Watched, AsyncExitStack]) -> None:
    app, stack = watched
    flood = "for _ in range(1000): print('x' * 100_000)\nreturn 'printed'"
    await app.start(stack, "bad.py", route(flood, kind="def"))
    async with app.asked():
        assert (await app.bad()).text == "printed"
    assert len(app.logs) < 10_000


async def test_three_crashes_give_it_up(watched: tuple[Watched, AsyncExitStack]) -> None:
    app, stack = watched
    await app.start(stack, "bad.py", route("os._exit(1)"))
    async with app.asked():
        for _ in range(3):
            await app.answers("/pid")
            assert (await app.bad()).status_code == 503
        await until(lambda: app.manager.check_plugin_health("bad").health == "critical")
        await asyncio.sleep(1)
        assert (await app.bad("/pid")).status_code == 503
    await app.manager.reload_plugin("bad")
    assert (await app.bad("/pid")).status_code == 200
