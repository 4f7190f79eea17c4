"""Starting workers, hearing how they end, and leaving none behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from veko_plugins.remote.launcher import Command, Launcher, LaunchError

from .conftest import SECONDS, Workers, descriptors, lives, until, until_gone

FORK_AWAY = """
import os, sys, time
reading, writing = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        os.write(writing, str(os.getpid()).encode())
        time.sleep(60)
    os._exit(0)
os.wait()
print(os.read(reading, 20).decode(), flush=True)
"""
"""Starts a process that no session, group or parent connects with the worker."""


async def test_a_worker_has_only_what_its_command_gives_it(workers: Workers) -> None:
    code = """
import json, os
print(json.dumps([dict(os.environ), os.getcwd(), sorted(map(int, os.listdir("/proc/self/fd"))),
                  os.getsid(0) == os.getpid()]))
"""
    os.environ["A_SECRET"] = "1"
    try:
        worker = await workers.python(code)
    finally:
        del os.environ["A_SECRET"]
    environment, folder, open_descriptors, leads = json.loads(await worker.line())
    assert environment == {"HOME": folder, "TMPDIR": folder, "LC_CTYPE": "C.UTF-8"}
    assert open_descriptors == [0, 1, 2, 3]  # the last one is the listing itself
    assert leads
    assert await worker.ends() == 0
    await until(lambda: not Path(folder).exists())


async def test_descriptors_arrive_in_order(workers: Workers) -> None:
    reading, writing = os.pipe()
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    code = "import os; os.write(6, b'six'); os.write(2, b'two')"
    argv = (sys.executable, "-c", code)
    worker = await workers.start(Command(argv=argv, cwd=Path("/")), fds=[*others, writing])
    for descriptor in (*others, writing):
        os.close(descriptor)
    assert await worker.ends() == 0
    assert os.read(reading, 100) == b"six"
    os.close(reading)
    assert await worker.errors() == "two"


async def test_a_function_runs_in_the_forked_python(workers: Workers) -> None:
    worker = await workers.start(Command(entry="os:getpid"))
    assert await worker.ends() == worker.process.pid & 0xFF


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os._exit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("import os; os.abort()", -signal.SIGABRT),
    ],
)
async def test_an_end_is_reported_with_its_status(workers: Workers, code: str, status: int) -> None:
    worker = await workers.python(code)
    assert await worker.ends() == status
    assert worker.process.status == status
    worker.process.kill()


@pytest.mark.parametrize(
    ("command", "step", "errno"),
    [
        (Command(argv=("/missing",)), "execute /missing", 2),
        (Command(argv=("/etc/passwd",)), "execute /etc/passwd", 13),
        (Command(entry="json:missing"), "import json:missing", 0),
        (Command(entry="missing:main"), "import missing:main", 0),
        (Command(entry="os:getpid", cwd=Path("/missing")), "enter the working folder /missing", 2),
    ],
)
async def test_a_start_that_fails_names_the_step_and_the_error(
    workers: Workers, command: Command, step: str, errno: int
) -> None:
    with pytest.raises(LaunchError) as caught:
        await workers.start(command)
    assert (caught.value.step, caught.value.errno) == (step, errno)
    assert step in str(caught.value)


async def test_killing_a_worker_kills_all_that_it_started(workers: Workers) -> None:
    worker = await workers.python(FORK_AWAY + "time.sleep(60)")
    away = int(await worker.line())
    worker.process.kill()
    assert await worker.ends() == -signal.SIGKILL
    assert not lives(away)


async def test_nothing_outlives_a_worker_that_ends(workers: Workers) -> None:
    worker = await workers.python(FORK_AWAY)
    away = int(await worker.line())
    assert await worker.ends() == 0
    assert not lives(away)


async def test_nothing_outlives_a_warden_that_is_killed(workers: Workers) -> None:
    worker = await workers.python(FORK_AWAY + "print(os.getppid(), flush=True); time.sleep(60)")
    away, warden = int(await worker.line()), int(await worker.line())
    os.kill(warden, signal.SIGKILL)
    assert await worker.ends() == -signal.SIGKILL
    await until_gone(away)
    await until_gone(worker.process.pid)


BOMB = """
import os, time
for _ in range(8):  # at most 256 processes, each of which ends by itself
    os.fork()
