"""Schemathesis against the API's own document: what it says holds, for odd requests too."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.plugins.admin.conftest import TOKEN, Home

AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
# 412 and 428 refuse what the schema allows; OPTIONS lists the methods of all of the API's paths.
EXCLUDED = "positive_data_acceptance,allow_header_conformance"


@pytest.fixture
def served(start: Callable[..., Any], home: Home) -> Any:
    """An application that serves the API, and its process."""
    (home.root / "veko.toml").write_text(
        f'enable_api = true\nadapter = "asgi"\n[plugins.admin]\ntoken = "{TOKEN}"\n'
    )
    return start("serve", home.root, "--port", 0)


@pytest.mark.parametrize("known", [True, False], ids=["known names", "any names"])
def test_what_the_document_says_holds(served: Any, tmp_path: Path, known: bool) -> None:
    url = served.wait_for(r"Listening on (http://\S+)")[1]
    (tmp_path / "config.toml").write_text('[parameters]\n"path.name" = "shop"\n' if known else "")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "config.toml", "run"),
            *("--seed", "1", "--max-examples", "5", "--phases", "examples,coverage,fuzzing"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--no-color"),
            *("--exclude-checks", EXCLUDED, "--exclude-path", "/_veko/api/stream"),
            f"{url}/_veko/api/openapi.json",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = re.search(r"Selected: (\d+)/\d+\s+Tested: (\d+)", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) == int(found[2]) >= 30
    assert httpx.get(f"{url}/_veko/api/status", headers=AUTHORIZATION).status_code == 200
    served.process.send_signal(signal.SIGTERM)
    assert served.ends() == 0
    assert "the management API failed" not in served.text


def test_the_api_is_in_the_document_of_the_application(served: Any) -> None:
    url = served.wait_for(r"Listening on (http://\S+)")[1]
    whole = httpx.get(f"{url}/schema/openapi.json").json()
    own = httpx.get(f"{url}/_veko/api/openapi.json", headers=AUTHORIZATION).json()
    for path, item in own["paths"].items():
        assert whole["paths"][path].keys() == item.keys()
    assert {"vekoToken", "vekoSession"} <= whole["components"]["securitySchemes"].keys()
    assert "/shop" in whole["paths"]
    from openapi_spec_validator import validate

    validate(whole)
    validate(own)
