"""The embedding examples run as their first lines say and print what they should."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["embed.py", "embed_trio.py"])
def test_embedding(name: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["hello, world", "HELLO, WORLD", "hello, world"]


def test_embedding_is_short() -> None:
    assert len((EXAMPLES / "embed.py").read_text().splitlines()) < 40
