"""Finding plugins: what is one, what it says of itself unrun, and what every refusal says."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from veko import ConflictError, Kernel, LoadError, ManifestError, NotFoundError, Plugin
from veko_plugins.discovery import Discovery, Found, Source
from veko_plugins.loader import Loader


def plugin(name: str, *, more: str = "") -> str:
    head = "RAN = __import__('sys').modules.setdefault('discovery_ran', 1)\n"
    return f"{head}name = {name!r}\nversion = '1.0'\n{more}\ndef load(): ...\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    yield
    assert "discovery_ran" not in sys.modules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "plugins"
    path.mkdir()
    return path


def scan(*folders: Path, **options: bool) -> Found:
    return Discovery(folders, group=None, **options).scan()  # type: ignore[arg-type]


def names(found: Found) -> list[str]:
    return [source.name for source in found.sources]


def test_o1_files_and_folders_in_order(folder: Path, tmp_path: Path) -> None:
    entries = ["b.py", "a.py", "c/__init__.py", "_no.py", ".no.py", "__pycache__/x.py", "d/x.py"]
    random.shuffle(entries)
    for entry in entries:
        write(folder / entry, plugin(Path(entry).parts[0].removesuffix(".py").lstrip("._")))
    write(folder / "notes.txt", "nothing")
    other = tmp_path / "other"
    write(other / "z.py", plugin("z"))
    found = scan(other, folder, folder)
    assert names(found) == ["z", "a", "b", "c"]
    assert [source.kind for source in found.sources] == ["file", "file", "file", "package"]
    assert found.sources[3].path == folder / "c"
    assert found.sources[3].file == folder / "c" / "__init__.py"
    assert not found.problems


def test_m3_m11_a_manifest_is_read_without_running_the_plugin(folder: Path) -> None:
    write(
        folder / "file.py",
        plugin(
            "shop",
            more="""
dependencies: list[str] = ["db>=2", "auth"]
priority = -5
description = "d" "e"
default_config = {"a": [1, 2]}
config_schema = compute()
""",
        ),
    )
    (source,) = scan(folder).sources
    assert source.name == "shop"
    assert source.outline is not None
    outline = source.outline
    assert (outline.name, outline.version, outline.priority) == ("shop", "1.0", -5)
    assert outline.dependencies == ("db>=2", "auth")
    assert outline.fields["default_config"] == {"a": [1, 2]}
    assert outline.fields["description"] == "de"
    assert "config_schema" not in outline.fields


def test_m_fields_that_are_assigned_together_are_read(folder: Path) -> None:
    write(folder / "one.py", "name, version, isolation = 'one', '1', 'process'\ndef load(): ...\n")
    write(folder / "two.py", "name, version = 'two', str(1)\ndef load(): ...\n")
    write(folder / "three.py", "name, *version = 'three', '1'\ndef load(): ...\n")
    one, three, two = scan(folder).sources
    assert one.outline is not None
    assert (one.name, one.outline.fields["isolation"]) == ("one", "process")
    assert two.outline is three.outline is None


CLASS = """
from veko import Plugin as Base
class Shop(Base):
    name = "shop"
    version = "1.0"
    priority = 3
    def load(self): ...
