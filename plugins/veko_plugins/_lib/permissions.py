"""The grammar of `permissions`: `kind` or `kind:scope`, as in `read:files:./data`.

A scope has one reading and one normal form, so a reviewer of a manifest sees what a runtime
is given: no `..` in the middle of a path, no character that looks like another, no host that a
resolver would read as an address.

| kinds | scope |
| --- | --- |
| `read:files`, `write:files` | a path: absolute, or relative to the application's directory |
| `net:connect`, `net:listen` | `host`, `host:port`, `*.host`, `port`; an IPv6 address in brackets |
| `env:read` | the name of a variable, or the beginning of names (`APP_*`) |
| `process:spawn` | a program: its name, or its path |
| `read:database`, `write:database` | the name of a storage namespace or of a database |

Promise: pure functions of the text; no file, name or address is looked up.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Final

import msgspec

__all__ = [
    "PERMISSIONS", "Endpoint", "Permission", "covers", "ends_in_number", "parse_permission",
    "reaches_application", "within",
]  # fmt: skip

PERMISSIONS: Final = (
    "env:read", "net:connect", "net:listen", "process:spawn", "read:database", "read:files",
    "write:database", "write:files",
)  # fmt: skip
_LONGEST: Final = 1024
_LOOKALIKES: Final = frozenset("/\\.:*,~")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")
_PROGRAM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_DATABASE: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENDPOINT: Final = "expected a host, host:port or *.host, without a scheme or a path"
_DRIVE: Final = re.compile(r"[A-Za-z]:/")


class Permission(msgspec.Struct, frozen=True):
    """One permission.

    Attributes:
        kind: One of `PERMISSIONS`.
        scope: What it is limited to, in normal form; empty for everything of its kind.
    """

    kind: str
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.scope}" if self.scope else self.kind


class Endpoint(msgspec.Struct, frozen=True):
    """The scope of a network permission.

    Attributes:
        host: A name or an address in lower case, without brackets; `*.name` for the name and all
            names below it; empty for any.
        port: The port; `None` for any.
    """

    host: str = ""
    port: int | None = None

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an address, if it is one."""
        return _address(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def covers(self, host: str, port: int | None) -> bool:
        """Return whether a host in normal form (perhaps `*.name`) and a port lie within it."""
        if self.port is not None and self.port != port:
            return False
        if not self.host or self.host == host:
            return True
        name = self.host.removeprefix("*.")
        return name != self.host and (host == name or host.endswith(f".{name}"))

    @classmethod
    def parse(cls, scope: str) -> Endpoint:
        """Read a scope.

        Raises:
            ValueError: It is no host or port; the text says why.
        """
        if not scope.isascii():
            raise ValueError("a host is written in ASCII (xn--…)")
        text = scope.lower()
        if "/" in text or "@" in text:
            raise ValueError(_ENDPOINT)
        if text.isdecimal():  # `8080`; a host is never a number
            return cls(port=_port(text))
        host, colon, port = text.rpartition(":")
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or rest[:1] not in ("", ":") or ":" not in host:
                raise ValueError("an IPv6 address is written in brackets ([::1]:8080)")
            colon, port = rest[:1], rest[1:]
        elif ":" in host:
            if _address(text) is None:
                raise ValueError(_ENDPOINT)
            host, colon, port = text, "", ""
        elif not colon:
            host, port = text, ""
        if not host and not colon:
            raise ValueError("it is empty")
        return cls(_host(host) if host else "", _port(port) if colon else None)


@functools.lru_cache(maxsize=4096)
def parse_permission(text: str) -> Permission:
    """Read a permission.

    Raises:
        ValueError: It is not valid; the text says what is wrong with its scope, or is empty if
            there is no such kind.
    """
    first, _, rest = text.partition(":")
    second, colon, scope = rest.partition(":")
    kind = f"{first}:{second}"
    if kind not in PERMISSIONS:
        raise ValueError("")
    if not colon:
        return Permission(kind)
    if not scope:
        raise ValueError("")
    if len(scope) > _LONGEST:
        raise ValueError(f"the scope has {len(scope):,} characters, at most {_LONGEST} are allowed")
    _check_characters(scope)
    return Permission(kind, _SCOPES[kind](scope))


def covers(granted: Permission, asked: Permission) -> bool:
    """Return whether one permission includes another, by their texts alone.

    A relative path is compared with relative ones only. Writing files includes reading them.
    """
    writes = granted.kind == "write:files"
    if granted.kind != asked.kind and not (writes and asked.kind == "read:files"):
        return False
    if not granted.scope or granted.scope == asked.scope:
        return True
    if not asked.scope:
        return False
    if granted.kind in ("read:files", "write:files"):
        return within(asked.scope, granted.scope)
    if granted.kind in ("net:connect", "net:listen"):
        other = Endpoint.parse(asked.scope)
        return Endpoint.parse(granted.scope).covers(other.host, other.port)
    if granted.kind == "env:read" and granted.scope.endswith("*"):
        return asked.scope.startswith(granted.scope[:-1])
    return False


def reaches_application(permission: Permission) -> bool:
    """Return whether a permission lets a plugin change `veko.lock`, settings or other plugins."""
    if permission.kind != "write:files":
        return False
    scope = permission.scope
    parts = ("./veko.lock", "./veko.toml", "./pyproject.toml", "./plugins", "./.veko")
    climbs = scope in ("", "/") or set(scope.split("/")) == {".."}
    return climbs or any(within(one, scope) or within(scope, one) for one in parts)


def within(path: str, folder: str) -> bool:
    """Return whether a path in normal form is a folder in normal form, or lies below it."""
    if folder == ".":
        return path == "." or path.startswith("./")
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _check_characters(scope: str) -> None:
    if scope != scope.strip():
        raise ValueError("it begins or ends with white space")
    for character in scope:
        if character.isascii() and character.isprintable():
            continue
        if unicodedata.category(character)[0] in "CZ":  # NUL, bidirectional marks, wide spaces
            raise ValueError(f"it has the invisible character U+{ord(character):04X}")
        if not _LOOKALIKES.isdisjoint(unicodedata.normalize("NFKC", character)):
            raise ValueError(f"U+{ord(character):04X} looks like another character")


def _path(scope: str) -> str:
    for character, why in _NO_PATH.items():
        if character in scope:
            raise ValueError(f"a path has no {character!r}: {why}")
    if scope[0] in "~$%":
        raise ValueError(f"{scope[0]!r} is not expanded: write the path in full")
    windows = _DRIVE.match(scope) is not None
    absolute = scope.startswith("/") or windows
    path = (PureWindowsPath if windows else PurePosixPath)(scope)
    parts = path.parts[1:] if absolute else path.parts
    ups = 0
    while not absolute and ups < len(parts) and parts[ups] == "..":
        ups += 1
    if ".." in parts[ups:]:
        raise ValueError("'..' may only begin a relative path: write where it leads to")
    if absolute or ups:
        text = path.as_posix()
        return text[1:] if text.startswith("//") else text
    return f"./{path}" if parts else "."


_NO_PATH: Final = {
    "\\": "write /",
    "*": "a folder stands for all that is in it",
    "?": "a folder stands for all that is in it",
    ",": "not every runtime can be given it",
}


def _host(text: str) -> str:
    """Return a host in normal form; `text` is in lower case and ASCII."""
    address = _address(text)
    if address is not None:
        return str(address)
    name = text.removeprefix("*.").removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(_ENDPOINT)
    if ends_in_number(name):
        raise ValueError("an IPv4 address is written as four numbers (127.0.0.1)")
    if text.startswith("*.") and len(labels) < 2:
        raise ValueError("'*.' stands before a name of at least two parts (*.example.com)")
    return f"*.{name}" if text.startswith("*.") else name


def ends_in_number(host: str) -> bool:
    """Return whether a resolver reads a host as an address: 127.1 and 0x7f000001 are."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a text is; an IPv4 address mapped into IPv6 is the IPv4 one."""
    if "%" in text:  # a zone; it depends on the machine
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _port(text: str) -> int:
    if not (text.isdecimal() and len(text) <= 5 and 0 < int(text) < 2**16):
        raise ValueError("expected a port from 1 to 65535")
    return int(text)


def _endpoint(scope: str) -> str:
    return str(Endpoint.parse(scope))


def _listener(scope: str) -> str:
    found = Endpoint.parse(scope)
    if found.host and found.address is None and found.host != "localhost":
        raise ValueError("expected a port, or an address of this machine and a port")
    return str(found)


def _variable(scope: str) -> str:
    if not _VARIABLE.fullmatch(scope):
        raise ValueError("expected the name of a variable, or the beginning of names (APP_*)")
    return "" if scope == "*" else scope


def _program(scope: str) -> str:
    if "/" in scope:
        return _path(scope)
    if not _PROGRAM.fullmatch(scope):
        raise ValueError("expected a program: its name, or its path")
    return scope


def _database(scope: str) -> str:
    if not _DATABASE.fullmatch(scope) or len(scope) > 128:
        raise ValueError("expected the name of a storage namespace or of a database")
    return scope


_SCOPES: Final[dict[str, Callable[[str], str]]] = {
    "env:read": _variable,
    "net:connect": _endpoint,
    "net:listen": _listener,
    "process:spawn": _program,
    "read:database": _database,
    "read:files": _path,
    "write:database": _database,
    "write:files": _path,
}
