"""The log of `veko serve`: JSON for everything, one file for all, settings and levels."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

SECONDS = 60.0
PLUGIN = """
import asyncio, logging, os, sys, threading, warnings
name = "one"
version = "1.0.0"
log = logging.getLogger(__name__)

def load(context):
    warnings.warn("this is old")
    log.info("module logger")
    log.debug("module debug")
    print("printed to stderr", file=sys.stderr)
    context.log("debug", "context debug")
    context.add_route("GET", "/pid", lambda: os.getpid())
    context.add_route("GET", "/fails", fails)
    context.add_route("POST", "/level", level)
    context.add_route("POST", "/exit", lambda: os._exit(7))

def fails():
    threading.Thread(target=lambda: 1 / 0).start()
    raise ValueError("no luck")

def level():
    log.debug("debug now")
    return logging.getLogger("veko.plugin.one").getEffectiveLevel()
"""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "one.py").write_text(PLUGIN)
    (root / "plugins" / "broken.py").write_text("name = 'broken'\nversion = '1.0.0'\n1 / 0\n")
    (root / "veko.toml").write_text('storage = "none"\nmax_retries = 0\nadapter = "asgi"\n')
    return root


class Served:
    """`veko serve` in a process, with its standard error as records."""

    def __init__(self, root: Path, *words: object) -> None:
        self.errors = root.parent / "stderr.txt"
        command = [sys.executable, "-m", "veko_plugins.cli", "serve", root, "--port", 0, *words]
        with self.errors.open("wb") as errors, (root.parent / "stdout.txt").open("wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command], stderr=errors, stdout=out
            )
        self.out = root.parent / "stdout.txt"

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.errors.read_text().splitlines()]

    def wait_for(self, begin: str) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            text = self.errors.read_text()
            for line in text[: text.rfind("\n") + 1].splitlines():
                entry: dict[str, Any] = json.loads(line)
                if str(entry["message"]).startswith(begin):
                    return entry
            time.sleep(0.02)
        raise AssertionError(f"no {begin!r} in {self.errors.read_text()}")

    def stop(self) -> list[dict[str, Any]]:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0
        return self.entries()


@pytest.fixture
def running() -> Any:
    found: list[Served] = []

    def start(root: Path, *words: object) -> Served:
        found.append(Served(root, *words))
        return found[-1]

    yield start
    for one in found:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_with_json_every_line_is_an_object(running: Any, served: Path, server: str) -> None:
    veko = running(served, "--log-format", "json", "--access-log", "--server", server)
    url = veko.wait_for("Listening on")["url"]
    assert httpx.get(f"{url}/fails").status_code == 500
    assert httpx.get(f"{url}/pid").status_code == 200
    entries = veko.stop()
    assert veko.out.read_text() == ""
    said = [(entry.get("plugin") or entry["logger"], entry["message"]) for entry in entries]
    assert said[0][0] == "veko.cli"
    assert said[0][1].startswith("Veko 2")
    for source, begin in {
        "one": "module logger", "stderr": "printed to stderr", "veko.process": "the thread",
    }.items():  # fmt: skip
        assert any(name == source and text.startswith(begin) for name, text in said), (source, said)
    assert any("UserWarning: this is old" in text for _, text in said)
    assert any(text.startswith("failed   broken") for _, text in said)
    assert any("GET /pid" in text for name, text in said if "access" in name)
    assert any("no luck" in text for _, text in said)
    assert [text for _, text in said[-2:]] == ["Stopping", "Stopped"]
    assert not any("debug" in text for _, text in said)
    assert len({(entry["message"], entry["time"]) for entry in entries}) == len(entries)


def test_workers_and_their_supervisor_speak_json_too(running: Any, served: Path) -> None:
    veko = running(served, "--log-format", "json", "--workers", 2)
    url = veko.wait_for("Listening on")["url"]
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{url}/exit")
    veko.wait_for("worker")
    entries = veko.stop()
    (exited,) = [entry for entry in entries if "exited with code 7" in entry["message"]]
    assert exited["level"] == "warning"
    assert exited["worker"] in (1, 2)
    assert {entry.get("worker") for entry in entries} == {None, 1, 2}
    assert entries[-1]["message"] == "Stopped"


def test_a_start_that_fails_is_json_too(running: Any, served: Path) -> None:
    veko = running(served, "--log-format", "json", "--adapter", "nothing")
    assert veko.process.wait(SECONDS) == 1
    assert any("no HTTP adapter 'nothing'" in entry["message"] for entry in veko.entries())
    (served / "veko.toml").write_text("storage = 3\n")
    for words in ((), ("--workers", 2)):
        veko = running(served, "--log-format", "json", *words)
        assert veko.process.wait(SECONDS) == 2
        (entry,) = veko.entries()
        assert "storage" in entry["message"]


def test_the_settings_say_the_same_as_the_command_line(running: Any, served: Path) -> None:
    with (served / "veko.toml").open("a") as file:
        file.write(
            '[plugins.logging]\nformat = "json"\nlevel = "warning"\nfile = "logs/veko.log"\n'
            'levels = { one = "debug" }\n'
        )
    veko = running(served, "--log-level", "info")  # the command line comes first
    url = veko.wait_for("Listening on")["url"]
    assert httpx.post(f"{url}/level").json() == 10
    entries = veko.stop()
    texts = [entry["message"] for entry in entries]
    assert {"module debug", "context debug", "debug now", "Stopped"} <= set(texts)
    written = (served / "logs" / "veko.log").read_text().splitlines()
    assert [json.loads(line) for line in written] == entries


def test_text_files_have_what_the_command_says_too(
    running: Any, served: Path, tmp_path: Path
) -> None:
    file = tmp_path / "veko.log"
    veko = running(served, "--log-file", file)
    end = time.monotonic() + SECONDS
    while "Listening" not in veko.out.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    veko.process.send_signal(signal.SIGTERM)
    assert veko.process.wait(SECONDS) == 0
    text = file.read_text()
    for part in (
        "Listening on http",
        "loaded   one",
        "failed   broken",
        "Stopped",
        "module logger",
    ):
        assert text.count(part) == 1, part
    out, errors = veko.out.read_text(), veko.errors.read_text()
    assert out.count("Listening on http") == 1
    assert "Listening" not in errors


def test_two_applications_write_one_file(running: Any, served: Path, tmp_path: Path) -> None:
    file = tmp_path / "shared.log"
    with (served / "veko.toml").open("a") as settings:
        settings.write("[plugins.logging]\nmax_bytes = 3000\nbackups = 1000\n")
    words = ("--log-file", file, "--log-format", "json", "--access-log")
    one = running(served, *words)
    urls = [one.wait_for("Listening on")["url"]]
    other = tmp_path / "other"
    (other / "plugins").mkdir(parents=True)
    for name in ("veko.toml", "plugins/one.py"):
        (other / name).write_text((served / name).read_text())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "app").symlink_to(other)
    two = running(tmp_path / "b" / "app", *words)
    urls.append(two.wait_for("Listening on")["url"])
    for number in range(50):
        for which, url in enumerate(urls):
            httpx.get(f"{url}/pid?n={number}-{which}")
    one.stop()
    two.stop()
    texts = [
        json.loads(line)["message"]
        for path in tmp_path.glob("shared.log*")
        for line in path.read_text().splitlines()
    ]
    assert len(list(tmp_path.glob("shared.log*"))) > 3
    for number in range(50):
        for which in (0, 1):
            assert sum(f"n={number}-{which} " in text for text in texts) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--log-file", "/proc/nothing/veko.log"), "the log file cannot be written"),
        (("--log-level", "loud"), "Invalid value for '--log-level'"),
        (("--log-format", "xml"), "Invalid value for '--log-format'"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    veko: Any, served: Path, words: tuple[str, ...], why: str
) -> None:
    done = veko("serve", served, "--port", 0, *words)
    assert done.returncode == 2
    assert why in done.stderr.replace("\n", " ")
