"""What plugins offer each other across the border: exports and services.

Data crosses by value, functions are called where they are. A worker reaches what a plugin offers:
the functions of its own code, and what its `exports` or a service name. It never reaches what a
module has merely imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final

import msgspec

from veko import Manifest, PluginRecord
from veko.errors import NotFoundError

from .protocol import RemoteFunction, is_plain
from .python.kinds import Named

__all__ = ["Offered", "describe", "exports_of", "member_of", "offered"]

_NO_EXPORTS: Final = frozenset((
    *(field.name for field in msgspec.structs.fields(Manifest)), "load", "unload", "activate",
    "deactivate", "export_state", "import_state",
))  # fmt: skip
"""What a plugin is made of: the manager's business, not other plugins'."""

Call = Callable[..., Awaitable[Any]]


class Offered(Mapping[str, Any]):
    """What a plugin in a worker offers: its names as attributes, or as keys.

    Args:
        what: Names it in messages.
        call: Calls one of its functions: the name, then the arguments.
        functions: The names of its functions; a dot leads into an object.
        constants: Its data by name.
    """

    def __init__(
        self, what: str, call: Call, functions: Iterable[str], constants: Mapping[str, Any]
    ) -> None:
        self._what = what
        self._call = call
        self._members: dict[str, Any] = {}
        nested: dict[str, tuple[list[str], dict[str, Any]]] = {}
        for name, value in constants.items():
            first, dot, rest = name.partition(".")
            if dot:
                nested.setdefault(first, ([], {}))[1][rest] = value
            else:
                self._members[name] = value
        for name in functions:
            first, dot, rest = name.partition(".")
            if dot:
                nested.setdefault(first, ([], {}))[0].append(rest)
            else:
                self._members[name] = _function(f"{what}.{name}", call, name)
        for first, (names, values) in nested.items():
            inner = _inner(call, first)
            self._members[first] = Offered(f"{what}.{first}", inner, names, values)

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __getattr__(self, name: str) -> Any:
        members = self.__dict__.get("_members", {})
        if name in members:
            return members[name]
        raise AttributeError(
            f"{self.__dict__.get('_what', 'it')} offers no {name!r}. "
            f"It offers: {', '.join(members) or 'nothing'}.",
            name=name,
            obj=self,
        )

    async def __call__(self, *args: Any, **named: Any) -> Any:
        """Call the service itself, if it is a function."""
        return await self._call("__call__", *args, **named)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._members]

    def __repr__(self) -> str:
        return f"<{self._what}: {', '.join(self._members) or 'nothing'}>"


def _inner(call: Call, first: str) -> Call:
    async def inner(name: str, *args: Any, **named: Any) -> Any:
        return await call(f"{first}.{name}", *args, **named)

    return inner


def _function(label: str, call: Call, name: str) -> Call:
    async def function(*args: Any, **named: Any) -> Any:
        return await call(name, *args, **named)

    function.__name__ = name.rpartition(".")[2]
    function.__qualname__ = label
    return function


def offered(
    what: str, given: object, call: Callable[..., Awaitable[Any]], *, python: bool = False
) -> Any:
    """Return the service that a worker provides, as other plugins use it.

    Args:
        what: Names it in messages.
        given: `{value}`, `{functions, constants}`, or the value itself.
        call: Calls a function of the worker.
        python: Whether that is a Python worker, whose functions take keyword arguments.
    """

    def named_arguments(keywords: dict[str, Any]) -> list[Any]:
        return ([Named(keywords)] if python else [keywords]) if keywords else []

    if isinstance(given, Mapping) and isinstance(functions := given.get("functions"), Mapping):

        async def named(name: str, *args: Any, **keywords: Any) -> Any:
            return await call(functions[name], *args, *named_arguments(keywords))

        constants = given.get("constants")
        return Offered(what, named, functions, constants if isinstance(constants, Mapping) else {})
    value = given.get("value") if isinstance(given, Mapping) and "value" in given else given
    if isinstance(value, RemoteFunction):
        function = value

        async def itself(name: str, *args: Any, **keywords: Any) -> Any:
            return await call(function, *args, *named_arguments(keywords))

        return Offered(what, itself, (), {})
    return value


def exports_of(record: PluginRecord) -> dict[str, Any]:
    """Return what a worker may use of a plugin, by name."""
    exports = record.exports
    module = record.module
    declared = isinstance(module, ModuleType) and "exports" in vars(module)
    if isinstance(exports, Offered):
        return dict(exports)
    found = exports if isinstance(exports, Mapping) else _public(exports)
    names = _own_modules(record)
    return {
        str(name): value
        for name, value in found.items()
        if not str(name).startswith("_")
        and (declared or str(name) not in _NO_EXPORTS)
        and not isinstance(value, ModuleType | type)
        and (declared or is_plain(value) or _is_own(value, names))
    }


def _own_modules(record: PluginRecord) -> str:
    module = record.module
    if isinstance(module, ModuleType):
        return module.__name__
    return type(record.plugin).__module__ if not isinstance(module, Mapping) else ""


def _is_own(value: Any, module: str) -> bool:
    """Return whether a function or an object is of the plugin's own code."""
    if not module:  # a mapping says itself what is in it
        return True
    home = getattr(value, "__module__", None) or type(value).__module__
    return home == module or str(home).startswith(f"{module}.")


def _public(value: object) -> dict[str, Any]:
    return {name: getattr(value, name, None) for name in dir(value) if not name.startswith("_")}


def member_of(members: Mapping[str, Any], path: str, what: str) -> Any:
    """Return what a dotted name leads to.

    Raises:
        NotFoundError: There is no such name, or it leads to what nobody may reach.
    """
    first, *rest = path.split(".")
    found = members.get(first)
    for name in rest:
        if name.startswith("_") or isinstance(found, ModuleType | type):
            found = None
            break
        found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    if found is None or isinstance(found, ModuleType | type):
        raise NotFoundError(
            f"{what} offers no {path!r}",
            remedy=f"It offers: {', '.join(members) or 'nothing'}.",
        )
    return found


def describe(value: object, members: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return how a service or the exports of a plugin are described to a worker.

    Args:
        value: The value.
        members: Its members, if they are not all its public names.
    """
    if members is None:
        if is_plain(value):
            return {"value": value}
        if inspect.isroutine(value):
            return {"functions": ["__call__"], "constants": {}}
        members = value if isinstance(value, Mapping) else _public(value)
    functions: list[str] = []
    constants: dict[str, Any] = {}
    for name, member in members.items():
        if isinstance(member, Offered):
            inner = describe(member, dict(member))
            functions += [f"{name}.{one}" for one in inner["functions"]]
            constants |= {f"{name}.{key}": one for key, one in inner["constants"].items()}
        elif is_plain(member):
            constants[str(name)] = member
        elif callable(member) and not isinstance(member, type):
            functions.append(str(name))
    if members is not value and callable(value) and not isinstance(value, Offered):
        functions.append("__call__")
    return {"functions": functions, "constants": constants}
