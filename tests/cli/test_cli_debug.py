"""`veko debug`: a console in a pseudo-terminal, of an application that runs or is loaded for it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SECONDS = 60.0
PROMPT = r">>>[^>]*$"
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()].|\x1b[=>]|\r|\x07|\x08")


class Screen:
    """`veko` in a pseudo-terminal that controls it: Ctrl+C is a signal, unless it reads keys."""

    def __init__(self, cwd: Path, *words: object, **env: str) -> None:
        self.screen, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            # The first that opens a terminal in a new session is controlled by it.
            ["sh", "-c", 'exec "$@" < "$0" > "$0" 2>&1', os.ttyname(end),
             sys.executable, "-m", "veko_plugins.cli", *map(str, words)],
            cwd=cwd, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **env},
        )  # fmt: skip
        self._end = end  # open until the process has opened it too
        self.text = ""
        self._seen = 0

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self.screen], [], [], max(0.0, until - time.monotonic()))
        try:
            data = os.read(self.screen, 65536) if ready else b""
        except OSError:  # the other end is closed
            data = b""
        if data and self._end:
            os.close(self._end)
            self._end = 0
        self.text += CONTROLS.sub("", data.decode("utf-8", "replace"))
        return bool(data)

    def wait_for(self, pattern: str) -> None:
        """Wait until what was printed since the last line matches."""
        until = time.monotonic() + SECONDS
        while not re.search(pattern, self.text[self._seen :]):
            if not self._read(until):
                raise AssertionError(f"no {pattern!r} in:\n{self.text[self._seen :]}")

    def type(self, text: str) -> None:
        """Type text."""
        self._seen = len(self.text)
        os.write(self.screen, text.encode())

    def enter(self, line: str, shown: str) -> None:
        """Type a line, and wait for what it shows."""
        self.type(f"{line}\r")
        self.wait_for(rf"{shown}[\s\S]*{PROMPT}")

    def ends(self) -> int:
        """Wait for the end, and return the exit code."""
        until = time.monotonic() + SECONDS
        while self._read(until):
            pass
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end after:\n{self.text}") from None


def wait_for_file(path: Path) -> None:
    """Wait for a file by which code that blocks says that it runs: what it prints comes later."""
    until = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.02)


@pytest.fixture
def screen() -> Iterator[Callable[..., Screen]]:
    opened: list[Screen] = []

    def start(cwd: Path, *words: object, **env: str) -> Screen:
        opened.append(Screen(cwd, *words, **env))
        return opened[-1]

    yield start
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        os.close(one.screen)


@pytest.fixture
def served(start: Any, application: Path) -> tuple[Any, str]:
    """The application, served with --dev, and its URL."""
    running = start("serve", application, "--dev", "--port", 0, "--adapter", "asgi")
    url = running.wait_for(r"Listening on (http://127\.0\.0\.1:\d+)")[1]
    return running, url


def test_D9_a_console_in_the_running_application(
    screen: Callable[..., Screen], application: Path, served: tuple[Any, str]
) -> None:
    running, url = served
    console = screen(application, "debug", "hello")
    console.wait_for(rf"process {running.process.pid}, plugin hello\. Names: manager, plugin")
    console.wait_for(PROMPT)
    console.enter("plugin.name, 6 * 7", r"\('hello', 42\)")
    console.enter("print('printed'); 1 / 0", r"printed[\s\S]*ZeroDivisionError")
    console.enter("await manager.run_command('greet', 'ann')", "'hello ann'")
    console.enter(
        "sorted(hooks), list(manager.hooks)[:0], context.name", r"\(\[\], \[\], 'hello'\)"
    )
    console.type("plugin.manif\t")
    console.wait_for("manifest")
    console.type("\t")
    console.wait_for("est")
    console.enter(".version", r"'1\.2\.3'")
    console.type("\x03")
    console.enter("'one' + ' line'", "'one line'")
    # It runs once it prints: Ctrl+C would clear the line that is typed before.
    console.type("print('be' + 'gun'); await asyncio.sleep(3600)\r")
    console.wait_for("begun")
    console.type("\x03")
    console.wait_for(rf"it was cancelled[\s\S]*{PROMPT}")
    console.type("\x04")
    assert console.ends() == 0, console.text
    assert httpx.get(f"{url}/hello").json() == {"hello": "world"}
    assert "printed" not in running.text


def test_leaving_by_exit_and_by_losing_the_terminal(
    screen: Callable[..., Screen], application: Path, served: tuple[Any, str]
) -> None:
    running, url = served
    console = screen(application, "debug", "hello")
    console.wait_for(PROMPT)
    console.type("exit()\r")
    assert console.ends() == 0
    console = screen(application, "debug", "hello")
    console.wait_for(PROMPT)
    console.process.kill()
    console.process.wait()
    assert httpx.get(f"{url}/hello").status_code == 200
    console = screen(application, "debug", "hello")
    console.wait_for(PROMPT)
    running.process.send_signal(signal.SIGTERM)
    assert running.ends() == 0
    console.type("1\r")
    console.wait_for("the application has closed the console")
    assert console.ends() == 1


def test_an_application_that_is_blocked_can_be_left(
    screen: Callable[..., Screen], application: Path, served: tuple[Any, str]
) -> None:
    console = screen(application, "debug", "hello")
    console.wait_for(PROMPT)
    console.type("open('begun', 'w').close(); __import__('time').sleep(600)\r")
    wait_for_file(application.parent / "begun")
    console.type("\x03")
    console.wait_for("the code still runs; Ctrl")
    console.type("\x03")
    assert console.ends() == 1
    assert "the code does not end" in console.text


def test_without_a_running_application_one_is_loaded(
    screen: Callable[..., Screen], application: Path
) -> None:
    console = screen(application, "debug", "hello")
    console.wait_for("loading it here")
    console.wait_for(PROMPT)
    console.enter("await manager.run_command('greet', 'bo')", "'hello bo'")
    console.type("while not open('begun', 'w').close(): pass\r\r")
    wait_for_file(application / "begun")
    console.type("\x03")
    console.wait_for(rf"KeyboardInterrupt[\s\S]*{PROMPT}")
    console.type("\x04")
    assert console.ends() == 0, console.text
    assert "hello says goodbye" in console.text
    assert not list((application / ".veko" / "control").iterdir())
    assert (application / ".veko" / "console-history").stat().st_mode & 0o777 == 0o600


def test_code_from_the_command_line_and_from_standard_input(
    veko: Run, application: Path, served: tuple[Any, str]
) -> None:
    running, _ = served
    done = veko("debug", "hello", "--dir", application, "-c", "print(1)\nplugin.version")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n'1.2.3'\n", "")
    done = subprocess.run(
        [sys.executable, "-m", "veko_plugins.cli", "debug", "hello", "--dir", application],
        input="import os\nos.getpid()\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{running.process.pid}\n"
    done = veko("debug", "hello", "--dir", application, "-c", "1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    done = veko("debug", "nobody", "--dir", application, "-c", "1")
    assert done.returncode == 1
    assert "no plugin named 'nobody' is loaded" in done.stderr
    done = veko("debug", "hello", "--dir", application, "--process", 1, "-c", "1")
    assert done.returncode == 2
    assert f"There are: {running.process.pid}." in done.stderr


def test_no_application(veko: Run, tmp_path: Path) -> None:
    done = veko("debug", "hello", "-c", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "no application in this folder" in done.stderr


def test_an_application_that_runs_without_dev_mode(
    veko: Run, start: Any, application: Path
) -> None:
    running = start("serve", application, "--port", 0, "--adapter", "asgi")
    running.wait_for(r"Listening on")
    done = veko("debug", "hello", "--dir", application, "-c", "1")
    assert done.returncode == 2
    assert (
        f"process {running.process.pid} serves the application without development" in done.stderr
    )
    assert "--dev" in done.stderr


def test_without_ptpython_it_says_what_to_install(
    screen: Callable[..., Screen], application: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "ptpython.py").write_text("raise ImportError('there is none')\n")
    path = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    console = screen(application, "debug", "hello", PYTHONPATH=path)
    console.wait_for(r'pip install "veko\[debug\]"')
    assert console.ends() == 2
