"""Configurations of plugins: their sections, and the check before a configuration is used.

A plugin's `config_schema` is a type (a `msgspec.Struct` or dataclass: the configuration becomes an
instance of it) or a JSON Schema. This plugin hooks `config:validate` with the lowest priority, so
that it also checks what other hooks change; the kernel uses the result, or keeps the old
configuration.

Cost: a type converts in microseconds; the walk that finds every fault runs only if there is one. A
JSON Schema is compiled for each check.
Promise: every fault is reported with path, expectation and value, but never the value of a secret
(`Meta(extra={"secret": True})` in types, `writeOnly` or `format: password` in schemas). A schema
is never fetched from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from veko import ConfigError, Context, Manifest, Plugin, PluginRecord
from veko.errors import Fault
from veko.extend import merge_config

from ._lib.config_schemas import convert_config, schema_faults
from ._lib.variables import Sections, parts_of
from ._saved.overrides import Overrides
from ._saved.plugins import Exactly
from .options import Options

__all__ = ["BUDGET", "Config"]

BUDGET: Final = "budget"
"""The key of a section that limits what the plugin may use; see `ledger`."""
ENABLED: Final = "enabled"
"""The key of a section that says whether the plugin is loaded with all others."""


class Config(Plugin):
    """The service `config`, and the check of every configuration.

    Args:
        sections: Configuration by plugin, from files, the environment and the application.
        validate: Whether JSON Schemas are checked; types always convert.
        overrides: The file of what operators have changed over the sections; `None` for none.

    Attributes:
        overrides: What operators have changed over the sections.
    """

    name = "config"
    version = "2.0.0"
    description = "Configurations of plugins: sections, types, schemas."
    core = True

    _context: Context | None = None

    def __init__(
        self,
        sections: Sections | Mapping[str, Mapping[str, Any]] | None = None,
        *,
        validate: bool = True,
        overrides: Path | None = None,
    ) -> None:
        self.overrides = Overrides(overrides)
        if not isinstance(sections, Sections):
            sections = Sections(sections or {})
        self._sections = sections
        self._validates = validate

    def load(self, context: Context) -> None:
        """Provide the service and hook `config:validate`.

        Raises:
            BackupError: The file of overrides is damaged.
        """
        self._context = context
        self.overrides.read()
        context.provide("config", self)
        context.hook("config:validate", self._on_validate, priority=0)

    def section(
        self,
        name: str,
        given: Mapping[str, Any] | None = None,
        *,
        manifest: Manifest | None = None,
        overridden: bool = True,
    ) -> dict[str, Any]:
        """Return a plugin's configuration, without its `default_config`.

        The keys `enabled` and `budget` of its section are not for the plugin; see `why_off` and
        `budget`.

        Args:
            name: The plugin's name.
            given: Values that override its section; `Exactly` replaces the section.
            manifest: The plugin's; names and types of its fields decide how variables are read.
            overridden: Whether to apply what operators have changed.

        Raises:
            ConfigError: `given` is not a mapping.
        """
        if isinstance(given, Exactly):
            return dict(given)
        if not isinstance(given, Mapping | None):
            raise ConfigError(
                f"its configuration is of type {type(given).__name__}, not a mapping",
                plugin=name,
                remedy="Give a mapping, such as {'port': 25}.",
            )
        section = self._sections.of(name, manifest)
        if manifest is None or ENABLED not in manifest.default_config:
            section.pop(ENABLED, None)
        if not self._is_its_own(BUDGET, name, manifest):
            section.pop(BUDGET, None)
        if overridden:
            section = self.overrides.of(name).applied(section)
        return merge_config(section, given or {})

    def why_off(self, name: str) -> str | None:
        """Return why a plugin is not loaded with all others; `None` if it is.

        Its section says `enabled = false`, or an operator has switched it off or unloaded it.
        """
        if self._sections.of(name).get(ENABLED) is False:
            return f"enabled = false in [plugins.{name}]"
        off = self.overrides.of(name).off
        return None if off is None else f"{off} by an operator"

    def is_off(self, name: str) -> bool:
        """Return whether a plugin is left out; see `why_off`."""
        return self.why_off(name) is not None

    def budget(self, name: str, manifest: Manifest | None = None) -> object:
        """Return what the settings let a plugin use: the table `budget` of its section.

        Args:
            name: The plugin's name.
            manifest: The plugin's. If it declares a field `budget`, that is the plugin's own.

        Returns:
            The table as it is written, or `None`.
        """
        if self._is_its_own(BUDGET, name, manifest):
            return None
        return self._sections.of(name).get(BUDGET)

    def _is_its_own(self, key: str, name: str, manifest: Manifest | None) -> bool:
        """Return whether a plugin declares a field of its own of that name."""
        if manifest is None and self._context is not None:
            record = self._context.kernel.get(name)
            manifest = record.manifest if record is not None else None
        if manifest is None:
            return False
        return key in manifest.default_config or key in parts_of(manifest.config_schema)

    def check(self, config: object, schema: object, *, plugin: str | None = None) -> object:
        """Check a configuration.

        Args:
            config: A mapping, or the result of an earlier check.
            schema: A type, a JSON Schema (a mapping or a boolean), or `None`.
            plugin: The plugin's name, for the message.

        Returns:
            An instance of the type, or the configuration itself.

        Raises:
            ConfigError: The configuration does not match, or the schema is invalid; all faults
                are listed.
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
            owner = f" of {plugin!r}" if plugin else ""
            raise ConfigError(
                f"the configuration{owner} does not match its schema",
                faults=faults,
                plugin=plugin,
                remedy=_remedy(faults),
            )
        return result

    def _on_validate(self, config: object, plugin: PluginRecord) -> object:
        return self.check(config, plugin.manifest.config_schema, plugin=plugin.name)


def _remedy(faults: list[Fault]) -> str:
    """Return what to do about a configuration.

    A line of TOML belongs to the last section above it, so options that are appended to a file end
    up in a plugin's section.
    """
    options = Options.__struct_fields__
    lost = [f.path for f in faults if f.message.startswith("is unknown") and f.path in options]
    if not lost:
        return "Fix the values that are named."
    listed = ", ".join(f"`{name}`" for name in lost)
    said = (
        "are options of the application: write them"
        if len(lost) > 1
        else ("is an option of the application: write it")
    )
    return f"{listed} {said} above the first [section] of veko.toml."
