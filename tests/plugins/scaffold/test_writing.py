"""Generating writes all or nothing, and never over anything."""

import os
import stat
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko_plugins import PluginManager, ScaffoldError, generate_plugin
from veko_plugins.scaffold import TEMPLATES, create_application, generate_plugin_now, writing
from veko_plugins.scaffold.rendering import render
from veko_plugins.scaffold.writing import write_files


def tree(folder: Path) -> dict[str, bytes | None]:
    """All files and folders below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


async def test_D3_generate_plugin_returns_the_folder(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, adapter="asgi", max_retries=0) as manager:
        path = await manager.generate_plugin(
            "nouveau-plugin", "basic", author="Mon nom", description="Généré", version="0.2.0"
        )
        assert path == tmp_path / "plugins" / "nouveau_plugin"
        record = await manager.load_plugin("nouveau-plugin")
        assert record.manifest.author == "Mon nom"
        assert record.manifest.description == "Généré"
        assert record.version == "0.2.0"
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~umask()
    assert not [one for one in tree(tmp_path / "plugins") if one.startswith(".")]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


async def test_without_a_manager_it_is_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await generate_plugin("shop") == tmp_path / "plugins" / "shop"
    assert await generate_plugin("bar", folder="deep/down") == tmp_path / "deep" / "down" / "bar"


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: (folder / "my_shop").mkdir(),
        lambda folder: (folder / "my_shop").write_text("mine"),
        lambda folder: (folder / "my_shop").symlink_to("nowhere"),
        lambda folder: (folder / "my_shop.py").write_text("mine"),
        lambda folder: (folder / "my-shop.ts").write_text("mine"),
        lambda folder: (folder / "My-Shop").mkdir(),
        lambda folder: (folder / "my.shop").mkdir(),
    ],
    ids=["folder", "file", "link", "module", "script", "capitals", "dots"],
)
def test_what_exists_is_never_touched(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ScaffoldError, match=r"exists.*Nothing is overwritten"):
        generate_plugin_now("my-shop", "basic", tmp_path, {})
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "template", "answers", "message"),
    [
        ("shop", "basik", {}, "no template 'basik'.*Did you mean 'basic'"),
        ("shop", 5, {}, "no template '5'"),
        ("My Shop", "basic", {}, "Did you mean 'my-shop'"),
        ("shop", "basic", {"autor": "me"}, "autor is not known. Did you mean 'author'"),
        ("shop", "basic", {"author": 5}, "author: expected text"),
        ("shop", "basic", {"author": "a\nb"}, "author: expected one line"),
        ("shop", "basic", {"author": "a\x1b[31m"}, "author: expected one line"),
        ("shop", "basic", {"author": "x" * 201}, "201 characters"),
        ("shop", "basic", {"version": "one"}, "version: expected one of PEP 440"),
        ("shop", "basic", {"version": " "}, "version"),
        ("shop", "basic", {"version": "one", "autor": "x"}, "version.*autor"),
    ],
    ids=str,
)
async def test_wrong_input_writes_nothing(
    tmp_path: Path, name: str, template: str, answers: dict[str, str], message: str
) -> None:
    with pytest.raises(ScaffoldError, match=message):
        await generate_plugin(name, template, folder=tmp_path / "plugins", **answers)
    assert tree(tmp_path) == {}


def test_of_many_at_once_one_wins_and_it_is_whole(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    start = threading.Barrier(8)

    def run(number: int) -> None:
        start.wait()
        try:
            generate_plugin_now("shop", "basic", tmp_path / "plugins", {"author": str(number)})
            ends["won"] += 1
        except ScaffoldError as error:
            ends["lost" if "exists" in str(error) else str(error)] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == {"won": 1, "lost": 7}
    assert set(tree(tmp_path / "plugins")) == {
        "shop", "shop/README.md", "shop/__init__.py", "shop/plugin.toml", "shop/tests",
        "shop/tests/test_shop.py",
    }  # fmt: skip


def test_of_many_processes_at_once_one_wins(tmp_path: Path) -> None:
    code = "import sys; from veko_plugins.scaffold import generate_plugin_now as g\n"
    code += "sys.stdin.read(1); g('shop', 'api', sys.argv[1], {})"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in running]
    assert sorted(process.returncode for process in running) == [0, 1, 1, 1]
    assert sum("ScaffoldError" in error for error in errors) == 3
    assert [one for one in tree(tmp_path) if "/" not in one] == ["shop"]


@pytest.mark.parametrize("at", range(1, 12))
def test_a_failure_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "README.md").write_text("mine")
    before = tree(tmp_path)
    calls = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(28, "No space left on device", str(args[0]))
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    monkeypatch.setattr(Path, "open", failing(Path.open))
    monkeypatch.setattr(writing.os, "link", failing(os.link))
    with pytest.raises(ScaffoldError, match="No space left on device"):
        create_application(tmp_path / "app")
    monkeypatch.undo()
    assert tree(tmp_path) == before


def test_what_arrives_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def late(self: Path, target: Path) -> Path:
        (target / "mine.txt").write_text("mine")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(ScaffoldError, match="exists"):
        generate_plugin_now("shop", "basic", tmp_path, {})
    assert tree(tmp_path) == {"shop": None, "shop/mine.txt": b"mine"}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "plugins"):
        with pytest.raises(ScaffoldError, match=r"file exists, and is not a folder"):
            generate_plugin_now("shop", "basic", folder, {})
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ScaffoldError, match="Allow this user"):
            generate_plugin_now("shop", "basic", tmp_path / "closed", {})


def test_what_write_files_made_is_removed_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").mkdir()
    files = {PurePosixPath("new/file"): "1", PurePosixPath("x/file"): "2"}
    with pytest.raises(ScaffoldError, match=r"x exists"):
        write_files(tmp_path / "a", files)
    assert tree(tmp_path) == {"a": None, "a/x": None}


# -- texts end up as texts

TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60)


@given(TEXTS, TEXTS)
def test_no_answer_breaks_out_of_its_quotes(description: str, author: str) -> None:
    values = {
        "name": "a.b", "module": "a_b", "version": "1.0.0", "license": 'M"IT\\',
        "description": description or "x", "author": author, "extras": (), "options": ("x = 1",),
    }  # fmt: skip
    for template in TEMPLATES:
        files = render(template, values)
        if template == "typescript":
            import json

            found = json.loads(files[PurePosixPath("package.json")])
        else:
            found = tomllib.loads(files[PurePosixPath("plugin.toml")])
        assert found["description"] == (description or "x")
        assert found.get("author", "") == author
        for path, text in files.items():
            if path.suffix == ".py":
                compile(text, str(path), "exec")


def test_an_application_in_a_folder_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "other").mkdir()
    made = create_application(tmp_path)
    assert made.kept == ("README.md",)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == ".veko/\n__pycache__/\n"
    before = tree(tmp_path)
    with pytest.raises(ScaffoldError, match=r"veko\.toml exists"):
        create_application(tmp_path)
    assert tree(tmp_path) == before


def test_an_application_by_its_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.veko]\nport = 1\n")
    with pytest.raises(ScaffoldError, match=r"an application already"):
        create_application(tmp_path)
    assert list(tree(tmp_path)) == ["pyproject.toml"]


def test_an_application_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(ScaffoldError, match=f"{name} exists"):
            create_application(tmp_path / name)
    assert list(tree(tmp_path)) == ["file", "link"]
