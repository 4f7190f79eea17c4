"""Every fault of a configuration, by path: msgspec stops at the first, so this walks the type.

Cost: one conversion a field, and only after the whole has failed to convert.
Promise: a secret's value is in no message.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from veko import ConfigError

from ._versions import did_you_mean

__all__ = ["convert_config", "schema_faults"]

_REMEDY = "Give a msgspec.Struct, a dataclass, or a JSON Schema as a mapping."


def convert_config(config: object, type_: Any, plugin: str | None) -> tuple[object, list[str]]:
    """Convert a configuration to a type.

    Returns:
        The instance, and all faults; the instance counts only if there are none.

    Raises:
        ConfigError: The type is none that can be converted to.
    """
    if isinstance(type_, type) and isinstance(config, type_):
        return config, []
    try:
        return msgspec.convert(config, type_, dec_hook=_decode), []
    except msgspec.ValidationError as error:
        faults = list(_faults(config, type_, (), False))
        return None, faults or [_words(error)]
    except (TypeError, NotImplementedError) as error:
        raise ConfigError(
            f"config_schema is {type_!r}, which nothing can be converted to: {error}",
            plugin=plugin,
            remedy=_REMEDY,
        ) from error


def _decode(type_: type, value: object) -> object:
    if type_ is Path and isinstance(value, str | Path):
        return Path(value)
    if isinstance(value, type_):
        return value
    raise msgspec.ValidationError(
        f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`"
    )


def _faults(value: object, type_: Any, path: tuple[object, ...], secret: bool) -> Iterator[str]:
    try:
        msgspec.convert(value, type_, dec_hook=_decode)
    except msgspec.ValidationError as error:
        inner, marked = _stripped(type_, value)
        secret = secret or marked
        deeper = list(_deeper(value, inner, path, secret))
        yield from deeper or [_told(path, _words(error), value, secret)]


def _deeper(value: object, type_: Any, path: tuple[object, ...], secret: bool) -> Iterator[str]:
    origin, arguments = get_origin(type_) or type_, get_args(type_)
    if isinstance(value, Mapping):
        if fields := _fields(origin):
            yield from _field_faults(value, origin, fields, path, secret)
        elif isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
            for key, item in value.items():
                yield from _faults(item, arguments[1], (*path, key), secret)
    elif isinstance(value, list | tuple) and arguments and _is_sequence(origin):
        several = origin is tuple and arguments[-1] is not Ellipsis
        for number, item in enumerate(value):
            wanted = arguments[number] if several and number < len(arguments) else arguments[0]
            yield from _faults(item, wanted, (*path, number), secret)


def _is_sequence(origin: object) -> bool:
    return isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet)


def _field_faults(
    value: Mapping[Any, object],
    type_: Any,
    fields: Mapping[str, tuple[Any, bool]],
    path: tuple[object, ...],
    secret: bool,
) -> Iterator[str]:
    for name, (field_type, required) in fields.items():
        if name in value:
            yield from _faults(value[name], field_type, (*path, name), secret)
        elif required:
            yield f"{_dotted((*path, name))} is missing"
    config = getattr(type_, "__struct_config__", None)
    if config is not None and config.forbid_unknown_fields:
        for key in value.keys() - fields.keys():
            near = did_you_mean(str(key), fields)
            yield f"{_dotted((*path, key))} is unknown" + (f" ({near})" if near else "")


def _fields(type_: Any) -> dict[str, tuple[Any, bool]]:
    """Return type and whether it is required, by name, of a struct or dataclass."""
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


def _stripped(type_: Any, value: object) -> tuple[Any, bool]:
    """Return the type without `Annotated` and `| None`, and whether it is marked as secret."""
    secret = False
    while True:
        if get_origin(type_) is Annotated:
            type_, *metadata = get_args(type_)
            secret = secret or any(_marked(one) for one in metadata)
        elif get_origin(type_) in (Union, types.UnionType) and value is not None:
            arms = [arm for arm in get_args(type_) if arm is not type(None)]
            if len(arms) != 1:
                return type_, secret or any(_stripped(arm, value)[1] for arm in arms)
            type_ = arms[0]
        else:
            return type_, secret


def _marked(metadata: object) -> bool:
    if not isinstance(metadata, msgspec.Meta):
        return False
    return bool((metadata.extra or {}).get("secret")) or _is_secret(metadata.extra_json_schema)


def _words(error: Exception) -> str:
    text = str(error).partition(" - at `$")[0]
    return text[:1].lower() + text[1:]


def _told(path: tuple[object, ...], words: str, value: object, secret: bool) -> str:
    if secret or not isinstance(value, str | int | float | None):
        return f"{_dotted(path)}: {words}"
    shown = repr(value)
    return f"{_dotted(path)}: {words}; it is {shown if len(shown) < 80 else shown[:78] + '…'}"


def _dotted(path: Sequence[object]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the whole"


def schema_faults(config: object, schema: Any, plugin: str | None) -> list[str]:
    """Return all faults that a JSON Schema finds in a configuration.

    Raises:
        ConfigError: The schema is none, refers to another document, or jsonschema-rs is missing.
    """
    try:
        import jsonschema_rs
    except ImportError as error:
        raise ConfigError(
            "config_schema is a JSON Schema, and jsonschema-rs is not installed",
            plugin=plugin,
            remedy="Run `pip install veko[manager]`, or give a msgspec.Struct.",
        ) from error
    try:
        validator = jsonschema_rs.validator_for(schema, mask="it", offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        where = _dotted(getattr(error, "instance_path", ()))
        words = getattr(error, "message", None) or str(error)
        raise ConfigError(
            f"config_schema is not a JSON Schema: {where}: {words}",
            plugin=plugin,
            remedy="Mend the schema.",
        ) from error
    secrets = _secret_names(schema, schema)
    try:
        return [
            _told(path, error.message, error.instance, not secrets.isdisjoint(path))
            for error in validator.iter_errors(config)
            for path in (tuple(error.instance_path),)
        ]
    except (ValueError, TypeError) as error:
        return [f"the whole: it holds what JSON does not know: {error}"]


def _secret_names(schema: object, root: Any) -> set[object]:
    """Return the names of all properties that are secret anywhere in a schema."""
    found: set[object] = set()
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            found.update(
                name for name, part in properties.items() if _is_secret(part, root, depth=8)
            )
        for part in schema.values():
            found |= _secret_names(part, root)
    elif isinstance(schema, list | tuple):
        for part in schema:
            found |= _secret_names(part, root)
    return found


def _is_secret(schema: object, root: Any = None, depth: int = 0) -> bool:
    if not isinstance(schema, Mapping):
        return False
    if schema.get("writeOnly") is True or schema.get("format") == "password":
        return True
    if depth == 0:
        return False
    parts = [part for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key) or ()]
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target = root
        for step in reference[2:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        parts.append(target)
    return any(_is_secret(part, root, depth - 1) for part in parts)
