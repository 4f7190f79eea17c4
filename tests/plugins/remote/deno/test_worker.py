"""A worker's life: loading, the context, errors."""

import json
from typing import Any

import pytest

from veko_plugins.remote.deno import JavaScript
from veko_plugins.remote.protocol import RemoteError

from .conftest import Start

COUNTER = """
module.exports = {
  name: 'counter', version: '1.2.0', defaultConfig: { step: 2 },
  load(app, config, context) {
    let n = context.storage.get('n', 0);
    context.addRoute('POST', '/count/:id', (req, res) => {
      n += config.step;
      context.storage.set('n', n);
      res.status(201).json({ n, id: req.params.id, body: req.body });
    });
  },
};
"""


async def test_a_route_answers(start: Start) -> None:
    worker = await start(COUNTER)
    described = await worker.load(storage={"n": 40})
    assert described["fields"]["name"] == "counter"
    answer = await worker.send("POST", "/count/7", "/count/{id}", params={"id": "7"}, body={"a": 1})
    assert (answer.status, answer.json) == (201, {"n": 42, "id": "7", "body": {"a": 1}})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    await worker.until(lambda: worker.stored == {"n": 42})


async def test_typescript_with_export_assignment(start: Start, runtime: JavaScript) -> None:
    if runtime.name == "node":
        pytest.skip("Node knows no decorators")
    worker = await start(
        """
interface Config { greeting: string }
enum Mood { Calm, Loud = 'loud' }
function named<T extends new (...args: any[]) => any>(value: T, _: any) { return value; }
@named class Greeter {
  constructor(private readonly config: Config) {}
  hello() { return this.config.greeting + Mood.Loud; }
}
export = {
  name: 'ts', version: '1.0.0', defaultConfig: { greeting: 'hi ' },
  load(app: any, config: Config, context: any) {
    context.addRoute('GET', '/', (req: any, res: any) => res.send(new Greeter(config).hello()));
  },
};
""",
        "p.ts",
    )
    await worker.load()
    answer = await worker.send("GET", "/")
    assert (answer.text, answer.headers["content-type"]) == ("hi loud", "text/html; charset=utf-8")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.js", "exports.name = 'm'; exports.version = '1.0.0'; exports.load = () => {};"),
        ("a.js", "export default { name: 'm', version: '1.0.0', load() {} };"),
        ("a.mjs", "export const name = 'm', version = '1.0.0'; export function load() {}"),
        ("a.mjs", "const n = await 'm'; export default { name: n, version: '1.0.0', load() {} };"),
        ("a.cjs", "module.exports = { name: 'm', version: '1.0.0', load() {} };"),
        ("a.ts", "export const name: string = await 'm', version = '1.0.0', load = () => {};"),
        ("a.mts", "export const name: string = 'm', version = '1.0.0'; export function load() {}"),
        ("a.cts", "module.exports = { name: 'm' as string, version: '1.0.0', load() {} };"),
        (
            "a.ts",
            "import path from 'node:path';\nimport { join as j } from 'node:path';\n"
            "import * as all from 'node:path';\nimport type { A } from './missing';\n"
            "export = { name: path.basename(j('x', all.join('m'))), version: '1.0.0', load() {} };",
        ),
        ("a.ts", "class P { name = 'm'; version = '1.0.0'; load() {} }\nexport default new P();"),
    ],
)  # fmt: skip
async def test_forms_of_modules(start: Start, name: str, text: str) -> None:
    worker = await start(text, name)
    described = await worker.load()
    assert described["fields"] == {"name": "m", "version": "1.0.0"}
    assert described["steps"] == ["load"]


