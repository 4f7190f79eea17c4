"""Every template: generated, checked, its own tests run, served by `veko serve` and called."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from veko_plugins.scaffold import TEMPLATES, create_application, generate_plugin_now

NAMES = {name: f"my-{name}" for name in TEMPLATES}
LONG = {name: f"long.{name[:4]}".ljust(40, "x") for name in TEMPLATES}
FIXED = {
    "basic": {"GET /my-basic/ann": (200, {"text": "Hello, ann!"})},
    "typescript": {"GET /my-typescript/ann": (200, {"text": "Hello, ann!"})},
    "api": {
        "GET /api/my-api": (200, []),
        'POST /api/my-api {"text": ""}': (400, None),
        'POST /api/my-api {"text": "milk"}': (201, None),
        "GET /api/my-api/none": (404, None),
    },
    "websocket": {"GET /my-websocket": (200, {"here": 0})},
    "database": {
        "GET /my-database": (200, []),
        'POST /my-database {"title": "milk"}': (
            201, {"id": 1, "title": "milk", "done": False},
        ),
        "DELETE /my-database/1": (204, None),
    },
    "auth": {
        "GET /my-auth/me": (401, None),
        'POST /my-auth/register {"name": "ann", "password": "correct horse"}': (
            201, {"name": "ann", "roles": []},
        ),
        'POST /my-auth/login {"name": "ann", "password": "correct horse"}': (200, None),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application with a plugin from each template."""
    root = tmp_path_factory.mktemp("scaffold") / "shop"
    create_application(root)
    options = [line for one in TEMPLATES.values() for line in one.options]
    text = (root / "veko.toml").read_text()
    (root / "veko.toml").write_text("\n".join([*options, text]))
    for template, name in NAMES.items():
        generate_plugin_now(name, template, root / "plugins", {"author": 'A "B"'})
    return root


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
    )


@pytest.mark.parametrize("template", TEMPLATES)
def test_D3_the_tests_of_the_template_pass(application: Path, template: str) -> None:
    folder = f"plugins/my_{template}"
    done = run("pytest", "-q", "-W", "error", "-p", "no:cacheprovider", folder, cwd=application)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_the_tests_of_the_application_pass_in_one_run(application: Path) -> None:
    words = ["-q", "-p", "no:cacheprovider", "tests", "plugins/hello", "plugins/my_basic"]
    done = run("pytest", *words, cwd=application)
    assert done.returncode == 0, done.stdout + done.stderr


def test_type_checkers_and_linters_accept_them(application: Path, tmp_path: Path) -> None:
    for template, name in LONG.items():  # no line becomes too long
        generate_plugin_now(name, template, application / "plugins" / "long", {})
    for words in (["check"], ["format", "--check", "--diff"]):
        done = run("ruff", *words, "--isolated", "--no-cache", ".", cwd=application)
        assert done.returncode == 0, done.stdout + done.stderr
    every = ["--select", "A,ASYNC,B,C4,E4,E7,E9,F,I,LOG,PIE,PL,PT,RET,RUF,SIM,UP,W"]
    every += ["--ignore", "A001,A002,PLR2004,PT006,RUF006,A004"]
    done = run("ruff", "check", "--isolated", "--no-cache", *every, ".", cwd=application)
    assert done.returncode == 0, done.stdout + done.stderr
    words = ["--strict", "--cache-dir", tmp_path / "mypy", "plugins", "tests"]
    done = run("mypy", *words, cwd=application)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_is_valid_and_documented(application: Path) -> None:
    for template in TEMPLATES:
        folder = application / "plugins" / f"my_{template}"
        done = run("veko_plugins.cli", "validate", folder, "--strict", cwd=application)
        assert done.returncode == 0, done.stdout + done.stderr
        readme = (folder / "README.md").read_text()
        assert readme.startswith(f"# my-{template}\n")
        assert f"[plugins.my-{template}]" in readme
        assert "{{" not in readme
        assert "{%" not in readme


async def test_all_are_served(application: Path, start: Callable[..., Any]) -> None:
    served = await asyncio.to_thread(start, "serve", application, "--port", "0")
    address = (await asyncio.to_thread(served.wait_for, r"http://([\d.:]+)"))[1]
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as client:
        for calls in FIXED.values():
            for call, (status, body) in calls.items():
                method, path, *rest = call.split(" ", 2)
                answer = await client.request(
                    method,
                    path,
                    content=rest[0] if rest else None,
                    headers={"content-type": "application/json"},
                )
                assert answer.status_code == status, (call, answer.text, served.text)
                assert body is None or answer.json() == body, call
                # The middleware measures what is answered, not what is refused.
                assert ("x-response-time" in answer.headers) is (status < 400)
        assert (await client.get("/hello/ann")).json() == {"text": "Hello, ann!"}
    url = f"ws://{address}/ws/my-websocket"
    async with (
        websockets.connect(url, proxy=None) as ann,
        websockets.connect(url, proxy=None) as bob,
    ):
        await ann.send("hello")
        assert await asyncio.wait_for(bob.recv(), 10) == "hello"
