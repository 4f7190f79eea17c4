"""The context of plugins in JavaScript: storage, hooks, commands, services, other plugins, output."""

import asyncio
from typing import Any

import pytest

from veko_plugins.remote.protocol import RemoteError

from .conftest import Marked, Start, Worker, request
from .test_http import loaded


async def test_storage_is_a_plain_call(start: Start) -> None:
    worker = await loaded(
        start,
        """const s = context.storage;
        const read = s.get('object');
        read.a = 'changed';
        context.log('info', JSON.stringify([
          s.get('a'), s.get('x'), s.get('x', 7), s.get('object'), s.set('b', { n: 1 }), s.get('b'),
          s.delete('a'), s.delete('a'), s.has('a'), s.keys(), s.update({ c: [1], d: null }),
        ]));
        await s.flush();
        context.log('info', 'flushed');""",
        storage={"a": 1, "object": {"a": 0}},
    )
    assert worker.logs[0][1] == (
        '[1,null,7,{"a":0},true,{"n":1},true,false,false,["object","b"],true]'
    )
    assert worker.stored == {"b": {"n": 1}, "c": [1], "d": None}
    await worker.until(lambda: ("info", "flushed") in worker.logs)


async def test_T6_storage_keeps_what_is_no_json_in_memory(start: Start) -> None:
    worker = await loaded(
        start,
        """context.storage.set('fn', (n) => n + 1);
        context.storage.set('client', new (class Client { ask() { return 41; } })());
        context.storage.set('fn', (n) => n + 2);
        context.addRoute('GET', '/', (req, res) => res.json(
          context.storage.get('fn')(context.storage.get('client').ask())));
        context.addRoute('GET', '/keys', (req, res) => res.json(context.storage.keys()));""",
    )
    assert (await worker.send("GET", "/")).json == 43
    assert (await worker.send("GET", "/keys")).json == ["fn", "client"]
    assert [level for level, _ in worker.logs] == ["warning", "warning"]
    assert "context.provide" in worker.logs[0][1]
    assert worker.stored == {}


async def test_storage_hears_of_others_changes(start: Start) -> None:
    worker = await loaded(
        start,
        "context.addRoute('GET', '/', (req, res) => res.json(context.storage.all()));",
        storage={"a": 1, "b": 2},
    )
    worker.connection.note("storage_changed", {"b": 3, "c": 4}, ["a"])
    assert (await worker.send("GET", "/")).json == {"b": 3, "c": 4}


async def test_a_plugin_without_storage_is_told_so(start: Start) -> None:
    with pytest.raises(RemoteError, match="read:database"):
        await loaded(start, "context.storage.get('a');", storage=None)


async def test_hooks_answer_with_value_and_changes(start: Start) -> None:
    worker = await loaded(
        start,
        """context.hook('price', (n, m) => n * m);
        context.hook('request:start', async (req) => { req.startedAt = 5; });
        context.hook('request:start', (req) => req);
        context.hook('response:start', (req, res) => { res.setHeader('X-Time', req.startedAt); });
        context.hook('boom', () => { throw Object.assign(new Error('no'), { status: 403 }); });
        const gone = () => 1;
        context.hook('gone', gone);
        context.removeHook('gone', gone);""",
    )
    hooks = {name: list(found) for name, found in worker.hooks.items()}
    assert await hooks["price"][0](6, 7) == [42, None]
    value, changes = await hooks["request:start"][0](request())
    assert value is None
    assert changes[0]["state"] == {"startedAt": 5}
    value, changes = await hooks["request:start"][1](request(state={"a": 1}))
    assert (value["state"], changes) == ({"a": 1}, None)
    response = Marked("response", {"status": 200, "headers": [["a", "b"]], "body": None})
    _, changes = await hooks["response:start"][0](request(state={"startedAt": 5}), response)
    assert changes[0] is None
    assert changes[1]["headers"] == [["a", "b"], ["X-Time", "5"]]
    with pytest.raises(RemoteError) as caught:
        await hooks["boom"][0]()
    assert caught.value.status == 403
    assert hooks["gone"] == []


