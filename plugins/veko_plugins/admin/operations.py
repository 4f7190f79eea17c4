"""The service `admin`: the verbs of management, in Python.

HTTP, the Unix socket and agents all call these and nothing else. They know no roles: what a
caller may do is decided before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .documents import Role, Status
from .feed import Feed
from .verbs import Verbs

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Operations"]


class Operations(Verbs):
    """What can be looked at and done; `await manager.administration()` returns it.

    Attributes:
        feed: What happens, for those who look.
    """

    def __init__(self, context: Context, *args: Any, **kwargs: Any) -> None:
        super().__init__(context, *args, **kwargs)
        self.feed = Feed(context, self)

    async def finish(self) -> None:
        """End the feed, and wait for changes that are being done."""
        await self.feed.close()
        await super().finish()

    def status(self, role: Role = "operate", workers: tuple[int, ...] = ()) -> Status:
        """Return the state of the application, with the processes that serve it."""
        return super().status(role, workers or self._peers.pids())
