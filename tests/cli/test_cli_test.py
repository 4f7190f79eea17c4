"""`veko test`: grades on the command line, its JSON, and its exit codes."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
PLUGIN = """
name = "mine"
version = "1.0.0"

def load(context):
    print("it prints")
    context.add_route("GET", "/mine", lambda: "mine")
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(PLUGIN)
    return tmp_path


def test_a_plugin_is_graded_by_name_and_by_path(veko: Run, application: Path) -> None:
    for wanted in ("mine", "plugins/mine.py"):
        done = veko("test", wanted, cwd=application)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "mine: silver; for gold it lacks: tests" in done.stdout
        assert "it prints" not in done.stdout
    assert not (application / ".veko" / "storage.db").exists()


def test_a_path_needs_no_application(veko: Run, application: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = veko("test", application / "plugins" / "mine.py", cwd=elsewhere)
    assert (done.returncode, "mine: silver" in done.stdout) == (0, True), done.stderr


def test_json_and_the_tier_that_is_needed(veko: Run, application: Path) -> None:
    done = veko("test", "mine", "--json", "--tier", "platinum", cwd=application)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["plugin"], found["tier"], found["next"]) == ("mine", "silver", "gold")
    assert found["missing"] == ["tests: there are none"]


def test_all_plugins_of_an_application(veko: Run, application: Path) -> None:
    (application / "plugins" / "other.py").write_text(PLUGIN.replace("mine", "other"))
    done = veko("test", "--json", "--no-tests", cwd=application)
    assert [one["plugin"] for one in json.loads(done.stdout)] == ["mine", "other"]
    assert done.returncode == 0


def test_failing_tests_and_plugins_that_do_not_load_are_1(veko: Run, application: Path) -> None:
    tests = application / "tests"
    tests.mkdir()
    (tests / "test_mine.py").write_text("def test_it():\n    assert False, 'no'\n")
    done = veko("test", "mine", cwd=application)
    assert (done.returncode, "test_mine::test_it" in done.stdout) == (1, True)
    assert veko("test", "mine", "--no-tests", cwd=application).returncode == 0
    (application / "plugins" / "mine.py").write_text(PLUGIN + "\nload = None\n")
    done = veko("test", "mine", "--no-tests", cwd=application)
    assert (done.returncode, "mine: none; for bronze" in done.stdout) == (1, True), done.stdout


def test_wrong_usage_is_2(veko: Run, application: Path, tmp_path: Path) -> None:
    done = veko("test", "nothing", cwd=application)
    assert (done.returncode, "nothing" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
    assert veko("test", "mine", "--tier", "wood", cwd=application).returncode == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    assert veko("test", cwd=empty).returncode == 2


def test_a_leak_is_named(veko: Run, application: Path) -> None:
    leaking = PLUGIN.replace('print("it prints")', "import sys\n    sys.kept = load")
    (application / "plugins" / "mine.py").write_text(leaking)
    done = veko("test", "mine", "--no-tests", cwd=application)
    assert "attribute `kept` of module sys" in done.stdout
    assert "holds function load of veko_generation.mine_" in done.stdout
    assert "mine.py:7: attribute `kept`" in done.stdout