GUARD = """const guard = (req, res, next) => {
  if (!req.headers.authorization) return res.status(401).end();
  next();
};
context.hook('route:create', (method, path, handler) => {
  if (path.startsWith('/own/wrapped')) return [method, path, async (req, res) => {
    res.set('X-Wrapped', 'yes');
    await handler(req, res);
  }];
  if (path.startsWith('/protected/')) return [method, path, guard, handler];
  return [method, path, handler];
});
context.addRoute('GET', '/own', (req, res) => res.send('own'));"""


async def test_route_create_speaks_of_express_handlers(start: Start) -> None:
    worker = await loaded(start, GUARD)
    hook = worker.hooks["route:create"][0]
    own = worker.routes["GET", "/own"]

    async def theirs(request: Any) -> Any:
        return [200, [["content-type", "text/plain"]], "theirs", None]

    assert await hook("GET", "/open", theirs) == [None, None]
    (method, path, guard, handler), _ = await hook("GET", "/protected/a", theirs)
    assert (method, path, handler) == ("GET", "/protected/a", theirs)
    answer = await guard(request(), theirs)
    assert answer[0] == 401
    assert (await guard(request(headers={"authorization": "x"}), theirs))[0] == "next"
    # Its own handlers stay what they are, and foreign ones can be called.
    (_, _, _, handler), _ = await hook("GET", "/protected/b", own)
    assert handler is own
    for handler, text in ((own, "own"), (theirs, "theirs")):
        (_, _, wrapped), _ = await hook("GET", "/own/wrapped", handler)
        status, headers, body, _ = await wrapped(request())
        assert (status, dict(headers)["X-Wrapped"]) == (200, "yes")
        assert (body.decode() if isinstance(body, bytes) else body) == text


