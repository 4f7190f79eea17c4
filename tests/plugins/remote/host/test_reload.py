"""Reload, rollback and crashes of plugins in workers."""

# ruff: noqa: E501

import asyncio
from typing import Any

import pytest

from veko_plugins._source.content import Content

from .conftest import App

pytestmark = pytest.mark.anyio

COUNTER = """
module.exports = {
  name: 'counter', version: 'VERSION', BODY
  async load(app, config, context) {
    context.addRoute('GET', '/version', (req, res) => res.json('VERSION'));
    context.addRoute('GET', '/count', (req, res) => res.json(++this.count));
    context.addRoute('GET', '/slow', async (req, res) => { await new Promise((done) => setTimeout(done, 300)); res.json('VERSION'); });
    context.addRoute('GET', '/crash', () => process.kill(process.pid, 'SIGKILL'));
    MORE
  },
  count: 0,
  exportState() { return { count: this.count }; },
  importState(state) { this.count = state.count; },
};
"""
FRONT = """
name = "front"
version = "1.0.0"

def load(context):
    context.add_route("GET", "/front", lambda request: "served")
"""


def counter(version: str, body: str = "", more: str = "") -> str:
    return COUNTER.replace("VERSION", version).replace("BODY", body).replace("MORE", more)


async def test_D8_a_changed_file_reloads_its_plugin(app: App) -> None:
    app.put("counter.js", counter("1.0.0"))
    app.put(
        "folder/index.ts",
        "import { text } from './lib/text';\nexport = { name: 'folder', version: '1.0.0', load(a: any, c: any, context: any) { context.addRoute('GET', '/folder', (q: any, s: any) => s.json(text)); } };",
    )
    app.put("folder/lib/text.ts", "export const text = 'one';")
    app.put("folder/node_modules/x/index.js", "module.exports = 1;")
    await app.start(watch_mode=True)
    assert await app.json("/folder") == "one"
    app.put("folder/node_modules/x/index.js", "module.exports = 2;")
    app.put("counter.js", counter("2.0.0"))
    await app.until(lambda: app.generation("counter") == 2)
    assert await app.json("/version") == "2.0.0"
    app.put("folder/lib/text.ts", "export const text = 'two';")
    await app.until(lambda: app.generation("folder") == 2)
    assert await app.json("/folder") == "two"
    app.put(
        "late.mjs",
        "export default { name: 'late', version: '1.0.0', load(app, config, context) {} };",
    )
    await app.until(lambda: app.manager.get_plugin("late") is not None)
    (app.plugins / "late.mjs").unlink()
    await app.until(lambda: app.manager.get_plugin("late") is None)
    app.put("counter.js", counter("3.0.0").replace("async load", "async load ??"))
    await app.until(lambda: any(name == "counter" for name, _ in app.errors))
    assert await app.json("/version") == "2.0.0"


async def test_a_reload_under_load_fails_no_request_and_keeps_the_state(app: App) -> None:
    app.put("counter.js", counter("1.0.0"))
    manager = await app.start()
    stopped = False
    seen: list[int] = []

    async def ask() -> None:
        while not stopped:
            seen.append(await app.json("/count"))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for number in range(2, 6):
        app.put("counter.js", counter(f"{number}.0.0"))
        await manager.reload_plugin("counter")
    stopped = True
    await asyncio.gather(*asking)
    assert await app.json("/version") == "5.0.0"
    # Requests that began before a swap still count in the old generation.
    assert max(seen) > 0.9 * len(seen)
    assert app.errors == []


async def test_requests_under_way_end_in_the_generation_where_they_began(app: App) -> None:
    app.put("counter.js", counter("1.0.0"))
    manager = await app.start()
    slow = asyncio.create_task(app.json("/slow"))
    await asyncio.sleep(0.1)
    app.put("counter.js", counter("2.0.0"))
    await manager.reload_plugin("counter")
    assert await slow == "1.0.0"
    assert await app.json("/slow") == "2.0.0"


