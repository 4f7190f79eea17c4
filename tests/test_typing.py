"""What type checkers refuse: each line of tests/typing/refused that is marked, and no other.

A line that mypy and pyright must both refuse ends with `# refused`. What they must accept stands in
the files above that folder, which are checked with the sources.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "tests" / "typing" / "refused").glob("*.py"))
Lines = set[tuple[str, int]]
"""Names of files, and lines in them."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_refuse_the_marked_lines(checker: str, path: Path) -> None:
    marked = set(_marked(path))
    found = {line for name, line in _refused_by(checker) if name == path.name}
    assert marked
    assert sorted(marked - found) == [], "accepted"
    assert sorted(found - marked) == [], "refused without a mark"


def _marked(path: Path) -> Iterator[int]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.endswith("# refused"):
            yield number


@cache
def _refused_by(checker: str) -> Lines:
    """Run a checker once over all files."""
    options = {
        "mypy": ["--no-error-summary", "--hide-error-context", "--no-pretty"],
        "pyright": ["--pythonpath", sys.executable, "--outputjson"],
    }
    ran = subprocess.run(
        [sys.executable, "-m", checker, *options[checker], *map(str, FILES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    if checker == "mypy":
        errors = re.findall(r"^([^\n:]+):(\d+): error:", ran.stdout, re.MULTILINE)
        return {(Path(file).name, int(line)) for file, line in errors}
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in json.loads(ran.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    }
