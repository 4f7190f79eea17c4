"""The events of `auth`: who hears what, and what a hook that raises does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import Request
from veko_plugins.auth import User
from veko_plugins.http import HTTPError

from .conftest import APP, JOE, PASSWORD, bearer, client_of, managed, signed_up

pytestmark = pytest.mark.anyio


def hooking(event: str, fn: Callable[..., Any], **more: Any) -> dict[str, Any]:
    def load(context: Any) -> None:
        context.hook(event, fn, **more)

    return {"name": "hooking", "version": "1.0.0", "load": load, "required": True}


async def test_H_auth_login_may_refuse(tmp_path: Path) -> None:
    heard: list[tuple[User, Request]] = []

    def ban(user: User, request: Request) -> None:
        heard.append((user, request))
        if len(heard) > 1:
            raise HTTPError(403, "banned until Monday")

    async with (
        managed(tmp_path, APP, hooking("auth:login", ban)) as manager,
        client_of(manager) as client,
    ):
        await signed_up(client)
        answer = await client.post("/login", json=JOE)
        assert (answer.status_code, answer.json()["detail"]) == (403, "banned until Monday")
        wrong = await client.post("/login", json={**JOE, "password": "wrong password"})
        assert wrong.status_code == 401
        assert len(heard) == 2  # not for a wrong password
        user, request = heard[0]
        assert (user.name, user.roles, request.path) == ("joe", (), "/login")
        assert PASSWORD not in repr(heard)
        assert manager.error_count("hooking") == 0  # a refusal is no failure


async def test_H_auth_register_may_refuse(tmp_path: Path) -> None:
    def only_company(user: User) -> None:
        if not user.name.endswith("@example.com"):
            raise HTTPError(403, "use the address of the company")

    async with (
        managed(tmp_path, APP, hooking("auth:register", only_company)) as manager,
        client_of(manager) as client,
    ):
        assert (await client.post("/register", json=JOE)).status_code == 403
        assert manager.use("auth").get("joe") is None
        assert (await client.post("/login", json=JOE)).status_code == 401
        again = {"name": "joe@example.com", "password": PASSWORD}
        assert (await client.post("/register", json=again)).is_success
        assert (await client.post("/register", json=again)).status_code == 409


async def test_H_auth_logout_once_for_a_session(tmp_path: Path) -> None:
    heard: list[tuple[User, Request]] = []

    def note(user: User, request: Request) -> None:
        heard.append((user, request))
        raise RuntimeError("the mail server is down")

    async with (
        managed(tmp_path, APP, hooking("auth:logout", note)) as manager,
        client_of(manager) as client,
    ):
        headers = bearer(await signed_up(client))
        assert (await client.get("/me", headers=headers)).json() == {"name": "joe"}
        assert (await client.post("/logout", headers=headers)).json() == {"name": "joe"}
        # The session has ended whatever its hooks do.
        assert (await client.get("/me", headers=headers)).status_code == 401
        assert (await client.post("/logout", headers=headers)).json() == {"name": None}
        assert [(user.name, request.path) for user, request in heard] == [("joe", "/logout")]


@pytest.mark.parametrize("event", ["auth:login", "auth:register"])
async def test_a_hook_that_fails_refuses(tmp_path: Path, event: str) -> None:
    broken: list[bool] = []

    def look(user: User) -> None:
        if broken:
            raise LookupError("the list of the banned is gone")

    async with (
        managed(tmp_path, APP, hooking(event, look)) as manager,
        client_of(manager) as client,
    ):
        await signed_up(client)
        broken.append(True)
        login = await client.post("/login", json=JOE)
        register = await client.post("/register", json={**JOE, "name": "jane"})
        answers = {"auth:login": login, "auth:register": register}
        refused = answers.pop(event)
        assert (refused.status_code, refused.json()["detail"]) == (403, "it was refused")
        assert all(answer.is_success for answer in answers.values())
        assert manager.error_count("hooking") == 1


async def test_a_hook_that_hangs_refuses(tmp_path: Path) -> None:
    async def hang(user: User) -> None:
        await asyncio.Event().wait()

    async with (
        managed(tmp_path, APP, hooking("auth:register", hang, timeout=0.05)) as manager,
        client_of(manager) as client,
    ):
        refused = await client.post("/register", json=JOE)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert manager.use("auth").get("joe") is None


async def test_a_hook_that_observes_refuses_nothing(tmp_path: Path) -> None:
    def fail(user: User) -> None:
        raise HTTPError(403, "no")

    async with (
        managed(tmp_path, APP, hooking("auth:login", fail, observe=True)) as manager,
        client_of(manager) as client,
    ):
        await signed_up(client)
