"""Scripts beside Python plugins: one dependency graph, one life, errors at their own lines."""

import json
from pathlib import Path

import pytest

from .application import running

FILES = {
    "plugin1.js": """module.exports = { name: 'plugin1', version: '1.0.0', dependencies: ['py'],
      twice: (n) => n * 2,
      load(app, config, context) {
        const py = context.getPlugin('py').module;
        context.addRoute('GET', '/one', async (req, res) => res.json(await py.add(py.LIMIT, 1)));
      } };""",
    "plugin2.ts": """interface Config { n: number }
    export = { name: 'plugin2', version: '1.0.0', dependencies: ['plugin3'], defaultConfig: { n: 2 },
      load(app: any, config: Config, context: any) {
        const three = context.getPlugin('plugin3').module;
        context.addRoute('GET', '/two', async (req: any, res: any) =>
          res.json(await three.times(config.n)));
      } };""",
    "plugin3/package.json": json.dumps(
        {"name": "plugin3", "version": "3.1.0", "veko": {"priority": 3}}
    ),
    "plugin3/index.ts": "import { factor } from './lib/factor';\n"
    "export default { load() {}, times: (n: number) => n * factor };\n",
    "plugin3/lib/factor.ts": "export const factor: number = 7;\n",
    "py.py": """
name = "py"
version = "1.0.0"
LIMIT = 5

def load(context): ...

def add(a, b):
    return a + b
""",
    "last.py": """
name = "last"
version = "1.0.0"
dependencies = ["plugin1>=1,<2"]

def load(context):
    async def three():
        return await context.get_plugin("plugin1").module.twice(21)

    context.add_route("GET", "/three", three)
""",
}


async def test_scripts_and_python_plugins_are_one_graph(tmp_path: Path) -> None:
    async with running(tmp_path, FILES) as app:
        infos = {info.name: info for info in app.manager.list_plugins()}
        assert set(infos) == {"plugin1", "plugin2", "plugin3", "py", "last"}
        assert infos["plugin3"].version == "3.1.0"
        for path, expected in (("/one", 6), ("/two", 14), ("/three", 42)):
            assert (await app.get(path)).json() == expected
        with pytest.raises(Exception, match="plugin1"):
            await app.manager.unload_plugin("py")
        await app.manager.unload_plugin("py", cascade=True)
        assert {info.name for info in app.manager.list_plugins()} == {"plugin2", "plugin3"}


async def test_a_reload_takes_the_changed_files(tmp_path: Path) -> None:
    async with running(tmp_path, FILES) as app:
        factor = tmp_path / "plugins" / "plugin3" / "lib" / "factor.ts"
        factor.write_text("export const factor: number = 8;\n")
        await app.manager.reload_plugin("plugin3")
        assert (await app.get("/two")).json() == 16
        factor.write_text("export const factor: number = ;\n")
        with pytest.raises(Exception, match=r"factor\.ts.*line 1|factor\.ts:1"):
            await app.manager.reload_plugin("plugin3")
        assert (await app.get("/two")).json() == 16


async def test_failures_name_the_line_of_the_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing = """interface A {
  a: string;
}

export = {
  name: 'failing', version: '1.0.0',
  load(app: any, config: any, context: any) {
    interface B { b: A }
    context.addRoute('GET', '/fail', () => {
      throw new TypeError('broken');
    });
    context.hook('shop:sold', () => { throw new Error('in a hook'); });
    setTimeout(() => { throw new Error('in a timer'); }, 10);
  },
};
"""
    async with running(tmp_path, {"failing.ts": failing}) as app:
        file = tmp_path / "plugins" / "failing.ts"
        assert (await app.get("/fail")).status_code == 500
        await app.manager.bus.emit("shop:sold")
        for text, line in (("broken", 10), ("in a hook", 12), ("in a timer", 13)):
            await app.until(
                lambda text=text, line=line: any(
                    text in message and f"{file}:{line}" in message for message in caplog.messages
                ),
                lambda: caplog.text,
            )
        assert app.manager.error_count("failing") >= 2


async def test_a_crash_is_reported_and_the_plugin_comes_back(tmp_path: Path) -> None:
    text = """module.exports = { name: 'fragile', version: '1.0.0', load(app, config, context) {
      context.addRoute('GET', '/exit', () => process.exit(3));
      context.addRoute('GET', '/', (req, res) => res.json(process.pid));
    } };"""
    async with running(tmp_path, {"fragile.js": text}) as app:
        first = (await app.get("/")).json()
        assert (await app.get("/exit")).status_code == 503
        await app.said("fragile", "error", "process.exit(3)")
        for _ in range(200):
            answer = await app.get("/")
            if answer.status_code == 200:
                break
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            await app.wait()
        assert answer.json() != first


MIDDLEWARE = """const compression = require('compression');
const cookies = require('cookie-parser');
const cors = require('cors');
const helmet = require('helmet');
const morgan = require('morgan');
const multer = require('multer');
const session = require('express-session');
const options = { secret: 'x', resave: false, saveUninitialized: true };
module.exports = { name: 'mw', version: '1.0.0', load(app, config, context) {
  context.addMiddleware(morgan(':method :url :status'));
  context.addRoute('GET', '/a', cors(), helmet(), cookies(), (req, res) => res.json(req.cookies));
  context.addRoute('POST', '/up', multer().single('f'), (req, res) =>
    res.json([req.file.originalname, req.file.size, req.body]));
  context.addRoute('GET', '/s', session(options), (req, res) => {
    req.session.n = (req.session.n ?? 0) + 1;
    res.json(req.session.n);
  });
  context.addRoute('GET', '/z', compression({ threshold: 0 }), (req, res) =>
    res.type('txt').send('x'.repeat(5000)));
} };
"""


async def test_middleware_of_express(tmp_path: Path, npm: Path) -> None:
    (tmp_path / "node_modules").symlink_to(npm)
    async with running(tmp_path, {"mw.js": MIDDLEWARE}) as app:
        answer = await app.get("/a", headers={"Cookie": "a=b", "Origin": "http://x"})
        assert answer.json() == {"a": "b"}
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["x-content-type-options"] == "nosniff"
        await app.said("mw", "info", "GET /a 200")
        answer = await app.post("/up", files={"f": ("n.txt", b"hello")}, data={"k": "v"})
        assert answer.json() == ["n.txt", 5, {"k": "v"}]
        assert [(await app.get("/s")).json() for _ in range(3)] == [1, 2, 3]
        answer = await app.get("/z", headers={"Accept-Encoding": "gzip"})
        assert (answer.headers["content-encoding"], answer.text) == ("gzip", "x" * 5000)
