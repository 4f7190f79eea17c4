"""The types in the signatures of handlers, as JSON Schema.

msgspec makes all schemas of a plugin together, so that equal names within it get different schemas.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from ._parameters import EMPTY

__all__ = ["REFS", "Schemas", "answers_of"]

_Object = dict[str, Any]

REFS: Final = "#/components/schemas/{name}"


class Schemas:
    """The schemas of many types, made together.

    A type without a JSON Schema gets the schema of anything.

    Args:
        annotations: All types whose schemas will be requested.

    Attributes:
        components: The named schemas.
    """

    def __init__(self, annotations: Iterable[Any]) -> None:
        self.components: _Object = {}
        wanted = [one for one in annotations if one is not Any and one is not EMPTY]
        try:
            made = self._make(wanted)
        except TypeError:
            wanted = [one for one in wanted if self._has_schema(one)]
            made = self._make(wanted)
        # Annotations need not be hashable.
        self._known = {id(one): (one, schema) for one, schema in zip(wanted, made, strict=True)}

    def of(self, annotation: Any) -> _Object:
        """Return a copy of the schema of a type."""
        known = self._known.get(id(annotation))
        return dict(known[1]) if known else {}

    def resolved(self, schema: _Object) -> _Object:
        """Return the schema that a reference refers to; another schema as it is."""
        name = schema.get("$ref", "").rpartition("/")[2]
        found: _Object = self.components.get(name, schema)
        return found

    def _make(self, annotations: Sequence[Any]) -> Sequence[_Object]:
        hoisted: _Object = {}
        made, components = msgspec.json.schema_components(
            annotations, schema_hook=functools.partial(_schema_of, hoisted), ref_template=REFS
        )
        self.components = {**hoisted, **components}
        return made

    def _has_schema(self, annotation: Any) -> bool:
        try:
            self._make([annotation])
        except TypeError:
            return False
        return True


def _schema_of(hoisted: _Object, type_: Any) -> _Object:
    """Return the schema of a type that msgspec does not know: a pydantic model, or anything."""
    make = getattr(type_, "model_json_schema", None)
    if make is None:
        return {"title": getattr(type_, "__name__", str(type_))}
    schema: _Object = make(ref_template="#/components/schemas/{model}")
    hoisted.update(schema.pop("$defs", {}))
    return schema


def answers_of(handler: Callable[..., Any]) -> list[Any]:
    """Return the types that a handler's return annotation lists; none without annotation."""
    annotation = _returned(handler)
    parts = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    return [part for part in parts if part is not EMPTY and part is not Any]


def _returned(handler: Callable[..., Any]) -> Any:
    plain = inspect.unwrap(handler)
    while isinstance(plain, functools.partial):
        plain = plain.func
    try:
        annotation = inspect.signature(plain).return_annotation
        if isinstance(annotation, str):
            function = getattr(plain, "__func__", plain)
            names = getattr(function, "__globals__", None)
            if names is None:
                names = getattr(type(plain).__dict__.get("__call__"), "__globals__", {})
            annotation = eval(annotation, dict(names))
    except Exception:  # annotations may name what exists for type checkers only
        return EMPTY
    return annotation
