"""What is wrong with a request, as the clients of an application see it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ..._lib.faults import dotted, fault_of, type_faults

__all__ = ["MAX_FAULTS", "Fault", "body_faults"]

MAX_FAULTS: Final = 100
"""Faults of a body that are listed."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with a request.

    Attributes:
        detail: What is wrong, as shown to the client.
        location: The part of the request: `"path"`, `"query"`, `"body"`, `"header"`, `"cookie"`.
            It is `in` in JSON, as in OpenAPI.
        name: The name of the parameter, or the path within the body, as `items[2].count`.
    """

    detail: str
    location: str = msgspec.field(default="", name="in")
    name: str = ""

    @classmethod
    def at(cls, detail: str, location: str, path: Sequence[str | int]) -> Fault:
        """Return a fault whose name is a path.

        Args:
            detail: What is wrong.
            location: The part of the request.
            path: The keys and indexes that lead to it.
        """
        return cls(detail, location, dotted(path))

    @classmethod
    def of(cls, error: msgspec.DecodeError, location: str, name: str = "") -> Fault:
        """Return the fault that an error of msgspec's describes.

        Args:
            error: The error.
            location: The part of the request.
            name: The name of the parameter; empty for the body.
        """
        fault = fault_of(error)
        joint = "." if name and fault.path and not fault.path.startswith("[") else ""
        return cls(fault.message, location, f"{name}{joint}{fault.path}")


def body_faults(value: object, type_: Any, *, strict: bool) -> list[Fault]:
    """List what is wrong with a decoded body, at most `MAX_FAULTS` things.

    Args:
        value: The body, decoded without a type.
        type_: The type that it must convert to.
        strict: Whether text is refused where a number is expected; `False` for forms.

    Returns:
        The faults; none if the body is nested too deeply to look into.
    """

    def convert(part: object, wanted: Any) -> object:
        return msgspec.convert(part, wanted, strict=strict, str_keys=True)

    # Clients know what they sent, and proxies may log an answer: no value is shown.
    found = type_faults(value, type_, secret=True, convert=convert)
    try:
        return [
            Fault(fault.message, "body", fault.path)
            for fault in itertools.islice(found, MAX_FAULTS)
        ]
    except RecursionError:
        return []
