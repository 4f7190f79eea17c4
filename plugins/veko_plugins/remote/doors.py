"""The doors: all that a worker may ask of the host.

Frames of a worker are untrusted, so each argument is checked. What no honest worker sends ends the
connection (`Violation`); what a plugin may get wrong is an error that the plugin gets.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from veko import Context, Handle
from veko.errors import StateError, VekoError

from .arguments import crossing, plain
from .database_doors import check_service
from .output import Throttle
from .protocol import Violation
from .records import log_record
from .registrations import Registrations
from .services import describe, exports_of, member_of
from .stored import changes_of, write

if TYPE_CHECKING:
    from .accesses import Watch
    from .life import Life

__all__ = ["Doors"]

_LEVELS: Final = frozenset(("debug", "info", "success", "warning", "error"))
_RECORDS: Final = 1_000
"""Records of one plugin that are logged in a second."""
_LONGEST: Final = 16_000


class Doors:
    """What one worker may ask of the host.

    Args:
        life: The generation that the worker runs.
        watch: Counts what it accesses; `None` if it may do everything.
        written: Is called with what the plugin has stored, and with the keys that are gone.
    """

    def __init__(
        self,
        life: Life,
        watch: Watch | None,
        written: Callable[[Life, dict[str, Any], list[str]], None],
    ) -> None:
        self._life = life
        self._watch = watch
        self._written = written
        self._registrations = Registrations(life)
        self._throttle = Throttle(self._dropped, most=_RECORDS)
        registering = {name: getattr(self._registrations, name) for name in Registrations.VERBS}
        self.notes: dict[str, Callable[..., Any]] = {
            **{name: functools.partial(_begun, verb) for name, verb in registering.items()},
            "remove": self._registrations.remove,
            "log": self._log,
            "record": self._record,
            "failed": self._failed,
            "denied": self._denied,
            "used": self._used,
            "storage": self._note_storage,
        }
        self.methods: dict[str, Callable[..., Any]] = {
            **{name: functools.partial(_awaited, verb) for name, verb in registering.items()},
            "remove": self._registrations.remove,
            "remove_hook": self._registrations.remove_hook,
            "storage": self._storage,
            "emit": self._emit,
            "use": self._use,
            "when": self._when,
            "service_call": self._service_call,
            "plugin_call": self._plugin_call,
            "update_config": self._update_config,
            "run_command": self._run_command,
        }

    @property
    def _context(self) -> Context:
        context = self._life.context
        if context is None:
            raise StateError(
                "this works in load() and afterwards only",
                plugin=self._life.name,
                remedy="Do it in load().",
            )
        return context

    # -- reports

    def _log(
        self,
        level: Any = "info",
        message: Any = "",
        details: Any = None,
        fields: Any = None,
        call: Any = 0,
        *_: Any,
    ) -> None:
        if not self._throttle.passes():
            return
        text = str(message)[:_LONGEST]
        given = fields if isinstance(fields, Mapping) else {}
        named = {k: v for k, v in given.items() if k.isidentifier() and k not in _OWN}
        context = self._life.context
        if context is not None:
            known: Any = level if level in _LEVELS else "info"
            trace = self._life.worker.connection.context_of(call)
            trace.run(functools.partial(context.log, known, text, details, **named))

    def _record(self, *given: Any) -> None:
        """Log a record of the standard library's logging."""
        if given and self._throttle.passes():
            # In the context of our call in which it was made, and so with the ids of its trace.
            context = self._life.worker.connection.context_of(given[-1])
            context.run(log_record, self._life.name, given)

    def _dropped(self, count: int) -> None:
        if self._life.context is not None:
            text = f"{count} records were not logged: there were more than {_RECORDS} in a second"
            self._life.context.log("warning", text)

    async def _failed(self, error: Any = None, where: Any = "") -> None:
        """Report a failure of what nobody waits for."""
        if not isinstance(error, BaseException):
            raise Violation("reported a failure that is no error")
        context = self._context
        kernel = context.kernel
        await kernel.bus.report(
            error, owner=getattr(context, "_generation", None), handler=str(where)[:200]
        )

    def _denied(self, kind: Any = "", value: Any = "", where: Any = "") -> None:
        if self._watch is not None:
            self._watch.denied(kind, value, where)

    def _used(self, kind: Any = "", value: Any = "", where: Any = "") -> None:
        if self._watch is not None:
            self._watch.used(kind, value, where)

    # -- storage

    def _note_storage(self, *given: Any) -> None:
        self._write(given)

    async def _storage(self, *given: Any) -> None:
        for handle in self._write(given):
            await handle

    def _write(self, given: tuple[Any, ...]) -> list[Awaitable[Any]]:
        changes = changes_of(given)
        handles, gone = write(self._context, changes)
        self._written(self._life, changes[0], gone)
        return handles

    # -- other plugins

    async def _emit(self, event: Any, args: Any = ()) -> Any:
        if not isinstance(event, str) or not event or not isinstance(args, list | tuple):
            raise Violation("emitted something else than an event's name and a list")
        answer = await self._context.emit(event, *args)
        return await crossing(answer, f"the event {event}")

    async def _use(self, name: Any) -> Any:
        return self._described(_text(name, "the name of a service"))

    async def _when(self, name: Any) -> Any:
        name = _text(name, "the name of a service")
        await self._context.when(name)
        return self._described(name)

    def _described(self, name: str) -> Any:
        return describe(self._service(name))

    def _service(self, name: str, function: str = "") -> Any:
        """Return a service of another plugin; the host's own are not for workers."""
        context, grants = self._context, self._life.grants
        if grants is not None:
            check_service(context.kernel, grants, name, function)
        value = context.use(name)
        entry = context.kernel.registry.get("service", name)
        owner = getattr(entry, "owner", None)
        if entry is not None and getattr(getattr(owner, "plugin", None), "core", True):
            raise VekoError(
                f"the service {name!r} is the host's own and cannot be used from another process",
                plugin=self._life.name,
                remedy='Run the plugin in the host\'s process (isolation = "none").',
            )
        return value

    async def _service_call(self, name: Any, function: Any, args: Any, named: Any = None) -> Any:
        name, function = _text(name, "the name of a service"), str(function or "")
        value = self._service(name, function)
        what = f"the service {name}"
        if function in ("", "__call__"):
            found = value
        else:
            members = value if isinstance(value, Mapping) else None
            if members is None:
                first = function.partition(".")[0]
                known = not first.startswith("_") and hasattr(value, first)
                members = {first: getattr(value, first)} if known else {}
            found = member_of(members, function, what)
        return await _called(found, args, named, f"{what}.{function}")

    async def _plugin_call(self, plugin: Any, path: Any, args: Any, named: Any = None) -> Any:
        plugin, path = _text(plugin, "the name of a plugin"), _text(path, "the name of a function")
        record = self._context.get_plugin(plugin)
        if record is None:
            raise StateError(f"the plugin {plugin!r} is not loaded", plugin=self._life.name)
        what = f"the plugin {plugin}"
        found = member_of(exports_of(record), path, what)
        return await _called(found, args, named, f"{what}.{path}")

    async def _update_config(self, changes: Any) -> Any:
        if not isinstance(changes, dict):
            raise VekoError("update_config takes an object", plugin=self._life.name)
        config = plain(await self._context.update_config(changes))
        self._life.note("config", config)
        return config

    async def _run_command(self, name: Any, args: Any = (), named: Any = None) -> Any:
        name = _text(name, "the name of a command")
        if self._life.grants is not None:
            raise VekoError(
                "a confined plugin cannot run commands of others",
                plugin=self._life.name,
                remedy="Let the other plugin provide a service.",
            )
        commands = self._context.kernel.use("commands")
        return await _called(functools.partial(commands.run, name), args, named, f"command {name}")


_OWN: Final = frozenset(("level", "message", "details"))


def _begun(verb: Callable[..., Any], *args: Any) -> None:
    """Register; a refusal is reported against the plugin."""
    verb(*args)


async def _awaited(verb: Callable[..., Handle], *args: Any) -> None:
    """Register, and answer when it is live."""
    await verb(*args)


async def _called(found: Any, args: Any, named: Any, what: str) -> Any:
    if not isinstance(args, list | tuple) or not isinstance(named or {}, dict):
        raise Violation("called a function with something else than a list and an object")
    if not callable(found):
        if args or named:
            raise VekoError(f"{what} is no function")
        return await crossing(found, what)
    answer = found(*args, **(named or {}))
    if inspect.isawaitable(answer):
        answer = await answer
    return await crossing(answer, what)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise Violation(f"gave something else than a text for {what}")
    return value
