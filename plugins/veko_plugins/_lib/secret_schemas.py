"""Finds what a JSON Schema marks as secret: `writeOnly: true`, or `format: password`.

Cost: one walk over the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["ANY", "is_secret", "names_in_schema"]

ANY: Final = None
"""In a set of secret names: values that have no name (items of an array, other properties)."""
_DEPTH: Final = 8
_INSIDE: Final = (
    "additionalProperties", "unevaluatedProperties", "items", "additionalItems",
    "unevaluatedItems", "contains",
)  # fmt: skip
_SEVERAL: Final = ("anyOf", "oneOf", "allOf", "prefixItems")


def names_in_schema(schema: object) -> Iterator[str | None]:
    """Yield the names of the secret properties; `ANY` if a value without a name is secret."""
    return _names(schema, schema, 0)


def _names(schema: object, root: object, depth: int) -> Iterator[str | None]:
    if isinstance(schema, Mapping):
        if depth == 0 and is_secret(schema, root):
            yield ANY
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            yield from (name for name, part in properties.items() if is_secret(part, root))
        for part in schema.values():
            yield from _names(part, root, depth + 1)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _names(part, root, depth + 1)


def is_secret(schema: object, root: object = None, depth: int = _DEPTH) -> bool:
    """Return whether a schema, or one that it is composed of, marks its value as secret.

    Args:
        schema: The schema.
        root: The document in which `$ref` are looked up.
        depth: How many levels of composition are followed.
    """
    if not isinstance(schema, Mapping):
        return False
    if schema.get("writeOnly") is True or schema.get("format") == "password":
        return True
    if depth == 0:
        return False
    parts = [schema.get(key) for key in _INSIDE]
    for key in _SEVERAL:
        several = schema.get(key)
        parts += several if isinstance(several, list | tuple) else ()
    patterns = schema.get("patternProperties")
    parts += patterns.values() if isinstance(patterns, Mapping) else ()
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: object = root
        for step in reference[2:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        parts.append(target)
    return any(is_secret(part, root, depth - 1) for part in parts)
