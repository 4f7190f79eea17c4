"""What a confined worker tries, and the kernel refuses: by real attempts in real workers."""

import os
import platform
import socket
import struct
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from veko_plugins.remote.launcher import Confinement, LaunchError, System, missing
from veko_plugins.remote.launcher.confine import this_system
from veko_plugins.remote.launcher.seccomp import program

from .conftest import Workers

pytestmark = pytest.mark.skipif(
    bool(missing(Confinement())) and "CI" not in os.environ, reason="the kernel lacks Landlock"
)

_PYTHON = Path(sys.executable).resolve()
_CAT = Path("/bin/cat").resolve()
_LIBRARY = (Path(sysconfig.get_path("stdlib")), Path(sys.base_prefix))
_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are of x86_64")
_ATTEMPT = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *given):
    if libc.syscall(number, *given) == -1:
        raise OSError(ctypes.get_errno(), "refused")
try:
{code}
except OSError as error:
    print(errno.errorcode.get(error.errno, error.errno), flush=True)
except Exception as error:
    print(repr(error), flush=True)
else:
    print("done", flush=True)
"""


def confinement(**more: object) -> Confinement:
    return Confinement(read=_LIBRARY, execute=(_PYTHON,), **more)  # type: ignore[arg-type]


async def attempt(workers: Workers, code: str, limits: Confinement | None = None) -> str:
    """Run lines in a confined Python; return `done`, or the name of the system's error."""
    text = _ATTEMPT.format(code=textwrap.indent(textwrap.dedent(code), "    "))
    worker = await workers.python(text, limits or confinement())
    return await worker.line()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@_X86
@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("open('/etc/passwd')", "EACCES"),
        ("open('/proc/1/environ')", "EACCES"),
        ("open(f'/proc/{os.getppid()}/mem', 'rb')", "EACCES"),
        ("os.listdir('/')", "EACCES"),
        ("open('/tmp/veko-outside', 'w')", "EACCES"),
        ("os.truncate('/etc/hostname', 0)", "EACCES"),
        ("os.mkdir('/tmp/veko-outside')", "EACCES"),
        ("os.symlink('/etc/passwd', 'in'); open('in')", "EACCES"),
        ("os.mknod('disk', 0o60600, os.makedev(8, 0))", "EACCES"),
        ("os.fork()", "EPERM"),
        ("os.posix_spawn('/bin/true', ['true'], {})", "EPERM"),
        ("os.execv('/bin/true', ['true'])", "EACCES"),
        ("os.kill(os.getppid(), 9)", "EPERM"),
        ("os.kill(0, 0)", "EPERM"),
        ("os.kill(-1, 9)", "EPERM"),
        ("socket.socket(socket.AF_UNIX)", "EPERM"),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "EPERM"),
        ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "EPERM"),
        ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)", "EPERM"),  # multipath TCP
        ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)", "EPERM"),  # SCTP
        ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)", "EPERM"),
        ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EPERM"),
        ("socket.socket().bind(('127.0.0.1', 0)) or None", "EACCES"),
        ("os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)", "EPERM"),
        ("os.sched_setaffinity(os.getppid(), {0})", "EPERM"),
        ("import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))", "EPERM"),
        ("os.setuid(os.getuid() + 1)", "EPERM"),
        ("os.chroot('.')", "EPERM"),
        ("os.pidfd_open(os.getppid())", "EPERM"),
        ("call(157, 1, 0)", "EPERM"),  # prctl(PR_SET_PDEATHSIG, 0), to outlive the host
    ],
)
async def test_it_is_refused(workers: Workers, code: str, refused: str) -> None:
    assert await attempt(workers, code) == refused


@_X86
@pytest.mark.parametrize(
    "number",
    [101, 310, 311, 438, 165, 272, 308, 321, 298, 250, 323, 425, 304, 29, 434, 424, 57, 58, 200],
)
async def test_calls_that_leave_the_box_are_refused(workers: Workers, number: int) -> None:
    assert await attempt(workers, f"call({number}, 0, 0, 0, 0, 0)") == "EPERM"


@_X86
async def test_clone_makes_threads_only(workers: Workers) -> None:
    assert await attempt(workers, "call(56, 17, 0, 0, 0, 0)") == "EPERM"  # SIGCHLD: a process
    assert await attempt(workers, "call(435, 0, 0)") == "ENOSYS"
    threads = "import threading; t = threading.Thread(target=print); t.start(); t.join()"
    worker = await workers.python(threads + "; print('joined', flush=True)", confinement())
    assert [await worker.line(), await worker.line()] == ["", "joined"]