async def test_commands(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addCommand('a', (name, count = 2, loud = false, ...rest) =>
          JSON.stringify([name, count, loud, rest]), 'Says it');
        context.addCommand('b', async function () { console.log('ran'); });
        context.addCommand('c', $x => $x);""",
    )
    fn, description, parameters = worker.commands["a"]
    assert description == "Says it"
    assert [(one["name"], one["type"], one["required"], one["default"], one["many"])
            for one in parameters] == [
        ("name", "str", True, None, False), ("count", "float", False, 2, False),
        ("loud", "bool", False, False, False), ("rest", "str", False, None, True),
    ]  # fmt: skip
    assert await fn(["x"], {"loud": True, "rest": ["y", "z"]}) == '["x",2,true,["y","z"]]'
    await worker.commands["b"][0]([], {})
    assert ("info", "ran") in worker.logs
    assert [one["name"] for one in worker.commands["c"][2]] == ["_x"]


async def test_services(start: Start) -> None:
    worker = await start(
        """module.exports = { name: 'p', version: '1.0.0',
          async load(app, config, context) {
            context.provide('cache', { size: 3, get(key) { return `${key}!`; }, api: { n: () => 1 } });
            context.provide('number', 7);
            const clock = await context.use('clock');
            context.log('info', JSON.stringify([clock.zone, await clock.now(), await context.use('n')]));
          } };"""
    )
    worker.answers["use"] = lambda name: (
        {"functions": ["now"], "constants": {"zone": "UTC"}} if name == "clock" else 5
    )
    worker.answers["service_call"] = lambda service, function, args: [service, function, args]
    await worker.load()
    assert worker.logs[-1][1] == '["UTC",["clock","now",[]],5]'
    cache = worker.services["cache"]
    assert cache["constants"] == {"size": 3}
    assert await cache["functions"]["get"]("k") == "k!"
    assert await cache["functions"]["api.n"]() == 1
    assert worker.services["number"] == {"value": 7}


async def test_other_plugins(start: Start) -> None:
    worker = await start(
        """module.exports = { name: 'p', version: '1.0.0', dependencies: ['base'],
          limit: 5, double: (n) => n * 2,
          async load(app, config, context) {
            const base = context.getPlugin('base');
            const loose = context.getPlugin('loose');
            context.log('info', JSON.stringify([
              base.version, base.module.size, await base.module.someFunction(1, 2),
              await loose.module.anything(), context.getPlugin('nobody') === undefined,
              context.listPlugins().map((one) => one.name),
            ]));
            context.emit('ready', { a: 1 });
            config.x = await context.updateConfig({ a: 1 });
          } };"""
    )
    worker.answers["plugin_call"] = lambda name, path, args: f"{name}.{path}{args}"
    described = await worker.load(
        plugins=[{"name": "base", "version": "1.1.0"}, {"name": "loose", "version": "2.0.0"}],
        exports={"base": {"functions": ["someFunction"], "constants": {"size": 9}}},
    )
    assert worker.logs[-1][1] == (
        '["1.1.0",9,"base.someFunction[1, 2]","loose.anything[]",true,["base","loose"]]'
    )
    assert ("emit", "ready", [{"a": 1}]) in worker.calls
    assert ("update_config", {"a": 1}) in worker.calls
    assert (described["functions"], described["constants"]) == (["double"], {"limit": 5})
    assert await worker.call("plugin_call", "double", [21]) == 42
    with pytest.raises(RemoteError, match="no function triple"):
        await worker.call("plugin_call", "triple", [])


async def test_calls_name_the_call_in_which_they_are_made(start: Start) -> None:
    """The host finds by it the span and the context variables of the outer call."""
    import contextvars

    outer = contextvars.ContextVar("outer", default="none")
    worker = await loaded(
        start,
        "context.hook('a', async () => { await null; return context.emit('inner'); });",
    )
    worker.answers["emit"] = lambda event, args: outer.get()
    outer.set("the hook's")
    assert (await worker.hooks["a"][0]())[0] == "the hook's"


async def test_a_websocket(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addWebSocket('/echo/:room', (ws, req) => {
          ws.send(`hello ${req.params.room}`);
          ws.on('message', (text) => ws.send(`${text}!`));
          ws.on('close', () => context.log('info', 'closed'));
        });""",
    )
    incoming = ["a", "b", None]
    sent: list[str] = []

    def socket() -> Marked:
        return Marked(
            "socket",
            {
                "url": "/echo/x", "headers": {}, "params": {"room": "x"}, "query": {},
                "ip": "127.0.0.1", "state": {}, "accept": lambda: None, "send": sent.append,
                "receive": lambda: incoming.pop(0), "close": lambda code, reason: None,
            },
        )  # fmt: skip

    async with asyncio.timeout(20):
        await worker.sockets["/echo/{room}"](socket())
    assert sent == ["hello x", "a!", "b!"]
    assert ("info", "closed") in worker.logs


async def test_what_is_printed_is_logged(start: Start) -> None:
    worker = await loaded(
        start,
        """console.log('a %d', 1, { b: [2] });
        console.warn('warned');
        console.error('failed');
        console.table([{ x: 1 }]);
        process.stdout.write('written\\nhalf ');
        process.stdout.write('a line\\n');
        process.stderr.write('to stderr\\n');
        if (globalThis.Deno) Deno.stdout.writeSync(new TextEncoder().encode('bytes\\n'));
        else console.log('bytes');
        context.log('warn', 'by the context');""",
    )
    assert worker.logs[:3] == [("info", "a 1 { b: [ 2 ] }"), ("warning", "warned"), ("error", "failed")]  # fmt: skip
    for line in ("written", "half a line", "bytes"):
        assert ("info", line) in worker.logs
    assert ("error", "to stderr") in worker.logs
    assert worker.logs[-1] == ("warning", "by the context")


