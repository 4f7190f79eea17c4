"""Services: finding what plugins provide, by name or by type.

By name it costs a dict lookup or two, by type a look at each service. What a plugin itself stages
comes before what is live, so inside `load()` it sees its own registrations.
"""

from __future__ import annotations

import difflib
import weakref
from typing import Any, TypeVar, cast, overload

import anyio

from .._bus.registry import Entry
from ..errors import ServiceError
from .generation import Generation
from .runtime import Runtime

__all__ = ["Services", "why_missing"]

_T = TypeVar("_T")


class Services:
    """The services of a kernel.

    Attributes:
        awaited: Whether a task waits for a service.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._change = anyio.Event()
        self.awaited = False

    def _find_by_name(self, name: str, by: Generation | None) -> Entry | None:
        registry = self._runtime.registry
        if by is None:
            return registry.get("service", name)
        return by.visible(registry, "service", name)

    @overload
    def use(self, service: str, *, by: Generation | None = None) -> Any: ...
    @overload
    def use(self, service: type[_T], *, by: Generation | None = None) -> _T: ...
    def use(self, service: str | type[Any], *, by: Generation | None = None) -> Any:
        """Return a service.

        Args:
            service: The service's name, or the type of the only service that is an instance of it.
            by: The generation that uses it, which depends on the provider from then on.

        Raises:
            ServiceError: It is not provided, or several are of that type; the message says why.
        """
        entry = self._find_service(service, by)
        if entry is None:
            raise self._missing(service, by)
        owner = entry.owner
        if by is not None and isinstance(owner, Generation) and owner.name != by.name:
            name = str(entry.key)
            if name not in by.uses and not by.open:
                by.late.add(name)
            by.uses[name] = owner.name, weakref.ref(owner)
            if owner.name not in by.record.needed:
                self._runtime.note_need(by.record, owner.name)
        return entry.value

    @overload
    async def when(self, service: str, *, by: Generation | None = None) -> Any: ...
    @overload
    async def when(self, service: type[_T], *, by: Generation | None = None) -> _T: ...
    async def when(self, service: str | type[Any], *, by: Generation | None = None) -> Any:
        """Wait until a service is provided, and return it.

        Raises:
            ServiceError: Several services are of that type.
        """
        loading = by if by is not None and by.open else None
        if loading is not None:
            loading.awaited = str(service)
        await self.provided(service, by)
        if loading is not None:
            loading.awaited = None
        return self.use(service, by=by)

    async def provided(self, service: str | type[Any], by: Generation | None) -> None:
        """Wait until a service is provided, as far as a generation sees, without using it.

        Raises:
            ServiceError: Several services are of that type.
        """
        while self._find_service(service, by) is None:
            self.awaited = True
            await self._change.wait()

    def _find_service(self, service: str | type[Any], by: Generation | None) -> Entry | None:
        if isinstance(service, str):
            return self._find_by_name(service, by)
        if not isinstance(cast(object, service), type):
            raise ServiceError(
                f"a service is named or of a type, not {service!r}",
                plugin=by.name if by is not None else None,
                remedy="Pass the service's name as a string, or its type.",
            )
        names = dict.fromkeys(e.key for e in by.staged_entries("service")) if by else {}
        names |= dict.fromkeys(self._runtime.registry.keys("service"))
        visible = [self._find_by_name(str(name), by) for name in names]
        found = [e for e in visible if e is not None and isinstance(e.value, service)]
        if len(found) > 1:
            several = ", ".join(sorted(str(entry.key) for entry in found))
            raise ServiceError(
                f"several services are of type {service.__qualname__}: {several}",
                plugin=by.name if by is not None else None,
                remedy="Use one of them by its name.",
            )
        return found[0] if found else None

    def _missing(self, service: str | type[Any], by: Generation | None) -> ServiceError:
        """Return the error that says why a service is not there."""
        plugin = by.name if by is not None else None
        for record in (r for r in self._runtime.records() if not r.active):
            for entry in record.current.entries if record.current else ():
                if entry.kind == "service" and _is_wanted(entry, service):
                    return ServiceError(
                        f"service {entry.key!r} belongs to {record.name}, which is {record.state}",
                        plugin=plugin,
                        remedy=f"Switch {record.name} on.",
                    )
        if isinstance(service, str) and service in self._runtime.absent:
            return ServiceError(self._runtime.absent[service], plugin=plugin)
        known = sorted(str(key) for key in self._runtime.registry.keys("service"))
        return ServiceError(
            f"there is no service {service!r}"
            if isinstance(service, str)
            else f"no service is of type {service.__qualname__}",
            plugin=plugin,
            remedy=f"There is: {', '.join(known) or 'none'}. Name the plugin that provides it in "
            "`dependencies`, or wait for it with `when`.",
        )

    def changed(self) -> None:
        """Wake the tasks that wait for a service: the registry, or what is staged, has changed."""
        self.awaited = False
        change, self._change = self._change, anyio.Event()
        change.set()


def _is_wanted(entry: Entry, service: str | type[Any]) -> bool:
    if isinstance(service, str):
        return entry.key == service
    return isinstance(entry.value, service)


def why_missing(context: Any, name: str) -> str:
    """Return why a context has no attribute of that name, and what to do."""
    kernel = context.kernel
    if name in kernel.absent:
        why: str = kernel.absent[name]
        return why
    attached = [str(entry.key) for entry in kernel.registry.entries("attach")]
    known = {one for one in (*dir(type(context)), *attached) if not one.startswith("_")}
    near = difflib.get_close_matches(name, sorted(known - {name}), n=1)
    if near:
        return f"a context has no attribute {name!r}. Did you mean {near[0]!r}?"
    return (
        f"a context has no attribute {name!r}, and no plugin attaches it. Load the plugin that "
        "does first: name it in `dependencies`."
    )
