"""The console: code of a client runs in the application, which goes on whatever that does."""

import asyncio
import io
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from veko.errors import NotFoundError, StateError
from veko_plugins import PluginManager
from veko_plugins.console import Connection, Done, connect, find_consoles

pytestmark = pytest.mark.anyio
SOURCE = """
name, version, default_config = "shop", "1.0.0", {"size": 1}
LIMIT = 3

def show(text):
    print("shown", text)

def load(context):
    context.hook("ask", lambda: LIMIT)
"""


@asynccontextmanager
async def running(root: Path, **options: Any) -> AsyncIterator[PluginManager]:
    (root / "plugins").mkdir(parents=True, exist_ok=True)
    (root / "plugins" / "shop.py").write_text(SOURCE)
    options = {"storage": "none", "adapter": None, "dev_mode": True} | options
    async with PluginManager(root=root, **options) as manager:
        yield manager


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    async with running(tmp_path) as manager:
        yield manager


@pytest.fixture
async def opened(manager: PluginManager) -> AsyncIterator[Connection]:
    connection = await attached(manager)
    yield connection
    connection.close()


async def attached(manager: PluginManager, plugin: str = "shop") -> Connection:
    path = find_consoles(manager.options.directory)[os.getpid()]
    return await connect(path, plugin)


def nothing(text: str) -> None:
    raise AssertionError(f"it printed {text!r}")


async def run(opened: Connection, code: str) -> Done:
    async with asyncio.timeout(20):
        return await opened.run(code, nothing)


async def value(opened: Connection, code: str) -> str | None:
    done = await run(opened, code)
    assert done.error is None, done.error
    return done.value


async def error(opened: Connection, code: str) -> str:
    done = await run(opened, code)
    assert done.error is not None
    return done.error


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_D9_the_plugin_and_its_context_hooks_and_config_are_at_hand(
    opened: Connection,
) -> None:
    assert opened.opened.pid == os.getpid()
    names = ("manager", "plugin", "context", "config", "hooks", "module", "debug")
    assert opened.opened.names == names
    assert await value(opened, "plugin.name, config, list(hooks), module.LIMIT") == (
        "('shop', {'size': 1}, ['ask'], 3)"
    )
    assert await value(opened, "manager.get_plugin('shop') is plugin") == "True"
    assert await value(opened, "context.plugin is plugin, debug.inspect().generation") == (
        "(True, 1)"
    )


async def test_it_runs_in_the_loop_and_awaits(opened: Connection, manager: PluginManager) -> None:
    assert await value(opened, "await manager.bus.emit('ask')") == "3"
    assert await value(opened, "module.LIMIT = 4") is None
    assert await manager.bus.emit("ask") == 4
    code = "async def twice():\n    return 2 * await manager.bus.emit('ask')\n\nawait twice()"
    assert await value(opened, code) == "8"
    assert await value(opened, "_ + 1") == "9"
    assert await value(opened, "for one in (1, 2):\n    await asyncio.sleep(0)\none") == "2"


async def test_names_follow_a_reload_unless_they_were_set(opened: Connection) -> None:
    assert await value(opened, "before = module; config = 'mine'") is None
    assert await value(opened, "await manager.reload_plugin('shop'); 1") == "1"
    assert await value(
        opened, "module is not before, context.config, config, plugin.generation"
    ) == ("(True, {'size': 1}, 'mine', 2)")
    assert await value(opened, "await manager.unload_plugin('shop')") is None
    assert await value(opened, "context, module, hooks") == "(None, None, {})"


