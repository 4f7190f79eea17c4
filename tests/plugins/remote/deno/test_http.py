"""`req`, `res` and `next` as Express has them."""

import gzip
from typing import Any

import pytest

from veko_plugins.remote.protocol import RemoteError

from .conftest import Answer, Marked, Start, Worker, request


def plugin(load: str) -> str:
    return (
        "module.exports = { name: 'p', version: '1.0.0', async load(app, config, context) {\n"
        f"{load}\n}} }};"
    )


async def loaded(start: Start, load: str, **setup: Any) -> Worker:
    worker = await start(plugin(load))
    await worker.load(**setup)
    return worker


async def test_req(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addRoute('GET', '/a/:id', (req, res) => res.json([
          req.method, req.url, req.originalUrl, req.path, req.params, req.query, req.ip, req.body,
          req.get('X-Name'), req.header('x-name'), req.headers['x-name'], req.hostname, req.protocol,
          req.cookies, req.is('json'), req.accepts('html', 'json'), req.user, Object.keys(req),
        ]));""",
    )
    answer = await worker.send(
        "GET", "/a/7?q=x", "/a/{id}", params={"id": "7"}, state={"user": {"name": "ann"}},
        headers={"x-name": "n", "cookie": "a=1; b=%20x", "accept": "application/json"},
    )  # fmt: skip
    assert answer.json == [
        "GET", "/a/7?q=x", "/a/7?q=x", "/a/7", {"id": "7"}, {"q": "x"}, "127.0.0.1", {},
        "n", "n", "n", "localhost", "http",
        {"a": "1", "b": " x"}, False, "json", {"name": "ann"}, ["user"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "status", "body", "headers"),
    [
        ("res.json({ a: [1, null] })", 200, '{"a":[1,null]}', {"content-type": "application/json; charset=utf-8"}),
        ("res.send('hi')", 200, "hi", {"content-type": "text/html; charset=utf-8"}),
        ("res.send({ a: 1 })", 200, '{"a":1}', {"content-type": "application/json; charset=utf-8"}),
        ("res.send(Buffer.from('hi'))", 200, "hi", {"content-type": "application/octet-stream"}),
        ("res.type('txt').send('hi')", 200, "hi", {"content-type": "text/plain; charset=utf-8"}),
        ("res.status(204).end()", 204, "", {}),
        ("res.sendStatus(404)", 404, "Not Found", {"content-type": "text/plain; charset=utf-8"}),
        ("res.redirect('/b?x=a b')", 302, "Found. Redirecting to /b?x=a%20b", {"location": "/b?x=a%20b"}),
        ("res.redirect(301, '/b')", 301, "Moved Permanently. Redirecting to /b", {"location": "/b"}),
        ("res.set('X-A', 'b').set({ 'x-c': 1 }).end('x')", 200, "x", {"x-a": "b", "x-c": "1"}),
        ("res.writeHead(202, { 'x-a': 'b' }); res.end('x')", 202, "x", {"x-a": "b"}),
        ("res.statusCode = 418; res.setHeader('A', 'b'); res.removeHeader('A'); res.end(res.hasHeader('a') + '')", 418, "false", {}),
        ("res.cookie('s', 'a b', { httpOnly: true, maxAge: 60000, sameSite: 'lax' }).end(String(res.get('set-cookie')).replace(/Expires=[^;]+; /, ''))",
         200, "s=a%20b; Max-Age=60; Path=/; HttpOnly; SameSite=Lax", {}),
        ("res.clearCookie('s').end(res.get('set-cookie'))", 200, "s=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT", {}),
        ("res.format({ html: () => res.send('<p>'), json: () => res.json(1) })", 200, "<p>", {"vary": "Accept"}),
    ],
)  # fmt: skip
async def test_res(
    start: Start, code: str, status: int, body: str, headers: dict[str, str]
) -> None:
    worker = await loaded(start, f"context.addRoute('GET', '/', (req, res) => {{ {code} }});")
    answer = await worker.send("GET", "/")
    assert (answer.status, answer.text) == (status, body)
    assert headers.items() <= answer.headers.items()


async def test_written_responses_stream(start: Start) -> None:
    worker = await loaded(
        start,
        """const { Readable } = require('node:stream');
        context.addRoute('GET', '/', async (req, res) => {
          res.type('txt').write('a');
          await new Promise((resolve) => setTimeout(resolve, 20));
          res.write('b');
          res.end('c');
        });
        context.addRoute('GET', '/pipe', (req, res) => {
          Readable.from([Buffer.alloc(100_000, 'x'), Buffer.from('y')]).pipe(res); });""",
    )
    answer = await worker.send("GET", "/")
    assert [part async for part in answer.body] == [b"a", b"bc"]
    answer = await worker.send("GET", "/pipe")
    assert b"".join([part async for part in answer.body]) == b"x" * 100_000 + b"y"


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"a": 1}', {"content-type": "application/json"}, {"a": 1}),
        (b"", {"content-type": "application/json"}, {}),
        (gzip.compress(b"[1]", mtime=0), {"content-type": "application/json", "content-encoding": "gzip"}, [1]),
        (b"a=1&b=x+y&b=z&c[d][]=1&c[d][]=2", {"content-type": "application/x-www-form-urlencoded"},
         {"a": "1", "b": ["x y", "z"], "c": {"d": ["1", "2"]}}),
        (b"text", {"content-type": "text/plain"}, {}),
        (b'{"a"', {"content-type": "application/json"}, 400),
        (b'"a"', {"content-type": "application/json"}, 400),
        (b"x", {"content-type": "application/json", "content-encoding": "gzip"}, 400),
        (b"x", {"content-type": "application/json", "content-encoding": "zip"}, 415),
        (b"{}", {"content-type": "application/json; charset=nonsense"}, 415),
        (b"&a" * 1001, {"content-type": "application/x-www-form-urlencoded"}, 413),
    ],
)  # fmt: skip
async def test_bodies(start: Start, body: bytes, headers: dict[str, str], expected: Any) -> None:
    worker = await loaded(start, "context.addRoute('POST', '/', (req, res) => res.json(req.body));")
    if isinstance(expected, int):
        with pytest.raises(RemoteError) as caught:
            await worker.send("POST", "/", body=body, headers=headers)
        assert caught.value.status == expected
    else:
        assert (await worker.send("POST", "/", body=body, headers=headers)).json == expected


async def test_a_form_cannot_reach_prototypes(start: Start) -> None:
    worker = await loaded(
        start, "context.addRoute('POST', '/', (req, res) => res.json([({}).a, req.body.b]));"
    )
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await worker.send("POST", "/", body=b"__proto__[a]=1&constructor[prototype][a]=1&b=1",
                               headers=form)  # fmt: skip
    assert answer.json == [None, "1"]


async def test_a_streamed_body(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addRoute('POST', '/json', (req, res) => res.json(req.body));
        context.addRoute('POST', '/raw', async (req, res) => {
          let size = 0;
          for await (const part of req) size += part.length;
          res.json(size);
        });
        context.addRoute('POST', '/back', (req, res) => req.pipe(res));""",
    )

    async def parts() -> Any:
        for part in (b'{"a":', b" [1, 2]}"):
            yield part

    answer = await worker.send("POST", "/json", body=parts(), headers={"content-type": "application/json"})  # fmt: skip
    assert answer.json == {"a": [1, 2]}
    assert (await worker.send("POST", "/raw", body=parts())).json == 13
    answer = await worker.send("POST", "/back", body=parts())
    assert b"".join([part async for part in answer.body]) == b'{"a": [1, 2]}'


