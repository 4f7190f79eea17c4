"""Services as arguments of handlers: found by name or by type, looked up for each request.

A service is looked up in the registry that the request pinned, so a handler never gets one of an
unloaded provider. Cost: by name, a dict lookup and a check of its type; by type alone, one search
through all services for each registry. Only a name is kept between requests.
"""

from __future__ import annotations

import inspect
from typing import Any

from msgspec.inspect import CustomType, UnionType, type_info

from veko import Context
from veko.errors import RouteError, ServiceError
from veko.extend import Registry
from veko_plugins.http import HTTPError

__all__ = ["Service", "is_there", "service_type"]


def service_type(annotation: Any) -> type | None:
    """Return the class of the services that an annotation asks for.

    Returns:
        The class; `None` if msgspec decodes the annotation, or it is not a class.
    """
    try:
        found = type_info(annotation)
    except TypeError:
        return None
    if isinstance(found, UnionType):
        found = next((one for one in found.types if isinstance(one, CustomType)), found)
    if isinstance(found, CustomType) and found.cls is not object:
        return found.cls
    return None


def is_there(context: Context, name: str) -> bool:
    """Return whether a service exists, and make the plugin depend on its provider."""
    try:
        context.use(name)
    except ServiceError:
        return False
    return True


class Service:
    """Looks up the service for one parameter.

    Args:
        context: The context of the plugin that has the handler.
        name: The parameter's name.
        wanted: The class of the service; `None` for any.
        default: The argument if the service does not exist; `EMPTY` means a 503.
        where: The handler, for messages.

    Raises:
        RouteError: Several services are of that class, and none has the parameter's name.
    """

    __slots__ = ("_any", "_default", "_kernel", "_name", "_seen", "_wanted", "_where")

    def __init__(
        self, context: Context, name: str, wanted: type | None, default: Any, where: str
    ) -> None:
        self._kernel = context.kernel
        self._name = name
        # A protocol that cannot be checked at run time is ignored: the name decides.
        self._any = wanted is None or (
            getattr(wanted, "_is_protocol", False)
            and not getattr(wanted, "_is_runtime_protocol", False)
        )
        self._wanted: Any = wanted
        self._default = default
        self._where = where
        self._seen: tuple[int, str | None] = (-1, None)
        registry = context.kernel.registry
        found = self._find(registry)
        if default is inspect.Parameter.empty and found is not None:
            is_there(context, found)

    def __call__(self, request: object) -> Any:
        """Return the service.

        Raises:
            HTTPError: 503 if the service does not exist.
            RouteError: Several services fit by now.
        """
        del request
        registry = self._kernel.registry
        entry = registry.get("service", self._name)
        if entry is not None and (self._any or isinstance(entry.value, self._wanted)):
            return entry.value
        if not self._any:
            version, name = self._seen
            if version != registry.version:
                name = self._find(registry)
                self._seen = registry.version, name
            entry = registry.get("service", name) if name is not None else None
            if entry is not None:
                return entry.value
        if self._default is not inspect.Parameter.empty:
            return self._default
        raise HTTPError(503, f"the service {self._name!r} is not available")

    def _fits(self, value: object) -> bool:
        return self._any or isinstance(value, self._wanted)

    def _find(self, registry: Registry) -> str | None:
        """Return the name of the service that fits."""
        entry = registry.get("service", self._name)
        if entry is not None and self._fits(entry.value):
            return self._name
        if self._any:
            return None
        names = [
            str(one.key)
            for one in registry.entries("service")
            if isinstance(one.value, self._wanted)
        ]
        if len(names) > 1:
            raise RouteError(
                f"{self._where} asks for {self._name!r} as {self._wanted.__qualname__}, and both "
                f"services {names[0]!r} and {names[1]!r} are of that class",
                remedy="Give the parameter the name of the service.",
            )
        return names[0] if names else None
