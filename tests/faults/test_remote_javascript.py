"""Plugins in JavaScript that misbehave on purpose: stopped, reported, and nobody else waits.

Each is confined to what it declares: nothing. See `test_remote_python` for those in Python.
"""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from veko_plugins.remote.launcher import Confinement, missing

from .remote_application import Watched

pytest.importorskip("deno", reason="needs the extra typescript")
pytestmark = pytest.mark.skipif(
    bool(missing(Confinement())) and "CI" not in os.environ, reason="the kernel lacks Landlock"
)

PLUGIN = """
module.exports = {
  name: 'bad', version: '1.0.0',
  load(app, config, context) {
    context.addRoute('GET', '/bad', async (req, res) => { %s; res.json('done'); });
    context.addRoute('GET', '/pid', (req, res) => res.json({ pid: Deno.pid }));
  },
};
"""
ENDS = {
    "an endless loop": ("while (true) {}", "blocked"),
    "a blocked event loop": (
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60000)", "blocked",
    ),
    "memory": ("const x = []; while (true) x.push(new Array(1e6).fill(x.length))", ""),
    "memory outside of the heap": (
        "const x = []; while (true) x.push(new Uint8Array(2 ** 24).fill(1))", "of memory",
    ),
    "process.exit": ("process.exit(3)", "exit status 3"),
    "Deno.exit": ("Deno.exit(4)", "exit status 4"),
    "an error that nobody catches": ("setTimeout(() => { throw new Error('thrown') })", ""),
    "a worker with more permissions": (
        "new Worker('data:text/javascript,', "
        "{ type: 'module', deno: { permissions: { read: true } } });"
        " await new Promise((r) => setTimeout(r, 60000))", "exit status 70",
    ),
}  # fmt: skip
REFUSED = {
    "reading /etc/passwd": "Deno.readTextFileSync('/etc/passwd')",
    "reading it as Node does": "require('fs').readFileSync('/etc/passwd')",
    "writing outside its folder": "Deno.writeTextFileSync('/tmp/veko-outside', 'x')",
    "fetch": "await fetch('http://127.0.0.1:{port}/')",
    "a connection": "await Deno.connect({{ port: {port} }})",
    "a process": "new Deno.Command('/bin/true').outputSync()",
    "child_process": "require('child_process').execSync('true')",
    "a signal to the host": "Deno.kill({host}, 'SIGKILL')",
    "a native addon": "Deno.dlopen('libc.so.6', {{}})",
    "granting itself": (
        "if ((await Deno.permissions.request({{ name: 'read' }})).state !== 'granted')"
        " throw new Error('not granted')"
    ),
}


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[Watched, AsyncExitStack]]:
    async with AsyncExitStack() as stack:
        yield Watched(tmp_path), stack


@pytest.mark.parametrize("what", ENDS)
async def test_it_costs_its_own_plugin_only(
    what: str, watched: tuple[Watched, AsyncExitStack]
) -> None:
    app, stack = watched
    body, why = ENDS[what]
    await app.start(stack, "bad.js", PLUGIN % body)
    first = (await app.bad("/pid")).json()["pid"]
    async with app.asked():
        await app.bad()
        assert await app.reported(why)
        again = await app.answers("/pid")
    assert again.json()["pid"] != first or what == "an error that nobody catches"


@pytest.mark.parametrize("what", REFUSED)
async def test_it_is_refused_and_named(
    what: str, watched: tuple[Watched, AsyncExitStack], caplog: pytest.LogCaptureFixture
) -> None:
    app, stack = watched
    with socket.create_server(("127.0.0.1", 0)) as server:
        body = REFUSED[what].format(host=os.getpid(), port=server.getsockname()[1])
        await app.start(stack, "bad.js", PLUGIN % body)
        async with app.asked():
            assert (await app.bad()).status_code == 500
            await app.reported("")
    assert "bad.js:5" in caplog.text
    assert "veko-outside" not in os.listdir("/tmp")  # noqa: PTH208


async def test_its_environment_is_empty(
    watched: tuple[Watched, AsyncExitStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, stack = watched
    monkeypatch.setenv("VERY_SECRET", "1")
    await app.start(stack, "bad.js", PLUGIN % "res.json(Object.keys(process.env)); return")
    assert "VERY_SECRET" not in (await app.bad()).text


async def test_a_link_that_is_shipped_in_its_folder(
    watched: tuple[Watched, AsyncExitStack], tmp_path: Path
) -> None:
    app, stack = watched
    (tmp_path / "secret").write_text("secret")
    await app.start(stack, "other.js", PLUGIN.replace("bad", "other").replace("pid'", "x'") % "")
    folder = tmp_path / "aside" / "linked"
    folder.mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path / "secret")
    read = "res.send(require('fs').readFileSync(__dirname + '/out', 'utf8')); return"
    (folder / "index.js").write_text(PLUGIN % read)
    await app.manager.load_plugin(folder)
    answer = await app.bad()
    assert answer.status_code == 500
    assert "secret" not in answer.text
