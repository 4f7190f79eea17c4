"""Connections that the host makes for workers: what is granted, to the address that was checked."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from veko_plugins.remote.accesses import Accesses, Watch
from veko_plugins.remote.broker import Broker, Channel
from veko_plugins.remote.permissions import AccessError, grants
from veko_plugins.remote.python.outlet import connect

Found = list[tuple[int, int, int, str, tuple[Any, ...]]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def accesses(log: list[str]) -> Accesses:
    return Accesses(lambda plugin, text: log.append(f"{plugin} {text}"))


@pytest.fixture
def watch(accesses: Accesses, tmp_path: Path) -> Callable[..., Watch]:
    def make(*permissions: str) -> Watch:
        given = grants(permissions, folder=tmp_path, directory=tmp_path, plugin="shop")
        return Watch(accesses, "shop", given)

    return make


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    made = Broker(timeout=3.0)
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[int]:
    """A server on loopback that says hello; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(b"hello")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def resolves(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[bytes]:
    """Let each lookup answer with the next addresses; returns what was looked up."""
    asked: list[bytes] = []

    def look_up(name: bytes, port: int, **_: object) -> Found:
        asked.append(name)
        texts = answers[min(len(asked), len(answers)) - 1].split()
        return [
            (
                socket.AF_INET6 if ":" in one else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (one, port, 0, 0) if ":" in one else (one, port),
            )
            for one in texts
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


async def read(sock: socket.socket) -> bytes:
    with sock:
        return await asyncio.get_running_loop().sock_recv(sock, 100)


async def test_connects_to_what_is_granted(
    broker: Broker, watch: Callable[..., Watch], accesses: Accesses, server: int
) -> None:
    allowed = watch(f"net:connect:127.0.0.1:{server}")
    assert await read(await broker.connect(allowed, "127.0.0.1", server, "shop.py:3")) == b"hello"
    assert await read(await broker.connect(allowed, "::ffff:127.0.0.1", server)) == b"hello"
    assert await read(await broker.connect(allowed, "2130706433", server)) == b"hello"
    assert await read(await broker.connect(watch("net:connect:localhost"), "LOCALHOST.", server))
    (first, *_) = accesses.of("shop")
    assert (first.kind, first.value, first.granted, first.times, first.where) == (
        "net:connect", f"127.0.0.1:{server}", True, 3, "shop.py:3",
    )  # fmt: skip


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "localhost", "0.0.0.0", "::1", "example.com", "evil127.0.0.1.example"]
)
async def test_refuses_names_and_counts_what_is_not_granted(
    broker: Broker, watch: Callable[..., Watch], accesses: Accesses, log: list[str], host: str
) -> None:
    allowed = watch("net:connect:127.0.0.1:80")
    for _ in range(3):
        with pytest.raises(AccessError, match="is not granted"):
            await broker.connect(allowed, host, 80, "shop.py:7")
    (access,) = accesses.of("shop")
    assert (access.granted, access.times) == (False, 3)
    (line,) = log
    assert line.startswith("shop was refused net:connect:")
    assert "at shop.py:7" in line
    assert 'add "net:connect:' in line


@pytest.mark.parametrize(
    ("host", "port"),
    [("a\0b", 80), ("", 80), (None, 80), (5, 80), ("a", "80"), ("a", 0), ("a", 70000), ("a", True),
     ("a" * 3000, 80), ("\ud800", 80), ("fe80::1%lo", 80)],
)  # fmt: skip
async def test_no_host_or_port_is_an_error_of_the_system(
    broker: Broker, watch: Callable[..., Watch], host: Any, port: Any
) -> None:
    with pytest.raises(OSError) as caught:
        await broker.connect(watch("net:connect"), host, port)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"])
