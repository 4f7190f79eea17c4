"""What the manager does for those who operate an application: the service `admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veko.errors import ServiceError

from .development import Development
from .on_demand import service_on_demand

if TYPE_CHECKING:
    from ..admin import Operations

__all__ = ["Administration"]


class Administration(Development):
    """Gives out the verbs of management."""

    async def administration(self) -> Operations:
        """Return the verbs of management: what the API, the command line and the dashboard do.

        They are loaded when they are first asked for, or at the start with `enable_api`.

        Raises:
            ServiceError: The manager is not running, or the core plugin `admin` was left out.
        """
        if self._state in ("created", "stopped", "starting"):
            raise ServiceError(
                f"the manager is {self._state}, so there is nothing to manage",
                remedy="Start it first: `async with manager`, or `await manager.start()`.",
            )
        found: Operations = await service_on_demand(
            self.kernel,
            "admin",
            self.options.core,
            self.options.directory,
            config=self.options.sections.of("admin") or None,
        )
        return found
