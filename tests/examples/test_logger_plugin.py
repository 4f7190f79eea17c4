"""The example `logger`: requests and errors over HTTP, in rotated files."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko import ConfigError
from veko_plugins import PluginManager

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "logger"
TOKEN = "long and secret"
SHOP = """
name = "shop"
version = "1.0.0"
dependencies = ["requestlog"]

def load(context):
    requests = context.use("requestlog")

    def sell(item: str):
        requests.info("sold", extra={"item": item})
        return item

    def fail():
        raise ValueError("no luck, password=s3cret")

    context.add_route("GET", "/sell/{item}", sell)
    context.add_route("GET", "/fail", fail)
    context.hook("tick", fail)
    context.every(3600, fail)
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def application(root: Path, settings: str = "") -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLE, root / "plugins" / "logger", ignore=ignored)
    (root / "plugins" / "shop.py").write_text(SHOP)
    (root / "veko.toml").write_text(
        f'storage = "none"\n[plugins.requestlog]\ntoken = "{TOKEN}"\n{settings}'
    )
    return root


def entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_P3_requests_and_errors_are_logged(tmp_path: Path, start: Callable[..., Any]) -> None:
    served = start("serve", application(tmp_path), "--port", "0")
    url = served.wait_for(r"Listening on (\S+)")[1]
    with httpx.Client(base_url=url, timeout=30, headers={"user-agent": "test\n"[:-1]}) as client:
        assert client.get("/sell/tea?token=s3cret").text == "tea"
        assert client.get("/fail").status_code == 500
        assert client.get("/nothing").status_code == 404
        assert client.get("/logs").status_code == 401
        wrong = {"authorization": "Bearer wrong ü".encode()}
        assert client.get("/logs", headers=wrong).status_code == 401
        shown = client.get("/logs?limit=3", headers={"authorization": f"Bearer {TOKEN}"}).json()
    served.process.send_signal(signal.SIGTERM)
    assert served.ends() == 0
    file = tmp_path / "logs" / "requests.log"
    assert file.stat().st_mode & 0o077 == 0
    found = entries(file)
    answers = {entry["message"]: entry for entry in found if "status" in entry}
    sold = answers["GET /sell/tea 200"]
    assert (sold["level"], sold["method"], sold["route"]) == ("info", "GET", "/sell/{item}")
    assert (sold["client"], sold["agent"]) == ("127.0.0.1", "test")
    assert 0 <= sold["ms"] < 10_000
    assert answers["GET /fail 500"]["level"] == "error"
    assert answers["GET /nothing 404"]["level"] == "info"
    assert any(entry["message"] == "sold" and entry["item"] == "tea" for entry in found)
    errors = [entry for entry in found if "error" in entry]
    (failed,) = [entry for entry in errors if entry.get("path") == "/fail"]
    assert failed["message"].startswith("ValueError: no luck")
    assert failed["by"] == "shop"
    assert "shop.py" in failed["error"]
    assert "s3cret" not in file.read_text()
    assert len(shown) == 3
    assert shown[0]["message"] in ("GET /logs 401", "GET /logs 200")


async def test_P3_files_are_rotated_by_size_and_count(tmp_path: Path) -> None:
    application(tmp_path, 'max_size = "1k"\nmax_files = 3\nformat = "text"\n')
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for number in range(50):
                assert (await client.get(f"/sell/{number}")).status_code == 200
    files = sorted((tmp_path / "logs").iterdir())
    assert [file.name for file in files] == ["requests.log", "requests.log.1", "requests.log.2"]
    assert all(file.stat().st_size <= 1024 for file in files)
    last = files[0].read_text().splitlines()[-1]
    assert "info    requestlog  GET /sell/49 200" in last


async def test_P3_errors_outside_of_requests_and_a_reload(tmp_path: Path) -> None:
    application(tmp_path)
    file = tmp_path / "logs" / "requests.log"
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        await manager.bus.emit("tick")
        assert [entry["event"] for entry in entries(file) if "error" in entry][-1] == "tick"
        await manager.reload_plugin("requestlog", {"level": "error", "file": "logs/other.log"})
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/nothing")
            await client.get("/fail")
        other = entries(tmp_path / "logs" / "other.log")
        assert {entry["level"] for entry in other} == {"error"}
        assert not any("/fail" in entry["message"] for entry in entries(file))


@pytest.mark.parametrize(
    "config", [{"max_size": "10x"}, {"max_files": 0}, {"format": "xml"}, {"level": "loud"}]
)
async def test_P3_settings_that_make_no_sense_are_refused(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    application(tmp_path)
    options: dict[str, Any] = {"root": tmp_path, "adapter": "asgi", "auto_load": False}
    async with PluginManager(**options) as manager:
        with pytest.raises(ConfigError):
            await manager.load_plugin("requestlog", config)


async def test_P3_without_a_token_there_is_no_route(tmp_path: Path) -> None:
    application(tmp_path)
    (tmp_path / "veko.toml").write_text('storage = "none"\n')
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/logs")).status_code == 404
