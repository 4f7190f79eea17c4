"""Confined plugins in an application: `enable_sandbox`, `isolation`, `permissions`."""

# ruff: noqa: E501

import os
from pathlib import Path

import pytest

from veko import VekoError

from .conftest import App

pytestmark = pytest.mark.anyio

PYTHON = """
import os
from pathlib import Path

name = "guest"
version = "1.0.0"
permissions = {permissions}
{more}

def tried(fn):
    try:
        return str(fn())
    except BaseException as error:
        return type(error).__name__

def load(context):
    context.storage.set("n", 1)
    def look():
        return {{
            "pid": os.getpid(),
            "passwd": tried(lambda: Path("/etc/passwd").read_text()),
            "own": tried(lambda: Path(__file__).read_text()[:1] == "\\n"),
            "data": tried(lambda: (Path({root!r}) / "data.txt").read_text()),
            "write": tried(lambda: (Path({root!r}) / "written.txt").write_text("x")),
            "home": tried(lambda: os.environ["HOME"]),
            "spawn": tried(lambda: os.system("true")),
            "stored": context.storage.get("n"),
        }}
    context.add_route("GET", "/look", look)
    context.add_route("GET", "/echo/{{n:int}}", lambda n: n + 1)
"""
SCRIPT = """
const fs = require('node:fs');
const { execSync } = require('node:child_process');
module.exports = {
  name: 'guest', version: '1.0.0', PERMISSIONS
  load(app, config, context) {
    const tried = (fn) => { try { return String(fn()); } catch (error) { return error.name + ': ' + error.message; } };
    context.addRoute('GET', '/look', (req, res) => res.json({
      pid: process.pid,
      passwd: tried(() => fs.readFileSync('/etc/passwd', 'utf8')),
      data: tried(() => fs.readFileSync(ROOT + '/data.txt', 'utf8')),
      write: tried(() => fs.writeFileSync(ROOT + '/written.txt', 'x')),
      home: tried(() => process.env.HOME),
      spawn: tried(() => execSync('true')),
    }));
  },
};
"""


def python(root: Path, permissions: str = "[]", more: str = "") -> str:
    return PYTHON.format(permissions=permissions, more=more, root=str(root))


@pytest.mark.parametrize("how", ["enable_sandbox", "isolation"])
async def test_O11_a_python_plugin_gets_what_it_is_granted(app: App, how: str) -> None:
    (app.root / "data.txt").write_text("data")
    sandbox = how == "enable_sandbox"
    more = "" if sandbox else 'isolation = "process"'
    app.put("guest.py", python(app.root, '["read:files:./data.txt"]', more))
    manager = await app.start(enable_sandbox=sandbox)
    assert await app.json("/echo/4") == 5
    found = await app.json("/look")
    assert found.pop("pid") != os.getpid()
    assert found["own"] == "True"
    assert found["data"] == "data"
    assert found["stored"] == 1
    for refused in ("passwd", "write"):
        assert found[refused] == "PermissionError", found
    assert found["home"] != os.environ["HOME"]
    assert not (app.root / "written.txt").exists()
    assert manager.check_plugin_health("guest").health == "healthy"
    assert any("was refused read:files:/etc/passwd" in text for _, _, text in app.logs), app.logs


@pytest.mark.parametrize("how", ["enable_sandbox", "permissions"])
async def test_O11_a_script_gets_what_it_is_granted(app: App, how: str) -> None:
    (app.root / "data.txt").write_text("data")
    text = SCRIPT.replace("PERMISSIONS", "permissions: ['read:files:./data.txt'],")
    app.put("guest.js", text.replace("ROOT", repr(str(app.root))))
    await app.start(enable_sandbox=how == "enable_sandbox")
    found = await app.json("/look")
    assert found.pop("pid") != os.getpid()
    assert found["data"] == "data"
    for refused in ("passwd", "write", "spawn"):
        assert "data" not in found[refused]
        assert "root:" not in found[refused]
        assert "Error" in found[refused] or "NotCapable" in found[refused], found
    assert found["home"] != os.environ["HOME"]
    assert not (app.root / "written.txt").exists()


async def test_a_trusted_script_may_do_what_the_application_may(app: App) -> None:
    (app.root / "data.txt").write_text("data")
    text = SCRIPT.replace("PERMISSIONS", "").replace("ROOT", repr(str(app.root)))
    app.put("guest.js", text)
    await app.start()
    found = await app.json("/look")
    assert "root:" in found["passwd"]
    assert found["home"] == os.environ["HOME"]
    assert (app.root / "written.txt").exists()


async def test_permissions_that_only_running_it_tells_confine_it_too(app: App) -> None:
    """It was started as trusted, since nothing could be read; then it says what it asks for."""
    text = SCRIPT.replace("PERMISSIONS", "permissions: [].concat(['read:files:./data.txt']),")
    (app.root / "data.txt").write_text("data")
    app.put("guest.js", text.replace("ROOT", repr(str(app.root))))
    await app.start()
    found = await app.json("/look")
    assert found["data"] == "data"
    assert "root:" not in found["passwd"]


@pytest.mark.parametrize("value", ['"process" if len("x") else "none"', '"pro" + "cess"'])
async def test_a_computed_isolation_is_refused_or_kept(app: App, value: str) -> None:
    app.put("guest.py", python(app.root, "[]", f"isolation = {value}"))
    manager = await app.start()
    failed = manager.report.failed
    assert "its `isolation` cannot be read without running it" in str(failed["guest"])
    unread = "if True:\n    name = 'guest'\n"  # now nothing of its manifest can be read
    app.put("guest.py", unread + python(app.root, "[]", 'isolation = "process" if True else ""'))
    await manager.load_plugin("guest")
    found = await app.json("/look")
    assert found["pid"] != os.getpid()
    assert found["passwd"].endswith("Error")


async def test_an_object_cannot_be_isolated(app: App) -> None:
    manager = await app.start()
    plugin = {"name": "x", "version": "1", "load": lambda: None, "isolation": "process"}
    with pytest.raises(VekoError, match="it was given as an object"):
        await manager.load_plugin(plugin)
