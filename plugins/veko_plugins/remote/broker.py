"""Connections that the host makes for a worker that may open none itself.

The kernel knows ports only, so a Python worker gets no socket for the network at all. It asks for
`host:port`; the host checks the host, looks the name up, checks each address and connects to the
very address that it has checked: a name that changes in between changes nothing. The connected
socket is passed to the worker, which from then on reads and writes it without the host.

A worker asks over a channel of its own (`SOCK_SEQPACKET`), not over its connection: code that
blocks, as most database drivers do, can then wait for the answer. Each question brings the socket
on which it wants the answer, so any number of threads may ask at once. `python.outlet` is the
worker's side.

Promise: bounded for each worker: `_MOST` connections in the making, each with a time limit; lookups
have threads of their own, so none of the host's waits for a name server.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from .accesses import Watch
from .addresses import Address, address_of, canonical_host
from .descriptors import receive
from .permissions import AccessError

__all__ = ["Broker", "Channel"]

_MOST: Final = 64
_LOOKUPS: Final = 4
_QUESTION: Final = 2_048
_PER_ADDRESS: Final = 5.0


class Broker:
    """Connects for workers.

    Args:
        timeout: Seconds that a lookup and a connection may take together.
    """

    def __init__(self, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="veko-lookup")

    def close(self) -> None:
        """End; lookups that hang are left to their own time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def connect(
        self, watch: Watch, host: object, port: object, where: str = ""
    ) -> socket.socket:
        """Connect to a host for a plugin.

        Args:
            watch: What the plugin may do, and where it is counted.
            host: A name or an address, as the plugin gave it.
            port: The port.
            where: The place in the plugin's code.

        Returns:
            A connected socket that does not block; the caller closes it.

        Raises:
            AccessError: It is not granted.
            OSError: It cannot be looked up or connected to.
        """
        if not isinstance(host, str) or type(port) is not int or not 0 < port < 2**16:
            raise OSError(errno.EINVAL, "expected a host and a port from 1 to 65535")
        try:
            name = canonical_host(host)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from error
        value = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        if not watch.grants.allows_host(name, port):
            raise self._refused(watch, value, where)
        until = time.monotonic() + self._timeout
        found = await self._addresses(name, port, until)
        granted = [one for one in found if watch.grants.allows_address(name, one[0], port)]
        if not granted:
            address = found[0][0] if found else name
            what = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
            raise self._refused(watch, what, where, "" if what == value else f" ({name})")
        watch.used("net:connect", value, where)
        return await _first(granted, port, until)

    @staticmethod
    def _refused(watch: Watch, value: str, where: str, via: str = "") -> AccessError:
        watch.denied("net:connect", value, where)
        return AccessError(
            f"net:connect:{value}{via} is not granted",
            plugin=watch.grants.plugin,
            remedy=f'Add "net:connect:{value}" to the permissions of the plugin if it needs it.',
        )

    async def _addresses(
        self, name: str, port: int, until: float
    ) -> list[tuple[Address, tuple[Any, ...], int]]:
        """Look a name up; each address with what `connect` takes, and its family."""
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(name)
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            return [(address, (name, port), family)]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                found = await loop.run_in_executor(self._threads, _look_up, name, port)
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, f"looking up {name} took too long") from None
        except RuntimeError as error:  # the threads have ended with the application
            raise OSError(errno.ESHUTDOWN, "the application stops") from error
        return [
            (address_of(ipaddress.ip_address(str(one[4][0]).partition("%")[0])), one[4], one[0])
            for one in found
        ]


def _look_up(name: str, port: int) -> list[Any]:
    # As bytes: it is in ASCII already, and must not be spelled in another way once more.
    return socket.getaddrinfo(name.encode("ascii"), port, type=socket.SOCK_STREAM)


async def _first(
    found: list[tuple[Address, tuple[Any, ...], int]], port: int, until: float
) -> socket.socket:
    """Connect to the first address that answers."""
    loop, failure = asyncio.get_running_loop(), OSError(errno.EHOSTUNREACH, "no address answers")
    for address, target, family in found:
        left = until - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(min(left, _PER_ADDRESS)):
                await loop.sock_connect(sock, target)
        except TimeoutError:
            sock.close()
            failure = TimeoutError(errno.ETIMEDOUT, f"{address}:{port} does not answer")
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


class Channel:
    """The host's end of the channel on which one worker asks for connections.

    Args:
        broker: Connects.
        watch: What the plugin may do.

    Attributes:
        worker: The worker's end; close it with `started` once the worker has it.
    """

    def __init__(self, broker: Broker, watch: Watch) -> None:
        self._broker = broker
        self._watch = watch
        self._sock, self.worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)
        self._running: dict[asyncio.Task[None], socket.socket] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self._read)

    def started(self) -> None:
        """Close the worker's end, which the worker has now."""
        self.worker.close()

    def close(self) -> None:
        """End, with what is in the making."""
        self.started()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
        for task, answers in self._running.items():
            task.cancel()
            answers.close()  # a task that is cancelled before it begins closes nothing

    def _read(self) -> None:
        try:
            data, descriptor = receive(self._sock, _QUESTION)
        except BlockingIOError:
            return
        except OSError:
            data, descriptor = b"", None
        if not data:
            if descriptor is not None:
                os.close(descriptor)
            self.close()
            return
        answers = None if descriptor is None else _socket_of(descriptor)
        if answers is None:
            return  # without a socket there is no answer
        if len(self._running) >= _MOST:
            _answer(answers, errno.EAGAIN, f"{_MOST} connections are being made already")
            answers.close()
            return
        task = self._loop.create_task(self._serve(data, answers))
        self._running[task] = answers
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task).close()

    async def _serve(self, data: bytes, answers: socket.socket) -> None:
        try:
            host, port, where = msgspec.json.decode(data, type=tuple[str, int, str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            _answer(answers, errno.EINVAL, "expected [host, port, where]")
            return
        try:
            sock = await self._broker.connect(self._watch, host, port, where)
        except AccessError as error:
            _answer(answers, errno.EACCES, f"{error.message}. {error.remedy}")
        except OSError as error:  # a name that is not known has a number of another kind
            number = errno.EHOSTUNREACH if isinstance(error, socket.gaierror) else error.errno
            _answer(answers, number or errno.EIO, error.strerror or str(error))
        else:
            with sock:
                _answer(answers, 0, "", [sock.fileno()])


def _socket_of(descriptor: int) -> socket.socket | None:
    """Return the socket that a worker sent; whatever else it is gets closed."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if found.family == socket.AF_UNIX and found.type == socket.SOCK_SEQPACKET:
        return found
    found.close()
    return None


def _answer(answers: socket.socket, number: int, text: str, fds: list[int] | None = None) -> None:
    """Answer once; a worker that does not take the answer has gone."""
    with contextlib.suppress(OSError):
        socket.send_fds(
            answers, [msgspec.json.encode((number, text[:1_000]))], fds or [], socket.MSG_DONTWAIT
        )
