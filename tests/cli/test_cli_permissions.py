"""`veko allow`, `veko list --permissions`, `veko serve --locked`: what the lock file stops."""

import json
import signal
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application with one plugin that asks for something, and one that asks for nothing."""
    write(tmp_path, "weather", "1.0.0", "net:connect:api.example.com:443", "read:files:./data/")
    write(tmp_path, "plain", "1.0.0")
    (tmp_path / "veko.toml").write_text('max_retries = 0\nadapter = "asgi"\n')
    return tmp_path


def write(app: Path, name: str, version: str, *permissions: str, more: str = "") -> None:
    (app / "plugins").mkdir(exist_ok=True)
    (app / "plugins" / f"{name}.py").write_text(
        f"name = {name!r}\nversion = {version!r}\npermissions = {list(permissions)!r}\n{more}\n"
        "def load(): pass\n"
    )


def test_allow_shows_then_writes(veko: Run, app: Path) -> None:
    shown = veko("allow", "--dir", str(app))
    assert shown.returncode == 1
    assert shown.stdout.splitlines() == [
        "+ plain 1.0.0  (not confined)",
        "+ weather 1.0.0  (not confined)",
        "    + net:connect:api.example.com:443",
        "    + read:files:./data",
        "Nothing was changed. Name the plugins to allow, or use --all.",
    ]
    assert not (app / "veko.lock").exists()
    done = veko("allow", "weather", "--dir", str(app))
    assert done.returncode == 0
    assert "+ weather 1.0.0" in done.stdout
    assert "plain" not in (app / "veko.lock").read_text()
    assert veko("allow", "--all", "--dir", str(app)).returncode == 0
    text = (app / "veko.lock").read_text()
    assert '[plugins."plain"]' in text
    assert 'permissions = ["net:connect:api.example.com:443", "read:files:./data"]' in text
    again = veko("allow", "--dir", str(app))
    assert (again.returncode, again.stdout) == (0, "veko.lock is up to date\n")


def test_allow_says_what_grew(veko: Run, app: Path) -> None:
    veko("allow", "--all", "--dir", str(app))
    write(app, "weather", "2.0.0", "net:connect", "read:files:./data")
    (app / "plugins" / "plain.py").unlink()
    done = veko("allow", "weather", "--dir", str(app))
    assert done.stdout.splitlines()[:4] == [
        "~ weather 2.0.0  (not confined)",
        "    + net:connect",
        "    - net:connect:api.example.com:443",
        "    files changed",
    ]
    assert "plain" in (app / "veko.lock").read_text()
    assert veko("allow", "--all", "--dir", str(app)).stdout.startswith("- plain")
    assert "plain" not in (app / "veko.lock").read_text()


def test_allow_runs_no_code_of_a_plugin_that_spells_out_what_it_asks_for(
    veko: Run, app: Path
) -> None:
    write(app, "weather", "1.0.0", more="raise SystemExit('it ran')")
    assert veko("allow", "weather", "--dir", str(app)).returncode == 0


def test_allow_refuses_what_is_not_valid(veko: Run, app: Path) -> None:
    assert "Did you mean 'weather'" in veko("allow", "wether", "--dir", str(app)).stderr
    write(app, "weather", "1.0.0", "read:files:./a/../../etc")
    done = veko("allow", "weather", "--dir", str(app))
    assert done.returncode == 1
    assert "'..' may only begin a relative path" in done.stderr
    (app / "veko.lock").write_text("version = 7")
    done = veko("allow", "--all", "--dir", str(app))
    assert done.returncode == 2
    assert "veko.lock is not valid" in done.stderr
    assert (app / "veko.lock").read_text() == "version = 7"


def test_list_permissions(veko: Run, app: Path) -> None:
    veko("allow", "weather", "--dir", str(app))
    write(app, "weather", "1.1.0", "net:connect:api.example.com:443", "env:read:KEY")
    (app / ".veko").mkdir(exist_ok=True)
    accesses = [
        {"kind": "env:read", "value": "KEY", "granted": False, "times": 3, "where": "weather.py:4"},
        {"kind": "net:connect", "value": "api.example.com:443", "granted": True, "times": 1200},
    ]
    (app / ".veko" / "accesses.json").write_text(json.dumps({"weather": accesses}))
    done = veko("list", "--permissions", str(app))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "plain  (not confined, not in veko.lock)",
        "weather  (not confined, used 1,200 times, refused 3 times)",
        "  env:read:KEY  (not allowed yet)",
        "  net:connect:api.example.com:443",
        "  refused env:read:KEY  3×, last at weather.py:4",
    ]
    rows = json.loads(veko("list", "--permissions", "--json", str(app)).stdout)
    assert rows[1]["declared"] == ["env:read:KEY", "net:connect:api.example.com:443"]
    assert rows[1]["allowed"] == ["net:connect:api.example.com:443", "read:files:./data"]
    assert (rows[1]["used"], rows[1]["refused"]) == (1200, 3)
    (app / ".veko" / "accesses.json").write_text("{")
    assert veko("list", "--permissions", str(app)).returncode == 0


def test_list_reports_plugins_that_are_not_allowed(veko: Run, app: Path) -> None:
    veko("allow", "plain", "--dir", str(app))
    done = veko("list", str(app))
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("weather")]
    assert "failed" in line
    assert "veko.lock does not have it; it asks to run without being confined" in line
    assert "veko allow weather" in line


def test_serve_locked_refuses_what_differs(veko: Run, app: Path) -> None:
    (app / "veko.toml").write_text('max_retries = 0\nadapter = "asgi"\nrequired = ["weather"]\n')
    for text in ("there is no veko.lock", "not those of version 1.0.0"):
        done = veko("serve", "--locked", "--port", "0", str(app))
        assert done.returncode == 1
        assert text in done.stderr + done.stdout
        veko("allow", "--all", "--dir", str(app))
        with (app / "plugins" / "weather.py").open("a") as file:
            file.write("changed = True\n")


def test_learning_without_a_confined_plugin_says_so(start: Callable[..., Any], app: Path) -> None:
    running = start("serve", "--learn", "--port", 0, app)
    running.wait_for(r"Listening on")
    running.process.send_signal(signal.SIGINT)
    assert running.ends() == 0
    assert "Nothing was learned: no plugin is confined" in running.text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--learn", "--workers", "2"], "--learn needs one process"),
        (["--write"], "--write needs --learn"),
        (["--learn", "--locked"], "exclude each other"),
    ],
)
def test_options_that_exclude_each_other(veko: Run, app: Path, words: list[str], why: str) -> None:
    done = veko("serve", *words, app)
    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_learning_says_what_plugins_needed(
    start: Callable[..., Any], veko: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in TypeScript, with a package.json to write to, and one in Python, without."""
    monkeypatch.setenv("SET_HERE", "1")
    (tmp_path / "data").mkdir()
    folder = tmp_path / "plugins" / "shop"
    folder.mkdir(parents=True)
    manifest = {"name": "shop", "version": "1.0.0", "main": "index.ts"}
    asked = {"isolation": "process", "permissions": ["net:connect:x.example"]}
    (folder / "package.json").write_text(json.dumps({**manifest, "veko": asked}, indent=2))
    (folder / "index.ts").write_text(
        "const fs = require('node:fs');\n"
        "export = { load(app: any, config: any, context: any) {\n"
        f"  const data = {str(tmp_path / 'data')!r};\n"
        "  for (let i = 0; i < 6; i++) Deno.writeTextFileSync(`${data}/${i}.txt`, 'x');\n"
        "  Deno.readTextFileSync('/etc/hostname');\n"
        "  fs.readdirSync(__dirname);\n"
        "  Deno.env.get('SET_HERE'); Deno.env.get('NOT_SET');\n"
        "  Deno.connect({ hostname: '127.0.0.1', port: 1 }).catch(() => {});\n"
        "} };\n"
    )
    (tmp_path / "plugins" / "tea.py").write_text(
        "import os, pathlib, socket\n"
        "name = 'tea'\nversion = '1.0.0'\nisolation = 'process'\n"
        "def load(context):\n"
        "    pathlib.Path(context.app.directory, 'data', 'tea.txt').write_text('x')\n"
        "    pathlib.Path('/etc/hostname').read_text()\n"
        "    os.environ.get('SET_HERE'), os.environ.get('NOT_SET')\n"
        "    try: socket.create_connection(('localhost', 1), 1)\n"
        "    except OSError: pass\n"
    )
    (tmp_path / "veko.toml").write_text('max_retries = 0\nadapter = "asgi"\n')
    running = start("serve", "--learn", "--write", "--port", 0, tmp_path)
    running.wait_for(r"Listening on")
    running.process.send_signal(signal.SIGINT)
    assert running.ends() == 0, running.text
    assert "failed" not in running.text
    package = json.loads((folder / "package.json").read_text())
    assert package == {
        **manifest,
        "veko": {
            "isolation": "process",
            "permissions": [
                "env:read:SET_HERE", "net:connect:127.0.0.1:1", "read:files:/etc/hostname",
                "write:files:./data",
            ],
        },
    }  # fmt: skip
    assert "- net:connect:x.example" in running.text
    learned = tomllib.loads((tmp_path / ".veko" / "learned" / "tea.toml").read_text())
    assert learned["permissions"] == [
        "env:read:SET_HERE", "net:connect:localhost:1", "read:files:/etc/hostname",
        "write:files:./data",
    ]  # fmt: skip
    assert "it has no package.json or plugin.toml; edit its source" in running.text
    rows = json.loads(veko("list", "--permissions", "--json", tmp_path).stdout)
    assert {row["name"]: row["refused"] for row in rows} == {"shop": 0, "tea": 0}
    assert all(row["used"] > 3 for row in rows)
