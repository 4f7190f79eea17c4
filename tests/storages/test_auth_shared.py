"""The service `auth` of two workers that share a storage, on each of the servers."""

import asyncio
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager, Request
from veko_plugins.auth import Auth
from veko_plugins.http import HTTPError

pytestmark = pytest.mark.anyio
PASSWORD = "correct horse"
SETTINGS = {"hash_memory": 8, "hash_time": 1, "hash_lanes": 1}
SECONDS = 60.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "auth"
_numbers = itertools.count()


def load(context: Any) -> None:
    auth = context.use("auth")

    def me(request: Request) -> dict[str, str]:
        return {"name": request.state["user"].name}

    context.add_route("GET", "/me", auth.require(), me)


@asynccontextmanager
async def workers(root: Path, server: Any, **settings: Any) -> AsyncIterator[list[PluginManager]]:
    """Two workers of one application."""
    url = f"{server.url}?prefix=a{os.getpid()}_{next(_numbers)}"
    made = [
        PluginManager(
            root=root, auth=True, storage=url, auto_load=False, adapter="asgi",
            plugins={"auth": {**SETTINGS, **settings}},
        )
        for _ in range(2)
    ]  # fmt: skip
    async with made[0], made[1]:
        for manager in made:
            await manager.load_plugin({"name": "app", "version": "1", "load": load})
        yield made


def client_of(manager: PluginManager) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(manager.asgi), base_url="http://app.example"
    )


