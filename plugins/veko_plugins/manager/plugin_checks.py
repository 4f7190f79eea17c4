"""Checks before a plugin loads, beside those of the kernel: by the service `validation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from veko import Kernel, Plugin
from veko.errors import DependencyError, VekoError

from .._source.source import Source

if TYPE_CHECKING:
    from ..validation import Validation

__all__ = ["PluginChecks"]


class PluginChecks:
    """Asks the service `validation`, as long as it is there and wanted.

    Args:
        kernel: The kernel.
        enabled: The option `enable_validation`.
    """

    def __init__(self, kernel: Kernel, enabled: bool) -> None:
        self._kernel = kernel
        self._enabled = enabled

    def check(self, plugin: Plugin, versions: Mapping[str, str] | None = None) -> None:
        """Check values, versions, and which distributions are installed.

        Args:
            plugin: The plugin.
            versions: Versions of plugins that reload with it, by name.

        Raises:
            VekoError: See `Validation.check`.
        """
        validation = self._validation()
        if validation is not None:
            validation.check(plugin, versions)

    def complete(self, fault: DependencyError, source: Source) -> VekoError:
        """Add what else is wrong with a plugin whose dependencies cannot be met."""
        validation = self._validation()
        if validation is None or source.outline is None:
            return fault
        return validation.complete(fault, source.outline.fields)

    def _validation(self) -> Validation | None:
        if not self._enabled:
            return None
        entry = self._kernel.bus.live.registry.get("service", "validation")
        return None if entry is None else entry.value