async def test_a_version_that_fails_on_probation_is_rolled_back(app: App) -> None:
    app.put(
        "folder/index.js",
        "const { value } = require('./value');\n"
        + counter(
            "1.0.0",
            more="context.addRoute('GET', '/value', (req, res) => res.json(value + require('dep')));",
        ),
    )
    app.put("folder/value.js", "exports.value = 'old';")
    app.put(
        "folder/node_modules/dep/package.json",
        '{"name": "dep", "version": "1.0.0", "main": "i.js"}',
    )
    app.put("folder/node_modules/dep/i.js", "module.exports = '+dep';")
    manager = await app.start(probation=30.0, error_threshold=1)
    assert await app.json("/value") == "old+dep"
    app.put("folder/value.js", "exports.value = 'new';")
    app.put(
        "folder/index.js",
        "const { value } = require('./value');\n"
        + counter(
            "2.0.0",
            more="context.addRoute('GET', '/value', (req, res) => { throw new Error(value); });",
        ),
    )
    await manager.reload_plugin("counter")
    for _ in range(4):
        await app.get("/value")
    await app.until(lambda: app.generation("counter") == 3)
    assert await app.json("/value") == "old+dep"
    assert await app.json("/version") == "1.0.0"
    loading: Any = manager.use("loading")
    content: Content = loading.content("counter")
    assert str(app.plugins / "folder/value.js") in content
    copies = app.root / ".veko" / "remote"
    assert len(list(copies.iterdir())) == 1
    await manager.reload_plugin("counter")
    await app.until(lambda: not list(copies.iterdir()))
    assert await app.json("/version") == "2.0.0"


async def test_a_crash_is_reported_and_the_plugin_comes_back(app: App) -> None:
    app.put("counter.js", counter("1.0.0"))
    app.put("front.py", FRONT)
    manager = await app.start()
    await app.crash("counter")
    ((name, error),) = app.errors
    assert name == "counter"
    assert "its process has ended: signal 9" in str(error)
    down = await app.get("/version")
    assert down.status_code == 503
    assert down.headers["retry-after"] == "1"
    assert (await app.get("/front")).text == "served"
    await app.until(lambda: app.generation("counter") == 2)
    assert await app.json("/version") == "1.0.0"
    record = manager.get_plugin("counter")
    assert record is not None
    assert record.error_count == 1
    assert manager.check_plugin_health("counter").health == "healthy"


async def test_after_three_crashes_it_is_given_up(app: App) -> None:
    app.put("counter.js", counter("1.0.0"))
    manager = await app.start()
    for number in (1, 2):
        await app.crash("counter")
        await app.until(lambda number=number: app.generation("counter") == number + 1)
    await app.crash("counter")
    await app.until(lambda: manager.check_plugin_health("counter").health == "critical")
    health = manager.check_plugin_health("counter")
    assert health.reasons == ("its process crashed 3 times within 300 s and is not started again",)
    assert (await app.get("/version")).status_code == 503
    record = manager.get_plugin("counter")
    assert record is not None
    assert record.active
    await manager.reload_plugin("counter")
    assert await app.json("/version") == "1.0.0"
    assert manager.check_plugin_health("counter").health == "healthy"


@pytest.mark.parametrize(
    ("on_crash", "kind", "served"),
    [
        (None, "middleware", False), ("open", "middleware", True), (None, "observer", True),
        (None, "guard", False), ("open", "guard", True), ("closed", "observer", False),
        (None, "route:create", True),
    ],
)  # fmt: skip
async def test_what_happens_while_it_is_down(
    app: App, on_crash: str | None, kind: str, served: bool
) -> None:
    more = {
        "middleware": "context.addMiddleware((req, res, next) => next());",
        "guard": "context.hook('request:start', (req) => req);",
        "observer": "context.hook('response:start', (res) => {}, 10);",
        "route:create": "context.hook('route:create', (method, path, handler) => [method, path, handler]);",
    }[kind]
    body = f"onCrash: '{on_crash}'," if on_crash else ""
    again = "const fs = require('fs'); if (fs.existsSync(FILE)) throw new Error('still down'); fs.writeFileSync(FILE, '');"
    flag = app.root / "was_there"
    app.put("counter.js", counter("1.0.0", body, more + again.replace("FILE", repr(str(flag)))))
    app.put("front.py", FRONT)
    manager = await app.start()
    assert (await app.get("/front")).text == "served"
    await app.crash("counter")
    response = await app.get("/front")
    closed = on_crash == "closed" and kind == "observer"
    assert (response.status_code == 200) is (served or closed)  # a response is not held back
    if not served and not closed:
        assert response.headers["retry-after"] == "1"
    assert (await app.get("/version")).status_code == 503
    if kind == "route:create":
        app.put("more.py", FRONT.replace("front", "more"))
        with pytest.raises(Exception, match="restarted"):
            await manager.load_plugin("more")


async def test_a_worker_that_blocks_is_ended(app: App) -> None:
    app.put(
        "counter.js",
        counter("1.0.0", more="context.addRoute('GET', '/block', () => { for (;;); });"),
    )
    app.put("front.py", FRONT)
    await app.start()
    blocked = asyncio.create_task(app.get("/block"))
    await asyncio.sleep(0.2)
    assert (await app.get("/front")).text == "served"
    assert (await blocked).status_code == 503
    await app.until(lambda: app.generation("counter") == 2)
    assert "blocked: no answer to a ping" in str(app.errors[0][1])
    assert await app.json("/version") == "1.0.0"
