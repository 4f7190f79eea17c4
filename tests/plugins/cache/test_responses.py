"""The middleware `cached` on each HTTP adapter, after RFC 9111 and RFC 9110."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.middleware.gzip import GZipMiddleware
from websockets.asyncio.client import connect

from veko_plugins import Request, Response
from veko_plugins.cache.control import directives, is_current, lifetime
from veko_plugins.http import HTTPError

from .conftest import App, Start

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def client_of(app: App) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app.manager.asgi, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


class Site:
    """One route `/page`, whose handler counts its calls and answers as it is told."""

    def __init__(self, app: App, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client
        self.calls = 0
        self.headers: dict[str, str] = {}
        self.status = 200
        self.make: Callable[[Request], Any] | None = None

    async def page(self, request: Request) -> Any:
        self.calls += 1
        if self.make is not None:
            answer = self.make(request)
            return await answer if asyncio.iscoroutine(answer) else answer
        return Response({"call": self.calls}, self.status, self.headers)

    async def get(self, path: str = "/page", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(path, headers=named)


@pytest.fixture(params=["asgi", "starlette", "litestar"])
async def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Open = Callable[..., Any]


@pytest.fixture
async def site(start: Start, adapter: str) -> AsyncIterator[Open]:
    """`await site(60, public=True, …)`: the arguments of `cached`."""
    opened: list[Any] = []

    async def open_(*args: Any, url: str = "memory:", **kwargs: Any) -> Site:
        app = await start(url, adapter=adapter)
        made = client_of(app)
        found = Site(app, await made.__aenter__())
        opened.append(made)

        def load(context: Any) -> None:
            cached = context.cache.cached(*args, **kwargs)
            context.add_route("GET", "/page", cached, found.page)
            context.add_route(
                "GET", "/page/{name}", cached, lambda name, request: found.page(request)
            )
            context.add_route("POST", "/page", cached, lambda: {"done": True})

        await app.plugin("site", load)
        return found

    yield open_
    for made in opened:
        await made.__aexit__(None, None, None)


# -- hits


async def test_a_page_is_made_once_and_answers_with_its_age(site: Open) -> None:
    one = await site(60)
    first, second = await one.get(), await one.get()
    assert first.json() == second.json() == {"call": 1}
    assert first.headers["cache-status"] == "Veko; fwd=miss; stored"
    assert "age" not in first.headers
    assert second.headers["cache-status"].startswith("Veko; hit; ttl=")
    assert second.headers["age"] in {"0", "1", "2"}
    assert first.headers["content-type"] == second.headers["content-type"] == "application/json"
    assert second.headers["content-length"] == str(len(second.content))
    assert (await one.get("/page?a=1")).json() == {"call": 2}
    assert (await one.get("/page/x")).json() == {"call": 3}
    assert (await one.get(host="other")).json() == {"call": 4}
    assert (await one.get("/page?a=1")).json() == {"call": 2}


async def test_it_expires(site: Open) -> None:
    one = await site(0.05)
    async with asyncio.timeout(10):
        while (await one.get()).json() == {"call": 1}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_head_is_answered_by_what_get_has_stored(site: Open) -> None:
    one = await site(60)
    assert (await one.client.head("/page")).headers["cache-status"] == "Veko; fwd=method"
    await one.get()
    answer = await one.client.head("/page")
    assert answer.headers["cache-status"].startswith("Veko; hit")
    assert answer.content == b""
    assert answer.headers["content-length"] == str(len(b'{"call":2}'))
    assert one.calls == 2


# -- what is stored, and for how long


@pytest.mark.parametrize(
    ("headers", "stored"),
    [
        ({"cache-control": "no-store"}, False),
        ({"cache-control": "private"}, False),
        ({"cache-control": 'private="x-user"'}, False),
        ({"cache-control": "no-cache"}, False),
        ({"cache-control": "max-age=0"}, False),
        ({"cache-control": "max-age=60, s-maxage=0"}, False),
        ({"cache-control": "max-age=0, s-maxage=60"}, True),
        ({"cache-control": "max-age=soon"}, False),
        ({"cache-control": "max-age=-1"}, False),
        ({"cache-control": "MAX-AGE=60"}, True),
        ({"cache-control": 'max-age="60"'}, True),
        ({"cache-control": "public, something=else"}, True),
        ({"cache-control": '"no'}, False),
        ({"set-cookie": "a=b"}, False),
        ({"vary": "*"}, False),
        ({"expires": "0"}, False),
        ({"expires": formatdate(time.time() - 60, usegmt=True)}, False),
        ({"expires": formatdate(time.time() + 86_400, usegmt=True)}, True),
        ({"cache-control": "max-age=60", "expires": "0"}, True),
        ({"cache-control": "max-age=60", "age": "60"}, False),
        ({"content-range": "bytes 0-1/2"}, False),
    ],
    ids=lambda value: (
        ",".join(f"{k}:{v[:20]}" for k, v in value.items())
        if isinstance(value, dict) and "expires" not in value
        else None
    ),
)
async def test_what_a_response_says_decides(
    site: Open, headers: dict[str, str], stored: bool
) -> None:
    one = await site(60)
    one.headers = headers
    await one.get()
    assert (await one.get()).json() == {"call": 1 if stored else 2}


@pytest.mark.parametrize("status", [201, 204, 302, 307, 400, 401, 403, 404, 500, 503])
async def test_only_some_statuses_are_stored(site: Open, status: int) -> None:
    one = await site(60)
    one.status = status
    assert (await one.get()).status_code == (await one.get()).status_code == status
    assert one.calls == 2


async def test_other_statuses_if_asked_for(site: Open) -> None:
    one = await site(60, statuses=(200, 404))
    one.status = 404
    assert (await one.get()).json() == (await one.get()).json() == {"call": 1}


async def test_a_failure_is_not_stored_and_is_the_handlers(site: Open) -> None:
    one = await site(60)

    def fail(request: Request) -> None:
        raise HTTPError(418)

    one.make = fail
    assert [(await one.get()).status_code for _ in range(2)] == [418, 418]
    one.make = lambda request: 1 / 0
    assert (await one.get()).status_code == 500
    one.make = None
    assert (await one.get()).json() == {"call": 4}


async def test_a_stream_passes_unstored(site: Open) -> None:
    one = await site(60)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    one.make = lambda request: Response(chunks())
    assert [(await one.get()).text for _ in range(2)] == ["ab", "ab"]
    assert one.calls == 2


async def test_a_body_that_is_too_large_passes_unstored(start: Start) -> None:
    app = await start(settings={"max_value": 100})

    def load(context: Any) -> None:
        context.add_route("GET", "/big", context.cache.cached(60), lambda: "x" * 200)

    await app.plugin("site", load)
    async with client_of(app) as client:
        for _ in range(2):
            answer = await client.get("/big")
            assert answer.text == "x" * 200
            assert answer.headers["cache-status"] == "Veko; fwd=miss"


# -- who asks


@pytest.mark.parametrize(
    "header", ["authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"]
)
async def test_a_request_that_says_who_it_is_has_nothing_from_the_cache(
    site: Open, header: str
) -> None:
    one = await site(60)
    await one.get()
    assert [(await one.get(**{header: "me"})).json()["call"] for _ in range(2)] == [2, 3]
    assert (await one.get()).json() == {"call": 1}


@pytest.mark.parametrize("says", ["public", "s-maxage=60", "must-revalidate"])
async def test_unless_the_response_says_that_all_get_it(site: Open, says: str) -> None:
    one = await site(60)
    one.headers = {"cache-control": says}
    assert (await one.get(authorization="me")).json() == {"call": 1}
    assert (await one.get(authorization="you")).json() == {"call": 1}
    assert (await one.get()).json() == {"call": 1}


async def test_unless_the_middleware_is_public_or_varies_by_it(site: Open) -> None:
    public = await site(60, public=True)
    assert [(await public.get(cookie=c)).json()["call"] for c in "ab"] == [1, 1]
    public.headers = {"set-cookie": "a=b"}
    assert [(await public.get("/page?2")).json()["call"] for _ in "ab"] == [2, 3]


async def test_each_user_has_responses_of_their_own_if_it_varies(site: Open) -> None:
    one = await site(60, vary=["Authorization"])
    found = [(await one.get(authorization=who)).json()["call"] for who in "abab"]
    assert found == [1, 2, 1, 2]
    assert (await one.get(authorization="a")).headers["vary"] == "authorization"
    assert [(await one.get(cookie="c")).json()["call"] for _ in range(2)] == [3, 4]


async def test_cookies_are_stored_if_asked_for(site: Open) -> None:
    one = await site(60, cookies=True)
    one.headers = {"set-cookie": "a=b"}
    answers = []
    for _ in range(2):
        answers.append(await one.get())
        one.client.cookies.clear()
    assert [answer.headers["set-cookie"] for answer in answers] == ["a=b", "a=b"]
    assert one.calls == 1


# -- what a client asks for


async def test_a_client_may_want_it_fresh(site: Open) -> None:
    one = await site(60)
    await one.get()
    assert (await one.get(cache_control="no-cache")).json() == {"call": 2}
    assert (await one.get()).json() == {"call": 2}  # and all get that one
    assert (await one.get(pragma="no-cache")).json() == {"call": 3}
    assert (await one.get(cache_control="no-store")).json() == {"call": 4}
    assert (await one.get()).json() == {"call": 3}
    assert (await one.get(cache_control="max-age=50")).json() == {"call": 3}
    assert (await one.get(cache_control="min-fresh=100")).json() == {"call": 5}
    assert (await one.get(range="bytes=0-1")).json() == {"call": 6}
    assert (await one.get(cache_control="only-if-cached")).json() == {"call": 5}
    missing = await one.get("/page?other", cache_control="only-if-cached")
    assert missing.status_code == 504
    assert one.calls == 6


async def test_clients_do_not_decide_if_they_are_not_obeyed(site: Open) -> None:
    one = await site(60, obey=False)
    for control in ("", "no-cache", "no-store", "max-age=0"):
        assert (await one.get(cache_control=control)).json() == {"call": 1}


async def test_an_old_response_is_not_for_who_wants_a_young_one(site: Open) -> None:
    one = await site(600)
    one.headers = {"age": "100", "cache-control": "max-age=600"}
    await one.get()
    assert int((await one.get()).headers["age"]) >= 100
    assert (await one.get(cache_control="max-age=50")).json() == {"call": 2}


async def test_a_body_stores_nothing_for_those_who_send_none(site: Open) -> None:
    one = await site(60)

    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    one.make = echo
    for _ in range(2):
        answer = await one.client.request("GET", "/page", content=b"poison")
        assert (answer.text, answer.headers["cache-status"]) == ("poison", "Veko; fwd=bypass")
    assert (await one.get()).text == ""
    assert (await one.get(content_length="0")).headers["cache-status"].startswith("Veko; hit")
    assert (await one.client.request("GET", "/page", content=b"poison")).text == "poison"


async def test_a_websocket_passes_a_middleware_for_all(start: Start, adapter: str) -> None:
    app = await start(adapter=adapter)

    async def echo(socket: Any) -> None:
        async for message in socket:
            await socket.send(message)

    def load(context: Any) -> None:
        context.add_middleware(context.cache.cached(60))
        context.add_websocket("/echo", echo)

    await app.plugin("site", load)
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    served = asyncio.create_task(
        app.manager.use("http").serve(
            "127.0.0.1", 0, started=lambda host, port: listening.set_result(port), stop=stop
        )
    )
    async with connect(f"ws://127.0.0.1:{await listening}/echo") as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
    stop.set()
    await served


# -- Vary


async def test_vary_keeps_variants_apart(site: Open) -> None:
    one = await site(60)
    one.headers = {"vary": "Accept-Language, X-Theme"}

    async def call(**headers: str) -> int:
        found: int = (await one.get(**headers)).json()["call"]
        return found

    assert await call(accept_language="fr") == 1
    assert await call(accept_language="en") == 2
    assert await call(accept_language="fr") == 1
    assert await call(accept_language="en", x_theme="dark") == 3
    assert await call(accept_language="  en ") == 2
    assert await call() == 4
    assert await call(accept_language="") == 5
    assert await call() == 4


async def test_vary_of_the_middleware_is_added_to_the_response(site: Open) -> None:
    one = await site(60, vary=["Accept-Language"])
    one.headers = {"vary": "x-theme"}
    answers = [await one.get(accept_language=lang, x_theme="t") for lang in ("fr", "en", "fr")]
    assert [answer.json()["call"] for answer in answers] == [1, 2, 1]
    assert {answer.headers["vary"] for answer in answers} == {"x-theme, accept-language"}


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
async def test_it_works_inside_and_around_compression(start: Start, inside: bool) -> None:
    app = await start(adapter="starlette")
    calls = 0

    def page() -> str:
        nonlocal calls
        calls += 1
        return "tea " * 1_000

    def load(context: Any) -> None:
        pair = [partial(GZipMiddleware, minimum_size=100), context.cache.cached(60)]
        context.add_route("GET", "/page", *(pair[::-1] if inside else pair), page)

    await app.plugin("site", load)
    async with client_of(app) as client:
        for coding in ("gzip", "identity", "gzip", "identity"):
            answer = await client.get("/page", headers={"accept-encoding": coding})
            assert answer.text == "tea " * 1_000
            assert answer.headers.get("content-encoding", "identity") == coding
            assert "accept-encoding" in answer.headers["vary"].lower()
        held = {"accept-encoding": "gzip", "if-none-match": answer.headers["etag"]}
        assert (await client.get("/page", headers=held)).status_code in {200, 304}
    assert calls == (2 if inside else 1)


# -- conditions


async def test_a_client_that_has_it_gets_304(site: Open) -> None:
    one = await site(60, max_age=5)
    first = await one.get()
    etag = first.headers["etag"]
    assert etag.startswith('W/"')
    for sent in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        answer = await one.get(if_none_match=sent)
        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["etag"] == etag
        assert answer.headers["cache-control"] == "max-age=5"
        assert "content-length" not in answer.headers
        assert "content-type" not in answer.headers
    assert (await one.get(if_none_match='"x"')).status_code == 200
    fresh = await one.get(if_none_match=etag, cache_control="no-cache")
    assert fresh.status_code == 200  # it is another page now
    again = await one.get("/page?z", if_none_match=etag)
    assert again.status_code == 200
    assert one.calls == 3


async def test_a_miss_is_304_too_if_nothing_has_changed(site: Open) -> None:
    one = await site(60)
    one.make = lambda request: "the same"
    etag = (await one.get()).headers["etag"]
    answer = await one.get(if_none_match=etag, cache_control="no-cache")
    assert (answer.status_code, answer.content, one.calls) == (304, b"", 2)
    assert (await one.get()).text == "the same"


async def test_etag_and_last_modified_of_the_handler_count(site: Open) -> None:
    one = await site(60)
    one.headers = {"etag": '"mine"', "last-modified": "Sat, 28 Nov 2026 10:00:00 GMT"}
    await one.get()
    assert (await one.get(if_none_match='"mine"')).status_code == 304
    since = {
        "Sat, 28 Nov 2026 10:00:00 GMT": 304,
        "Sat, 28 Nov 2026 09:59:59 GMT": 200,
        "yesterday": 200,
    }
    for moment, status in since.items():
        assert (await one.get(if_modified_since=moment)).status_code == status
    both = await one.get(if_none_match='"other"', if_modified_since=next(iter(since)))
    assert both.status_code == 200
    assert one.calls == 1


# -- deleting


async def test_responses_are_deleted_by_path_and_tag(site: Open) -> None:
    one = await site(60, tags=lambda request: [f"name:{request.path_params.get('name')}"])
    cache = one.app.contexts["site"].cache
    paths = ["/page", "/page?q", "/page/a", "/page/b"]

    async def calls() -> list[int]:
        return [(await one.get(path)).json()["call"] for path in paths]

    assert await calls() == await calls() == [1, 2, 3, 4]
    await cache.clear(tags=["name:a"])
    assert await calls() == [1, 2, 5, 4]
    await cache.clear(path="/page/b")
    assert await calls() == [1, 2, 5, 6]
    await cache.clear(path="/pag")
    await cache.clear(path="/other")
    assert await calls() == [1, 2, 5, 6]
    await cache.clear(path="/page/")
    assert await calls() == [7, 8, 9, 10]
    await cache.clear(path="/")
    assert await calls() == [11, 12, 13, 14]
    await cache.clear()
    assert await calls() == [15, 16, 17, 18]


async def test_a_change_deletes_what_it_has_changed(site: Open) -> None:
    one = await site(60)
    await one.get()
    assert (await one.client.post("/page")).json() == {"done": True}
    assert (await one.get()).json() == {"call": 2}


async def test_code_that_was_changed_answers_at_once(start: Start, tmp_path: Path) -> None:
    source = (
        "name, version = 'page', '1'\n"
        "def load(context):\n"
        "    context.add_route('GET', '/page', context.cache.cached(60), lambda: {!r})\n"
    )
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plugins.joinpath("page.py").write_text(source.format("old"))
    app = await start(watch_mode=True, auto_load=True)
    reloaded = asyncio.Event()
    # Observers hear it after the hooks.
    app.manager.on("dev:hotreload", reloaded.set)
    async with client_of(app) as client:
        assert [(await client.get("/page")).text for _ in range(2)] == ["old", "old"]
        plugins.joinpath("page.py").write_text(source.format("new"))
        await asyncio.wait_for(reloaded.wait(), 30)
        assert (await client.get("/page")).text == "new"


# -- keys


async def test_a_key_of_ones_own(site: Open) -> None:
    def key(request: Request) -> str | None:
        if "skip" in request.query:
            return None
        return f"{request.path} {request.query.get('q')}"

    one = await site(60, key=key)
    paths = ["/page?q=1&utm=a", "/page?utm=b&q=1", "/page?q=2", "/page?skip=1", "/page?skip=1"]
    found = [(await one.get(path)).json()["call"] for path in paths]
    assert found == [1, 1, 2, 3, 4]
    assert (await one.get("/page?skip=1")).headers["cache-status"] == "Veko; fwd=bypass"


@pytest.mark.parametrize(
    "path",
    ["/page/%00", "/page/%0d%0a", "/page/%F0%9F%8D%B5", "/page/%ff", "/page/" + "x" * 5_000],
    ids=["nul", "line", "tea", "no-utf8", "long"],
)
async def test_odd_paths_are_cached_as_others(site: Open, path: str) -> None:
    one = await site(60)
    first, second = await one.get(path), await one.get(path)
    assert first.status_code == second.status_code
    if first.status_code == 200:
        assert first.json() == second.json() == {"call": 1}


# -- all routes


async def test_for_all_routes_with_its_hooks_still_running(start: Start, adapter: str) -> None:
    app = await start(adapter=adapter)
    calls: list[str] = []

    def load(context: Any) -> None:
        context.add_middleware(context.cache.cached(60), priority=50)
        context.hook("request:start", lambda request: calls.append(f"start {request.path}"))

    def routes(context: Any) -> None:
        def page(name: str) -> dict[str, str]:
            calls.append(name)
            return {"name": name}

        context.add_route("GET", "/x/{name}", page)
        context.add_route("PUT", "/x/{name}", lambda name: {"put": name})
        context.add_route("PATCH", "/x/{name}", lambda name: Response("no", 409))

    await app.plugin("front", load)
    await app.plugin("pages", routes)
    async with client_of(app) as client:
        for _ in range(2):
            assert (await client.get("/x/a")).json() == {"name": "a"}
        assert calls == ["start /x/a", "a", "start /x/a"]
        assert (await client.get("/nothing")).status_code == 404
        await client.patch("/x/a")
        await client.get("/x/a")
        assert calls.count("a") == 1
        await client.put("/x/a")
        await client.get("/x/a")
        assert calls.count("a") == 2
        await app.manager.unload_plugin("front")
        await client.get("/x/a")
        assert calls.count("a") == 3


# -- together


async def test_a_thousand_requests_at_once_run_the_handler_once(site: Open, url: str) -> None:
    one = await site(60, url=url)
    go_on = asyncio.Event()

    async def slow(request: Request) -> dict[str, int]:
        await go_on.wait()
        return {"call": one.calls}

    one.make = slow
    tasks = [asyncio.create_task(one.get()) for _ in range(1_000)]
    async with asyncio.timeout(60):
        while not one.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        go_on.set()
        answers = await asyncio.gather(*tasks)
    assert one.calls == 1
    assert {answer.text for answer in answers} == {'{"call":1}'}
    assert {answer.status_code for answer in answers} == {200}


async def test_what_is_not_stored_is_not_made_one_at_a_time(site: Open) -> None:
    one = await site(60)
    running, most = 0, 0

    async def private(request: Request) -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return Response("mine", headers={"cache-control": "private"})

    one.make = private
    answers = await asyncio.gather(*(one.get() for _ in range(20)))
    assert {answer.text for answer in answers} == {"mine"}
    assert one.calls == 20
    assert most == 19  # all but the first, which the others waited for
    most = 0
    await asyncio.gather(*(one.get() for _ in range(20)))
    assert most == 20


async def test_variants_that_are_asked_for_at_once_are_not_mixed_up(site: Open) -> None:
    one = await site(60)

    async def page(request: Request) -> Response:
        await asyncio.sleep(0.01)
        text = request.headers.get("accept-language", "")
        return Response(text, headers={"vary": "accept-language"})

    one.make = page
    languages = ["fr", "en", "de"] * 20
    answers = await asyncio.gather(*(one.get(accept_language=lang) for lang in languages))
    assert [answer.text for answer in answers] == languages


async def test_a_failure_for_one_is_not_that_of_the_others(site: Open) -> None:
    one = await site(60)
    failed = 0

    async def flaky(request: Request) -> str:
        nonlocal failed
        await asyncio.sleep(0.01)
        if not failed:
            failed += 1
            raise ValueError("once")
        return "fine"

    one.make = flaky
    answers = await asyncio.gather(*(one.get() for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [500]


async def test_a_client_that_leaves_holds_nobody_up(site: Open) -> None:
    one = await site(60)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> str:
        began.set()
        await go_on.wait()
        return "fine"

    one.make = slow
    first = asyncio.create_task(one.get())
    await began.wait()
    others = [asyncio.create_task(one.get()) for _ in range(5)]
    await asyncio.sleep(0.01)
    first.cancel()
    go_on.set()
    async with asyncio.timeout(10):
        assert {answer.text for answer in await asyncio.gather(*others)} == {"fine"}
    await asyncio.gather(first, return_exceptions=True)


# -- outages


async def test_a_redis_that_dies_in_the_middle_of_a_request(
    site: Open, own_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one = await site(60, url=own_redis.url)
    assert (await one.get()).json() == (await one.get()).json() == {"call": 1}

    def die(request: Request) -> str:
        own_redis.kill()
        return "answered"

    one.make = die
    assert (await one.get("/page?die")).text == "answered"
    one.make = None
    answers = await asyncio.gather(*(one.get() for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len([r for r in caplog.records if "is not reached" in r.getMessage()]) == 1
    own_redis.start()
    cache = one.app.contexts["site"].cache
    async with asyncio.timeout(30):
        while not cache.reached:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await one.get()).json() == {"call": 1}


# -- the rules themselves


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("max-age=5,private", {"max-age": "5", "private": ""}),
        (' No-Cache="a, b" , x=1', {"no-cache": "a, b", "x": "1"}),
        ("max-age=1, max-age=2", {"max-age": "1"}),
        ("a b", {"no-store": ""}),
        ('a="b', {"no-store": ""}),
        (",,", {}),
        ("=1", {"no-store": ""}),
    ],
)
def test_directives(text: str, found: dict[str, str]) -> None:
    parsed = directives([text])
    if "no-store" in found:
        assert "no-store" in parsed
    else:
        assert parsed == found


def test_a_hostile_header_is_parsed_in_time() -> None:
    began = time.perf_counter()
    for text in ("a" * 50_000, 'a="' * 20_000, "," * 50_000, 'a="\\' * 20_000, " " * 50_000):
        directives([text])
        is_current('"x"', None, [text], None)
    assert time.perf_counter() - began < 5


def test_a_lifetime_is_bounded() -> None:
    assert lifetime({"max-age": "9" * 30}, [], None, 0.0, 1.0) == 2**31
    assert (
        lifetime({}, ["Sat, 28 Nov 2026 10:00:10 GMT"], "Sat, 28 Nov 2026 10:00:00 GMT", 0, 1) == 10
    )
