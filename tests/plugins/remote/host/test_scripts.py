"""Plugins in JavaScript and TypeScript in an application, beside plugins in Python."""

# ruff: noqa: E501

import asyncio
import logging
from typing import Any

import httpx
import pytest

from veko import State
from veko.errors import DependencyError, LoadError, ManifestError, VekoError
from veko_plugins import PluginManager

from .conftest import App

pytestmark = pytest.mark.anyio

HELLO = """
module.exports = {
  name: 'hello', version: '1.0.0', description: 'greets', type: 'api',
  defaultConfig: { greeting: 'hello' },
  async load(app, config, context) {
    context.addRoute('GET', '/hello/:name', (req, res) => {
      res.json({ text: `${config.greeting} ${req.params.name}`, url: req.url, query: req.query });
    });
    context.addRoute('POST', '/echo', (req, res) => res.status(201).json({ got: req.body }));
    context.addRoute('GET', '/crash', () => process.kill(process.pid, 'SIGKILL'));
    context.addRoute('GET', '/text', (req, res) => res.send('plain'));
    context.addRoute('GET', '/bytes', (req, res) => res.end(Buffer.from([0, 255])));
    context.addRoute('GET', '/stream', async (req, res) => {
      for (const part of ['a', 'b', 'c']) { res.write(part); await null; }
      res.end();
    });
    context.addRoute('GET', '/bad', () => { throw new TypeError('it is bad'); });
    context.addRoute('GET', '/teapot', () => { throw Object.assign(new Error('short'), { status: 418 }); });
    context.addCommand('greet', (name, loud = false) => `hi ${name}${loud ? '!' : ''}`, 'Greets.');
  },
  double(x) { return 2 * x; },
  api: { async triple(x) { return 3 * x; } },
  answer: 42,
};
"""
TYPED = """
import { helper } from './helper';
enum Colour { Red = 'red' }
interface Config { size: number }
export = {
  name: 'typed', version: '2.1.0', dependencies: ['hello@^1'], defaultConfig: { size: 1 },
  async load(app: any, config: Config, context: any) {
    const hello = context.getPlugin('hello');
    context.addRoute('GET', '/typed', async (req: any, res: any) => {
      res.json({ colour: Colour.Red, size: config.size, four: await hello.module.double(2),
                 six: await hello.exports.api.triple(2), answer: hello.exports.answer, helper: helper() });
    });
  },
};
"""
NEEDS = """
name = "needs"
version = "1.0.0"
dependencies = ["typed"]

async def load(context):
    hello = context.get_plugin("hello")
    doubled = await hello.exports.double(21)
    context.add_route("GET", "/needs", lambda: {"doubled": doubled, "answer": hello.exports.answer})
"""


async def test_T1_scripts_and_python_in_one_graph(app: App) -> None:
    app.put("needs.py", NEEDS)
    app.put("typed/index.ts", TYPED)
    app.put("typed/helper.ts", "export function helper(): string { return 'helps'; }")
    app.put("typed/package.json", '{"name": "typed", "license": "MIT"}')
    app.put("hello.js", HELLO)
    manager = await app.start()
    assert manager.report.loaded == ["hello", "typed", "needs"]
    assert await app.json("/hello/you?a=1&b=2&b=3") == {
        "text": "hello you", "url": "/hello/you?a=1&b=2&b=3", "query": {"a": "1", "b": ["2", "3"]},
    }  # fmt: skip
    assert await app.json("/typed") == {
        "colour": "red", "size": 1, "four": 4, "six": 6, "answer": 42, "helper": "helps",
    }  # fmt: skip
    assert await app.json("/needs") == {"doubled": 42, "answer": 42}
    infos = {info.name: info for info in manager.list_plugins()}
    assert infos["hello"].version == "1.0.0"
    assert infos["hello"].description == "greets"
    assert infos["hello"].type == "api"
    assert infos["typed"].dependencies == ("hello@^1",)
    assert infos["typed"].source == str(app.plugins / "typed")
    record = manager.get_plugin("typed")
    assert record is not None
    assert record.manifest.license == "MIT"


