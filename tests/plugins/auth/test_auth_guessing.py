"""Guessing passwords: same answer, same time, few tries, and nobody else is locked out for long."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins.auth import Auth, Settings
from veko_plugins.auth.passwords import Passwords
from veko_plugins.auth.types import Busy
from veko_plugins.http import HTTPError

from .conftest import JOE, PASSWORD, QUICK, bearer, client_of, managed, signed_up

pytestmark = pytest.mark.anyio
WRONG = {"name": "joe", "password": "wrong password"}
SLOW = {"hash_memory": 8192, "hash_time": 6}
"""A hash takes long enough to be seen behind all else."""
MANY = {"attempts": 10_000}


async def status_of(client: httpx.AsyncClient, body: dict[str, str] = WRONG) -> int:
    return (await client.post("/login", json=body)).status_code


async def test_an_unknown_user_and_a_wrong_password_look_the_same(tmp_path: Path) -> None:
    async with managed(tmp_path, settings=MANY | SLOW) as manager, client_of(manager) as client:
        await signed_up(client)
        await client.post("/register", json={"name": "off", "password": PASSWORD})
        await manager.use("auth").disable("off")
        bodies = {
            "wrong": WRONG,
            "unknown": {**WRONG, "name": "jane"},
            "disabled": {"name": "off", "password": PASSWORD},
            "nobody's name": {**WRONG, "name": "a b c"},
            "a lookalike": {**JOE, "name": "j\u043ee"},
            "too long a password": {**WRONG, "password": "p" * 5000},
            "not a password": {**WRONG, "password": "\\ud800" * 10},
        }
        took: dict[str, list[float]] = {kind: [] for kind in bodies}
        answers = set()
        for _ in range(5):
            for kind, body in bodies.items():
                begin = time.process_time()  # the work, not what else the machine does
                answer = await client.post("/login", json=body)
                took[kind].append(time.process_time() - begin)
                headers = {k: v for k, v in answer.headers.items() if k != "date"}
                answers.add((answer.status_code, answer.text, tuple(sorted(headers.items()))))
        assert len(answers) == 1
        assert next(iter(answers))[0] == 401
        medians = {kind: statistics.median(times) for kind, times in took.items()}
        assert max(medians.values()) < 2 * min(medians.values()), medians


async def test_an_address_has_few_tries_and_gets_them_back(tmp_path: Path) -> None:
    settings = {"attempts": 3, "attempts_period": 300}
    async with managed(tmp_path, settings=settings) as manager, client_of(manager) as client:
        await manager.use("auth").register("joe", PASSWORD)
        names = ["joe", "jane", "nobody"]  # any names: it is the address that tries
        assert [await status_of(client, {**WRONG, "name": n}) for n in names] == [401] * 3
        answer = await client.post("/login", json=JOE)
        assert answer.status_code == 429  # the right one, too
        assert 1 <= int(answer.headers["retry-after"]) <= 100
        assert answer.json()["detail"] == "too many tries; wait a little"
        await wait(manager, 101)
        assert [await status_of(client) for _ in range(2)] == [401, 429]
        await wait(manager, 101)
        assert await status_of(client, JOE) == 200


async def test_right_passwords_use_no_tries_up(tmp_path: Path) -> None:
    async with managed(tmp_path, settings={"attempts": 2}) as manager, client_of(manager) as client:
        await signed_up(client)
        assert [await status_of(client, JOE) for _ in range(10)] == [200] * 10


async def test_confirming_a_password_is_limited_like_a_login(tmp_path: Path) -> None:
    async with managed(tmp_path, settings={"attempts": 3}) as manager:
        auth: Auth = manager.use("auth")
        await auth.register("joe", PASSWORD)
        assert (await auth.confirm("Joe", PASSWORD)).name == "joe"
        found = []
        for _ in range(16):  # without a request it is the account's tries that count
            with pytest.raises(HTTPError) as refused:
                await auth.confirm("joe", "wrong password")
            found.append(refused.value.status)
        assert found == [401] * 15 + [429]


async def test_tries_at_once_are_counted_one_by_one(tmp_path: Path) -> None:
    async with managed(tmp_path, settings={"attempts": 5}) as manager, client_of(manager) as client:
        await manager.use("auth").register("joe", PASSWORD)
        found = await asyncio.gather(*(status_of(client) for _ in range(50)))
        assert sorted(found) == [401] * 5 + [429] * 45


async def test_one_client_cannot_lock_others_out(tmp_path: Path) -> None:
    async with (
        managed(tmp_path, settings={"attempts": 5}) as manager,
        client_of(manager, "192.0.2.1") as joe,
        client_of(manager, "203.0.113.9") as thief,
        client_of(manager, "198.51.100.7") as elsewhere,
    ):
        await manager.use("auth").register("joe", PASSWORD)
        found = [await status_of(thief) for _ in range(200)]
        assert found.count(401) == 5
        assert found.count(429) == 195
        assert await status_of(joe, JOE) == 200
        assert await status_of(elsewhere, JOE) == 200


async def test_many_clients_slow_an_account_down_but_not_where_it_is_known(tmp_path: Path) -> None:
    settings = {"attempts": 2, "attempts_period": 300}
    async with managed(tmp_path, settings=settings) as manager, client_of(manager) as joe:
        headers = bearer(await signed_up(joe))
        found = []
        for number in range(20):
            async with client_of(manager, f"203.0.113.{number}") as thief:
                found.append(await status_of(thief))
        assert found[:10] == [401] * 10  # five times as many as one address has
        assert 429 in found[10:]
        # Joe has a session from his address: he gets in while the account is under attack,
        assert await status_of(joe, JOE) == 200
        assert (await joe.get("/me", headers=headers)).is_success
        # and from elsewhere as soon as it ends: a try comes back ten times as fast.
        async with client_of(manager, "198.51.100.7") as elsewhere:
            answer = await elsewhere.post("/login", json=JOE)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) <= 15
            await wait(manager, 15)
            assert await status_of(elsewhere, JOE) == 200


async def test_the_addresses_of_one_network_are_one_client(tmp_path: Path) -> None:
    async with managed(tmp_path, settings={"attempts": 3}) as manager:
        found = []
        for number in range(6):
            async with client_of(manager, f"2001:db8::{number}") as client:
                found.append(await status_of(client))
        async with client_of(manager, "2001:db8:0:1::1") as other:
            found.append(await status_of(other))
        assert found == [401] * 3 + [429] * 3 + [401]


async def test_registrations_are_limited_by_address(tmp_path: Path) -> None:
    async with managed(tmp_path, settings={"attempts": 3}) as manager, client_of(manager) as client:
        found = [
            (await client.post("/register", json={**JOE, "name": f"joe{n}"})).status_code
            for n in range(5)
        ]
        assert [status // 100 for status in found] == [2, 2, 2, 4, 4]
        assert found[-1] == 429


async def test_few_passwords_are_hashed_at_once_and_few_wait() -> None:
    passwords = Passwords(Settings(**QUICK, hash_concurrency=1))
    hashed = await passwords.hash(PASSWORD)
    done = await asyncio.gather(
        *(passwords.check(PASSWORD, hashed) for _ in range(100)), return_exceptions=True
    )
    assert done.count((True, None)) == 64
    assert [type(one) for one in done].count(Busy) == 36
    assert await passwords.check(PASSWORD, hashed) == (True, None)


async def test_logins_leave_the_event_loop_alone_and_switch_nothing_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko_plugins.auth.passwords._WAITING", 1)
    settings = {**MANY, **SLOW, "hash_concurrency": 1}
    async with (
        managed(tmp_path, settings=settings, watchdog=0) as manager,
        client_of(manager) as client,
    ):
        await manager.use("auth").register("joe", PASSWORD)
        flood = [asyncio.create_task(status_of(client)) for _ in range(100)]
        answered = 0
        while not all(task.done() for task in flood):
            assert (await client.get("/greet")).is_success
            answered += 1
            await asyncio.sleep(0.001)
        found = {task.result() for task in flood}
        assert found == {401, 503}
        assert answered > 1
        # What clients cause at will counts against nobody: the login is not switched off.
        assert manager.error_count("app") == 0
        assert await status_of(client, JOE) == 200


async def test_a_login_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = {**MANY, **SLOW, "hash_time": 2, "hash_concurrency": 1}
    async with managed(tmp_path, settings=settings) as manager:
        auth: Auth = manager.use("auth")
        await auth.register("joe", PASSWORD)
        for _ in range(3):
            tasks = [asyncio.create_task(auth.login("joe", PASSWORD)) for _ in range(60)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await auth.login("joe", PASSWORD)


async def test_a_password_is_hashed_again_when_the_settings_change(tmp_path: Path) -> None:
    stored = {"storage": f"sqlite:///{tmp_path / 'kept.db'}"}
    async with managed(tmp_path, **stored) as manager:
        await manager.use("auth").register("joe", PASSWORD)
        before = hash_of(manager)
    async with managed(tmp_path, settings={"hash_time": 2}, **stored) as manager:
        auth = manager.use("auth")
        assert hash_of(manager) == before
        await auth.login("joe", PASSWORD)
        assert hash_of(manager).startswith("$argon2id$v=19$m=8,t=2,p=1$")
        await auth.login("joe", PASSWORD)


async def test_a_password_is_the_same_however_it_is_typed(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        auth: Auth = manager.use("auth")
        await auth.register("joe", "caf\u00e9 au lait")
        await auth.login("joe", "cafe\u0301 au lait")
        for other in ("cafe au lait", "CAF\u00c9 AU LAIT", "caf\u00e9 au lait ", ""):
            with pytest.raises(HTTPError) as wrong:
                await auth.login("joe", other)
            assert wrong.value.status == 401


async def wait(manager: Any, seconds: float) -> None:
    """Let time pass for the tries."""
    storage = manager.use("storage").namespace("auth")
    for key, value in storage.items():
        if key.startswith("tries:"):
            left, at = value
            await storage.set(key, [left, at - seconds])


def hash_of(manager: Any) -> str:
    stored = manager.use("storage").namespace("auth").get("user:joe")
    return str(stored["hash"])
