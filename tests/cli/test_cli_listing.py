"""`veko list`, `veko events`, `veko run`, and what all commands share."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What was said on standard error, which must be one line and no traceback."""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_version(veko: Run) -> None:
    done = veko("--version")
    assert (done.returncode, done.stdout) == (0, "veko 2.0.0\n")


def test_help_names_the_commands_and_says_how_to_complete(veko: Run) -> None:
    done = veko("--help")
    assert done.returncode == 0
    for word in ("serve", "list", "events", "run", "veko completion bash", "Exit codes:"):
        assert word in done.stdout


def test_completion_is_clicks(veko: Run) -> None:
    done = veko(_VEKO_COMPLETE="bash_complete", COMP_WORDS="veko se", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,serve"]
    assert "_veko_completion" in veko(_VEKO_COMPLETE="bash_source").stdout
    assert veko("completion", "bash").stdout in veko(_VEKO_COMPLETE="bash_source").stdout


def test_without_the_extra_one_line_says_what_to_install() -> None:
    program = """
import sys
sys.modules["rich_click"] = None
from veko_plugins.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "pip install 'veko[cli]'" in one_line(done)


def test_list_shows_what_is_up_and_why_the_rest_is_not(veko: Run, application: Path) -> None:
    done = veko("list", application)
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert rows["hello"].split()[1:3] == ["1.2.3", "active"]
    assert rows["hello"].endswith("Says hello")
    assert "failed" in rows["broken"]
    assert "no luck" in rows["broken"]
    assert "skipped" in rows["needy"]
    assert "broken" in rows["needy"].removeprefix("needy")
    assert "storage" not in rows
    assert "Traceback" not in done.stderr


def test_list_as_json_is_json_whatever_plugins_print(veko: Run, application: Path) -> None:
    done = veko("list", "--json", cwd=application)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["hello"] == {
        "name": "hello",
        "version": "1.2.3",
        "state": "active",
        "type": rows["hello"]["type"],
        "description": "Says hello",
        "error": None,
    }
    assert "no luck" in rows["broken"]["error"]
    assert rows["needy"]["state"] == "skipped"


def test_a_reader_that_goes_away_is_no_error(application: Path) -> None:
    veko = subprocess.Popen(
        [sys.executable, "-m", "veko_plugins.cli", "events", "--json", application],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert veko.stdout is not None
    assert veko.stderr is not None
    with veko:
        veko.stdout.close()
        assert "BrokenPipe" not in veko.stderr.read()
        assert veko.wait(30) == 1


def test_list_core(veko: Run, application: Path) -> None:
    names = {
        row["name"] for row in json.loads(veko("list", "--core", "--json", application).stdout)
    }
    assert {"hello", "commands", "signals", "logging"} <= names


def test_a_folder_of_plugins_is_an_application_when_it_is_named(
    veko: Run, application: Path
) -> None:
    done = veko("list", "plugins", cwd=application)
    assert "hello" in done.stdout
    done = veko("list", cwd=application / "plugins")
    assert done.returncode == 2
    assert "no application" in one_line(done)


@pytest.mark.parametrize("words", [["list"], ["serve"], ["events"], ["run", "x", "--dir"]])
def test_a_folder_that_is_not_there(veko: Run, words: list[str]) -> None:
    done = veko(*words, "nowhere")
    assert done.returncode == 2
    assert "nowhere does not exist" in one_line(done)
    assert done.stdout == ""


def test_a_bad_option_in_the_settings_is_one_line(veko: Run, application: Path) -> None:
    (application / "veko.toml").write_text("max_retrys = 0\n")
    done = veko("list", application)
    assert done.returncode == 1
    assert "max_retries" in one_line(done)
    assert "Traceback" in veko("--debug", "list", application).stderr
    assert "Traceback" in veko("list", "--debug", application).stderr


def test_events_without_an_application(veko: Run, tmp_path: Path) -> None:
    done = veko("events", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("request:start", "plugin:loaded", "error:handle", "log"):
        assert f"\n{name} " in f"\n{done.stdout}"
    assert list(tmp_path.iterdir()) == []


def test_events_of_an_application(veko: Run, application: Path) -> None:
    done = veko("events", "--json", application)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["links:made"] == {
        "name": "links:made",
        "payload": "str",
        "returns": True,
        "fails_closed": False,
        "stops": None,
        "doc": "A link was made.",
    }
    assert rows["request:start"]["payload"] == "Request"
    text = veko("events", application).stdout
    assert "links:made" in text
    assert "A link was made." in text


def test_run(veko: Run, application: Path) -> None:
    done = veko("run", "greet", "--loud", "you", "--times", "2", cwd=application)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1] == "HELLO YOU HELLO YOU"
    done = veko("run", "greet", "you", "--dir", application)
    assert "hello you\n" in done.stdout
    assert "hello says goodbye" in done.stdout
    assert "broken" in done.stderr


def test_run_prints_what_a_plugin_in_a_worker_prints(veko: Run, tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "python.py").write_text(
        "name, version, isolation = 'python', '1', 'process'\n"
        "def load(context):\n"
        "    print('not this')\n"
        "    context.add_command('hi', hi)\n"
        "def hi(n: int = 1):\n"
        "    for _ in range(n): print('printed')\n"
        "    return 'returned'\n"
    )
    (folder / "script.js").write_text(
        "module.exports = { name: 'script', version: '1.0.0', load(app, config, context) {\n"
        "  console.log('not this');\n"
        "  context.addCommand('ho', (...words) => { console.log('said', ...words); });\n"
        "} };\n"
    )
    done = veko("run", "--dir", tmp_path, "hi", "--n", "2")
    assert (done.returncode, done.stdout) == (0, "printed\nprinted\nreturned\n")
    done = veko("run", "--dir", tmp_path, "ho", "a", "b")
    assert (done.returncode, done.stdout) == (0, "said a b\n")


def test_run_prints_data_as_json_and_bytes_as_they_are(veko: Run, application: Path) -> None:
    (application / "plugins" / "broken.py").unlink()
    (application / "plugins" / "needy.py").unlink()
    done = veko("run", "--dir", application, "data")
    text = done.stdout.removeprefix("hello prints while it loads\n")
    assert json.loads(text.removesuffix("hello says goodbye\n")) == {"a": [1, None]}
    assert "\udcff" in veko("run", "--dir", application, "raw").stdout


def test_run_help(veko: Run, application: Path) -> None:
    done = veko("run", "greet", "--help", cwd=application)
    assert done.returncode == 0
    assert "--times INTEGER" in done.stdout
    assert "Greet somebody." in done.stdout
    assert "--dir" in veko("run", "--help").stdout
    assert "greet" in veko("run", cwd=application).stdout


def test_words_after_dashes_are_the_commands(veko: Run, application: Path) -> None:
    done = veko("run", "greet", "--", "you", "--times", "2", cwd=application)
    assert "hello you hello you" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fail"], 1, "it was the wrong day"),
        (["exit", "3"], 3, "exited: 3"),
        (["exit", "259"], 3, "exited: 259"),
        (["exit", "--", "-1"], 255, "exited: -1"),
        (["exit", "-1"], 255, "exited: -1"),
        (["greet"], 2, "missing argument 'NAME'"),
        (["greet", "you", "--times", "x"], 2, "'x' is not a valid integer"),
        (["greet", "you", "--tims", "2"], 2, "--times"),
        (["great"], 2, "Did you mean 'greet'"),
    ],
)
def test_run_that_goes_wrong(
    veko: Run, application: Path, words: list[str], code: int, said: str
) -> None:
    (application / "plugins" / "broken.py").unlink()
    (application / "plugins" / "needy.py").unlink()
    done = veko("run", *words, cwd=application)
    assert done.returncode == code
    assert said in one_line(done)


def test_usage_errors_are_clicks(veko: Run) -> None:
    done = veko("serve", "--port", "x")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "--port" in done.stderr
    assert veko("sevre").returncode == 2


def test_routes_say_which_plugin_answers(veko: Run, application: Path) -> None:
    done = veko("routes", application)
    assert done.returncode == 0
    assert ["GET", "/hello", "hello"] in [line.split() for line in done.stdout.splitlines()]
    rows = json.loads(veko("routes", "--json", application).stdout)
    assert {"method": "GET", "path": "/hello", "plugin": "hello"} in rows


def test_graph_shows_needs_and_what_is_not_loaded(veko: Run, application: Path) -> None:
    (application / "plugins" / "polite.py").write_text(
        'name = "polite"\nversion = "1.0.0"\ndependencies = ["hello"]\n\ndef load():\n    pass\n'
    )
    lines = {line.split()[0]: line for line in veko("graph", application).stdout.splitlines()}
    assert lines["polite"].split()[1:] == ["needs", "hello"]
    assert lines["hello"] == "hello"
    assert "no luck" in lines["broken"]
    assert "not loaded" in lines["needy"]
    assert '"polite" -> "hello";' in veko("graph", "--format", "dot", application).stdout
    drawn = veko("graph", "--format", "mermaid", application).stdout
    assert drawn.startswith("graph TD\n")
    assert 'broken (not loaded)"]' in drawn
    found = {
        one["name"]: one
        for one in json.loads(veko("graph", "--format", "json", application).stdout)
    }
    assert found["polite"]["needs"] == ["hello"]
    assert found["polite"]["problem"] is None


def test_events_of_one_plugin(veko: Run, application: Path) -> None:
    (application / "plugins" / "guard.py").write_text(
        'name = "guard"\nversion = "1.0.0"\n\n'
        "def check(request):\n    return None\n\n"
        'def load(context):\n    context.hook("request:start", check, priority=50)\n'
    )
    done = veko("events", "--plugin", "guard", application)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[:2] == ["request:start", "50"]
    row = json.loads(veko("events", "--plugin", "guard", "--json", application).stdout)[0]
    assert (row["event"], row["priority"]) == ("request:start", 50)
    assert row["handler"].endswith("guard.check")
    wrong = veko("events", "--plugin", "gard", application)
    assert wrong.returncode == 1
    assert "Did you mean 'guard'?" in wrong.stderr.splitlines()[-1]
    broken = veko("events", "--plugin", "broken", application)
    assert broken.returncode == 1
    assert "no luck" in broken.stderr


def test_the_version_in_short(veko: Run) -> None:
    assert veko("-V").stdout == "veko 2.0.0\n"
