"""Which runtime there is, and how it is started."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from veko_plugins.remote.accesses import Accesses, Watch
from veko_plugins.remote.audit import AuditTrail
from veko_plugins.remote.deno import JavaScript, RuntimeMissing, find
from veko_plugins.remote.deno import runtime as module
from veko_plugins.remote.launcher import Launcher
from veko_plugins.remote.permissions import Grants, grants
from veko_plugins.remote.protocol import Connection, RemoteError

from .conftest import SECONDS, Worker


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Deno's distribution and without Node's."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")


def find_anew(name: Any = None) -> JavaScript:
    return module.find.__wrapped__(name)


def test_deno_comes_before_node() -> None:
    assert find().name == "deno"
    assert find("node").name == "node"


@pytest.mark.usefixtures("alone")
def test_without_a_runtime_it_says_what_to_install() -> None:
    with pytest.raises(RuntimeMissing, match=r"neither was found") as caught:
        find_anew()
    assert "veko[typescript]" in (caught.value.remedy or "")


@pytest.mark.usefixtures("alone")
def test_a_runtime_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for version in ("v20.20.2", "v22.6.0", "nonsense"):
        node(tmp_path, version)
        with pytest.raises(RuntimeMissing):
            find_anew()
    node(tmp_path, "v22.7.0")
    assert find_anew() == JavaScript("node", tmp_path / "node")
    (tmp_path / "deno").symlink_to(sys.executable)
    assert find_anew() == JavaScript("deno", tmp_path / "deno")


def node(folder: Path, version: str) -> None:
    path = folder / "node"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)


async def test_node_runs_trusted_plugins_only(tmp_path: Path) -> None:
    async with Launcher() as launcher:
        with pytest.raises(RuntimeMissing, match="confined plugin in JavaScript needs Deno"):
            await find("node").start(
                grants([], folder=tmp_path, directory=tmp_path),
                launcher=launcher, directory=tmp_path, stderr=2,
            )  # fmt: skip


@contextlib.asynccontextmanager
async def started(
    path: Path, allowed: Grants | None, name: Any = "deno", trail: AuditTrail | None = None
) -> AsyncIterator[Worker]:
    """A worker, started by the launcher."""
    async with Launcher() as launcher:
        sock, process = await find(name).start(
            allowed,
            launcher=launcher,
            directory=path.parent,
            stderr=2,
            memory=256 * 2**20,
            trail=trail,
        )
        worker = Worker()
        worker.connection = Connection(sock, methods=worker.methods(), notes=worker.notes())
        plugin = {"name": path.stem, "path": str(path), "kind": "script"}
        await worker.connection.open({"plugin": plugin}, timeout=SECONDS)
        try:
            yield worker
        finally:
            worker.connection.note("shutdown")
            async with asyncio.timeout(SECONDS):
                assert await process.wait() == 0
            await worker.connection.close()


TRIES = """const fs = require('node:fs');
const tries = {
  own: () => fs.readFileSync(__filename, 'utf8').length > 0,
  modules: () => require('lodash').add(1, 2),
  secret: () => process.env.SECRET ?? null,
  cwd: () => { fs.writeFileSync('x', 'kept'); return fs.readFileSync('x', 'utf8'); },
  passwd: () => fs.readFileSync('/etc/passwd', 'utf8').length > 0,
  outside: () => fs.writeFileSync(`${__dirname}/written`, ''),
  spawn: () => String(require('node:child_process').execFileSync('/bin/true')),
};
module.exports = { name: 'p', version: '1.0.0', load() {}, run: (name) => tries[name]() };
"""


@pytest.mark.parametrize("name", ["deno", "node"])
async def test_what_a_started_program_prints_breaks_no_message(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.js"
    path.write_text(
        "module.exports = { name: 'p', version: '1.0.0', load() {}, run() {\n"
        "  require('node:child_process').execSync('echo out', { stdio: 'inherit' }); return 1; } };"
    )
    async with started(path, None, name) as worker:
        await worker.load()
        assert await worker.call("plugin_call", "run", []) == 1


@pytest.mark.parametrize("name", ["deno", "node"])
async def test_a_trusted_plugin_runs_as_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SECRET", "known")
    path = tmp_path / "p.js"
    path.write_text(TRIES)
    async with started(path, None, name) as worker:
        await worker.load()
        for what, expected in {
            "own": True,
            "secret": "known",
            "cwd": "kept",
            "passwd": True,
            "outside": None,
            "spawn": "",
        }.items():
            assert await worker.call("plugin_call", "run", [what]) == expected
    assert (tmp_path / "x").read_text() == "kept"


async def test_a_confined_plugin_gets_what_it_is_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, npm: Path
) -> None:
    monkeypatch.setenv("SECRET", "known")
    path = tmp_path / "plugins" / "p.js"
    path.parent.mkdir()
    path.write_text(TRIES)
    (tmp_path / "node_modules").symlink_to(npm)
    accesses = Accesses(lambda plugin, text: None)
    allowed = grants([], folder=path, directory=tmp_path)
    trail = AuditTrail(Watch(accesses, "p", allowed, audited=True), own=find("deno").files)
    with contextlib.closing(trail):
        async with started(path, allowed, trail=trail) as worker:
            await worker.load()
            for what, expected in {
                "own": True,
                "modules": 3,
                "secret": None,
                "cwd": "kept",
            }.items():
                assert await worker.call("plugin_call", "run", [what]) == expected
            for what in ("passwd", "outside", "spawn"):
                with pytest.raises(RemoteError):
                    await worker.call("plugin_call", "run", [what])
            assert worker.denied[:2] == [
                ("read:files", "/etc/passwd", f"{path}:7"),
                ("write:files", f"{path.parent}/written", f"{path}:8"),
            ]
    assert list(path.parent.iterdir()) == [path]
    refused = {(one.kind, one.value) for one in accesses.of("p") if not one.granted}
    assert ("read:files", "/etc/passwd") in refused


@pytest.mark.parametrize("everything", [True, False])
async def test_what_is_read_is_not_reported_as_written(tmp_path: Path, everything: bool) -> None:
    path = tmp_path / "p.js"
    path.write_text(TRIES)
    accesses = Accesses(lambda plugin, text: None)
    allowed = grants(["read:files"], folder=path, directory=tmp_path)
    allowed = msgspec.structs.replace(allowed, everything=everything)
    trail = AuditTrail(Watch(accesses, "p", allowed, audited=True), own=find("deno").files)
    with contextlib.closing(trail):
        async with started(path, allowed, trail=trail) as worker:
            await worker.load()
            assert await worker.call("plugin_call", "run", ["passwd"]) is True
    found = {(one.kind, one.value) for one in accesses.of("p")}
    assert ("read:files", "/etc/passwd") in found
    assert not any(kind == "write:files" for kind, _ in found)


async def test_packages_of_the_nearest_node_modules(tmp_path: Path, npm: Path) -> None:
    (tmp_path / "node_modules").symlink_to(npm)
    path = tmp_path / "p.mjs"
    path.write_text(
        "import lodash from 'lodash';\n"
        "export default { name: 'p', version: '1.0.0', load() {}, add: (a, b) => lodash.add(a, b),\n"
        "  peerDependencies: ['lodash', '@scope/none@^1.0.0'] };"
    )
    async with started(path, None) as worker:
        described = await worker.load()
        assert described["peers"]["lodash"][1].startswith("4.")
        assert described["peers"]["@scope/none"] == ["^1.0.0", None]
        assert await worker.call("plugin_call", "add", [1, 2]) == 3


@pytest.mark.parametrize(
    "check",
    [
        ("check", "--check-js", "--no-config", "--no-lock"),
        ("fmt", "--check", "--no-config", "--options-line-width=100", "--options-single-quote"),
        ("lint", "--no-config"),
    ],
    ids=lambda check: check[0],
)
def test_the_worker_is_checked(check: tuple[str, ...], tmp_path: Path) -> None:
    ran = subprocess.run(
        [find("deno").program, *check, *module.WORKER.parent.rglob("*.mjs")],
        capture_output=True, text=True, timeout=120, check=False,
        env={"DENO_DIR": str(tmp_path), "NO_COLOR": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


async def test_a_refusal_is_named_once_even_if_the_plugin_catches_it(tmp_path: Path) -> None:
    path = tmp_path / "p.ts"
    path.write_text(
        "async function silent() {\n"
        "  const found: string[] = [];\n"
        "  for (let i = 0; i < 3; i++)\n"
        "    try { Deno.readTextFileSync('/etc/passwd'); } catch (e) { found.push(`${e}`); }\n"
        "  try { await Deno.connect({ hostname: 'localhost', port: 1 }); } catch (e) {\n"
        "    found.push(e instanceof Deno.errors.NotCapable ? e.stack!.split('\\n')[0] : `${e}`);\n"
        "  }\n"
        "  return found;\n"
        "}\n"
        "export default { name: 'p', version: '1.0.0', load() {}, silent };\n"
    )
    allowed = grants(["net:connect:localhost"], folder=path, directory=tmp_path)
    async with started(path, allowed) as worker:
        await worker.load()
        found = await worker.call("plugin_call", "silent", [])
        assert found[0] == (
            'NotCapable: Requires read access to "/etc/passwd"; if it needs that, add '
            '"read:files:/etc/passwd" to its permissions'
        )
        assert worker.denied == [("read:files", "/etc/passwd", f"{path}:4")]
        assert "refused" in found[3]  # by the system: nothing listens there
    other = grants(["net:connect:10.0.0.1"], folder=path, directory=tmp_path)
    async with started(path, other) as worker:
        await worker.load()
        found = await worker.call("plugin_call", "silent", [])
        assert 'add "net:connect:localhost:1" to its permissions' in found[3]
        assert worker.denied[1][:2] == ("net:connect", "localhost:1")


NET = """module.exports = { name: 'p', version: '1.0.0', load() {},
  get: async (url) => (await fetch(url)).status,
  read: (path) => require('node:fs').readFileSync(path, 'utf8'),
  host: () => require('node:os').hostname().length > 0,
  random: () => require('node:crypto').randomBytes(8).length,
  memory: () => process.memoryUsage().rss > 0 };
