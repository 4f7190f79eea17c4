"""Permissions of plugins in workers, from the manifest to the kernel, in an application."""

from __future__ import annotations

import json
import socket
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import PluginManager
from veko_plugins.remote import LockError

PYTHON = """
import ctypes, os, pathlib, socket, struct, subprocess

def attempt(fn):
    try:
        return {"ok": fn()}
    except BaseException as error:
        return {"error": type(error).__name__}

def raw_read(path):
    # Not by Python's own functions, which would name it: the kernel alone refuses it.
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.open(path.encode(), 0)
    if found < 0:
        raise PermissionError(ctypes.get_errno(), path)
    os.close(found)

def raw_connect(port, kind):
    # Past the broker: what a connected socket needs is refused by the kernel.
    libc = ctypes.CDLL(None, use_errno=True)
    sock = libc.socket(2, kind, 0)
    if sock < 0:
        raise PermissionError(ctypes.get_errno(), "socket")
    address = struct.pack("=HHIQ", 2, socket.htons(port), 0x0100007F, 0)
    failed = libc.connect(sock, address, 16)
    os.close(sock)
    if failed:
        raise PermissionError(ctypes.get_errno(), "connect")

def fetch(host, port):
    with socket.create_connection((host, port), 5) as sock:
        return sock.recv(100).decode()

def load(context):
    add = context.add_command
    add("read", lambda path: attempt(lambda: len(pathlib.Path(path).read_bytes()) >= 0))
    add("raw_read", lambda path: attempt(lambda: raw_read(path)))
    add("raw_connect", lambda port, kind: attempt(lambda: raw_connect(int(port), int(kind))))
    add("write", lambda path: attempt(lambda: pathlib.Path(path).write_text("x")))
    add("fetch", lambda host, port: attempt(lambda: fetch(host, int(port))))
    add("env", lambda name: {"ok": os.environ.get(name)})
    add("spawn", lambda: attempt(lambda: subprocess.run(["true"]).returncode))
"""
DENO = """
const fs = require("node:fs");
async function attempt(fn) {
  try { return { ok: (await fn()) ?? null } } catch (error) { return { error: error.name } }
}
module.exports = {
  load(app, config, context) {
    const add = (name, fn) => context.addCommand(name, fn);
    add("read", (path) => attempt(() => fs.readFileSync(path).length >= 0));
    add("write", (path) => attempt(() => fs.writeFileSync(path, "x")));
    add("fetch", (host, port) => attempt(async () => {
      const conn = await Deno.connect({ hostname: host, port: Number(port) });
      const buffer = new Uint8Array(100);
      const size = await conn.read(buffer);
      conn.close();
      return new TextDecoder().decode(buffer.subarray(0, size));
    }));
    add("env", (name) => ({ ok: Deno.env.get(name) ?? null }));
    add("spawn", () => attempt(() => new Deno.Command("/bin/true").outputSync().code));
  },
};
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[int]:
    """A server on loopback that says hello; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(b"hello")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


class App:
    """An application with one confined plugin."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        self.folder = root / "plugins" / "shop"
        self.folder.mkdir(parents=True)
        for name in ("data", "out", "secret"):
            (root / name).mkdir()
            (root / name / "a.txt").write_text("x")

    def write(self, *permissions: str, version: str = "1.0.0") -> None:
        fields = {"name": "shop", "version": version, "isolation": "process"}
        if self.kind == "python":
            lines = [f"{key} = {value!r}" for key, value in fields.items()]
            lines.append(f"permissions = {list(permissions)!r}")
            (self.folder / "__init__.py").write_text("\n".join(lines) + textwrap.dedent(PYTHON))
        else:
            (self.folder / "index.js").write_text(DENO)
            veko = {"isolation": "process", "permissions": permissions}
            package = {"name": "shop", "version": version, "main": "index.js", "veko": veko}
            (self.folder / "package.json").write_text(json.dumps(package))

    def manager(self, **options: Any) -> PluginManager:
        return PluginManager(root=self.root, adapter=None, storage="none", max_retries=0, **options)


@pytest.fixture(params=["python", "deno"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> App:
    return App(tmp_path / "app", request.param)


async def test_a_plugin_gets_what_it_is_granted_and_nothing_else(
    app: App, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_KEY", "known")
    monkeypatch.setenv("SECRET", "hidden")
    (app.folder / "link").symlink_to("/etc/passwd")
    (app.root / "data" / "link").symlink_to("/etc/passwd")
    app.write(
        "read:files:./data", "write:files:./out", "write:files:./made",
        f"net:connect:127.0.0.1:{server}", "env:read:APP_*",
    )  # fmt: skip
    async with app.manager() as manager:
        assert not manager.report.failed, manager.report.failed

        async def run(name: str, *words: object) -> Any:
            return await manager.run_command(name, *map(str, words))

        async def is_granted(name: str, *words: object) -> bool:
            return "ok" in await run(name, *words)

        data, out = app.root / "data", app.root / "out"
        assert await is_granted("read", data / "a.txt")
        assert await is_granted("read", out / "a.txt")
        assert await is_granted("write", out / "b.txt")
        assert await is_granted("write", app.root / "made" / "b.txt")
        for path in (
            "/etc/passwd", app.root / "secret" / "a.txt", data / "link", app.folder / "link",
            data / ".." / "secret" / "a.txt", app.root / "veko.toml",
        ):  # fmt: skip
            assert not await is_granted("read", path), path
        for path in (data / "a.txt", app.root / "x", "/tmp/veko-x", app.folder / "x"):
            assert not await is_granted("write", path), path
        assert await run("fetch", "127.0.0.1", server) == {"ok": "hello"}
        assert not await is_granted("fetch", "localhost", server)
        assert not await is_granted("fetch", "127.0.0.2", server)
        assert await run("env", "APP_KEY") == {"ok": "known"}
        assert await run("env", "SECRET") == {"ok": None}
        assert not await is_granted("spawn")
        if app.kind == "python":
            assert await is_granted("raw_read", data / "a.txt")
            for path in ("/etc/passwd", app.root / "secret" / "a.txt", data / "link"):
                assert not await is_granted("raw_read", path), path
            assert not await is_granted("raw_connect", server, 1)  # TCP, though it is granted
            assert not await is_granted("raw_connect", server, 2)  # UDP
        used, refused = manager.use("permissions").accesses.counts("shop")
        assert used >= 4
        assert refused >= 4


async def test_a_link_that_one_version_makes_opens_nothing_to_the_next(
    app: App, tmp_path: Path
) -> None:
    app.write("write:files:./out")
    inner = app.root / "out" / "inner"
    inner.mkdir()
    async with app.manager() as manager:
        assert set(manager.report.loaded) == {"shop"}
        inner.rmdir()
        inner.symlink_to(app.root / "secret")  # as the plugin can
        app.write("read:files:./out/inner", version="2.0.0")
        with pytest.raises(Exception, match="symbolic link that the plugin may have made"):
            await manager.reload_plugin("shop")
        assert manager.get_plugin("shop").version == "1.0.0"


async def test_the_first_start_with_a_sandbox_is_trusted_and_the_next_version_is_not(
    app: App,
) -> None:
    app.write("read:files:./data")
    async with app.manager(enable_sandbox=True) as manager:
        assert set(manager.report.loaded) == {"shop"}
        assert (app.root / "veko.lock").exists()
        app.write("read:files", version="2.0.0")
        with pytest.raises(LockError, match="asks for more"):
            await manager.reload_plugin("shop")
        assert manager.get_plugin("shop").version == "1.0.0"
