"""What a plugin is granted, as flags for Deno."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from veko.errors import Fault

from ..._lib.permissions import Endpoint
from ..addresses import METADATA, denied_networks, is_loopback
from ..permissions import Grants

__all__ = ["deno_flags"]

_MACHINE: Final = "hostname,osRelease,osUptime,loadavg,systemMemoryInfo,uid,gid,cpus"
"""What any process learns about the machine without opening a file."""
_LOOPBACK: Final = ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128")
_HERE: Final = ("0.0.0.0", "127.0.0.1", "[::]", "[::1]", "localhost")
_EVERYTHING: Final = ("read=/", "write=/", "net", "env", "run", "sys", "ffi", "import")


def deno_flags(grants: Grants, read: Iterable[Path] = (), write: Iterable[Path] = ()) -> list[str]:
    """Return the flags with which Deno enforces what is granted.

    Variables that are not granted are undefined, as in an environment that lacks them.
    Connecting and listening are one permission to Deno; the kernel tells them apart by port.

    Args:
        grants: What the plugin may do.
        read: What the runtime itself reads.
        write: What the runtime itself writes.

    Raises:
        ManifestError: A path cannot be given to Deno, or a link leads elsewhere.
    """
    # Without a path, Deno's audit trail names every file that is read as one that is written
    # too. Held by `test_what_is_read_is_not_reported_as_written`.
    if grants.everything:
        return [f"--allow-{kind}" for kind in _EVERYTHING]
    flags = [f"--allow-sys={_MACHINE}", "--ignore-env"]
    for flag, kind, more in (
        ("read", "read:files", (*grants.own(), *read)),
        ("write", "write:files", tuple(write)),
    ):
        if grants.scopes(kind) is None:
            flags.append(f"--allow-{flag}=/")
            continue
        lexical = [str(grants.directory / scope) for scope in grants.values(kind)]
        paths = dict.fromkeys([*map(str, (*grants.paths(kind), *more)), *lexical])
        if flag == "read":
            paths |= dict.fromkeys([*map(str, grants.paths("write:files")), str(grants.folder)])
        flags += _listed(grants, flag, paths)
    names = grants.scopes("env:read")
    flags += ["--allow-env"] if names is None else _listed(grants, "env", names)
    programs = grants.programs()
    flags += ["--allow-run"] if programs is None else _listed(grants, "run", map(str, programs))
    return flags + _network_flags(grants)


def _network_flags(grants: Grants) -> list[str]:
    connect, listen = grants.scopes("net:connect"), grants.scopes("net:listen")
    hosts: list[str] = []
    wide = connect is None
    for one in (Endpoint.parse(scope) for scope in connect or ()):
        wide = wide or not one.host  # Deno knows no "any host at this port"; the kernel does
        hosts.append(str(one))
    for scope in ("",) if listen is None else listen:
        one = Endpoint.parse(scope) if scope else Endpoint()
        port = "" if one.port is None else f":{one.port}"
        hosts += [f"{host}{port}" for host in ([str(Endpoint(one.host))] if one.host else _HERE)]
    if not wide and not hosts:
        return []
    flags = ["--allow-net"] if wide else _listed(grants, "net", hosts)
    closed = list(METADATA)
    addresses = [one.address for one in grants.endpoints() if one.address is not None]
    names = {one.host.rpartition(".")[2] for one in grants.endpoints()}
    local = "localhost" in names or any(map(is_loopback, addresses))
    if not wide and not local and listen == ():
        closed += map(ipaddress.ip_network, _LOOPBACK)
    # Deno compares what a name resolved to with what is denied. It takes no network of IPv6.
    denied = [
        str(one) if one.version == 4 else f"[{one.network_address}]"
        for one in denied_networks(closed, addresses)
        if one.version == 4 or one.num_addresses == 1
    ]
    return [*flags, *_listed(grants, "net", denied, verb="deny")]


def _listed(grants: Grants, flag: str, values: Iterable[str], *, verb: str = "allow") -> list[str]:
    values = list(dict.fromkeys(values))
    for value in values:
        if "," in value:  # Deno would read what is behind it as one more path
            message = f"Deno cannot be given {value!r}, which has a comma"
            raise grants.refused([Fault("permissions", message)])
    return [f"--{verb}-{flag}={','.join(values)}"] if values else []
