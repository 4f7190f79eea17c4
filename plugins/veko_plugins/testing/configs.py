"""Wrong configurations: for each field of a plugin's, a value of another type."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from veko import Manifest

__all__ = ["wrong_configs"]


def wrong_configs(manifest: Manifest) -> list[tuple[str, object]]:
    """Return fields of a plugin's configuration with values that they should refuse.

    The fields are those of `default_config` and of `config_schema`. One of which the type is not
    known, or allows anything, is left out.
    """
    defaults: Mapping[str, Any] = manifest.default_config or {}
    types = _types(manifest.config_schema)
    found: list[tuple[str, object]] = []
    for name in dict.fromkeys((*defaults, *types)):
        kind = types.get(name, type(defaults.get(name)))
        if kind in (Any, object, type(None)):
            continue
        wrong = "wrong" if _is_mapping(kind) else {"wrong": ["wrong"]}
        found.append((name, wrong))
    return found


def _is_mapping(kind: object) -> bool:
    known = typing.get_origin(kind) or kind
    return known == "object" or (isinstance(known, type) and issubclass(known, Mapping))


def _types(schema: object) -> dict[str, object]:
    if schema is None:
        return {}
    if isinstance(schema, Mapping):
        properties: Mapping[str, Any] = schema.get("properties", {})
        return {
            name: _json_type(one.get("type")) if isinstance(one, Mapping) else Any
            for name, one in properties.items()
        }
    try:
        return dict(typing.get_type_hints(schema))
    except Exception:  # names that cannot be resolved: the fields of default_config are known
        return {}


def _json_type(kind: object) -> object:
    if isinstance(kind, Iterable) and not isinstance(kind, str):
        return Any
    return Any if kind is None else kind
