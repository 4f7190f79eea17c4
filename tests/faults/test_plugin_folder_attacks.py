"""Files in a plugin folder that no plugin should have: each fails alone, and nothing hangs."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from veko import OptionError
from veko_plugins import PluginManager

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs FIFOs and signals")


class Running(Protocol):
    process: subprocess.Popen[str]

    @property
    def text(self) -> str: ...
    def wait_for(self, pattern: str) -> re.Match[str]: ...
    def ends(self) -> int: ...


Start = Callable[..., Running]

GOOD = 'name = "good"\nversion = "{version}"\n\ndef load(context):\n    pass\n'
PLUGIN = 'name = "bad"\nversion = "1.0.0"\n\ndef load(context):\n    pass\n'
DEEP = "x = " + "[" * 5_000 + "]" * 5_000
HUGE = "x = " + "9" * 5_000
MANIFEST = 'name = "bad"\nversion = "1.0.0"\n'


def packaged(root: Path, manifest: str | bytes) -> None:
    folder = root / "plugins" / "bad"
    folder.mkdir()
    (folder / "__init__.py").write_text("def load(context):\n    pass\n")
    data = manifest if isinstance(manifest, bytes) else manifest.encode()
    (folder / "plugin.toml").write_bytes(data)


def source(root: Path, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (root / "plugins" / "bad.py").write_bytes(data)


BAD: dict[str, tuple[Callable[[Path, Any], None], Any]] = {
    "deep manifest": (packaged, MANIFEST + DEEP),
    "deep tables": (packaged, MANIFEST + "[" + ".".join(["a"] * 20_000) + "]"),
    "deep inline tables": (packaged, MANIFEST + "x = " + "{a=" * 5_000 + "1" + "}" * 5_000),
    "huge integer in a manifest": (packaged, MANIFEST + HUGE),
    "manifest in Latin-1": (packaged, (MANIFEST + 'description = "é"').encode("latin-1")),
    "NUL in a manifest": (packaged, MANIFEST + "\0"),
    "a coding that gives no text": (source, "# coding: rot13\n" + PLUGIN),
    "a coding that is none": (source, "# coding: nonsense\n" + PLUGIN),
    "a coding that is a bomb": (source, "# coding: zlib\n" + PLUGIN),
    "idna": (source, b"# coding: idna\nx = '\xff'\n" + PLUGIN.encode()),
    "deep source": (source, PLUGIN + "x = " + "(" * 5_000 + ")" * 5_000 + "\n"),
    "deep operators": (source, PLUGIN + "x = " + "-" * 100_000 + "1\n"),
    "deep sums": (source, PLUGIN + "x = " + "1+" * 100_000 + "1\n"),
    "huge integer in a source": (source, PLUGIN + HUGE + "\n"),
    "huge version": (source, PLUGIN.replace('"1.0.0"', "9" * 5_000)),
    "NUL in a source": (source, PLUGIN + "\0"),
}
NAMES = sorted(BAD)


@pytest.fixture
def application(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "good.py").write_text(GOOD.format(version="1.0.0"))
    (root / "veko.toml").write_text("max_retries = 0\n")
    return root


LOADER = """
import asyncio, sys
from veko_plugins import PluginManager

async def main():
    async with PluginManager(root=sys.argv[1], adapter=None, max_retries=0) as manager:
        print("loaded", *manager.report.loaded)
        print("failed", *manager.report.failed)

asyncio.run(main())
"""


def load(root: Path, *, seconds: float = 20) -> str:
    """Start an application in a process of its own, and return what it says of its plugins."""
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(root)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1_000:]
    return done.stdout


@pytest.mark.parametrize("kind", NAMES)
def test_one_bad_file_is_a_fault_of_its_plugin_alone(application: Path, kind: str) -> None:
    make, what = BAD[kind]
    make(application, what)
    said = load(application)
    assert re.search(r"^loaded.* good\b", said, re.MULTILINE), said
    if "huge integer in a source" not in kind:
        assert re.search(r"^failed .*bad", said, re.MULTILINE), said


ENDS_RELOADING = ["deep manifest", "huge integer in a manifest", "a coding that gives no text"]


@pytest.mark.parametrize("kind", ENDS_RELOADING)
def test_a_bad_file_does_not_end_reloading_by_signal(
    start: Start, application: Path, kind: str
) -> None:
    veko = start("serve", application, "--port", 0)
    veko.wait_for("Listening on")
    make, what = BAD[kind]
    make(application, what)
    veko.process.send_signal(signal.SIGHUP)
    veko.wait_for(r"failed   .*bad")
    (application / "plugins" / "good.py").write_text(GOOD.format(version="1.1.0"))
    veko.process.send_signal(signal.SIGHUP)
    veko.wait_for(r"reloaded good 1\.1\.0")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0


@pytest.mark.parametrize("kind", ENDS_RELOADING)
def test_a_bad_file_does_not_end_watching(start: Start, application: Path, kind: str) -> None:
    veko = start("serve", application, "--port", 0, "--dev")
    veko.wait_for("Listening on")
    make, what = BAD[kind]
    make(application, what)
    veko.wait_for(r"\bbad\b")
    (application / "plugins" / "good.py").write_text(GOOD.format(version="1.1.0"))
    veko.wait_for(r"good 1\.1\.0|reloaded.*good|good.*reloaded")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0


# -- what is no file


@pytest.mark.parametrize(
    "name", ["bad.py", "bad/plugin.toml", "bad/other.py", "bad/data.json", "bad/__init__.py"]
)
def test_a_fifo_holds_nothing_up(application: Path, name: str) -> None:
    """Opening one that nobody writes to would wait for ever."""
    if "/" in name:
        packaged(application, MANIFEST)
    path = application / "plugins" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert re.search(r"^loaded.* good\b", load(application, seconds=10), re.MULTILINE)


def test_a_fifo_that_comes_later_holds_no_reload_up(start: Start, application: Path) -> None:
    packaged(application, MANIFEST)
    veko = start("serve", application, "--port", 0)
    veko.wait_for("Listening on")
    os.mkfifo(application / "plugins" / "bad" / "other.py")
    (application / "plugins" / "good.py").write_text(GOOD.format(version="1.1.0"))
    veko.process.send_signal(signal.SIGHUP)
    veko.wait_for(r"reloaded good 1\.1\.0")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0


MEASURED = """
import asyncio, resource, sys
from veko_plugins import PluginManager

