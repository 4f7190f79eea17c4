"""A plugin's `config_schema` (a type or a JSON Schema), and configurations converted by it.

Cost: a type converts in microseconds; a JSON Schema is compiled at each call.
Promise: all faults at once; a secret's value is in no message; a schema is fetched from nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from veko import ConfigError
from veko.errors import Fault

from .faults import decode_path, described, dotted, fault_of, type_faults
from .secret_fields import fields_of, leads_to_secret, secret_names
from .versions import did_you_mean

__all__ = ["check_schema", "convert_config", "schema_faults"]

_REMEDY: Final = "Use a msgspec.Struct, a dataclass, a pydantic model, or a mapping (JSON Schema)."
_FIELD: Final = "config_schema"


def convert_config(config: object, type_: Any, plugin: str | None) -> tuple[object, list[Fault]]:
    """Convert a configuration to a type.

    Args:
        config: A mapping, or an instance of the type.
        type_: The plugin's `config_schema`.
        plugin: The plugin's name, for the error.

    Returns:
        The instance, and all faults; the instance counts only if there are none.

    Raises:
        ConfigError: Nothing converts to a type like this one.
    """
    typed = hasattr(type_, "__required_keys__")  # a typed dictionary allows no instance checks
    if not typed and isinstance(type_, type) and isinstance(config, type_):
        return config, []
    if hasattr(type_, "__pydantic_validator__"):
        return _convert_by_pydantic(config, type_)
    try:
        return msgspec.convert(config, type_, dec_hook=decode_path), []
    except msgspec.ValidationError as error:
        faults = list(type_faults(config, type_))
        return None, faults or [fault_of(error)]
    except (TypeError, NotImplementedError) as error:
        raise _unusable(type_, error, plugin) from error


def _convert_by_pydantic(config: object, type_: Any) -> tuple[object, list[Fault]]:
    import pydantic

    try:
        return pydantic.TypeAdapter(type_).validate_python(config), []
    except pydantic.ValidationError as error:
        secrets = secret_names(type_)
        faults: list[Fault] = []
        for one in error.errors(include_url=False, include_context=False):
            path, kind, words = one["loc"], one["type"], one["msg"]
            hidden = leads_to_secret(path, secrets)
            whole = bool(secrets) and not isinstance(one["input"], str | int | float | None)
            if kind == "missing":
                faults.append(Fault(dotted(path), "is missing"))
            elif kind == "extra_forbidden":
                # Its value is not shown: nothing is known of it, and it may be a misspelt secret.
                near = did_you_mean(str(path[-1]), fields_of(type_) or _model_names(type_))
                faults.append(Fault(dotted(path), "is unknown" + (f" ({near})" if near else "")))
            elif (hidden or whole) and kind in {"value_error", "assertion_error"}:
                # What a validator of the plugin's raised may quote the secret.
                faults.append(Fault(dotted(path), "its validator refused it"))
            else:
                words = words[:1].lower() + words[1:]
                faults.append(described(path, words, one["input"], secret=hidden))
        return None, faults


def _model_names(type_: Any) -> Iterable[str]:
    return getattr(type_, "__pydantic_fields__", ())


def schema_faults(
    config: object, schema: Mapping[str, object] | bool, plugin: str | None
) -> list[Fault]:
    """Return all faults that a JSON Schema finds in a configuration.

    Args:
        config: The configuration.
        schema: The JSON Schema.
        plugin: The plugin's name, for the error.

    Raises:
        ConfigError: The schema is invalid or refers to another document, or jsonschema-rs is
            missing.
    """
    validator = _compiled(schema, plugin)
    secrets = secret_names(schema)
    try:
        return [
            described(path, error.message, error.instance, secret=leads_to_secret(path, secrets))
            for error in validator.iter_errors(config)
            for path in (tuple(error.instance_path),)
        ]
    except (ValueError, TypeError) as error:
        return [Fault("", f"it contains a value that JSON does not have: {error}")]


def check_schema(schema: Any, plugin: str | None) -> None:
    """Check a `config_schema`, before there is a configuration.

    Args:
        schema: What the manifest gives.
        plugin: The plugin's name, for the error.

    Raises:
        ConfigError: It is neither a JSON Schema nor a type that a configuration can convert to.
    """
    if isinstance(schema, Mapping | bool):
        _compiled(schema, plugin)
        return
    if not hasattr(schema, "__pydantic_validator__"):
        try:
            msgspec.json.Decoder(schema, dec_hook=decode_path)
        except (TypeError, RuntimeError, NameError) as error:
            raise _unusable(schema, error, plugin) from error
        if isinstance(schema, type) and not fields_of(schema) and not _is_known(schema):
            raise _unusable(schema, "it has no fields", plugin)


def _is_known(type_: type) -> bool:
    """Return whether msgspec itself converts to a type."""
    return not isinstance(msgspec.inspect.type_info(type_), msgspec.inspect.CustomType)


def _compiled(schema: Any, plugin: str | None) -> Any:
    try:
        import jsonschema_rs
    except ImportError as error:
        raise ConfigError(
            "config_schema is a JSON Schema, and jsonschema-rs is not installed",
            plugin=plugin,
            remedy="Run `pip install veko[manager]`, or use a msgspec.Struct.",
        ) from error
    try:
        return jsonschema_rs.validator_for(schema, mask="it", offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        path = dotted(getattr(error, "instance_path", ()))
        fault = Fault(path, getattr(error, "message", None) or str(error))
        raise ConfigError(
            f"{plugin or 'a plugin'} is not valid",
            faults=[Fault(_FIELD, f"is not a JSON Schema: {fault}")],
            plugin=plugin,
            remedy="Fix the schema.",
        ) from error


def _unusable(type_: object, why: object, plugin: str | None) -> ConfigError:
    return ConfigError(
        f"{plugin or 'a plugin'} is not valid",
        faults=[Fault(_FIELD, f"is {type_!r}, which no configuration can convert to: {why}")],
        plugin=plugin,
        remedy=_REMEDY,
    )
