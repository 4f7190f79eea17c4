"""The link shortener: through `veko serve` over real sockets, and toggled through the library."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from veko import LoadError
from veko_plugins import PluginManager

from ..conftest import Veko

SHORTENER = Path(__file__).parents[2] / "examples" / "shortener"
TARGET = "https://example.com/a?b=c#d"


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy, so that nothing is kept in the checkout."""
    monkeypatch.delenv("SHORTENER_ADMIN_TOKEN", raising=False)
    root = tmp_path / "shortener"
    shutil.copytree(SHORTENER, root, ignore=shutil.ignore_patterns(".veko", "__pycache__"))
    return root


class Served(Veko):
    """`veko serve` on a free port, and a client of it."""

    def __init__(self, root: Path) -> None:
        super().__init__("serve", str(root), "--port", "0")
        url = self.wait_for(r"Listening on (\S+)")[1]
        self.client = httpx.Client(base_url=url, timeout=60)

    def __exit__(self, *_: object) -> None:
        try:
            self.client.close()
            if self.process.poll() is None:
                self.stop()
        finally:
            super().__exit__()


@pytest.fixture
def served(application: Path) -> Iterator[Served]:
    with Served(application) as served:
        yield served


def shorten(client: httpx.Client, url: str = TARGET) -> str:
    response = client.post("/links", json={"url": url})
    assert response.status_code == 201, response.text
    assert response.headers["location"] == response.json()["short"]
    code = response.json()["code"]
    assert isinstance(code, str)
    return code


def token_of(application: Path) -> dict[str, str]:
    token = (application / ".veko" / "links-token").read_text().strip()
    return {"authorization": f"Bearer {token}"}


def test_links_are_made_followed_and_counted(served: Served) -> None:
    client = served.client
    page = client.get("/")
    assert page.status_code == 200
    assert f"curl {client.base_url}" in page.text

    assert client.post("/links", data={"url": TARGET}).status_code == 201  # a form will do

    code = shorten(client)
    for _ in range(2):
        response = client.get(f"/{code}")
        assert (response.status_code, response.headers["location"]) == (302, TARGET)
    assert client.head(f"/{code}").status_code == 302
    assert client.get(f"/stats/{code}").json()["clicks"] == 2
    assert client.get("/stats").json()[code]["clicks"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"url": 3},
        {"url": TARGET, "more": 1},
        {"url": "example.com"},
        {"url": "http://"},
        {"url": "http://[::1"},
        {"url": "http://example.com:port/"},
        {"url": "javascript:alert(1)"},
        {"url": "https://example.com/\r\nset-cookie: a=b"},
        {"url": "https://exämple.com/"},
        {"url": "https://example.com/" + "a" * 2048},
    ],
)
async def test_bad_urls_are_refused(application: Path, body: object) -> None:
    async with PluginManager(root=application) as manager, client_of(manager) as client:
        response = await client.post("/links", json=body)
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        assert manager.get_stats().errors == 0


@pytest.mark.parametrize("code", ["nothing", "%00", "a" * 900, "ä"])
async def test_unknown_codes_are_not_found(application: Path, code: str) -> None:
    async with PluginManager(root=application) as manager, client_of(manager) as client:
        assert (await client.get(f"/{code}")).status_code == 404
        assert (await client.get(f"/stats/{code}")).status_code == 404
        assert manager.get_stats().errors == 0


def test_a_client_that_asks_too_often_waits(application: Path) -> None:
    settings = "[plugins.ratelimit]\nrequests = 5\nper = 3600\n"
    (application / "veko.toml").write_text(settings)
    with Served(application) as served:
        answers = [served.client.get("/") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert 0 < int(answers[-1].headers["retry-after"]) <= 720
        # Nobody becomes somebody else by saying so.
        other = served.client.get("/", headers={"x-forwarded-for": "192.0.2.1"})
        assert other.status_code == 429


def test_only_who_has_the_token_is_let_in(application: Path, served: Served) -> None:
    client = served.client
    code = shorten(client)
    token = token_of(application)
    assert (application / ".veko" / "links-token").stat().st_mode & 0o077 == 0
    assert "links-token" in served.text
    assert token["authorization"].removeprefix("Bearer ") not in served.text

    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}):
        response = client.get("/admin/links", headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert client.delete(f"/admin/links/{code}").status_code == 401
    assert client.get(f"/{code}").status_code == 302

    listed = client.get("/admin/links", headers=token).json()
    assert [(link["code"], link["url"]) for link in listed] == [(code, TARGET)]
    assert client.delete(f"/admin/links/{code}", headers=token).status_code == 204
    assert client.delete(f"/admin/links/{code}", headers=token).status_code == 404
    assert client.get(f"/{code}").status_code == 404
    assert client.get("/stats").json() == {}


def test_a_restart_keeps_links_clicks_and_token(application: Path) -> None:
    with Served(application) as served:
        code = shorten(served.client)
        served.client.get(f"/{code}")
        token = token_of(application)
        served.stop()
    with Served(application) as served:
        assert "links-token" not in served.text  # said once, at the first start
        assert served.client.get(f"/{code}").headers["location"] == TARGET
        assert served.client.get(f"/stats/{code}").json()["clicks"] == 2
        assert served.client.get("/admin/links", headers=token).status_code == 200


async def test_a_token_of_the_environment_counts(
    application: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORTENER_ADMIN_TOKEN", "chosen")
    async with PluginManager(root=application) as manager, client_of(manager) as client:
        answer = await client.get("/admin/links", headers={"authorization": "Bearer chosen"})
        assert answer.status_code == 200
        assert not (application / ".veko" / "links-token").exists()


async def test_toggling_the_guard_acts_at_once(application: Path) -> None:
    async with PluginManager(root=application) as manager, client_of(manager) as client:

        async def status() -> int:
            return (await client.get("/admin/links")).status_code

        assert await status() == 401
        assert await manager.toggle_plugin("guard") is False
        assert await status() == 503  # it is required
        assert await manager.toggle_plugin("guard") is True
        assert await status() == 401
        await manager.unload_plugin("admin")
        assert await status() == 404
        await manager.load_plugin("admin")
        assert await status() == 401


async def test_without_its_guard_it_does_not_start(application: Path) -> None:
    (application / "plugins" / "guard.py").write_text("name = 'guard'\nversion = 1\n")
    with pytest.raises(LoadError, match="guard"):
        await PluginManager(root=application).start()


async def test_each_plugin_can_be_switched_off_and_on(application: Path) -> None:
    async with PluginManager(root=application) as manager, client_of(manager) as client:
        names = [info.name for info in manager.list_plugins()]
        assert len(names) == 7
        before = manager.get_stats()
        for name in names:
            await manager.toggle_plugin(name, active=False, cascade=True)
            await manager.toggle_plugin(name, active=True)
            for other in names:  # those that the cascade took along
                await manager.toggle_plugin(other, active=True)
        after = manager.get_stats()
        assert (after.hook_callbacks, after.routes) == (before.hook_callbacks, before.routes)
        assert after.errors == 0
        response = await client.post("/links", json={"url": TARGET})
        assert response.status_code == 201


def client_of(manager: PluginManager) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=manager.asgi)
    return httpx.AsyncClient(transport=transport, base_url="http://shortener")
