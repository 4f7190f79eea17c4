"""Requests, responses and headers, without a server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko import RouteError
from veko_plugins.http import Headers, HTTPError, Request, Response, Route


def request(
    *messages: dict[str, Any], headers: dict[str, str] | None = None, **scope: Any
) -> Request:
    """Make a request whose body comes in the messages given."""
    pending = list(messages)

    async def receive() -> dict[str, Any]:
        return pending.pop(0)

    raw = [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()]
    whole = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": raw}
    return Request(whole | scope, receive)


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def sent(response: Response, method: str = "GET") -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError

    await response({"type": "http", "method": method}, receive, send)
    return messages


# -- requests


def test_what_a_request_tells() -> None:
    asked = request(
        method="POST",
        path="/a b",
        query_string=b"x=1&x=2&e=&u=%C3%A9",
        headers={"Host": "example.org:81", "Cookie": 'a=1; b="2 3"; =x; c', "X-Y": "z"},
        client=["10.0.0.1", 99],
        scheme="https",
        path_params={"id": 3},
    )
    assert (asked.method, asked.path) == ("POST", "/a b")
    assert asked.url == "https://example.org:81/a%20b?x=1&x=2&e=&u=%C3%A9"
    assert dict(asked.query) == {"x": "2", "e": "", "u": "é"}
    assert asked.query.getall("x") == ["1", "2"]
    assert asked.cookies == {"a": "1", "b": "2 3"}
    assert asked.client is not None
    assert (asked.client.host, asked.client.port) == ("10.0.0.1", 99)
    assert asked.headers["x-y"] == asked.headers["X-Y"] == "z"
    assert asked.path_params == {"id": 3}
    asked.state["seen"] = True
    assert asked.state == {"seen": True}
    assert asked.route is None


def test_a_request_knows_no_other_names() -> None:
    with pytest.raises(AttributeError, match="'heders'"):
        _ = request().heders


def test_a_host_that_is_no_host_does_not_get_into_the_url() -> None:
    asked = request(headers={"host": "evil/@x"}, server=("10.0.0.2", 80))
    assert asked.url == "http://10.0.0.2:80/"


def test_the_path_is_below_the_mount() -> None:
    assert request(path="/app/x", root_path="/app").path == "/x"
    assert request(path="/app", root_path="/app").path == "/"
    assert request(path="/application", root_path="/app").path == "/application"


@pytest.mark.anyio
async def test_a_body_is_read_once_for_all() -> None:
    asked = request(body(b'{"a"', more=True), body(b":1}"))
    assert await asked.body() == b'{"a":1}'
    assert await asked.json() == {"a": 1}
    assert [chunk async for chunk in asked.stream()] == [b'{"a":1}']
    assert await asked.receive() == body(b'{"a":1}')


@pytest.mark.anyio
async def test_a_body_that_was_streamed_is_gone_and_says_so() -> None:
    asked = request(body(b"a", more=True), body(b"b"))
    assert [chunk async for chunk in asked.stream()] == [b"a", b"b"]
    with pytest.raises(RouteError, match="streamed before"):
        await asked.body()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(headers={"content-length": "9"}, **{"veko.max_body": 8}), 413),
        (request(body(b"12345", more=True), body(b"6789"), **{"veko.max_body": 8}), 413),
        (request({"type": "http.disconnect"}), 400),
        (request(body(b"{")), 400),
        (request(body(b"\xff")), 400),
    ],
)
async def test_a_body_that_cannot_be_had(asked: Request, status: int) -> None:
    with pytest.raises(HTTPError) as caught:
        await asked.json()
    assert caught.value.status == status


@pytest.mark.anyio
async def test_forms() -> None:
    plain = request(
        body(b"a=1&a=2&b=%C3%A9"), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    form = await plain.form()
    assert (form["a"], form.getall("a"), form["b"]) == ("2", ["1", "2"], "é")

    parts = (
        b'--X\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
        b"Content-Type: image/png\r\n\r\n\x00\x01\r\n--X--\r\n"
    )
    multipart = request(body(parts), headers={"content-type": "multipart/form-data; boundary=X"})
    form = await multipart.form()
    assert form["note"] == "hello"
    upload: Any = form["file"]
    assert (upload.filename, upload.content_type, upload.data) == ("a.bin", "image/png", b"\0\1")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content_type", "data", "status"),
    [
        ("application/json", b"{}", 415),
        ("", b"", 415),
        ("multipart/form-data", b"--X--", 400),
        ("multipart/form-data; boundary=X", b"--X\r\nContent-Disp", 400),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1_001), 400),
    ],
)
async def test_what_is_no_form(content_type: str, data: bytes, status: int) -> None:
    asked = request(body(data), headers={"content-type": content_type})
    with pytest.raises(HTTPError) as caught:
        await asked.form()
    assert caught.value.status == status


def test_a_route_is_frozen_and_can_be_replaced() -> None:
    route = Route("GET", "/a", print)
    with pytest.raises(AttributeError):
        route.path = "/b"  # type: ignore[misc]
    assert msgspec.structs.replace(route, path="/b").path == "/b"


# -- responses


class Model:
    def model_dump(self, mode: str) -> dict[str, str]:
        return {"mode": mode}


@pytest.mark.parametrize(
    ("content", "data", "media_type"),
    [
        ("é", "é".encode(), "text/plain"),
        (b"\0", b"\0", "application/octet-stream"),
        ({"a": [1, None]}, b'{"a":[1,null]}', "application/json"),
        ([], b"[]", "application/json"),
        (0, b"0", "application/json"),
        (Path("a/b"), b'"a/b"', "application/json"),
        (Model(), b'{"mode":"json"}', "application/json"),
        (None, b"", None),
    ],
)
def test_what_a_response_makes_of_its_content(
    content: object, data: bytes, media_type: str | None
) -> None:
    response = Response(content)
    assert (response.body, response.media_type, response.status) == (data, media_type, 200)


def test_the_media_type_given_wins() -> None:
    page = Response("<p>", media_type="text/html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert Response({}, media_type="application/ld+json").media_type == "application/ld+json"
    assert Response("x", headers={"Content-Type": "text/css"}).media_type == "text/css"


def test_what_a_handler_may_return() -> None:
    assert Response.of(None).status == 204
    response = Response(status=201)
    assert Response.of(response) is response
    with pytest.raises(RouteError, match="object cannot be encoded"):
        Response.of(object())


@pytest.mark.anyio
async def test_the_length_is_that_of_the_body_that_is_sent() -> None:
    response = Response("ab")
    response.body = b"abc"
    start, content = await sent(response)
    assert (b"content-length", b"3") in start["headers"]
    assert content["body"] == b"abc"
    start, content = await sent(response, "HEAD")
    assert (b"content-length", b"3") in start["headers"]
    assert content["body"] == b""
    start, _ = await sent(Response.of(None))
    assert start["headers"] == []


@pytest.mark.anyio
async def test_a_stream_is_sent_chunk_by_chunk() -> None:
    async def chunks() -> Any:
        yield "a"
        yield b"b"

    messages = await sent(Response(chunks()))
    assert [m.get("body") for m in messages] == [None, b"a", b"b", b""]
    assert [m.get("more_body", False) for m in messages] == [False, True, True, False]


# -- headers


SET: list[Callable[[Headers, str, str], object]] = [
    lambda headers, name, value: headers.__setitem__(name, value),
    lambda headers, name, value: headers.add(name, value),
    lambda headers, name, value: Response(headers={name: value}),
]


@pytest.mark.parametrize("put", SET)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\nset-cookie: b"),
        ("x", "a\nb"),
        ("x", "a\0"),
        ("x\r\ny", "a"),
        ("x y", "a"),
        ("x:", "a"),
        ("", "a"),
        ("é", "a"),
        ("x", "☃"),
    ],
)
def test_no_header_begins_another(put: Callable, name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        put(Headers(), name, value)


def test_a_header_that_is_no_text_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"'x-count' must be text, got 5; use str"):
        Response(headers={"x-count": 5})  # type: ignore[dict-item]


def test_a_media_type_begins_no_header() -> None:
    with pytest.raises(ValueError, match="control character"):
        Response("", media_type="text/html\r\nx: y")


@given(st.text(), st.text())
def test_a_header_is_refused_or_clean(name: str, value: str) -> None:
    headers = Headers()
    try:
        headers.add(name, value)
    except ValueError:
        return
    for part in headers.raw[0]:
        assert not set(part) & {0, 10, 13}


def test_headers_are_a_mapping_whatever_the_case() -> None:
    headers = Headers.of([("Set-Cookie", "a=1"), ("X-A", "1")])
    headers.add("set-cookie", "b=2")
    assert headers["SET-COOKIE"] == "a=1"
    assert headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert dict(headers) == {"set-cookie": "a=1", "x-a": "1"}
    headers["set-cookie"] = "c=3"
    del headers["x-A"]
    assert headers.raw == [(b"set-cookie", b"c=3")]
    with pytest.raises(KeyError):
        headers.pop("x-a")


def test_a_cookie_is_set_with_safe_defaults_and_kept_beside_others() -> None:
    response = Response("x")
    response.set_cookie("session", "abc")
    response.set_cookie("seen", "1", max_age=60, path="/a", domain="example.com", httponly=False)
    response.set_cookie("old", "", max_age=0, secure=False, samesite="strict")
    response.set_cookie("everywhere", "1", samesite="none")
    assert response.headers.getall("set-cookie") == [
        "session=abc; Path=/; Secure; HttpOnly; SameSite=Lax",
        "seen=1; Max-Age=60; Path=/a; Domain=example.com; Secure; SameSite=Lax",
        "old=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict",
        "everywhere=1; Path=/; Secure; HttpOnly; SameSite=None",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "a=b"},
        {"value": "a;b"},
        {"value": 'a"b'},
        {"value": "a b"},
        {"value": "a\r\nx: y"},
        {"value": "é"},
        {"path": "/;Domain=evil.example"},
        {"domain": "a\nb"},
        {"samesite": "sometimes"},
        {"samesite": "none", "secure": False},
    ],
)
def test_a_cookie_that_could_be_read_otherwise_is_refused(arguments: dict[str, Any]) -> None:
    response = Response("x")
    with pytest.raises(ValueError, match=r"cookie|samesite"):
        response.set_cookie(**{"name": "session", "value": "secret", **arguments})
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("value", ["", "abc", "a.b-c_d/e+f=", "%20", "!#$&'()*"])
def test_a_cookie_comes_back_as_it_was_set(value: str) -> None:
    response = Response("x")
    response.set_cookie("a", value)
    sent = response.headers["set-cookie"].partition(";")[0]

    assert request(headers={"cookie": sent}).cookies == {"a": value}
