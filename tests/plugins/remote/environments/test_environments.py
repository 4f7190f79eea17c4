"""Plugins with dependencies of their own: in one application, made once, safe when killed."""

# ruff: noqa: ASYNC221

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from veko import LoadError
from veko_plugins import PluginManager
from veko_plugins.remote.environments import Environments, Requirements, making

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("index")]

PLUGIN = """
# /// script
# dependencies = [{wanted!r}]
# ///
import importlib.metadata, os
{more}
name, version = {name!r}, "1.0.0"

def load(context):
    import {module} as library
    context.hook("ask:{name}", lambda: [importlib.metadata.version({dist!r}), library.__name__])
    context.hook("pid:{name}", lambda: os.getpid())
"""
PAIRS = {
    "attrs": ("attr", "19.3.0", "25.3.0"),
    "chardet": ("chardet", "3.0.4", "5.2.0"),
    "click": ("click", "7.1.2", "8.1.8"),
    "idna": ("idna", "2.10", "3.7"),
    "iniconfig": ("iniconfig", "1.1.1", "2.0.0"),
    "itsdangerous": ("itsdangerous", "1.1.0", "2.2.0"),
    "more-itertools": ("more_itertools", "8.14.0", "10.5.0"),
    "pluggy": ("pluggy", "0.13.1", "1.5.0"),
    "semver": ("semver", "2.13.0", "3.0.2"),
    "urllib3": ("urllib3", "1.26.20", "2.2.3"),
}


def write(
    root: Path, name: str, wanted: str, dist: str = "idna", module: str = "idna", more: str = ""
) -> Path:
    folder = root / "plugins"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(
        PLUGIN.format(name=name, wanted=wanted, dist=dist, module=module, more=more).lstrip()
    )
    return path


class Application:
    """A manager, and what it logged."""

    def __init__(self, root: Path, **options: Any) -> None:
        defaults = {"adapter": None, "storage": "none", "max_retries": 0}
        self.manager = PluginManager(root=root, **(defaults | options))
        self.lines: list[str] = []
        self.manager.on("log", lambda record: self.lines.append(record.message))

    async def __aenter__(self) -> "Application":
        await self.manager.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.manager.__aexit__(*error)

    async def ask(self, what: str) -> Any:
        return await self.manager.bus.emit(what, None)

    def made(self) -> list[str]:
        return [line for line in self.lines if line.startswith("making an environment")]


async def test_ten_conflicting_pairs_run_in_one_application(tmp_path: Path) -> None:
    for dist, (module, old, new) in PAIRS.items():
        write(tmp_path, f"{dist}-old", f"{dist}=={old}", dist, module)
        write(tmp_path, f"{dist}-new", f"{dist}=={new}", dist, module)
    async with Application(tmp_path) as app:
        found = {name: (await app.ask(f"ask:{name}-old"), await app.ask(f"ask:{name}-new"))
                 for name in PAIRS}  # fmt: skip
        assert found == {
            dist: ([old, module], [new, module]) for dist, (module, old, new) in PAIRS.items()
        }


async def test_what_the_host_has_stays_in_its_process(tmp_path: Path) -> None:
    write(tmp_path, "here", "idna>=3")
    write(tmp_path, "there", "idna<3")
    async with Application(tmp_path) as app:
        assert await app.ask("pid:here") == os.getpid()
        assert await app.ask("pid:there") != os.getpid()
        assert "there gets a process and an environment of its own: idna<3 is wanted" in str(
            app.lines
        )
        assert len(app.made()) == 1
        assert "for there: idna==2.10, msgspec==" in app.made()[0]


async def test_it_is_made_once_and_then_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "one", "idna==2.10")
    write(tmp_path, "same", "idna == 2.10")
    async with Application(tmp_path) as app:
        assert (await app.ask("ask:one"), await app.ask("ask:same")) == (["2.10", "idna"],) * 2
        assert len(app.made()) == 1
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    async with Application(tmp_path) as app:
        assert await app.ask("ask:one") == ["2.10", "idna"]
        assert app.made() == []
    assert not (tmp_path / "empty").exists()


async def test_a_folder_gets_another_environment_when_its_requirements_change(
    tmp_path: Path,
) -> None:
    shop = tmp_path / "plugins" / "shop"
    shop.mkdir(parents=True)
    shop.joinpath("__init__.py").write_text(
        "import idna\nname, version = 'shop', '1'\n"
        "def load(context):\n    context.hook('ask:shop', lambda: idna.__version__)\n"
    )
    shop.joinpath("requirements.txt").write_text("idna==2.10\n")
    async with Application(tmp_path) as app:
        assert await app.ask("ask:shop") == "2.10"
        shop.joinpath("requirements.txt").write_text("idna==2.9\n")
        await app.manager.reload_plugin("shop")
        assert await app.ask("ask:shop") == "2.9"
        shop.joinpath("requirements.txt").write_text("idna==0.0.0.1\n")
        with pytest.raises(LoadError, match=r"no environment can be made with idna==0\.0\.0\.1"):
            await app.manager.reload_plugin("shop")
        assert await app.ask("ask:shop") == "2.9"


