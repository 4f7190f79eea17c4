"""`read:database` and `write:database`: at the context's doors to other plugins' data.

A plugin's own storage namespace needs no permission. A service of a plugin whose type is
`database` does, and so does the core plugin `storage`, which has everybody's namespace. In a worker
that is enforced: the host calls the service. In the host's process it is advice for honest plugins:
Python code there can reach every object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from veko import Context, Kernel

from .permissions import AccessError, Grants

__all__ = ["check_service", "guard"]

_READS = (
    "all", "count", "exists", "fetch", "find", "first", "get", "has", "items", "keys", "list",
    "one", "read", "select", "values",
)  # fmt: skip


def check_service(kernel: Kernel, grants: Grants, service: str, function: str = "") -> None:
    """Refuse a service with data that the plugin has no permission for.

    Args:
        kernel: The kernel.
        grants: What the plugin may do.
        service: The service's name.
        function: The function of it that is called; what is not known to read only, writes. If it
            is empty, one of the two permissions is enough.

    Raises:
        AccessError: It is not granted.
    """
    entry = kernel.registry.get("service", service)
    record = getattr(getattr(entry, "owner", None), "record", None)
    if record is None or record.name == grants.plugin or record.manifest.type != "database":
        return
    kinds = ["write:database"]
    if not function or function.lower().lstrip("_").startswith(_READS):
        kinds.insert(0, "read:database")
    if any(grants.allows(kind, name) for kind in kinds for name in (service, record.name)):
        return
    raise AccessError(
        f"{kinds[0]}:{service} is not granted",
        plugin=grants.plugin,
        remedy=f'Add "{kinds[0]}:{service}" to the permissions of the plugin if it needs it.',
    )


def guard(context: Context, grants: Grants) -> None:
    """Check what a plugin in this process uses through its context."""
    use, when = context.use, context.when

    def check(service: Any) -> None:
        if isinstance(service, str):
            check_service(context.kernel, grants, service)

    def guarded_use(service: Any) -> Any:
        check(service)
        return use(service)

    async def guarded_when(service: Any) -> Any:
        check(service)
        found = await when(service)
        check(service)  # it may have come meanwhile
        return found

    doors: dict[str, Callable[[Any], Any] | Callable[[Any], Awaitable[Any]]]
    doors = {"use": guarded_use, "when": guarded_when}
    vars(context).update(doors)