@pytest.mark.parametrize("adapter", ["asgi", "litestar", "starlette"])
async def test_T3_answers_as_express_gives_them(app: App, adapter: str) -> None:
    app.put("hello.js", HELLO)
    await app.start(adapter=adapter)
    created = await app.client.post("/echo", json={"a": [1, "ü"]})
    assert (created.status_code, created.json()) == (201, {"got": {"a": [1, "ü"]}})
    large = {"text": "x" * 1_000_000}
    assert (await app.client.post("/echo", json=large)).json() == {"got": large}
    assert (await app.get("/text")).text == "plain"
    assert (await app.get("/bytes")).content == b"\x00\xff"
    assert (await app.get("/stream")).text == "abc"
    teapot = await app.get("/teapot")
    assert (teapot.status_code, teapot.json()["detail"]) == (418, "short")
    assert (
        await app.client.post("/echo", content=b"{", headers={"content-type": "application/json"})
    ).status_code == 400
    assert (await app.get("/nowhere")).status_code == 404
    assert (await app.client.post("/text")).status_code == 405
    assert app.errors == []


async def test_T5_an_error_names_the_line_of_the_source(app: App) -> None:
    app.put(
        "typed.ts",
        TYPED.replace("dependencies: ['hello@^1'], ", "")
        .replace(
            "const hello = context.getPlugin('hello');",
            "context.addRoute('GET', '/bad', async () => { const x: any = null;\n\n x.y; });",
        )
        .replace("import { helper } from './helper';", "const helper = () => 1;"),
    )
    await app.start()
    assert (await app.get("/bad")).status_code == 500
    ((name, error),) = app.errors
    assert name == "typed"
    assert type(error) is TypeError
    trace = error.__traceback__
    lines = []
    while trace is not None:
        lines.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    assert lines[-1] == (str(app.plugins / "typed.ts"), 10)


async def test_a_script_that_does_not_load(app: App) -> None:
    app.put("syntax.js", "module.exports = {\n  name: 'syntax',,\n};")
    app.put("none.js", "module.exports = 3;")
    app.put(
        "throws.js",
        "module.exports = { name: 'throws', version: '1', load() { throw new RangeError('no'); } };",
    )
    app.put("nameless.js", "module.exports = { load() {} };")
    app.put(
        "missing.js",
        "require('not-there');\nmodule.exports = { name: 'missing', version: '1', load() {} };",
    )
    app.put("good.js", HELLO)
    manager = await app.start()
    assert manager.report.loaded == ["hello"]
    failed = manager.report.failed
    assert set(failed) == {"syntax", "none", "throws", "nameless", "missing"}
    assert "syntax.js:2" in str(failed["syntax"])
    assert isinstance(failed["throws"], LoadError)
    assert "RangeError: no" in str(failed["throws"])
    assert "throws.js:1" in str(failed["throws"])
    assert isinstance(failed["nameless"], ManifestError)
    assert "not-there" in str(failed["missing"])
    assert len(app.errors) == 5