async def test_a_confined_plugin_may_have_one(tmp_path: Path) -> None:
    write(
        tmp_path,
        "shut",
        "idna==2.10",
        more="isolation = 'process'\n\ndef _read():\n    try: return open('/etc/passwd').read()\n"
        "    except OSError as error: return type(error).__name__\nREAD = _read()",
    )
    path = tmp_path / "plugins" / "shut.py"
    path.write_text(path.read_text() + "    context.hook('read', lambda: READ)\n")
    async with Application(tmp_path) as app:
        assert await app.ask("ask:shut") == ["2.10", "idna"]
        assert await app.ask("read") == "PermissionError"


async def test_without_a_solution_uv_says_why(tmp_path: Path) -> None:
    path = write(tmp_path, "none", "idna==0.0.0.1")
    async with Application(tmp_path, auto_load=False) as app:
        with pytest.raises(LoadError, match=r"(?s)idna==0\.0\.0\.1.*no version of idna") as raised:
            await app.manager.load_plugin(path)
        assert raised.value.plugin == "none"
    left = tmp_path / ".veko" / "environments"
    assert list(left.iterdir()) == []


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("docopt==0.6.2", "(?s)docopt.*(build|wheel)"),  # the index has no wheel of it
        ("idna @ https://127.0.0.1:9/idna.whl", "it is confined, and requires idna @ https"),
    ],
)
async def test_nothing_is_built_or_fetched_for_a_confined_plugin(
    tmp_path: Path, wanted: str, said: str
) -> None:
    path = write(tmp_path, "shut", wanted, more="isolation = 'process'")
    async with Application(tmp_path, auto_load=False) as app:
        with pytest.raises(LoadError, match=said):
            await app.manager.load_plugin(path)


async def test_making_one_runs_nothing_of_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, wheels = tmp_path / "ran", tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "veko_trap-1.0-py3-none-any.whl", "w") as wheel:
        info = "veko_trap-1.0.dist-info"
        names = {
            "veko_trap.pth": f"import pathlib; pathlib.Path({str(ran)!r}).touch()\n",
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: veko-trap\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        for name, text in names.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in names))
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    environments = Environments(tmp_path / "environments", tmp_path / "cache", print)
    made = await environments.get("trap", Requirements(("veko-trap==1.0",)), trusted=False)
    environments.close()
    assert not ran.exists()
    subprocess.run([made, "-c", ""], check=True)
    assert ran.exists()  # so it was installed


async def test_a_trusted_one_may_need_what_has_to_be_built(tmp_path: Path) -> None:
    write(tmp_path, "built", "docopt==0.6.2", "docopt", "docopt")
    async with Application(tmp_path) as app:
        assert await app.ask("ask:built") == ["0.6.2", "docopt"]


async def test_without_uv_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = write(tmp_path, "none", "idna==2.10")
    async with Application(tmp_path, auto_load=False) as app:
        with pytest.raises(LoadError, match=r"uv is not installed.*veko\[environments\]"):
            await app.manager.load_plugin(path)


async def test_it_takes_so_long_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "TIMEOUT", 0.001)
    environments = Environments(tmp_path / "environments", tmp_path / "cache", print)
    with pytest.raises(LoadError, match=r"it took longer than 0\.001 s"):
        await environments.get("late", Requirements(("idna==2.10",)))


MAKE = """
import asyncio, sys
from pathlib import Path
from veko_plugins.remote.environments import Environments, Requirements

async def main():
    root = Path(sys.argv[1])
    environments = Environments(root / "environments", root / "cache",
                                lambda line: print(line, flush=True))
    print(await environments.get("one", Requirements(("idna==2.10",))))

asyncio.run(main())
"""


def begin(root: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(root)], stdout=subprocess.PIPE, text=True
    )


async def test_two_processes_may_make_the_same(tmp_path: Path) -> None:
    processes = [begin(tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert said[0] == said[1]
    names = [path.name for path in (tmp_path / "environments").iterdir()]
    assert len(names) == 2  # the lock and the environment
    assert not any(name.startswith(".making-") for name in names)


def uses(folder: Path) -> bool:
    """Whether a process runs that names a folder on its command line."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in process.read_bytes():
                return True
    return False


async def test_one_that_is_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    process = begin(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("making an environment for one")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = tmp_path / "environments"
    async with asyncio.timeout(60):
        # uv may still write for a moment. Before it runs its program it has its parent's command
        # line, which names the folder around.
        while uses(tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    for path in folder.glob(".making-*"):
        os.utime(path, (0, 0))
    again = begin(tmp_path)
    interpreter = Path(again.communicate(timeout=120)[0].splitlines()[-1])
    assert subprocess.run([interpreter, "-c", "import idna"], check=False).returncode == 0
    assert not list(folder.glob(".making-*"))


async def test_one_that_is_unused_for_long_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "environments"
    first, second = (Environments(folder, tmp_path / "cache", print) for _ in range(2))
    kept = (await first.get("kept", Requirements(("idna==2.10",)))).parents[1]
    gone = (await second.get("gone", Requirements(("idna==2.9",)))).parents[1]
    for environment in (kept, gone):
        os.utime(environment / "used", (0, 0))
    second.close()
    third = (await second.get("new", Requirements(("idna==2.8",)))).parents[1]
    assert kept.is_dir()  # somebody uses it
    assert third.is_dir()
    assert not gone.exists()
    first.close()
    second.close()
