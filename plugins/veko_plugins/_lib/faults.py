"""Every fault of a configuration, by path: msgspec stops at the first, so this walks the type.

Cost: one conversion a field, and only after the whole has failed to convert.
Promise: a secret's value is in no message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from veko import ConfigError

from .secret_fields import fields_of, secret_names, stripped
from .versions import did_you_mean

__all__ = ["check_schema", "convert_config", "schema_faults", "type_faults"]

_REMEDY = "Give a msgspec.Struct, a dataclass, a pydantic model, or a JSON Schema as a mapping."


def convert_config(config: object, type_: Any, plugin: str | None) -> tuple[object, list[str]]:
    """Convert a configuration to a type.

    Returns:
        The instance, and all faults; the instance counts only if there are none.

    Raises:
        ConfigError: The type is none that can be converted to.
    """
    if isinstance(type_, type) and isinstance(config, type_):
        return config, []
    if hasattr(type_, "__pydantic_validator__"):
        return _by_pydantic(config, type_)
    try:
        return msgspec.convert(config, type_, dec_hook=_decode), []
    except msgspec.ValidationError as error:
        faults = list(type_faults(config, type_, ()))
        return None, faults or [_words(error)]
    except (TypeError, NotImplementedError) as error:
        raise _no_type(type_, error, plugin) from error


def _decode(type_: type, value: object) -> object:
    if type_ is Path and isinstance(value, str | Path):
        return Path(value)
    if isinstance(value, type_):
        return value
    raise msgspec.ValidationError(
        f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`"
    )


def type_faults(
    value: object, type_: Any, path: tuple[object, ...], secret: bool = False
) -> Iterator[str]:
    """Yield every fault of a value that is to be of a type, each with its path."""
    try:
        msgspec.convert(value, type_, dec_hook=_decode)
    except msgspec.ValidationError as error:
        inner, marked = stripped(type_, value)
        secret = secret or marked
        deeper = list(_deeper(value, inner, path, secret))
        yield from deeper or [_told(path, _words(error), value, secret)]


def _deeper(value: object, type_: Any, path: tuple[object, ...], secret: bool) -> Iterator[str]:
    origin, arguments = get_origin(type_) or type_, get_args(type_)
    if isinstance(value, Mapping):
        if fields := fields_of(origin):
            yield from _field_faults(value, origin, fields, path, secret)
        elif isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
            for key, item in value.items():
                yield from type_faults(item, arguments[1], (*path, key), secret)
    elif isinstance(value, list | tuple) and arguments and _is_sequence(origin):
        several = origin is tuple and arguments[-1] is not Ellipsis
        for number, item in enumerate(value):
            wanted = arguments[number] if several and number < len(arguments) else arguments[0]
            yield from type_faults(item, wanted, (*path, number), secret)


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
            yield from type_faults(value[name], field_type, (*path, name), secret)
        elif required:
            yield f"{_dotted((*path, name))} is missing"
    config = getattr(type_, "__struct_config__", None)
    if config is not None and config.forbid_unknown_fields:
        for key in value.keys() - fields.keys():
            near = did_you_mean(str(key), fields)
            yield f"{_dotted((*path, key))} is unknown" + (f" ({near})" if near else "")


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
    validator = _compiled(schema, plugin)
    secrets = secret_names(schema)
    try:
        return [
            _told(path, error.message, error.instance, _leads_to(path, secrets))
            for error in validator.iter_errors(config)
            for path in (tuple(error.instance_path),)
        ]
    except (ValueError, TypeError) as error:
        return [f"the whole: it holds what JSON does not know: {error}"]


def check_schema(schema: Any, plugin: str | None) -> None:
    """Check that a `config_schema` is one, before there is a configuration.

    Raises:
        ConfigError: It is neither a JSON Schema nor a type that can be converted to.
    """
    if schema is None:
        return
    if isinstance(schema, Mapping | bool):
        _compiled(schema, plugin)
        return
    if not hasattr(schema, "__pydantic_validator__"):
        try:
            msgspec.json.Decoder(schema, dec_hook=_decode)
        except (TypeError, RuntimeError, NameError) as error:
            raise _no_type(schema, error, plugin) from error
        if isinstance(schema, type) and not fields_of(schema) and not _is_known(schema):
            raise _no_type(schema, "it has no fields", plugin)


def _is_known(type_: type) -> bool:
    """Tell whether msgspec itself knows a type, so that a configuration can be of it."""
    return not isinstance(msgspec.inspect.type_info(type_), msgspec.inspect.CustomType)


def _compiled(schema: Any, plugin: str | None) -> Any:
    try:
        import jsonschema_rs
    except ImportError as error:
        raise ConfigError(
            "config_schema is a JSON Schema, and jsonschema-rs is not installed",
            plugin=plugin,
            remedy="Run `pip install veko[manager]`, or give a msgspec.Struct.",
        ) from error
    try:
        return jsonschema_rs.validator_for(schema, mask="it", offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        where = _dotted(getattr(error, "instance_path", ()))
        words = getattr(error, "message", None) or str(error)
        raise ConfigError(
            f"config_schema is not a JSON Schema: {where}: {words}",
            plugin=plugin,
            remedy="Mend the schema.",
        ) from error


def _no_type(type_: object, why: object, plugin: str | None) -> ConfigError:
    return ConfigError(
        f"config_schema is {type_!r}, which nothing can be converted to: {why}",
        plugin=plugin,
        remedy=_REMEDY,
    )


def _by_pydantic(config: object, type_: Any) -> tuple[object, list[str]]:
    """Convert by pydantic, whose types say by themselves what they accept."""
    import pydantic

    try:
        return pydantic.TypeAdapter(type_).validate_python(config), []
    except pydantic.ValidationError as error:
        secrets = secret_names(type_)
        faults: list[str] = []
        for one in error.errors(include_url=False, include_context=False):
            path, kind, words = one["loc"], one["type"], one["msg"]
            hidden = _leads_to(path, secrets)
            if kind == "missing":
                faults.append(f"{_dotted(path)} is missing")
            elif hidden and kind in {"value_error", "assertion_error"}:
                faults.append(f"{_dotted(path)}: its validator refused it")
            else:
                words = words[:1].lower() + words[1:]
                faults.append(_told(path, words, one["input"], hidden))
        return None, faults


def _leads_to(path: Sequence[object], secrets: AbstractSet[str | None]) -> bool:
    return None in secrets or not secrets.isdisjoint(path)
