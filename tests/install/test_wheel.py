"""The wheel in fresh environments: what each extra brings, and what is said where it is missing.

These tests install from the package index that pip is configured with, and are skipped, with the
reason, where none can be reached.
"""

import json
import os
import shutil
import socket
import subprocess
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("kernel", "plugins", "adapters", "docs", "README.md", "LICENSE", "pyproject.toml")
SECONDS = 600
PLUGIN = """
name = "hello"
version = "1.0.0"

def load(context):
    context.add_command("greet", lambda name: f"hello {name}")
    context.add_route("GET", "/hello", lambda: "hello")
"""


class Environment:
    """A virtual environment with the wheel in it."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        program, *rest = map(str, words)
        return subprocess.run(
            [self.bin / program, *rest],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            cwd=cwd,
            env=_environ(),
        )

    def python(self, code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", code, cwd=cwd)


def _environ() -> dict[str, str]:
    """Return the environment without what would let the checkout be imported."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if key not in hidden}


def _pip(python: Path | str, *words: object) -> None:
    done = subprocess.run(
        [python, "-m", "pip", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env=_environ(),
    )
    if done.returncode == 0:
        return
    unreachable = ("No matching distribution", "Could not find a version", "connection", "resolve")
    if any(sign in done.stderr for sign in unreachable) and not os.environ.get("CI"):
        pytest.skip(f"pip reaches no index that has what it needs: {done.stderr.strip()[-300:]}")
    pytest.fail(done.stderr[-2_000:])


def _made(folder: Path) -> Environment:
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    return Environment(folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    builder = _made(tmp_path_factory.mktemp("builder") / "venv")
    _pip(builder.bin / "python", "wheel", "--no-deps", "--wheel-dir", target, source)
    (made,) = target.glob("veko-*.whl")
    return made


@pytest.fixture(scope="module")
def environment(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Environment]:
    """Return a function that installs the wheel with extras (`"cli,asgi"`; `""` for none)."""
    made: dict[str, Environment] = {}

    def install(extras: str) -> Environment:
        if extras not in made:
            one = _made(tmp_path_factory.mktemp("venv") / "venv")
            _pip(one.bin / "python", "install", f"{wheel}[{extras}]" if extras else wheel)
            made[extras] = one
        return made[extras]

    return install


@pytest.fixture
def application(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "hello.py").write_text(PLUGIN)
    return tmp_path


def test_the_kernel_alone_has_two_dependencies(
    environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    bare = environment("")
    listed = json.loads(bare.run("python", "-m", "pip", "list", "--format=json").stdout)
    names = {one["name"].lower().replace("_", "-") for one in listed}
    needed_by_anyio = {"idna", "sniffio", "typing-extensions", "exceptiongroup"}
    assert names - needed_by_anyio - {"pip", "setuptools", "wheel"} == {"veko", "anyio", "msgspec"}
    done = bare.python(
        "import anyio, veko\n"
        "async def main():\n"
        "    async with veko.Kernel() as kernel:\n"
        "        plugin = {'name': 'a', 'version': '1', 'load': lambda context:"
        " context.hook('x', lambda v: v + 1)}\n"
        "        await kernel.load(plugin)\n"
        "        print(await kernel.bus.emit('x', 1))\n"
        "anyio.run(main)\n",
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("serve", ".")])
def test_the_command_alone_names_its_extra(
    environment: Callable[[str], Environment], words: tuple[str, ...]
) -> None:
    done = environment("").run("veko", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("veko: the command line needs ")
    assert done.stderr.endswith(": pip install 'veko[cli]'\n")


@pytest.mark.parametrize(
    "code",
    ["import veko_plugins", "from veko_plugins import PluginManager", "import veko_plugins.http"],
)
def test_importing_the_manager_names_its_extra(
    environment: Callable[[str], Environment], code: str, tmp_path: Path
) -> None:
    done = environment("").python(code, cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: veko_plugins needs ")
    assert last.endswith("which is not installed: pip install 'veko[manager]'")


def test_the_extra_cli_lists_validates_and_runs(
    environment: Callable[[str], Environment], application: Path
) -> None:
    cli = environment("cli")
    done = cli.run("veko", "list", application)
    assert done.returncode == 0, done.stderr
    assert any(line.split()[:3] == ["hello", "1.0.0", "active"] for line in done.stdout.split("\n"))
    assert cli.run("veko", "events").returncode == 0
    assert cli.run("veko", "validate", application / "plugins" / "hello.py").returncode == 0
    done = cli.run("veko", "run", "--dir", application, "greet", "ada")
    assert (done.stdout, done.returncode) == ("hello ada\n", 0), done.stderr
    done = cli.run("veko", "serve", application)
    assert done.returncode != 0
    assert "pip install 'veko[litestar]'" in done.stderr
    done = cli.run("veko", "serve", application, "--adapter", "asgi")
    assert done.returncode != 0
    assert "pip install 'veko[asgi]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_has_the_templates(
    environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    cli = environment("cli")
    done = cli.run("veko", "init", tmp_path / "shop")
    assert done.returncode == 0, done.stderr
    listed = cli.run("veko", "list", tmp_path / "shop")
    assert "hello" in listed.stdout, listed.stderr
    code = "from veko_plugins.scaffold import TEMPLATES; print(*TEMPLATES)"
    for template in cli.python(code, cwd=tmp_path).stdout.split():
        done = cli.run("veko", "new", f"my-{template}", "-t", template, "--dir", tmp_path / "shop")
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "shop" / "plugins" / f"my_{template}"
        assert {"README.md", "tests"} <= {path.name for path in folder.iterdir()}


def test_the_wheel_has_the_docs(environment: Callable[[str], Environment], tmp_path: Path) -> None:
    code = (
        "from veko_plugins.admin.manual import manual\n"
        "print(*(page.name for page in manual().pages()))\n"
        "assert manual().search('roll back a broken reload')\n"
        "assert '(guides/reload.md)' in manual().read('llms.txt')"
    )
    done = environment("manager").python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    assert set(done.stdout.split()) == expected


def test_generating_without_jinja_names_its_extra(
    environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    manager = environment("manager")
    code = "from veko_plugins.scaffold import generate_plugin_now as g\ng('x', 'basic', '.', {})"
    done = manager.python(code, cwd=tmp_path)
    assert "pip install 'veko[scaffold]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_extra_asgi_serves(
    environment: Callable[[str], Environment], application: Path
) -> None:
    served = environment("cli,asgi")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [served.bin / "veko", "serve", application, "--adapter", "asgi", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environ(),
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Listening" in line:
                break
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/hello", timeout=10) as answer:
            assert answer.read() == b"hello", lines
    finally:
        process.terminate()
        process.communicate(timeout=30)