async def test_what_it_prints_goes_to_the_console_alone(
    opened: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = io.StringIO()
    monkeypatch.setattr(sys, "stdout", real)
    texts: list[str] = []
    code = (
        "import pprint\n"
        "print('a', 1)\npprint.pprint([2])\nmodule.show('b')\n"
        "await asyncio.to_thread(print, 'thread')\nhelp(manager.off)\nawait asyncio.sleep(0.2)"
    )
    ending = asyncio.create_task(opened.run(code, texts.append))
    await until(lambda: "thread" in "".join(texts))
    print("of the application")
    await ending
    assert "".join(texts).startswith("a 1\n[2]\nshown b\nthread\n")
    assert "Stop observing" in "".join(texts)
    assert real.getvalue() == "of the application\n"
    assert sys.stdout is real


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1 / 0", 'File "<console 1>", line 1, in <module>\n    1 / 0\n'),
        ("x = ", "SyntaxError: invalid syntax"),
        ("a\0b", "null bytes"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('base')", "BaseException: base"),
        ("await asyncio.create_task(asyncio.sleep(5)).cancel()", "TypeError"),
        ("input('?')", "input() would block"),
        ("class Bad:\n    def __repr__(self): raise OSError('none')\nBad()", "OSError: none"),
        ("raise asyncio.CancelledError", "it was cancelled"),
        ("def f(): f()\nf()", "RecursionError"),
    ],
    ids=[
        "raises", "syntax", "null", "interrupt", "base", "type", "input", "repr", "cancelled",
        "recursion",
    ],
)  # fmt: skip
async def test_code_that_fails_is_answered_and_the_application_goes_on(
    opened: Connection, manager: PluginManager, code: str, shown: str
) -> None:
    found = await error(opened, code)
    assert shown in found
    assert "in _value" not in found
    assert manager.state == "running"
    assert await value(opened, "await manager.bus.emit('ask')") == "3"


@pytest.mark.parametrize("code", ["exit()", "quit()", "import sys; sys.exit(3)"])
async def test_exit_leaves_the_console_and_not_the_application(
    opened: Connection, manager: PluginManager, code: str
) -> None:
    assert (await run(opened, code)).leaves
    assert manager.state == "running"


async def test_code_that_runs_can_be_cancelled(opened: Connection) -> None:
    running = asyncio.create_task(run(opened, "x = 1\nawait asyncio.sleep(3600)"))
    await until(lambda: opened._writer.transport.get_write_buffer_size() == 0)
    await asyncio.sleep(0.05)
    opened.cancel()
    assert (await running).error == "it was cancelled"
    assert await value(opened, "x") == "1"


async def test_code_that_is_cancelled_at_once_is_answered(opened: Connection) -> None:
    for _ in range(3):
        running = asyncio.create_task(run(opened, "await asyncio.sleep(3600)"))
        await asyncio.sleep(0)  # it is sent now, and so is what cancels it
        opened.cancel()
        assert (await running).error == "it was cancelled"
    assert await value(opened, "1") == "1"


async def test_a_connection_that_dies_ends_its_code_alone(manager: PluginManager) -> None:
    one, other = await attached(manager), await attached(manager)
    code = "manager.here = 1\ntry:\n    await asyncio.sleep(3600)\nfinally:\n    del manager.here"
    ending = asyncio.create_task(one.run(code, nothing))
    await until(lambda: hasattr(manager, "here"))
    one._writer.transport.abort()
    await until(lambda: not hasattr(manager, "here"))
    with pytest.raises(StateError, match="closed the console"):
        await ending
    assert await value(other, "await manager.bus.emit('ask')") == "3"
    other.close()


async def test_an_application_that_stops_closes_it(tmp_path: Path) -> None:
    async with running(tmp_path) as manager:
        opened = await attached(manager)
        assert await error(opened, "await manager.stop()") == "it was cancelled"
        await until(lambda: manager.state == "stopped")
        with pytest.raises(StateError, match="closed the console"):
            await run(opened, "1")
        assert find_consoles(tmp_path) == {}
    opened.close()


async def test_a_restart_leaves_a_new_one(tmp_path: Path) -> None:
    async with running(tmp_path) as manager:
        opened = await attached(manager)
        assert await error(opened, "await manager.restart()") == "it was cancelled"
        await until(lambda: manager.state == "running" and find_consoles(tmp_path))
        again = await attached(manager)
        assert await value(again, "plugin.state.value") == "'active'"
        again.close()
    opened.close()


async def test_variables_of_a_context_last(opened: Connection) -> None:
    code = "import contextvars; v = contextvars.ContextVar('v'); token = v.set(5)"
    assert await value(opened, code) is None
    assert await value(opened, "v.get()") == "5"


