"""Plugins in other languages: found, loaded, cached, reloaded, and their errors on their lines."""

# ruff: noqa: ASYNC110, ASYNC220, ASYNC240

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veko import LoadError, NotFoundError, VekoError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio

# A language whose plugins say what they answer: `answer: 42`. Each line becomes several.
CARDS = """
from veko_plugins.transpile import Python
name, version = "cards", {version!r}
RUNS = []

def to_python(text, path):
    RUNS.append(path.name)
    out, lines = [], []
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.partition(":")
        if key == "stop":
            raise SyntaxError("there is nothing to stop", (str(path), number, None, None))
        if key == "bug":
            raise ZeroDivisionError("the transpiler divides by zero")
        made = {{
            "name": ["# " + {version!r}, f"name = {{value.strip()!r}}", "version = '1.0.0'"],
            "needs": [f"dependencies = [{{value.strip()!r}}]"],
            "answer": ["def load(context):", "    context.hook('ask:' + name, lambda: answer())",
                       "def answer():", f"    return {{value}}"],
        }}.get(key, [line])
        out += made
        lines += [number] * len(made)
    return Python("\\n".join(out), lines)

def load(context):
    context.add_transpiler(".card", to_python)
"""


def manager_of(root: Path, **options: Any) -> PluginManager:
    defaults = {"adapter": None, "storage": "none", "max_retries": 0}
    return PluginManager(root=root, **(defaults | options))


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    folder.joinpath("cards.py").write_text(CARDS.format(version="1.0.0"))
    return folder


def card(folder: Path, name: str, answer: object = 42, more: str = "") -> Path:
    path = folder / f"{name}.card"
    path.write_text(f"name: {name}\n{more}\nanswer: {answer}\n")
    return path


def runs(manager: PluginManager) -> list[str]:
    found: list[str] = manager.get_plugin("cards").exports["RUNS"]  # type: ignore[union-attr]
    return found


async def ask(manager: PluginManager, name: str) -> Any:
    return await manager.bus.emit(f"ask:{name}", None)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


async def test_T4_they_load_in_one_graph_with_plugins_in_python(
    tmp_path: Path, plugins: Path
) -> None:
    card(plugins, "base")
    card(plugins, "above", "'above'", "needs: base")
    plugins.joinpath("aaa.py").write_text(
        "name, version, dependencies = 'aaa', '1', ['above']\ndef load(): ...\n"
    )
    plugins.joinpath("README.md").write_text("no plugin")
    async with manager_of(tmp_path) as manager:
        names = [one.name for one in manager.list_plugins()]
        assert names.index("base") < names.index("above") < names.index("aaa")
        assert await ask(manager, "base") == 42
        assert await ask(manager, "above") == "above"
        record = manager.get_plugin("above")
        assert record is not None
        assert record.source == plugins / "above.card"
        assert (await manager.validate_plugin("base")).ok


async def test_what_needs_a_plugin_that_no_language_has_is_reported_once(
    tmp_path: Path, plugins: Path
) -> None:
    plugins.joinpath("aaa.py").write_text(
        "name, version, dependencies = 'aaa', '1', ['nowhere']\ndef load(): ...\n"
    )
    card(plugins, "lost", more="needs: nowhere")
    failed: list[str | None] = []
    manager = manager_of(tmp_path)
    manager.on("plugin:error", lambda name, error: failed.append(name))
    async with manager:
        assert sorted(map(str, failed)) == ["aaa", "lost"]


async def test_T2_the_cache_goes_by_content_and_by_the_transpiler(
    tmp_path: Path, plugins: Path
) -> None:
    path = card(plugins, "one")
    async with manager_of(tmp_path) as manager:
        assert runs(manager) == ["one.card"]
    async with manager_of(tmp_path) as manager:
        assert runs(manager) == []
        assert await ask(manager, "one") == 42
    state = path.stat()
    card(plugins, "one", 43)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # the time tells nothing
    async with manager_of(tmp_path) as manager:
        assert runs(manager) == ["one.card"]
        assert await ask(manager, "one") == 43
    plugins.joinpath("cards.py").write_text(CARDS.format(version="1.0.1"))
    async with manager_of(tmp_path) as manager:
        assert runs(manager) == ["one.card"]
    assert {one.name for one in tmp_path.iterdir()} <= {"plugins", ".veko"}
    assert sorted(one.name for one in plugins.iterdir()) == ["cards.py", "one.card"]


