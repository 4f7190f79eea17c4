"""`veko backup` and `veko restore`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

NOTES = """
name = "notes"
version = "1.0.0"
config_schema = {"properties": {"password": {"type": "string", "writeOnly": True}}}

def load(context):
    async def add(text: str):
        await context.storage.set(text, len(context.storage))

    context.add_command("add", add)
    context.add_command("notes", lambda: sorted(context.storage.keys()))
    context.add_command("size", lambda: context.config.get("size"))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An application of one plugin that stores."""
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "notes.py").write_text(NOTES)
    (root / "veko.toml").write_text('[plugins.notes]\nsize = 1\npassword = "hunter2-hunter2"\n')
    return root


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What was said on standard error: one line, and no traceback."""
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_A9_A10_backup_and_restore(veko: Run, home: Path, tmp_path: Path) -> None:
    assert veko("run", "--dir", home, "add", "tea").returncode == 0
    done = veko("backup", home, "b.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "b.jsonl"
    assert done.stdout.strip() == str(path)
    assert "hunter2" not in path.read_text()
    veko("run", "--dir", home, "add", "spilt")
    settings = '[plugins.notes]\nsize = 2\npassword = "new"\n[plugins.state]\nrestore = true\n'
    (home / "veko.toml").write_text(settings)

    done = veko("restore", path, home)

    assert (done.returncode, done.stderr) == (0, "")
    assert "restored 1 plugins" in done.stdout
    assert "[plugins.state]" in done.stdout
    assert json.loads(veko("run", "--dir", home, "notes").stdout) == ["tea"]
    # At the next start the configuration of the backup is taken up, as the settings ask for it.
    assert veko("run", "--dir", home, "size").stdout.strip() == "1"


def test_A9_without_a_path_it_goes_under_veko(veko: Run, home: Path) -> None:
    done = veko("backup", cwd=home)
    assert done.returncode == 0
    assert Path(done.stdout.strip()).parent == home / ".veko" / "backups"


def test_A9_one_word_that_ends_in_jsonl_is_the_file(veko: Run, home: Path) -> None:
    done = veko("backup", "b.jsonl", cwd=home)
    assert done.returncode == 0
    assert done.stdout.strip() == str(home / "b.jsonl")


def test_A9_A10_what_cannot_be_done_is_one_line(veko: Run, home: Path) -> None:
    assert veko("backup", "b.jsonl", cwd=home).returncode == 0
    done = veko("backup", "b.jsonl", cwd=home)
    assert done.returncode == 1
    assert "already exists" in said(done)

    (home / "b.jsonl").write_bytes((home / "b.jsonl").read_bytes()[:-9])
    done = veko("restore", "b.jsonl", cwd=home)
    assert done.returncode == 1
    assert "cut off" in said(done)

    done = veko("restore", "nothing.jsonl", cwd=home)
    assert done.returncode == 1
    assert "nothing.jsonl" in said(done)

    done = veko("restore", "b.jsonl", "nowhere", cwd=home)
    assert done.returncode == 2
    assert "nowhere" in said(done)


def test_A10_a_served_application_is_not_loaded_twice(
    veko: Run, home: Path, start: Callable[..., object]
) -> None:
    """It restores itself; one that cannot be asked keeps its storage to itself."""
    assert veko("backup", "b.jsonl", cwd=home).returncode == 0
    served = start("serve", home, "--port", "0")
    served.wait_for("Listening")  # type: ignore[attr-defined]
    done = veko("restore", "b.jsonl", cwd=home)
    assert (done.returncode, "by the running application" in done.stderr) == (0, True)
    for path in (home / ".veko" / "control").glob("*.sock"):
        path.unlink()
    done = veko("restore", "b.jsonl", cwd=home)
    assert done.returncode == 1
    assert "in use" in done.stderr
