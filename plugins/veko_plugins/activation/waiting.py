"""The plugin that stands for one that waits: the same registrations, whose use loads the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio

from veko import Context, HookTimeout, Subscription

from .._lib.first_use import FirstUse, Waiting
from .index import Command, Hook, Index, Route

__all__ = ["WaitingPlugin"]

_SOCKET: Final = "WEBSOCKET"


class WaitingPlugin(Waiting):
    """A plugin whose module has not run.

    Args:
        index: What is known of it.
        source: Its file or folder.
        wake: Loads the plugin of that name; afterwards this one is replaced.
        live: Holds it while it is loaded.
    """

    def __init__(
        self,
        index: Index,
        source: Path | None,
        wake: Callable[[str], Awaitable[None]],
        live: set[WaitingPlugin],
    ) -> None:
        self.manifest = index.manifest
        self.name, self.version = index.manifest.name, index.manifest.version
        self.source = source
        self.module = None
        self._registered = index.registered
        self._wake = wake
        self._live = live
        self.serves = any(isinstance(one, Route) for one in index.registered)
        self.hears = any(isinstance(one, Hook) and one.http for one in index.registered)

    @property
    def exports(self) -> object:
        """Nothing: the module has not run."""
        return {}

    def load(self, context: Context) -> None:
        """Register what the plugin registered when it last loaded."""
        more: Any = context
        counts: dict[str, int] = {}
        for one in self._registered:
            match one:
                case Hook():
                    number = counts[one.event] = counts.get(one.event, -1) + 1
                    handler = self._hook(context, one.event, number)
                    # No time limit: a load takes as long as it may take at the start.
                    context.hook(one.event, handler, one.priority, None, one.observe)
                case Route(method=method) if method == _SOCKET:
                    more.add_websocket(one.path, self._refuse(context))
                case Route():
                    more.add_route(one.method, one.path, self._refuse(context))
                case Command():
                    more.add_command(one.name, FirstUse(self.name, self._wake), one.description)
        self._live.add(self)

    def unload(self) -> None:
        """Do nothing of the plugin's own: it has not run."""
        self._live.discard(self)

    def _hook(self, context: Context, event: str, number: int) -> Callable[..., Any]:
        async def first_use(*args: Any) -> Any:
            await self._wake(self.name)
            record = context.kernel.get(self.name)
            if record is None or not record.active or record.current is None:
                return None
            hooks: list[Subscription] = [
                entry.value
                for entry in record.current.entries
                if entry.kind == "hook" and entry.key == event
            ]
            return await _call(hooks[number], event, args) if number < len(hooks) else None

        first_use.__qualname__ = f"the first use of {self.name}"
        return first_use

    def _refuse(self, context: Context) -> Callable[..., Any]:
        """Return the handler of a route. Requests that get here come after a load that failed."""

        async def waiting(request: Any) -> Any:
            http = context.kernel.use("http")
            detail = "The plugin could not be loaded."
            raise http.refusal(503, detail, {"retry-after": "1"}, counts=False)

        return waiting


async def _call(hook: Subscription, event: str, args: tuple[Any, ...]) -> Any:
    """Call a plugin's own hook in place of the one that stood for it, within its time limit."""
    given = args if hook.arity is None else args[: hook.arity]
    if not hook.is_async:
        return hook.handler(*given)
    with anyio.move_on_after(hook.timeout):
        return await hook.handler(*given)
    raise HookTimeout(
        f"{hook.label} did not end within {hook.timeout} s and was cancelled",
        event=event,
        remedy="Move long work to a task (context.spawn), or give it a higher timeout.",
    )
