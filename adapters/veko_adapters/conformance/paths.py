"""Methods and paths: which requests reach which route, and what the others are answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from veko import VekoError
from veko_plugins.http import Request, Response

from ._site import Site
from ._wire import request, wire

pytestmark = pytest.mark.anyio

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
KEY = "0b9f3c5e-8a0e-4a57-9a3e-6b6f3f1f6c11"


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_may_have_a_route(site: Site, method: str) -> None:
    def handler(request: Request) -> Response:
        return Response(request.method, headers={"x-method": request.method})

    async with site.route(method, "/x", handler), wire(site.url) as connection:
        answer = await connection.ask(request(method, "/x"))
        assert answer is not None
        assert (answer.status, answer.header("x-method")) == (200, method)


async def test_each_method_has_its_own_handler(site: Site) -> None:
    def load(context: Any) -> None:
        for method in METHODS[:7]:
            context.add_route(
                method, "/x", lambda method=method: Response(headers={"x-is": method})
            )
        context.add_route("GET", "/y", lambda: "y")

    async with site.plugin(load):
        for method in METHODS[:7]:
            assert (await site.client.request(method, "/x")).headers["x-is"] == method
        assert (await site.client.head("/y")).headers["content-length"] == "1"


async def test_what_a_path_allows_is_told(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_route("PUT", "/x/{name}", lambda: "word")
        context.add_route("GET", "/x/{number:int}", lambda: "number")
        context.add_route("DELETE", "/x/{rest:path}", lambda: "rest")

    async with site.plugin(load):
        for path, allowed in (
            ("/x/1", "DELETE, GET, HEAD, OPTIONS, PUT"),
            ("/x/a", "DELETE, OPTIONS, PUT"),
            ("/x/a/b", "DELETE, OPTIONS"),
        ):
            refused, asked = await site.client.post(path), await site.client.options(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
            assert (asked.status_code, asked.headers["allow"]) == (204, allowed)
            assert refused.json() == {
                "type": "about:blank", "title": "Method Not Allowed", "status": 405,
            }  # fmt: skip
        head = await site.client.head("/x/a")
        assert (head.status_code, head.content) == (405, b"")
        assert (await site.client.put("/x/1")).text == "word"
        missing = await site.client.get("/y", headers={"accept": "text/html"})
        assert missing.headers["content-type"] == "application/problem+json"
        assert missing.json() == {"type": "about:blank", "title": "Not Found", "status": 404}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/fixed", ["fixed"]),
        ("/7", ["int", 7]),
        ("/-7", ["int", -7]),
        ("/007", ["int", 7]),
        ("/9223372036854775807", ["int", 9223372036854775807]),
        ("/99999999999999999999", ["str", "99999999999999999999"]),
        ("/7.50", ["float", 7.5]),
        ("/-0.5", ["float", -0.5]),
        ("/1e5", ["str", "1e5"]),
        ("/nan", ["str", "nan"]),
        (f"/{KEY}", ["uuid", KEY]),
        (f"/{KEY.upper()}", ["uuid", KEY]),
        (f"/{KEY[:-1]}", ["str", KEY[:-1]]),
        ("/word", ["str", "word"]),
        ("/w%C3%B6rd%20%2B+", ["str", "wörd ++"]),
        ("/٣", ["str", "٣"]),
        ("/a/b", ["path", "a/b"]),
        ("/a%2Fb", ["path", "a/b"]),
        ("/a/b/", ["path", "a/b/"]),
        ("/a//b", ["path", "a//b"]),
        ("/fixed/", ["fixed"]),
        ("/7/", ["int", 7]),
        ("/Fixed", ["str", "Fixed"]),
        ("/%66ixed", ["fixed"]),
        ("/fixed/under", ["under"]),
        ("/fixed/other", ["path", "fixed/other"]),
    ],
)
async def test_the_most_precise_route_answers(site: Site, path: str, found: list[Any]) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/{a:path}", lambda a: ["path", a])
        context.add_route("GET", "/{a}", lambda a: ["str", a])
        context.add_route("GET", "/{a:uuid}", lambda a: ["uuid", a])
        context.add_route("GET", "/{a:float}", lambda a: ["float", a])
        context.add_route("GET", "/{a:int}", lambda a: ["int", a])
        context.add_route("GET", "/fixed", lambda: ["fixed"])
        context.add_route("GET", "/fixed/under", lambda: ["under"])

    async with site.plugin(load):
        answer = await site.client.get(path)
        assert (answer.status_code, answer.json()) == (200, found)


async def test_the_root_and_a_trailing_slash(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/", lambda: "root")
        context.add_route("GET", "/with/", lambda: "with")
        context.add_route("GET", "/a/{b}/c/{d:int}", lambda b, d: [b, d])

    async with site.plugin(load):
        for path, text in (("", "root"), ("/", "root"), ("/with", "with"), ("/with/", "with")):
            assert (await site.client.get(path)).text == text
        assert (await site.client.get("/a/x/c/1/")).json() == ["x", 1]
        async with wire(site.url) as connection:
            for path in ("/with//", "//with", "/a//c/1", "/a/x/c/y", "/WITH"):
                answer = await connection.ask(request("GET", path))
                assert answer is not None
                assert (path, answer.status) == (path, 404)


async def test_the_query_and_the_headers_as_they_came(site: Site) -> None:
    def handler(request: Request) -> Any:
        query, headers = request.query, request.headers
        return {
            "query": [[name, query.getall(name)] for name in query],
            "last": query.get("a"),
            "header": headers["X-NAME"],
            "headers": headers.getall("x-name"),
            "cookies": request.cookies,
            "url": request.url,
            "client": request.client.host if request.client else None,
        }

    async with site.route("GET", "/x/{a}", handler), wire(site.url) as connection:
        answer = await connection.ask(
            request(
                "GET", "/x/%C3%A9?a=1&a=%C3%A9+%26&b=&c&%20=x;y",
                "X-Name: one", "x-nAME:   two", "cookie: a=1; b=\"2\"; a=3", "cookie: c=%20=",
            )
        )  # fmt: skip
    assert answer is not None
    assert json.loads(answer.body) == {
        "query": [["a", ["1", "é &"]], ["b", [""]], ["c", [""]], [" ", ["x;y"]]],
        "last": "é &",
        "header": "one",
        "headers": ["one", "two"],
        "cookies": {"a": "3", "b": "2", "c": "%20="},
        "url": "http://test/x/%C3%A9?a=1&a=%C3%A9+%26&b=&c&%20=x;y",
        "client": "127.0.0.1",
    }


async def test_who_comes_second_does_not_load_and_hears_who_is_first(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/mine", lambda: "second")
        context.add_route("GET", "/x/{other}/", lambda: "second")

    async with site.route("GET", "/x/{id}", lambda: "first") as client:
        with pytest.raises(VekoError, match=r"GET /x/\{other\}/ is taken by the plugin 'guest'"):
            async with site.plugin(load, "second"):
                pass
        assert (await client.get("/x/1")).text == "first"
        assert (await client.get("/mine")).status_code == 404
