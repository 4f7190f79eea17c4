"""Looking up the loaded plugins of the application among the records of the kernel."""

from __future__ import annotations

from veko import Kernel, PluginRecord, State
from veko.errors import NotFoundError

__all__ = ["find_known", "get_loaded", "is_known"]


def is_known(record: PluginRecord) -> bool:
    """Return whether a record is that of a plugin of the application that has been loaded.

    It is active, inactive, or has failed since: one with `reload = "restart"` whose new and old
    version both did not load is still shown, with its error.
    """
    failed = record.state is State.FAILED and record.loaded_at is not None
    return not record.core and (record.loaded or failed)


def find_known(kernel: Kernel, name: str) -> PluginRecord | None:
    """Return a plugin of the application that has been loaded, or `None`; see `is_known`."""
    record = kernel.get(name)
    return record if record is not None and is_known(record) else None


def get_loaded(kernel: Kernel, name: str) -> PluginRecord:
    """Return a loaded plugin of the application.

    Raises:
        NotFoundError: It is not loaded; the message lists those that are.
    """
    record = find_known(kernel, name)
    if record is not None and not record.loaded:
        raise NotFoundError(
            f"the plugin {name!r} has failed and is not loaded: {record.error}",
            plugin=name,
            remedy="Fix it and load it again.",
        )
    if record is None:
        loaded = [one.name for one in kernel.records() if one.loaded and not one.core]
        raise NotFoundError(
            f"no plugin named {name!r} is loaded",
            plugin=name,
            remedy=f"Loaded: {', '.join(loaded) or 'none'}.",
        )
    return record
