"""A plugin's own tests: where they are, and how they run, in a pytest of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import anyio

from veko import OptionError, PluginRecord

__all__ = ["own_tests", "tests_of"]

_SECONDS: Final = 600.0
_NO_TESTS: Final = 5
"""What pytest exits with if it has collected no tests."""


def tests_of(source: Path) -> list[Path]:
    """Return the files and folders with a plugin's tests.

    These are `tests/` and `test_*.py` in the folder of a package; for a single file, those named
    after it beside it, in `tests/` beside it, or beside the folder that it is in.

    Args:
        source: The plugin's file, or the folder or `__init__.py` of a package.
    """
    if source.name == "__init__.py":
        source = source.parent
    named = f"test_{source.stem.replace('-', '_')}"
    if source.is_dir():
        inside = [source / "tests", *sorted(source.glob("test_*.py"))]
        found = [one for one in inside if one.exists()]
        if found:
            return found
    nearby = (source.parent, source.parent / "tests", source.parent.parent / "tests")
    wanted = (f"{named}.py", f"{named}_*.py", named)
    return list(
        dict.fromkeys(
            one for folder in nearby for pattern in wanted for one in sorted(folder.glob(pattern))
        )
    )


async def own_tests(record: PluginRecord) -> list[str] | None:
    """Run a plugin's own tests, in a process of their own.

    Returns:
        A line for each test that failed; `None` if there are no tests.

    Raises:
        OptionError: pytest is not installed.
    """
    paths = tests_of(record.source) if record.source is not None else []
    if not paths:
        return None
    if importlib.util.find_spec("pytest") is None:
        raise OptionError("its tests need pytest", remedy="pip install 'veko[testing]'")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", *map(str, paths)]
        root = _root(paths[0])
        done = None
        with anyio.move_on_after(_SECONDS):
            done = await anyio.run_process(
                [sys.executable, "-m", "pytest", *words],
                cwd=root,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        if done is None:
            return [f"its tests did not end within {_SECONDS:g} s"]
        if done.returncode == _NO_TESTS:
            return None
        failed = _failed(report)
        if done.returncode and not failed:
            text = done.stdout.decode("utf-8", "replace").strip()
            return [f"pytest ended with {done.returncode}: {text[-2_000:]}"]
        return failed


def _root(path: Path) -> Path:
    """Return the folder to run tests in: the nearest with settings of pytest, or the tests' own."""
    start = path if path.is_dir() else path.parent
    for folder in (start, *start.parents):
        if any((folder / name).is_file() for name in ("pytest.ini", "pyproject.toml", "tox.ini")):
            return folder
    return start


def _failed(report: Path) -> list[str]:
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        for case in ElementTree.parse(report).iter("testcase"):
            for kind in ("failure", "error"):
                for found in case.iter(kind):
                    name = f"{case.get('classname', '')}::{case.get('name', '')}"
                    message = (found.get("message") or "").splitlines()
                    lines.append(f"{name}: {message[0] if message else kind}")
    return lines
