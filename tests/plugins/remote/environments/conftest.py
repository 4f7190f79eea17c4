"""What the tests of environments share: an index that can be reached, or a plain word about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from veko_plugins.remote.environments.index import index_variables


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip a test, in CI fail it, if uv does not reach the package index."""
    found = Path(sys.executable).with_name("uv")
    uv = str(found) if found.exists() else "uv"
    ran = subprocess.run(
        [uv, "pip", "compile", "-", "--quiet"],
        input="idna==2.10",
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path_factory.mktemp("index"),
        env={**os.environ, **index_variables(os.environ)},
    )
    if ran.returncode:
        missing = f"the package index cannot be reached: {ran.stderr.strip()}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