async def test_a_traceback_shows_the_lines_of_the_source(tmp_path: Path, plugins: Path) -> None:
    path = card(plugins, "one", "1 / 0", "# why not")
    for _ in range(2):  # transpiled, and from the cache
        failed: list[BaseException] = []
        manager = manager_of(tmp_path)
        manager.on("plugin:error", lambda name, error, failed=failed: failed.append(error))
        async with manager:
            await ask(manager, "one")
        text = "".join(traceback.format_exception(failed[0]))
        assert f'File "{path}", line 3, in answer' in text
        assert "answer: 1 / 0" in text


@pytest.mark.parametrize(
    ("answer", "said"),
    [("1 +", "syntax error: invalid syntax"), ("1\nstop:", "there is nothing to stop")],
)
async def test_a_source_that_is_wrong_is_a_fault_of_its_own(
    tmp_path: Path, plugins: Path, answer: str, said: str
) -> None:
    path = card(plugins, "one", answer)
    failed: list[str | None] = []
    manager = manager_of(tmp_path, auto_load=False)
    manager.on("plugin:error", lambda name, error: failed.append(name))
    async with manager:
        await manager.load_plugin("cards")
        with pytest.raises(LoadError, match=said) as raised:
            await manager.load_plugin("one")
        assert raised.value.path == path
        assert raised.value.line == (3 if answer == "1 +" else 4)
        assert failed == ["one"]


async def test_a_transpiler_that_fails_is_a_fault_of_its_plugin(
    tmp_path: Path, plugins: Path
) -> None:
    card(plugins, "one", "1\nbug:")
    failed: list[str | None] = []
    manager = manager_of(tmp_path)
    manager.on("plugin:error", lambda name, error: failed.append(name))
    async with manager:
        assert sorted(map(str, failed)) == ["cards", "one"]
        assert manager.error_count("cards") == 1
        with pytest.raises(LoadError, match=r"transpiler of cards for \.card failed: Zero"):
            await manager.load_plugin("one")