async def winners(*calls: Any) -> list[Any]:
    """What of several calls succeeds; the others are refused."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in done if isinstance(one, BaseException)} <= {HTTPError}, done
    return [one for one in done if not isinstance(one, BaseException)]


async def test_workers_agree(tmp_path: Path, server: Any) -> None:
    async with workers(tmp_path, server) as managers:
        here, there = (manager.use("auth") for manager in managers)
        one: Auth
        for number in range(5):
            name = f"joe{number}"
            calls = (one.register(name, PASSWORD) for one in (here, there, here, there))
            assert len(await winners(*calls)) == 1
            # What one has just done the other knows, although it is told some moments later.
            tokens = await here.login(name, PASSWORD)
            assert (await there.verify(tokens.access_token)).name == name
            second = await there.refresh(tokens.refresh_token)
            third = await here.refresh(second.refresh_token)
            assert (await there.verify(third.access_token)).name == name
            fourth = await there.refresh(third.refresh_token)
            calls = (one.refresh(fourth.refresh_token) for one in (here, there, here, there))
            won = await winners(*calls)
            assert len(won) == 1
            # All but one have used it again: the session has ended, for both.
            for one in (here, there):
                assert await ends(one, won[0].access_token)
            tokens = await there.login(name, PASSWORD)
            assert await here.logout(token=tokens.access_token) is not None
            assert await ends(there, tokens.access_token)


async def ends(auth: Auth, token: str) -> bool:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            await auth.verify(token)
        except HTTPError as error:
            return error.status == 401
        await asyncio.sleep(0.01)
    return False


async def test_workers_count_tries_together(tmp_path: Path, server: Any) -> None:
    async with workers(tmp_path, server, attempts=1) as managers:
        here, there = (manager.use("auth") for manager in managers)
        await here.register("joe", PASSWORD)
        calls = (one.login("joe", "wrong password") for one in (here, there) * 10)
        done = await asyncio.gather(*calls, return_exceptions=True)
        found = sorted(getattr(one, "status", 200) for one in done)
        assert found == [401] * 5 + [429] * 15


async def test_a_storage_that_is_gone_is_refused_and_comes_back(
    tmp_path: Path, own_server: Any
) -> None:
    async with workers(tmp_path, own_server) as managers, client_of(managers[0]) as client:
        auth = managers[0].use("auth")
        await auth.register("joe", PASSWORD)
        tokens = await auth.login("joe", PASSWORD)
        headers = {"authorization": f"Bearer {tokens.access_token}"}
        assert (await client.get("/me", headers=headers)).is_success
        own_server.kill()
        begin = time.monotonic()
        under_way = asyncio.gather(
            *(auth.login("joe", PASSWORD) for _ in range(20)), return_exceptions=True
        )
        while (answer := await client.get("/me", headers=headers)).is_success:
            assert time.monotonic() < begin + SECONDS
            await asyncio.sleep(0.05)
        # A session that another worker has ended would not be known.
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        refused = await asyncio.wait_for(under_way, SECONDS)
        assert {getattr(one, "status", 0) for one in refused} == {503}
        for call in (
            auth.login("joe", PASSWORD), auth.register("jane", PASSWORD),
            auth.refresh(tokens.refresh_token), auth.logout(token=tokens.access_token),
            auth.set_roles("joe", "admin"), auth.delete("joe"),
        ):  # fmt: skip
            with pytest.raises(HTTPError) as found:
                await call
            assert found.value.status == 503
        own_server.start()
        begin = time.monotonic()
        while not (await client.get("/me", headers=headers)).is_success:
            assert time.monotonic() < begin + SECONDS
            await asyncio.sleep(0.05)
        again = await auth.refresh(tokens.refresh_token)
        assert (await auth.verify(again.access_token)).roles == ()
        await auth.login("joe", PASSWORD)


async def test_a_registration_outlives_its_reservation(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko_plugins.auth.users._RESERVED", 0.3)
    async with workers(tmp_path, server) as managers:
        here, there = (manager.use("auth") for manager in managers)
        await here.register("joe", PASSWORD)
        storage = managers[1].use("storage").namespace("auth")
        # What expires after it is removed, in both; so the reservation would be gone as well.
        await storage.set("mark", True, ttl=0.6)
        end = time.monotonic() + SECONDS
        while "mark" in storage:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        for one in (here, there):
            await one.login("joe", PASSWORD)
            with pytest.raises(HTTPError, match="taken"):
                await one.register("joe", PASSWORD)
        # And a name whose registration was refused is free at once.
        subscription = managers[0].bus.on("auth:register", refuse)
        for _ in range(2):
            with pytest.raises(HTTPError, match="not now"):
                await here.register("jane", PASSWORD)
        subscription.cancel()
        await here.register("jane", PASSWORD)


def refuse(user: Any) -> None:
    raise HTTPError(403, "not now")


def test_P1_processes_of_one_application_agree(
    tmp_path: Path, server: Any, start: Callable[..., Any]
) -> None:
    """The example `auth` in `veko serve --workers 2`."""
    shutil.copytree(
        EXAMPLE, tmp_path / "plugins" / "auth", ignore=shutil.ignore_patterns("__pycache__")
    )
    url = f"{server.url}?prefix=a{os.getpid()}_{next(_numbers)}"
    settings = "".join(f"{name} = {value}\n" for name, value in SETTINGS.items())
    (tmp_path / "veko.toml").write_text(
        f'storage = "{url}"\nauth = true\nadapter = "asgi"\n[plugins.auth]\n{settings}'
        "attempts = 1000\n"
    )
    served = start("serve", tmp_path, "--port", "0", "--workers", "2")
    host = served.wait_for(r"Listening on (\S+?),? ")[1]

    def post(path: str, body: dict[str, str]) -> httpx.Response:
        return httpx.post(host + path, json=body, timeout=SECONDS)  # on a connection of its own

    with ThreadPoolExecutor(8) as threads:
        at_once = lambda path, body: list(threads.map(post, [path] * 8, [body] * 8))  # noqa: E731
        for number in range(2):
            joe = {"name": f"joe{number}", "password": PASSWORD}
            found = [answer.status_code for answer in at_once("/auth/register", joe)]
            assert sorted(found) == [200] + [409] * 7
            tokens = [answer.json() for answer in at_once("/auth/login", joe)]
            for one in tokens:
                headers = {"authorization": f"Bearer {one['access_token']}"}
                for _ in range(3):
                    me = httpx.get(f"{host}/api/protected/me", headers=headers, timeout=SECONDS)
                    assert me.json()["name"] == joe["name"]
            given = {"refresh_token": tokens[0]["refresh_token"]}
            refreshed = at_once("/auth/refresh", given)
            assert sorted(answer.status_code for answer in refreshed) == [200] + [401] * 7
    served.process.terminate()
    assert served.ends() == 0
