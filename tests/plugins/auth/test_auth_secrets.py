"""What is secret is shown nowhere: logs, errors, events, traces, settings; and a lost storage."""

import logging
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veko import StorageError
from veko.errors import ConfigError
from veko_plugins import PluginManager
from veko_plugins._lib.secret_fields import masked
from veko_plugins.auth import Credentials, Settings

from .conftest import APP, JOE, PASSWORD, bearer, client_of, managed, signed_up

pytestmark = pytest.mark.anyio
SECRET = "the-secret-that-signs-all-of-the-tokens"


async def test_no_secret_is_logged_or_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[str] = []

    def load(context: Any) -> None:
        def look(*args: Any) -> None:
            shown.extend(repr(one) for one in args)

        def query(query: Any) -> None:
            shown.append(repr(query))

        context.hook("**", look, priority=-1)
        context.hook("database:query", query, observe=True)

        def fail(user: Any) -> None:
            raise RuntimeError(f"{user} cannot be looked up")

        context.hook("auth:login", fail, observe=True)

    caplog.set_level(logging.DEBUG)
    watching = {"name": "watching", "version": "1", "load": load, "required": True}
    options = {"settings": {"secret": SECRET, "cookies": True}, "dev_mode": True}
    async with managed(tmp_path, watching, APP, **options) as manager, client_of(manager) as client:
        auth = manager.use("auth")
        tokens = await signed_up(client)
        entered = await client.post("/enter", json=JOE)
        client.cookies.clear()
        given = {**tokens, "csrf": entered.json()["csrf"]}
        headers = bearer(tokens)
        assert (await client.get("/me", headers=headers)).is_success
        texts = [
            (await client.post("/login", json={**JOE, "password": PASSWORD + "!"})).text,
            (await client.post("/register", json=JOE)).text,
            (await client.get("/admin", headers=headers)).text,
            (await client.get("/me", headers={"authorization": tokens["access_token"]})).text,
            (await client.get("/schema/openapi.json")).text,
        ]
        hashed = manager.use("storage").namespace("auth").get("user:joe")["hash"]
        made = await auth.login("joe", PASSWORD)
        texts += map(repr, (auth, auth.keys, made, Credentials("joe", PASSWORD), manager.options))
        texts += map(repr, (auth.get("joe"), auth.users(), auth.require("x")))
        texts += [repr(info) for info in manager.list_plugins(core=True)]
        secrets = {
            PASSWORD, SECRET, hashed, hashed.rpartition("$")[2], made.access_token,
            *(one for one in given.values() if isinstance(one, str) and one != "Bearer"),
        }  # fmt: skip
    assert shown
    # What the client itself has sent in a request is in the request, not in its representation.
    for text in (*texts, *shown, caplog.text):
        for secret in secrets:
            assert secret not in text, text[:300]


def test_the_settings_are_shown_without_the_secret(
    tmp_path: Path, veko: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "veko.toml").write_text(
        f'auth = true\n[plugins.auth]\nsecret = "{SECRET}"\nformer_secrets = ["{SECRET}2"]\n'
    )
    for words in (("list", "--core"), ("list", "--json"), ("run",)):
        done = veko(*words)
        assert SECRET not in done.stdout + done.stderr, words
    shown = masked(Settings(secret=SECRET, former_secrets=(SECRET,)), Settings)
    assert SECRET not in str(shown)
    assert shown["audience"] == "veko"


@pytest.mark.parametrize(
    "settings", [{"secret": "too short"}, {"secret": [SECRET]}, {"secrets": SECRET}]
)
async def test_a_wrong_secret_is_refused_and_not_shown(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as refused:
        await PluginManager(root=tmp_path, auth=True, plugins={"auth": settings}).start()
    assert "secret" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "too short" not in str(refused.value)


async def test_what_is_stored_has_no_password_and_is_its_owners_alone(tmp_path: Path) -> None:
    async with managed(tmp_path, storage=None) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        entries = str(dict(manager.use("storage").namespace("auth").items()))
        assert "$argon2id$" in entries
        for secret in (PASSWORD, tokens["access_token"], tokens["refresh_token"]):
            assert secret not in entries
    for path in (tmp_path / ".veko").iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
            assert PASSWORD.encode() not in path.read_bytes()


async def test_a_token_says_nothing_that_others_must_not_know(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        auth = manager.use("auth")
        await auth.register("joe", PASSWORD, roles=("admin",))
        tokens = await auth.login("joe", PASSWORD)
        assert tokens.csrf_token not in str(auth._signer.read("access", tokens.access_token))
        for token in (tokens.access_token, tokens.refresh_token):
            assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}", token)
            assert len(token) < 600


class Gone:
    """A storage that fails as a server does that is gone."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.gone = False

    def _check(self) -> None:
        if self.gone:
            raise StorageError("the storage's server was not reached for 10 s")

    def get(self, *args: Any) -> Any:
        self._check()
        return self._storage.get(*args)

    async def compare_and_set(self, *args: Any, **more: Any) -> bool:
        self._check()
        return bool(await self._storage.compare_and_set(*args, **more))


async def test_everything_is_refused_while_the_storage_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        auth = manager.use("auth")
        storage = Gone(auth._users._storage)
        auth._users._storage = auth._limits._storage = storage
        storage.gone = True
        for method, path, body in (
            ("GET", "/me", None), ("GET", "/greet", None), ("POST", "/login", JOE),
            ("POST", "/register", {**JOE, "name": "jane"}), ("POST", "/logout", None),
            ("POST", "/refresh", {"refresh_token": tokens["refresh_token"]}),
        ):  # fmt: skip
            answer = await client.request(method, path, json=body, headers=bearer(tokens))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
            assert "server" not in answer.text
        assert manager.error_count("app") == 0
        reported = [one for one in caplog.records if one.name == "veko.auth"]
        assert len(reported) == 1  # not one for each request
        storage.gone = False
        assert (await client.get("/me", headers=bearer(tokens))).is_success
        again = await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert again.is_success
