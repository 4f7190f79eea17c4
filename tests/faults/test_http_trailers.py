"""Trailers (fields behind a chunked body) are no headers: nobody sees them, and all is bounded."""

import asyncio
from typing import Any

import pytest

from veko_adapters.conformance import Site, served
from veko_adapters.conformance._wire import Answer, Wire, request, wire
from veko_plugins.http import Adapter, Request, Response, find_adapter

pytestmark = pytest.mark.anyio

REFUSED = {400, 413, 431}
CHUNKED = "transfer-encoding: chunked"
PIECE = b"".join(b"x-%04d: %b\r\n" % (number, b"a" * 1_000) for number in range(64))
"""64 KB of trailers."""


@pytest.fixture(scope="module", params=["asgi", "litestar", "starlette"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return find_adapter(request.param)


async def with_trailers(connection: Wire, path: str, *trailers: bytes) -> Answer | None:
    """Send a chunked request whose trailers come in these pieces."""
    await connection.send(request("POST", path, CHUNKED) + b"3\r\nabc\r\n0\r\n")
    for piece in trailers:
        await connection.send(piece)
    return await connection.ask(b"\r\n")


def load(context: Any) -> None:
    context.add_middleware(guard)
    context.add_route("POST", "/secret", lambda: "the secret")
    context.add_route("POST", "/names", names)


async def guard(request: Request, call_next: Any) -> Response:
    """Let only the administrator in; the body is read first, as a check of a signature would."""
    await request.body()
    if request.path == "/secret" and request.headers.get("x-user") != "admin":
        return Response(status=403)
    answer: Response = await call_next(request)
    return answer


async def names(request: Request) -> list[str]:
    await request.body()
    return [*request.headers, *(name.decode() for name, _ in request.scope["headers"])]


async def test_a_trailer_gets_nobody_past_a_check_of_a_header(adapter: Adapter) -> None:
    async with served(adapter) as site, site.plugin(load), wire(site.url) as connection:
        answer = await with_trailers(connection, "/secret", b"x-user: admin\r\n")
        assert answer is None or answer.status in {403, *REFUSED}, answer


async def test_a_trailer_is_among_no_headers(adapter: Adapter) -> None:
    async with served(adapter) as site, site.plugin(load), wire(site.url) as connection:
        answer = await with_trailers(connection, "/names", b"x-late: 1\r\n")
        assert answer is None or answer.status in REFUSED or b"x-late" not in answer.body, answer


async def test_the_headers_of_an_asgi_application_do_not_grow(adapter: Adapter) -> None:
    """A mounted application reads the scope itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        late = any(name == b"x-late" for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 500 if late else 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with (
        served(adapter) as site,
        site.plugin(lambda context: context.add_routes(app, path="/app")),
        wire(site.url) as connection,
    ):
        answer = await with_trailers(connection, "/app", b"x-late: 1\r\n")
        assert answer is None or answer.status in {200, *REFUSED}, answer


@pytest.mark.parametrize(
    ("trailers", "what"),
    [
        ((PIECE,) * 16, "1 MB, where a head may have 64 KB"),
        ((b"x-n: 1\r\n" * 200,), "200, where a head may have 100"),
    ],
    ids=["large", "many"],
)
async def test_trailers_count_within_the_limits_of_the_head(
    adapter: Adapter, trailers: tuple[bytes, ...], what: str
) -> None:
    async with served(adapter) as site, site.plugin(load) as record:
        async with wire(site.url) as connection:
            answer = await with_trailers(connection, "/names", *trailers)
            assert answer is None or answer.status in REFUSED, f"{what}: {answer.status}"
        assert await works(site)
        assert record.error_count == 0


async def works(site: Site) -> bool:
    """Tell whether the server answers a request that follows."""
    async with asyncio.timeout(5):
        return (await site.client.post("/names", content=b"abc")).status_code == 200