async def test_commands_config_services_and_events(app: App) -> None:
    app.put("hello.js", HELLO)
    app.put(
        "more.js",
        """
module.exports = {
  name: 'more', version: '1.0.0', defaultConfig: { n: 1 },
  async load(app, config, context) {
    context.provide('counter', { count: (x) => x + 1, unit: 'apple' });
    context.hook('plugin:guest:asked', (question) => `${question}: yes`);
    context.addRoute('GET', '/config', (req, res) => res.json(context.config));
    context.addRoute('POST', '/config', async (req, res) => res.json(await context.updateConfig(req.body)));
    context.addRoute('GET', '/ask', async (req, res) => {
      const clock = await context.use('clock');
      res.json({ now: await clock.now(), zone: clock.zone, heard: await context.emit('said', 'it') });
    });
    context.addRoute('GET', '/run', async (req, res) => res.json(await context.runCommand('greet', 'me')));
  },
};
""",
    )
    app.put(
        "guest.py",
        """
name = "guest"
version = "1.0.0"

class Clock:
    zone = "UTC"
    async def now(self): return 12
    def _secret(self): return "no"

async def load(context):
    context.provide("clock", Clock())
    context.hook("plugin:more:said", lambda what: f"heard {what}")
    async def ask():
        counter = await context.when("counter")
        return [await counter.count(1), counter.unit, await context.emit("asked", "really")]
    context.add_route("GET", "/guest", ask)
""",
    )
    manager = await app.start()
    assert await manager.run_command("greet", "you") == "hi you"
    assert await manager.run_command("greet", "you", loud=True) == "hi you!"
    assert await app.json("/run") == "hi me"
    assert await app.json("/guest") == [2, "apple", "really: yes"]
    assert await app.json("/ask") == {"now": 12, "zone": "UTC", "heard": "heard it"}
    assert (await app.client.post("/config", json={"n": 5})).json() == {"n": 5}
    assert await app.json("/config") == {"n": 5}
    record = manager.get_plugin("more")
    assert record is not None
    assert record.config == {"n": 5}
    with pytest.raises(VekoError, match="missing"):
        await manager.run_command("greet")


async def test_c6_command_lines_of_scripts(app: App) -> None:
    app.put(
        "tools.js",
        """
module.exports = {
  name: 'tools', version: '1.0.0',
  load(app, config, context) {
    context.addCommand('move', (from, to, dry = false, times = 1) => ({ from, to, dry, times }), 'Moves.');
    context.addCommand('all', (first, ...rest) => [first, rest]);
    context.addCommand('none', () => 'done');
  },
};
""",
    )
    manager = await app.start()
    commands: Any = manager.use("commands")
    moved = {"from": "a", "to": "b", "dry": False, "times": 1}
    assert await manager.run_command("move", "a", "b") == moved
    assert await commands.invoke("move", ["a", "b"]) == moved
    assert await commands.invoke("move", ["a", "b", "--dry", "--times", "3"]) == {
        **moved, "dry": True, "times": 3,
    }  # fmt: skip
    assert "Moves." in str(await commands.invoke("move", ["--help"]))
    assert await commands.invoke("all", ["a", "b", "c"]) == ["a", ["b", "c"]]
    assert await manager.run_command("none") == "done"
    with pytest.raises(VekoError, match="too many"):
        await manager.run_command("none", 1)


async def test_storage_is_kept_and_shared_over_generations(app: App) -> None:
    app.put(
        "keeper.js",
        """
module.exports = {
  name: 'keeper', version: '1.0.0',
  load(app, config, context) {
    context.storage.set('loads', (context.storage.get('loads') ?? 0) + 1);
    context.addRoute('GET', '/loads', (req, res) => res.json(context.storage.get('loads')));
    context.addRoute('GET', '/set', async (req, res) => { context.storage.set('x', { deep: [1] }); await context.storage.flush(); res.end(); });
    context.addRoute('GET', '/x', (req, res) => res.json(context.storage.get('x', 'none')));
  },
};
""",
    )
    manager = await app.start()
    assert await app.json("/loads") == 1
    assert (await app.get("/set")).status_code == 200
    await manager.reload_plugin("keeper")
    assert await app.json("/loads") == 2
    assert await app.json("/x") == {"deep": [1]}
    path = await manager.backup_plugins()
    await manager.reload_plugin("keeper")
    assert await app.json("/loads") == 3
    await manager.restore_plugins(path)
    assert await app.json("/loads") == 3  # 2 were saved, and it was loaded once more
    await manager.restart()
    assert await app.json("/loads") == 4


