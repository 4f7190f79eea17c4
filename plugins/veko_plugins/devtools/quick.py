"""Plugins in one call: from one function, or from tables of routes, hooks and commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from veko import Plugin, VekoError, as_plugin
from veko.errors import Fault, ManifestError

from .._lib.manifests import FIELDS
from .._lib.versions import did_you_mean
from .builder import PluginBuilder

__all__ = ["create_dev_plugin", "create_simple_plugin"]

_Function: TypeAlias = Callable[..., Any]
_FUNCTIONS: Final = ("unload", "activate", "deactivate", "export_state", "import_state")
_NONE: Final[Mapping[Any, Any]] = MappingProxyType({})


def create_dev_plugin(
    name: str,
    *,
    routes: Mapping[str | tuple[str, str], _Function | Sequence[_Function]] = _NONE,
    middleware: Iterable[_Function] = (),
    hooks: Mapping[str, _Function | Sequence[_Function]] = _NONE,
    commands: Mapping[str, _Function | Mapping[str, Any]] = _NONE,
    load: _Function | None = None,
) -> Plugin:
    """Make a plugin of tables, to try something out.

    Args:
        name: The plugin's name; its version is `1.0.0`.
        routes: A handler, or middlewares and then a handler, for each route: `"/hello"` (GET),
            `"POST /hello"` or `("POST", "/hello")`.
        middleware: Middlewares, the outermost first.
        hooks: A handler, or several, for each event.
        commands: A function for each command, or `{"handler": …, "description": …}`.
        load: A function that runs at loading, after the rest was added.

    Raises:
        ManifestError: The name or `load` is not valid.
        RouteError: A route is not valid.
        VekoError: Something else has the wrong type.
    """
    builder = PluginBuilder().name(name)
    for route, handlers in _table("routes", routes).items():
        method, path = _route(route)
        builder.route(method, path, *_several(handlers))
    for fn in _several(middleware):
        builder.middleware(fn)
    for event, handlers in _table("hooks", hooks).items():
        for fn in _several(handlers):
            builder.hook(event, fn)
    for command, given in _table("commands", commands).items():
        builder.command(command, *_command(command, given))
    if load is not None:
        builder.load(load)
    return builder.build()


def create_simple_plugin(name: str, load: _Function, **manifest: Any) -> Plugin:
    """Make a plugin from a function.

    Args:
        name: The plugin's name.
        load: Its `load`.
        manifest: Other manifest fields, and functions of the life cycle; `version` is `1.0.0` if
            left out.

    Raises:
        ManifestError: The manifest has faults; all are listed.
    """
    unknown = [
        Fault(key, f"is not a field. {did_you_mean(key, FIELDS)}".rstrip())
        for key in manifest
        if key not in FIELDS and key not in _FUNCTIONS
    ]
    if unknown:
        raise ManifestError(
            f"{name} is not valid",
            faults=unknown,
            plugin=name,
            remedy="Fields are those of `veko.Manifest`, beside the functions of the life cycle.",
        )
    return as_plugin({"version": "1.0.0", **manifest, "name": name, "load": load})


def _table(what: str, given: object) -> Mapping[Any, Any]:
    if given is None:
        return _NONE
    if not isinstance(given, Mapping):
        raise VekoError(f"{what} must be a mapping, not {given!r}", remedy="Give a dict.")
    return given


def _route(key: object) -> tuple[Any, Any]:
    if isinstance(key, str):
        method, _, path = key.strip().rpartition(" ")
        return method.strip() or "GET", path
    if isinstance(key, tuple) and len(key) == 2:
        return key
    raise VekoError(
        f"{key!r} is no route", remedy='Write "/path", "POST /path" or ("POST", "/path").'
    )


def _several(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    if isinstance(given, Iterable) and not callable(given) and not isinstance(given, str):
        return tuple(given)
    return (given,)


def _command(name: str, given: object) -> tuple[Any, str]:
    if not isinstance(given, Mapping):
        return given, ""
    unknown = given.keys() - {"handler", "description"}
    if unknown or "handler" not in given:
        raise VekoError(
            f"the command {name} has {', '.join(map(repr, given)) or 'nothing'}",
            remedy='Give a function, or {"handler": function, "description": "…"}.',
        )
    return given["handler"], given.get("description", "")
