"""The example `auth`: through `veko serve` over real sockets, and each adapter."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import litestar
import pytest

from veko import LoadError
from veko_plugins import PluginManager, Request, Response

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "auth"
JOE = {"name": "joe", "password": "correct horse"}
QUICK = {"hash_memory": 8, "hash_time": 1, "hash_lanes": 1}

pytestmark = pytest.mark.anyio


def application(root: Path) -> Path:
    shutil.copytree(
        EXAMPLE, root / "plugins" / "auth", ignore=shutil.ignore_patterns("__pycache__")
    )
    settings = "".join(f"{name} = {value}\n" for name, value in QUICK.items())
    (root / "veko.toml").write_text(f"auth = true\n[plugins.auth]\n{settings}")
    return root


def test_P1_accounts_over_http(tmp_path: Path, start: Callable[..., Any]) -> None:
    served = start("serve", application(tmp_path), "--port", "0")
    url = served.wait_for(r"Listening on (\S+)")[1]
    with httpx.Client(base_url=url, timeout=30) as client:
        assert client.get("/api/protected/me").status_code == 401
        user = client.post("/auth/register", json=JOE).json()
        assert user["name"] == "joe"
        tokens = client.post("/auth/login", json=JOE).json()
        headers = {"authorization": f"Bearer {tokens['access_token']}"}
        for path in ("/auth/me", "/api/protected/me"):
            assert client.get(path, headers=headers).json() == user
        verified = client.post("/auth/verify", json={"token": tokens["access_token"]})
        assert verified.json() == {"valid": True, "user": user}
        for wrong in ("", "a.b.c", tokens["refresh_token"], tokens["access_token"][:-2] + "AA"):
            verified = client.post("/auth/verify", json={"token": wrong})
            assert verified.json() == {"valid": False, "user": None}
        old = {"refresh_token": tokens["refresh_token"]}
        again = client.post("/auth/refresh", json=old).json()
        headers = {"authorization": f"Bearer {again['access_token']}"}
        assert client.get("/api/protected/me", headers=headers).json() == user
        assert client.post("/auth/logout", headers=headers).status_code == 204
        assert client.get("/api/protected/me", headers=headers).status_code == 401
        assert client.post("/auth/refresh", json=old).status_code == 401
        assert client.post("/auth/login", json={**JOE, "password": "wrong"}).status_code == 401
    kept = tmp_path / ".veko"
    assert kept.joinpath("auth-keys.json").stat().st_mode & 0o077 == 0
    assert JOE["password"].encode() not in kept.joinpath("storage.db").read_bytes()
    served.process.terminate()
    assert served.ends() == 0
    assert JOE["password"] not in served.text
    assert tokens["access_token"] not in served.text


@pytest.mark.parametrize("adapter", ["asgi", "litestar", "starlette"])
async def test_P1_routes_of_other_plugins_are_guarded(tmp_path: Path, adapter: str) -> None:
    def load(context: Any) -> None:
        async def show(request: Request) -> dict[str, str]:
            return {"path": request.path}

        async def echo(socket: Any) -> None:
            await socket.send("hello")

        for path in (
            "/open", "/api/open", "/api/protected", "/api/protected/a", "/api/protected/{id}/b",
            "/{a}/{b}/c", "/files/{rest:path}", "/{rest:path}", "/api/protectedness",
        ):  # fmt: skip
            context.add_route("GET", path, show)
        context.add_route("POST", "/api/protected/a", show)
        context.add_websocket("/api/protected/echo", echo)

    other = {"name": "other", "version": "1", "load": load}
    manager = PluginManager(
        root=application(tmp_path), adapter=adapter, storage="memory:", max_retries=0
    )
    transport = httpx.ASGITransport(manager.asgi)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        await manager.load_plugin(other)  # after the guard
        await client.post("/auth/register", json=JOE)
        tokens = (await client.post("/auth/login", json=JOE)).json()
        headers = {"authorization": f"Bearer {tokens['access_token']}"}
        guarded = (
            "/api/protected", "/api/protected/a", "/api/protected/1/b", "/api/protected/c",
            "/api/protected/of/the/catch/all", "/api//protected/x/y/z", "/API/Protected/x/y/z",
            "/api/open/../protected/x/y", "/api/%70rotected/x/y/z",
        )  # fmt: skip
        for path in guarded:
            raw = httpx.URL("http://app").copy_with(raw_path=path.encode())
            assert (await client.get(raw)).status_code == 401, path
            assert (await client.get(raw, headers=headers)).is_success, path
        assert (await client.post("/api/protected/a")).status_code == 401
        assert (await client.head("/api/protected/a")).status_code == 401
        for path in (
            "/open",
            "/api/open",
            "/a/b/c",
            "/files/api/protected/x",
            "/api/protectedness",
        ):
            assert (await client.get(path)).is_success, path
        document = (await client.get("/schema/openapi.json")).json()
        assert document["paths"]["/api/protected/{id}/b"]["get"]["security"] == [{"bearer": []}]
        # Without the guard nothing is served: it is required.
        await manager.toggle_plugin("accounts", False)
        assert (await client.get("/api/protected/a")).status_code == 503
        assert (await client.get("/open")).status_code == 503


async def test_P1_registration_can_be_closed_and_permissions_be_asked_for(tmp_path: Path) -> None:
    root = application(tmp_path)
    with (root / "veko.toml").open("a") as file:
        file.write('[plugins.accounts]\nregistration = false\npermissions = ["staff"]\n')
    manager = PluginManager(root=root, adapter="asgi", storage="memory:", max_retries=0)
    transport = httpx.ASGITransport(manager.asgi)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.post("/auth/register", json=JOE)).status_code == 404
        auth = manager.use("auth")
        await auth.register("joe", JOE["password"])
        tokens = (await client.post("/auth/login", json=JOE)).json()
        headers = {"authorization": f"Bearer {tokens['access_token']}"}
        assert (await client.get("/api/protected/me", headers=headers)).status_code == 403
        await auth.set_roles("joe", "staff")
        assert (await client.get("/api/protected/me", headers=headers)).is_success


async def test_P1_without_auth_it_says_what_to_do(tmp_path: Path) -> None:
    root = application(tmp_path)
    (root / "veko.toml").write_text("")
    with pytest.raises(LoadError, match="auth = true"):
        await PluginManager(root=root, storage="memory:", max_retries=0).start()


@pytest.mark.parametrize("adapter", ["asgi", "litestar", "starlette"])
async def test_P1_mounted_applications_and_the_frameworks_own_handlers_are_guarded(
    tmp_path: Path, adapter: str
) -> None:
    async def application_of_another(scope: Any, receive: Any, send: Any) -> None:
        await Response("mounted")(scope, receive, send)

    @litestar.get("/own")
    async def own() -> str:
        return "own"

    def load(context: Any) -> None:
        context.add_routes(application_of_another, path="/")
        context.add_routes(application_of_another, path="/api/protected/mounted")
        if adapter == "litestar":
            context.add_routes(own, path="/api/protected")

    manager = PluginManager(
        root=application(tmp_path), adapter=adapter, storage="memory:", max_retries=0
    )
    transport = httpx.ASGITransport(manager.asgi)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        await manager.load_plugin({"name": "other", "version": "1", "load": load})
        await client.post("/auth/register", json=JOE)
        tokens = (await client.post("/auth/login", json=JOE)).json()
        headers = {"authorization": f"Bearer {tokens['access_token']}"}
        paths = ["/api/protected/mounted", "/api/protected/mounted/x", "/api/protected/other"]
        for path in [*paths, "/api/protected/own"]:
            for method in ("GET", "POST", "DELETE"):
                answer = await client.request(method, path)
                assert answer.status_code in {401, 405}, (method, path)
            assert (await client.get(path, headers=headers)).is_success, path
        assert (await client.get("/elsewhere")).text == "mounted"