@_X86
async def test_calls_by_other_numbers_are_refused(workers: Workers) -> None:
    assert await attempt(workers, "call(0x40000000 + 39)") == "EPERM"  # getpid of the x32 ABI


async def test_ports_are_those_that_are_granted(workers: Workers, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    connect = f"socket.create_connection(('127.0.0.1', {port}), 5)"
    fast = f"socket.socket().sendto(b'', 0x20000000, ('127.0.0.1', {port}))"
    assert await attempt(workers, connect) == "EACCES"
    assert await attempt(workers, fast) == "EPERM"
    assert await attempt(workers, connect, confinement(connect=(port + 1,))) == "EACCES"
    assert await attempt(workers, connect, confinement(connect=(port,))) == "done"
    assert await attempt(workers, connect, confinement(connect=None)) == "done"
    bind = "socket.create_server(('127.0.0.1', 0))"
    assert await attempt(workers, bind, confinement(listen=None)) == "done"


async def test_files_are_those_that_are_granted(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "one").write_text("1")
    (tmp_path / "write").mkdir()
    readable, writable = (*_LIBRARY, tmp_path / "read"), (tmp_path / "write",)
    limits = Confinement(read=readable, write=writable, execute=(_PYTHON,))
    assert await attempt(workers, f"open('{tmp_path}/read/one')", limits) == "done"
    assert await attempt(workers, f"open('{tmp_path}/read/one', 'a')", limits) == "EACCES"
    assert await attempt(workers, f"os.unlink('{tmp_path}/read/one')", limits) == "EACCES"
    made = f"open('{tmp_path}/write/new', 'w').write('x'); os.unlink('{tmp_path}/write/new')"
    assert await attempt(workers, made, limits) == "done"
    run = (
        f"made = os.open('{tmp_path}/write/run', os.O_WRONLY | os.O_CREAT, 0o755);"
        f"os.write(made, b'#!{_PYTHON}'); os.close(made);"
        f"os.execv('{tmp_path}/write/run', ['run'])"
    )
    assert await attempt(workers, run, limits) == "EACCES"
    moved = f"os.rename('{tmp_path}/read/one', '{tmp_path}/write/one')"
    assert await attempt(workers, moved, limits) in {"EACCES", "EXDEV"}


async def test_a_link_that_is_put_into_a_granted_path_grants_nothing(
    workers: Workers, tmp_path: Path
) -> None:
    """The host had resolved `data/inner` before another worker could replace it."""
    home = tmp_path
    for name in ("data", "secret"):
        (home / name).mkdir()
        (home / name / "a").write_text("x")
    (home / "data" / "inner").symlink_to("../secret")
    (home / "moved").symlink_to("secret")
    for granted in (home / "data" / "inner", home / "moved", home / "moved" / "a"):
        for limits in (
            Confinement(read=(*_LIBRARY, granted), execute=(_PYTHON,)),
            Confinement(read=_LIBRARY, write=(granted,), execute=(_PYTHON,)),
        ):
            code = f"open({str(home / 'secret' / 'a')!r})"
            assert await attempt(workers, code, limits) == "EACCES"


async def test_a_link_to_a_file_elsewhere_cannot_be_made(workers: Workers, tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()  # of this user: else the system refuses it anyway
    assert await attempt(workers, f"os.link('{tmp_path}/file', 'in')") in {"EXDEV", "EACCES"}


async def test_its_own_folder_is_its_own(workers: Workers) -> None:
    code = "open('x', 'w').write('1'); assert os.getcwd() == os.environ['HOME']"
    assert await attempt(workers, code) == "done"


async def test_limits_are_set(workers: Workers) -> None:
    code = "import os\nheld = [os.open('/dev/null', os.O_RDONLY) for _ in range(99)]"
    assert await attempt(workers, code, confinement(files=64)) == "EMFILE"
    grown = "file = open('x', 'wb', 0); file.write(b'x' * 4096); file.write(b'x')"
    assert await attempt(workers, grown, confinement(file_size=4096)) == "EFBIG"
    spin = await workers.python("while True: pass", confinement(cpu=1))
    assert await spin.ends() < 0


async def test_too_much_memory_ends_it(workers: Workers) -> None:
    limits = confinement(memory=128 * 2**20)
    fits = await workers.python("x = b'x' * (64 * 2**20)", limits)
    assert await fits.ends() == 0
    grows = await workers.python("x = []\nwhile True: x.append(b'x' * 2**20)", limits)
    assert await grows.ends() == -9
    assert "128 MiB are allowed" in grows.process.reason
    used = int(grows.process.reason.split()[1])
    assert 128 <= used < 1024
    code = "import os\nif os.fork(): os.wait()\nelse:\n x = []\n while True: x.append(b'x' * 2**20)"
    together = await workers.python(code, confinement(memory=128 * 2**20, spawn=True))
    assert await together.ends() == -9
    assert "128 MiB are allowed" in together.process.reason


async def test_it_runs_no_more_processes_than_it_may(workers: Workers) -> None:
    # Whatever happens, it is no more than 300: each process adds a byte to a file.
    bomb = """
import os, sys, time
count = os.open("count", os.O_CREAT | os.O_APPEND | os.O_RDWR)
first = os.getpid()
refused = 0
while os.fstat(count).st_size < 300 and refused < 100:
    try:
        if os.fork() == 0:
            os.write(count, b"x")
    except OSError:
        refused += 1
        time.sleep(0.001)
if os.getpid() == first:
    print(os.fstat(count).st_size, refused, flush=True)
time.sleep(30)
"""
    worker = await workers.python(bomb, confinement(spawn=True, processes=64))
    made, refused = map(int, (await worker.line()).split())
    assert made <= 64
    assert refused
    worker.process.kill()
    assert await worker.ends() == -9


async def test_nothing_is_left_of_root(workers: Workers) -> None:
    # A user without privileges cannot change the bounding set, and gains nothing by it either.
    names = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "NoNewPrivs:"]
    names += ["CapBnd:"] if os.getuid() == 0 else []
    code = (
        "found = [line.split() for line in open('/proc/self/status')]\n"
        f"print([words[1] for words in found if words[0] in {names}])"
    )
    worker = await workers.python(code, confinement())
    assert set(await worker.line()) <= set("[]', 01")


async def test_granted_programs_run_in_the_same_box(workers: Workers) -> None:
    limits = Confinement(
        read=(*_LIBRARY, Path("/bin"), Path("/usr/bin")),
        execute=(_PYTHON, _CAT),
        spawn=True,
    )
    run = "import subprocess; raise SystemExit(subprocess.run({argv}, stderr=-3).returncode)"
    allowed = await workers.python(run.format(argv=["/bin/cat", "/dev/null"]), limits)
    assert await allowed.ends() == 0
    inside = await workers.python(run.format(argv=["/bin/cat", "/etc/passwd"]), limits)
    assert await inside.ends() == 1
    other = await workers.python(run.format(argv=["/bin/ls"]), limits)
    assert await other.ends() == 1
    assert "PermissionError" in await other.errors()


async def test_what_cannot_be_enforced_is_not_started(workers: Workers) -> None:
    old = System(landlock=1, seccomp=False)
    lacks = missing(Confinement(), old)
    assert [one.partition(" (")[0] for one in lacks] == ["files", "TCP connections", "system calls"]
    assert missing(Confinement(connect=None, listen=None), System(landlock=3, seccomp=True)) == []
    spawns = missing(Confinement(spawn=True), System(landlock=5, seccomp=True))
    assert [one.partition(" (")[0] for one in spawns] == ["signals of the processes that it starts"]
    assert missing(Confinement(), this_system()) == []
    with pytest.raises(LaunchError, match="execute"):
        await workers.python("", Confinement(read=_LIBRARY))


def test_the_filter_jumps_nowhere_but_inside() -> None:
    """A jump past the end would be refused by the kernel; one by a step too far would not."""
    for machine in ("x86_64", "aarch64"):
        for spawn in (False, True):
            code = program(
                Confinement(spawn=spawn, udp=spawn), executes=False, pid=7, machine=machine
            )
            found = list(struct.iter_unpack("=HBBI", code))
            returns = {0x06}
            assert found[-1][0] in returns
            for index, (operation, true, false, _) in enumerate(found):
                if operation & 0x07 == 0x05:
                    assert index + 1 + max(true, false) < len(found)
