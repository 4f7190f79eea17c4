"""Services: finding what plugins provide, by name or by type.

By name it costs a dict lookup or two, by type a look at each service. What a plugin itself stages
comes before what is live, so inside `load()` it sees its own registrations.
"""

from __future__ import annotations

import weakref
from typing import Any

import anyio

from .._bus.registry import Entry
from ..errors import ServiceError
from .generation import Generation
from .runtime import Runtime

__all__ = ["Services"]


class Services:
    """The services of a kernel."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._change = anyio.Event()

    def find(self, kind: str, key: str, by: Generation | None = None) -> Entry | None:
        """Return an entry: what a plugin itself stages comes before what is live."""
        entry = by.staged(kind, key) if by is not None else None
        if entry is None:
            entry = self._runtime.registry.get(kind, key)
            if entry is not None and by is not None and by.replaces(entry.owner):
                return None
        return entry

    def use(self, name: str, *, by: Generation | None = None) -> Any:
        """Return a service.

        Args:
            name: The service's name.
            by: Who asks; it depends on the provider from then on.

        Raises:
            ServiceError: It is not there; the message says why.
        """
        entry = self.find("service", name, by)
        if entry is None:
            plugin = by.name if by is not None else None
            for record in (r for r in self._runtime.records() if not r.active):
                for other in record.current.entries if record.current else ():
                    if (other.kind, other.key) == ("service", name):
                        raise ServiceError(
                            f"service {name!r} belongs to {record.name}, which is {record.state}",
                            plugin=plugin,
                            remedy=f"Switch {record.name} on.",
                        )
            known = sorted(str(key) for key in self._runtime.registry.keys("service"))
            raise ServiceError(
                f"there is no service {name!r}",
                plugin=plugin,
                remedy=f"There is: {', '.join(known) or 'none'}. Name the plugin that provides it "
                "in `dependencies`, or wait for it with `when`.",
            )
        owner = entry.owner
        if by is not None and isinstance(owner, Generation) and owner.name != by.name:
            if name not in by.uses and not by.open:
                by.late.add(name)
            by.uses[name] = owner.name, weakref.ref(owner)
        return entry.value

    async def when(self, name: str, *, by: Generation | None = None) -> Any:
        """Wait until a service is there, and return it."""
        while self.find("service", name, by) is None:
            await self._change.wait()
        return self.use(name, by=by)

    def changed(self) -> None:
        """Wake those who wait: the registry has moved."""
        change, self._change = self._change, anyio.Event()
        change.set()
