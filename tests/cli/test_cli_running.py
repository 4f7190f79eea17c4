"""Commands that ask the running application over its control socket."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

SLOW = """
import asyncio

name = "slow"
version = "1.0.0"


async def wait(request):
    await asyncio.sleep(0.02)


def load(context):
    print("loaded")
    context.hook("request:start", wait)
    context.add_route("GET", "/fail", lambda: {}["key"])
    context.add_route("GET", "/log", lambda: context.log("warning", "it was \\x1b[31m asked"))
"""


@pytest.fixture
def served(start: Callable[..., Any], application: Path) -> str:
    """The application, being served; its URL."""
    (application / "plugins" / "slow.py").write_text(SLOW)
    (application / "veko.toml").write_text("max_retries = 0\n[plugins.tracing]\nkeep = 50\n")
    running = start("serve", "--port", "0", cwd=application)
    return str(running.wait_for(r"Listening on (http://[\d.:]+)")[1])


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_status_and_list_ask_the_one_that_runs(veko: Run, served: str, application: Path) -> None:
    done = veko("status", application)
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(
        r"veko: answered by the running application app \(process (\d+)\)\n", done.stderr
    )
    assert said is not None
    assert "app is running" in done.stdout
    assert "process " + said[1] in done.stdout
    assert "3 loaded, 3 active" in done.stdout
    assert re.search(r"broken +failed +critical +.*no luck", done.stdout)
    status = json.loads(veko("status", "--json", cwd=application).stdout)
    assert (status["pid"], status["name"], status["state"]) == (int(said[1]), "app", "running")
    listed = veko("list", "--json", cwd=application)
    assert "hello prints while it loads" not in listed.stderr  # no second copy is loaded
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["hello"]["state"] == "active"
    assert rows["broken"]["state"] == "failed"
    assert "no luck" in rows["broken"]["error"]
    assert rows["needy"]["state"] == "skipped"
    table = veko("list", application).stdout
    assert re.search(r"hello +1\.2\.3 +active +\w+ +Says hello", table)


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["reload", "hello"],
        ["toggle", "hello"],
        ["load", "hello"],
        ["unload", "hello"],
        ["config", "hello"],
        ["changes"],
        ["undo"],
        ["logs"],
        ["top"],
        ["trace"],
    ],
    ids=" ".join,
)
def test_when_nothing_runs_they_say_so(veko: Run, application: Path, words: list[str]) -> None:
    done = veko(*words, cwd=application)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"veko: no application serves from {application}. Start it with `veko serve`.\n"
    )
    missing = [*words, "nowhere"] if words[0] in ("status", "logs", "top", "changes") else None
    if missing is not None:
        done = veko(*missing, cwd=application)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "nowhere does not exist" in done.stderr


def test_a_process_that_was_killed_is_not_running(
    veko: Run, start: Callable[..., Any], application: Path
) -> None:
    running = start("serve", "--port", "0", cwd=application)
    running.wait_for("Listening on")
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(30)
    assert list((application / ".veko" / "control").glob("*.sock"))
    assert veko("status", application).returncode == 3
    # Another process has its number now.
    for path in (application / ".veko" / "control").glob("*.sock"):
        path.rename(path.with_name(f"{os.getpid()}.sock"))
    assert veko("status", application).returncode == 3
    assert "hello" in veko("list", application).stdout


def test_top_is_a_snapshot_where_there_is_no_terminal(
    veko: Run, served: str, application: Path
) -> None:
    assert [get(f"{served}/fail"), get(f"{served}/hello")] == [500, 200]
    done = veko("top", application)
    assert done.returncode == 0, done.stderr
    plugins = re.findall(r"^ (\w+) +(active|failed) ", done.stdout, re.MULTILINE)
    assert plugins[0] == ("slow", "active")  # the slowest is the first
    assert re.search(r"request:start +slow\.wait +slow +2 +[\d.]+ ms", done.stdout)
    assert re.search(r"GET /fail +\d\d:\d\d:\d\d +slow +500 +[\d.]+ ms", done.stdout)
    snapshot = json.loads(veko("top", "--json", cwd=application).stdout)
    assert snapshot["plugins"][0]["name"] == "slow"
    assert [one["status"] for one in snapshot["failed"]] == [500]
    assert snapshot["hooks"][0]["p95"] >= 0.02


def test_top_is_live_in_a_terminal(
    terminal: Callable[..., Any], served: str, application: Path
) -> None:
    shown = terminal("top", "--interval", "0.2", cwd=application, TERM="xterm", COLUMNS="140")
    shown.wait_for(r"slow +.*active")
    assert get(f"{served}/fail") == 500
    shown.wait_for(r"\x1b\[31mGET /fail[\s\S]*500")
    shown.leave("\x03")
    assert shown.process.returncode == 0


def test_trace_shows_hooks_and_the_slowest(veko: Run, served: str, application: Path) -> None:
    assert [get(f"{served}/fail"), get(f"{served}/hello")] == [500, 200]
    done = veko("trace", application)
    assert done.returncode == 0, done.stderr
    assert "ms  GET /hello  200\n" in done.stdout
    assert "ms  GET /fail  500  failed: KeyError: 'key'\n" in done.stdout
    assert "ms    request:start" in done.stdout
    assert "ms      slow.wait" in done.stdout
    slowest = done.stdout.partition("the slowest in these traces\n")[2].splitlines()
    assert slowest[1].split()[:3] == ["slow.wait", "slow", "2"]
    failed = veko("trace", "--failed", cwd=application).stdout
    assert "GET /fail" in failed
    assert "GET /hello" not in failed
    found = json.loads(veko("trace", "--json", cwd=application).stdout)
    assert {"GET /fail", "GET /hello"} <= {one["trace"]["name"] for one in found}
    assert veko("trace", application, "--jaeger", "x.json").returncode == 1  # it is no URL


def test_trace_follows(terminal: Callable[..., Any], served: str, application: Path) -> None:
    shown = terminal("trace", "-f", "--failed", cwd=application, TERM="xterm")
    shown.wait_for("by the running application")
    assert get(f"{served}/fail") == 500
    shown.wait_for(r"\x1b\[31m.*GET /fail  500  failed: KeyError")
    shown.leave("\x03")
    assert shown.process.returncode == 0


def test_logs(veko: Run, start: Callable[..., Any], served: str, application: Path) -> None:
    veko("status", application)  # what is asked first makes it keep records
    assert get(f"{served}/log") == 204
    done = veko("logs", application)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert re.search(r"^\d\d:\d\d:\d\d warning +slow  it was \\x1b\[31m asked$", done.stdout, re.M)
    rows = [json.loads(line) for line in veko("logs", "--json", application).stdout.splitlines()]
    assert "slow" in {row["plugin"] for row in rows}
    following = start("logs", "-f", "-n", "0", "--level", "error", cwd=application)
    following.wait_for("by the running application")
    get(f"{served}/log")
    get(f"{served}/fail")
    following.wait_for(r"error +slow  slow failed: KeyError")
    assert "warning" not in following.text
    following.process.send_signal(signal.SIGINT)
    assert following.ends() == 0


def test_logs_end_with_the_application(start: Callable[..., Any], application: Path) -> None:
    running = start("serve", "--port", "0", cwd=application)
    running.wait_for("Listening on")
    following = start("logs", "-f", cwd=application)
    following.wait_for("by the running application")
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 0
    following.wait_for("the application has ended")
    assert following.ends() == 1


def test_other_commands_ask_it_too(veko: Run, served: str, application: Path) -> None:
    (application / "plugins" / "late.py").write_text('name, version = "late", "1"\nprint("late")\n')
    said = "veko: answered by the running application app"
    done = veko("routes", application)
    assert said in done.stderr
    assert re.search(r"GET +/hello +hello", done.stdout)
    done = veko("graph", application)
    assert said in done.stderr
    assert "needy   not loaded: needs 'broken', which failed to load" in done.stdout
    done = veko("events", "--plugin", "slow", cwd=application)
    assert said in done.stderr
    assert re.search(r"request:start +10 +5 s +slow\.wait", done.stdout), done.stdout
    assert "links:made" in veko("events", application).stdout
    done = veko("doctor", application)
    assert (done.returncode, said in done.stderr) == (1, True)
    assert "broken is failed: load() raised ValueError: no luck" in done.stdout
    assert "late" not in done.stdout + done.stderr


def test_completion_asks_it(veko: Run, served: str, application: Path) -> None:
    for file in (application / "plugins").glob("*.py"):
        file.unlink()  # what is not in the files is known to the application

    def offered(line: str) -> str:
        env = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return veko(cwd=application, _VEKO_COMPLETE="bash_complete", **env).stdout

    assert offered("veko run gr") == "plain,greet\n"
    assert offered("veko reload sl") == "plain,slow\n"
