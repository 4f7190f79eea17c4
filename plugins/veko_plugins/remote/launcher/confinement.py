"""What a worker may do: the struct that the host fills and the launcher enforces."""

from pathlib import Path

from msgspec import Struct


class Confinement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker may do; whatever is not named is refused by the kernel.

    A path grants itself and, for a folder, all below it. A path that does not exist when the
    worker starts grants nothing, nor does one to be read or written that leads through a symbolic
    link: resolve it first.

    Attributes:
        read: Files and folders that may be read.
        write: Files and folders that may be read, written, made and removed.
        execute: Programs that may be started, and folders of them. They may be read as well.
        connect: TCP ports that may be connected to; `None` is every port, `()` none.
        listen: TCP ports that may be listened on; `None` is every port, `()` none.
        udp: Whether UDP sockets may be made. The kernel cannot restrict their addresses.
        spawn: Whether other processes may be started.
        memory: Bytes of resident memory of the worker and its processes together.
        processes: Threads of the worker and its processes together.
        files: Descriptors that may be open at once in one process.
        file_size: Bytes that one file may grow to.
        cpu: Seconds of processor time of one process; `None` is no limit.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    execute: tuple[Path, ...] = ()
    connect: tuple[int, ...] | None = ()
    listen: tuple[int, ...] | None = ()
    udp: bool = False
    spawn: bool = False
    memory: int = 512 * 2**20
    processes: int = 256
    files: int = 1024
    file_size: int = 2**30
    cpu: int | None = None
