"""Merging the fragments of an OpenAPI document.

Each plugin's routes are described separately, so two plugins may mean different things by `Order`.
Merged, equal components are shared, and a different one gets its plugin's name as a prefix
(`shop_Order`), also in everything that refers to it.

OpenAPI distinguishes paths by their shape only: `/{id}` and `/{name}` are one path there, and a
later fragment takes the parameter names of the first. Of two operations of one shape and method
(`/{id:int}` and `/{name}`) the first is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..port import Fragment

__all__ = ["METHODS", "Merger"]

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
"""The methods of OpenAPI 3.1, in its spelling."""

_PARAMETER: Final = re.compile(r"\{([^}]*)\}")
_REF: Final = re.compile(r"#/components/([^/]+)/([^/]+)")

_Object = dict[str, Any]
_Key = tuple[str, str]


class Merger:
    """Merges fragments into one; the first to use a name keeps it.

    Attributes:
        whole: The merged fragment.
    """

    def __init__(self) -> None:
        self.whole = Fragment()
        self._shapes: dict[str, str] = {}
        self._operations: set[str] = set()

    def add(self, fragment: Fragment, prefix: str, tag: str | None = None) -> int:
        """Add a fragment, which is not changed.

        Args:
            fragment: The fragment.
            prefix: The prefix for names that are taken.
            tag: A tag for all its operations, in front of their own.

        Returns:
            The number of operations that were added.
        """
        renamed = self._renamed(fragment, prefix)
        for section, components in fragment.components.items():
            mine = self.whole.components.setdefault(section, {})
            for name, value in components.items():
                mine.setdefault(renamed.get((section, name), name), _rewritten(value, renamed))
        count = 0
        for path, item in fragment.paths.items():
            shape = _PARAMETER.sub("{}", path)
            known = self._shapes.setdefault(shape, path)
            operations = self.whole.paths.setdefault(known, {})
            for method in METHODS:
                if method not in item or method in operations:
                    continue
                operation = _rewritten(item[method], renamed)
                if known != path:
                    _rename_parameters(operation, path, known)
                if tag is not None:
                    own = (name for name in operation.get("tags", ()) if name != tag)
                    operation["tags"] = [tag, *own]
                self._name(operation, prefix)
                operations[method] = operation
                count += 1
        return count

    def undeclared(self) -> set[str]:
        """Drop security requirements whose schemes no plugin declares; return their names.

        A document that refers to such a scheme is not valid.
        """
        declared = self.whole.components.get("securitySchemes", {})
        missing: set[str] = set()
        for item in self.whole.paths.values():
            for operation in item.values():
                needs = operation.get("security")
                if not needs:
                    continue
                unknown = {name for need in needs for name in need if name not in declared}
                if unknown:
                    missing |= unknown
                    kept = [need for need in needs if not unknown.intersection(need)]
                    if kept:
                        operation["security"] = kept
                    else:
                        del operation["security"]
        return missing

    def _renamed(self, fragment: Fragment, prefix: str) -> dict[_Key, str]:
        """Return new names for the components whose names other components have."""
        theirs = {
            (section, name): _rewritten(value, {})  # comparable with mine: lists for tuples
            for section, components in fragment.components.items()
            for name, value in components.items()
        }
        mine = self.whole.components
        taken = {key for key in theirs if key[1] in mine.get(key[0], {})}
        differing = {key for key in taken if mine[key[0]][key[1]] != theirs[key]}
        # An equal component differs too if a component that it refers to differs.
        while more := {
            key for key in taken - differing if not differing.isdisjoint(_refs(theirs[key]))
        }:
            differing |= more
        renamed: dict[_Key, str] = {}
        for section, name in differing:
            wanted = fresh = f"{prefix}_{name}"
            number = 2
            while fresh in mine.get(section, {}) or (section, fresh) in theirs:
                fresh, number = f"{wanted}_{number}", number + 1
            renamed[section, name] = fresh
        return renamed

    def _name(self, operation: _Object, prefix: str) -> None:
        wanted = operation.get("operationId")
        if wanted is None:
            return
        name, number = wanted, 2
        if name in self._operations:
            name = wanted = f"{prefix}_{wanted}"
        while name in self._operations:
            name, number = f"{wanted}_{number}", number + 1
        self._operations.add(name)
        operation["operationId"] = name


def _refs(value: Any) -> Iterator[_Key]:
    """Yield all components that a value refers to."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                if found := _REF.fullmatch(inner):
                    yield found[1], found[2]
            else:
                yield from _refs(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _refs(inner)


def _rewritten(value: Any, renamed: Mapping[_Key, str]) -> Any:
    """Return a deep copy with references to the new names."""
    if isinstance(value, Mapping):
        made: _Object = {}
        for key, inner in value.items():
            if key in {"$ref", "mapping", "security"}:
                made[key] = _referring(key, inner, renamed)
            else:
                made[key] = _rewritten(inner, renamed)
        return made
    if isinstance(value, (list, tuple)):
        return [_rewritten(inner, renamed) for inner in value]
    return value


def _referring(key: str, value: Any, renamed: Mapping[_Key, str]) -> Any:
    """Return a copy of a reference, a discriminator's mapping or a list of security schemes."""
    if isinstance(value, str):
        found = _REF.fullmatch(value)
        if found and (name := renamed.get((found[1], found[2]))):
            return f"#/components/{found[1]}/{name}"
        return value
    if key == "mapping" and isinstance(value, Mapping):
        return {name: _referring(key, inner, renamed) for name, inner in value.items()}
    if key == "security" and isinstance(value, list):
        return [
            {renamed.get(("securitySchemes", name), name): scopes for name, scopes in need.items()}
            for need in value
            if isinstance(need, Mapping)
        ]
    return _rewritten(value, renamed)


def _rename_parameters(operation: _Object, path: str, known: str) -> None:
    names = dict(zip(_PARAMETER.findall(path), _PARAMETER.findall(known), strict=True))
    for parameter in operation.get("parameters", ()):
        if parameter.get("in") == "path" and parameter.get("name") in names:
            parameter["name"] = names[parameter["name"]]
