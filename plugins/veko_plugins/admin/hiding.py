"""Configurations and schemas as they leave the process: as plain data, without secrets.

A value is secret if the plugin's schema says so, or if its name alone does (`api_key`): of a plugin
with a schema only text, of one without a schema everything under that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from veko import PluginRecord

from .._lib.masking import MASK, sounds_secret
from .._lib.secret_fields import masked, secret_names

__all__ = ["hidden_config", "hidden_defaults", "hides", "json_schema"]

_DEPTH: Final = 32
_VALUES: Final = ("default", "examples", "example", "const", "enum")
"""The keywords of a JSON Schema that may quote a value."""


def hidden_config(record: PluginRecord) -> Any:
    """Return a plugin's configuration with its defaults, as plain data without secrets."""
    schema = record.manifest.config_schema
    return _hidden(masked(record.config, schema), strict=schema is None)


def hidden_defaults(record: PluginRecord) -> Any:
    """Return the `default_config` of a plugin without secrets."""
    schema = record.manifest.config_schema
    return _hidden(masked(record.manifest.default_config, schema), strict=schema is None)


def _hidden(value: Any, *, strict: bool, secret: bool = False, depth: int = 0) -> Any:
    if depth > _DEPTH:
        return MASK
    if isinstance(value, Mapping):
        return {
            key: _hidden(item, strict=strict, secret=secret or sounds_secret(key), depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_hidden(item, strict=strict, secret=secret, depth=depth + 1) for item in value]
    if secret and value is not None and (strict or isinstance(value, str)):
        return MASK
    return value


def hides(value: object) -> bool:
    """Return whether a value has a mask in it."""
    if isinstance(value, str):
        return MASK in value
    if isinstance(value, Mapping):
        return any(map(hides, value.values()))
    return isinstance(value, list | tuple) and any(map(hides, value))


def json_schema(schema: object) -> dict[str, Any] | None:
    """Return the JSON Schema of a `config_schema`, with secrets as `writeOnly` and unquoted.

    Args:
        schema: A type, a JSON Schema, or `None`.

    Returns:
        The JSON Schema; `None` if there is none, or if none can be made of the type.
    """
    if schema is None or isinstance(schema, bool):
        return None
    made: Any
    if isinstance(schema, Mapping):
        made = msgspec.to_builtins(dict(schema), enc_hook=str)
    else:
        try:
            if callable(model := getattr(schema, "model_json_schema", None)):
                made = model()
            else:
                made = msgspec.json.schema(schema, schema_hook=lambda _: {"type": "string"})
        except Exception:  # the type may be of any library
            return None
    return _marked(made, secret_names(schema)) if isinstance(made, dict) else None


def _marked(node: Any, secrets: Iterable[str | None], *, secret: bool = False) -> Any:
    if isinstance(node, list):
        return [_marked(item, secrets, secret=secret) for item in node]
    if not isinstance(node, Mapping):
        return node
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties" and isinstance(value, Mapping):
            made[key] = {
                name: _marked(part, secrets, secret=name in secrets or _is_text(part, name))
                for name, part in value.items()
            }
        elif key in _VALUES and secret:
            continue
        elif key in _VALUES:
            made[key] = _hidden(masked(value, {}), strict=False) if key != "enum" else value
        else:
            made[key] = _marked(value, secrets, secret=secret)
    if secret:
        made["writeOnly"] = True
    return made


def _is_text(part: object, name: object) -> bool:
    kind = part.get("type") if isinstance(part, Mapping) else None
    return sounds_secret(name) and (kind == "string" or kind is None)
