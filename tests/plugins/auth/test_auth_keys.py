"""The keys that sign tokens: generated, private, shared by workers, rotated."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veko import OptionError, ServiceError
from veko_plugins import PluginManager
from veko_plugins.auth.keys import Keys
from veko_plugins.http import HTTPError

from .conftest import PASSWORD, QUICK, bearer, client_of, managed, signed_up

pytestmark = pytest.mark.anyio
FILE = Path(".veko", "auth-keys.json")


async def test_the_key_is_made_at_the_first_start_for_its_owner_alone(tmp_path: Path) -> None:
    async with managed(tmp_path / "a") as manager, client_of(manager) as client:
        tokens = await signed_up(client)
    file = tmp_path / "a" / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir() if "auth" in path.name] == [file.name]
    kept = file.read_text()
    async with managed(tmp_path / "b") as other, client_of(other) as client:
        await signed_up(client)
        assert (await client.get("/me", headers=bearer(tokens))).status_code == 401
    assert (tmp_path / "b" / FILE).read_text() != kept
    async with managed(tmp_path / "a"):
        assert file.read_text() == kept


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
async def test_keys_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    async with managed(tmp_path):
        pass
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(OptionError, match="others than its owner") as refused:
        await PluginManager(root=tmp_path, auth=True, storage="memory:").start()
    assert "chmod 600" in str(refused.value)
    assert json.loads((tmp_path / FILE).read_text())["keys"][0]["secret"] not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys": []}', '{"keys": [{"kid": "a", "secret": ""}]}']
)
async def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    async with managed(tmp_path):
        pass
    (tmp_path / FILE).write_text(text)
    with pytest.raises(OptionError, match="damaged"):
        await PluginManager(root=tmp_path, auth=True, storage="memory:").start()


def test_processes_that_start_at_once_use_one_key(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom veko_plugins.auth.keys import Keys\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "keys = Keys(Path(sys.argv[1]), lifetime=60)\nkeys.open()\nprint(keys.newest()[0])\n"
    )
    at = str(time.time() + 2)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "new" / "keys.json"), at],
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    assert len({one.communicate(timeout=60)[0] for one in started}) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["keys.json"]


async def test_a_rotation_reaches_other_processes_and_ends_no_session(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        auth = manager.use("auth")
        before = auth.keys.newest()[0]
        other = Keys(tmp_path / FILE, lifetime=3600)  # as another process has them
        other.open()
        new = other.rotate()
        end = time.monotonic() + 30
        while auth.keys.newest()[0] != new:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert (await client.get("/me", headers=bearer(tokens))).is_success
        again = await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert again.is_success
        assert before != new
        # A token of a key that is not known yet makes it look at once.
        newer = other.rotate()
        assert auth.keys.find(newer) is not None
        assert json.loads((tmp_path / FILE).read_text())["keys"][0]["kid"] == newer
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_rotation_at_once_ends_all_sessions(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        assert (await client.get("/me", headers=bearer(tokens))).is_success
        text = await manager.run_command("rotate-auth-keys", at_once=True)
        assert manager.use("auth").keys.newest()[0] in text
        assert (await client.get("/me", headers=bearer(tokens))).status_code == 401
        refused = await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert refused.status_code == 401


def test_a_replaced_key_lapses(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", lifetime=0.2)
    keys.open()
    old, _ = keys.newest()
    keys.rotate()
    assert keys.find(old) is not None
    end = time.monotonic() + 30
    while keys.find(old) is not None:
        assert time.monotonic() < end
    keys.rotate()
    assert old not in (tmp_path / "keys.json").read_text()


async def test_a_file_that_goes_bad_changes_nothing_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        tokens = await signed_up(client)
        (tmp_path / FILE).write_text("{}")
        keys = manager.use("auth").keys
        for _ in range(4):
            keys.refresh(missing=True)
        reported = [one.getMessage() for one in caplog.records if one.name == "veko.auth"]
        assert len(reported) == 1
        assert "damaged" in reported[0]
        assert (await client.get("/me", headers=bearer(tokens))).is_success
        (tmp_path / FILE).unlink()
        keys.refresh(missing=True)
        assert (await client.get("/me", headers=bearer(tokens))).is_success


async def test_keys_in_the_settings_are_rotated_there(tmp_path: Path) -> None:
    old, new, kept = "o" * 32, "n" * 32, f"sqlite:///{tmp_path / 'kept.db'}"
    async with managed(tmp_path, settings={"secret": old}, storage=kept) as m, client_of(m) as c:
        tokens = await signed_up(c)
        with pytest.raises(OptionError, match="former_secrets"):
            m.use("auth").keys.rotate()
    both = {"secret": new, "former_secrets": [old]}
    async with managed(tmp_path, settings=both, storage=kept) as m, client_of(m) as c:
        assert (await c.get("/me", headers=bearer(tokens))).is_success
        fresh = await c.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
    async with managed(tmp_path, settings={"secret": new}, storage=kept) as m, client_of(m) as c:
        assert (await c.get("/me", headers=bearer(tokens))).status_code == 401
        assert (await c.get("/me", headers=bearer(fresh.json()))).is_success
    assert not (tmp_path / FILE).exists()


# -- what an operator does


async def test_without_the_option_the_service_says_how_to_get_it(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.use("auth")

    async with PluginManager(root=tmp_path, auto_load=False, storage="memory:") as manager:
        with pytest.raises(ServiceError, match="Set the option `auth = true`"):
            await manager.load_plugin({"name": "app", "version": "1", "load": load})


async def test_without_a_storage_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is none"):
        await PluginManager(root=tmp_path, auth=True, storage="none").start()


async def test_without_http_it_refuses_all_the_same(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.provide("app", context.use("auth"))

    app = {"name": "app", "version": "1", "load": load}
    async with managed(tmp_path, app, adapter=None) as manager:
        auth = manager.use("app")
        await auth.register("joe", PASSWORD)
        assert (await auth.verify((await auth.login("joe", PASSWORD)).access_token)).name == "joe"
        with pytest.raises(Exception, match="the name or the password is wrong") as refused:
            await auth.login("joe", "wrong password")
        assert refused.value.status == 401  # type: ignore[attr-defined]


async def test_while_auth_is_off_every_guard_refuses(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager, client_of(manager) as client:
        headers = bearer(await signed_up(client))
        auth = manager.use("auth")
        auth_plugin(manager).deactivate()
        for method, path in (("GET", "/me"), ("GET", "/greet"), ("POST", "/login")):
            answer = await client.request(
                method, path, headers=headers, json={"name": "joe", "password": PASSWORD}
            )
            assert answer.status_code == 503, path
        with pytest.raises(HTTPError):
            await auth.register("jane", PASSWORD)
        auth_plugin(manager).activate()
        assert (await client.get("/me", headers=headers)).is_success


def auth_plugin(manager: Any) -> Any:
    return manager.kernel.get("auth").current.plugin


def test_users_are_made_from_the_command_line(
    tmp_path: Path, veko: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    lines = [f"{key} = {value}" for key, value in QUICK.items()]
    (tmp_path / "plugins").mkdir()
    (tmp_path / "veko.toml").write_text("auth = true\n[plugins.auth]\n" + "\n".join(lines))
    program = [sys.executable, "-m", "veko_plugins.cli", "run", "create-user", "Joe"]
    made = subprocess.run(
        [*program, "--role", "admin"], input=f"{PASSWORD}\n", capture_output=True, text=True,
        check=False, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert "joe is registered as admin" in made.stdout, made.stderr
    again = subprocess.run(
        program, input=f"{PASSWORD}\n", capture_output=True, text=True, check=False, cwd=tmp_path,
        timeout=60,
    )  # fmt: skip
    assert again.returncode != 0
    assert "the name is taken" in again.stderr
    assert PASSWORD not in made.stdout + made.stderr + again.stdout + again.stderr
    rotated = veko("run", "rotate-auth-keys")
    assert "tokens are signed with the key" in rotated.stdout


def test_an_application_without_auth_imports_nothing_of_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\nfrom veko_plugins import PluginManager\n"
        "async def main():\n"
        "    async with PluginManager(root=sys.argv[1], auto_load=False): pass\n"
        "asyncio.run(main())\n"
        "heavy = ('joserfc', 'pwdlib', 'argon2', 'cryptography', 'veko_plugins.auth.service')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
