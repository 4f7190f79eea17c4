"""The verbs of the plugin's context that cross the border, and those that cannot.

All others are the kernel's own. These stand in the context's own dictionary, so they come before
the kernel's, as what plugins attach comes after them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veko import Context, Event, VekoError
from veko.errors import ServiceError
from veko.extend import check_text

from ..protocol import is_plain
from .mirror import CROSSING, Ask, Mirror, Note
from .neighbours import Neighbours, described

if TYPE_CHECKING:
    from veko import Handle, PluginRecord

    from .neighbours import Neighbour

__all__ = ["Verbs", "shown"]

_LEVELS: Final = ("debug", "info", "success", "warning", "error")
_LOCAL: Final = frozenset({*CROSSING, "event", "required"})
_WHY: Final = {
    "add_kind": "kinds of registrations belong to the process that has the registry",
    "intercept": "it wraps the handlers of other plugins, which are in other processes",
    "intercept_step": "it wraps the life cycle, which another process runs",
    "probe": "its lines of code stand around handlers of other processes",
    "attach": "the contexts of other plugins are in other processes",
}


class Verbs:
    """What a context does across the border.

    Args:
        generation: The plugin's generation in the worker.
        ask: Calls a method of the host.
        note: Sends a note to the host.
        neighbours: The other plugins and services.
        mirror: Registers at the host.
        current: Returns the id of the host's call in which we are.
    """

    def __init__(
        self,
        generation: Any,
        ask: Ask,
        note: Note,
        neighbours: Neighbours,
        mirror: Mirror,
        current: Callable[[], int],
    ) -> None:
        self._generation = generation
        self._current = current
        context: Context = generation.context
        self._context = context
        self._ask = ask
        self._note = note
        self._neighbours = neighbours
        self._mirror = mirror
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._register = context.register
        self._declare = context.declare
        self._provide = context.provide

    def install(self) -> None:
        """Let the context have these verbs."""
        names = ("declare", "emit", "get_plugin", "list_plugins", "log", "provide", "register",
                 "use", "when")  # fmt: skip
        own = {name: getattr(self, name) for name in (*names, "update_config")}
        own |= {name: self._refusal(name, why) for name, why in _WHY.items()}
        vars(self._context).update(own)

    def _refusal(self, name: str, why: str) -> Callable[..., Any]:
        def refuse(*args: object, **named: object) -> Any:
            raise VekoError(
                f"context.{name} does not work in a process of its own: {why}",
                plugin=self._context.name,
                remedy='Let the plugin run in the host\'s process (isolation = "none").',
            )

        refuse.__name__ = refuse.__qualname__ = name
        return refuse

    def register(self, kind: str, key: Any, value: object, *, priority: float = 0) -> Handle:
        """Register an entry of a kind that crosses; see `Context.register`."""
        if kind not in _LOCAL:
            raise VekoError(
                f"an entry of the kind {kind!r} cannot be registered in a process of its own",
                plugin=self._context.name,
                remedy=f"These cross: {', '.join(CROSSING)}.",
            )
        handle = self._register(kind, key, value, priority=priority)
        return self._late(handle) if self._mirror.late else handle

    def provide(self, name: str, value: object) -> Handle:
        """Offer a service under a name that is not taken: data, or an object with functions."""
        described(value)  # what cannot cross says so here, not when `load()` has returned
        handle = self._provide(name, value)
        return self._late(handle) if self._mirror.late else handle

    def _late(self, handle: Handle) -> Handle:
        handles = self._generation.handles
        entry = next((one for one, held in reversed(handles.items()) if held is handle), None)
        return handle if entry is None else self._mirror.handle(entry, handle)

    def declare(self, event: Event[Any]) -> Handle:
        """Declare an event of the plugin's own; the host emits it without checking payloads."""
        if event.fails_closed:
            raise VekoError(
                f"the event {event.name!r} cannot fail closed: the host emits it, and does not "
                "know what is declared in another process",
                plugin=self._context.name,
                remedy="Leave out fails_closed, or declare it in a plugin of the host's process.",
            )
        return self._declare(event)

    async def emit(self, event: str, *args: Any) -> Any:
        """Emit the plugin's own event `plugin:<name>:<event>`, at the host."""
        return await self._ask("emit", event, list(args))

    def log(self, level: str, message: str, details: Any = None, **fields: Any) -> None:
        """Log at the host: to the plugin's logger, and as the event `log`."""
        if str(level) not in _LEVELS:
            raise VekoError(
                f"{level!r} is not a log level",
                plugin=self._context.name,
                remedy=f"Use one of {', '.join(_LEVELS)}.",
            )
        call = self._current()
        args = ("log", str(level), str(message), shown(details), shown(fields), call)
        if threading.get_ident() == self._thread:
            self._note(*args)
        else:
            self._loop.call_soon_threadsafe(self._note, *args)

    def _own(self, service: str | type[Any]) -> list[Any]:
        """Return the plugin's own services of a name or type; the worker's are not the plugin's."""
        services = [one for one in self._generation.entries if one.kind == "service"]
        if isinstance(service, str):
            return [one.value for one in services if one.key == service]
        return [one.value for one in services if isinstance(one.value, service)]

    def use(self, service: str | type[Any]) -> Any:
        """Return a service: the plugin's own as it is, another plugin's as data or functions."""
        own = self._own(service)
        if len(own) == 1:
            return own[0]
        return self._neighbours.use(self._named(service), self._context.name)

    async def when(self, service: str | type[Any]) -> Any:
        """Wait until a service is provided, and return it; see `use`."""
        own = self._own(service)
        if len(own) == 1:
            return own[0]
        return await self._neighbours.when(self._named(service))

    def _named(self, service: str | type[Any]) -> str:
        if isinstance(service, str):
            return service
        raise ServiceError(
            f"a service of type {getattr(service, '__qualname__', service)} cannot be found from a "
            "process of its own: types do not cross",
            plugin=self._context.name,
            remedy="Use it by its name.",
        )

    def get_plugin(self, name: str) -> Neighbour | PluginRecord | None:
        """Return a loaded plugin of the application, or `None`."""
        check_text("the name of a plugin", name)
        own = self._context.plugin
        if name == own.name:
            return own if own.loaded else None
        return self._neighbours.get(name)

    def list_plugins(self) -> list[Neighbour | PluginRecord]:
        """Return the loaded plugins of the application, in order of arrival."""
        own = self._context.plugin
        return [own if one.name == own.name else one for one in self._neighbours.all()]

    async def update_config(self, changes: Mapping[str, Any]) -> Any:
        """Merge changes into the plugin's configuration, at the host.

        Returns:
            The new configuration.

        Raises:
            ConfigError: It was refused; the old one stays.
        """
        await self._ask("update_config", dict(changes))
        return self._context.config


def shown(value: object) -> Any:
    """Return what a log record shows of a value, as it crosses the border."""
    if is_plain(value):
        return value
    try:
        return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
