"""Each row of the parity table that is due has a test, and the script that says so is right."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def parity(*arguments: str | Path) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.parity", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.stderr == ""
    return ran.returncode, ran.stdout


def test_every_row_that_is_due_has_a_test() -> None:
    code, text = parity()
    assert code == 0, text.partition("rows are due")[2]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Tests that cover all of nothing but one row and two events."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "test_some.py").write_text(
        "def test_A9_M13_both(): ...\n"
        "class TestThem:\n"
        "    async def test_c4_in_small_letters(self): ...\n"
        "def test_H_app_init_by_name(): ...\n"
        "def test_H_by_what_it_says(): hook('app:start')\n"
        "def test_H_all_are_declared(): ['app:stop']\n"
        "def helper(): hook('app:restart')\n"
        "def test_p99_is_low(): ...\n"
        "raise SystemExit('read, not run')\n"
    )
    (tmp_path / "helpers.py").write_text("def test_A10_not_in_a_file_of_tests(): ...\n")
    return tmp_path


def test_what_covers_a_row(other: Path) -> None:
    code, text = parity(other)
    assert code == 1
    table, _, missing = text.partition(" rows are due, ")
    lines = {line[:44].strip(): line[44:] for line in table.splitlines()}
    assert lines["A9    backup_plugins"] == "deep/test_some.py:1 test_A9_M13_both"
    assert lines["M13   unload, activate, deactivate"] == "deep/test_some.py:1 test_A9_M13_both"
    assert lines["C4    hook"] == "deep/test_some.py:3 test_c4_in_small_letters"
    assert lines["H     app:init"] == "deep/test_some.py:4 test_H_app_init_by_name"
    assert lines["H     app:start"] == "deep/test_some.py:5 test_H_by_what_it_says"
    assert lines["H     app:stop"] == lines["H     app:restart"] == "MISSING"
    assert lines["A10   restore_plugins"] == "MISSING"
    assert lines["O13   enable_api"] == "MISSING"
    assert lines["D9    veko debug, --log-level, hooks"] == "MISSING"
    assert "  A10   restore_plugins\n" in missing
    assert "A9 " not in missing


def test_a_row_that_is_none(other: Path) -> None:
    (other / "test_typo.py").write_text("def test_A17_nothing(): ...\n")
    code, text = parity(other)
    assert code == 1
    assert "test_typo.py:1 test_A17_nothing: A17 is not a row" in text
    assert "P99" not in text.upper().replace("TEST_P99", "")