async def test_a_folder_with_package_json(start: Start, tmp_path: Any) -> None:
    folder = tmp_path / "shop"
    for name, text in {
        "package.json": json.dumps(
            {"name": "shop", "version": "2.0.0", "author": {"name": "A"},
             "dependencies": {"lodash": "^4.0.0"}, "veko": {"permissions": ["env:read:HOME"]}}
        ),
        "index.ts": "import { price } from './lib/price';\nimport tax from './lib/tax.js';\n"
        "export default { load(app: any, c: any, context: any) {\n"
        "  context.addRoute('GET', '/', (q: any, res: any) => res.json(price(2) * tax)); } };",
        "lib/price.ts": "export function price(n: number): number { return n * 3; }",
        "lib/tax.js": "module.exports = 7;",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    worker = await start(None, "shop")
    described = await worker.load()
    assert described["fields"] == {
        "name": "shop", "version": "2.0.0", "permissions": ["env:read:HOME"]
    }  # fmt: skip
    assert (await worker.send("GET", "/")).json == 42


FAILING = """interface A {
  a: string;
}

enum Kind { One, Two }

export = {
  name: 'failing', version: '1.0.0',
  load(app: any, config: any, context: any) {
    interface B {
      b: A;
    }
    context.addRoute('GET', '/', () => {
      throw new TypeError('no ' + Kind.One);
    });
    context.addRoute('GET', '/later', async () => {
      await null;
      const error: any = new Error('gone');
      error.status = 410;
      error.code = 'E_GONE';
      throw error;
    });
  },
};
"""


async def test_errors_have_the_line_of_the_source(start: Start, tmp_path: Any) -> None:
    worker = await start(FAILING, "failing.ts")
    await worker.load()
    with pytest.raises(RemoteError) as caught:
        await worker.send("GET", "/")
    error = caught.value
    assert (error.type, error.message) == ("TypeError", "no 0")
    assert (error.file, error.line) == (str(tmp_path / "failing.ts"), 14)
    assert f"{tmp_path}/failing.ts:14:" in error.stack
    assert "worker/" not in error.stack
    with pytest.raises(RemoteError) as caught:
        await worker.send("GET", "/later")
    assert (caught.value.line, caught.value.status, caught.value.code) == (18, 410, "E_GONE")


async def test_errors_in_imported_files(start: Start, tmp_path: Any) -> None:
    (tmp_path / "esm.ts").write_text(
        "interface A {\n  a: 1;\n}\n\ninterface B {\n  b: 1;\n}\nexport function f(a?: A) {\n"
        "  throw new Error('esm');\n}\n"
    )
    (tmp_path / "cjs.ts").write_text(
        "interface A {\n  a: 1;\n}\nexports.f = (a?: A) => {\n  throw new Error('cjs');\n};\n"
    )
    worker = await start(
        "import { f } from './esm.ts';\nimport { createRequire } from 'node:module';\n"
        "const cjs = createRequire(import.meta.url)('./cjs.ts');\n"
        "export default { name: 'a', version: '1.0.0', load() {}, f, g: cjs.f };\n",
        "a.ts",
    )
    await worker.load()
    for name, file, line in (("f", "esm.ts", 9), ("g", "cjs.ts", 5)):
        with pytest.raises(RemoteError) as caught:
            await worker.call("plugin_call", name, [])
        assert (caught.value.file, caught.value.line) == (str(tmp_path / file), line)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.js", "module.exports = {\n  name: 'a',\n  load( {\n};\n", 4),
        ("a.ts", "const a: number = 1;\nexport = {\n  name: 'a' 'b',\n};\n", 3),
        ("a.ts", "interface A {\n  a: 1;\n}\nthrow new Error('at import');\n", 4),
        ("a.js", "\nrequire('no-such-package');\n", 2),
    ],
)
async def test_errors_at_import(
    start: Start, tmp_path: Any, name: str, text: str, line: int
) -> None:
    worker = await start(text, name)
    with pytest.raises(RemoteError) as caught:
        await worker.call("describe", {})
    assert (caught.value.file, caught.value.line) == (str(tmp_path / name), line), (
        caught.value.stack
    )