async def test_route_middleware_and_errors(start: Start) -> None:
    worker = await loaded(
        start,
        """const auth = (req, res, next) => {
          if (!req.headers.authorization) return res.status(401).json({ error: 'no token' });
          req.user = { name: req.headers.authorization };
          next();
        };
        context.addRoute('GET', '/me', auth, async (req, res) => res.json(req.user));
        context.addRoute('GET', '/bad', [auth], (req, res, next) => next(new Error('bad')),
          (error, req, res, next) => res.status(500).json({ said: error.message }));
        context.addRoute('GET', '/thrown', async () => { throw new TypeError('thrown'); });
        context.addRoute('GET', '/nobody', (req, res, next) => next());
        context.addRoute('GET', '/late', (req, res) => { res.json(1); throw new Error('late'); });""",
    )
    assert (await worker.send("GET", "/me")).status == 401
    token = {"authorization": "ann"}
    answer = await worker.send("GET", "/me", headers=token)
    assert (answer.json, answer.state) == ({"name": "ann"}, {"user": {"name": "ann"}})
    assert (await worker.send("GET", "/bad", headers=token)).json == {"said": "bad"}
    with pytest.raises(RemoteError, match="thrown"):
        await worker.send("GET", "/thrown")
    with pytest.raises(RemoteError) as caught:
        await worker.send("GET", "/nobody")
    assert caught.value.status == 404
    assert (await worker.send("GET", "/late")).json == 1
    await worker.until(lambda: worker.failures)
    error, where = worker.failures[0]
    assert (error.message, error.line, where) == ("late", 12, "uncaught error")


