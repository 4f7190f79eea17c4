"""Environment variables that configure plugins: `VEKO_PLUGINS__GUARD__TOKEN`.

After the prefix come the plugin's name and the path of the field, parted by two underscores. Upper
and lower case count as the same, and an underscore also stands for `-` and `.`. The names and types
that the plugin declares, by its `config_schema` or its `default_config`, decide which field is
meant and whether the text is a string or JSON.

Promise: no message here holds a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from veko import Manifest
from veko.extend import merge_config

from .faults import decode_path
from .secret_fields import fields_of, stripped

__all__ = ["PREFIX", "Sections", "is_of_kubernetes", "parts_of", "plugin_part", "words_of"]

PREFIX: Final = "VEKO_PLUGINS__"
_BETWEEN: Final = "__"
_OTHER: Final = re.compile(r"[-.]")
_SERVICE: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$")
_PORT: Final = re.compile(r"_PORT(_\d+_(TCP|UDP|SCTP))?$")
_PART_OF_PORT: Final = re.compile(r"_PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)$")
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True,
                 "0": False, "false": False, "no": False, "off": False}  # fmt: skip


def is_of_kubernetes(variable: str, text: str) -> bool:
    """Return whether Kubernetes sets a variable, for a service whose name begins with `veko`.

    Args:
        variable: Its name.
        text: Its value.
    """
    if _SERVICE.search(variable) or _PART_OF_PORT.search(variable):
        return True
    return _PORT.search(variable) is not None and _ADDRESS.match(text) is not None


def words_of(text: str) -> object:
    """Return the boolean that a text means (`yes`, `off`, `1`), or else the text."""
    return _WORDS.get(text.strip().lower(), text)


def plugin_part(name: str) -> str:
    """Return a plugin's name as it stands in a variable: `my-plugin` is `MY_PLUGIN`."""
    return _OTHER.sub("_", name).upper()


class Sections(NamedTuple):
    """The configurations that an application gives its plugins, in the order of their precedence.

    Attributes:
        files: Sections of the settings files, by plugin.
        variables: Variables whose names begin with `PREFIX`, with their texts.
        arguments: Sections that were given in code, by plugin.
    """

    files: Mapping[str, Mapping[str, Any]] = {}
    variables: Mapping[str, str] = {}
    arguments: Mapping[str, Mapping[str, Any]] = {}

    def of(self, name: str, manifest: Manifest | None = None) -> dict[str, Any]:
        """Return a plugin's section.

        Args:
            name: The plugin's name.
            manifest: What the plugin declares; without it, a text that is JSON is read as JSON.
        """
        section: dict[str, Any] = dict(self.files.get(name, {}))
        given = self.arguments.get(name, {})
        if not (section or given or self.variables):  # that of most plugins
            return section
        begin = f"{PREFIX}{plugin_part(name)}{_BETWEEN}"
        schema = None if manifest is None else manifest.config_schema
        default: Any = {} if manifest is None else manifest.default_config
        default = merge_config(merge_config(default, section), given)
        for variable in sorted(self.variables):
            if variable.upper().startswith(begin):
                path = variable[len(begin) :].split(_BETWEEN)
                found = _placed(path, self.variables[variable], schema, default)
                section = merge_config(section, found)
        return merge_config(section, given)

    def mentions(self, name: str) -> bool:
        """Return whether a plugin has a section from anywhere."""
        return name in self.files or name in self.arguments or any(self._variables_of(name))

    def with_table(self, key: str) -> list[str]:
        """Return the plugins whose sections have a table of a name, from anywhere."""
        names = {*self.files, *self.arguments}
        found = [name for name in names if isinstance(self.of(name).get(key), Mapping)]
        inner = f"{_BETWEEN}{plugin_part(key)}{_BETWEEN}"
        of_variables = {
            variable.upper().removeprefix(PREFIX).partition(_BETWEEN)[0].lower()
            for variable in self.variables
            if variable.upper().removeprefix(PREFIX).partition(_BETWEEN)[2].startswith(inner[2:])
        }
        known = {plugin_part(name) for name in found}
        return sorted([*found, *(one for one in of_variables if one.upper() not in known)])

    def _variables_of(self, name: str) -> list[str]:
        begin = f"{PREFIX}{plugin_part(name)}{_BETWEEN}"
        return [one for one in self.variables if one.upper().startswith(begin)]


def _placed(path: list[str], text: str, schema: Any, default: Any) -> dict[str, Any]:
    """Return a text as a mapping that holds it at a path."""
    step, *rest = path
    parts = parts_of(schema)
    known = [*parts, *(default if isinstance(default, Mapping) else ())]
    wanted = plugin_part(step)
    name = next((one for one in known if plugin_part(str(one)) == wanted), step.lower())
    inner = parts.get(name)
    held = default.get(name) if isinstance(default, Mapping) else None
    if rest:
        return {name: _placed(rest, text, inner, held)}
    return {name: _read(text, inner, held)}


def parts_of(schema: Any) -> Mapping[str, Any]:
    """Return what a schema or type says of each of its fields, by name."""
    if schema is None:  # that of most plugins
        return {}
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        return properties if isinstance(properties, Mapping) else {}
    type_, _ = stripped(schema, {})
    model: Any = getattr(type_, "model_fields", None)
    if isinstance(model, Mapping):
        aliases = {name: (one.validation_alias, one.alias, name) for name, one in model.items()}
        return {
            next(alias for alias in aliases[name] if isinstance(alias, str)): one.annotation
            for name, one in model.items()
        }
    return {name: field for name, (field, _) in fields_of(type_).items()}


def _read(text: str, schema: Any, default: object) -> object:
    """Return the value that a text means, as plain data."""
    if isinstance(schema, Mapping):
        kinds = schema.get("type", ())
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        if "string" in kinds:
            return text
        if "boolean" in kinds:
            return _as_json(words_of(text))
    elif schema is not None:
        return _by_type(text, schema)
    elif isinstance(default, str):
        return text
    elif isinstance(default, bool):
        return _as_json(words_of(text))
    return _as_json(text)


def _by_type(text: str, type_: Any) -> object:
    plain, _ = stripped(type_, text)
    if plain is bool:
        return words_of(text)
    if plain is str:
        return text
    try:
        value = msgspec.convert(text, type_, strict=False, dec_hook=decode_path)
    except (msgspec.ValidationError, TypeError):
        found = _as_json(text)
        # Only containers must be JSON; anything else is left to what checks the configuration.
        return found if isinstance(found, dict | list) else text
    return value if value is None or isinstance(value, int | float) else text


def _as_json(text: object) -> object:
    """Return the value of a text that is JSON, or else what was given."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> object:
    raise ValueError(constant)  # NaN and the infinities are no JSON