async def main():
    async with PluginManager(root=sys.argv[1], adapter=None, max_retries=0) as manager:
        print("loaded", *manager.report.loaded)

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(main())
read = [line.split()[1] for line in open("/proc/self/io") if line.startswith("rchar")]
print(int(read[0]) // 2**20, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what was read by /proc")
def test_no_more_of_a_source_than_the_limit_is_read(application: Path) -> None:
    """A module of a package that nobody imports; sparse, so that it costs no disk."""
    packaged(application, MANIFEST)
    with (application / "plugins" / "bad" / "large.py").open("wb") as file:
        file.truncate(200 * 2**20)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(application)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    read, grown = map(int, done.stdout.splitlines()[-1].split())
    assert read < 100, f"{read} MiB were read"
    assert grown < 100, f"the process grew by {grown} MiB"


UNREADABLE = """
import os, sys
from veko_plugins.discovery import Discovery

if os.geteuid() == 0:  # root reads everything
    os.setegid(65534)
    os.seteuid(65534)
found = Discovery(sys.argv[1], group=None).scan()
print("sources", *(source.name for source in found.sources))
for problem in found.problems:
    print("problem", problem.name, problem.error)
"""


@pytest.mark.parametrize("kind", ["folder", "__init__.py", "plugin.toml"])
def test_a_package_that_cannot_be_read_is_reported(kind: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        (Path(root) / "plugins").mkdir()
        packaged(Path(root), MANIFEST)
        (Path(root) / "plugins" / "good.py").write_text(GOOD.format(version="1.0.0"))
        folder = Path(root) / "plugins" / "bad"
        hidden = folder if kind == "folder" else folder / kind
        before = hidden.stat().st_mode
        hidden.chmod(0)
        try:
            said = subprocess.run(
                [sys.executable, "-c", UNREADABLE, str(folder.parent)],
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            ).stdout
        finally:
            hidden.chmod(before)
    if kind == "__init__.py":  # its name is not known; importing it raises the error
        assert "sources bad good" in said
    else:
        assert re.search(r"^problem bad .*cannot be read", said, re.MULTILINE), said
        assert "sources good\n" in said


# -- settings


@pytest.mark.parametrize("text", [DEEP, HUGE, "# \udcff"], ids=["deep", "huge", "not UTF-8"])
def test_a_bad_settings_file_is_a_fault_that_names_it(application: Path, text: str) -> None:
    (application / "veko.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OptionError, match=r"veko\.toml cannot be read"):
        PluginManager(root=application, adapter=None)


def test_a_fifo_as_settings_file_holds_no_start_up(application: Path) -> None:
    (application / "veko.toml").unlink()
    os.mkfifo(application / "veko.toml")
    with pytest.raises(OptionError, match=r"veko\.toml cannot be read: it is not a regular file"):
        PluginManager(root=application, adapter=None)


def test_settings_that_cannot_be_read_do_not_end_reloading(start: Start, application: Path) -> None:
    veko = start("serve", application, "--port", 0)
    veko.wait_for("Listening on")
    (application / "veko.toml").write_text(DEEP)
    veko.process.send_signal(signal.SIGHUP)
    veko.wait_for(r"settings .*nested too deeply")
    (application / "plugins" / "good.py").write_text(GOOD.format(version="1.1.0"))
    veko.process.send_signal(signal.SIGHUP)
    veko.wait_for(r"reloaded good 1\.1\.0")
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
