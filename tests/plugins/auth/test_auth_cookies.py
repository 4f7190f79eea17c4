"""Tokens in cookies, and requests that other sites' pages make with them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from .conftest import JOE, bearer, client_of, managed
from .test_auth_http import served

pytestmark = pytest.mark.anyio
COOKIES = {"cookies": True, "trusted_origins": ["https://partner.example/"]}
HERE = "http://app.example"


def jar_of(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for header in answer.headers.get_list("set-cookie"):
        found |= SimpleCookie(header)
    return found


@asynccontextmanager
async def browser(
    root: Path, adapter: str = "asgi", **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, dict[str, str], str]]:
    """A client, the header with joe's cookies, and his CSRF token."""
    async with (
        managed(root, adapter=adapter, settings={**COOKIES, **settings}) as manager,
        client_of(manager) as client,
    ):
        await manager.use("auth").register("joe", JOE["password"])
        answer = await client.post("/enter", json=JOE)
        client.cookies.clear()
        yield client, *cookies_of(answer)


def cookies_of(answer: httpx.Response) -> tuple[dict[str, str], str]:
    assert answer.is_success, answer.text
    pairs = {name: one.value for name, one in jar_of(answer).items() if one.value}
    return {"cookie": "; ".join(f"{k}={v}" for k, v in pairs.items())}, answer.json()["csrf"]


async def test_the_cookies_are_for_this_host_alone(tmp_path: Path, adapter: str) -> None:
    async with (
        managed(tmp_path, adapter=adapter, settings=COOKIES) as manager,
        client_of(manager) as client,
    ):
        await manager.use("auth").register("joe", JOE["password"])
        answer = await client.post("/enter", json=JOE)
        jar = jar_of(answer)
        assert set(jar) == {"__Host-veko_access", "__Host-veko_refresh", "__Host-veko_csrf"}
        for name, cookie in jar.items():
            assert cookie["secure"]
            assert cookie["samesite"] == "Lax"
            assert cookie["path"] == "/"
            assert not cookie["domain"]
            assert bool(cookie["httponly"]) == (name != "__Host-veko_csrf")
        assert jar["__Host-veko_access"]["max-age"] == "900"
        assert answer.headers["cache-control"] == "no-store"
        assert jar["__Host-veko_csrf"].value == answer.json()["csrf"]
        gone = jar_of(await client.post("/logout", headers=cookies_of(answer)[0]))
        assert {(name, one.value, one["max-age"]) for name, one in gone.items()} == {
            (name, "", "0") for name in jar
        }


async def test_reading_needs_the_cookie_and_changing_the_csrf_token_too(
    tmp_path: Path, adapter: str
) -> None:
    async with browser(tmp_path, adapter) as (client, cookies, csrf):
        assert (await client.get("/me", headers=cookies)).json() == {"name": "joe"}
        assert (await client.get("/greet", headers=cookies)).json() == {"name": "joe"}
        for wrong in ({}, {"x-csrf-token": ""}, {"x-csrf-token": csrf + "x"}):
            answer = await client.post("/me", headers={**cookies, **wrong})
            assert (answer.status_code, answer.json()["detail"]) == (
                403, "the CSRF token is missing or wrong",
            )  # fmt: skip
            greeted = await client.post("/greet", headers={**cookies, **wrong})
            assert greeted.json() == {"name": None}
        right = {**cookies, "x-csrf-token": csrf, "origin": HERE, "sec-fetch-site": "same-origin"}
        assert (await client.post("/me", headers=right)).json() == {"name": "joe"}
        form = await client.post("/me", headers=cookies, data={"csrf_token": csrf, "text": "hello"})
        assert form.json() == {"name": "joe"}
        several = {"csrf_token": (None, csrf.encode()), "file": ("a.txt", b"hello")}
        parts = await client.post("/me", headers=cookies, files=several)
        assert parts.json() == {"name": "joe"}
        upload = {"csrf_token": ("a.txt", csrf.encode())}
        assert (await client.post("/me", headers=cookies, files=upload)).status_code == 403
        assert (
            await client.post("/me", headers=cookies, data={"csrf_token": "x"})
        ).status_code == 403
        # Another session's token is not this one's.
        other = cookies_of(await client.post("/enter", json=JOE))[1]
        client.cookies.clear()
        crossed = {**cookies, "x-csrf-token": other}
        assert (await client.post("/me", headers=crossed)).status_code == 403


