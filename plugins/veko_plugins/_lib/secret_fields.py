"""Finds the secret fields of a configuration's schema, and shows configurations without them.

A field is secret if its type says so (`Meta(extra={"secret": True})`, an `extra_json_schema` with
`writeOnly` or `format: password`, pydantic's `SecretStr`) or its JSON Schema does (`writeOnly:
true`, `format: password`). Secrets are found by name: a name that is secret anywhere in a schema
is masked everywhere, because masking too much is safer than too little.

Cost: one walk over the schema, and one over the configuration.
Promise: `masked` returns plain data that can be logged and sent, without any secret.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

__all__ = ["MASK", "fields_of", "is_marked", "masked", "secret_names", "stripped"]

MASK: Final = "********"
ANY: Final = None
"""In a set of secret names: values that have no name (items of an array, other properties)."""
_DEPTH: Final = 8
_INSIDE: Final = (
    "additionalProperties", "unevaluatedProperties", "items", "additionalItems",
    "unevaluatedItems", "contains",
)  # fmt: skip
_SEVERAL: Final = ("anyOf", "oneOf", "allOf", "prefixItems")


def masked(config: object, schema: object) -> Any:
    """Return a configuration as plain data, with each secret as `********`.

    Args:
        config: A configuration, as in `context.config`: a mapping, or an instance of a type.
        schema: The plugin's `config_schema`; with `None`, nothing is secret.

    Returns:
        Dicts, lists and scalars; values that JSON does not have become text.
    """
    return _masked(config, secret_names(schema))


def _masked(value: object, secrets: set[str | None]) -> Any:
    if isinstance(value, Mapping):
        named = ((str(key), item) for key, item in value.items())
    elif isinstance(value, msgspec.Struct):
        named = (
            (field.encode_name, getattr(value, field.name))
            for field in msgspec.structs.fields(value)
        )
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(inner := getattr(type(value), "model_fields", None), Mapping):
        named = ((name, getattr(value, name)) for name in inner)
    elif isinstance(value, list | tuple | set | frozenset):
        return [MASK if ANY in secrets else _masked(item, secrets) for item in value]
    else:
        return msgspec.to_builtins(value, enc_hook=str)
    return {
        key: MASK
        if key in secrets or (ANY in secrets and not isinstance(item, Mapping | list | tuple))
        else _masked(item, secrets)
        for key, item in named
    }


def secret_names(schema: object) -> set[str | None]:
    """Return the names of everything that is secret in a schema or type.

    Args:
        schema: A JSON Schema, a type, or `None`.

    Returns:
        Field and property names; with `None` among them if a value without a name is secret.
    """
    if isinstance(schema, Mapping):
        return set(_in_schema(schema, schema, 0))
    if schema is None or isinstance(schema, bool):
        return set()
    return set(_in_type(schema, set()))


def _in_schema(schema: object, root: object, depth: int) -> Iterator[str | None]:
    if isinstance(schema, Mapping):
        if depth == 0 and _is_secret(schema, root):
            yield ANY
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            yield from (name for name, part in properties.items() if _is_secret(part, root))
        for part in schema.values():
            yield from _in_schema(part, root, depth + 1)
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from _in_schema(part, root, depth + 1)


def _is_secret(schema: object, root: object = None, depth: int = _DEPTH) -> bool:
    """Return whether a schema, or one that it is composed of, marks its value as secret."""
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
    return any(_is_secret(part, root, depth - 1) for part in parts)


def _in_type(type_: Any, seen: set[int]) -> Iterator[str | None]:
    if id(type_) in seen:
        return
    seen.add(id(type_))
    if hasattr(type_, "__pydantic_validator__"):
        yield from _in_pydantic(type_)
        return
    for name, (field_type, _) in fields_of(type_).items():
        if _holds_secret(field_type):
            yield name
        yield from _in_type(field_type, seen)
    for argument in get_args(type_):
        yield from _in_type(argument, seen)


def _in_pydantic(type_: Any) -> Iterator[str | None]:
    import pydantic

    adapter = pydantic.TypeAdapter(type_)
    for by_alias in (True, False):
        try:
            schema = adapter.json_schema(by_alias=by_alias)
        except pydantic.errors.PydanticInvalidForJsonSchema:
            # A type without a JSON Schema cannot be searched: all its fields are masked.
            yield from (ANY, *fields_of(type_), *getattr(type_, "model_fields", ()))
        else:
            yield from secret_names(schema)


def _holds_secret(type_: Any) -> bool:
    """Return whether a type, or the type of its unnamed items, is marked as secret."""
    if get_origin(type_) is Annotated:
        inner, *metadata = get_args(type_)
        return any(is_marked(one) for one in metadata) or _holds_secret(inner)
    return any(_holds_secret(argument) for argument in get_args(type_))


def is_marked(metadata: object) -> bool:
    """Return whether metadata of an `Annotated` marks a secret."""
    if not isinstance(metadata, msgspec.Meta):
        return False
    return bool((metadata.extra or {}).get("secret")) or _is_secret(metadata.extra_json_schema)


def stripped(type_: Any, value: object) -> tuple[Any, bool]:
    """Return the type without `Annotated` and `| None`, and whether it is marked as secret."""
    secret = False
    while True:
        if get_origin(type_) is Annotated:
            type_, *metadata = get_args(type_)
            secret = secret or any(is_marked(one) for one in metadata)
        elif get_origin(type_) in (Union, types.UnionType) and value is not None:
            arms = [arm for arm in get_args(type_) if arm is not type(None)]
            if len(arms) != 1:
                return type_, secret or any(stripped(arm, value)[1] for arm in arms)
            type_ = arms[0]
        else:
            return type_, secret


def fields_of(type_: Any) -> dict[str, tuple[Any, bool]]:
    """Return type and whether it is required of each field of a struct or dataclass, by name."""
    if not isinstance(type_, type):
        return {}
    if issubclass(type_, msgspec.Struct):
        return {f.encode_name: (f.type, f.required) for f in msgspec.structs.fields(type_)}
    if dataclasses.is_dataclass(type_):
        hints = typing.get_type_hints(type_, include_extras=True)
        missing = dataclasses.MISSING
        return {
            f.name: (hints[f.name], f.default is missing and f.default_factory is missing)
            for f in dataclasses.fields(type_)
            if f.init
        }
    return {}