async def test_languages_may_go_through_each_other_and_a_slow_one_is_cut(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    folder.joinpath("chain.py").write_text(
        textwrap.dedent("""
        import asyncio
        name, version = "chain", "1"

        async def second(text, path):
            await asyncio.sleep(60 if "slow" in text else 0)
            return text.replace("λ", "lambda")

        def load(context):
            context.add_transpiler(".greek.txt", lambda text, path: text[1:], to=".greek")
            context.add_transpiler(".greek", second, timeout=0.2)
        """)
    )
    text = "name, version = '{}', '1'\ndef load(context):\n    context.hook('ask:{}', λ: 1)\n"
    folder.joinpath("a.greek.txt").write_text("#" + text.format("a", "a"))
    folder.joinpath("b.greek").write_text(text.format("b", "b"))
    folder.joinpath("c.greek").write_text(text.format("slow", "slow"))
    failed: list[str] = []
    manager = manager_of(tmp_path)
    manager.on("plugin:error", lambda name, error: failed.append(f"{name}: {error}"))
    async with manager:
        assert (await ask(manager, "a"), await ask(manager, "b")) == (1, 1)
        assert "chain: it took longer than 0.2 s" in failed


async def test_modules_of_a_folder_may_be_in_another_language(
    tmp_path: Path, plugins: Path
) -> None:
    shop = plugins / "shop"
    shop.mkdir()
    shop.joinpath("__init__.py").write_text(
        "name, version, dependencies = 'shop', '1', ['cards']\n"
        "def load(context):\n"
        "    from .rules import answer\n"
        "    context.hook('ask:shop', lambda: answer())\n"
    )
    rules = shop / "rules.card"
    rules.write_text("answer: 7\n")
    shop.joinpath("unused.card").write_text("stop: it is never imported\n")
    async with manager_of(tmp_path, auto_load=False) as manager:
        await manager.load_plugin("cards")
        await manager.load_plugin("shop")
        assert await ask(manager, "shop") == 7
        rules.write_text("answer: 8\n")
        await manager.reload_plugin("shop")
        assert await ask(manager, "shop") == 8
        rules.write_text("answer: (\n")
        with pytest.raises(LoadError, match="never closed"):
            await manager.reload_plugin("shop")
        assert await ask(manager, "shop") == 8


async def test_another_version_of_the_transpiler_reloads_what_it_made(
    tmp_path: Path, plugins: Path
) -> None:
    card(plugins, "one")
    async with manager_of(tmp_path) as manager:
        plugins.joinpath("cards.py").write_text(
            CARDS.format(version="2.0.0").replace("return {value}", "return {value} + 1")
        )
        await manager.reload_plugin("cards")
        async with asyncio.timeout(10):
            while await ask(manager, "one") != 43:
                await asyncio.sleep(0.01)


async def test_what_runs_keeps_running_without_its_transpiler(
    tmp_path: Path, plugins: Path
) -> None:
    card(plugins, "one")
    async with manager_of(tmp_path) as manager:
        await manager.unload_plugin("cards")
        assert await ask(manager, "one") == 42
        card(plugins, "one", 43)
        with pytest.raises(NotFoundError, match=r"cards, which turned \.card into Python, is"):
            await manager.reload_plugin("one")
        assert await ask(manager, "one") == 42
        await manager.load_plugin("cards")  # it catches up
        async with asyncio.timeout(10):
            while await ask(manager, "one") != 43:
                await asyncio.sleep(0.01)
        await manager.restart()
        assert await ask(manager, "one") == 43


async def test_they_are_watched(tmp_path: Path, plugins: Path) -> None:
    path = card(plugins, "one")
    manager = manager_of(tmp_path, watch_mode=True)
    async with manager:
        loaded = {one.name for one in manager.list_plugins()}
        assert "one" in loaded
        card(plugins, "one", "'" + "x" * 100_000 + "'")
        async with asyncio.timeout(10):
            while await ask(manager, "one") == 42:
                await asyncio.sleep(0.01)
        card(plugins, "two", 2)
        await until(lambda: manager.get_plugin("two") is not None)
        path.unlink()
        await until(lambda: manager.get_plugin("one") is None)


async def test_a_transpiler_that_appears_brings_its_plugins(tmp_path: Path, plugins: Path) -> None:
    text = plugins.joinpath("cards.py").read_text()
    plugins.joinpath("cards.py").unlink()
    card(plugins, "one")
    async with manager_of(tmp_path, watch_mode=True) as manager:
        assert manager.list_plugins() == []
        plugins.joinpath("cards.py").write_text(text)
        await until(lambda: manager.get_plugin("one") is not None)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("context.add_transpiler('card', print)", "'card' is not a suffix"),
        ("context.add_transpiler('.py', print)", "'.py' needs no transpiler"),
        ("context.add_transpiler('.a', print, to='.a')", "'.a' needs no transpiler"),
        ("context.add_transpiler('.card', print)", "cards transpiles .card already"),
        ("context.add_transpiler('.a', 1)", "fn"),
    ],
)
async def test_wrong_transpilers_are_refused(
    tmp_path: Path, plugins: Path, call: str, said: str
) -> None:
    plugins.joinpath("bad.py").write_text(
        f"name, version, dependencies = 'bad', '1', ['cards']\ndef load(context):\n    {call}\n"
    )
    async with manager_of(tmp_path, auto_load=False) as manager:
        await manager.load_plugin("cards")
        with pytest.raises(VekoError, match=said):
            await manager.load_plugin("bad")


async def test_nothing_is_left_outside_of_the_cache_by_one_that_is_killed(
    tmp_path: Path, plugins: Path
) -> None:
    code = CARDS.format(version="1.0.0").replace(
        "    RUNS.append",
        "    print('begun', flush=True)\n    import time; time.sleep(60)\n    RUNS",
    )
    plugins.joinpath("cards.py").write_text(code)
    card(plugins, "one")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    program = (
        "import asyncio; from veko_plugins import PluginManager\n"
        "async def main():\n"
        f"    async with PluginManager(root={str(tmp_path)!r}, adapter=None): ...\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(temporary.iterdir()) == []
    assert sorted(one.name for one in plugins.iterdir()) == ["cards.py", "one.card"]
    assert {one.name for one in tmp_path.iterdir()} == {"plugins", ".veko", "tmp"}


async def test_one_cannot_run_in_a_process_of_its_own(tmp_path: Path, plugins: Path) -> None:
    path = card(plugins, "one", more="isolation = 'process'")
    async with manager_of(tmp_path, auto_load=False) as manager:
        await manager.load_plugin("cards")
        with pytest.raises(LoadError, match="in card cannot run in a process"):
            await manager.load_plugin(path)
