"""Core plugins that are loaded when they are first needed, so that others do not pay for them."""

from __future__ import annotations

import asyncio
import weakref
from importlib import import_module
from typing import Any, Final

from veko import Kernel

__all__ = ["ON_DEMAND", "service_on_demand"]

ON_DEMAND: Final = {"admin": "Admin", "testing": "Testing"}
"""The class of each, by the name of its room, which is that of its service too."""
_locks: weakref.WeakKeyDictionary[Kernel, asyncio.Lock] = weakref.WeakKeyDictionary()


async def service_on_demand(
    kernel: Kernel,
    name: str,
    core: dict[str, Any],
    *arguments: object,
    config: dict[str, Any] | None = None,
) -> Any:
    """Return the service of a core plugin, which is loaded if it is not yet.

    Args:
        kernel: The kernel.
        name: One of `ON_DEMAND`.
        core: The option `core`; `None` under the name leaves it out.
        arguments: What its class is made with.
        config: Its configuration.

    Raises:
        ServiceError: It was left out.
    """
    async with _locks.setdefault(kernel, asyncio.Lock()):
        if kernel.registry.get("service", name) is None and core.get(name, ...) is not None:
            room = import_module(f"..{name}", __package__)
            plugin = getattr(room, ON_DEMAND[name])(*arguments)
            # Nobody switched it on, so its name stays free for a plugin of the application, which
            # has the section of that name too.
            vars(plugin)["name"] = f"veko-{name}"
            await kernel.load(plugin, None if kernel.get(name) is not None else config)
    return kernel.use(name)
