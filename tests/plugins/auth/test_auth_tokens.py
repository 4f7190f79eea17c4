"""Tokens that this application did not sign, for this use, for now: all are refused alike."""

import asyncio
import base64
import hmac
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from veko_plugins.auth import User

from .conftest import bearer, client_of, managed, signed_up

pytestmark = pytest.mark.anyio
MONTH = 30 * 24 * 60 * 60


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = token.split(".")
    pad = lambda text: text + "=" * (-len(text) % 4)  # noqa: E731
    return tuple(json.loads(base64.urlsafe_b64decode(pad(one))) for one in (head, body))  # type: ignore[return-value]


class Forger:
    """Makes tokens out of a real one, with or without the key that signed it."""

    def __init__(self, token: str, key: OctKey) -> None:
        self.token = token
        self.head, self.claims = read(token)
        self.key = key

    def signed(self, head: Any = None, claims: Any = None, key: Any = None) -> str:
        head, claims = {**self.head, **(head or {})}, {**self.claims, **(claims or {})}
        head = {name: value for name, value in head.items() if value is not None}
        claims = {name: value for name, value in claims.items() if value is not None}
        registry = jws.JWSRegistry(algorithms=[head["alg"]], strict_check_header=False)
        return jwt.encode(head, claims, key or self.key, registry=registry, default_type=None)

    def mac(self, secret: bytes) -> str:
        """As `signed`, with a secret that joserfc would not take."""
        text = f"{part(self.head)}.{part(self.claims)}"
        return f"{text}.{part(hmac.digest(secret, text.encode(), 'sha256'))}"

    def unsigned(self, alg: str, **head: Any) -> str:
        return f"{part({**self.head, 'alg': alg, **head})}.{part(self.claims)}."


FORGED: dict[str, Callable[[Forger], str]] = {
    "alg none": lambda f: f.unsigned("none"),
    "alg None": lambda f: f.unsigned("None"),
    "alg none with the old signature": lambda f: f.unsigned("none") + f.token.split(".")[2],
    "no alg": lambda f: f"{part({'kid': f.head['kid']})}.{part(f.claims)}.",
    "no signature": lambda f: f.token.rpartition(".")[0] + ".",
    "two parts": lambda f: f.token.rpartition(".")[0],
    "four parts": lambda f: f.token + ".x",
    "another signature": lambda f: f.token[:-6] + "AAAAAA",
    "an empty key": lambda f: f.mac(b""),
    "another key": lambda f: f.signed(key=OctKey.generate_key(256)),
    "another algorithm, the same key": lambda f: f.signed({"alg": "HS512"}),
    "RS256 with this kid": lambda f: f.signed({"alg": "RS256"}, key=RSAKey.generate_key(2048)),
    "ES256 with this kid": lambda f: f.signed({"alg": "ES256"}, key=ECKey.generate_key("P-256")),
    "HS256 with a public key": lambda f: f.mac(RSAKey.generate_key(2048).as_pem(private=False)),
    "its own key in the header": lambda f: f.signed(
        {"jwk": OctKey.import_key(b"a" * 32).as_dict()}, key=OctKey.import_key(b"a" * 32)
    ),
    "no kid": lambda f: f.signed({"kid": None}),
    "an unknown kid": lambda f: f.signed({"kid": "../../etc/passwd"}),
    "a kid that is a list": lambda f: f"{part({**f.head, 'kid': [1]})}.{part(f.claims)}.AAAA",
    "a kid that is an object": lambda f: f"{part({**f.head, 'kid': {}})}.{part(f.claims)}.AAAA",
    "a critical header": lambda f: f"{part({**f.head, 'crit': ['x'], 'x': 1})}.{part(f.claims)}.A",
    "not encoded": lambda f: f"{part({**f.head, 'crit': ['b64'], 'b64': False})}.{{}}.AAAA",
    "a header that nests": lambda f: f"{part(b'[' * 1200)}.{part(f.claims)}.AAAA",
    "claims that are a list": lambda f: f"{part(f.head)}.{part([1])}.AAAA",
    "a changed user": lambda f: (
        f"{part(f.head)}.{part({**f.claims, 'sub': 'x'})}." + f.token.split(".")[2]
    ),
    "expired": lambda f: f.signed(claims={"exp": int(time.time()) - 60}),
    "expired long ago": lambda f: f.signed(claims={"iat": 0, "exp": 1}),
    "from the future": lambda f: f.signed(claims={"iat": int(time.time()) + 60}),
    "without an end": lambda f: f.signed(claims={"exp": None}),
    "an end that is a text": lambda f: f.signed(claims={"exp": str(10**10)}),
    "an end that is a float": lambda f: f.signed(claims={"exp": 1e300}),
    "an end that is true": lambda f: f.signed(claims={"exp": True}),
    "of another application": lambda f: f.signed(claims={"aud": "shop"}),
    "for several applications": lambda f: f.signed(claims={"aud": ["veko", "shop"]}),
    "for another use": lambda f: f.signed({"typ": "JWT"}),
    "of an unknown user": lambda f: f.signed(claims={"sub": "0" * 32}),
    "of an unknown name": lambda f: f.signed(claims={"key": "nobody"}),
    "of an unknown session": lambda f: f.signed(claims={"sid": "x", "iat": int(time.time()) - 9}),
    "a key that cannot be stored": lambda f: f.signed(claims={"key": "k" * 600}),
    "empty": lambda f: "",
    "dots": lambda f: "..",
    "too long": lambda f: f.token + "A" * 100_000,
    "long and right in front": lambda f: f.signed({"pad": "x" * 4096}),
    "not ASCII": lambda f: f.token + "é",
    "a space in it": lambda f: f.token[:20] + " " + f.token[20:],
}


