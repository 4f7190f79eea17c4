"""What the host must know of the plugin before it loads it: manifest, steps, exports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final

import msgspec

from veko import Manifest, Plugin

from ..._lib.secret_fields import secret_names
from ..protocol import is_plain
from .resident import STEPS

__all__ = ["describe", "exported"]

_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Manifest))


def describe(plugin: Plugin) -> dict[str, Any]:
    """Return the manifest's fields, the steps that there are, and the exports.

    A `config_schema` that is a type stays here (`schema` is then `"type"`): the host gets a JSON
    Schema that names the secrets and accepts everything, and asks the worker to check.
    """
    fields = msgspec.structs.asdict(plugin.manifest)
    answer: dict[str, Any] = {"fields": fields}
    schema = fields["config_schema"]
    if schema is not None and not isinstance(schema, Mapping | bool):
        fields["config_schema"] = _secrets_of(schema)
        answer["schema"] = "type"
    fields["default_config"] = msgspec.to_builtins(fields["default_config"], enc_hook=str)
    found = dict(_exports(plugin))
    answer["steps"] = [step for step in STEPS if plugin.life_cycle(step) is not None]
    answer["functions"] = [name for name, value in found.items() if callable(value)]
    answer["constants"] = {name: value for name, value in found.items() if is_plain(value)}
    return answer


def _secrets_of(type_: object) -> dict[str, Any]:
    """Return a JSON Schema that accepts everything, with the secrets of a type."""
    names = secret_names(type_)
    secret = {"writeOnly": True}
    schema: dict[str, Any] = {
        "$defs": {"secrets": {"properties": dict.fromkeys(filter(None, names), secret)}}
    }
    return schema | secret if None in names else schema


def _exports(plugin: Plugin) -> Iterator[tuple[str, Any]]:
    exports = plugin.exports
    found = exports if isinstance(exports, Mapping) else _public(exports)
    for name, value in found.items():
        internal = isinstance(value, type | ModuleType) or name in _FIELDS or name in STEPS
        if isinstance(name, str) and not internal:
            yield name, value


def _public(exports: object) -> dict[str, Any]:
    return {n: getattr(exports, n) for n in dir(exports) if not n.startswith("_")}


def exported(plugin: Plugin, path: str) -> Any:
    """Return what a plugin exports under a name, or below it (`a.b`); `None` if it does not.

    Args:
        plugin: The plugin.
        path: The name, or names joined by dots.
    """
    first, *rest = path.split(".")
    found = dict(_exports(plugin)).get(first)
    for name in rest:
        if name.startswith("_"):
            return None
        found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
    return found
