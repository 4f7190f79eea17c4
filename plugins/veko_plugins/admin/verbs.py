"""The verbs by name, configurations, and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from veko import StateError, VekoError
from veko.errors import text_of

from .changing import Changing
from .configs import at, etag_of
from .documents import Change, CommandAnswer, ConfigView, PluginDetails
from .hiding import hidden_config
from .intents import Load, Reload, Restore, Toggle, Undo, Unload

__all__ = ["Verbs"]

_PYTHON: Final = "python"


class Verbs(Changing):
    """What can be looked at and done, each verb by its name."""

    # -- configurations

    def config(self, name: str, path: tuple[str, ...] = ()) -> ConfigView:
        """Return a plugin's configuration, or the part of it at a path, without secrets.

        Raises:
            NotFoundError: There is no such plugin.
            AdminError: There is nothing at the path (404).
        """
        record = self._planner.known(name, core=True)
        if record.current is None:
            raise StateError("it is not loaded, so it has no configuration", plugin=name)
        value = at(hidden_config(record), path, name)
        return ConfigView(value=value, etag=etag_of(record, self._key))

    def plugin(self, name: str) -> PluginDetails:
        """Return everything about one plugin."""
        details = super().plugin(name)
        record = self._kernel.get(name)
        if record is None:
            return details
        return msgspec.structs.replace(details, config_etag=etag_of(record, self._key))

    # -- commands

    async def run(
        self,
        name: str,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
        words: Sequence[str] | None = None,
    ) -> CommandAnswer:
        """Run a plugin's command.

        Args:
            name: The command.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            words: The words of a command line, instead of both.

        Raises:
            NotFoundError: There is no such command.
            VekoError: The arguments are not its, or it failed.
        """
        commands = self._need("commands")
        try:
            if words is not None:
                result = await commands.invoke(name, words)
            else:
                result = await commands.run(name, *args, **(kwargs or {}))
        except VekoError:
            raise
        except Exception as error:
            raise StateError(
                f"the command {name!r} failed: {type(error).__name__}: {text_of(error)}",
                remedy="The log has the traceback.",
            ) from error
        return CommandAnswer(command=name, result=_plain(result))

    def changes(self) -> tuple[Change, ...]:
        """Return the changes that were done, the newest first."""
        return self.history.changes()

    # -- the verbs by name

    async def load(
        self, plugin: str, config: Mapping[str, Any] | None = None, *, who: str = _PYTHON
    ) -> Change:
        """Load a plugin; see `intents.Load`."""
        return await self.apply(Load(plugin, dict(config or {})), who=who)

    async def unload(self, plugin: str, *, cascade: bool = False, who: str = _PYTHON) -> Change:
        """Unload a plugin; see `intents.Unload`."""
        return await self.apply(Unload(plugin, cascade), who=who)

    async def toggle(
        self,
        plugin: str,
        active: bool | None = None,
        *,
        cascade: bool = False,
        who: str = _PYTHON,
    ) -> Change:
        """Switch a plugin on or off; see `intents.Toggle`."""
        return await self.apply(Toggle(plugin, active, cascade), who=who)

    async def reload(self, plugin: str, *, who: str = _PYTHON) -> Change:
        """Reload a plugin; see `intents.Reload`."""
        return await self.apply(Reload(plugin), who=who)

    async def restore(self, backup: str, *, who: str = _PYTHON) -> Change:
        """Restore a backup; see `intents.Restore`."""
        return await self.apply(Restore(backup), who=who)

    async def undo(self, change: str, *, who: str = _PYTHON) -> Change:
        """Take a change back; see `intents.Undo`."""
        return await self.apply(Undo(change), who=who)


def _plain(value: object) -> object:
    """Return what a command returned as plain data, or as text."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        msgspec.json.encode(plain)
    except Exception:  # the value may be of a plugin's class and raise anything
        return repr(value)
    return plain