async def test_what_is_printed_without_end_costs_bounded_memory(opened: Connection) -> None:
    texts: list[str] = []
    code = "for _ in range(100_000):\n    print('x' * 100)"
    assert await opened.run(code, texts.append) == Done()
    assert sum(map(len, texts)) < 8_000_000
    assert "more was printed" in "".join(texts)
    assert await value(opened, "1") == "1"


async def test_a_long_value_is_cut_off(opened: Connection) -> None:
    found = await value(opened, "'x' * 1_000_000")
    assert found is not None
    assert len(found) < 101_000
    assert found.endswith("characters)")


async def test_it_completes_words(opened: Connection) -> None:
    async def words(line: str) -> tuple[str, ...]:
        found = await opened.complete(line)
        assert line.endswith(line[len(line) - found.replaced :])
        return found.words

    assert "get_plugin" in await words("await manager.get_")
    assert await words("x = [modu") == ("module",)
    assert await words("print(plugin.manif") == ("manifest",)
    assert "lambda" in await words("lam")
    assert await words("nothing.at.all") == ()
    assert await words("") == await words("f(") == await words("1.") == ()
    assert "_context" not in await words("manager.")
    assert "__class__" in await words("manager.__cl")


async def test_a_plugin_that_is_not_loaded(manager: PluginManager) -> None:
    with pytest.raises(NotFoundError, match=r"'till' is loaded.*Loaded: shop"):
        await attached(manager, "till")


@pytest.mark.parametrize(
    "sent",
    [b"\n", b"GET / HTTP/1.1\r\n\r\n", b'{"type":"Run","code":"1"}\n', b'{"type":"Open"}\n',
     b"x" * 5_000_000],
    ids=["empty", "http", "run-first", "no-plugin", "endless"],
)  # fmt: skip
async def test_what_is_no_client_is_left(manager: PluginManager, sent: bytes) -> None:
    path = find_consoles(manager.options.directory)[os.getpid()]
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(sent)
        async with asyncio.timeout(20):
            try:
                assert await reader.read() == b""
            except ConnectionError:
                pass
    finally:
        writer.close()
    opened = await attached(manager)
    assert await value(opened, "1") == "1"
    opened.close()


async def test_many_at_once(manager: PluginManager) -> None:
    path = find_consoles(manager.options.directory)[os.getpid()]
    several = [await connect(path, "shop") for _ in range(16)]
    with suppress(StateError):
        while True:  # there is an end
            several.append(await connect(path, "shop"))
    assert len(several) < 100
    found = await asyncio.gather(
        *(value(one, f"x = {n}; await asyncio.sleep(0); x") for n, one in enumerate(several))
    )
    assert found == [str(number) for number in range(len(several))]
    for one in several:
        one.close()


async def test_the_socket_is_its_users_alone(manager: PluginManager) -> None:
    path = find_consoles(manager.options.directory)[os.getpid()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_without_dev_mode_there_is_none(tmp_path: Path) -> None:
    async with running(tmp_path, dev_mode=False):
        assert not (tmp_path / ".veko" / "control").exists()


async def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    root = tmp_path / ("deep" * 30)
    async with running(root) as manager:
        opened = await attached(manager)
        assert await value(opened, "1") == "1"
        opened.close()


async def test_where_it_cannot_listen_the_application_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".veko").mkdir()
    (tmp_path / ".veko" / "control").write_text("")
    async with running(tmp_path) as manager:
        assert manager.get_plugin("shop") is not None
    assert "veko debug cannot attach" in caplog.text


async def test_sockets_of_killed_processes_are_removed(tmp_path: Path) -> None:
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await ended.wait()
    folder = tmp_path / ".veko" / "control"
    folder.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / f"{ended.pid}.console"))
    assert find_consoles(tmp_path) == {}
    async with running(tmp_path):
        assert list(find_consoles(tmp_path)) == [os.getpid()]
        assert [path.name for path in folder.iterdir()] == [f"{os.getpid()}.console"]