ELSEWHERE: dict[str, dict[str, str]] = {
    "another site": {"origin": "https://evil.example"},
    "a site that begins alike": {"origin": "http://app.example.evil.example"},
    "a site that ends alike": {"origin": "http://evil-app.example"},
    "another port": {"origin": "http://app.example:8080"},
    "no site": {"origin": "null"},
    "an empty origin": {"origin": ""},
    "a file": {"origin": "file://app.example"},
    "no valid origin": {"origin": "http://[app.example"},
    "no valid port": {"origin": "http://app.example:99999"},
    "a user in front": {"origin": "http://app.example@evil.example"},
    "the browser says so": {"sec-fetch-site": "cross-site"},
    "a neighbouring host": {"sec-fetch-site": "same-site"},
    "a new word": {"sec-fetch-site": "unheard-of"},
    "both": {"origin": HERE, "sec-fetch-site": "cross-site"},
}


@pytest.mark.parametrize("how", ELSEWHERE)
async def test_what_comes_from_elsewhere_is_refused(tmp_path: Path, how: str) -> None:
    async with browser(tmp_path) as (client, cookies, csrf):
        headers = {**cookies, "x-csrf-token": csrf, **ELSEWHERE[how]}
        answer = await client.post("/me", headers=headers)
        assert (answer.status_code, answer.json()["detail"]) == (
            403, "the request comes from another site",
        )  # fmt: skip
        # Nor can another site log its visitors in, out, or register them.
        for path in ("/login", "/enter", "/register", "/logout", "/refresh"):
            body = {"name": "jane", "password": "battery staple"}
            refused = await client.post(path, json=body, headers={**cookies, **ELSEWHERE[how]})
            assert refused.status_code == 403, path
        assert (await client.get("/me", headers={**cookies, **ELSEWHERE[how]})).is_success


@pytest.mark.parametrize("origin", [HERE, "HTTP://APP.EXAMPLE", "https://partner.example"])
async def test_what_comes_from_here_or_a_trusted_site_passes(tmp_path: Path, origin: str) -> None:
    async with browser(tmp_path) as (client, cookies, csrf):
        headers = {**cookies, "x-csrf-token": csrf, "origin": origin}
        assert (await client.post("/me", headers=headers)).is_success
        two = [*headers.items(), ("origin", "https://evil.example")]
        assert (await client.post("/me", headers=two)).status_code == 403


async def test_a_token_in_the_header_needs_no_more(tmp_path: Path) -> None:
    async with browser(tmp_path) as (client, cookies, _):
        tokens = (await client.post("/login", json=JOE)).json()
        headers = {**bearer(tokens), "origin": "https://evil.example"}
        assert (await client.post("/me", headers=headers)).is_success
        # A wrong one is not made good by the cookie.
        wrong = {**cookies, "authorization": "Bearer x"}
        assert (await client.get("/me", headers=wrong)).status_code == 401


async def test_a_cookie_is_nothing_unless_the_settings_say_so(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        await manager.use("auth").register("joe", JOE["password"])
        tokens = (await client.post("/login", json=JOE)).json()
        for name in ("veko_access", "__Host-veko_access"):
            headers = {"cookie": f"{name}={tokens['access_token']}"}
            assert (await client.get("/me", headers=headers)).status_code == 401
        assert (await client.post("/enter", json=JOE)).status_code == 500  # it would be of no use


async def test_a_refresh_takes_the_token_from_the_cookie(tmp_path: Path, adapter: str) -> None:
    async with browser(tmp_path, adapter) as (client, cookies, _):
        answer = await client.post("/refresh", headers=cookies)
        assert answer.is_success
        assert (await client.get("/me", headers=bearer(answer.json()))).is_success
        assert (await client.post("/refresh")).status_code == 401


async def test_a_plain_name_where_cookies_go_over_http(tmp_path: Path) -> None:
    async with browser(tmp_path, cookie_secure=False) as (client, cookies, _):
        assert "veko_access=" in cookies["cookie"]
        assert "__Host" not in cookies["cookie"]
        assert (await client.get("/me", headers=cookies)).is_success


async def test_a_websocket_from_elsewhere_is_refused(tmp_path: Path, adapter: str) -> None:
    async with (
        managed(tmp_path, adapter=adapter, settings=COOKIES) as manager,
        served(manager) as host,
    ):
        await manager.use("auth").register("joe", JOE["password"])
        async with httpx.AsyncClient(base_url=f"http://{host}") as client:
            cookies, _ = cookies_of(await client.post("/enter", json=JOE))
        url = f"ws://{host}/echo"
        for origin in ("https://evil.example", "null", None):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=cookies, origin=origin)
            assert refused.value.response.status_code == 403
        async with connect(url, additional_headers=cookies, origin=f"http://{host}") as peer:
            assert await peer.recv() == "joe"