"""


async def test_the_network_and_links_of_a_confined_plugin(tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "p.js"
    path.parent.mkdir()
    path.write_text(NET)
    (tmp_path / "secret").write_text("hidden")
    (path.parent / "link").symlink_to(tmp_path / "secret")
    served: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        served.append(writer.get_extra_info("sockname")[1])
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    one = await asyncio.start_server(answer, "127.0.0.1", 0)
    two = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with one, two:
        ports = [server.sockets[0].getsockname()[1] for server in (one, two)]
        asked = [f"net:connect:127.0.0.1:{ports[0]}", "read:files:./plugins"]
        async with started(path, grants(asked, folder=path, directory=tmp_path)) as worker:
            await worker.load()
            assert await worker.call("plugin_call", "get", [f"http://127.0.0.1:{ports[0]}/"]) == 204
            for name, expected in (("host", True), ("random", 8), ("memory", True)):
                assert await worker.call("plugin_call", name, []) == expected
            with pytest.raises(RemoteError):
                await worker.call("plugin_call", "get", [f"http://127.0.0.1:{ports[1]}/"])
            with pytest.raises(RemoteError, match=r"EACCES|EPERM|ermission"):
                await worker.call("plugin_call", "read", [str(path.parent / "link")])
    assert served == [ports[0]]
