"""Every code block of the docs runs, every link works, and generated pages are up to date."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import veko
from veko_plugins import Context, PluginManager

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("docs_pages", Path(__file__).with_name("pages.py"))
assert _spec is not None
assert _spec.loader is not None
pages = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = pages
_spec.loader.exec_module(pages)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages.PAGES, ids=_name)
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("curl") is None and "$ curl" in page.read_text("utf-8"):
        missing = "there is no curl on this machine"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    monkeypatch.chdir(tmp_path)
    pages.Runner(page, tmp_path).run()


@pytest.mark.parametrize("page", pages.PAGES, ids=_name)
def test_each_block_is_run_or_of_a_language_that_is_not(page: Path) -> None:
    """README.md says which are run: `sh` and `text` are not, settings are read."""
    found = list(pages.blocks(page))
    fences = re.findall(r"^```", page.read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(found), "a block has no language"
    files = {"python", "toml", "javascript", "typescript"}
    assert {block.language for block in found} <= files | {"console", "sh", "text"}
    for block in found:
        if block.language in {"javascript", "typescript"}:
            assert pages.is_file(block), f"line {block.line}: only files are run"
        if block.language == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", pages.PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{_name(page)} links to {target}"


def test_the_design_page_names_every_file_of_the_kernel_and_every_core_plugin() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    layout = page.partition("## The layout")[2].partition("### The rules")[0]
    rooms = ("_bus", "_life", "testing")
    kernel = {file.stem for room in rooms for file in _rooms("kernel/veko/" + room)}
    plugins = {room.stem for room in _rooms("plugins/veko_plugins")}
    named = {name.strip("/") for name in re.findall(r"`([\w/]+)`", layout)}
    assert not (kernel | plugins) - named, "docs/design.md does not name them"
    tables = "".join(re.findall(r"^\| .*", layout, re.MULTILINE))
    rows = {name.strip("/") for name in re.findall(r"`(\w+/?)`", tables)}
    extra = {
        "_bus",
        "_life",
        "Bus",
        "Stop",
        "Kernel",
        "load",
        "activate",
        "deactivate",
        "unload",
        "veko",
        "veko_pytest",
        "debug_plugin",
        "test_plugin",
    }
    subfolders = {"__init__", "messages", "sockets", "openapi"}
    assert not rows - kernel - plugins - extra - subfolders, "they do not exist"


def _rooms(folder: str) -> list[Path]:
    return [
        path
        for path in (ROOT / folder).iterdir()
        if not path.name.startswith("__") and (path.suffix == ".py" or path.is_dir())
    ]


def test_what_is_generated_is_fresh() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_picture_of_a_trace_is_of_the_example_as_it_is(tmp_path: Path) -> None:
    drawn = tmp_path / "trace.svg"
    script = [sys.executable, ROOT / "docs" / "trace_picture.py", drawn]
    ran = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr

    def names(picture: Path) -> list[str]:
        texts = re.findall(r"<text [^>]*>([^<]*)<", picture.read_text("utf-8"))
        return [text for text in texts if not text.endswith("µs")]

    assert names(drawn) == names(ROOT / "docs" / "trace.svg") != []


@pytest.mark.parametrize(
    ("page", "described"),
    [("manager.md", [PluginManager]), ("context.md", [Context, veko.Context])],
)
def test_reference_names_everything_public(page: str, described: list[type]) -> None:
    text = (ROOT / "docs" / "reference" / page).read_text("utf-8")
    public = {
        name
        for one in described
        for name in (*vars(one), *getattr(one, "__annotations__", ()))
        if not name.startswith("_") and name != "forget"  # the kernel calls that one
    }
    missing = {name for name in public if not re.search(rf"`[^`\n]*\b{name}\b", text)}
    assert not missing, f"{page} does not name them"
