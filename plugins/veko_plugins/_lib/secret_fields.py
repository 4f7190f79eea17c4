"""Finds the secret fields of a configuration's schema, and shows configurations without them.

A field is secret if its type says so (`Meta(extra={"secret": True})`, an `extra_json_schema` with
`writeOnly` or `format: password`, pydantic's `SecretStr` and `Secret[...]`) or its JSON Schema does
(`writeOnly: true`, `format: password`), also behind a `NewType` or an alias. Secrets are found by
name: a name that is secret anywhere in a schema is masked everywhere, under each of its aliases,
because masking too much is safer than too little.

Cost: one walk over the schema, and one over the configuration.
Promise: `masked` returns plain data that can be logged and sent, without any secret.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Final, NewType, Union, get_args, get_origin

import msgspec

from .masking import MASK, masked_text
from .secret_schemas import ANY, is_secret, names_in_schema
from .versions import did_you_mean

__all__ = ["fields_of", "leads_to_secret", "masked", "secret_names", "stripped", "unwrapped"]

_SECRET_TYPES: Final = frozenset({"Secret", "SecretBytes", "SecretStr", "SecretString"})
"""Types of pydantic, Starlette and Litestar whose values are secret."""
_QUALIFIERS: Final = frozenset({"ClassVar", "Final", "NotRequired", "ReadOnly", "Required"})
_DEPTH: Final = 32


def masked(config: object, schema: object) -> Any:
    """Return a configuration as plain data, with each secret as `********`.

    Args:
        config: A configuration, as in `context.config`: a mapping, or an instance of a type.
        schema: The plugin's `config_schema`; with `None`, passwords in URLs are secret only.

    Returns:
        Dicts, lists and scalars; values that JSON does not have become text.
    """
    return _masked(config, secret_names(schema))


def _masked(value: object, secrets: AbstractSet[str | None]) -> Any:
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
    elif isinstance(value, str):
        return masked_text(value)
    else:
        return msgspec.to_builtins(value, enc_hook=str)
    return {
        key: MASK
        if key in secrets or (ANY in secrets and not isinstance(item, Mapping | list | tuple))
        else _masked(item, secrets)
        for key, item in named
    }


def leads_to_secret(path: Sequence[object], secrets: AbstractSet[str | None]) -> bool:
    """Return whether a path leads to a secret, or to a name that may be a misspelt one.

    Args:
        path: The keys and indexes that lead to a value.
        secrets: The result of `secret_names`.
    """
    if ANY in secrets or not secrets.isdisjoint(path):
        return True
    known = [name for name in secrets if name is not None]
    return any(isinstance(step, str) and did_you_mean(step, known) for step in path)


def secret_names(schema: object) -> set[str | None]:
    """Return the names of everything that is secret in a schema or type.

    Args:
        schema: A JSON Schema, a type, or `None`.

    Returns:
        Field and property names; with `None` among them if a value without a name is secret.
    """
    if isinstance(schema, Mapping):
        return set(names_in_schema(schema))
    if schema is None or isinstance(schema, bool):
        return set()
    found = set(_in_type(schema, set()))
    if _holds_secret(schema):  # for example, `dict[str, Secret]`
        found.add(ANY)
    return found


def _in_type(type_: Any, seen: set[int]) -> Iterator[str | None]:
    type_ = unwrapped(type_)
    if id(type_) in seen:
        return
    seen.add(id(type_))
    if hasattr(type_, "__pydantic_validator__"):
        yield from _in_pydantic(type_, seen)
        return
    for name, (field_type, _) in fields_of(type_).items():
        if _holds_secret(field_type):
            yield name
        yield from _in_type(field_type, seen)
    origin = get_origin(type_)
    if isinstance(origin, type):  # a generic struct or dataclass
        yield from _in_type(origin, seen)
    for argument in get_args(type_):
        yield from _in_type(argument, seen)


def _in_pydantic(type_: Any, seen: set[int]) -> Iterator[str | None]:
    import pydantic

    fields: Mapping[str, Any] = getattr(type_, "__pydantic_fields__", None) or {}
    found: set[str | None] = set()
    adapter = pydantic.TypeAdapter(type_)
    for by_alias in (True, False):
        try:
            schema = adapter.json_schema(by_alias=by_alias)
        except pydantic.errors.PydanticInvalidForJsonSchema:
            # A type without a JSON Schema cannot be searched: all its fields are masked.
            found |= {ANY, *fields}
        else:
            found |= secret_names(schema)
    for name, field in fields.items():
        aliases = {name, *_aliases(field)}
        marked = any(_is_marked(one) for one in field.metadata)
        if marked or _holds_secret(field.annotation) or not found.isdisjoint(aliases):
            found |= aliases
        yield from _in_type(field.annotation, seen)
    yield from found


def _aliases(field: Any) -> Iterator[str]:
    """Yield the names under which a field of pydantic's is given."""
    for alias in (field.alias, field.serialization_alias, field.validation_alias):
        for one in getattr(alias, "choices", (alias,)):
            path = [step for step in getattr(one, "path", (one,)) if isinstance(step, str)]
            yield from path[-1:]  # of a path, the last name holds the value


