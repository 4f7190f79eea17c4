"""The types that handlers name, as JSON Schema.

Schemas are msgspec's, all of a plugin's in one go, so that equal names within it are told apart.
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

    A type that cannot be told in JSON Schema may be anything.

    Args:
        annotations: All types that will be asked for.

    Attributes:
        components: The schemas that have names.
    """

    def __init__(self, annotations: Iterable[Any]) -> None:
        self.components: _Object = {}
        wanted = [one for one in annotations if one is not Any and one is not EMPTY]
        try:
            made = self._make(wanted)
        except TypeError:
            wanted = [one for one in wanted if self._is_sound(one)]
            made = self._make(wanted)
        # Annotations need not be hashable.
        self._known = {id(one): (one, schema) for one, schema in zip(wanted, made, strict=True)}

    def of(self, annotation: Any) -> _Object:
        """Return the schema of a type, for the caller to change."""
        known = self._known.get(id(annotation))
        return dict(known[1]) if known else {}

    def resolved(self, schema: _Object) -> _Object:
        """Return what a schema refers to, or itself."""
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

    def _is_sound(self, annotation: Any) -> bool:
        try:
            self._make([annotation])
        except TypeError:
            return False
        return True


def _schema_of(hoisted: _Object, type_: Any) -> _Object:
    """Make the schema of a type that msgspec does not know: a pydantic model, or anything."""
    tell = getattr(type_, "model_json_schema", None)
    if tell is None:
        return {"title": getattr(type_, "__name__", str(type_))}
    schema: _Object = tell(ref_template="#/components/schemas/{model}")
    hoisted.update(schema.pop("$defs", {}))
    return schema


def answers_of(handler: Callable[..., Any]) -> list[Any]:
    """Return what a handler says that it answers, one type each; nothing if it does not say."""
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
    except Exception:  # what is annotated need not exist while it runs
        return EMPTY
    return annotation