async def test_generations_see_what_each_other_writes(app: App) -> None:
    app.put(
        "keeper.js",
        """
module.exports = {
  name: 'keeper', version: '1.0.0',
  async load(app, config, context) {
    context.addRoute('GET', '/slow', async (req, res) => {
      while (context.storage.get('go') !== 1) await new Promise((done) => setTimeout(done, 5));
      res.json([context.storage.get('old', 'gone'), context.storage.keys().sort()]);
    });
    context.addRoute('GET', '/new', async (req, res) => { context.storage.clear(); context.storage.set('go', 1); await context.storage.flush(); res.end(); });
    context.storage.set('old', 1);
    context.storage.set('other', 2);
  },
};
""",
    )
    manager = await app.start()
    slow = asyncio.create_task(app.json("/slow"))
    await asyncio.sleep(0.1)
    await manager.use("loading").reload_plugin("keeper", drained=False)
    assert (await app.get("/new")).status_code == 200
    assert await slow == ["gone", ["go"]]


async def test_hooks_middleware_and_guards(app: App) -> None:
    app.put(
        "guard.js",
        """
module.exports = {
  name: 'guard', version: '1.0.0', required: true,
  load(app, config, context) {
    const check = (req, res, next) => {
      if (!req.headers.authorization) return res.status(401).json({ error: 'missing' });
      req.user = { name: req.headers.authorization };
      next();
    };
    context.addMiddleware((req, res, next) => { req.marks = ['middleware']; res.set('x-mark', 'js'); next(); });
    context.hook('request:start', (req) => { req.started = 1; if (req.path === '/forbidden') throw Object.assign(new Error('no'), { status: 403 }); });
    context.hook('response:start', (res, req) => { res.setHeader('x-hook', String(req.started)); });
    context.hook('route:create', (method, path, handler) => path.startsWith('/api/protected/') ? [method, path, check, handler] : [method, path, handler]);
  },
};
""",
    )
    app.put(
        "site.py",
        """
name = "site"
version = "1.0.0"

def load(context):
    context.add_route("GET", "/api/protected/me", lambda request: request.state["user"])
    context.add_route("GET", "/open", lambda request: request.state)
    context.add_route("GET", "/forbidden", lambda: "never")
""",
    )
    await app.start()
    response = await app.get("/open")
    assert response.json() == {"started": 1, "marks": ["middleware"]}
    assert response.headers["x-mark"] == "js"
    assert response.headers["x-hook"] == "1"
    assert (await app.get("/api/protected/me")).status_code == 401
    assert await app.json("/api/protected/me", headers={"authorization": "me"}) == {"name": "me"}
    assert (await app.get("/forbidden")).status_code == 403
    assert app.errors == []


async def test_toggle_unload_and_what_is_seen_of_it(app: App) -> None:
    app.put("hello.js", HELLO)
    manager = await app.start()
    assert manager.get_stats().routes == 8
    await manager.toggle_plugin("hello", False)
    assert (await app.get("/hello/you")).status_code == 404
    await manager.toggle_plugin("hello", True)
    assert (await app.get("/hello/you")).status_code == 200
    assert manager.check_plugin_health("hello").health == "healthy"
    await manager.unload_plugin("hello")
    assert manager.get_plugin("hello") is None
    assert (await app.get("/hello/you")).status_code == 404
    record = await manager.load_plugin("hello")
    assert record.state is State.ACTIVE
    assert manager.metrics is not None
    assert manager.metrics.get("hello").health == "healthy"