"""


@pytest.mark.parametrize(
    "source",
    [
        CLASS,
        "import veko"
        + CLASS.replace("from veko import Plugin as Base", "").replace("Base", "veko.Plugin"),
    ],
)
def test_m_a_class_is_read_too(folder: Path, source: str) -> None:
    write(folder / "file.py", source)
    (found,) = scan(folder).sources
    assert found.outline is not None
    assert (found.name, found.outline.priority) == ("shop", 3)


@pytest.mark.parametrize(
    "more",
    [
        "name = 'sh' + str(1)",
        "if True:\n    name = 'other'",
        "from os import name",
        "from os import *",
        "import shop as version",
        "for priority in range(3): pass",
        "def f():\n    global name\n    name = 'other'\nf()",
        "print(name := 'other')",
        "name, other = 'ab'",
        "name, *other = 'a', 'b'",
        "name, other = other, name = 'a', 'b'",
        "(name, other), more = ('a', 'b'), 'c'",
        "version += '1'",
        "del version",
        "with x as name: pass",
        "try: pass\nexcept Exception as name: pass",
        "match 1:\n    case name: pass",
        "class dependencies: ...",
        "def __getattr__(name): ...",
        "plugin = object()",
        "load = print",
        "version = 3",
        "version = None",
        "dependencies = 'db'",
        "name =",
    ],
)
def test_what_cannot_be_told_is_left_to_the_import(folder: Path, more: str) -> None:
    write(folder / "file.py", plugin("shop", more=more))
    (source,) = scan(folder).sources
    assert (source.name, source.outline) == ("file", None)


@pytest.mark.parametrize(
    "text",
    [
        CLASS + "class Other(Base): ...",
        CLASS + "version = '2'",
        CLASS + "    def __init__(self): self.name = 'x'",
        CLASS.replace("from veko", "from elsewhere"),
        CLASS.replace("(Base)", "(Base, metaclass=M)"),
        "@change\n" + CLASS.replace("from veko", "from veko", 1).lstrip().partition("\n")[2],
        "",
    ],
)
def test_a_class_that_cannot_be_told(folder: Path, text: str) -> None:
    write(folder / "file.py", text)
    (source,) = scan(folder).sources
    assert source.outline is None


async def test_what_is_told_is_what_the_import_finds(folder: Path) -> None:
    texts = [CLASS, "name = 'a'\nname = 'b'\nversion: str = '2'\nversion: str\ndef load(): ..."]
    for number, text in enumerate(texts):
        write(folder / f"p{number}.py", text)
    loader = Loader()
    for source in scan(folder).sources:
        loaded = await loader.import_source(source)
        manifest, outline = loaded.plugin.manifest, source.outline
        assert outline is not None
        for field in ("name", "version", "dependencies", "priority"):
            assert getattr(outline, field) == getattr(manifest, field)
        loader.dispose(loaded)


def test_plugin_toml_beside_a_package(folder: Path) -> None:
    write(folder / "shop" / "__init__.py", "version = '2.0'\ndef load(): ...")
    write(
        folder / "shop" / "plugin.toml",
        "name = 'store'\nversion = '1.0'\ndependencies = ['db']\n"
        "[engines]\npython = '>=3.11'\n[tool.x]\ny = 1\n",
    )
    (source,) = scan(folder).sources
    assert source.name == "store"
    assert source.outline is not None
    assert (source.outline.version, source.outline.dependencies) == ("2.0", ("db",))
    assert source.fields["engines"] == {"python": ">=3.11"}
    assert "tool" not in source.fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = x\n", r"plugin\.toml cannot be read: .*line 1"),
        ("versoin = '1'", r"versoin is not a field\. Did you mean 'version'"),
    ],
)
def test_a_plugin_toml_that_is_wrong(folder: Path, text: str, message: str) -> None:
    write(folder / "shop" / "__init__.py", plugin("shop"))
    toml = write(folder / "shop" / "plugin.toml", text)
    write(folder / "well.py", plugin("well"))
    found = scan(folder)
    assert names(found) == ["well"]
    (problem,) = found.problems
    assert isinstance(problem.error, ManifestError)
    assert (problem.name, problem.path, problem.error.path) == ("shop", folder / "shop", toml)
    with pytest.raises(ManifestError, match=message):
        Discovery(folder, group=None).find("shop")


def test_two_plugins_of_one_name(folder: Path) -> None:
    write(folder / "a.py", plugin("twin"))
    write(folder / "b.py", plugin("twin"))
    write(folder / "c.py", plugin("other"))
    found = scan(folder)
    assert names(found) == ["twin", "other"]
    (problem,) = found.problems
    assert isinstance(problem.error, ConflictError)
    assert (problem.name, problem.path) == ("twin", folder / "b.py")
    assert str(folder / "a.py") in str(problem.error)
    assert str(folder / "b.py") in str(problem.error)
    assert "Rename one" in str(problem.error)


def test_links_that_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "shop.py", plugin("shop"))
    package = write(tmp_path / "outside" / "pack" / "__init__.py", plugin("pack")).parent
    (folder / "shop.py").symlink_to(outside)
    (folder / "pack").symlink_to(package)
    (folder / "broken.py").symlink_to(tmp_path / "gone.py")
    (folder / "half").mkdir()
    (folder / "half" / "__init__.py").symlink_to(outside)
    write(folder / "inside.py", plugin("inside"))
    (folder / "also.py").symlink_to(folder / "inside.py")
    found = scan(folder)
    assert names(found) == ["inside"]
    by_name = {problem.name: str(problem.error) for problem in found.problems}
    assert set(by_name) == {"shop", "pack", "broken", "half", "inside"}
    assert f"is a link out of the plugin folder, to {outside}" in by_name["shop"]
    assert "allow_symlinks" in by_name["pack"]
    assert "is a link to a file that does not exist" in by_name["broken"]
    assert "two plugins are named" in by_name["inside"]
    with pytest.raises(LoadError, match="link out of"):
        Discovery(folder, group=None).find("shop")
    assert set(names(scan(folder, allow_symlinks=True))) == {"shop", "pack", "inside"}


def test_a_plugin_folder_may_itself_be_a_link(folder: Path, tmp_path: Path) -> None:
    write(folder / "shop.py", plugin("shop"))
    (tmp_path / "linked").symlink_to(folder)
    assert names(scan(tmp_path / "linked")) == ["shop"]


def test_folders_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    write(folder / "shop.py", plugin("shop"))
    missing, file = tmp_path / "gone", write(tmp_path / "file", "")
    found = scan(missing, file, folder)
    assert names(found) == ["shop"]
    assert [problem.path for problem in found.problems] == [missing, file]
    for problem, words in zip(found.problems, ("No such file", "Not a directory"), strict=True):
        assert f"the plugin folder cannot be read: {words}" in str(problem.error)
        assert "plugins_dir" in str(problem.error)
        assert isinstance(problem.error.__cause__, OSError)
    assert not scan(missing, missing_ok=True).problems


@pytest.fixture
def without_rights(folder: Path) -> Iterator[Path]:
    """Close a folder; root, who may read everything, becomes nobody meanwhile."""
    user = os.geteuid()
    folder.chmod(0)
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o700)


def test_a_folder_without_permission(without_rights: Path) -> None:
    (problem,) = scan(without_rights).problems
    assert "the plugin folder cannot be read: Permission denied" in str(problem.error)


def test_a_file_that_is_wrong_is_found_and_fails_when_it_loads(folder: Path) -> None:
    write(folder / "bad.py", "def load(:")
    (folder / "latin.py").write_bytes(b"name = '\xe9'")
    with (folder / "huge.py").open("wb") as file:
        file.truncate(100 * 2**20)
    write(folder / "well.py", plugin("well"))
    found = scan(folder)
    assert names(found) == ["bad", "huge", "latin", "well"]
    assert [source.outline is None for source in found.sources] == [True, True, True, False]


def distribution(where: Path, name: str, points: str) -> None:
    info = where / f"{name}-1.0.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(info / "entry_points.txt", f"[veko.plugins]\n{points}\n")


async def test_m_entry_points(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    module = "name = 'installed_shop'\nversion = '3.0'\ndef load(): ...\n"
    made = "made = {'name': 'made', 'version': '1', 'load': load}\n"
    write(site / "installed_shop.py", module + CLASS + made)
    write(site / "installed_bad.py", "1/0")
    distribution(
        site,
        "dist",
        "shop = installed_shop\nclass = installed_shop:Shop\nmade = installed_shop:made\n"
        "bad = installed_bad\nlost = installed_shop:nothing\nlocal = installed_shop",
    )
    write(folder / "local.py", plugin("local"))
    discovery, loader = Discovery(folder), Loader()
    found = discovery.scan()
    assert names(found) == ["local", "bad", "class", "lost", "made", "shop"]
    (problem,) = found.problems
    assert "two plugins are named 'local'" in str(problem.error)
    assert "entry point local = installed_shop" in str(problem.error)
    loaded = {}
    for name in ("class", "made", "shop"):
        source = discovery.find(name)
        assert source.kind == "entry-point"
        loaded[name] = (await loader.import_source(source)).plugin.manifest.name
    assert loaded == {"class": "shop", "made": "made", "shop": "installed_shop"}
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        await loader.import_source(discovery.find("bad"))
    with pytest.raises(LoadError, match="lost = installed_shop:nothing"):
        await loader.import_source(discovery.find("lost"))
    del sys.modules["installed_shop"]


def test_a1_by_name_by_path_by_entry(folder: Path, tmp_path: Path) -> None:
    write(folder / "shop.py", plugin("shop"))
    write(folder / "pack" / "__init__.py", plugin("pack"))
    write(folder / "file.py", plugin("other-name"))
    write(folder / "dynamic.py", "name = str(1)")
    elsewhere = write(tmp_path / "elsewhere" / "far.py", plugin("far"))
    discovery = Discovery(folder, group=None, directory=tmp_path)
    assert discovery.find("shop").path == folder / "shop.py"
    assert discovery.find("other-name").path == folder / "file.py"
    assert discovery.find("dynamic").path == folder / "dynamic.py"
    for pack in (folder / "pack", str(folder / "pack"), folder / "pack" / "__init__.py"):
        source = discovery.find(pack)
        assert (source.path, source.kind, source.name) == (folder / "pack", "package", "pack")
    for far in (elsewhere, str(elsewhere), "elsewhere/far.py", Path("elsewhere/far.py")):
        assert discovery.find(far).path == elsewhere


@pytest.mark.parametrize(
    ("wanted", "message", "remedy"),
    [
        ("shopp", "there is no plugin 'shopp'", "Did you mean 'shop'? Looked in {folder}."),
        ("file", "there is no plugin 'file'", "Looked in {folder}."),
        ("", "there is no plugin ''", "Looked in {folder}."),
        ("x" * 300, "there is no plugin 'xxx", "Looked in {folder}."),
        ("a\0b", "there is no plugin 'a\\x00b'", "Looked in {folder}."),
        ("../nothing", "there is no /", "Fix the path."),
        ("./plugins/shpo.py", "there is no /", "Did you mean 'shop.py'?"),
        ("./plugins", "plugins is not a plugin", "a folder with __init__.py"),
        ("_private", "there is no plugin '_private'", "Looked in"),
    ],
)
def test_a1_what_is_not_found(
    folder: Path, tmp_path: Path, wanted: str, message: str, remedy: str
) -> None:
    write(folder / "shop.py", plugin("shop"))
    write(folder / "file.py", plugin("other"))
    write(folder / "_private.py", plugin("private"))
    with pytest.raises(NotFoundError) as caught:
        Discovery(folder, group=None, directory=tmp_path).find(wanted)
    assert message in str(caught.value)
    assert remedy.format(folder=folder) in str(caught.value)
    assert len(str(caught.value)) < 400


async def test_plugin_resolve_lets_others_answer(folder: Path) -> None:
    write(folder / "shop.py", plugin("shop"))
    asked: list[object] = []

    class Zip(Plugin):
        name = "zip"
        version = "1"

        def load(self, context: object) -> None: ...

    def answer(wanted: object) -> object:
        asked.append(wanted)
        if wanted == "zip":
            return Zip
        return Source(name="x", kind="file", path=folder / "x.py") if wanted == "x" else None

    async with Kernel() as kernel:
        await kernel.load(Discovery(folder, group=None))
        discovery: Discovery = kernel.use("discovery")
        kernel.bus.on("plugin:resolve", answer)
        found = await discovery.resolve("zip")
        assert isinstance(found, Zip)
        assert (await discovery.resolve("x")).name == "x"
        shop = await discovery.resolve("shop")
        assert isinstance(shop, Source)
        assert shop.path == folder / "shop.py"
        with pytest.raises(NotFoundError):
            await discovery.resolve("nothing")
    assert asked == ["zip", "x", "shop", "nothing"]
