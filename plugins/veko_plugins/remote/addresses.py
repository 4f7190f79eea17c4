"""Hosts and addresses of the network: one spelling for each, and which of them are special.

Promise: pure functions; no name is looked up.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final, TypeAlias

from .._lib.permissions import ends_in_number

__all__ = ["METADATA", "Address", "address_of", "canonical_host", "denied_networks", "is_internal",
           "is_loopback"]  # fmt: skip

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(one)
    for one in (
        "169.254.0.0/16", "fe80::/10",  # link-local, with the metadata of most clouds
        "168.63.129.16/32", "100.100.100.200/32",  # Azure, Alibaba
        "fd00:ec2::254/128", "fd20:ce::254/128",  # AWS, Google
    )
)  # fmt: skip
"""Networks in which a machine finds what it is and its keys; a name never leads there."""
_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")


def canonical_host(text: str) -> str:
    """Return a host as `permissions` spell it: an address, or a name in ASCII and lower case.

    What a resolver would read as an address (`127.1`, `0x7f000001`) is one, and dots of other
    alphabets are dots, as `getaddrinfo` has it: so what is checked is what is connected to.

    Raises:
        ValueError: It is no host.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    with contextlib.suppress(ValueError):
        if "%" not in bare:
            return str(address_of(ipaddress.ip_address(bare)))
    try:
        name = text.lower() if text.isascii() else text.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise ValueError(f"{text!r} is no host") from error
    name = name.removesuffix(".")
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} is no host")
    if not ends_in_number(name):
        return name
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(name)))
    except OSError as error:
        raise ValueError(f"{text!r} is no host") from error


def address_of(address: Address) -> Address:
    """Return an address in one form: an IPv4 address mapped into IPv6 is the IPv4 one."""
    return getattr(address, "ipv4_mapped", None) or address


def is_internal(address: Address) -> bool:
    """Return whether an address is link-local, or one of a cloud's metadata."""
    meant = _carried(address)
    return any(meant in network for network in METADATA if network.version == meant.version)


def is_loopback(address: Address) -> bool:
    """Return whether an address leads to this machine: loopback, or `0.0.0.0`, which does too."""
    meant = _carried(address)
    return meant.is_loopback or meant.is_unspecified or str(meant).startswith("0.")


def _carried(address: Address) -> Address:
    """Return the IPv4 address that a gateway takes out of one of IPv6, if it carries one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    mapped = address.ipv4_mapped or address.sixtofour
    if mapped is not None:
        return mapped
    number = int(address)
    if address in _NAT64 or (address in _COMPATIBLE and number > 0xFFFF):
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return address


def denied_networks(networks: Iterable[Network], granted: Iterable[Address]) -> list[Network]:
    """Return networks without some addresses."""
    left = list(networks)
    for address in granted:
        one = ipaddress.ip_network(address)
        left = [
            part
            for network in left
            for part in (
                network.address_exclude(one)  # type: ignore[arg-type]  # of one version
                if network.version == one.version and address in network
                else (network,)
            )
        ]
    return left
