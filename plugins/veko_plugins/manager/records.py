"""Looking up the loaded plugins of the application among the records of the kernel."""

from __future__ import annotations

from veko import Kernel, PluginRecord
from veko.errors import NotFoundError

__all__ = ["find_loaded", "get_loaded"]


def find_loaded(kernel: Kernel, name: str) -> PluginRecord | None:
    """Return a loaded plugin of the application, or `None`; core plugins do not count."""
    record = kernel.get(name)
    return record if record is not None and record.loaded and not record.core else None


def get_loaded(kernel: Kernel, name: str) -> PluginRecord:
    """Return a loaded plugin of the application.

    Raises:
        NotFoundError: It is not loaded; the message lists those that are.
    """
    record = find_loaded(kernel, name)
    if record is None:
        loaded = [one.name for one in kernel.records() if one.loaded and not one.core]
        raise NotFoundError(
            f"no plugin named {name!r} is loaded",
            plugin=name,
            remedy=f"Loaded: {', '.join(loaded) or 'none'}.",
        )
    return record