async def through(worker: Worker, behind: Any, number: int = 0, **options: Any) -> Any:
    """Send a request through a middleware; `behind` answers what lies behind it."""
    return await worker.middlewares[number](request(**options), behind)


async def never(state: Any) -> Any:
    raise AssertionError("next was called")


async def test_a_middleware_goes_on_without_a_round_trip(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addMiddleware((req, res, next) => {
          req.seen = [...(req.seen ?? []), 'p'];
          req.helper = () => 42;
          req.client = new (class Client { ask() { return 'client'; } })();
          res.set('X-Seen', 'yes');
          res.on('finish', () => context.log('info', `finished ${res.statusCode}`));
          next();
        });
        context.addRoute('GET', '/', (req, res) => res.json([req.helper(), req.client.ask()]));""",
    )
    kind, more = await through(worker, never, state={"seen": ["a"]})
    assert (kind, more["headers"], more["state"]["seen"]) == (
        "next",
        [["X-Seen", "yes"]],
        ["a", "p"],
    )
    await more["finish"](Marked("response", {"status": 201, "headers": [], "body": None}))
    await worker.until(lambda: ("info", "finished 201") in worker.logs)
    # What is no JSON comes back to its worker as it was.
    assert (await worker.send("GET", "/", state=more["state"])).json == [42, "client"]


async def test_a_middleware_answers_or_fails(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addMiddleware(async (req, res, next) => {
          if (req.path === '/stop') return res.status(403).send('no');
          if (req.path === '/fail') return next(new Error('failed'));
          await null;
          next();
        });""",
    )
    assert Answer(await through(worker, never, url="/stop")).status == 403
    with pytest.raises(RemoteError, match="failed"):
        await through(worker, never, url="/fail")
    assert (await through(worker, never, url="/"))[0] == "next"


WRAPPING = """context.addMiddleware((req, res, next) => {
  const json = res.json;
  res.json = function (data) {
    context.log('info', `saw ${JSON.stringify(data)}`);
    if (req.query.change) data = { ...data, changed: true };
    json.call(this, data);
  };
  next();
});"""


@pytest.mark.parametrize("change", [False, True])
async def test_a_middleware_that_replaces_json_sees_what_lies_behind(
    start: Start, change: bool
) -> None:
    worker = await loaded(start, WRAPPING)
    body = b'{"id": 9007199254740993}'
    answer = {
        "status": 201,
        "headers": [["content-type", "application/json"], ["content-length", str(len(body))]],
        "body": body,
    }

    async def behind(state: Any) -> Any:
        return Marked("response", answer)

    got = Answer(await through(worker, behind, url="/?change=1" if change else "/"))
    assert got.status == 201
    assert got.text == ('{"id":9007199254740992,"changed":true}' if change else body.decode())
    await worker.until(lambda: ("info", 'saw {"id":9007199254740992}') in worker.logs)


async def test_a_replaced_json_leaves_other_bodies_alone(start: Start) -> None:
    worker = await loaded(start, WRAPPING)

    async def parts() -> Any:
        raise AssertionError("the stream was read")
        yield b""

    for body, content in ((b"<p>", "text/html"), (parts(), "application/json"), (None, "x/y")):

        async def behind(state: Any, body: Any = body, content: str = content) -> Any:
            return Marked("response", {"status": 200, "headers": [["content-type", content]], "body": body})  # fmt: skip

        got = Answer(await through(worker, behind))
        assert got.body is body or got.body == body


async def test_cancellation_aborts_the_signal(start: Start) -> None:
    import asyncio

    worker = await loaded(
        start,
        """context.addRoute('GET', '/', (req, res) => {
          req.signal.addEventListener('abort', () => context.log('info', 'aborted'));
          context.log('info', 'waiting');
        });""",
    )
    task = asyncio.create_task(worker.send("GET", "/"))
    await worker.until(lambda: ("info", "waiting") in worker.logs)
    task.cancel()
    await worker.until(lambda: ("info", "aborted") in worker.logs)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stream_hears_that_the_client_has_left(start: Start) -> None:
    worker = await loaded(
        start,
        """context.addRoute('GET', '/', (req, res) => {
          res.write('a');
          req.on('close', () => context.log('info', 'left'));
        });""",
    )
    answer = await worker.send("GET", "/")
    assert await anext(answer.body) == b"a"
    await answer.body.aclose()
    await worker.until(lambda: ("info", "left") in worker.logs)
