"""What a plugin's `permissions` grant, and what the kernel enforces of it.

Always granted: reading the plugin's own file or folder and the nearest `node_modules`, and the
plugin's own storage namespace. Nothing else is, without a permission. A relative path is one of
the application's directory. `read:files` without a scope is every file, and so on.

Paths are resolved when a worker starts: the kernel then compares what is opened, not what it is
called. A symbolic link is followed if only the application's operator can have made it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from veko.errors import Fault, ManifestError, VekoError

from .._lib.manifests import manifest_error
from .._lib.permissions import Endpoint, Permission, parse_permission
from .._lib.private_files import private_folder
from .addresses import Address, canonical_host, is_internal, is_loopback
from .links import LinkError, is_below, real, without_links

if TYPE_CHECKING:
    from .launcher import Confinement

__all__ = ["AccessError", "Grants", "grants"]

_RESOLVER: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf",
                    "/etc/gai.conf")  # fmt: skip
"""What looking up a name reads."""
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache",
                  "/etc/ld.so.preload", "/etc/alternatives")  # fmt: skip
"""What most programs read, and all of what a plugin may run that may run every program."""
_OF_RUNTIMES: Final = ("LD_", "DYLD_", "DENO_", "NODE_OPTIONS", "PYTHON", "GLIBC_")
"""Beginnings of variables that change what a runtime does; never handed on."""
_DNS: Final = 53


class AccessError(VekoError):
    """A plugin was refused what its `permissions` do not grant."""

    counts = False  # how the plugin deals with it decides whether it fails


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin may do.

    Attributes:
        permissions: What it asks for, in normal form.
        folder: Its file or folder.
        directory: The application's directory.
        plugin: Its name, for errors.
        everything: Whether it is observed only: all is allowed.
    """

    permissions: tuple[Permission, ...]
    folder: Path
    directory: Path
    plugin: str | None = None
    everything: bool = False

    # -- decisions

    def scopes(self, kind: str) -> tuple[str, ...] | None:
        """Return the scopes of a kind of permission; `None` for everything, empty for nothing."""
        found = tuple(one.scope for one in self.permissions if one.kind == kind)
        return None if self.everything or "" in found else found

    def allows(self, kind: str, value: str = "") -> bool:
        """Return whether an access is granted.

        Args:
            kind: One of `PERMISSIONS`.
            value: What is accessed: an absolute path, `host:port`, the name of a variable, a
                program, a namespace. If it is empty, whether anything of the kind is granted.
        """
        scopes = self.scopes(kind)
        if scopes is None:
            return kind != "env:read" or not value.startswith(_OF_RUNTIMES)
        if kind == "read:files" and self.scopes("write:files") is None:
            return True
        if not value:
            return bool(scopes)
        if kind in ("read:files", "write:files"):
            return self._allows_path(kind, value)
        if kind in ("net:connect", "net:listen"):
            try:
                host, port = split_endpoint(value)
            except ValueError:
                return False
            return self.allows_host(host, port, kind=kind)
        if kind == "env:read":
            return not value.startswith(_OF_RUNTIMES) and any(
                value.startswith(one[:-1]) if one.endswith("*") else value == one for one in scopes
            )
        if kind == "process:spawn":
            return value in scopes or real(value) in (self.programs() or ())
        return value in scopes

    def allows_host(self, host: str, port: int | None, *, kind: str = "net:connect") -> bool:
        """Return whether a host, in the form of `canonical_host`, and a port are granted."""
        scopes = self.scopes(kind)
        return scopes is None or any(Endpoint.parse(one).covers(host, port) for one in scopes)

    def allows_address(self, host: str, address: Address, port: int) -> bool:
        """Return whether a granted host may be connected to at an address that it resolved to.

        Link-local addresses and those of a cloud's metadata have to be granted as addresses. A
        name leads to this machine only if it is `localhost`: else its owner could aim it here.
        """
        if self.everything or any(one.address == address for one in self.endpoints(port)):
            return True
        if is_internal(address):
            return False
        if not is_loopback(address) or host == "localhost" or host.endswith(".localhost"):
            return True
        return any(not one.host for one in self.endpoints(port))

    def endpoints(self, port: int | None = None) -> list[Endpoint]:
        """Return what `net:connect` grants, perhaps only what includes a port."""
        found = [Endpoint.parse(one) if one else Endpoint() for one in self.values("net:connect")]
        return [one for one in found if port is None or one.port in (None, port)]

    def values(self, kind: str) -> list[str]:
        """Return the scopes of a kind of permission, an empty one for everything."""
        return [one.scope for one in self.permissions if one.kind == kind]

    def _allows_path(self, kind: str, value: str) -> bool:
        path = real(value)
        roots = self.paths(kind)
        if kind == "read:files":
            roots = (*roots, *self.paths("write:files"), *self.own())
        return any(is_below(path, root) for root in roots)

    # -- paths

    def own(self) -> tuple[Path, ...]:
        """Return what the plugin may read without a permission, with links resolved."""
        found = [real(self.folder)]
        for folder in (self.folder, *self.folder.parents):
            modules = folder / "node_modules"
            if modules.is_dir():
                # Else a link of that name, shipped with the plugin, would open what it leads to.
                if not modules.is_symlink() or folder != self.folder:
                    found.append(real(modules))
                break
        return tuple(found)

    def paths(self, kind: str, *, create: bool = False) -> tuple[Path, ...]:
        """Return the paths that a permission for files grants, with links resolved.

        Args:
            kind: `read:files` or `write:files`.
            create: Whether folders inside the application's directory that are missing are made.

        Raises:
            ManifestError: A link that the plugin may have made leads elsewhere.
        """
        scopes = self.scopes(kind)
        if scopes is None:
            return (Path(self.directory.anchor or "/"),)
        found, faults = [], []
        home = real(self.directory)
        for number, permission in enumerate(self.permissions):
            if permission.kind != kind:
                continue
            try:
                path = self._without_links(permission.scope)
            except LinkError as error:
                faults.append(Fault(f"permissions[{number}]", f"{permission}: {error}"))
                continue
            if create and is_below(path, home) and not path.exists():
                private_folder(path)
            found.append(path)
        if faults:
            raise self.refused(faults)
        return tuple(found)

    def _without_links(self, scope: str) -> Path:
        """Resolve the links in a scope's path.

        A plugin must not choose by a link what its permission means: the narrower `./data/new` of
        a next version would be a link that this one has made. So links are followed only where the
        plugin cannot write: outside of its folder, of what `write:files` grants it, and of the
        folders inside the application's directory. Held by `test_links_*`.

        Raises:
            LinkError: A link is elsewhere, or links lead in a circle.
        """
        home = real(self.directory)
        writable = [one for one in self.values("write:files") if one]
        closed = [real(self.folder), *(real(self.directory / one) for one in writable)]

        def is_closed(folder: Path) -> bool:
            inside = folder != home and is_below(folder, home)
            return inside or any(is_below(folder, one) for one in closed)

        return without_links(self.directory / scope, is_closed)

    def programs(self) -> tuple[Path, ...] | None:
        """Return the programs that it may run, with links resolved; `None` for every one."""
        scopes = self.scopes("process:spawn")
        if scopes is None:
            return None
        found = [
            self.directory / one if "/" in one else Path(shutil.which(one) or "/nonexistent")
            for one in scopes
        ]
        return tuple(real(one) for one in found if one.exists())

    def refused(self, faults: Sequence[Fault]) -> ManifestError:
        """Return the error of permissions that cannot be granted."""
        return manifest_error(faults, plugin=self.plugin, path=self.folder)

    # -- what a runtime is given

    def confinement(
        self,
        *,
        read: Iterable[Path] = (),
        write: Iterable[Path] = (),
        execute: Iterable[Path] = (),
        brokered: bool = False,
        memory: int | None = None,
    ) -> Confinement | None:
        """Return what the kernel enforces of it; `None` if the plugin is observed only.

        Folders to write to that are missing in the application's directory are made.

        Args:
            read: What the runtime itself reads.
            write: What the runtime itself writes.
            execute: The runtime's own program.
            brokered: Whether the host connects for the worker, so that it opens no socket itself.
            memory: Bytes that it may use; `None` is the launcher's default.

        Raises:
            ManifestError: A link that the plugin may have made leads elsewhere.
        """
        from .launcher import Confinement  # only where workers are

        if self.everything:
            return None
        connect: tuple[int, ...] | None = () if brokered else self.ports("net:connect")
        named = any(one.address is None for one in self.endpoints())
        # Those of the system and of the runtime are resolved too: the launcher follows no link.
        readable = [*self.own(), *self.paths("read:files"), *map(real, read)]
        if connect != () and named:  # the worker looks the names up itself
            connect = None if connect is None else (*connect, _DNS)
            readable += map(real, _RESOLVER)
        programs, spawns = self.programs(), self.scopes("process:spawn") != ()
        if spawns:
            readable += map(real, _SYSTEM)
        runnable = tuple(map(real, _SYSTEM)) if programs is None else programs
        limits = {} if memory is None else {"memory": memory}
        return Confinement(
            read=tuple(dict.fromkeys(readable)),
            write=(*self.paths("write:files", create=True), *map(real, write)),
            execute=tuple(dict.fromkeys((*map(real, execute), *runnable))),
            connect=connect,
            listen=self.ports("net:listen"),
            udp=connect != () and not brokered,
            spawn=spawns,
            **limits,
        )

    def ports(self, kind: str) -> tuple[int, ...] | None:
        """Return the ports of `net:connect` or `net:listen`; `None` for any."""
        scopes = self.scopes(kind)
        if scopes is None:
            return None
        ports = [Endpoint.parse(one).port for one in scopes]
        return None if None in ports else tuple(sorted({one for one in ports if one is not None}))

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return those of some variables that the plugin may read."""
        return {name: value for name, value in given.items() if self.allows("env:read", name)}


def grants(
    permissions: Iterable[str], *, folder: Path, directory: Path, plugin: str | None = None
) -> Grants:
    """Read what a plugin asks for.

    Args:
        permissions: As in its manifest.
        folder: Its file or folder.
        directory: The application's directory.
        plugin: Its name, for errors.

    Raises:
        ManifestError: A permission is not valid; all that are not are listed.
    """
    found: dict[Permission, None] = {}
    faults: list[Fault] = []
    for number, text in enumerate(permissions):
        try:
            found[parse_permission(text)] = None
        except ValueError as error:
            faults.append(Fault(f"permissions[{number}]", f"{text!r}: {error}"))
    if faults:
        raise manifest_error(faults, plugin=plugin, path=folder)
    return Grants(
        permissions=tuple(found),
        folder=folder.absolute(),
        directory=directory.absolute(),
        plugin=plugin,
    )


def split_endpoint(value: str) -> tuple[str, int | None]:
    """Split `host:port` as runtimes report it; the host in the form of `canonical_host`.

    Raises:
        ValueError: It is neither.
    """
    host, colon, port = value.rpartition(":")
    if value.endswith("]") or not colon or (":" in host and not host.startswith("[")):
        return canonical_host(value), None
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{value!r} has no port")
    return canonical_host(host), int(port)
