"""`veko validate`: a plugin is checked without being loaded, and the exit code says it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]


def written(folder: Path, text: str) -> Path:
    path = folder / "one.py"
    path.write_text(text)
    return path


def test_a_sound_plugin_is_not_run(veko: Run, tmp_path: Path) -> None:
    path = written(
        tmp_path, "name = 'one'\nversion = '1'\ndef load(): raise SystemExit('it ran')\n"
    )
    done = veko("validate", path)
    assert (done.returncode, "one: no problems found" in done.stdout) == (0, True)


def test_all_faults_are_said_at_once(veko: Run, tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "name = 'One'\nversion = 1\npermissions = ['read:filez']\ndef load(context): ...\n",
    )
    done = veko("validate", path)
    assert done.returncode == 1
    for word in ("name", "version", "read:filez", "read:files"):
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_warning_fails_only_when_asked_to_be_strict(veko: Run, tmp_path: Path) -> None:
    path = written(
        tmp_path, "name = 'one'\nversion = '1'\nhooks = ['app:stert']\ndef load(context): ...\n"
    )
    assert veko("validate", path).returncode == 0
    assert veko("validate", path, "--strict").returncode == 1
    report = json.loads(veko("validate", path, "--json").stdout)
    assert report["ok"] is True
    assert "app:start" in report["warnings"][0]


def test_a_path_that_leads_nowhere_is_said(veko: Run, tmp_path: Path) -> None:
    done = veko("validate", tmp_path / "nothing.py")
    assert done.returncode == 1
    assert "nothing.py" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_plugins_is_said_to_be_one(veko: Run, application: Path) -> None:
    done = veko("validate", application / "plugins")
    assert done.returncode == 1
    assert "This is a folder of plugins: name one, such as " in done.stdout
    assert str(application / "plugins" / "broken.py") in done.stdout


def test_a_guard_that_is_not_required_is_a_warning(veko: Run, tmp_path: Path) -> None:
    head = "name = 'one'\nversion = '1'\n"
    hook = "def load(context):\n    context.hook('request:start', print{})\n"
    done = veko("validate", written(tmp_path, head + hook.format("")))
    assert done.returncode == 0
    assert "one decides about request:start, but it is not required" in done.stdout
    for fine in (hook.format(", observe=True"), "required = True\n" + hook.format("")):
        done = veko("validate", written(tmp_path, head + fine))
        assert "no problems found" in done.stdout
