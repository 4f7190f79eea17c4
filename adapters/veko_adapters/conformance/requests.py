"""Requests as handlers get them, arguments, and return values, alike in every adapter."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any
from uuid import UUID

import msgspec
import pytest

from veko import LoadError, RouteError, VekoError
from veko_plugins.http import HTTPError, Request, Response

from ._site import Site

pytestmark = pytest.mark.anyio


class Item(msgspec.Struct):
    name: str
    price: float
    tags: list[str] = []


class Opaque:
    pass


async def echo(request: Request) -> Any:
    return {
        "method": request.method,
        "path": request.path,
        "params": request.path_params,
        "query": {name: request.query.getall(name) for name in request.query},
        "cookies": request.cookies,
        "body": (await request.body()).decode(),
    }


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_methods_reach_the_handler(site: Site, method: str) -> None:
    async with site.route(method, "/echo/{id:int}", echo) as client:
        answer = await client.request(
            method,
            "/echo/7?a=1&a=2",
            headers={"cookie": "k=v"},
            content=b"hello" if method != "GET" else None,
        )
        assert answer.status_code == 200
        assert answer.json() == {
            "method": method,
            "path": "/echo/7",
            "params": {"id": 7},
            "query": {"a": ["1", "2"]},
            "cookies": {"k": "v"},
            "body": "hello" if method != "GET" else "",
        }


async def test_head_options_404_and_405(site: Site) -> None:
    async with site.route("GET", "/thing", lambda request: "a thing") as client:
        whole, head = await client.get("/thing"), await client.head("/thing")
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == whole.headers["content-length"] == "7"
        options = await client.options("/thing")
        assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        refused = await client.post("/thing")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        missing = await client.get("/nothing")
        assert missing.status_code == 404
        for answer in (refused, missing):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == answer.status_code


async def chunks() -> AsyncIterator[str]:
    yield "a"
    yield "b"


@pytest.mark.parametrize(
    ("returned", "status", "media_type", "body"),
    [
        ("é", 200, "text/plain; charset=utf-8", "é".encode()),
        (b"\0\1", 200, "application/octet-stream", b"\0\1"),
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        ([1, 2], 200, "application/json", b"[1,2]"),
        (Item("x", 1.5), 200, "application/json", b'{"name":"x","price":1.5,"tags":[]}'),
        (True, 200, "application/json", b"true"),
        (None, 204, None, b""),
        (Response("<p>", 201, {"x-a": "1"}, "text/html"), 201, "text/html; charset=utf-8", b"<p>"),
        (Response(status=302, headers={"location": "/"}), 302, None, b""),
    ],
)
async def test_what_a_handler_returns_is_sent(
    site: Site, returned: Any, status: int, media_type: str | None, body: bytes
) -> None:
    async with site.route("GET", "/it", lambda request: returned) as client:
        answer = await client.get("/it")
    assert (answer.status_code, answer.headers.get("content-type")) == (status, media_type)
    assert answer.content == body


async def test_an_async_iterator_is_streamed(site: Site) -> None:
    for handler in (chunks, lambda request: chunks(), lambda: Response(chunks())):
        async with site.route("GET", "/it", handler) as client:
            answer = await client.get("/it")
            assert (answer.text, "content-length" in answer.headers) == ("ab", False)


async def test_handlers_get_what_they_name(site: Site) -> None:
    async def handler(
        key: UUID, day: date, request: Request, q: str = "none", n: list[int] | None = None
    ) -> Any:
        return [str(key), day.isoformat(), request.method, q, n]

    key = "0b9f3c5e-8a0e-4a57-9a3e-6b6f3f1f6c11"
    async with site.route("GET", "/{key:uuid}/{day}", handler) as client:
        answer = await client.get(f"/{key}/2026-01-02?n=1&n=2")
        assert answer.json() == [key, "2026-01-02", "GET", "none", [1, 2]]
        answer = await client.get(f"/{key}/2026-01-02?q=x")
        assert answer.json() == [key, "2026-01-02", "GET", "x", None]


@pytest.mark.parametrize(
    "handler",
    [
        lambda: "ok",
        lambda r: "ok" if isinstance(r, Request) else "no",
        lambda r, /: "ok" if isinstance(r, Request) else "no",
        lambda req, key: "ok" if (isinstance(req, Request) and key == 3) else "no",
        lambda key: "ok" if key == 3 else "no",
        lambda *, request: "ok" if isinstance(request, Request) else "no",
        lambda **anything: "ok",
    ],
)
async def test_handlers_without_annotations(site: Site, handler: Any) -> None:
    async with site.route("GET", "/x/{key:int}", handler) as client:
        assert (await client.get("/x/3")).text == "ok"


async def test_the_handler_may_be_given_by_name(site: Site) -> None:
    async with site.plugin(
        lambda context: context.add_route("get", "/x", handler=lambda request: "x")
    ):
        assert (await site.client.get("/x")).text == "x"


async def test_names_that_frameworks_keep_for_themselves_are_free(site: Site) -> None:
    async def handler(query: str, state: int, headers: str, body: str, scope: str) -> Any:
        return [query, state, headers, body, scope]

    async with site.route("GET", "/x", handler) as client:
        params = {"query": "a", "state": "1", "headers": "b", "body": "c", "scope": "d"}
        assert (await client.get("/x", params=params)).json() == ["a", 1, "b", "c", "d"]


async def test_data_is_the_body_by_its_annotation(site: Site) -> None:
    async def typed(data: Item) -> Any:
        return data

    async def raw(data: bytes) -> Any:
        return len(data)

    async def untyped(data) -> Any:  # type: ignore[no-untyped-def]
        return data

    async def optional(data: Item | None = None) -> Any:
        return "none" if data is None else data.name

    async with site.plugin(
        lambda context: [
            context.add_route("POST", f"/{fn.__name__}", fn)
            for fn in (typed, raw, untyped, optional)
        ]
    ):
        post = site.client.post
        item = {"name": "x", "price": 2.0, "tags": ["a"]}
        assert (await post("/typed", json=item)).json() == item
        form = {"name": "x", "price": "2.0", "tags": ["a", "b"]}
        assert (await post("/typed", data=form)).json() == item | {"tags": ["a", "b"]}
        assert (await post("/raw", content=b"\0" * 70_000)).json() == 70_000
        assert (await post("/untyped", json=[1])).json() == [1]
        assert (await post("/optional")).text == "none"


async def test_bad_input_lists_every_fault_with_its_place(site: Site) -> None:
    async def handler(id: int, data: Item, q: int, r: str, n: float = 0) -> None: ...

    async with site.route("POST", "/x/{id}", handler) as client:
        answer = await client.post("/x/abc?q=one&n=two", json={"name": 1, "price": 2})
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        found = {(fault["in"], fault.get("name", "")) for fault in answer.json()["errors"]}
        assert found == {
            ("path", "id"),
            ("body", "name"),
            ("query", "q"),
            ("query", "r"),
            ("query", "n"),
        }
        for body in (b"{", b"", b"\xff", b'{"name":"\xff"}'):
            answer = await client.post("/x/1?q=1&r=2", content=body)
            assert answer.status_code == 400
            assert [fault["in"] for fault in answer.json()["errors"]] == ["body"]


async def test_a_body_over_the_limit_is_refused(site: Site) -> None:
    async def handler(data: bytes) -> int:
        return len(data)

    async with site.route("POST", "/x", handler) as client:
        answer = await client.post("/x", content=b"\0" * (10 * 1024 * 1024 + 1))
        assert answer.status_code == 413


async def test_an_http_error_is_an_answer_and_nobodys_fault(site: Site) -> None:
    def refuse(request: Request) -> None:
        raise HTTPError(429, "slow down", headers={"retry-after": "3"})

    async with site.plugin(lambda context: context.add_route("GET", "/x", refuse)) as record:
        answer = await site.client.get("/x")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert answer.json()["detail"] == "slow down"
        assert record.error_count == 0


def unresolved(data: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821


def opaque(data: Opaque) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("GET", "nowhere", print), "does not start with '/'"),
        (("FETCH", "/x", print), "'FETCH' is not an HTTP method"),
        (("GET", "/{a:what}", print), "converter 'what'"),
        (("GET", "/x"), "has no handler"),
        (("GET", "/x", "handler"), "cannot be called"),
        (("GET", "/x", lambda: None, lambda: None), "is not a middleware"),
        (("POST", "/x", unresolved), "'Nowhere', which cannot be resolved"),
        (("POST", "/x", opaque), "annotates 'data'"),
    ],
)
async def test_a_bad_route_fails_the_load_not_a_request(
    site: Site, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(VekoError, match=message) as caught:
        async with site.plugin(lambda context: context.add_route(*arguments)):
            pass
    assert isinstance(caught.value, (LoadError, RouteError))
    assert (await site.client.get("/x")).status_code == 404
