"""Schemathesis against the example application: what it says of itself holds, for odd requests too.

A bounded run with a fixed seed, over real sockets, once an adapter.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ..conftest import Veko

SHORTENER = Path(__file__).parents[2] / "examples" / "shortener"
TOKEN = {"Authorization": "Bearer chosen"}


@pytest.fixture(params=["litestar", "starlette", "asgi"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of the example application, which lets anybody ask as often as he likes."""
    root = tmp_path / "shortener"
    shutil.copytree(SHORTENER, root, ignore=shutil.ignore_patterns(".veko", "__pycache__"))
    settings = (root / "veko.toml").read_text()
    (root / "veko.toml").write_text(settings.replace("requests = 120", "requests = 1_000_000"))
    environ = {"VEKO_ADAPTER": request.param, "SHORTENER_ADMIN_TOKEN": "chosen"}
    with Veko("serve", str(root), "--port", "0", **environ) as veko:
        yield veko.wait_for(r"Listening on (\S+)")[1]
        veko.stop()
        assert "Traceback" not in veko.text, veko.text


def test_what_the_document_says_holds(served: str, tmp_path: Path) -> None:
    code = httpx.post(f"{served}/links", json={"url": "https://example.com/"}).json()["code"]
    # Codes are made up, so that no path would lead anywhere: in one of two runs it is a real one.
    (tmp_path / "known.toml").write_text(f'[parameters]\n"path.code" = "{code}"\n')
    (tmp_path / "unknown.toml").write_text("")
    for config in ("known.toml", "unknown.toml"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run"),
                *("--seed", "1", "--max-examples", "15", "--phases", "examples,coverage,fuzzing"),
                *("--header", f"Authorization: {TOKEN['Authorization']}", "--no-color"),
                # GET /links is answered by GET /{code}, and `Allow` is right to say so.
                *("--exclude-checks", "allow_header_conformance"),
                f"{served}/schema/openapi.json",
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "7 selected / 7 total" in done.stdout, done.stdout
    listed = httpx.get(f"{served}/admin/links", headers=TOKEN)
    assert listed.status_code == 200
