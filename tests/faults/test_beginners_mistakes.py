# ruff: noqa: E501
"""What beginners get wrong, each in a plugin of its own, and what `veko serve --dev` prints of it.

All are in one application, which is served once: nobody's mistake keeps the others from running.
`docs/guides/troubleshooting.md` describes them in the same order.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

HEAD = 'name = "{name}"\nversion = "1.0.0"\n'
SIMPLE = "def load(context): ...\n"

PLUGINS = {
    # what the file is
    "nameless": 'version = "1.0.0"\ndef load(context): ...\n',
    "versionless": 'name = "versionless"\ndef load(context): ...\n',
    "loadless": 'name = "loadless"\nversion = "1.0.0"\n',
    "badversion": 'name = "badversion"\nversion = "one"\ndef load(context): ...\n',
    "signature": HEAD + "def load(ctx): ...\n",
    "syntax": HEAD + "def load(context)\n    pass\n",
    "sibling": HEAD + "import helpers\ndef load(context): ...\n",
    "import_": HEAD + "import reqeusts\ndef load(context): ...\n",
    "peer": HEAD + 'peer_dependencies = ["no-such-thing>=2"]\nimport no_such_thing\n' + SIMPLE,
    "toml/__init__": SIMPLE,
    "twice": 'name = "alright"\nversion = "1.0.0"\ndef load(context): ...\n',
    "python": HEAD + 'engines = {{"python": ">=4"}}\ndef load(context): ...\n',
    # what it needs
    "missing": HEAD + 'dependencies = ["alrigt"]\n' + SIMPLE,
    "needsoff": HEAD + 'dependencies = ["off"]\n' + SIMPLE,
    "off": HEAD + SIMPLE,
    "circle1": HEAD + 'dependencies = ["circle2"]\n' + SIMPLE,
    "circle2": HEAD + 'dependencies = ["circle1"]\n' + SIMPLE,
    # how it is configured
    "badconfig": HEAD
    + "import msgspec\nclass Settings(msgspec.Struct):\n    port: int = 25\n"
    + "config_schema = Settings\n"
    + SIMPLE,
    "typoconfig": HEAD + 'default_config = {{"colour": "red"}}\n' + SIMPLE,
    # what it does
    "raises": HEAD + "def load(context):\n    {{}}['key']\n",
    "attribute": HEAD + "def load(context):\n    context.add_rout('GET', '/x', print)\n",
    "storage": HEAD + "def load(context):\n    context.storage.get('x')\n",
    "typoevent": HEAD + "def load(context):\n    context.hook('request:strat', lambda r: None)\n",
    "alright": HEAD
    + """
import time

def load(context):
    context.add_route("GET", "/items/{{id:int}}", item)
    context.add_route("GET", "/unawaited", unawaited)
    context.add_route("GET", "/unsendable", unsendable)
    context.add_route("GET", "/blocks", blocks)
    context.add_route("POST", "/text", text)
    context.hook("response:start", hook)
    context.add_route("GET", "/hooked", lambda: "x")
    context.spawn(task)

def item(id: int):
    return {{1: "one"}}[id]

async def late():
    return 1

def unawaited():
    return {{"answer": late()}}

def unsendable():
    return object()

async def blocks():
    time.sleep(0.3)

def text(data: str):
    return data

def hook(response, request):
    if request.path == "/hooked":
        return "a text"

async def task():
    raise RuntimeError("the task failed")
""",
    "duplicate": HEAD
    + 'priority = 1\ndef load(context):\n    context.add_route("GET", "/blocks", print)\n',
    "_passed": HEAD + SIMPLE,
    "hangs": HEAD + "import asyncio\nasync def load(context):\n    await asyncio.sleep(60)\n",
}
OTHERS = {
    "helpers.py": "",
    "toml/plugin.toml": 'name = "toml"\nversion = "1.0.0"\nauthr = "me"\n',
    "script.ts": "export const name = 'script'",
}
SETTINGS = """
storage = "none"
max_retries = 0
timeout = 3
watchdog = 0.1

[plugins.off]
enabled = false

[plugins.badconfig]
port = "many"

[plugins.typoconfig]
color = "blue"