@pytest.fixture
async def forger(tmp_path: Path) -> Any:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        _, key = manager.use("auth").keys.newest()
        yield client, Forger(tokens["access_token"], key), tokens


async def get(client: httpx.AsyncClient, token: str) -> httpx.Response:
    header = b"Bearer " + token.encode("latin-1")
    return await client.get("/me", headers=[(b"authorization", header)])


@pytest.mark.parametrize("how", FORGED)
async def test_a_forged_token_is_refused(forger: Any, how: str) -> None:
    client, forge, _ = forger
    answer = await get(client, FORGED[how](forge))
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    refreshed = await client.post("/refresh", json={"refresh_token": FORGED[how](forge)})
    assert refreshed.status_code == 401, refreshed.text
    # And the real one is accepted as before.
    assert (await get(client, forge.token)).is_success


async def test_what_the_forger_signs_without_a_change_is_accepted(forger: Any) -> None:
    client, forge, _ = forger
    assert (await get(client, forge.signed())).is_success


async def test_one_kind_of_token_is_not_the_other(forger: Any) -> None:
    client, forge, tokens = forger
    assert (await get(client, tokens["refresh_token"])).status_code == 401
    answer = await client.post("/refresh", json={"refresh_token": forge.token})
    assert answer.status_code == 401


async def test_only_one_authorization_header(forger: Any) -> None:
    client, forge, _ = forger
    twice = [("authorization", f"Bearer {forge.token}"), ("authorization", "Bearer x")]
    assert (await client.get("/me", headers=twice)).status_code == 401
    for scheme in ("Basic", "Token", ""):
        headers = {"authorization": f"{scheme} {forge.token}"}
        assert (await client.get("/me", headers=headers)).status_code == 401
    headers = {"authorization": f"bearer  {forge.token} "}
    assert (await client.get("/me", headers=headers)).is_success
    assert (await client.get(f"/me?access_token={forge.token}")).status_code == 401


async def test_clocks_may_differ_a_little(forger: Any) -> None:
    client, forge, _ = forger
    late = forge.signed(claims={"exp": int(time.time()) - 3})
    assert (await get(client, late)).is_success
    early = forge.signed(claims={"iat": int(time.time()) + 3})
    assert (await get(client, early)).is_success


async def test_an_access_token_expires_although_it_was_read_before(tmp_path: Path) -> None:
    settings = {"access_lifetime": 1, "clock_skew": 0}
    async with managed(tmp_path, settings=settings) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        end = time.monotonic() + 30
        while (answer := await client.get("/me", headers=bearer(tokens))).is_success:
            assert time.monotonic() < end
        assert answer.json()["detail"] == "the token has expired"
        # The session lasts longer.
        again = await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert (await client.get("/me", headers=bearer(again.json()))).is_success


async def test_applications_with_one_secret_are_told_apart_by_their_name(tmp_path: Path) -> None:
    settings = {"secret": "s" * 32}
    async with managed(tmp_path / "a", settings=settings) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        async with (
            managed(tmp_path / "b", settings={**settings, "audience": "b"}) as other,
            client_of(other) as to_other,
        ):
            await signed_up(to_other)
            assert (await to_other.get("/me", headers=bearer(tokens))).status_code == 401
    assert not (tmp_path / "a" / ".veko" / "auth-keys.json").exists()


# -- refresh tokens


async def test_a_refresh_token_is_accepted_once_and_reuse_ends_the_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        first = await signed_up(client)
        other = (
            await client.post("/login", json={"name": "joe", "password": "correct horse"})
        ).json()
        second = (await client.post("/refresh", json=only_refresh(first))).json()
        third = (await client.post("/refresh", json=only_refresh(second))).json()
        assert (await client.get("/me", headers=bearer(third))).is_success
        assert (await client.post("/refresh", json=only_refresh(first))).status_code == 401
        # Neither the thief nor the user has a token of this session that works.
        for tokens in (first, second, third):
            assert (await client.get("/me", headers=bearer(tokens))).status_code == 401
            assert (await client.post("/refresh", json=only_refresh(tokens))).status_code == 401
        assert (await client.get("/me", headers=bearer(other))).is_success  # another session
        reported = [one.getMessage() for one in caplog.records if one.name == "veko.auth"]
        assert len(reported) == 1
        assert "a refresh token of joe was used again" in reported[0]