async def test_a_flood_of_lines_is_bounded(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addRoute('GET', '/', (req, res) => {
          for (let i = 0; i < 100_000; i++) console.log('x'.repeat(1000));
          res.end();
        });""",
    )
    await worker.send("GET", "/")
    assert len(worker.logs) < 10_000
    await worker.until(lambda: "log lines were dropped" in worker.logs[-1][1])


async def test_uncaught_errors_are_reported_and_the_worker_stays(start: Start) -> None:
    worker = await loaded(
        start,
        """setTimeout(() => { throw new Error('in a timer'); }, 1);
        setTimeout(() => { Promise.reject(new Error('rejected')); }, 2);
        context.spawn(async () => { throw new Error('spawned'); });
        context.every(0.01, async function tick() { throw new Error('ticked'); });
        context.addRoute('GET', '/', (req, res) => res.end('alive'));""",
    )
    await worker.until(lambda: len(worker.failures) >= 4)
    found = {error.message: (error.line, where) for error, where in worker.failures}
    assert found["in a timer"] == (2, "uncaught error")
    assert found["rejected"] == (3, "unhandled rejection")
    assert found["spawned"] == (4, "spawn")
    assert found["ticked"] == (5, "every 0.01 s tick")
    assert (await worker.send("GET", "/")).text == "alive"
    await worker.call("deactivate")
    await worker.send("GET", "/")
    count = len(worker.failures)
    await asyncio.sleep(0.05)
    assert len(worker.failures) == count


async def test_process_exit_ends_the_worker(start: Start) -> None:
    worker = await loaded(start, "context.addRoute('GET', '/', () => process.exit(3));")
    with pytest.raises(Exception, match=r"is gone|lost"):
        await worker.send("GET", "/")
    assert await worker.process.wait() == 3
    assert ("error", "The plugin called process.exit(3).") in worker.logs


async def test_unload_uses_the_free_context(start: Start) -> None:
    worker = await start(
        """module.exports = { name: 'p', version: '1.0.0',
          load(app, config, context) { context.storage.set('client', { quit: () => 'quit' }); },
          async unload(app, config) { console.log(context.storage.get('client').quit()); },
          exportState() { return { n: 1 }; },
          importState(state, version) { console.log(`${version} ${state.n}`); } };"""
    )
    described = await worker.load()
    assert described["steps"] == ["load", "unload", "export_state", "import_state"]
    assert await worker.call("export_state") == {"n": 1}
    await worker.call("import_state", {"n": 2}, "0.9.0")
    await worker.call("unload")
    assert [message for _, message in worker.logs[-2:]] == ["0.9.0 2", "quit"]
    worker.connection.note("shutdown")
    assert await worker.process.wait() == 0


async def test_what_cannot_be_sent_is_refused_by_name(start: Start) -> None:
    worker = await loaded(
        start,
        """const circle = {};
        circle.self = circle;
        const values = { map: new Map(), big: 1n, circle, date: new Date(0), set: new Set([1]),
          bytes: new Uint8Array([1, 2]), text: 'é'.repeat(20_000), error: new RangeError('r'),
          huge: Array.from({ length: 200_000 }, () => 'abcdef') };
        context.hook('value', (name) => values[name]);""",
    )
    hook = worker.hooks["value"][0]
    for name, words in (("map", "Object.fromEntries"), ("big", "BigInt"), ("circle", "200 deep"),
                        ("huge", "bytes of JSON")):  # fmt: skip
        with pytest.raises(RemoteError, match=words):
            await hook(name)
    assert (await hook("date"))[0].timestamp() == 0
    assert (await hook("set"))[0] == {1}
    assert (await hook("bytes"))[0] == b"\x01\x02"
    assert (await hook("text"))[0] == "é" * 20_000
    assert str((await hook("error"))[0]).startswith("r")


async def test_functions_of_both_sides_are_released(start: Start) -> None:
    worker: Worker = await loaded(
        start,
        """context.hook('make', () => () => 1);
        context.addRoute('GET', '/', (req, res) => res.json(globalThis.gc ? 1 : 0));""",
    )
    hook = worker.hooks["make"][0]
    for _ in range(200):
        (function, _) = await hook()
        assert await function() == 1
        del function
    with pytest.raises(RemoteError):
        await worker.connection.call(5)
