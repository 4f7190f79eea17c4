"""What the manager does for developers of plugins, with core plugins that are loaded on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from veko import PluginRecord
from veko.errors import NotFoundError, StateError
from veko.extend import check_text

from ..devtools import Host, InjectionPoint, PluginDebugger, injecting
from .lifecycle import Lifecycle
from .on_demand import service_on_demand
from .records import get_loaded

if TYPE_CHECKING:
    from .._lib.leaks import Leak
    from ..testing import TestResults

__all__ = ["Development"]


class _Debugged(Host, Protocol):
    """The manager, which has what `Development` does not."""

    def use(self, service: str) -> Any: ...

    def _check_started(self, name: str) -> None: ...


class Development(Lifecycle):
    """Tests the plugins of a manager, and looks into them."""

    async def test_plugin(
        self, name: str, tests: Mapping[str, Callable[[PluginRecord], object]] | None = None
    ) -> TestResults:
        """Test a loaded plugin: that it loaded and is active, its configuration and version.

        Args:
            name: The plugin.
            tests: More tests by name, `def` or `async def`. Each gets the plugin; it fails if it
                returns something false other than `None`, raises, or exceeds `timeout`.

        Raises:
            NotFoundError: There is no such plugin.
            OptionError: `tests` is no mapping from names to functions.
        """
        check_text("the name of a plugin", name)
        self._check_started(name)
        testing = await service_on_demand(self.kernel, "testing", self.options.core)
        results: TestResults = await testing.run(name, tests)
        return results

    def debug_plugin(self: _Debugged, name: str) -> PluginDebugger:
        """Return an object that looks into a loaded plugin and switches it, for a console.

        Args:
            name: The plugin.

        Raises:
            NotFoundError: It is not loaded.
        """
        self._check_started(name)
        get_loaded(self.kernel, name)

        async def find_leaks(name: str) -> list[Leak]:
            testing = await service_on_demand(self.kernel, "testing", self.options.core)
            leaks: list[Leak] = await testing.leaks(name)
            return leaks

        return PluginDebugger(self, name, find_leaks)

    async def inject_code(
        self: _Debugged, name: str, code: str, point: InjectionPoint = "after-load"
    ) -> PluginRecord:
        """Run code before or after the `load()` of a plugin, which is reloaded for it.

        The code is the body of an async function in the plugin's module, with the parameters `app`,
        `config`, `context` and `plugin`; `global NAME` lets it set the module's names. What it
        registers is the plugin's, and is removed by the next reload. Code at the other point stays.

        Args:
            name: The plugin.
            code: The code.
            point: `before-load` or `after-load`.

        Returns:
            The plugin.

        Raises:
            OptionError: There is no such point, or the code is not valid; nothing has changed.
            StateError: `dev_mode` is off, or the plugin runs in a process of its own.
            NotFoundError: The plugin is not loaded.
            VekoError: The code raised, or the plugin cannot be reloaded; the old version never
                stopped.
        """
        self._check_started(name)
        if not self.options.dev_mode:
            raise StateError(
                "code is injected in development only",
                plugin=name,
                remedy="Set the option dev_mode, or start `veko serve --dev`.",
            )
        record = get_loaded(self.kernel, name)
        around = injecting(record, code, point)
        from ..remote import RemotePlugin

        if isinstance(record.plugin, RemotePlugin):
            raise StateError(
                "it runs in a process of its own, where no code can be injected",
                plugin=name,
                remedy="Change its source: it reloads at once.",
            )
        reloaded: PluginRecord = await self.use("loading").reload_plugin(name, around=around)
        return reloaded

    def _check_started(self, name: str) -> None:
        if type(name) is not str:
            check_text("the name of a plugin", name)
        if self._state in ("created", "stopped"):
            raise NotFoundError(
                f"the manager is {self._state}, so no plugin {name!r} is loaded",
                plugin=name,
                remedy="Start it first: `async with manager`, or `await manager.start()`.",
            )
