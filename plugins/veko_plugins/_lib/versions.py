"""Versions and ranges: PEP 440 as in Python, and npm ranges as in the original's plugins.

A range is PEP 440 if `packaging` accepts it (`>=2,<3`, `~=2.1`, `==2.*`), otherwise an npm range
for node-semver (`^2.0.0`, `~1.2`, `1.x`, `>=1.2 <2`, `1.0 - 2.0`, `^1 || ^3`). For npm ranges a
Python version gets three numbers and its pre-release tag: `2.1rc1` becomes `2.1.0-rc.1`.

Cost: parsing a range takes 10 to 300 µs, so ranges and comparisons are cached (bounded).
Promise: a range that neither accepts raises `ValueError` when it is read, not when it is used.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

import msgspec
import nodesemver
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

__all__ = ["Requirement", "did_you_mean", "satisfies", "valid_range"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")


class Requirement(msgspec.Struct, frozen=True):
    """A plugin that another one requires.

    Attributes:
        name: The name of the required plugin.
        range: The accepted versions; empty for any.
    """

    name: str
    range: str = ""

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Read `"auth"`, `"db>=2,<3"`, `"db@^2.0.0"` or `"db ^2.0.0"`.

        Raises:
            ValueError: The name is missing, or the range is invalid.
        """
        text = text.strip()
        match = _NAME.match(text.lower())
        if match is None:
            raise ValueError(f"{text!r} does not begin with the name of a plugin")
        name = match.group().rstrip("._-")
        rest = text[len(name) :].strip()
        range_ = rest.removeprefix("@").strip()
        if rest and not range_:
            raise ValueError(f"{text!r} has no range after '@'")
        if not valid_range(range_):
            raise ValueError(f"{text!r}: {range_!r} is neither a PEP 440 nor an npm range")
        return cls(name, range_)

    def accepts(self, version: str) -> bool:
        """Return whether a version is in the range."""
        return satisfies(version, self.range)

    def __str__(self) -> str:
        npm = self.range and _specifiers(self.range) is None
        return f"{self.name}@{self.range}" if npm else f"{self.name}{self.range}"


@functools.lru_cache(maxsize=1024)
def _specifiers(range_: str) -> SpecifierSet | None:
    try:
        return SpecifierSet(range_)
    except InvalidSpecifier:
        return None


@functools.lru_cache(maxsize=1024)
def valid_range(range_: str) -> bool:
    """Return whether a range is valid, for PEP 440 or for npm."""
    if _specifiers(range_) is not None:
        return True
    try:
        nodesemver.make_range(range_, True)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def satisfies(version: str, range_: str) -> bool:
    """Return whether a version is in a range.

    An installed pre-release satisfies a PEP 440 range, as for `pip check`; an npm range accepts one
    only if the range names a pre-release with the same three numbers, as npm does.

    Raises:
        ValueError: The version or the range is invalid.
    """
    specifiers = _specifiers(range_)
    if specifiers is not None and not range_:
        return True
    try:
        parsed = Version(version)
    except InvalidVersion:
        parsed = None
    if specifiers is not None and parsed is not None:
        return specifiers.contains(parsed, prereleases=True)
    semver = version if parsed is None else _semver(parsed)
    try:
        nodesemver.make_semver(semver, True)
        return bool(nodesemver.satisfies(semver, range_, True))
    except ValueError as error:
        raise ValueError(f"{version!r} cannot be compared with {range_!r}: {error}") from None


def _semver(version: Version) -> str:
    numbers = ".".join(str(part) for part in (*version.release, 0, 0)[:3])
    if version.pre is not None:
        return f"{numbers}-{version.pre[0]}.{version.pre[1]}"
    return f"{numbers}-dev.{version.dev}" if version.dev is not None else numbers


def did_you_mean(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return `"Did you mean 'auth'?"` for the nearest known names, or an empty string."""
    near = get_close_matches(name, sorted(known), n=count, cutoff=0.6)
    return f"Did you mean {' or '.join(repr(other) for other in near)}?" if near else ""
