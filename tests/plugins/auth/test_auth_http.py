"""Login, tokens, guards: over HTTP, on each adapter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from veko_plugins import PluginManager

from .conftest import JOE, PASSWORD, bearer, client_of, managed, signed_up

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def served(manager: PluginManager) -> AsyncIterator[str]:
    """The host and port of a manager that is served over real sockets."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    http = manager.use("http")
    serving = asyncio.create_task(
        http.serve(
            port=0, stop=stop, started=lambda host, port: listening.set_result(f"{host}:{port}")
        )
    )
    try:
        yield await listening
    finally:
        stop.set()
        await serving


async def test_P1_login_me_refresh_logout(tmp_path: Path, adapter: str) -> None:
    async with (
        managed(tmp_path, adapter=adapter) as manager,
        served(manager) as host,
        httpx.AsyncClient(base_url=f"http://{host}") as client,
    ):
        tokens = await signed_up(client)
        assert tokens["token_type"] == "Bearer"
        assert tokens["expires_in"] == 900
        answer = await client.get("/me", headers=bearer(tokens))
        assert answer.json() == {"name": "joe"}
        assert answer.headers["cache-control"] == "no-store"
        again = await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert again.is_success
        assert again.json()["refresh_token"] != tokens["refresh_token"]
        assert (await client.get("/me", headers=bearer(again.json()))).is_success
        assert (await client.post("/logout", headers=bearer(again.json()))).is_success
        gone = await client.get("/me", headers=bearer(again.json()))
        assert (gone.status_code, gone.json()["detail"]) == (401, "the session has ended")


async def test_without_a_token_and_without_a_permission(tmp_path: Path, adapter: str) -> None:
    settings = {"roles": {"editor": ["posts:*"]}}
    async with (
        managed(tmp_path, adapter=adapter, settings=settings) as manager,
        client_of(manager) as client,
    ):
        headers, auth = bearer(await signed_up(client)), manager.use("auth")
        for method, path in (("GET", "/me"), ("POST", "/me"), ("GET", "/admin")):
            answer = await client.request(method, path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/admin", headers=headers)).status_code == 403
        assert (await client.get("/posts", headers=headers)).status_code == 403
        await auth.set_roles("joe", "editor")  # counts at once, with the same token
        assert (await client.get("/posts", headers=headers)).is_success
        assert (await client.get("/admin", headers=headers)).status_code == 403
        await auth.set_roles("joe", "admin", "editor")
        assert (await client.get("/admin", headers=headers)).is_success
        await auth.set_roles("joe")
        assert (await client.get("/admin", headers=headers)).status_code == 403
        # An open route greets who is logged in.
        assert (await client.get("/greet", headers=headers)).json() == {"name": "joe"}
        assert (await client.get("/greet")).json() == {"name": None}
        assert (await client.get("/greet", headers={"authorization": "Bearer x"})).json() == {
            "name": None
        }


async def test_a_browser_is_sent_to_the_login(tmp_path: Path, adapter: str) -> None:
    async with managed(tmp_path, adapter=adapter) as manager, client_of(manager) as client:
        answer = await client.get("/page", headers={"accept": "text/html,*/*"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/enter")
        assert (await client.get("/page")).status_code == 401  # a program gets an answer


async def test_a_websocket_is_guarded_and_closed_with_its_session(
    tmp_path: Path, adapter: str
) -> None:
    async with managed(tmp_path, adapter=adapter) as manager, served(manager) as host:
        async with httpx.AsyncClient(base_url=f"http://{host}") as client:
            headers = bearer(await signed_up(client))
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{host}/echo")
        assert refused.value.response.status_code == 401
        async with connect(f"ws://{host}/echo", additional_headers=headers) as peer:
            assert await peer.recv() == "joe"
            await peer.send("hello")
            assert await peer.recv() == "hello"
            await manager.use("auth").end_sessions("joe")
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(peer.recv(), 30)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                1008, "the session has ended",
            )  # fmt: skip


async def test_the_document_shows_what_is_guarded(tmp_path: Path, adapter: str) -> None:
    async with (
        managed(tmp_path, adapter=adapter, settings={"cookies": True}) as manager,
        client_of(manager) as client,
    ):
        document = (await client.get("/schema/openapi.json")).json()
        assert document["components"]["securitySchemes"] == {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-veko_access"},
        }
        paths = document["paths"]
        assert paths["/me"]["get"]["security"] == [{"bearer": []}, {"cookie": []}]
        assert paths["/me"]["post"]["security"] == [{"bearer": []}, {"cookie": []}]
        assert "security" not in paths["/login"]["post"]
        assert PASSWORD not in str(document)


async def test_a_reloaded_plugin_is_guarded_as_before(tmp_path: Path, adapter: str) -> None:
    async with managed(tmp_path, adapter=adapter) as manager, client_of(manager) as client:
        headers = bearer(await signed_up(client))
        await manager.reload_plugin("app")
        assert (await client.get("/me")).status_code == 401
        assert (await client.get("/me", headers=headers)).is_success


async def test_handlers_get_what_clients_send_wrong(tmp_path: Path, adapter: str) -> None:
    async with managed(tmp_path, adapter=adapter) as manager, client_of(manager) as client:
        for body in ({}, {"name": "joe"}, {"name": 1, "password": PASSWORD}, [], "joe"):
            answer = await client.post("/login", json=body)
            assert answer.status_code == 400
            assert PASSWORD not in answer.text
        for body in (
            {"name": "", "password": PASSWORD}, {"name": "a b", "password": PASSWORD},
            {"name": "joe", "password": "short"}, {"name": "joe.doe1", "password": "JOE.doe1"},
            {"name": "joe", "password": "p" * 1025}, {"name": "n" * 65, "password": PASSWORD},
        ):  # fmt: skip
            answer = await client.post("/register", json=body)
            assert answer.status_code == 400
            assert answer.json()["detail"]
        assert manager.use("auth").users() == []
        answer = await client.post("/register", json=JOE)
        assert answer.is_success
