"""The example `monitoring`: counters, thresholds and alerts, over HTTP."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko import ConfigError
from veko_plugins import PluginManager

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "monitoring"
SECONDS = 60.0
TOKEN = "long and secret"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
SHOP = """
name = "shop"
version = "1.0.0"
dependencies = ["monitoring"]

def load(context):
    monitoring = context.use("monitoring")

    def sell():
        monitoring.count("orders")
        return "sold"

    def fail():
        raise ValueError("no luck")

    context.add_route("GET", "/sell", sell)
    context.add_route("GET", "/fail", fail)
    context.hook("plugin:monitoring:alert", lambda alert: print(
        f"{alert.measure} {alert.state}", flush=True))
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def application(root: Path, settings: str = "", thresholds: str = "") -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLE, root / "plugins" / "monitoring", ignore=ignored)
    (root / "plugins" / "shop.py").write_text(SHOP)
    (root / "veko.toml").write_text(
        f'error_threshold = 1000\n[plugins.monitoring]\ntoken = "{TOKEN}"\n{settings}'
        f"[plugins.monitoring.thresholds]\n{thresholds}"
    )
    return root


def test_P4_alerts_are_raised_and_resolved_over_http(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    settings = "window = 3\nevery = 0.1\nleast = 10\n"
    application(tmp_path, settings, "plugin_errors = 5\np95 = 100\ncounters = { orders = 8 }\n")
    served = start("serve", tmp_path, "--port", "0")
    url = served.wait_for(r"Listening on (\S+)")[1]
    with httpx.Client(base_url=url, timeout=30) as client:
        for path in ("/monitoring", "/monitoring/alerts"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"authorization": "Bearer x"}).status_code == 401
        for _ in range(10):
            assert client.get("/sell").status_code == 200
            assert client.get("/fail").status_code == 500
        end = time.monotonic() + SECONDS
        wanted = {"error_rate", "errors shop", "counter orders"}
        history: list[dict[str, Any]] = []
        while {one["measure"] for one in history if one["state"] == "resolved"} < wanted:
            assert time.monotonic() < end, history
            if {one["measure"] for one in history if one["state"] == "raised"} < wanted:
                client.get("/sell")
                client.get("/fail")
            history = client.get("/monitoring/alerts", headers=HEADERS).json()["history"]
            time.sleep(0.05)
        shown = client.get("/monitoring", headers=HEADERS).json()
    assert shown["totals"]["status 5xx"] >= 10
    assert shown["totals"]["counter orders"] >= 10
    assert shown["totals"]["status 4xx"] == 4
    assert shown["measures"]["memory"]["value"] > 1
    for measure in wanted:
        states = [one["state"] for one in history if one["measure"] == measure]
        assert states[:2] == ["raised", "resolved"]
    (first, *_) = [one for one in history if one["measure"] == "error_rate"]
    assert first["value"] > first["threshold"] == 0.05
    served.process.send_signal(signal.SIGTERM)
    assert served.ends() == 0
    assert "errors shop raised" in served.lines
    assert "errors shop resolved" in served.lines
    assert "alert raised: errors shop is" in served.text


async def test_P4_nothing_is_raised_when_there_is_too_little_to_judge(tmp_path: Path) -> None:
    application(tmp_path, "every = 1000\n")
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        monitoring = manager.use("monitoring")
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(5):
                assert (await client.get("/fail")).status_code == 500
            await monitoring.compare()
            assert monitoring.raised == {}
            for _ in range(15):
                await client.get("/fail")
            await monitoring.compare()
            await monitoring.compare()
            assert set(monitoring.raised) == {"error_rate", "errors shop"}
            assert len(monitoring.history()) == 2
            # A threshold that is changed applies at once.
            await manager.kernel.update_config(
                "monitoring", {"thresholds": {"error_rate": None, "plugin_errors": 1000}}
            )
            await monitoring.compare()
            assert monitoring.raised == {}
            assert [alert["state"] for alert in monitoring.history()] == [
                "raised", "raised", "resolved", "resolved",
            ]  # fmt: skip


async def test_P4_the_window_slides_and_is_bounded(tmp_path: Path) -> None:
    application(tmp_path, "every = 1000\n")
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        kind = type(manager.use("monitoring").window)
        now = [0.0]
        window = kind(10, lambda: now[0])
        for second in range(20):
            now[0] = float(second)
            window.count("a", 2)
            window.took(second / 100)
        assert window.counts() == {"a": 20}
        assert window.quantile(0.5) == 0.15
        for number in range(5000):
            window.count(f"counter {number}")
            window.took(1.0)
        assert len(window.counts()) < 1100
        assert sum(window.counts().values()) == 20 + 5000
        now[0] = 100.0
        assert window.counts() == {}
        assert window.quantile(0.95) == 0


@pytest.mark.parametrize(
    "config",
    [{"window": 0}, {"every": 0}, {"thresholds": {"error_rate": 2}}, {"thresholds": {"p96": 1}}],
)
async def test_P4_settings_that_make_no_sense_are_refused(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    application(tmp_path)
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        with pytest.raises(ConfigError):
            await manager.kernel.update_config("monitoring", config)


async def test_P4_without_a_token_there_are_no_routes(tmp_path: Path) -> None:
    application(tmp_path)
    (tmp_path / "veko.toml").write_text("")
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/monitoring")).status_code == 404
