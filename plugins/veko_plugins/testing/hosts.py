"""A kernel or a manager for one test: watched for failures, and for what is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from veko import Kernel, NotFoundError, PluginRecord

from .failures import PluginFailures
from .leftovers import Leftovers

__all__ = ["LoadPlugin", "hosted", "loading"]


class Manager(Protocol):
    """What is needed of a manager here."""

    kernel: Kernel

    async def load_plugin(
        self, plugin: Any, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Load a plugin."""
        ...


@asynccontextmanager
async def hosted(
    host: AbstractAsyncContextManager[Any], failures: PluginFailures | None, *, leftovers: bool
) -> AsyncIterator[Any]:
    """Run a kernel or a manager, and check what it leaves behind.

    Args:
        host: The kernel or manager.
        failures: Takes note of failures of plugins.
        leftovers: Whether to check what is left behind.

    Raises:
        AssertionError: Something is left behind.
    """
    before = Leftovers()
    async with host as running:
        if failures is not None:
            failures.watch(getattr(running, "kernel", running))
        yield running
    left = await before.settled() if leftovers else []
    if left:
        raise AssertionError("the test left behind:\n" + "\n".join(left))


class LoadPlugin:
    """Loads plugins for one test: `await load_plugin(form, config)`.

    Args:
        host: The manager, or the kernel.
    """

    def __init__(self, host: Manager | Kernel) -> None:
        self._host = host
        self._kernel = host if isinstance(host, Kernel) else host.kernel
        self._loaded: list[tuple[str, Leftovers, str]] = []

    async def __call__(self, plugin: Any, config: Mapping[str, Any] | None = None) -> PluginRecord:
        """Load a plugin.

        Args:
            plugin: Its path, its name, or the plugin in any form.
            config: Its configuration.

        Raises:
            VekoError: It cannot be loaded.
        """
        before = Leftovers(self._kernel)
        if isinstance(self._host, Kernel):
            record = await self._host.load(plugin, config)
        else:
            record = await self._host.load_plugin(plugin, config)
        self._loaded.append((record.name, before, getattr(record.module, "__name__", "")))
        return record

    async def unload_all(self, *, check: bool) -> list[str]:
        """Unload what is still loaded, in reverse order; return what plugins left behind.

        Args:
            check: Whether to look for that.
        """
        left: list[str] = []
        while self._loaded:
            name, before, module = self._loaded.pop()
            record = self._kernel.get(name)
            if record is not None and record.loaded:
                try:
                    await self._kernel.unload(name, cascade=True)
                except NotFoundError:  # it has unloaded itself meanwhile
                    continue
            if check:
                found = await before.settled()
                left += [f"{name}: {line}" for line in found if _is_of_plugin(line, module)]
        return left


def _is_of_plugin(line: str, module: str) -> bool:
    """Return whether a leftover is the plugin's: what the test itself has is its own affair."""
    return not line.startswith(("registration: ", "task: ", "timer: ")) or (
        bool(module) and module in line
    )


@asynccontextmanager
async def loading(host: Manager | Kernel, *, leftovers: bool) -> AsyncIterator[LoadPlugin]:
    """Give `load_plugin`, and unload afterwards what it has loaded.

    Raises:
        AssertionError: A plugin left something behind.
    """
    load_plugin = LoadPlugin(host)
    try:
        yield load_plugin
    finally:
        left = await load_plugin.unload_all(check=leftovers)
    if left:
        raise AssertionError("plugins left behind:\n" + "\n".join(left))
