"""What the manager does for developers of plugins, with core plugins that are loaded on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from veko import PluginRecord
from veko.errors import NotFoundError
from veko.extend import check_text

from .lifecycle import Lifecycle
from .on_demand import service_on_demand

if TYPE_CHECKING:
    from ..testing import TestResults

__all__ = ["Development"]


class Development(Lifecycle):
    """Tests the plugins of a manager."""

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

    def _check_started(self, name: str) -> None:
        if type(name) is not str:
            check_text("the name of a plugin", name)
        if self._state in ("created", "stopped"):
            raise NotFoundError(
                f"the manager is {self._state}, so no plugin {name!r} is loaded",
                plugin=name,
                remedy="Start it first: `async with manager`, or `await manager.start()`.",
            )
