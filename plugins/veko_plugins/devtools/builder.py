"""The builder: a plugin step by step. Each step is checked where it is called."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Concatenate, Final, Self, TypeVar, overload

from veko import Context, Event, ManifestError, Plugin, RouteError, VekoError
from veko.errors import Fault
from veko.extend import check_seconds, check_text

from .._lib.manifests import FIELDS, checked_plugin, findings, manifest_error
from .._lib.plugin_names import nearest_name
from .._lib.route_paths import METHODS, parse_path
from .._lib.versions import Requirement, did_you_mean

__all__ = ["PluginBuilder", "create_plugin_builder"]

_T = TypeVar("_T")
_SOCKET: Final = "WebSocket"


def create_plugin_builder() -> PluginBuilder:
    """Return a builder: `.name(…).version(…).route(…).hook(…).build()`."""
    return PluginBuilder()


class PluginBuilder:
    """Builds a plugin step by step; each method returns the builder.

    A wrong argument raises in the step that gets it. `build` reports everything that is missing, or
    does not fit together, at once. The builder can be used further; what it has built stays.
    """

    def __init__(self) -> None:
        self._manifest: dict[str, Any] = {"version": "1.0.0"}
        self._verbs: list[Callable[[Any], object]] = []
        self._taken: list[str] = []
        self._steps: dict[str, Callable[..., Any]] = {}

    # -- the manifest

    def name(self, name: str) -> Self:
        """Set the plugin's name: `[a-z0-9][a-z0-9._-]*`.

        Raises:
            ManifestError: It is not valid; the message proposes the nearest that is.
        """
        try:
            return self._set("name", name)
        except ManifestError as error:
            near = nearest_name(str(name))
            if near:
                error.remedy = f"Did you mean {near!r}?"
            raise

    def version(self, version: str) -> Self:
        """Set its version, of PEP 440 or SemVer; the default is `1.0.0`.

        Raises:
            ManifestError: It is not valid.
        """
        return self._set("version", version)

    def description(self, description: str) -> Self:
        """Set its description."""
        return self._set("description", description)

    def author(self, author: str) -> Self:
        """Set its author."""
        return self._set("author", author)

    def depends(self, *dependencies: str | Iterable[str]) -> Self:
        """Add plugins that it needs: names with or without a range, or lists of them.

        Raises:
            ManifestError: One is not a requirement.
        """
        needs = list(self._manifest.get("dependencies", ()))
        for one in dependencies:
            needs += [one] if isinstance(one, str) or not isinstance(one, Iterable) else one
        return self._set("dependencies", needs)

    def config(self, config: Mapping[str, Any]) -> Self:
        """Set its default configuration.

        Raises:
            ManifestError: It is not a mapping with names as keys.
        """
        return self._set("default_config", config)

    def config_schema(self, schema: type[Any] | Mapping[str, Any]) -> Self:
        """Set what its configuration is checked against: a type, or a JSON Schema.

        Raises:
            ManifestError: It is neither.
        """
        return self._set("config_schema", schema)

    def required(self, required: bool = True) -> Self:
        """Let the application neither start nor serve without it."""
        return self._set("required", required)

    def manifest(self, **fields: Any) -> Self:
        """Set any other fields of `veko.Manifest`: `.manifest(priority=20, license="MIT")`.

        Raises:
            ManifestError: A field does not exist, or its value is not valid; all are listed.
        """
        return self._set_all(fields)

    # -- what it registers

    def route(
        self,
        method: str,
        path: str,
        *handlers: Callable[..., Any],
        sync_to_thread: bool = True,
    ) -> Self:
        """Add a route: middlewares, then the handler; see `context.add_route`.

        Raises:
            RouteError: The method, the path or a handler is not valid.
        """
        check_text("the method of a route", method)
        if method.upper() not in METHODS:
            raise RouteError(
                f"{method!r} is not an HTTP method",
                remedy=did_you_mean(method.upper(), METHODS)
                or f"Use one of {', '.join(sorted(METHODS))}, or websocket().",
            )
        self._check_route(method.upper(), path, handlers)
        self._verbs.append(
            lambda context: context.add_route(
                method, path, *handlers, sync_to_thread=sync_to_thread
            )
        )
        return self

    def websocket(self, path: str, *handlers: Callable[..., Any]) -> Self:
        """Add a WebSocket: middlewares, then `async def handler(socket)`.

        Raises:
            RouteError: The path or a handler is not valid.
        """
        self._check_route(_SOCKET, path, handlers)
        self._verbs.append(lambda context: context.add_websocket(path, *handlers))
        return self

    def middleware(self, fn: Callable[..., Any], priority: float = 10) -> Self:
        """Add a middleware: `async def middleware(request, call_next)`."""
        _check_function("a middleware", fn)
        _check_priority(priority)
        self._verbs.append(lambda context: context.add_middleware(fn, priority))
        return self

    @overload
    def hook(
        self,
        event: Event[_T],
        fn: Callable[[], object] | Callable[Concatenate[_T, ...], object],
        priority: float = ...,
        *,
        observe: bool = ...,
    ) -> Self: ...
    @overload
    def hook(
        self, event: str, fn: Callable[..., Any], priority: float = ..., *, observe: bool = ...
    ) -> Self: ...
    def hook(
        self,
        event: str | Event[Any],
        fn: Callable[..., Any],
        priority: float = 10,
        *,
        observe: bool = False,
    ) -> Self:
        """Add a hook; see `Context.hook`."""
        if not isinstance(event, Event):
            check_text("the name of an event", event)
        _check_function(f"the handler of {event}", fn)
        _check_priority(priority)
        self._verbs.append(lambda context: context.hook(event, fn, priority, observe=observe))
        return self

    def command(self, name: str, fn: Callable[..., Any], description: str = "") -> Self:
        """Add a command; its options come from the function's signature."""
        check_text("the name of a command", name)
        _check_function(f"the command {name}", fn)
        self._taken.append(f"the command {name}")
        self._verbs.append(lambda context: context.add_command(name, fn, description))
        return self

    def every(self, seconds: float, fn: Callable[[], Any]) -> Self:
        """Call a function at an interval, in seconds, while the plugin is live."""
        check_seconds("seconds", seconds)
        _check_function("what every() calls", fn)
        self._verbs.append(lambda context: context.every(seconds, fn))
        return self

    def provide(self, name: str, value: object) -> Self:
        """Offer a service."""
        check_text("the name of a service", name)
        self._taken.append(f"the service {name}")
        self._verbs.append(lambda context: context.provide(name, value))
        return self

    # -- the life cycle

    def load(self, fn: Callable[..., Any]) -> Self:
        """Set a function that runs at loading, after what the other methods added.

        Raises:
            ManifestError: It is no function of `app`, `config` and `context`.
        """
        return self._set_step("load", fn)

    def unload(self, fn: Callable[..., Any]) -> Self:
        """Set a function that runs at unloading."""
        return self._set_step("unload", fn)

    def activate(self, fn: Callable[..., Any]) -> Self:
        """Set a function that runs after loading, and each time it is switched on."""
        return self._set_step("activate", fn)

    def deactivate(self, fn: Callable[..., Any]) -> Self:
        """Set a function that runs each time it is switched off, and before unloading."""
        return self._set_step("deactivate", fn)

    def build(self) -> Plugin:
        """Return the plugin.

        Raises:
            ManifestError: Something is missing, or does not fit together; all faults are listed.
        """
        faults = list(self._faults())
        if faults:
            raise manifest_error(faults, plugin=self._manifest.get("name"))
        verbs, steps = tuple(self._verbs), dict(self._steps)
        given = steps.pop("load", None)
        inner = None if given is None else checked_plugin({**self._manifest, "load": given})

        async def load(app: Any, config: Any, context: Context) -> None:
            for verb in verbs:
                verb(context)
            if inner is not None:
                answer = inner.call_life_cycle("load", app, config, context)
                if inspect.isawaitable(answer):
                    await answer

        return checked_plugin({**self._manifest, **steps, "load": load})

    # -- checks

    def _faults(self) -> Iterator[Fault]:
        name = self._manifest.get("name")
        if name is None:
            yield Fault("name", "is missing: call .name(…)")
        for one, count in Counter(self._taken).items():
            if count > 1:
                yield Fault("", f"{one} is added {count} times")
        for number, text in enumerate(self._manifest.get("dependencies", ())):
            if Requirement.parse(text).name == name:
                yield Fault(f"dependencies[{number}]", "a plugin cannot depend on itself")

    def _set(self, field: str, value: object) -> Self:
        return self._set_all({field: value})

    def _set_all(self, fields: Mapping[str, Any]) -> Self:
        unknown = [
            Fault(key, f"is not a field. {did_you_mean(key, FIELDS)}".rstrip())
            for key in fields
            if key not in FIELDS
        ]
        if unknown:
            raise manifest_error(unknown, plugin=self._manifest.get("name"))
        empty = [Fault(key, "is None") for key in fields if fields[key] is None]
        if empty:
            raise manifest_error(empty, plugin=self._manifest.get("name"))
        plugin = checked_plugin({"name": "x", "version": "1.0.0", "load": _nothing, **fields})
        wrong = findings(plugin.manifest).errors
        if wrong:
            raise manifest_error(wrong, plugin=self._manifest.get("name"))
        self._manifest |= {key: getattr(plugin.manifest, key) for key in fields}
        return self

    def _set_step(self, step: str, fn: Callable[..., Any]) -> Self:
        _check_function(f"{step}()", fn)
        checked_plugin({"name": "x", "version": "1.0.0", "load": _nothing, step: fn})
        self._steps[step] = fn
        return self

    def _check_route(self, method: str, path: str, handlers: tuple[object, ...]) -> None:
        check_text("the path of a route", path)
        parse_path(path)
        if not handlers:
            raise RouteError(
                f"the route {method} {path} has no handler", remedy="Give it as the last argument."
            )
        for handler in handlers:
            _check_function(f"a handler of the route {method} {path}", handler)
        self._taken.append(f"the route {method} {path}")


def _nothing() -> None:
    """Stand for a `load` while a field is checked."""


def _check_function(what: str, fn: object) -> None:
    if not callable(fn):
        raise VekoError(f"{what} must be a function, not {fn!r}", remedy="Give a function.")


def _check_priority(priority: object) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int | float) or math.isnan(priority):
        raise VekoError(
            f"a priority must be a number, not {priority!r}", remedy="Give a number; 10 is usual."
        )
