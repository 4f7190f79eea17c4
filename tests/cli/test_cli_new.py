"""`veko new` and `veko init`, also in a terminal."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from veko_plugins.cli.authoring import TEMPLATES
from veko_plugins.scaffold import TEMPLATES as KNOWN

Run = Callable[..., subprocess.CompletedProcess[str]]


def files(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def test_the_choices_are_the_templates() -> None:
    assert list(KNOWN) == TEMPLATES


def test_init_then_new_then_list(veko: Run, tmp_path: Path) -> None:
    done = veko("init", "shop")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "created shop"
    assert "Serve it: veko serve shop" in done.stdout
    made = files(tmp_path / "shop")
    assert {"veko.toml", "plugins/hello/__init__.py", "tests/test_application.py"} <= set(made)
    done = veko("new", "my-shop", cwd=tmp_path / "shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "created plugins/my_shop",
        "  README.md",
        "  __init__.py",
        "  plugin.toml",
        "  tests/test_my_shop.py",
        "Test it:  pytest plugins/my_shop",
        "Serve it: veko serve",
    ]
    listed = veko("list", "shop")
    assert re.search(r"my-shop\s+1\.0\.0\s+active", listed.stdout), listed.stdout
    assert re.search(r"hello\s+1\.0\.0\s+active", listed.stdout), listed.stdout
    done = veko("run", "--dir", "shop", "my-shop", "--who", "ann")
    assert done.stdout == "Hello, ann!\n"


def test_init_serves_at_once(veko: Run, start: Any, tmp_path: Path) -> None:
    root = tmp_path / "here"
    root.mkdir()
    done = veko("init", cwd=root)
    assert done.stdout.splitlines()[0] == "created an application in this folder"
    served = start("serve", "--port", "0", cwd=root)
    address = served.wait_for(r"Listening on (http://[\d.:]+)")[1]
    import httpx

    assert httpx.get(f"{address}/hello/ann").json() == {"text": "Hello, ann!"}
    assert httpx.get(f"{address}/docs", follow_redirects=True).status_code == 200


def test_init_never_overwrites(veko: Run, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert "README.md stays as it was" in veko("init").stdout
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    done = veko("init", ".")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"veko: \S+/veko\.toml exists \(.*\)\. Nothing is .*\n", done.stderr)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "Missing argument 'NAME'"),
        (("My Shop",), 1, "Did you mean 'my-shop'?"),
        (("../shop",), 1, "Did you mean 'shop'?"),
        (("json",), 1, "Did you mean 'json-plugin'?"),
        (("shop", "-t", "basik"), 2, "'basik' is not one of"),
        (("shop", "--author", "a\nb"), 1, "expected one line"),
        (("shop", "--dir", "nowhere"), 1, "nowhere does not exist"),
        (("taken",), 1, "taken.py exists"),
    ],
    ids=[
        "nothing", "capitals", "path", "module", "template", "author", "folder", "taken",
    ],
)  # fmt: skip
def test_what_new_refuses(
    veko: Run, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "taken.py").write_text("mine")
    done = veko("new", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.replace("│", "").split())
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == ["plugins/taken.py"]


@contextmanager
def working(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    yield folder


def test_where_new_writes(veko: Run, tmp_path: Path) -> None:
    with working(tmp_path / "empty") as empty:
        assert veko("new", "shop", cwd=empty).returncode == 0
        assert (empty / "plugins" / "shop").is_dir()
    with working(tmp_path / "app" / "plugins") as plugins:
        assert veko("new", "shop", cwd=plugins).returncode == 0
        assert (plugins / "shop").is_dir()
    with working(tmp_path / "other") as other:  # as with other commands, DIR is a plugin folder
        done = veko("new", "shop", "--dir", "other")
        assert done.stdout.splitlines()[-1] == "Serve it: veko serve other"
        assert (other / "shop").is_dir()
    with working(tmp_path / "named") as named:
        (named / "veko.toml").write_text('plugins_dir = ["parts", "more"]\n')
        assert veko("new", "shop", "--dir", "named").returncode == 0
        assert (named / "parts" / "shop").is_dir()


def test_new_names_the_options_that_are_missing(veko: Run, tmp_path: Path) -> None:
    hint = "It needs an option in veko.toml: auth = true"
    assert hint in veko("new", "accounts", "-t", "auth").stdout
    (tmp_path / "veko.toml").write_text("auth = true\n")
    assert hint not in veko("new", "members", "-t", "auth").stdout


def test_a_session_in_a_terminal(terminal: Callable[..., Any], tmp_path: Path) -> None:
    asked = terminal("new")
    asked.answer(r"Name: $", "My Shop\n")
    asked.answer(r"Did you mean 'my-shop'\?[\s\S]*Name: $", "my-shop\n")
    asked.answer(r"basic +a route[\s\S]*typescript[\s\S]*Template \[basic\]: $", "bazic\n")
    asked.answer(r"'bazic' is not one of[\s\S]*Template \[basic\]: $", "api\n")
    asked.answer(r"Description \[Keeps notes\]: $", "Keep everything\n")
    asked.answer(r"Author: $", "\n")
    asked.wait_for(r"created plugins/my_shop")
    assert asked.ends() == 0, asked.text
    toml = (tmp_path / "plugins" / "my_shop" / "plugin.toml").read_text()
    assert toml == 'name = "my-shop"\nversion = "1.0.0"\ndescription = "Keep everything"\n'
    assert 'PATH = "/api/my-shop"' in (tmp_path / "plugins/my_shop/__init__.py").read_text()


def test_a_terminal_is_asked_for_what_is_missing_only(
    terminal: Callable[..., Any], tmp_path: Path
) -> None:
    asked = terminal("new", "shop", "-t", "basic", "--description", "Sells", "--author", "Ann")
    assert asked.ends() == 0
    assert ": $" not in asked.text
    taken = terminal("new", "My-Shop", "-t", "basic")  # refused before anything is asked
    assert taken.ends() == 1
    assert "Did you mean 'my-shop'?" in taken.text
    quiet = terminal("new", "other", "--yes")
    assert quiet.ends() == 0
    assert "Template" not in quiet.text
    assert (tmp_path / "plugins" / "other" / "plugin.toml").read_text().count("\n") == 3


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["ctrl-c", "ctrl-d"])
def test_leaving_a_question_writes_nothing(
    terminal: Callable[..., Any], tmp_path: Path, key: str
) -> None:
    asked = terminal("new", "shop")
    asked.wait_for(r"Template \[basic\]: $")
    asked.leave(key)
    assert asked.ends() == 1, asked.text
    assert files(tmp_path) == []