def _holds_secret(type_: Any, depth: int = _DEPTH) -> bool:
    """Return whether a type, or the type of its unnamed items, is marked as secret."""
    type_ = unwrapped(type_)
    if get_origin(type_) is Annotated:
        inner, *metadata = get_args(type_)
        return any(_is_marked(one) for one in metadata) or _holds_secret(inner, depth)
    bases = getattr(get_origin(type_) or type_, "__mro__", ())
    if any(base.__name__ in _SECRET_TYPES for base in bases):
        return True
    # An alias may contain itself, hence the depth.
    return depth > 0 and any(_holds_secret(argument, depth - 1) for argument in get_args(type_))


def _is_marked(metadata: object) -> bool:
    """Return whether metadata of an `Annotated` marks a secret."""
    if isinstance(metadata, msgspec.Meta):
        return bool((metadata.extra or {}).get("secret")) or is_secret(metadata.extra_json_schema)
    return is_secret(getattr(metadata, "json_schema_extra", None))  # pydantic's `Field`


def unwrapped(type_: Any) -> Any:
    """Return the type behind a `NewType`, an alias (`type X = ...`) or a qualifier (`Required`)."""
    for _ in range(_DEPTH):
        origin = get_origin(type_)
        if isinstance(type_, NewType):
            type_ = type_.__supertype__
        elif hasattr(type_, "__value__"):
            type_ = type_.__value__
        elif hasattr(origin, "__value__"):  # an alias with parameters
            type_ = origin.__value__[get_args(type_)]
        elif getattr(origin, "__name__", getattr(origin, "_name", None)) in _QUALIFIERS:
            type_ = get_args(type_)[0]
        else:
            break
    return type_


def stripped(type_: Any, value: object) -> tuple[Any, bool]:
    """Return the type without aliases, `Annotated` and `| None`, and whether it is secret."""
    secret = False
    while True:
        type_ = unwrapped(type_)
        if get_origin(type_) is Annotated:
            type_, *metadata = get_args(type_)
            secret = secret or any(_is_marked(one) for one in metadata)
        elif get_origin(type_) in (Union, types.UnionType) and value is not None:
            arms = [arm for arm in get_args(type_) if arm is not type(None)]
            if len(arms) != 1:
                return type_, secret or any(stripped(arm, value)[1] for arm in arms)
            type_ = arms[0]
        else:
            return type_, secret or _holds_secret(type_)


def fields_of(type_: Any) -> dict[str, tuple[Any, bool]]:
    """Return type and whether it is required of each field of a type with fields, by name.

    That is a struct, a dataclass, a class of attrs, or a typed dictionary.
    """
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
    if hasattr(type_, "__attrs_attrs__") or hasattr(type_, "__required_keys__"):
        required = getattr(type_, "__required_keys__", ())
        hints = typing.get_type_hints(type_, include_extras=True)
        return {name: (hint, name in required) for name, hint in hints.items()}
    return {}
