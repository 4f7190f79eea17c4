"""Late services in a reload: what tasks of a plugin provide, for the `load()` of its users.

A plugin may provide a service from a task, once it has connected for instance. The tasks of a new
generation start after the swap, and so they would provide too late for the new versions of plugins
that need the service in `load()`, which is before the swap. Therefore these tasks start ahead: what
they register is staged, and seen by the generations of the same reload only. The swap stays one
step, and if it is refused, the tasks end with the rest of the new generations.

Only those tasks start ahead whose services the old version of another plugin used in `load()`:
most tasks expect what is true after the swap, such as the state of the old generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio

from ..errors import LoadTimeout
from .generation import Generation
from .member import Member
from .operations import Operations

__all__ = ["LateServices"]


class LateServices:
    """The late services of one reload.

    Args:
        operations: The kernel's operations.
        members: The plugins that reload together, each after those that it needs.
    """

    def __init__(self, operations: Operations, members: Sequence[Member]) -> None:
        self._runtime: Final = operations.runtime
        self._services: Final = operations.transactions.services
        self._members: Final = {member.record.name: member for member in members}
        self._begun: Final[list[Member]] = []

    async def wait_for(self, user: Member) -> None:
        """Wait for the late services that the old version of a plugin used in `load()`.

        If the tasks of a provider end without having provided one, it is not waited for any more:
        the new version may do without it.

        Raises:
            LoadTimeout: A provider has not provided one within the kernel's time limit.
        """
        for service in tuple(user.old.uses):  # it is live, and may use more meanwhile
            if service not in user.old.late:
                await self._wait(service, user)

    async def _wait(self, service: str, user: Member) -> None:
        provider = self._members.get(user.old.uses[service][0])
        if provider is None or service not in provider.old.provided_late:
            return
        new = provider.new
        if new is None or new.closed:
            return
        if new.visible(self._runtime.registry, "service", service) is not None:
            return
        if not new.runs:
            if provider in self._begun:  # they use each other's services in a circle
                return
            self._begun.append(provider)
            # Its tasks find what those of the old version found.
            for other in tuple(provider.old.late):
                await self._wait(other, provider)
            new.run_ahead()
        await self._provided(service, user, new)

    async def _provided(self, service: str, user: Member, new: Generation) -> None:
        seconds = self._runtime.left(self._runtime.timeout)
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as group:

                async def ended() -> None:
                    await new.scope.tasks_ended()
                    group.cancel_scope.cancel()

                group.start_soon(ended)
                await self._services.provided(service, by=new)
                group.cancel_scope.cancel()
            return
        error = LoadTimeout(
            f"its tasks did not provide {service!r} within {seconds:g} s, which "
            f"{user.record.name} uses in load()",
            step="load",
            plugin=new.name,
            path=new.source,
            remedy="Provide it sooner, raise the kernel's timeout, or unload its users first.",
        )
        await self._runtime.bus.emit("plugin:timeout", new.name, error)
        raise error
