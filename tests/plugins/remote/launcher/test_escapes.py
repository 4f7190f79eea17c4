"""Ways past Landlock that the filter closes: what Landlock does not govern, tried for real."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from veko_plugins.remote.launcher import Confinement, missing

from .conftest import Workers
from .test_confinement import _LIBRARY, _PYTHON, _X86, attempt, confinement

pytestmark = pytest.mark.skipif(
    bool(missing(Confinement())) and "CI" not in os.environ, reason="the kernel lacks Landlock"
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of this user that the worker may read and nothing else."""
    file = tmp_path / "outside"
    file.write_text("1")
    file.chmod(0o600)
    os.utime(file, (1, 1))
    return file


def state(file: Path) -> os.stat_result:
    return file.stat()


@pytest.mark.parametrize(
    "code",
    [
        "os.chmod(path, 0o777)",
        "os.chmod(os.open(path, os.O_RDONLY), 0o777)",
        "os.chmod(path, 0o777, follow_symlinks=True, dir_fd=os.open('.', os.O_RDONLY))",
        "os.chown(path, os.getuid(), os.getgid())",
        "os.chown(os.open(path, os.O_RDONLY), os.getuid(), os.getgid())",
        "os.utime(path)",
        "os.utime(os.open(path, os.O_RDONLY))",
        "os.setxattr(path, 'user.x', b'1')",
        "os.removexattr(path, 'user.x')",
        "import fcntl; fcntl.fcntl(os.open(path, os.O_RDONLY), 1024, 1)",  # a lease
        "import fcntl; fcntl.fcntl(os.open('/usr/lib', os.O_RDONLY), 1026, 1)",  # F_NOTIFY
        "import fcntl; fcntl.ioctl(os.open(path, os.O_RDONLY), 0x40086602, b'\\0' * 8)",
    ],
)
async def test_a_file_that_may_be_read_cannot_be_changed(
    workers: Workers, outside: Path, code: str
) -> None:
    before = state(outside)
    limits = Confinement(read=(*_LIBRARY, outside), execute=(_PYTHON,))
    said = await attempt(workers, f"path = {str(outside)!r}\n{code}", limits)
    assert said == ("done" if "chmod" in code or "utime" in code else "EPERM")
    assert state(outside) == before


async def test_a_file_can_be_copied_as_everywhere(workers: Workers) -> None:
    code = """
    import shutil
    with open("one", "w") as file:
        file.write("1")
    shutil.copy("one", "two")
    shutil.copy2("one", "three")
    assert open("two").read() == open("three").read() == "1"
    assert os.stat("two").st_mode == 0o100600
    """
    assert await attempt(workers, code) == "done"


async def test_a_file_that_it_makes_is_private(workers: Workers) -> None:
    """Modes cannot be changed later, so what is made is nobody else's from the start."""
    assert await attempt(workers, "open('x', 'w'); assert os.stat('x').st_mode == 0o100600") == (
        "done"
    )


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_RAW", "SOCK_DGRAM | socket.SOCK_CLOEXEC"])
async def test_a_pair_of_sockets_reaches_no_socket_of_the_host(
    workers: Workers, datagrams: socket.socket, kind: str
) -> None:
    code = f"""
    one, other = socket.socketpair(socket.AF_UNIX, socket.{kind})
    one.sendto(b'x', {datagrams.getsockname()!r})
    """
    assert await attempt(workers, code) == "EPERM"
    with pytest.raises(BlockingIOError):
        datagrams.recv(1)
    for allowed in ("SOCK_STREAM", "SOCK_SEQPACKET"):
        pair = f"socket.socketpair(socket.AF_UNIX, socket.{allowed})"
        assert await attempt(workers, pair) == "done"


async def test_it_listens_on_no_port_that_the_kernel_chooses(workers: Workers) -> None:
    listen = "socket.socket().listen()"  # without bind, which is what Landlock looks at
    assert await attempt(workers, listen) == "EPERM"
    assert await attempt(workers, listen, confinement(connect=None)) == "EPERM"
    assert await attempt(workers, listen, confinement(listen=None)) == "done"


async def test_a_connected_socket_that_it_was_handed_connects_nowhere_else(
    workers: Workers,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
        made = socket.socket()
        import struct
        address = struct.pack("=H14x", 0)  # AF_UNSPEC undoes a connection
        libc.connect(made.fileno(), address, 16)
        made.connect(("127.0.0.1", {port}))
        """
        assert await attempt(workers, code) == "EACCES"


async def test_memory_that_nobody_counts_is_refused(workers: Workers) -> None:
    assert await attempt(workers, "os.memfd_create('x')") == "EPERM"
    assert await attempt(workers, "os.memfd_create('x')", confinement(spawn=True)) == "EPERM"


@_X86
@pytest.mark.parametrize("number", [463, 466, 469, 254, 162, 306])
async def test_the_like_by_other_calls_is_refused(workers: Workers, number: int) -> None:
    assert await attempt(workers, f"call({number}, 0, 0, 0, 0, 0)") == "EPERM"


async def test_calls_that_are_newer_than_the_filter_do_not_exist(workers: Workers) -> None:
    assert await attempt(workers, "call(470, 0)") == "ENOSYS"
    assert await attempt(workers, "call(999, 0)") == "ENOSYS"


async def test_the_kernel_ends_a_worker_before_the_host_when_memory_is_short(
    workers: Workers,
) -> None:
    code = "assert open('/proc/self/oom_score_adj').read() == '1000\\n'"
    assert await attempt(workers, code) == "done"