print("x", flush=True)
time.sleep(20)
"""


async def test_a_fork_bomb_is_killed_as_a_whole(workers: Workers) -> None:
    worker = await workers.python(BOMB)
    await worker.line()
    worker.process.kill()
    assert await worker.ends() == -signal.SIGKILL
    while await worker.line():
        pass  # the socket ends: no process holds it any more


async def test_closing_ends_every_worker_and_leaves_nothing() -> None:
    before = descriptors()
    async with Launcher() as launcher:
        workers = Workers(launcher)
        found = []
        for _ in range(3):
            worker = await workers.python(
                "import os, time; os.makedirs('a/b'); open('a/b/c', 'w').close()\n"
                "print(os.getcwd(), flush=True); time.sleep(60)"
            )
            found.append((worker, Path(await worker.line())))
        assert all(folder.is_dir() for _, folder in found)
    for worker, folder in found:
        assert await worker.ends() == -signal.SIGKILL
        assert not lives(worker.process.pid)
        assert not folder.exists()
    workers.close()
    assert descriptors() == before
    with pytest.raises(LaunchError, match="is closed"):
        await launcher.warm()


async def test_a_folder_of_any_depth_is_removed(workers: Workers, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.joinpath("file").touch()
    worker = await workers.python(
        f"import os\nprint(os.getcwd())\nos.symlink({str(elsewhere)!r}, 'link')\n"
        "for _ in range(3000): os.mkdir('d'); os.chdir('d')\nos.chmod('.', 0)"
    )
    folder = Path(await worker.line())
    await worker.ends()
    await until(lambda: not folder.exists())
    await until((elsewhere / "file").is_file)


def start_host(script: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)


async def test_workers_end_with_the_host(tmp_path: Path) -> None:
    script = tmp_path / "host.py"
    script.write_text(f"""
import asyncio, os, socket, sys, time
from veko_plugins.remote.launcher import Command, Launcher
async def main():
    launcher = Launcher()
    ours, theirs = socket.socketpair()
    code = "import os, time; print(os.getcwd(), flush=True); time.sleep(60)"
    argv = (sys.executable, "-c", code)
    process = await launcher.start(Command(argv=argv), confinement=None, stdio=theirs, stderr=2)
    folder = ours.recv(1000).decode().strip()
    # A forked copy of the host holds the launcher's socket: it must not keep the worker alive.
    if not os.fork():
        time.sleep({SECONDS})
        os._exit(0)
    print(process.pid, folder, flush=True)
    time.sleep(60)
asyncio.run(main())
""")
    with start_host(script) as host:
        assert host.stdout is not None
        pid, folder = host.stdout.readline().split()
        assert lives(int(pid))
        host.kill()
        await until_gone(int(pid))
        await until(lambda: not Path(folder).exists())


async def test_a_launcher_that_dies_takes_its_workers_along_and_is_started_anew(
    workers: Workers,
) -> None:
    worker = await workers.python("import os, time; print(1, flush=True); time.sleep(60)")
    await worker.line()
    os.kill(_parent(_parent(worker.process.pid)), signal.SIGKILL)
    assert await worker.ends() == -signal.SIGKILL
    assert worker.process.reason == "the launcher's process has ended"
    await until_gone(worker.process.pid)
    again = await workers.python("print('again')")
    assert await again.line() == "again"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[1])


async def test_a_module_that_cannot_be_imported_is_named() -> None:
    async with Launcher(["json", "missing_module"]) as launcher:
        with pytest.raises(LaunchError, match="import missing_module: ModuleNotFoundError"):
            await launcher.warm()


async def test_a_start_that_is_cancelled_leaves_no_worker(workers: Workers) -> None:
    await workers.launcher.warm()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = Command(argv=(sys.executable, "-c", "import time; time.sleep(60)"))
        starting = asyncio.create_task(
            workers.launcher.start(command, confinement=None, stdio=theirs, stderr=2)
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        theirs.close()
        ours.setblocking(False)
        async with asyncio.timeout(SECONDS):
            assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either argv or entry"),
        ({"argv": ("/a",), "entry": "a:b"}, "either argv or entry"),
        ({"argv": ("a",)}, "absolute path"),
        ({"entry": "a"}, "module:function"),
    ],
)
def test_a_command_that_says_nothing_clear_is_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Command(**fields)
