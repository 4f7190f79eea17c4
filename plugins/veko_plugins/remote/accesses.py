"""What plugins access, and what they are refused: counted, and refusals reported.

Workers say it (see `audit` for Deno), and so does the broker. Nothing is enforced here: that is
done by the kernel, by Deno's flags and by the broker.

Cost: a dict lookup for an access that was seen before.
Promise: bounded, whatever a worker says: `_MOST` different accesses a plugin, a few lines of log a
minute. A value is never logged with characters that a terminal obeys.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from .._lib.permissions import PERMISSIONS, parse_permission
from .permissions import Grants

__all__ = ["Access", "Accesses", "Watch"]

_MOST: Final = 2_000
_LONGEST: Final = 512
_OTHERS: Final = "…"
_WINDOW: Final = 60.0
_LINES: Final = 5
"""Refusals of one plugin that are reported within so many seconds; others are counted only."""


class Access(msgspec.Struct):
    """An access of a plugin.

    Attributes:
        kind: The kind of permission that it needs; `sys`, `ffi` and `import` if there is none.
        value: What was accessed.
        granted: Whether it was granted.
        times: How often.
        where: The file and line of the plugin's code that did it last; empty if not known.
    """

    kind: str
    value: str
    granted: bool
    times: int = 0
    where: str = ""

    @property
    def permission(self) -> str:
        """The permission that grants it; empty if none does."""
        if self.kind not in PERMISSIONS or self.value == _OTHERS:
            return ""
        text = f"{self.kind}:{self.value}" if self.value else self.kind
        try:
            return str(parse_permission(text))
        except ValueError:
            return ""


class Accesses:
    """The accesses of all plugins, over their generations.

    Args:
        report: Is called with a plugin's name and a message for its log.
        clock: The time in seconds.
    """

    def __init__(
        self, report: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._seen: dict[str, dict[tuple[str, str, bool], Access]] = {}
        self._reported: dict[str, list[float]] = {}
        self._silent: Counter[str] = Counter()

    def record(
        self, plugin: str, kind: str, value: str, granted: bool, *, where: str = "", times: int = 1
    ) -> Access:
        """Count an access, and report it if it is the first refusal of its kind.

        Args:
            plugin: The plugin's name.
            kind: The kind of permission.
            value: What was accessed.
            granted: Whether it was granted.
            where: The place in the plugin's code.
            times: How often; 0 adds the place only.
        """
        seen = self._seen.setdefault(plugin, {})
        key = (kind, value[:_LONGEST], granted)
        access = seen.get(key)
        if access is None and len(seen) >= _MOST:
            key = (kind, _OTHERS, granted)
            access = seen.get(key)
        if access is not None:
            access.times += times
            access.where = where[:_LONGEST] or access.where
            return access
        access = seen[key] = Access(*key, times or 1, where[:_LONGEST])
        if not granted and _matters(kind, value):
            self._refused(plugin, access)
        return access

    def _refused(self, plugin: str, access: Access) -> None:
        now = self._clock()
        recent = [one for one in self._reported.get(plugin, ()) if now - one < _WINDOW]
        self._reported[plugin] = recent
        if len(recent) >= _LINES:
            self._silent[plugin] += 1
            return
        recent.append(now)
        more = self._silent.pop(plugin, 0)
        what = f"{access.kind}:{access.value}" if access.value else access.kind
        text = f"was refused {printable(what)}"
        text += f", at {printable(access.where)}" if access.where else ""
        needed = access.permission
        text += f'. If it needs that, add "{needed}" to its permissions' if needed else ""
        self._report(plugin, f"{text}. {more} other refusals were not reported" if more else text)

    def of(self, plugin: str) -> list[Access]:
        """Return a plugin's accesses, in order of arrival."""
        return list(self._seen.get(plugin, {}).values())

    def plugins(self) -> list[str]:
        """Return the names of the plugins that accessed anything."""
        return list(self._seen)

    def counts(self, plugin: str) -> tuple[int, int]:
        """Return how often a plugin did what is granted, and was refused."""
        found = self._seen.get(plugin, {}).values()
        used = sum(one.times for one in found if one.granted)
        return used, sum(one.times for one in found if not one.granted)

    def forget(self, plugin: str) -> None:
        """Forget a plugin that was unloaded."""
        self._seen.pop(plugin, None)
        self._reported.pop(plugin, None)
        self._silent.pop(plugin, None)


class Watch:
    """The accesses of one worker.

    Args:
        accesses: Where they are counted.
        plugin: The plugin's name.
        grants: What it may do.
        audited: Whether its runtime reports every access by itself: then a note adds to a refusal
            only its place in the code.
    """

    def __init__(
        self, accesses: Accesses, plugin: str, grants: Grants, *, audited: bool = False
    ) -> None:
        self.grants = grants
        self._accesses = accesses
        self._plugin = plugin
        self._audited = audited

    def seen(self, kind: str, value: str, *, times: int = 1) -> Access:
        """Count an access that the runtime reports, granted or not."""
        if kind == "net:connect" and value.startswith(_ANYWHERE):  # nobody connects to these
            kind = "net:listen"
        granted = kind in PERMISSIONS and self.grants.allows(kind, value)
        return self._accesses.record(self._plugin, kind, value, granted, times=times)

    def used(self, kind: object, value: object, where: object = "") -> None:
        """Take the worker's note that it did something.

        Raises:
            Violation: An argument is no text.
        """
        self._noted(kind, value, where, granted=True)

    def denied(self, kind: object, value: object, where: object = "") -> None:
        """Take the worker's note that it was refused something.

        Raises:
            Violation: An argument is no text.
        """
        self._noted(kind, value, where, granted=False)

    def _noted(self, kind: object, value: object, where: object, *, granted: bool) -> None:
        if not (isinstance(kind, str) and isinstance(value, str) and isinstance(where, str)):
            from .protocol import Violation  # the protocol is imported where workers are

            raise Violation("sent a note of an access that is not made of texts")
        name, value = of_deno(kind, value)
        times = 0 if self._audited else 1
        self._accesses.record(self._plugin, name, value, granted, where=where, times=times)


def of_deno(permission: str, value: str) -> tuple[str, str]:
    """Return the kind and the value of an access, which Deno may have named; others stay."""
    if permission == "net":
        return "net:connect", _endpoint(value)
    return _DENO.get(permission, permission[:_LONGEST]), value


_DENO: Final = {
    "read": "read:files", "write": "write:files", "env": "env:read", "run": "process:spawn",
}  # fmt: skip


def _endpoint(value: str) -> str:
    """Return the host and port of what Deno reports, which may be a URL with secrets in it."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        return value
    authority = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    port = "" if authority.rpartition(":")[2].isdecimal() else _PORTS.get(scheme, "")
    return authority + port


_ANYWHERE: Final = ("0.0.0.0:", "[::]:")
_PORTS: Final = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


def printable(text: str) -> str:
    """Return a text with what is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _matters(kind: str, value: str) -> bool:
    """Return whether a refusal is worth a line: a variable that is not set would be none anyhow."""
    return kind != "env:read" or value in os.environ
