"""What the command line imports before a command runs: modules are counted, not seconds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = (
    "anyio", "asyncio", "jinja2", "litestar", "msgspec", "opentelemetry", "packaging", "pytest",
    "starlette", "uvicorn", "veko._bus", "veko._life", "veko_adapters", "veko_plugins.logging",
    "veko_plugins.manager",
)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "completing"),
    [("--version", ""), ("-V", ""), ("--help", ""), ("serve --help", ""), ("", "bash_complete")],
    ids=["version", "V", "help", "help-of-serve", "completion"],
)
def test_only_what_click_needs_is_imported(words: str, completing: str) -> None:
    """Help, completion and the version answer without the manager: people wait for them."""
    env = dict(os.environ, COLUMNS="80")
    if completing:
        env |= {"_VEKO_COMPLETE": completing, "COMP_WORDS": "veko se", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "veko_command", *words.split()],
        capture_output=True, text=True, check=True, env=env,
    )  # fmt: skip
    assert done.stdout.strip()
    found = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "rich_click" in found
    assert not [n for n in sorted(found) if n.startswith(tuple(f"{one}." for one in HEAVY))]
    assert not found.intersection(HEAVY)