@pytest.mark.parametrize("permission", ["net:connect", "net:connect:evil.example"])
async def test_a_name_does_not_lead_to_the_machines_metadata(
    broker: Broker,
    watch: Callable[..., Watch],
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
    address: str,
    permission: str,
) -> None:
    resolves(monkeypatch, address)
    with pytest.raises(AccessError, match=r"\(evil.example\) is not granted"):
        await broker.connect(watch(permission), "evil.example", 80)
    assert len(log) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_a_name_does_not_lead_to_this_machine(
    broker: Broker, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolves(monkeypatch, address)
    with pytest.raises(AccessError):
        await broker.connect(watch("net:connect:evil.example"), "evil.example", 80)


async def test_the_address_that_was_checked_is_connected_to(
    broker: Broker, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch, server: int
) -> None:
    """A name server that answers differently the second time is not asked a second time."""
    asked = resolves(monkeypatch, "127.0.0.1", "169.254.169.254")
    sock = await broker.connect(watch("net:connect:a.localhost"), "a.localhost", server)
    assert sock.getpeername() == ("127.0.0.1", server)
    assert await read(sock) == b"hello"
    assert asked == [b"a.localhost"]


async def test_of_several_addresses_those_granted_are_tried(
    broker: Broker, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch, server: int
) -> None:
    resolves(monkeypatch, "169.254.169.254 127.0.0.2 127.0.0.1")
    allowed = watch(f"net:connect:127.0.0.1:{server}", "net:connect:db.example")
    sock = await broker.connect(allowed, "db.example", server)
    assert sock.getpeername() == ("127.0.0.1", server)
    sock.close()


async def test_a_name_server_that_hangs_costs_its_time_limit(
    watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(10) and [])
    broker = Broker(timeout=0.1)
    with pytest.raises(OSError) as caught:
        await broker.connect(watch("net:connect"), "slow.example", 80)
    assert caught.value.errno == errno.ETIMEDOUT
    release.set()
    broker.close()
    with pytest.raises(OSError, match="stops"):
        await broker.connect(watch("net:connect"), "slow.example", 80)


# -- the channel


@pytest.fixture
async def channel(
    broker: Broker, watch: Callable[..., Watch], server: int
) -> AsyncIterator[Channel]:
    made = Channel(broker, watch(f"net:connect:127.0.0.1:{server}", "net:connect:127.0.0.1:1"))
    yield made
    made.close()


async def test_a_worker_gets_a_connected_socket(channel: Channel, server: int) -> None:
    sock = await asyncio.to_thread(connect, channel.worker, "127.0.0.1", server)
    with sock:
        assert sock.getblocking()
        assert not os.get_inheritable(sock.fileno())
        assert await asyncio.to_thread(sock.recv, 100) == b"hello"


async def test_many_threads_ask_at_once(channel: Channel, server: int) -> None:
    found = await asyncio.gather(
        *(asyncio.to_thread(connect, channel.worker, "127.0.0.1", server) for _ in range(20))
    )
    for sock in found:
        with sock:
            assert await asyncio.to_thread(sock.recv, 100) == b"hello"


async def test_a_worker_is_refused_as_by_the_system(channel: Channel, server: int) -> None:
    with pytest.raises(PermissionError, match=r"net:connect:10\.0\.0\.1:80 is not granted"):
        await asyncio.to_thread(connect, channel.worker, "10.0.0.1", 80)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(connect, channel.worker, "127.0.0.1", 1)
    with pytest.raises(OSError) as caught:
        await asyncio.to_thread(connect, channel.worker, "", 1)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "question", [b"x", b"[]", b"{}", b'["a"]', b'["a", "b", "c"]', b"\xff" * 100, b"[" * 2000]
)
async def test_garbage_is_answered_and_costs_nothing_else(
    channel: Channel, server: int, question: bytes
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(channel.worker, [question], [theirs.fileno()])
        answer = await asyncio.to_thread(ours.recv, 1000)
        assert answer.startswith(b"[22,")
    sock = await asyncio.to_thread(connect, channel.worker, "127.0.0.1", server)
    sock.close()


async def test_descriptors_of_other_kinds_are_closed(channel: Channel, server: int) -> None:
    question = b'["127.0.0.1", %d, ""]' % server
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    read_end, write_end = os.pipe()
    with closing(socket.socket()) as tcp, closing(socket.socket(socket.AF_UNIX)) as stream:
        for descriptor in (read_end, tcp.fileno(), stream.fileno()):
            socket.send_fds(channel.worker, [question], [descriptor])
        channel.worker.send(question)
        socket.send_fds(channel.worker, [question], [read_end, write_end, read_end])
        sock = await asyncio.to_thread(connect, channel.worker, "127.0.0.1", server)
        sock.close()
    os.close(read_end)
    os.close(write_end)
    with anyio.fail_after(5):  # the broker closes its copy of a connection after it has sent it
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110, PTH208
            await anyio.sleep(0.01)


async def test_connections_in_the_making_are_bounded(
    broker: Broker, watch: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(5) and [])
    channel = Channel(broker, watch("net:connect"))
    asking = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(65)]
    for number, (_, theirs) in enumerate(asking):
        question = b'["a%d.example", 80, ""]' % number
        while True:
            try:
                socket.send_fds(channel.worker, [question], [theirs.fileno()], socket.MSG_DONTWAIT)
                break
            except BlockingIOError:
                await asyncio.sleep(0)
    answer = await asyncio.to_thread(asking[-1][0].recv, 1000)
    assert b"64 connections are being made already" in answer
    release.set()
    channel.close()
    for pair in asking:
        for one in pair:
            one.close()


async def test_a_channel_that_ends_leaves_nothing(channel: Channel) -> None:
    channel.started()
    for _ in range(100):
        if channel._sock.fileno() < 0:
            break
        await asyncio.sleep(0)
    assert channel._sock.fileno() < 0
