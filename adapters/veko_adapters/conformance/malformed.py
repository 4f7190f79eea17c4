"""Requests that no well-behaved client sends. The server must survive and answer the next one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from veko_plugins.http import Request

from ._site import Site
from ._wire import request, wire

pytestmark = pytest.mark.anyio

CHUNKED = "transfer-encoding: chunked"

REFUSED = {
    "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\nhost: test\r\n\r\n",
    "no slash": request("GET", "x"),
    "no colon": request("GET", "/x", "foo"),
    "unknown version": b"GET /x HTTP/9.9\r\nhost: test\r\n\r\n",
    "space in a name": request("GET", "/x", "fo o: bar"),
    "space before a colon": request("GET", "/x", "foo : bar"),
    "NUL in a value": request("GET", "/x", "foo: a\0b"),
    "NUL in the path": request("GET", "/rest/a\0b"),
    "bare CR": request("GET", "/x", "foo: a\rbar: b"),
    "header of 1 MB": request("GET", "/x", "foo: " + "a" * 1_000_000),
    "5,000 headers": request("GET", "/x", *(f"h{number}: a" for number in range(5_000))),
    "path of 70 KB": request("GET", "/rest/" + "a" * 70_000),
    "path of 1 MB": request("GET", "/rest/" + "a" * 1_000_000),
    "query of 70 KB": request("GET", "/x?" + "a" * 70_000),
}
BORNE = {
    "no host": b"GET /x HTTP/1.1\r\n\r\n",
    "two hosts": request("GET", "/x", "host: other"),
    "a strange host": b"GET /rest/a HTTP/1.1\r\nhost: a/b@c<d>\r\n\r\n",
    "HTTP/0.9": b"GET /x\r\nhost: test\r\n\r\n",
    "HTTP/1.0": b"GET /x HTTP/1.0\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": request("FOO", "/x"),
    "small letters": request("get", "/x"),
    "folded header": request("GET", "/x", "foo: a\r\n b"),
    "bare LF": b"GET /x HTTP/1.1\nhost: test\n\n",
    "header of 8 KB": request("GET", "/x", "foo: " + "a" * 8_192),
    "header of 70 KB": request("GET", "/x", "foo: " + "a" * 70_000),
    "path of 8 KB": request("GET", "/rest/" + "a" * 8_192),
    "path of 30,000 segments": request("GET", "/" + "a/" * 30_000),
    "header in Latin-1": request("GET", "/x", "foo: \xff\xfe"),
    "broken cookies": request("GET", "/x", 'cookie: a=b; c; =d; e="f; g"; \xff=1;;;'),
    "upgrade to h2c": request("GET", "/x", "connection: upgrade, http2-settings", "upgrade: h2c"),
    "half a WebSocket": request("GET", "/x", "connection: upgrade", "upgrade: websocket"),
    "unknown expectation": request("POST", "/body", "expect: magic", body=b"abc"),
    "absolute target": request("GET", "http://other/x"),
    "asterisk": request("OPTIONS", "*"),
    "authority": request("CONNECT", "other:80"),
    "fragment": request("GET", "/x#y"),
    "invalid UTF-8 in the path": request("GET", "/rest/%ff%fe"),
    "a surrogate in the path": request("GET", "/rest/%ed%a0%80"),
    "raw bytes in the path": request("GET", "/rest/\xff"),
    "broken percent-encoding": request("GET", "/rest/%zz%"),
    "encoded NUL": request("GET", "/rest/a%00b?a=%00"),
    "invalid UTF-8 in the query": request("GET", "/x?a=%ff&b=\xff&&=&c&a"),
    "query of 3,000 fields": request("GET", "/x?" + "&".join(f"x{n}=1" for n in range(3_000))),
}
HIDDEN = request("GET", "/hidden")
SMUGGLED = {
    "length and chunks": ("content-length: 4", CHUNKED),
    "chunks and length": (CHUNKED, "content-length: 4"),
    "two lengths": ("content-length: 4", f"content-length: {len(HIDDEN)}"),
    "signed length": ("content-length: +5",),
    "negative length": ("content-length: -5",),
    "length and letters": ("content-length: 5x",),
    "length out of range": ("content-length: 99999999999999999999999",),
    "unknown coding": ("transfer-encoding: xchunked", "content-length: 5"),
    "coding after chunks": ("transfer-encoding: chunked, identity", "content-length: 5"),
    "two codings": (CHUNKED, "transfer-encoding: identity", "content-length: 5"),
    "tab before chunks": ("transfer-encoding:\x0bchunked", "content-length: 5"),
}


async def body(request: Request) -> int:
    return len(await request.body())


def load(context: Any) -> None:
    context.add_route("GET", "/x", lambda request: sorted({*request.query, *request.cookies}))
    context.add_route("GET", "/rest/{rest:path}", lambda rest, request: [rest, request.url])
    context.add_route("POST", "/body", body)


async def bears(site: Site, data: bytes, *, refused: bool = False) -> None:
    """Send bytes, and check that they cost at most their own connection."""
    async with site.plugin(load) as record:
        async with wire(site.url) as connection:
            answer = await connection.ask(data)
        lowest = 400 if refused else 200
        assert answer is None or lowest <= answer.status < 500
        async with wire(site.url) as connection:
            after = await connection.ask(request("GET", "/x?a=1"))
        assert after is not None
        assert (after.status, after.body) == (200, b'["a"]')
        assert record.error_count == 0


@pytest.mark.parametrize("shape", REFUSED)
async def test_what_is_no_request_is_refused(site: Site, shape: str) -> None:
    await bears(site, REFUSED[shape], refused=True)


@pytest.mark.parametrize("shape", BORNE)
async def test_an_odd_request_is_no_servers_fault(site: Site, shape: str) -> None:
    await bears(site, BORNE[shape])


@pytest.mark.parametrize("shape", SMUGGLED)
async def test_no_request_hides_in_the_body_of_another(site: Site, shape: str) -> None:
    called: list[str] = []

    def watch(context: Any) -> None:
        context.add_route("GET", "/hidden", lambda request: called.append("hidden"))

    async with site.plugin(watch, "watch"):
        headers = SMUGGLED[shape]
        await bears(site, request("POST", "/body", *headers, body=b"0\r\n\r\n" + HIDDEN))
        # The rest of the connection is not read as another request.
        async with wire(site.url) as connection:
            await connection.send(request("POST", "/body", *headers, body=b"0\r\n\r\n" + HIDDEN))
            connection.finish()
            await connection.rest()
    assert called == []


@pytest.mark.parametrize("chunk", [b"zz\r\nab\r\n", b"-1\r\nab\r\n", b"2\r\nabcd\r\n", b"\r\n"])
async def test_broken_chunks_end_the_connection_only(site: Site, chunk: bytes) -> None:
    async with site.plugin(load) as record:
        async with wire(site.url) as connection:
            await connection.send(request("POST", "/body", CHUNKED) + chunk + b"0\r\n\r\n")
            answer = await connection.answer()
            assert answer is None or answer.status == 400
        assert (await site.client.get("/x?a=1")).json() == ["a"]
        assert record.error_count == 0


async def test_requests_may_come_all_at_once(site: Site) -> None:
    async with site.plugin(load) as record, wire(site.url) as connection:
        await connection.send(
            request("GET", "/x?a=1")
            + request("POST", "/body", body=b"abc")
            + request("GET", "/nothing")
            + request("POST", "/body", CHUNKED, body=b"2\r\nab\r\n0\r\n\r\n")
            + request("HEAD", "/x")
            + request("GET", "/x?b=1")
        )
        found = [await connection.answer(to="HEAD" if n == 4 else "GET") for n in range(6)]
        bodies = [(answer.status, answer.body) for answer in found if answer]
        assert [status for status, _ in bodies] == [200, 200, 404, 200, 200, 200]
        assert [content for status, content in bodies if status == 200] == [
            b'["a"]', b"3", b"2", b"", b'["b"]',
        ]  # fmt: skip
        assert record.error_count == 0


async def test_a_connection_stays_good_after_errors(site: Site) -> None:
    def fail(request: Request) -> None:
        raise ValueError

    def more(context: Any) -> None:
        context.add_route("GET", "/fail", fail)
        context.add_route("POST", "/fail", fail)
        context.add_route("POST", "/typed", lambda data: data)

    async with site.plugin(load), site.plugin(more, "more"), wire(site.url) as connection:
        for asked, status in (
            (request("GET", "/fail"), 500),
            (request("POST", "/fail", body=b"unread" * 1_000), 500),
            (request("GET", "/nothing"), 404),
            (request("POST", "/nothing", body=b"unread" * 1_000), 404),
            (request("DELETE", "/x"), 405),
            (request("POST", "/typed", body=b"{"), 400),
            (request("POST", "/fail", CHUNKED, body=b"2\r\nab\r\n0\r\n\r\n"), 500),
            (request("GET", "/x?a=1"), 200),
        ):
            answer = await connection.ask(asked)
            assert answer is not None
            assert answer.status == status


@pytest.mark.parametrize(
    "target",
    [
        "/../x", "/./x", "/rest/../x", "/rest/..", "/rest/%2e%2e/%2e%2e/etc/passwd",
        "/rest/..%2f..%2fetc/passwd", "/rest/a/%2E", "/rest%2f..%2fx",
    ],
)  # fmt: skip
async def test_no_path_climbs(site: Site, target: str) -> None:
    async with site.plugin(load), wire(site.url) as connection:
        answer = await connection.ask(request("GET", target))
        assert answer is None or answer.status in {400, 404}


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        ("/rest//x", "/x"), ("/rest/a//b/", "a//b/"), ("/rest/a%2Fb", "a/b"),
        ("/rest/a%20b+c", "a b+c"), ("/rest/%C3%A9", "é"), ("/rest/%255c", "%5c"),
        ("/rest/.a/b..", ".a/b.."), ("/rest/..%5C..%5Cx", "..\\..\\x"), ("/rest/a;b=c", "a;b=c"),
    ],
)  # fmt: skip
async def test_the_rest_of_a_path_comes_decoded_once(site: Site, target: str, rest: str) -> None:
    async with site.plugin(load), wire(site.url) as connection:
        answer = await connection.ask(request("GET", target))
        assert answer is not None
        assert answer.status == 200
        assert json.loads(answer.body)[0] == rest
