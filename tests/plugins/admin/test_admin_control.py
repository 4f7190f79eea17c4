"""The control socket: its modes, stale sockets, what is no HTTP, and `veko serve` with workers."""

import asyncio
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.plugins.admin.conftest import Control, Home, until

from veko.errors import NotFoundError, StateError
from veko_plugins import PluginManager
from veko_plugins._lib.control_files import address_of, control_folder, live_sockets
from veko_plugins.admin import (
    AdminClient,
    AdminError,
    Configure,
    ControlSocket,
    Toggle,
    admin_token,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets there"),
]


async def raw(path: Path, data: bytes) -> bytes:
    """Send bytes to a socket; returns all that it answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    with address_of(path) as address:
        await asyncio.get_running_loop().sock_connect(connection, address)
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    writer.write(data)
    writer.write_eof()
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_the_folder_and_the_socket_are_their_users_alone(
    manager: PluginManager, control: Control
) -> None:
    old = os.umask(0)
    try:
        async with control(manager):
            folder = control_folder(manager.options.directory)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            (path,) = folder.glob("*.sock")
            assert path.name == f"{os.getpid()}.sock"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(folder.glob("*.sock")) == []
    finally:
        os.umask(old)


async def test_a_folder_that_others_may_enter_is_closed_and_a_link_is_refused(
    home: Home, manager: PluginManager, control: Control
) -> None:
    folder = control_folder(home.root)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    async with control(manager) as client:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        await client.status()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    elsewhere = home.root / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    opened = ControlSocket(home.root, None)  # type: ignore[arg-type]
    await opened.open()
    assert opened.path is None
    assert list(elsewhere.iterdir()) == []
    await opened.close()


async def test_sockets_of_killed_processes_are_passed_over_and_removed(
    home: Home, manager: PluginManager, control: Control
) -> None:
    folder = control_folder(home.root)
    folder.mkdir(parents=True, exist_ok=True)
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    for pid in (gone.pid, os.getppid()):  # the second number belongs to another process now
        with socket.socket(socket.AF_UNIX) as stale, address_of(folder / f"{pid}.sock") as address:
            stale.bind(address)
    with pytest.raises((NotFoundError, StateError)):
        await AdminClient.local(home.root).status()
    async with control(manager) as client:
        assert (await client.status()).pid == os.getpid()
        assert [path.stem for path in folder.glob("*.sock")] == [str(os.getpid())]


async def test_nothing_serves_from_a_directory_without_a_socket(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no application serves"):
        AdminClient.local(tmp_path)


async def test_a_socket_in_a_deep_folder_is_opened_and_found(
    tmp_path: Path, control: Control
) -> None:
    root = tmp_path / ("deep" * 20) / ("deeper" * 20)
    made = Home(root).manager(enable_api=False)
    async with made as manager, control(manager) as client:
        assert [row.name for row in await client.plugins()] == ["shop", "cart"]


async def test_without_an_adapter_everything_works_over_the_socket(
    home: Home, control: Control
) -> None:
    home.plugin(
        "shop", 'name = "shop"\nversion = "1"\ndef load(context): context.provide("stock", 1)'
    )
    home.plugin("cart", 'name = "cart"\nversion = "1"\ndependencies = ["shop"]\ndef load(): pass')
    async with home.manager(adapter=None):
        pass  # enable_api alone is no error
    async with home.manager(adapter=None, enable_api=False) as manager, control(manager) as client:
        assert manager.kernel.get("veko-admin") is None  # loaded at the first connection
        change = await client.toggle("shop", False, cascade=True)
        assert [one.name for one in change.plan.plugins] == ["cart", "shop"]
        await client.undo(change.id)
        assert all(row.active for row in await client.plugins())
        assert manager.kernel.get("veko-admin") is not None


async def test_what_is_no_http_is_refused_and_costs_nothing(
    manager: PluginManager, control: Control
) -> None:
    bad: tuple[tuple[bytes, bytes], ...] = (
        (b"hello\r\n\r\n", b"400"),
        (b"GET /_veko/api/status HTTP/2.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /_veko/api/status HTTP/1.1\r\nbroken\r\n\r\n", b"400"),
        (b"GET /_veko/api/status HTTP/1.1\r\ncontent-length: x\r\n\r\n", b"400"),
        (b"POST /_veko/api/changes HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", b"413"),
        (b"POST /_veko/api/changes HTTP/1.1\r\ncontent-length: 9\r\n\r\n{", b"400"),
        (b"GET /_veko/api/status HTTP/1.1\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (b"POST /_veko/api/changes HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
    )
    async with control(manager) as client:
        path = live_sockets(manager.options.directory)[os.getpid()]
        for data, status in bad:
            answer = await raw(path, data)
            assert answer.split(b" ", 2)[1] == status, data[:60]
        assert await raw(path, b"") == b""
        twice = b"GET /_veko/api/health HTTP/1.1\r\n\r\n" * 2
        assert (await raw(path, twice)).count(b"HTTP/1.1 200") == 2
        await client.status()


async def test_the_socket_counts_no_relay_over_http(home: Home, manager: PluginManager) -> None:
    """The header of a worker that relays is not believed where anybody can send it."""
    from tests.plugins.admin.conftest import http_client

    headers = {"veko-relayed": "somebody else", "veko-change": "chosen-id"}
    async with http_client(manager, headers=headers) as http:
        change = (await http.post("plugins/cart/toggle", json={"active": False})).json()
    assert change["id"] != "chosen-id"
    assert change["who"].startswith("operate by token")


# -- veko serve


async def changed(client: AdminClient, name: str) -> str:
    return next(row.state for row in await client.plugins() if row.name == name)


async def test_veko_serve_opens_the_socket_without_the_option(
    start: Callable[..., Any], home: Home
) -> None:
    veko = start("serve", home.root, "--port", 0)
    await asyncio.to_thread(veko.wait_for, r"Listening on (\S+)")
    client = AdminClient.local(home.root, timeout=30)
    status = await client.status()
    assert status.pid == veko.process.pid
    assert status.workers == (veko.process.pid,)
    await client.toggle("cart", False)
    veko.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(veko.ends) == 0
    assert live_sockets(home.root) == {}
    assert not list(control_folder(home.root).glob("*.sock"))
    veko = start("serve", home.root, "--port", 0)
    await asyncio.to_thread(veko.wait_for, r"Listening on (\S+)")
    assert "off      cart: switched off by an operator" in veko.text


async def test_a_killed_application_leaves_nothing_that_is_in_the_way(
    start: Callable[..., Any], home: Home
) -> None:
    veko = start("serve", home.root, "--port", 0)
    await asyncio.to_thread(veko.wait_for, r"Listening on (\S+)")
    veko.process.kill()
    veko.process.wait()
    with pytest.raises(NotFoundError):
        AdminClient.local(home.root)
    veko = start("serve", home.root, "--port", 0)
    await asyncio.to_thread(veko.wait_for, r"Listening on (\S+)")
    assert (await AdminClient.local(home.root).status()).pid == veko.process.pid
    assert len(list(control_folder(home.root).glob("*.sock"))) == 1


async def test_a_change_is_made_in_all_workers_or_in_none(
    start: Callable[..., Any], home: Home
) -> None:
    (home.root / "veko.toml").write_text('storage = "none"\nmax_retries = 0\n')
    home.plugin("late", 'name = "late"\nversion = "1"\ndef load(): pass')
    veko = start("serve", home.root, "--port", 0, "--workers", 2)
    await asyncio.to_thread(veko.wait_for, r"Listening on (\S+)")
    async with asyncio.timeout(30):
        while len(live_sockets(home.root)) < 2:  # noqa: ASYNC110 - another process opens them
            await asyncio.sleep(0.05)
    clients = [AdminClient(sockets=[path]) for path in live_sockets(home.root).values()]
    first, second = clients
    change = await first.toggle("cart", False)
    assert set(change.workers) == set(live_sockets(home.root))
    assert [await changed(one, "cart") for one in clients] == ["inactive", "inactive"]
    assert (await second.changes())[0].id == change.id
    await second.undo(change.id)
    assert [await changed(one, "cart") for one in clients] == ["active", "active"]
    await second.apply(Configure("shop", value={"size": 3}))
    assert [(await one.config("shop", ("size",))).value for one in clients] == [3, 3]

    # Both ask at once: each change is made everywhere, one after the other.
    done = await asyncio.gather(
        first.apply(Configure("shop", value={"size": 4})), second.apply(Toggle("cart", False))
    )
    assert all(len(one.workers) == 2 for one in done)
    assert [await changed(one, "cart") for one in clients] == ["inactive", "inactive"]

    # A worker that refuses: nothing is changed anywhere. It has a plugin of its own that refuses.
    home.plugin(
        "late",
        f"""
        import os
        name = "late"
        version = "2"
        def load():
            if os.getpid() == {(await second.status()).pid}:
                raise ValueError("not here")
        """,
    )
    with pytest.raises(AdminError, match="not here"):
        await first.reload("late")
    versions = [(await one.plugin("late")).plugin.version for one in clients]
    assert versions == ["1", "1"]
    assert await changed(first, "late") == "active"


async def test_a_worker_that_was_killed_is_not_asked(start: Callable[..., Any], home: Home) -> None:
    (home.root / "veko.toml").write_text('storage = "none"\n')
    veko = start("serve", home.root, "--port", 0, "--workers", 2)
    await asyncio.to_thread(veko.wait_for, r"Listening on (\S+)")
    await until(lambda: len(live_sockets(home.root)) == 2)
    victim, other = live_sockets(home.root)
    os.kill(victim, signal.SIGKILL)
    client = AdminClient(sockets=[control_folder(home.root) / f"{other}.sock"])
    await until(lambda: victim not in live_sockets(home.root))
    await client.toggle("cart", False)
    await until(lambda: len(live_sockets(home.root)) == 2)  # the new one starts without the cart
    (new,) = live_sockets(home.root).keys() - {other}
    fresh = AdminClient(sockets=[control_folder(home.root) / f"{new}.sock"])
    assert await changed(fresh, "cart") in ("off", "inactive")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals there")
def test_a_person_at_a_terminal_is_shown_the_dashboard_with_its_token(home: Home) -> None:
    import pty

    (home.root / "veko.toml").write_text('enable_api = true\nadapter = "asgi"\n')
    person, terminal = pty.openpty()
    command = [sys.executable, "-m", "veko_plugins.cli", "serve", str(home.root), "--port", "0"]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        text = b""
        try:
            while (found := re.search(rb"dashboard  (\S+)#token=(\S+)", text)) is None:
                text += os.read(person, 4096)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            os.close(person)
    assert found[1].endswith(b"/_veko")
    assert found[2].decode() == admin_token(home.root)


def test_a_log_is_shown_no_token(start: Callable[..., Any], home: Home) -> None:
    (home.root / "veko.toml").write_text('enable_api = true\nadapter = "asgi"\n')
    veko = start("serve", home.root, "--port", 0)
    veko.wait_for(r"dashboard  http://\S+/_veko")
    token = admin_token(home.root)
    assert token is not None
    assert token not in veko.text


PLUGIN_NAMED_ADMIN = 'name, version = "admin", "1.0.0"\n\ndef load():\n    pass\n'


async def test_an_application_may_have_a_plugin_named_admin(home: Home, control: Control) -> None:
    home.plugin("admin", PLUGIN_NAMED_ADMIN)
    sections = {"admin": {"title": "its own"}}
    async with (
        home.manager(enable_api=False, plugins=sections) as manager,
        control(manager) as client,
    ):
        assert "admin" in {row.name for row in await client.plugins()}
        assert (await client.plugin("admin")).plugin.version == "1.0.0"


async def test_a_plugin_named_admin_may_come_later(home: Home, control: Control) -> None:
    async with home.manager(enable_api=False) as manager, control(manager) as client:
        await client.status()  # loads the API
        home.plugin("admin", PLUGIN_NAMED_ADMIN)
        await client.load("admin")
        assert (await client.plugin("admin")).plugin.version == "1.0.0"
        await client.status()
