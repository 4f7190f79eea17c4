"""Each benchmark runs, and docs/benchmarks.md has a section for each of its parts.

They run for as short as they can, so the figures say nothing; `make bench` measures.
"""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if not file.name.startswith("_"))
PAGE = (ROOT / "docs/benchmarks.md").read_text("utf-8")
# Others need valgrind, wrk, Chromium or servers, or load for long.
QUICK = (
    "auth",
    "holders",
    "ledger",
    "leaks",
    "logs",
    "metrics",
    "recording",
    "routing",
    "watchdog",
)
PEERS = {"auth": "pwdlib", "logs": "pythonjsonlogger"}


def listed() -> list[str]:
    found = re.search(r"SCRIPTS: Final = \((.*?)\)", (FOLDER / "run.py").read_text("utf-8"), re.S)
    assert found is not None
    return re.findall(r'"(\w+)"', found[1])


def test_all_are_run_by_make_bench() -> None:
    assert sorted([*listed(), "run"]) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_says_its_question_and_how_it_is_called(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text("utf-8")
    text = source.split('"""')[1]
    assert name == "run" or "?" in text.partition("\n\n")[0]
    assert f"python benchmarks/{name}.py" in text
    assert f"`{name}.py`" in PAGE or name == "run"


@pytest.mark.parametrize("name", listed())
def test_the_page_has_a_section_for_each(name: str) -> None:
    marks = re.findall(rf"<!-- ({name}(?:: [^>]*)?) -->", PAGE)
    parts = re.findall(r'report\.part\(f?"([^"{]+)', (FOLDER / f"{name}.py").read_text("utf-8"))
    assert marks
    for mark in marks:
        assert f"<!-- end of {mark} -->" in PAGE
    for part in parts:
        assert any(mark.startswith(part) for mark in marks), part


@pytest.mark.parametrize("name", QUICK)
def test_it_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip(PEERS.get(name, "veko"))
    file = tmp_path / "result.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--seconds", "0.01"]
    done = subprocess.run(
        [*command, "--result", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = msgspec.json.decode(file.read_bytes())
    assert result["parts"]
    for part, text in result["parts"].items():
        assert f"<!-- {part} -->" in PAGE
        assert "|" in text


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the names of run.py, which writes into another page."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = runpy.run_path(str(FOLDER / "run.py"))
    names["write"].__globals__.update(DOCS=tmp_path, README=tmp_path / "README.md")
    (tmp_path / "README.md").write_text("<!-- performance -->\n<!-- end of performance -->\n")
    marks = ["run", "missed", "one", "one: more", "two"]
    text = "".join(f"<!-- {mark} -->\nold\n<!-- end of {mark} -->\n" for mark in marks)
    (tmp_path / "benchmarks.md").write_text(text)
    return names


def a_run(run: dict[str, Any], failed: str = "", **parts: str) -> Any:
    goal = run["Goal"]("a hook", "9 ns", "≤ 5 ns", False)
    result = run["Result"](parts, [] if failed else [goal], {"one.svg": "<svg/>"} if parts else {})
    return run["Run"]("abc", "3.11.7", "2026-01-01 00:00", 1.0, 0.5, result, failed)


def test_a_script_that_fails_is_named_in_its_parts(run: dict[str, Any], tmp_path: Path) -> None:
    run["write"]({"one": a_run(run, "exit code 1"), "two": a_run(run, two="new")})
    text = (tmp_path / "benchmarks.md").read_text()
    assert text.count("`benchmarks/one.py` failed: exit code 1.") == 2
    assert "Failed, so not measured: one (exit code 1)." in text
    assert "| a hook | " in text
    assert "new" in text
    assert "old" not in text


def test_nothing_is_written_unless_all_of_it_is(run: dict[str, Any], tmp_path: Path) -> None:
    before = (tmp_path / "benchmarks.md").read_text()
    with pytest.raises(SystemExit, match="no lines <!-- unknown -->"):
        run["write"]({"one": a_run(run, one="new"), "two": a_run(run, unknown="new")})
    assert (tmp_path / "benchmarks.md").read_text() == before
    assert not (tmp_path / "one.svg").exists()


def test_counts_fail_that_got_dearer_or_have_nothing_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    check = runpy.run_path(str(FOLDER / "instructions.py"))["check"]
    written = {"3.11": {"GET asgi": 3.0, "gather, 5 async": 1.0}}
    assert check({"GET asgi": 3.1, "gather, 5 async": 1.0}, written, "3.11") == 0
    assert not capsys.readouterr().err
    assert check({"GET asgi": 3.2}, written, "3.11") == 1
    assert "GET asgi: 3.20× GET by hand, 3.00× before" in capsys.readouterr().err
    assert check({"GET asgi": 3.0}, written, "3.14") == 1
    said = capsys.readouterr().err
    assert "nothing for Python 3.14 to compare with" in said
    assert "It has 3.11;" in said
    assert "instructions.py --write" in said
