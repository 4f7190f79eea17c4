"""Configurations of plugins: their sections, and the check before one is taken.

A plugin's `config_schema` is a type (a `msgspec.Struct`, a dataclass: the configuration becomes an
instance of it) or a JSON Schema. This plugin answers `config:validate`, last of all, so that what
others make of a configuration is checked too; the kernel takes what comes back, or keeps the old
one.

Cost: a type converts in microseconds; the walk that finds every fault runs only when there is
one. A JSON Schema is compiled for each check.
Promise: all faults are named with path, expectation and value; the value of a secret never is
(`Meta(extra={"secret": True})` in types, `writeOnly` or `format: password` in schemas). A schema
is never fetched from anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from veko import ConfigError, Context, Plugin

from ._lib.config_schemas import convert_config, schema_faults
from ._saved.plugins import Exactly
from .options import merged

__all__ = ["Config"]


class Config(Plugin):
    """The service `config`, and the check of every configuration.

    Args:
        sections: Configuration by plugin, as the files and the host give it.
        validate: Whether JSON Schemas are checked; types convert in any case.
    """

    name = "config"
    version = "2.0.0"
    description = "Configurations of plugins: sections, types, schemas."
    core = True

    def __init__(
        self, sections: Mapping[str, Mapping[str, Any]] | None = None, *, validate: bool = True
    ) -> None:
        self._sections = {name: dict(section) for name, section in (sections or {}).items()}
        self._validates = validate

    def load(self, context: Context) -> None:
        """Provide the service and check what the kernel asks about."""
        context.provide("config", self)
        context.hook("config:validate", self._on_validate, priority=0)

    def section(self, name: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what a plugin is configured with, before its `default_config` is put under it.

        Args:
            name: The plugin.
            given: What outweighs its section, or takes its place if it is `Exactly`.

        Raises:
            ConfigError: What is given is no mapping.
        """
        if isinstance(given, Exactly):
            return dict(given)
        if not isinstance(given, Mapping | None):
            raise ConfigError(
                f"its configuration is of type {type(given).__name__}, not a mapping",
                plugin=name,
                remedy="Give a mapping, such as {'port': 25}.",
            )
        return merged(self._sections.get(name, {}), given or {})

    def check(self, config: object, schema: object, *, plugin: str | None = None) -> object:
        """Check a configuration.

        Args:
            config: A mapping, or what an earlier check returned.
            schema: A type, a JSON Schema (a mapping or a boolean), or `None`.
            plugin: Whose it is, for the message.

        Returns:
            An instance of the type, or the configuration as it was.

        Raises:
            ConfigError: It does not fit, or the schema is none; all faults are listed.
        """
        if schema is None:
            return config
        if isinstance(schema, Mapping | bool):
            if not self._validates:
                return config
            faults, result = schema_faults(config, schema, plugin), config
        else:
            result, faults = convert_config(config, schema, plugin)
        if faults:
            whose = f"the configuration of {plugin!r}" if plugin else "the configuration"
            raise ConfigError(
                f"{whose} does not match its schema",
                faults=faults,
                plugin=plugin,
                remedy="Fix the values that are named.",
            )
        return result

    def _on_validate(self, config: object, plugin: Any) -> object:
        return self.check(config, plugin.manifest.config_schema, plugin=plugin.name)
