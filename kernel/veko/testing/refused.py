"""The calls of an event loop that no simulation has: each is refused by its name."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from .failures import NotSimulated

__all__ = ["LoopWithoutIO"]


class _Refused:
    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, loop: LoopWithoutIO, owner: type) -> Any:
        def refuse(*args: object, **options: object) -> NoReturn:
            raise loop.refuse(f"loop.{self._name}()")

        return refuse


class LoopWithoutIO(asyncio.AbstractEventLoop):
    """An event loop without sockets, processes and signals.

    Attributes:
        failures: Calls that were refused, and errors that nobody handled.
    """

    def __init__(self) -> None:
        self.failures: list[BaseException] = []

    def refuse(self, call: str, remedy: str | None = None) -> NotSimulated:
        """Return the error for a call, and keep it: the run fails even if it is caught."""
        error = NotSimulated(call, remedy)
        self.failures.append(error)
        return error

    add_reader: Any = _Refused()
    remove_reader: Any = _Refused()
    add_writer: Any = _Refused()
    remove_writer: Any = _Refused()
    sock_recv: Any = _Refused()
    sock_recv_into: Any = _Refused()
    sock_recvfrom: Any = _Refused()
    sock_recvfrom_into: Any = _Refused()
    sock_sendall: Any = _Refused()
    sock_sendto: Any = _Refused()
    sock_connect: Any = _Refused()
    sock_accept: Any = _Refused()
    sock_sendfile: Any = _Refused()
    sendfile: Any = _Refused()
    start_tls: Any = _Refused()
    create_connection: Any = _Refused()
    create_server: Any = _Refused()
    create_unix_connection: Any = _Refused()
    create_unix_server: Any = _Refused()
    connect_accepted_socket: Any = _Refused()
    create_datagram_endpoint: Any = _Refused()
    connect_read_pipe: Any = _Refused()
    connect_write_pipe: Any = _Refused()
    subprocess_shell: Any = _Refused()
    subprocess_exec: Any = _Refused()
    getaddrinfo: Any = _Refused()
    getnameinfo: Any = _Refused()
    add_signal_handler: Any = _Refused()
    remove_signal_handler: Any = _Refused()
