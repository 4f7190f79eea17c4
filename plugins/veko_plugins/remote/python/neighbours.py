"""The application's other plugins and their services, as the worker's plugin sees them.

What they export and offer is in the host or in workers of their own: data crosses by value, and
functions are called there. A plain function becomes one to be awaited.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from veko import State
from veko.errors import ServiceError, VekoError

from ..protocol import is_plain
from .failures import contained
from .kinds import Named

__all__ = ["Neighbour", "Neighbours", "Offered", "described", "offered"]

Ask = Callable[..., Awaitable[Any]]
"""Calls a method of the host."""


class Offered(Mapping[str, Any]):
    """What a plugin exports, or a service: names by attribute and by key.

    Args:
        what: Names it in messages.
        call: Calls one of its functions: its name, positional and keyword arguments.
        functions: The names of its functions; `None` if they are not known here.
        constants: Its data.
    """

    def __init__(
        self,
        what: str,
        call: Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]],
        functions: list[str] | None,
        constants: Mapping[str, Any],
    ) -> None:
        self._what = what
        self._call = call
        self._functions = functions
        self._constants = constants

    def __getitem__(self, name: str) -> Any:
        if name in self._constants:
            return copy.deepcopy(self._constants[name])
        if self._functions is None or name in self._functions:
            return self._function(name)
        inner = self._below(name)
        if inner is None:
            raise KeyError(name)
        return inner

    def _below(self, name: str) -> Offered | None:
        """Return an object in this one: its members are named with a dot."""
        start = f"{name}."
        functions = [
            one.removeprefix(start) for one in self._functions or () if one.startswith(start)
        ]
        constants = {
            key.removeprefix(start): value
            for key, value in self._constants.items()
            if key.startswith(start)
        }
        if not functions and not constants:
            return None

        async def call(inner: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            return await self._call(f"{start}{inner}", args, named)

        return Offered(f"{self._what}.{name}", call, functions, constants)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying, pickling and the like look for these
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"{self._what} offers no {name!r} to another process. It offers: "
                f"{', '.join(self) or 'nothing'}. Objects and classes cannot cross: offer data and "
                "functions.",
                name=name,
                obj=self,
            ) from None

    def _function(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def function(*args: Any, **named: Any) -> Any:
            return await self._call(name, args, named)

        function.__name__ = name
        function.__qualname__ = f"{self._what}.{name}"
        return function

    def __iter__(self) -> Iterator[str]:
        names = (*self._constants, *(self._functions or ()))
        return iter(dict.fromkeys(name.partition(".")[0] for name in names))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __call__(self, *args: Any, **named: Any) -> Awaitable[Any]:
        """Call the service itself, if it is a function."""
        return self._call("__call__", args, named)

    def __repr__(self) -> str:
        return f"<{self._what} of another process>"


def offered(
    what: str,
    given: object,
    call: Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]],
) -> Any:
    """Return what a descriptor of the host stands for.

    Args:
        what: Names it in messages.
        given: `{value}`, `{functions, constants}`, `{reason}`, or `None` if nothing is known.
        call: Calls one of its functions.

    Raises:
        ServiceError: It cannot cross; the descriptor says why.
    """
    if not isinstance(given, Mapping):
        return Offered(what, call, None, {})
    if "reason" in given:
        raise ServiceError(
            f"{what} cannot be used from another process: {given['reason']}",
            remedy="Let it be JSON-able data, or an object with async functions.",
        )
    if "value" in given:
        return copy.deepcopy(given["value"])
    return Offered(what, call, list(given.get("functions") or ()), given.get("constants") or {})


class Neighbour(SimpleNamespace):
    """Another plugin of the application; what `get_plugin` returns of it.

    Attributes:
        name: Its name.
        version: Its version.
        description: One line about it.
        type: What kind of plugin it is.
        state: Where it is in its life.
        loaded: Whether it is loaded.
        active: Whether it is switched on.
        config: Its configuration, as far as the host passes it on.
        exports: What other plugins may use of it.
        module: The same.
    """

    name: str
    version: str
    description: str
    type: str
    state: State
    loaded: bool
    active: bool
    config: Any
    exports: Any
    module: Any

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(vars(self))
        raise AttributeError(
            f"of the plugin {vars(self).get('name')} another process does not know {name!r}. It "
            f"knows: {known}.",
            name=name,
            obj=self,
        )


class Neighbours:
    """All plugins and services of the host that the plugin may ask for.

    Args:
        ask: Calls a method of the host.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._plugins: dict[str, Neighbour] = {}
        self._exports: dict[str, object] = {}
        self._services: dict[str, object] = {}

    def begin(self, setup: Mapping[str, Any]) -> None:
        """Take what the host says when it loads the plugin."""
        self._exports.update(setup.get("exports") or {})
        self.plugins_are(setup.get("plugins") or [])
        services = setup.get("services") or {}
        if not isinstance(services, Mapping):
            services = dict.fromkeys(services)
        self._services.update(services)

    def plugins_are(self, infos: list[dict[str, Any]]) -> None:
        """Take the list of all plugins, as it is now."""
        self._plugins = {info["name"]: self.known(info) for info in infos}

    def services_are(self, changed: Mapping[str, object]) -> None:
        """Take the services that have come (with their descriptor) or gone (`None`)."""
        for name, descriptor in changed.items():
            if descriptor is None:
                self._services.pop(name, None)
            else:
                self._services[name] = descriptor

    def known(self, info: Mapping[str, Any]) -> Neighbour:
        """Return the plugin of an info: the same object as before, brought up to date."""
        name = str(info["name"])
        found = self._plugins.get(name) or Neighbour(name=name, config=None)
        try:
            state = State(str(info.get("state") or "active"))
        except ValueError:
            state = State.ACTIVE
        for key in ("version", "description", "type"):
            setattr(found, key, str(info.get(key) or ""))
        found.state = state
        found.loaded = info.get("loaded") is not False
        found.active = info.get("active") is not False
        found.config = info.get("config", found.config)
        found.exports = found.module = offered(
            f"the plugin {name}", self._exports.get(name), self._caller("plugin_call", name)
        )
        return found

    def _caller(self, method: str, owner: str) -> Callable[..., Awaitable[Any]]:
        async def call(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            more = (named,) if named else ()
            return await self._ask(method, owner, name, list(args), *more)

        return call

    def get(self, name: str) -> Neighbour | None:
        """Return a plugin that is loaded, or `None`."""
        found = self._plugins.get(name)
        return found if found is not None and found.loaded else None

    def all(self) -> list[Neighbour]:
        """Return the loaded plugins, in order of arrival."""
        return [one for one in self._plugins.values() if one.loaded]

    def use(self, name: str, plugin: str) -> Any:
        """Return a service of another plugin.

        Raises:
            ServiceError: There is none of that name, or it cannot cross.
        """
        if name not in self._services:
            known = ", ".join(sorted(self._services)) or "none"
            raise ServiceError(
                f"there is no service {name!r}",
                plugin=plugin,
                remedy=f"There is: {known}. Name the plugin that provides it in `dependencies`, "
                "or wait for it with `when`.",
            )
        return self._service(name, self._services[name])

    async def when(self, name: str) -> Any:
        """Wait until another plugin provides a service, and return it."""
        return self._service(name, await self._ask("when", name))

    def _service(self, name: str, descriptor: object) -> Any:
        return offered(f"the service {name}", descriptor, self._caller("service_call", name))


def _offering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a service as the host calls it, perhaps with keyword arguments."""

    def call(*args: Any) -> Any:
        if args and isinstance(args[-1], Named):
            return function(*args[:-1], **args[-1].arguments)
        return function(*args)

    call.__qualname__ = getattr(function, "__qualname__", "function")
    return contained(call)


def described(value: object) -> dict[str, Any]:
    """Return how a service of the worker's plugin crosses to the host.

    Raises:
        VekoError: It has neither data nor functions.
    """
    if is_plain(value):
        return {"value": value}
    if callable(value) and not hasattr(value, "__dict__"):
        return {"functions": {"__call__": _offering(value)}, "constants": {}}
    functions: dict[str, Callable[..., Any]] = {}
    constants: dict[str, Any] = {}
    for name in (one for one in dir(value) if not one.startswith("_")):
        found = getattr(value, name)
        if callable(found) and not isinstance(found, type):
            functions[name] = _offering(found)
        elif is_plain(found):
            constants[name] = found
    if callable(value) and not isinstance(value, type):
        functions["__call__"] = _offering(value)
    if not functions and not constants:
        raise VekoError(
            f"{type(value).__qualname__} offers nothing that another process can use",
            remedy="Provide JSON-able data, or an object with async functions.",
        )
    return {"functions": functions, "constants": constants}