async def test_two_refreshes_at_once_give_one_client_tokens_at_most(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        auth = manager.use("auth")
        await auth.register("joe", "correct horse")
        for _ in range(10):
            tokens = await auth.login("joe", "correct horse")
            won = await together(*(auth.refresh(tokens.refresh_token) for _ in range(5)))
            assert len(won) == 1
            with pytest.raises(Exception, match="the session has ended"):
                await auth.verify(won[0].access_token)


async def test_with_a_leeway_a_second_refresh_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    async with managed(tmp_path, settings={"reuse_leeway": 60}) as manager:
        auth = manager.use("auth")
        await auth.register("joe", "correct horse")
        tokens = await auth.login("joe", "correct horse")
        won = await together(*(auth.refresh(tokens.refresh_token) for _ in range(5)))
        assert len(won) == 1
        assert (await auth.verify(won[0].access_token)).name == "joe"
        await auth.refresh(won[0].refresh_token)
        with pytest.raises(Exception, match="not valid"):
            await auth.refresh(tokens.refresh_token)  # not the one before any more: reuse
        with pytest.raises(Exception, match="ended"):
            await auth.verify(won[0].access_token)


async def test_a_session_has_an_end_however_often_it_is_refreshed(tmp_path: Path) -> None:
    settings = {"session_lifetime": 2, "refresh_lifetime": 1.5, "clock_skew": 0}
    async with managed(tmp_path, settings=settings) as manager:
        auth = manager.use("auth")
        await auth.register("joe", "correct horse")
        tokens = await auth.login("joe", "correct horse")
        end = time.monotonic() + 30
        refused = []
        while not refused and time.monotonic() < end:
            try:
                tokens = await auth.refresh(tokens.refresh_token)
            except Exception as error:
                refused.append(getattr(error, "status", None))
        assert refused == [401]


async def test_a_user_has_a_bounded_number_of_sessions(tmp_path: Path) -> None:
    async with managed(tmp_path, settings={"sessions": 3}) as manager:
        auth = manager.use("auth")
        await auth.register("joe", "correct horse")
        given = [await auth.login("joe", "correct horse") for _ in range(5)]
        known = await asyncio.gather(
            *(auth.verify(tokens.access_token) for tokens in given), return_exceptions=True
        )
        assert [isinstance(one, User) for one in known] == [False, False, True, True, True]


@pytest.mark.parametrize("how", ["password", "disabled", "deleted", "deleted and registered again"])
async def test_what_happens_to_a_user_ends_the_sessions(tmp_path: Path, how: str) -> None:
    async with managed(tmp_path) as manager:
        auth = manager.use("auth")
        await auth.register("joe", "correct horse", roles=("admin",))
        tokens = await auth.login("joe", "correct horse")
        if how == "password":
            await auth.set_password("joe", "battery staple")
            with pytest.raises(Exception, match="wrong"):
                await auth.login("joe", "correct horse")
            await auth.login("joe", "battery staple")
        elif how == "disabled":
            await auth.disable("joe")
            with pytest.raises(Exception, match="wrong"):
                await auth.login("joe", "correct horse")
        else:
            assert await auth.delete("joe")
            assert not await auth.delete("joe")
        if how == "deleted and registered again":
            await auth.register("joe", "correct horse")
        for call in (auth.verify(tokens.access_token), auth.refresh(tokens.refresh_token)):
            with pytest.raises(Exception, match=r"ended|not valid"):
                await call


def only_refresh(tokens: dict[str, Any]) -> dict[str, str]:
    return {"refresh_token": tokens["refresh_token"]}


async def together(*calls: Any) -> list[Any]:
    """What of several calls at once succeeds; the others are refused with 401."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    for one in done:
        assert not isinstance(one, BaseException) or getattr(one, "status", 0) == 401, one
    return [one for one in done if not isinstance(one, BaseException)]


async def test_whatever_a_client_sends_is_no_token(tmp_path: Path) -> None:
    """Seeded noise, and a real token with noise in it, in the header and in the cookie."""
    chance = random.Random(13)
    async with (
        managed(tmp_path, settings={"cookies": True}) as manager,
        client_of(manager) as client,
    ):
        token = (await signed_up(client))["access_token"].encode()
        for _ in range(500):
            noise = bytes(chance.randrange(32, 256) for _ in range(chance.randrange(60)))
            at = chance.randrange(len(token))
            raw = chance.choice([noise, token[:at] + noise + b"~" + token[at:], token[:at] + b"!"])
            headers = chance.choice(
                [
                    [(b"authorization", b"Bearer " + raw)],
                    [(b"authorization", raw)],
                    [(b"cookie", b"__Host-veko_access=" + raw)],
                    [(b"cookie", raw), (b"cookie", b"__Host-veko_access=" + raw + b"; x=y")],
                ]
            )
            for path in ("/me", "/page", "/admin"):
                answer = await client.get(path, headers=headers)
                assert answer.status_code == 401, (headers, answer.text)
        assert (await client.get("/me", headers={"authorization": b"Bearer " + token})).is_success
