"""What a worker may ask of the host: each argument is checked, and what is refused costs nobody.

The frames come from a script that speaks to the host past its context.
"""

# ruff: noqa: E501

import asyncio

import pytest

from .conftest import SECONDS, App

pytestmark = pytest.mark.anyio

OTHER = """
import os
import subprocess
from pathlib import Path

name = "other"
version = "1.0.0"
secret = {"deep": [1]}

class Service:
    _hidden = "no"
    value = 7
    def add(self, a, b=0): return a + b
    def path(self): return Path("/tmp")

def double(x): return 2 * x
def fails(): raise ValueError("it failed")

def load(context):
    context.provide("adder", Service())
"""


async def ask(app: App, *args: object) -> dict[str, object]:
    response = await app.client.post("/ask", json=list(args))
    assert response.status_code == 200, response.text
    found: dict[str, object] = response.json()
    return found


SCRIPT = """
module.exports = {
  name: 'reach', version: '1.0.0', dependencies: ['other'],
  load(app, config, context) {
    const other = context.getPlugin('other');
    const call = async (fn) => { try { return { value: await fn() }; } catch (error) { return { error: error.name, text: error.message }; } };
    context.addRoute('POST', '/ask', async (req, res) => {
      const [what, ...args] = req.body;
      res.json(await call({
        plugin: () => other.module[args[0]](...(args[1] ?? [])),
        service: async () => { const s = await context.use(args[0]); return args[1] ? s[args[1]](...(args[2] ?? [])) : Object.keys(s); },
        command: () => context.runCommand(...args),
        emit: () => context.emit(...args),
        config: () => context.updateConfig(args[0]),
      }[what]));
    });
    context.addRoute('GET', '/known', (req, res) => res.json({ names: Object.keys(other.module).sort(), list: context.listPlugins().map((one) => one.name) }));
  },
};
"""


async def test_a_worker_reaches_what_plugins_offer_and_nothing_else(app: App) -> None:
    app.put("other.py", OTHER)
    app.put("reach.js", SCRIPT)
    await app.start()
    assert await app.json("/known") == {
        "names": ["double", "fails", "secret"],
        "list": ["other", "reach"],
    }
    assert await ask(app, "service", "adder", "add", [1, 2]) == {"value": 3}
    assert sorted((await ask(app, "service", "adder"))["value"]) == ["add", "path", "value"]  # type: ignore[call-overload]
    for hidden in ("_hidden", "__class__", "__init__", "add.__globals__"):
        found = await ask(app, "service", "adder", hidden)
        assert "error" in found, found
    for own in ("loading", "storage", "loader", "http", "permissions", "commands"):
        found = await ask(app, "service", own, "load_plugin", ["x"])
        assert "error" in found
        assert "cannot be used from another process" in str(found["text"]) or "storage" in own
    path = await ask(app, "service", "adder", "path")
    assert path == {"value": "/tmp"}
    assert (await ask(app, "config", [1]))["error"]
    assert (await ask(app, "command", "nothing"))["error"] == "NotFoundError"
    assert (await ask(app, "emit", "unheard", 1)) == {"value": 1}
    assert app.errors == []


async def test_a_module_that_was_imported_is_no_export(app: App) -> None:
    app.put("other.py", OTHER)
    app.put(
        "sly.js",
        """
module.exports = {
  name: 'sly', version: '1.0.0',
  load(app, config, context) {
    const other = context.getPlugin('other');  // not among its dependencies: its names are not known
    context.addRoute('GET', '/sly/:name', async (req, res) => {
      try { res.json({ value: await other.module[req.params.name]('touch /tmp/never') }); }
      catch (error) { res.json({ error: error.name, text: error.message }); }
    });
  },
};
""",
    )
    await app.start()
    assert (await app.json("/sly/double"))["value"]
    for name in ("os", "subprocess", "Path", "Service", "load", "context"):
        found = await app.json(f"/sly/{name}")
        assert "error" in found, found
    failed = await app.json("/sly/fails")
    assert failed["error"] in ("TypeError", "ValueError")


@pytest.mark.parametrize(
    "call",
    [
        "connection.call('emit', 3, [])", "connection.call('emit', 'x', {})", "connection.call('use', 7)",
        "connection.note('storage', { a: 1 }, 'keys', false)", "connection.note('storage', [1], [], false)",
        "connection.note('hook', 'one', 'x', () => 1, {})", "connection.note('hook', 77, 'x', 'no function', {})",
        "connection.note('hook', 77, 'x', () => 1, { priority: 'high' })",
        "connection.note('add_route', 78, 7, '/x', () => 1)", "connection.note('provide', 79, '', 1)",
        "connection.note('add_command', 80, 'c', () => 1, '', [{}])",
        "connection.note('nothing')", "connection.call('nothing')",
        "connection.call('plugin_call', 'x', 7, [])", "connection.call('plugin_call', 'reach', 'x', 7)",
        "connection.socket.write('garbage')", "connection.socket.write(Buffer.from([255, 255, 255, 255, 0, 0, 0, 0]))",
        "connection.note('failed', 'no error', 'x')",
    ],
)  # fmt: skip
async def test_what_no_honest_worker_sends_ends_it_or_is_reported(app: App, call: str) -> None:
    """The worker is at fault: it is reported, restarted, and the host keeps answering."""
    app.put("other.py", OTHER + "    context.add_route('GET', '/other', lambda request: 'here')\n")
    app.put(
        "reach.js",
        """
const { WeakRef: Ref } = globalThis;
module.exports = {
  name: 'reach', version: '1.0.0', permissions: undefined,
  load(app, config, context) {
    // The connection, as code that means harm would find it: through the storage's own reference.
    const connection = context.storage.connection;
    context.addRoute('GET', '/reach', async (req, res) => { res.json('ok'); await null; await CALL; });
    context.addRoute('GET', '/alive', (req, res) => res.json('alive'));
  },
};
""".replace("CALL", call),
    )
    manager = await app.start()
    before = app.generation("reach")
    response = await app.get("/reach")
    assert response.status_code in (200, 500, 503)
    await app.until(lambda: bool(app.errors) or app.generation("reach") > before or app.logs)
    assert (await app.get("/other")).text == "here"
    if app.errors:
        assert {name for name, _ in app.errors} == {"reach"}
    await app.until(lambda: manager.get_plugin("reach") is not None)
    async with asyncio.timeout(SECONDS):
        while (await app.get("/alive")).status_code != 200:  # noqa: ASYNC110 (it is asked, and tells nobody)
            await asyncio.sleep(0.02)
