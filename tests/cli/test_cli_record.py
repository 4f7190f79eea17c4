"""`veko record` and `veko replay`, as a user runs them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

PLUGIN = """
name, version = "shop", "1.0.0"

def load(app, config, context):
    async def buy(request):
        data = await request.json()
        if data["count"] < 0:
            raise ValueError("no such count")
        return {"bought": data["count"]}

    context.add_route("POST", "/buy", buy)
"""
FIXED = PLUGIN.replace('raise ValueError("no such count")', 'return {"bought": 0}')


def veko(*words: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "veko_plugins.cli", *words],
        capture_output=True, text=True, timeout=120, check=False, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def app(tmp_path: Path) -> Path:
    tmp_path.joinpath("plugins").mkdir()
    tmp_path.joinpath("plugins", "shop.py").write_text(PLUGIN)
    tmp_path.joinpath("veko.toml").write_text('adapter = "asgi"\n[plugins.recording]\n')
    tmp_path.joinpath("fixed.py").write_text(FIXED)
    return tmp_path


def serve_and_fail(app: Path, start: Callable[..., Any]) -> None:
    """Serve the application, let it fail, ask for recordings meanwhile, and stop it."""
    running = start("serve", app, "--port", 0)
    url = running.wait_for(r"Listening on (http://[^\s,]+)")[1]
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.post("/buy", json={"count": 2}).status_code == 200
        assert client.post("/buy", json={"count": -1}).status_code == 500
    assert "recording, " in veko("record", "where", "--dir", str(app), cwd=app)
    stopped = veko("record", "stop", "--dir", str(app), cwd=app)
    assert stopped.strip().endswith(".vekorec")
    assert "does not record" in veko("record", "stop", cwd=app, code=1)
    assert "recording" in veko("record", "start", cwd=app)
    running.process.send_signal(signal.SIGINT)
    assert running.ends() == 0


def test_from_a_failure_to_a_test_and_a_fixed_version(app: Path, start: Callable[..., Any]) -> None:
    serve_and_fail(app, start)
    where = json.loads(veko("record", "where", "--json", cwd=app))
    failing = [one for one in where["recordings"] if one["failures"]]
    assert failing[0]["failures"][0]["error"] == "ValueError"
    recording = failing[0]["path"]

    assert "2 replayed, 0 came out differently" in veko("replay", recording, cwd=app)
    differs = veko("replay", recording, "--with", "shop=fixed.py", cwd=app, code=1)
    assert "2 replayed, 1 came out differently" in differs
    assert "POST /buy: status\n  - 500\n  + 200" in differs
    shown = json.loads(veko("replay", recording, "--with", "shop=fixed.py", "--json", cwd=app,
                            code=1))  # fmt: skip
    assert {one["aspect"] for one in shown["differences"]} == {"failures", "status"}

    written = veko("record", f"--failure={recording}", cwd=app)
    file = app / "test_shop_post_buy_valueerror.py"
    assert file.name in written
    assert "reproduced by POST /buy (1 of 2 recorded)" in written
    assert "cannot be written" in veko("record", f"--failure={recording}", cwd=app, code=1)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=app)
    assert ran.returncode == 1
    assert "no such count" in ran.stdout
    fixed = {**os.environ, "PLUGIN_SHOP": str(app / "fixed.py")}
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=app, env=fixed
    )
    assert ran.returncode == 0, ran.stdout

    cut = app / "cut.vekorec"
    cut.write_bytes(Path(recording).read_bytes()[:-10])
    assert "is cut short" in veko("replay", str(cut), cwd=app)
    app.joinpath("plugins", "shop.py").unlink()
    gone = veko("replay", recording, cwd=app, code=1)
    assert "not loaded: shop" in gone
    assert "does not exist" in gone


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["record"], "start, stop, dump or where"),
        (["replay", "missing.vekorec"], "cannot be read"),
        (["replay", "veko.toml"], "is no recording"),
        (["record", "--failure"], "there is no recording"),
        (["replay", "veko.toml", "--with", "shop"], "is no recording"),
    ],
)
def test_wrong_usage_is_2(app: Path, words: list[str], says: str) -> None:
    assert says in veko(*words, cwd=app, code=2)


def test_an_application_that_does_not_run_is_an_error(app: Path) -> None:
    assert "is not running" in veko("record", "start", cwd=app, code=1)
    assert "off" in veko("record", "where", cwd=app)
