"""Bodies: decoding, faults and limits, and clients that disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import httpx
import msgspec
import pytest

from veko_plugins.http import MAX_BODY, HTTPError, Request, Upload

from ._site import Site
from ._wire import request, wire

pytestmark = pytest.mark.anyio

JSON = "content-type: application/json"
FORM = "content-type: application/x-www-form-urlencoded"
PARTS = "content-type: multipart/form-data; boundary=X"


class Item(msgspec.Struct):
    name: str
    price: float = 0


@dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str


def part(head: str, body: bytes = b"abc") -> bytes:
    return b"--X\r\n" + head.encode("latin-1") + b"\r\n\r\n" + body + b"\r\n"


END = b"--X--\r\n"
NAME = 'content-disposition: form-data; name="name"'


async def json(request: Request) -> Any:
    return await request.json()


async def form(request: Request) -> Any:
    found = await request.form()
    return {
        name: [
            [it.filename, it.content_type, len(it.data)] if isinstance(it, Upload) else it
            for it in found.getall(name)
        ]
        for name in found
    }


def item(data: Item) -> Any:
    return data


def point(data: Point) -> Any:
    return [data.x, data.y]


def named(data: Named) -> Any:
    return data


def numbers(data: list[int]) -> Any:
    return data


def untyped(data) -> Any:  # type: ignore[no-untyped-def]
    return data


def raw(data: bytes) -> Any:
    return len(data)


def text(data: str) -> Any:
    return data


def maybe(data: Annotated[Item, "an item"] | None) -> Any:
    return data


HANDLERS = (json, form, item, point, named, numbers, untyped, raw, text, maybe)


def load(context: Any) -> None:
    for handler in HANDLERS:
        context.add_route("POST", f"/{handler.__name__}", handler)


async def test_typed_data(site: Site) -> None:
    async with site.plugin(load):
        post = site.client.post
        assert (await post("/item", json={"name": "a"})).json() == {"name": "a", "price": 0}
        assert (await post("/point", json={"x": 1})).json() == [1, 0]
        assert (await post("/named", json={"name": "a"})).json() == {"name": "a"}
        assert (await post("/numbers", json=[1, 2])).json() == [1, 2]
        assert (await post("/untyped", json={"a": [None]})).json() == {"a": [None]}
        assert (await post("/point", data={"x": "1", "y": "2"})).json() == [1, 2]
        for body in (b'{"name": "a"}', b' \r\n{"name":"b","name":"a"}'):
            assert (await post("/named", content=body)).json() == {"name": "a"}
        patch = {"content-type": "application/merge-patch+json; charset=utf-8"}
        assert (await post("/named", content=b'{"name":"a"}', headers=patch)).status_code == 200
        wrong = await post("/point", json={"x": "1"})
        assert wrong.status_code == 400
        assert [(fault["in"], fault["name"]) for fault in wrong.json()["errors"]] == [("body", "x")]


async def test_forms(site: Site) -> None:
    async with site.plugin(load):
        post = site.client.post
        assert (await post("/form", data={"a": ["1", "é"], "b": ""})).json() == {
            "a": ["1", "é"],
            "b": [""],
        }
        files = {"file": ("../é.txt", b"\0" * 100_000, "text/plain")}
        assert (await post("/form", data={"a": "1"}, files=files)).json() == {
            "a": ["1"],
            "file": [["../é.txt", "text/plain", 100_000]],
        }
        assert (await post("/item", data={"name": "a", "price": "1.5"})).json()["price"] == 1.5
        assert (await post("/maybe", data={"name": "a"})).json()["name"] == "a"
        for path in ("/text", "/numbers"):  # fields are no text, and no list
            refused = await post(path, data={"a": "1"})
            assert refused.status_code == 415
            assert "a form cannot be read as" in refused.json()["detail"]
        # The media type counts, whatever its case and parameters.
        async with wire(site.url) as connection:
            loud = PARTS.replace("multipart/form-data", "Multipart/Form-Data")
            body = part(NAME) + END
            answer = await connection.ask(request("POST", "/item", loud, body=body))
            assert answer is not None
            assert answer.status == 200


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (JSON, b"[" * 100_000),
        (JSON, b"[" * 100_000 + b"]" * 100_000),
        (JSON, b'{"name":' * 50_000 + b"1" + b"}" * 50_000),
        (JSON, b"1" + b"0" * 5_000),
        (JSON, b"1e999999"),
        (JSON, b"NaN"),
        (JSON, b'{"name":"a","price":-Infinity}'),
        (JSON, b'{"name":"\\ud800"}'),
        (JSON, b'{"name":"\xff"}'),
        (JSON, b'{"name":"a\0"}'),
        (JSON, b'\xef\xbb\xbf{"name":"a"}'),
        (JSON, '{"name":"a"}'.encode("utf-16")),
        (JSON, b'{"name":"a"} x'),
        (JSON, b"{"),
        (JSON, b" "),
        (FORM, b"a=%ff"),
        (FORM, b"a=\xff"),
        (FORM, b"a=1&" * 2_000),
        ("content-type: multipart/form-data", part(NAME) + END),
        ("content-type: multipart/form-data; boundary=", part(NAME) + END),
        ("content-type: multipart/form-data; boundary=" + "X" * 5_000, part(NAME) + END),
        (PARTS, part(NAME) * 10_000 + END),
        (PARTS, part(NAME)),
        (PARTS, part(NAME)[:-6]),
        (PARTS, part(NAME)[:9]),
        (PARTS, b"--Y\r\n\r\n--Y--\r\n"),
        (PARTS, part("content-disposition: form-data") + END),
        (PARTS, part("x: y") + END),
        (PARTS, part(NAME, b"\xff") + END),
        (PARTS, part('content-disposition: form-data; name="\xff"') + END),
        (PARTS, part(NAME + "\r\nx: " + "a" * 100_000) + END),
        (PARTS, part(NAME + "\r\nx: a" * 5_000) + END),
    ],
    ids=range(32),
)
async def test_a_broken_body_is_the_clients_fault(site: Site, header: str, body: bytes) -> None:
    async with site.plugin(load) as record, wire(site.url) as connection:
        for handler in HANDLERS:
            answer = await connection.ask(
                request("POST", f"/{handler.__name__}", header, body=body)
            )
            assert answer is not None
            expected = {200} if handler is raw else {400, 415}
            assert (handler.__name__, answer.status in expected) == (handler.__name__, True)
        after = await connection.ask(request("POST", "/numbers", JSON, body=b"[1]"))
        assert after is not None
        assert (after.status, after.body) == (200, b"[1]")
        assert record.error_count == 0


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (JSON, b'{"name":"a","price":' + b"9" * 300 + b"}"),
        (JSON, b'{"name":"a","price":1e400}'),
        (JSON, b'{"name":"a","x":1e30,"y":' + b"9" * 400 + b"}"),
        (JSON, b'{"name":"' + b"a" * 1_000_000 + b'"}'),
        (JSON, b"null"),
        (JSON, b"[]"),
        (FORM, b"name=a;price=2&name[a][b]=1&&=&"),
        (FORM, b"name=%00%zz%"),
        (FORM + "; charset=nonsense", b"name=a"),
        (PARTS, END),
        (PARTS, part(NAME + "\r\ncontent-type: text/plain; charset=nonsense") + END),
        (PARTS, part(NAME + "\r\ncontent-transfer-encoding: base64") + END),
        (PARTS, part(NAME + '; filename="a\\"b"; filename*=x\'\'%zz') + END),
        (PARTS, part(NAME) + END + b"junk" * 1_000),
        ("content-type: \xff;;;=", b'{"name":"a"}'),
        ("content-encoding: gzip", b"\x1f\x8b"),
    ],
    ids=range(16),
)
async def test_an_odd_body_is_no_servers_fault(site: Site, header: str, body: bytes) -> None:
    async with site.plugin(load) as record, wire(site.url) as connection:
        for handler in HANDLERS:
            answer = await connection.ask(
                request("POST", f"/{handler.__name__}", header, body=body)
            )
            assert answer is not None
            assert (handler.__name__, answer.status < 500) == (handler.__name__, True)
        assert record.error_count == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "nonsense", "text/plain;a=json"])
async def test_another_media_type_is_refused_where_data_is_wanted(site: Site, kind: str) -> None:
    async with site.plugin(load):
        headers = {"content-type": kind}
        for path, status in (("/item", 415), ("/untyped", 415), ("/form", 415), ("/raw", 200)):
            answer = await site.client.post(path, content=b'{"name":"a"}', headers=headers)
            assert (path, answer.status_code) == (path, status)


@pytest.mark.parametrize("path", ["/raw", "/item", "/json", "/form", "/untyped"])
async def test_a_body_too_large_is_refused_before_it_is_there(site: Site, path: str) -> None:
    async with site.plugin(load) as record, wire(site.url) as connection:
        kind = FORM if path == "/form" else JSON
        await connection.send(request("POST", path, kind, f"content-length: {MAX_BODY + 1}"))
        answer = await connection.answer()
        assert answer is not None
        assert answer.status == 413
        assert answer.header("content-type") == "application/problem+json"
        assert record.error_count == 0


@pytest.mark.parametrize("path", ["/raw", "/item"])
async def test_a_body_too_large_that_is_not_announced(site: Site, path: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1_000_000 + 1):
            yield b"a" * 1_000_000

    async with site.plugin(load) as record:
        async with httpx.AsyncClient(base_url=site.url, trust_env=False) as client:
            answer = await client.post(path, content=endless())
        assert answer.status_code == 413
        assert record.error_count == 0
        assert (await site.client.post("/numbers", json=[1])).json() == [1]


async def test_a_body_may_be_read_as_it_comes(site: Site) -> None:
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def handler(request: Request) -> str:
        async for chunk in request.stream():
            came.put_nowait(chunk)
        return "read"

    async with site.route("POST", "/x", handler), wire(site.url) as connection:
        await connection.send(request("POST", "/x", "transfer-encoding: chunked"))
        async with asyncio.timeout(5):
            for text in (b"one", b"two"):
                await connection.send(b"3\r\n" + text + b"\r\n")
                assert await came.get() == text
        answer = await connection.ask(b"0\r\n\r\n")
        assert answer is not None
        assert answer.body == b"read"


@pytest.mark.parametrize("how", ["request", "data"])
async def test_a_client_that_goes_away_before_its_body_is_there(site: Site, how: str) -> None:
    errors: list[BaseException] = []
    begun, ended = asyncio.Event(), asyncio.Event()

    async def asking(request: Request) -> None:
        try:
            await request.body()
        except HTTPError as error:
            errors.append(error)
            raise

    def typed(data: list[int]) -> None:
        raise AssertionError("called without its data")

    def watched(context: Any) -> None:
        context.add_route("POST", "/x", asking if how == "request" else typed)
        context.hook("request:start", lambda request: begun.set())
        context.hook("request:end", lambda request, response: ended.set())

    async with site.plugin(watched) as record:
        async with wire(site.url) as connection:
            await connection.send(request("POST", "/x", JSON, "content-length: 100") + b"[1,")
            async with asyncio.timeout(5):
                await begun.wait()
        async with asyncio.timeout(5):
            await ended.wait()
        assert record.error_count == 0
    assert [getattr(error, "status", None) for error in errors] == [400] * (how == "request")