async def test_engines_and_peers_are_those_of_node(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app.put(
        "old.js",
        "module.exports = { name: 'old', version: '1', engines: { node: '<10' }, load() {} };",
    )
    app.put(
        "new.js",
        "module.exports = { name: 'new', version: '1', engines: { node: '>=14.0.0', veko: '^2.0.0', npm: '>=1' }, load() {} };",
    )
    app.put(
        "peers/index.js",
        "module.exports = { name: 'peers', version: '1', peerDependencies: ['express', 'lodash@^4', '@scope/x'], load() {} };",
    )
    app.put(
        "peers/node_modules/lodash/package.json",
        '{"name": "lodash", "version": "3.10.1", "main": "index.js"}',
    )
    app.put("peers/node_modules/@scope/x/package.json", '{"name": "@scope/x", "version": "1.0.0"}')
    with caplog.at_level(logging.WARNING):
        manager = await app.start()
    assert sorted(manager.report.loaded) == ["new", "peers"]
    assert isinstance(manager.report.failed["old"], DependencyError)
    assert "engines.node: <10 is wanted, this is" in str(manager.report.failed["old"])
    text = caplog.text
    assert "express is wanted, express is not in node_modules (npm install express)" in text
    assert "lodash@^4 is wanted, lodash 3.10.1 is installed" in text
    assert "@scope/x" not in text
    report = await manager.validate_plugin("peers")
    assert report.ok
    assert any("express" in one for one in report.warnings)


async def test_O3_without_support_scripts_are_passed_over(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app.put("hello.js", HELLO)
    manager = await app.start(support_typescript=False)
    assert manager.list_plugins() == []
    assert "hello.js is passed over: support_typescript is off" in caplog.text


async def test_websockets_are_bridged(app: App) -> None:
    app.put(
        "chat.js",
        """
module.exports = {
  name: 'chat', version: '1.0.0',
  load(app, config, context) {
    context.addWebSocket('/chat/:room', (socket, req) => {
      socket.on('message', (text) => socket.send(`${req.params.room}: ${text}`));
    });
  },
};
""",
    )
    manager = await app.start()
    sent: list[dict[str, Any]] = []
    incoming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hi"},
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> dict[str, Any]:
        if len(incoming) == 1:  # the answer first, as a client would have it
            await app.until(lambda: any(one["type"] == "websocket.send" for one in sent))
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "websocket", "path": "/chat/blue", "raw_path": b"/chat/blue", "query_string": b"",
        "headers": [(b"host", b"test")], "scheme": "ws", "subprotocols": [],
    }  # fmt: skip
    await manager.asgi(scope, receive, send)
    assert [one["type"] for one in sent][:2] == ["websocket.accept", "websocket.send"]
    assert sent[1]["text"] == "blue: hi"
    assert app.errors == []


async def test_several_managers_at_once(app: App) -> None:
    app.put("hello.js", HELLO)
    await app.start()
    other = PluginManager(root=app.root, adapter="asgi", storage="sqlite:///:memory:")
    async with (
        other,
        httpx.AsyncClient(transport=httpx.ASGITransport(other.asgi), base_url="http://x") as client,
    ):
        assert (await client.get("/hello/b")).json()["text"] == "hello b"
    assert (await app.json("/hello/a"))["text"] == "hello a"


async def test_plugins_in_workers_load_in_order(app: App) -> None:
    """Hooks of one priority run in the order of the plugins, however long each takes to start."""
    text = """
{head} = {{ name: '{name}'{version}, load(app, config, context) {{ context.hook('asked', (value) => value + '{name}'); }} }};
const until = Date.now() + {wait}; while (Date.now() < until);
"""
    for index, name in enumerate("abcdefgh"):
        computed = index % 2  # these have to be started to know their name
        app.put(
            f"{name}.js",
            text.format(
                head="module.exports", name=name, wait=(8 - index) * 20,
                version=", version: String(1)" if computed else ", version: '1'",
            ),
        )  # fmt: skip
    app.put(
        "aa.py",
        "name, version = 'aa', '1'\ndef load(context):\n    context.hook('asked', lambda value: value + '-')",
    )
    manager = await app.start()
    assert await manager.bus.emit("asked", "") == "-abcdefgh"
