"""Generations: imported under names of their own, side by side, gone when they are disposed."""

import asyncio
import gc
import importlib
import os
import sys
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from veko import Kernel, LoadError, ManifestError
from veko_plugins.discovery import Discovery
from veko_plugins.loader import Loaded, Loader, Source

PLUGIN = """\
name = "shop"
version = "1.0"
answer = {answer}

class Thing:
    pass

def load():
    return answer
"""


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before, finders = set(sys.modules), list(sys.meta_path)
    yield
    left = {name for name in set(sys.modules) - before if name.startswith("veko_generation.")}
    for name in left:
        del sys.modules[name]
    sys.meta_path[:] = finders


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def package(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        write(folder / f"{name.replace('__', '/') if name != '__init__' else name}.py", text)
    return folder


def generations() -> set[str]:
    return {name for name in sys.modules if name.startswith("veko_generation.")}


def files(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


async def load(loader: Loader, path: Path, **fields: object) -> Loaded:
    kind: Any = "file" if path.suffix else "package"
    return await loader.import_source(Source(name=path.stem, kind=kind, path=path, fields=fields))


async def test_old_and_new_live_side_by_side(tmp_path: Path) -> None:
    loader = Loader()
    path = write(tmp_path / "shop.py", PLUGIN.format(answer=1))
    old = await load(loader, path)
    write(path, PLUGIN.format(answer=2))
    new = await load(loader, path)
    assert (old.plugin.module.load(), new.plugin.module.load()) == (1, 2)
    assert old.plugin.module is not new.plugin.module
    assert old.plugin.module.__name__ != new.plugin.module.__name__
    assert sys.modules[new.plugin.module.__name__] is new.plugin.module
    assert importlib.import_module(old.plugin.module.__name__) is old.plugin.module
    loader.dispose(old)
    loader.dispose(old)
    assert generations() == {new.plugin.module.__name__}
    loader.dispose(new)


@pytest.mark.parametrize("cached", [True, False])
async def test_two_edits_within_one_second_both_count(tmp_path: Path, cached: bool) -> None:
    loader = Loader(tmp_path / ".veko" / "cache" if cached else None)
    path = tmp_path / "shop.py"
    for answer in (1, 2, 3, 2, 1):
        write(path, PLUGIN.format(answer=answer))
        os.utime(path, ns=(10**18, 10**18))
        loader.importer.cache.ahead(str(path))
        loaded = await load(loader, path)
        assert loaded.plugin.module.load() == answer
        loader.dispose(loaded)
    assert not files(tmp_path, "*.pyc")
    assert len(files(tmp_path, ".veko/cache/*")) == (1 if cached else 0)


async def test_an_edit_after_reading_ahead_counts(tmp_path: Path) -> None:
    loader = Loader(tmp_path / "cache")
    path = write(tmp_path / "shop.py", PLUGIN.format(answer=1))
    assert loader.importer.cache.ahead(str(path))
    write(path, PLUGIN.format(answer=2))
    assert (await load(loader, path)).plugin.module.load() == 2


async def test_a_torn_cache_file_counts_as_none(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.py", PLUGIN.format(answer=7))
    loader = Loader(tmp_path / "cache")
    await load(loader, path)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    for torn in (b"", whole[:10], whole[:60], whole[:-1], whole[:40] + b"\0\0\0\0" + whole[44:]):
        file.write_bytes(torn)
        assert (await load(loader, path)).plugin.module.load() == 7
        assert file.read_bytes() == whole


async def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.py", PLUGIN.format(answer=7))
    write(tmp_path / "cache", "a file where the folder would be")
    assert (await load(Loader(tmp_path / "cache"), path)).plugin.module.load() == 7


async def test_module_class_and_functions_die(tmp_path: Path) -> None:
    loader = Loader(tmp_path / "cache")
    folder = package(
        tmp_path / "shop",
        __init__="""
            from typing import Generic, Optional, TypeVar
            from shop.models import Thing
            from . import models
            T = TypeVar("T")
            class Box(Generic[T]): ...
            kept: Optional[Thing] = None
            boxes = Box[Thing]
            name, version = "shop", "1.0"
            class Loop: ...
            loop = Loop(); loop.me = loop
            def load(thing: Optional[Thing] = None): return models
        """,
        models="class Thing: ...",
    )
    loaded = await load(loader, folder)
    module = loaded.plugin.module
    watched = [
        weakref.ref(dead)
        for dead in (
            module,
            module.models,
            module.Thing,
            module.Loop,
            module.load,
            module.loop,
            loaded.generation,
            module.Box,
        )
    ]
    assert len(generations()) == 2
    loader.dispose(loaded)
    assert generations() == set()
    assert not any(type(finder).__module__.startswith("veko_plugins") for finder in sys.meta_path)
    del loaded, module
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)


async def test_packages_bring_their_submodules(tmp_path: Path) -> None:
    loader = Loader()
    folder = package(
        tmp_path / "shop",
        __init__="""
            from . import late, models
            from .deep.inner import up
            import shop.models as again
            import shop
            from shop import models as third
            from shop.deep import inner
            name, version = "shop", "1.0"
            def load(): ...
            def lately():
                from . import later
                import shop.later
                return later, shop.later
        """,
        models="VALUE = 1",
        late="import shop.models\nVALUE = shop.models.VALUE",
        later="",
        deep__inner="from ..models import VALUE as up",
    )
    loaded = await load(loader, folder)
    module = loaded.plugin.module
    assert loaded.generation is not None
    root = module.__name__
    assert module.again is module.third is module.models is sys.modules[f"{root}.models"]
    assert module.shop is module
    assert module.inner is sys.modules[f"{root}.deep.inner"]
    one, other = module.lately()
    assert one is other is sys.modules[f"{root}.later"]
    assert "shop" not in sys.modules
    assert set(loaded.generation.modules()) == generations()
    assert module.models.__spec__.origin == str(folder / "models.py")
    assert module.__spec__.submodule_search_locations == [str(folder)]
    assert not files(tmp_path, "*.pyc")

    write(folder / "models.py", "VALUE = 2")
    newer = await load(loader, folder)
    assert (module.up, newer.plugin.module.up) == (1, 2)
    loader.dispose(loaded)
    assert newer.plugin.module.lately()
    loader.dispose(newer)
    assert generations() == set()


async def test_an_installed_package_of_the_same_name_wins_over_the_folder(tmp_path: Path) -> None:
    folder = package(
        tmp_path / "msgspec",
        __init__="""
            import msgspec
            name, version = "msgspec", "1.0"
            def load(): ...
        """,
    )
    import msgspec

    assert (await load(Loader(), folder)).plugin.module.msgspec is msgspec


async def test_resources_and_sources_of_a_generation(tmp_path: Path) -> None:
    import importlib.resources
    import inspect

    folder = package(tmp_path / "shop", __init__=PLUGIN.format(answer=1))
    write(folder / "page.html", "<p>")
    module = (await load(Loader(), folder)).plugin.module
    assert importlib.resources.files(module).joinpath("page.html").read_text() == "<p>"
    assert inspect.getsource(module.load).startswith("def load")
    assert module.Thing.__module__ == module.__name__


async def test_tracebacks_name_the_original_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    write(path, "name, version = 'shop', '1'\ndef load():\n    return 1 / 0\n")
    module = (await load(Loader(tmp_path / "cache"), path)).plugin.module
    for _ in range(2):  # compiled, then from the cache
        with pytest.raises(ZeroDivisionError) as caught:
            module.load()
        frame = traceback.extract_tb(caught.value.__traceback__)[-1]
        assert (frame.filename, frame.lineno, frame.line) == (str(path), 3, "return 1 / 0")
        module = (await load(Loader(tmp_path / "cache"), path)).plugin.module


@pytest.mark.parametrize(
    ("files", "remedies"),
    [
        ({"b.py": "", "shop.py": "import b"}, ["b lies beside", "from . import b", "dependencies"]),
        ({"b/__init__.py": "", "shop/__init__.py": "import b.c"}, ["move it into shop/"]),
        ({"shop/b.py": "", "shop/__init__.py": "import b"}, ["write `from . import b`"]),
        ({"shop.py": "import jsonn"}, ["Did you mean 'json'?"]),
        (
            {"shop.py": "peer_dependencies = ['no-such>=2; python_version>\"3\"']\nimport no_such"},
            ["pip install 'no-such>=2'"],
        ),
        (
            {
                "shop/plugin.toml": "peer_dependencies = ['no-such[x]', 'other']",
                "shop/__init__.py": "import no_such",
            },
            ["pip install 'no-such[x]'"],
        ),
    ],
)
async def test_a_module_that_is_missing_never_invites_a_stranger(
    tmp_path: Path, files: dict[str, str], remedies: list[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    source = Discovery(tmp_path).find("shop")
    with pytest.raises(LoadError) as caught:
        await Loader().import_source(source)
    for remedy in remedies:
        assert remedy in str(caught.value)
    declared = any("peer_dependencies" in text for text in files.values())
    assert ("pip install" in str(caught.value)) == declared


@pytest.mark.parametrize(
    "peer", ["no-such @ https://example.com/x.whl", "-r evil", "; rm -rf /", "no-such; rm"]
)
async def test_what_a_plugin_declares_is_no_shell_text(tmp_path: Path, peer: str) -> None:
    (tmp_path / "shop.py").write_text(f"peer_dependencies = [{peer!r}]\nimport no_such")
    with pytest.raises(LoadError) as caught:
        await Loader().import_source(Discovery(tmp_path).find("shop"))
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "line", "message", "remedy"),
    [
        ("x = 1\ndef load(:\n", 2, "syntax error: ", "Fix the line"),
        ("\nimport nowhere_to_be_found\n", 2, "No module named 'nowhere", "add that to `peer_dep"),
        ("\n\nfrom json import nothing\n", 3, "cannot import name 'nothing'", "Fix the import"),
        ("from .models import Thing\n", 1, "a single file has no package", "Make it a folder"),
        ("from . import models\n", 1, "a single file has no package", "Make it a folder"),
        ("import sys\nsys.exit(3)\n", 2, "called sys.exit(3)", "Raise an error instead"),
        ("\n\nraise GeneratorExit\n", 3, "raised GeneratorExit", "Fix"),
        ("def f():\n    1/0\nf()\n", 2, "raised ZeroDivisionError: division", "Fix the line"),
        ("import json\njson.loads('x')\n", 2, "raised JSONDecodeError", "Fix the line"),
        ("(" * 5000, 1, "syntax error", "Fix the line"),
    ],
)
async def test_a_failed_import_says_where_and_what_to_do(
    tmp_path: Path, source: str, line: int, message: str, remedy: str
) -> None:
    path = tmp_path / "shop.py"
    path.write_text(source)
    with pytest.raises(LoadError) as caught:
        await load(Loader(), path)
    error = caught.value
    assert (error.plugin, error.path, error.line, error.step) == ("shop", path, line, "import")
    assert message in str(error)
    assert remedy in str(error)
    assert error.__cause__ is not None
    assert generations() == set()


async def test_a_package_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    folder = package(
        tmp_path / "shop", __init__="from . import good, bad", good="", bad="\n\nraise OSError(1)"
    )
    with pytest.raises(LoadError) as caught:
        await load(Loader(), folder)
    assert (caught.value.path, caught.value.line) == (folder / "bad.py", 3)
    assert generations() == set()
    write(folder / "bad.py", "from .gone import x")
    with pytest.raises(LoadError, match=r"shop\.gone"):
        await load(Loader(), folder)
    write(folder / "bad.py", "x =")
    with pytest.raises(LoadError) as caught:
        await load(Loader(), folder)
    assert (caught.value.path, caught.value.line) == (folder / "bad.py", 1)
    assert generations() == set()


async def test_ctrl_c_while_importing_passes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        await load(Loader(), write(tmp_path / "shop.py", "raise KeyboardInterrupt"))
    assert generations() == set()


async def test_a_cancellation_that_a_module_raises_is_a_failure(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.py", "import asyncio\nraise asyncio.CancelledError")
    with pytest.raises(LoadError) as caught:
        await load(Loader(), path)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_a_source_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_bytes(b"name = 'shop'\ntext = '\xe9t\xe9'\n")
    with pytest.raises(LoadError, match="not UTF-8: byte 0xe9") as caught:
        await load(Loader(), path)
    assert (caught.value.path, caught.value.line) == (path, 2)
    path.write_bytes(b"name = 'shop'\0\n")
    with pytest.raises(LoadError, match="null bytes"):
        await load(Loader(), path)
    head = b"# coding: latin-1\n"
    path.write_bytes(head + b"name, version, text = 'shop', '1', '\xe9'\ndef load(): ...\n")
    assert (await load(Loader(), path)).plugin.module.text == "é"


async def test_a_source_that_is_too_large_or_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.py", PLUGIN.format(answer=1) + "#" * 2000)
    with pytest.raises(LoadError, match=r"2,\d+ bytes, 1,000 are allowed"):
        await load(Loader(max_source=1000), path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(LoadError, match="104,857,600 bytes, 10,485,760 are allowed") as caught:
        await load(Loader(), path)
    assert caught.value.plugin == "shop"
    path.unlink()
    with pytest.raises(LoadError, match="cannot be read: No such file") as caught:
        await load(Loader(), path)
    assert isinstance(caught.value.__cause__, LoadError)
    assert isinstance(caught.value.__cause__.__cause__, FileNotFoundError)


async def test_a_link_out_of_a_package_is_refused_unless_allowed(tmp_path: Path) -> None:
    folder = package(tmp_path / "shop", __init__="from . import models\n" + PLUGIN.format(answer=1))
    (folder / "models.py").symlink_to(write(tmp_path / "elsewhere.py", ""))
    with pytest.raises(LoadError, match=r"is a link out of its folder.*allow_symlinks"):
        await load(Loader(), folder)
    assert generations() == set()
    assert await load(Loader(allow_symlinks=True), folder)


CLASS = """
from veko import Plugin

class Base(Plugin):
    version = "2.0"
    def load(self): ...

class Shop(Base):
    name = "shop"
"""


@pytest.mark.parametrize(
    ("source", "version"),
    [
        (PLUGIN.format(answer=1), "1.0"),
        (CLASS, "2.0"),
        (CLASS + "plugin = Shop()", "2.0"),
        ("plugin = {'name': 'shop', 'version': '3.0', 'load': lambda: None}", "3.0"),
    ],
)
async def test_m_the_forms_that_a_module_may_hold(
    tmp_path: Path, source: str, version: str
) -> None:
    loaded = await load(Loader(), write(tmp_path / "shop.py", source))
    plugin = loaded.plugin
    assert (plugin.manifest.name, plugin.manifest.version) == ("shop", version)
    assert plugin.source == tmp_path / "shop.py"
    assert plugin.module is sys.modules[plugin.module.__name__]


async def test_m_two_plugins_in_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.py", CLASS + "class Other(Base):\n    name = 'other'\n")
    with pytest.raises(ManifestError, match="several plugins in it: Shop, Other"):
        await load(Loader(), path)
    assert generations() == set()


@pytest.mark.parametrize("raised", ["SystemExit(2)", "ValueError('no')"])
async def test_a_class_that_cannot_be_made_is_a_failure(tmp_path: Path, raised: str) -> None:
    text = f"{CLASS}    def __init__(self):\n        raise {raised}\n"
    path = write(tmp_path / "shop.py", text)
    with pytest.raises(LoadError) as caught:
        await load(Loader(), path)
    assert (caught.value.path, caught.value.line) == (path, 11)
    assert generations() == set()


async def test_m1_without_name_or_load(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"name is missing.*load\(\) is missing"):
        await load(Loader(), write(tmp_path / "shop.py", "version = '1'"))
    assert generations() == set()


@pytest.mark.parametrize("source", ["name = 'shop'\ndef load(): ...", CLASS])
async def test_plugin_toml_says_what_the_source_does_not(tmp_path: Path, source: str) -> None:
    folder = package(tmp_path / "shop", __init__=source)
    said = {"name": "other", "version": "4.0", "author": "A", "dependencies": ["db"]}
    manifest = (await load(Loader(), folder, **said)).plugin.manifest
    assert (manifest.name, manifest.author, manifest.dependencies) == ("shop", "A", ("db",))
    assert manifest.version == ("2.0" if source is CLASS else "4.0")


async def test_two_loaders_do_not_share_names(tmp_path: Path) -> None:
    path = write(tmp_path / "shop.py", PLUGIN.format(answer=1))
    one, other = Loader(), Loader()
    first, second = await load(one, path), await load(other, path)
    assert len(generations()) == 2
    one.dispose(first)
    assert generations() == {second.plugin.module.__name__}


async def test_generations_come_and_go_through_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    hook = "def answer(value): return {0}\ndef load(context): context.hook('ask', answer)\n"
    text = "name, version = 'shop', '1'\n" + hook
    async with Kernel() as kernel:
        await kernel.load(Loader(tmp_path / "cache"))
        loader: Loader = kernel.use("loader")
        old = await load(loader, write(path, text.format(1)))
        await kernel.load(old.plugin)
        assert await kernel.bus.emit("ask") == 1
        new = await load(loader, write(path, text.format(2)))
        await kernel.reload(new.plugin)
        loader.dispose(old)
        assert await kernel.bus.emit("ask") == 2
        watched = [weakref.ref(one.plugin.module) for one in (old, new)]
        del old
        gc.collect()
        assert watched[0]() is None, "the old generation is gone while the new one runs"
        await kernel.unload("shop")
        loader.dispose(new)
        assert generations() == set()
    del new, kernel
    gc.collect()
    assert watched[1]() is None