[plugins.alrigth]
x = 1
"""

PRINTED = {
    "a name is missing": r"failed +nameless: .*name.*is missing",
    "a version is missing": r"failed +versionless: .*version.*is missing",
    "load() is missing": r"failed +loadless: .*load\(\)?.*is missing",
    "a bad version": r"failed +badversion: .*version.*'one'",
    "a wrong signature of load": r"failed +signature: .*'ctx'",
    "a syntax error": r"failed +syntax: syntax error: expected ':' \(plugin syntax, file .*syntax\.py:3\)",
    "the import of a sibling": r"failed +sibling: .*helpers lies beside the plugin.*from \. import helpers",
    "a typo in an import": r"failed +import_: import failed: No module named 'reqeusts'(?!.*pip install)",
    "a declared peer is missing": r"failed +peer: .*pip install 'no-such-thing>=2'",
    "a bad plugin.toml": r"failed +toml: .*authr is not a field\. Did you mean 'author'",
    "two plugins of one name": r"failed .*two plugins are named 'alright'",
    "the wrong Python": r"failed +python: .*python.*>=4",
    "a dependency is missing": r"failed +missing: .*'alrigt'.*Did you mean 'alright'",
    "a dependency is off": r"needsoff.*'off'.*enabled = false in \[plugins\.off\]",
    "a plugin is off": r"off +off: enabled = false in \[plugins\.off\]",
    "a circle": r"failed +circle1: .*circle1 -> circle2 -> circle1",
    "a bad configuration": r"failed +badconfig: .*port: expected `int`, got `str`",
    "a typo in a key": r"typoconfig: config\.color is not a key of its default_config\. Did you mean 'colour'",
    "a typo in a section": r"\[plugins\.alrigth\]: there is no plugin of that name\. Did you mean 'alright'",
    "load raises": r"failed +raises: load\(\) raised KeyError: 'key' \(plugin raises, file .*raises\.py:4\)",
    "a typo in a verb": r"failed +attribute: .*'add_rout'.*Did you mean 'add_route'",
    "the storage is off": r"failed +storage: .*the storage is off",
    "a typo in an event": r"typoevent: it hooks 'request:strat', .*Did you mean 'request:start'",
    "two plugins with one route": r"failed +duplicate: .*GET /blocks.*alright",
    "a file is passed over": r"_passed\.py is passed over: its name begins with '_'",
    "a script exports no plugin": r"failed +script: .*script\.ts exports no plugin: it needs a",
    "load hangs": r"hangs: load\(\) waits at .*hangs\.py:5, for 1 s so far",
    "load takes too long": r"failed +hangs: load\(\) did not end within 3 s",
    "a handler raises": r"alright failed: KeyError: 2 \(handler item, request GET /items/2, file .*alright\.py:\d+\)",
    "an await is missing": r"alright failed: .*coroutine.*request GET /unawaited",
    "an answer that cannot be sent": r"alright failed: .*object.*request GET /unsendable",
    "a handler blocks": r"blocks\(\).* blocked the event loop for \d+ ms .*alright\.py:\d+",
    "a hook returns the wrong type": r"alright failed: HookError: .*str.*event response:start",
    "a task raises": r"alright failed: RuntimeError: the task failed \(handler task, file .*alright\.py:\d+\)",
    "the port is in use": r"cannot listen on 127\.0\.0\.1:\d+: another program listens there",
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Serve the application, make its mistakes happen, and return all that was printed."""
    root = tmp_path_factory.mktemp("app")
    for name, text in PLUGINS.items():
        path = root / "plugins" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name=name))
    for name, text in OTHERS.items():
        (root / "plugins" / name).write_text(text)
    (root / "veko.toml").write_text(SETTINGS)
    log = root / "printed.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "veko_plugins.cli", "serve", str(root), "--port", str(port)]
    environment = {**os.environ, "COLUMNS": "500"}
    with log.open("w") as out:
        process = subprocess.Popen([*command, "--dev"], stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + 60
        while "Listening on" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for path in ("/items/2", "/unawaited", "/unsendable", "/blocks", "/hooked"):
                client.get(path)
            assert client.post("/text", data={"a": "1"}).status_code == 415
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        deadline = time.monotonic() + 10
        while "blocked the event loop" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    return log.read_text() + second.stderr


@pytest.mark.parametrize("mistake", PRINTED)
def test_a_mistake_is_printed_with_its_remedy(printed: str, mistake: str) -> None:
    assert re.search(PRINTED[mistake], printed), printed


def test_each_failure_is_printed_once(printed: str) -> None:
    failures = re.findall(r"^ {2}failed +(\S+):", printed, re.MULTILINE)
    assert len(failures) == len(set(failures))
    assert printed.count("KeyError: 2 (") == 1
    assert "frame of Veko" not in printed.split("KeyError: 2", maxsplit=1)[0].rsplit("\n", 2)[-1]


def test_no_line_is_longer_than_a_screen(printed: str) -> None:
    assert max(map(len, printed.splitlines())) < 1_500


def test_the_guide_quotes_what_is_printed(printed: str) -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "troubleshooting.md"
    quoted = re.findall(r"^```text\n(.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL)
    assert len(quoted) > 8
    for line in (line.strip() for block in quoted for line in block.splitlines()):
        assert re.search(".*".join(map(re.escape, line.split("..."))), printed), line
