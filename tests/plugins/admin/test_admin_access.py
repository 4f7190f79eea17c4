"""Who may ask over HTTP: tokens, roles, hosts, origins, cookies, and what the audit log says."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.plugins.admin.conftest import TOKEN, VIEWER, Home, http_client

from veko.errors import ConfigError, OptionError
from veko_plugins import PluginManager
from veko_plugins.admin import COOKIE, TOKEN_FILE, Access, AdminConfig, Caller, admin_token
from veko_plugins.admin.audit import Audit
from veko_plugins.admin.tokens import made_token

pytestmark = pytest.mark.anyio
WRONG = (
    None, "", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), VIEWER[::-1], "Bearer", "ä" * 20,
)  # fmt: skip


async def test_wrong_and_missing_tokens_are_refused_everywhere(manager: PluginManager) -> None:
    paths = ("status", "plugins/shop", "nothing", "openapi.json", "stream", "changes")
    for token in WRONG:
        headers = {} if token is None else {"authorization": f"Bearer {token}".encode("latin-1")}
        async with http_client(manager, None) as http:
            for path in paths:
                answer = await http.get(path, headers=headers)
                assert answer.status_code == 401, (token, path)
                assert answer.headers["www-authenticate"].startswith("Bearer")
            answer = await http.post("plugins/cart/toggle", headers=headers, json={})
            assert answer.status_code == 401
    async with http_client(manager, None) as http:
        for value in (TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", f"Bearer {TOKEN} x"):
            answer = await http.get("status", headers={"authorization": value})
            assert answer.status_code == 401
        assert (await http.get(f"status?token={TOKEN}")).status_code == 401


async def test_the_role_look_looks_and_changes_nothing(manager: PluginManager) -> None:
    async with http_client(manager, VIEWER) as http:
        assert (await http.get("status")).json()["role"] == "look"
        assert (await http.get("plugins/shop/config")).status_code == 200
        changes: tuple[tuple[str, str, Any], ...] = (
            ("POST", "plugins/cart/toggle", {}),
            ("POST", "plugins/cart/toggle?plan=1", {}),
            ("POST", "plugins/cart/unload", {}),
            ("POST", "plugins/cart/reload", None),
            ("POST", "plugins", {"plugin": "cart"}),
            ("PATCH", "plugins/shop/config", {"size": 3}),
            ("PUT", "plugins/shop/config", {"size": 3}),
            ("DELETE", "plugins/shop/config/size", None),
            ("POST", "commands/restock", {"args": [1]}),
            ("POST", "backups", None),
            ("POST", "backups/x/restore", None),
            ("POST", "changes/x/undo", None),
            ("POST", "changes", {"verb": "reload", "plugin": "cart"}),
        )
        for method, path, body in changes:
            answer = await http.request(method, path, json=body)
            assert (path, answer.status_code) == (path, 403)
            assert "operate" in answer.json()["remedy"]
    assert manager.list_plugins()[1].active


async def test_a_foreign_host_is_refused_even_with_the_token(manager: PluginManager) -> None:
    async with http_client(manager) as http:
        for host in (
            "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
            "localhost@evil.example", "[::2]", "0.0.0.0", "", "localhost:8000:1", "10.0.0.1",
        ):  # fmt: skip
            answer = await http.get("status", headers={"host": host})
            assert (host, answer.status_code) == (host, 403)
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "localhost."):
            assert (await http.get("status", headers={"host": host})).status_code == 200, host


async def test_cross_site_requests_are_refused(manager: PluginManager) -> None:
    refused: tuple[dict[str, str], ...] = (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "localhost"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
    )
    async with http_client(manager) as http:
        for headers in refused:
            for method in ("GET", "POST"):
                path = "status" if method == "GET" else "plugins/cart/reload"
                answer = await http.request(method, path, headers=headers)
                assert answer.status_code == 403, headers
                assert "access-control-allow-origin" not in answer.headers
        allowed: tuple[dict[str, str], ...] = (
            {"origin": "http://localhost"},
            {"sec-fetch-site": "same-origin"},
            {"sec-fetch-site": "none"},
        )
        for headers in allowed:
            assert (await http.get("status", headers=headers)).status_code == 200


async def test_a_body_that_a_form_can_send_is_refused(manager: PluginManager) -> None:
    async with http_client(manager) as http:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            answer = await http.post(
                "plugins/cart/toggle", content=b'{"active": false}', headers={"content-type": kind}
            )
            assert answer.status_code == 415, kind


async def test_hosts_and_origins_can_be_allowed(home: Home) -> None:
    section = {"allow_hosts": ["ops.example.com"], "origins": ["https://desk.example.com"]}
    manager = home.manager(plugins={"admin": {"token": TOKEN, **section}})
    async with manager, http_client(manager) as http:
        host = {"host": "ops.example.com"}
        assert (await http.get("status", headers=host)).status_code == 200
        origin = {**host, "origin": "https://desk.example.com", "sec-fetch-site": "cross-site"}
        assert (await http.get("status", headers=origin)).status_code == 200
        origin["origin"] = "https://desk.example.com.evil"
        assert (await http.get("status", headers=origin)).status_code == 403


async def test_others_than_this_machine_need_a_token_of_the_configuration(home: Home) -> None:
    async with home.manager(plugins={"admin": {}}) as manager:
        token = admin_token(home.root)
        async with http_client(manager, token) as http:
            assert (await http.get("status")).status_code == 200
        for client in (("192.0.2.7", 1), ("::ffff:192.0.2.7", 1), None):
            async with http_client(manager, token, client=client) as http:
                answer = await http.get("status")
                assert answer.status_code == 403
                assert "Set `token`" in answer.json()["remedy"]
        for client in (("::1", 1), ("::ffff:127.0.0.1", 1), ("127.9.9.9", 1)):
            async with http_client(manager, token, client=client) as http:
                assert (await http.get("status")).status_code == 200
    async with home.manager() as manager, http_client(manager, client=("192.0.2.7", 1)) as http:
        assert (await http.get("status")).status_code == 200


async def test_the_token_is_made_once_and_its_owners_alone(home: Home) -> None:
    async with home.manager(plugins={"admin": {}}):
        first = admin_token(home.root)
    path = home.root / TOKEN_FILE
    assert first is not None
    assert len(first) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with home.manager(plugins={"admin": {}}):
        assert admin_token(home.root) == first
    path.chmod(0o644)
    with pytest.raises(OptionError, match="can be read by other users"):
        await home.manager(plugins={"admin": {}}).start()
    path.unlink()
    path.symlink_to(home.root / "elsewhere")
    with pytest.raises(OptionError, match="cannot be read"):
        await home.manager(plugins={"admin": {}}).start()
    path.unlink()
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(OptionError, match="has no token in it"):
        await home.manager(plugins={"admin": {}}).start()


async def test_workers_that_start_at_once_agree_on_one_token(tmp_path: Path) -> None:
    made = await asyncio.gather(*(asyncio.to_thread(made_token, tmp_path) for _ in range(16)))
    assert len(set(made)) == 1
    assert [path.name for path in (tmp_path / ".veko").iterdir()] == ["admin-token"]


async def test_a_short_token_is_refused(home: Home) -> None:
    with pytest.raises(ConfigError, match="token"):
        await home.manager(plugins={"admin": {"token": "short"}}).start()


def test_tokens_are_compared_whole(tmp_path: Path) -> None:
    access = Access(AdminConfig(token=TOKEN, viewer_token=VIEWER), tmp_path)
    assert access.role_of(TOKEN) == "operate"
    assert access.role_of(VIEWER) == "look"
    assert access.role_of(TOKEN[:-1]) is None
    same = Access(AdminConfig(token=TOKEN, viewer_token=TOKEN), tmp_path)
    assert same.role_of(TOKEN) == "operate"


# -- the dashboard's session


async def login(http: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    return await http.post("http://localhost/_veko/login", json={"token": token}, headers=headers)


async def test_a_login_gives_a_cookie_that_holds(manager: PluginManager) -> None:
    async with http_client(manager, None) as http:
        answer = await login(http, TOKEN)
        assert answer.json() == {"role": "operate"}
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "path=/_veko" in cookie
        assert TOKEN not in answer.headers["set-cookie"]
        assert (await http.get("status")).json()["role"] == "operate"
        bare = await http.post("plugins/cart/toggle", json={"active": False})
        assert bare.status_code == 403  # a browser says where a request comes from
        own = {"origin": "http://localhost"}
        done = await http.post("plugins/cart/toggle", json={"active": False}, headers=own)
        assert done.status_code == 200
        assert done.json()["who"] == "operate by cookie from 127.0.0.1"
        evil = {"origin": "http://evil.example"}
        crossed = await http.post("plugins/cart/toggle", json={"active": True}, headers=evil)
        assert crossed.status_code == 403
        assert (await http.post("http://localhost/_veko/logout")).status_code == 200
        assert (await http.get("status")).status_code == 401


async def test_a_login_with_the_viewers_token_may_only_look(manager: PluginManager) -> None:
    async with http_client(manager, None) as http:
        await login(http, VIEWER)
        own = {"origin": "http://localhost"}
        answer = await http.post("plugins/cart/toggle", json={}, headers=own)
        assert answer.status_code == 403
        assert "look" in answer.json()["detail"]


async def test_wrong_logins_and_forged_cookies_are_refused(home: Home) -> None:
    async with home.manager() as manager, http_client(manager, None) as http:
        assert (await login(http, "wrong")).status_code == 401
        assert (await login(http, TOKEN, origin="http://evil.example")).status_code == 403
        bad: tuple[tuple[bytes, str], ...] = (
            (b"{}", "application/json"), (b"[", "application/json"), (b"token=x", "text/plain"),
        )  # fmt: skip
        for body, kind in bad:
            answer = await http.post(
                "http://localhost/_veko/login", content=body, headers={"content-type": kind}
            )
            assert answer.status_code in (400, 415)
        good = (await login(http, VIEWER)).cookies[COOKIE]
        http.cookies.clear()
        role, until, signature = good.split(".")
        forged = (
            f"operate.{until}.{signature}", f"{role}.{int(until) + 9}.{signature}",
            f"{role}.{until}.{signature[:-1]}", "", ".", "..", "operate", "x" * 5000,
        )  # fmt: skip
        for value in forged:
            answer = await http.get("status", headers={"cookie": f"{COOKIE}={value}"})
            assert answer.status_code == 401, value
    other = "another-operators-token-0123"
    section = {"admin": {"token": other, "viewer_token": VIEWER}}
    async with home.manager(plugins=section) as manager, http_client(manager, None) as http:
        answer = await http.get("status", headers={"cookie": f"{COOKIE}={good}"})
        assert answer.status_code == 401  # a new token ends the sessions of the old one


async def test_a_session_ends(home: Home) -> None:
    section = {"admin": {"token": TOKEN, "session": 0.001}}
    async with home.manager(plugins=section) as manager, http_client(manager, None) as http:
        value = (await login(http, TOKEN)).headers["set-cookie"].partition(";")[0]
        await asyncio.sleep(1.1)
        assert (await http.get("status", headers={"cookie": value})).status_code == 401


# -- the audit log


async def test_changes_and_refusals_are_written_down_without_secrets(
    home: Home, manager: PluginManager
) -> None:
    async with http_client(manager) as http:
        await http.get("plugins")
        change = (await http.post("plugins/cart/toggle", json={"active": False})).json()
        await http.post("plugins/cart/toggle?plan=1", json={})
        await http.patch("plugins/shop/config", json={"api_key": "a-new-secret"})
        await http.patch("plugins/shop/config", json={"size": -1})
    async with http_client(manager, "a-wrong-token-0123456789") as http:
        await http.get("plugins")
    path = home.root / ".veko" / "admin-audit.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    found = [msgspec.json.decode(line) for line in text.splitlines()]
    assert [(one["verb"], one["status"]) for one in found] == [
        ("toggle", 200), ("patch_config", 200), ("patch_config", 422), ("GET", 401),
    ]  # fmt: skip
    assert found[0]["change"] == change["id"]
    assert found[0] | {"role": "operate", "way": "token", "address": "127.0.0.1"} == found[0]
    assert found[0]["target"] == "plugins/cart/toggle"
    assert found[3]["address"] == "127.0.0.1"
    for secret in ("a-new-secret", TOKEN, "a-wrong-token", "hush-hush"):
        assert secret not in text


async def test_refused_requests_cannot_fill_the_audit_log(
    home: Home, manager: PluginManager
) -> None:
    async with http_client(manager, "a-wrong-token-0123456789") as http:
        for _ in range(200):
            await http.get("plugins")
    lines = (home.root / ".veko" / "admin-audit.jsonl").read_text().splitlines()
    assert len(lines) <= 120  # a minute may have ended meanwhile


async def test_no_token_is_in_the_log(
    manager: PluginManager, caplog: pytest.LogCaptureFixture
) -> None:
    async with http_client(manager) as http:
        await http.get("plugins/admin")
        answer = await http.get("plugins/admin")
        assert TOKEN not in answer.text
        assert answer.json()["config"]["token"] == "********"
        await http.post("commands/nothing", json={})
    assert TOKEN not in caplog.text
    assert VIEWER not in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes are POSIX's")
async def test_everything_that_is_written_is_its_owners_alone(home: Home) -> None:
    old = os.umask(0)
    try:
        async with home.manager(plugins={"admin": {}}) as manager:
            await (await manager.administration()).toggle("cart", False)
            async with http_client(manager, admin_token(home.root)) as http:
                await http.post("plugins/cart/toggle", json={})
                await http.post("plugins/cart/toggle", json={"active": False})
    finally:
        os.umask(old)
    for name in ("admin-token", "admin-audit.jsonl", "overrides.jsonl"):
        assert stat.S_IMODE((home.root / ".veko" / name).stat().st_mode) == 0o600, name


async def test_the_api_stands_in_no_hot_path(home: Home) -> None:
    """Nobody looks: of what it registers, only failures and changes of itself call it."""
    async with home.manager() as manager:
        heard = {
            (entry.kind, str(entry.key))
            for kind in ("hook", "pattern", "middleware", "interceptor", "probe")
            for entry in manager.bus.registry.entries(kind)
            if getattr(entry.owner, "name", None) == "admin"
        }
    assert {kind for kind, _ in heard} == {"hook"}
    assert {event for _, event in heard} <= {
        "error:handle", "config:change", "plugin:loaded", "plugin:unloaded", "plugin:activated",
        "plugin:deactivated",
    }  # fmt: skip


def test_the_audit_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("veko_plugins.admin.audit._SIZE", 300)
    audit = Audit(tmp_path)
    for number in range(9):
        audit.write(Caller("operate"), "toggle", f"plugins/p{number}", 200)
    kept = [path.read_text() for path in sorted((tmp_path / ".veko").iterdir())]
    assert [path.name for path in sorted((tmp_path / ".veko").iterdir())] == [
        "admin-audit.1.jsonl", "admin-audit.jsonl",
    ]  # fmt: skip
    assert "p8" in kept[1]
    assert all(len(text) < 600 for text in kept)
