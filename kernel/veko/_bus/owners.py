"""Owners: what registrations belong to."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Owner", "name_of"]


class Owner(Protocol):
    """Anything with a name.

    An owner may also have a method `count_error(error)`, which `Bus.report` calls with each failure
    of the owner's code, and an attribute `source`: the file that the code is in.
    """

    @property
    def name(self) -> str: ...


def name_of(owner: object) -> str | None:
    """Return the name of an owner, which may be a string itself; `None` for no owner."""
    found: Any = owner
    name: str | None = getattr(owner, "name", found)
    return name
