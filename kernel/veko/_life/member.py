"""A plugin that is reloaded: its old generation, its new one, and the state between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .._bus.limits import must_pass
from ..errors import LoadError, VekoError
from .generation import Generation, PluginRecord
from .states import State

__all__ = ["Member"]

_NOTHING: Final[Any] = object()


class Member:
    """A plugin of the group that reloads together.

    Attributes:
        plugin: The plugin in its new version.
        changes: What is merged over the configuration that the old generation was given.
        active: Whether the plugin is switched on.
        services: The names of the services that the old generation provides.
        old: The generation that it has.
        new: The generation that it gets.
        down: Whether the old one ends before the new one begins.
        fault: Why it did not come back as it was; `None` if it did, or did not have to.
    """

    def __init__(self, record: PluginRecord) -> None:
        assert record.current is not None
        self.record = record
        self.old = record.current
        self.plugin = self.old.plugin
        self.changes: dict[str, Any] = {}
        self.active = record.state is State.ACTIVE
        self.services = {entry.key for entry in self.old.entries if entry.kind == "service"}
        self.new: Generation | None = None
        self.down = False
        self.fault: VekoError | None = None
        self._state: Any = _NOTHING

    def export(self) -> None:
        """Take the old generation's state; what `export_state()` raises refuses the reload."""
        export = self.old.plugin.life_cycle("export_state")
        if export is not None and self.plugin.life_cycle("import_state") is not None:
            self._state = self._call("export_state", export)

    def hand_over(self) -> None:
        """Give the old generation's state to the new one; what is raised refuses the reload."""
        if not self.down:
            self.export()
        take = self.plugin.life_cycle("import_state")
        if take is not None and self._state is not _NOTHING:
            self._call("import_state", take, self._state, self.old.version)

    def _call(self, step: str, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except BaseException as error:
            if must_pass(error):
                raise
            raise LoadError(
                f"the state of {self.old.version} could not be handed over: {step}() raised "
                f"{type(error).__name__}: {error}",
                step=step,
                plugin=self.record.name,
                path=self.plugin.source,
                remedy="The old generation keeps running; fix export_state() or import_state().",
            ) from error
