"""The core plugin `logging`: handlers for log records, and levels by plugin.

The idea: the kernel's `context.log` writes to the standard library's loggers `veko.plugin.<name>`
and fires `log`. This plugin has handlers for these (a readable console, a rotated file, as text or
JSON), and touches nothing until it is configured, by `configure` or `[plugins.logging]`: the
logging of a process belongs to the application.

Cost: nothing until configured; then one formatted line for each record.
Promise: what it sets up is removed at unload. No secret is written under a name that sounds secret,
nor passwords in URLs; see `values`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import msgspec

from veko import OptionError, Plugin, PluginRecord
from veko.extend import merge_config

from .config import LEVELS, LoggingConfig, config_of, number_of
from .files import open_log
from .formats import MODULES, JSONFormatter, TextFormatter
from .process import ProcessLogs
from .sinks import Sink, console
from .structlogs import adopt, release

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Logging"]

_PLUGIN: Final = "veko.plugin."
_OF_LEVELS: Final = ("level", "levels", "loggers")


class Logging(Plugin):
    """The core plugin of log handlers; the service `logging` is this object.

    Args:
        directory: Where a relative `file` starts; by default the working directory.
    """

    name = "logging"
    version = "2.0.0"
    description = "Console and file handlers for log records, and levels by plugin"
    core = True
    config_schema = LoggingConfig
    shared_config = True  # in all workers of `veko serve --workers`

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self.fields: dict[str, object] = {}
        self._context: Context | None = None
        self._config: LoggingConfig | None = None
        self._stream: TextIO | None = None
        self._traced = False
        self._stays = False
        self._base: dict[str, Any] = {}
        self._handlers: list[Sink] = []
        self._process: ProcessLogs | None = None
        self._former_level: int | None = None
        self._set: dict[str, int] = {}

    def load(self, context: Context) -> None:
        """Provide the service, and configure it if there is a configuration."""
        self._context = context
        context.provide("logging", self)
        context.hook("config:validate", self._on_validate, priority=-1)
        context.hook("config:change", self._on_change)
        context.hook("context:create", self._on_created)
        context.hook("plugin:loaded", self._on_loaded)
        if context.config:
            self._apply(self._effective(context.config))

    def unload(self) -> None:
        """Remove what was set up, unless it is to stay."""
        self._context = None
        if not self._stays:
            self.reset()

    # -- the service

    def configure(
        self,
        level: str | int = "info",
        file: Path | str | None = None,
        format: Literal["text", "json"] = "text",
        *,
        stream: TextIO | None = None,
        traced: bool = False,
        max_bytes: int = 10_000_000,
        backups: int = 5,
        levels: Mapping[str, str | int | None] | None = None,
        loggers: Mapping[str, str | int | None] | None = None,
        process: bool = False,
    ) -> None:
        """Write the records of Veko and its plugins to the console, and to a file if one is given.

        Calling it again replaces the earlier configuration.

        Args:
            level: `debug`, `info`, `success`, `warning`, `error`, `critical`, or a number of the
                standard library's logging. At `debug` tracebacks are whole; else Veko's frames are
                folded.
            file: A file to append to and rotate; its folder is created if it is missing. Several
                processes may write to one file.
            format: Whether a record is one line of text or one JSON object.
            stream: The console; standard error by default.
            traced: Whether the console shows tracebacks; at `debug` it always does. The file
                always has them.
            max_bytes: The size in bytes at which the file is rotated; 0 means never.
            backups: How many rotated files are kept.
            levels: Levels by plugin.
            loggers: Levels of other loggers.
            process: Whether the whole process is logged; see `LoggingConfig`.

        Raises:
            OptionError: A level or the format is unknown, or the file cannot be written.
        """
        if format not in ("text", "json"):
            raise OptionError(f"log format {format!r} is unknown", remedy="Use 'text' or 'json'.")
        number_of(level)
        for one in (*(levels or {}).values(), *(loggers or {}).values()):
            if one is not None:
                number_of(one)
        values = {
            "level": level, "file": None if file is None else str(file), "format": format,
            "max_bytes": max_bytes, "backups": backups, "levels": dict(levels or {}),
            "loggers": dict(loggers or {}), "process": process,
        }  # fmt: skip
        self.apply(config_of(values), stream=stream, traced=traced)

    def apply(
        self,
        config: LoggingConfig,
        *,
        stream: TextIO | None = None,
        traced: bool = False,
        stays: bool = False,
    ) -> None:
        """Put a configuration into effect, as `configure` does.

        Args:
            config: The configuration.
            stream: The console; standard error by default.
            traced: Whether the console shows tracebacks.
            stays: Whether it stays when this plugin unloads, until `reset`: for a command, which
                logs before and after the application.

        Raises:
            OptionError: The file cannot be written.
        """
        self._base = msgspec.structs.asdict(config)
        self._stream, self._traced, self._stays = stream, traced, stays
        self._apply(config, again=True)

    def read(self, values: object) -> LoggingConfig:
        """Check and convert a configuration; see `LoggingConfig`.

        Raises:
            ConfigError: A value is unknown or has the wrong type.
        """
        return config_of(values)

    async def set_level(self, plugin: str, level: str | int | None) -> None:
        """Set the level of a plugin, at once; with `--workers`, the other workers follow.

        Args:
            plugin: The plugin's name; it need not be loaded.
            level: The level; `None` for that of the application.

        Raises:
            ConfigError: There is no such level.
            StateError: This plugin is not loaded.
        """
        changes = {"levels": {plugin: level}}
        if self._context is None:
            config = msgspec.structs.asdict(self._config or LoggingConfig())
            self._apply(config_of(merge_config(config, changes)))
            return
        await self._context.kernel.update_config(self.name, changes)

    def level_of(self, plugin: str) -> str:
        """Return the name of the level from which on a plugin's records are written."""
        number = logging.getLogger(_PLUGIN + plugin).getEffectiveLevel()
        names = {value: name for name, value in LEVELS.items()} | {50: "critical"}
        return names.get(number, str(number))

    def logger_levels(self) -> dict[str, int]:
        """Return the levels of the loggers that the configuration names."""
        loggers = {} if self._config is None else self._config.loggers
        return {name: number_of(level) for name, level in loggers.items() if level is not None}

    @property
    def lost(self) -> int:
        """How many records could not be written, by all handlers that there are now."""
        return sum(handler.lost for handler in self._handlers)

    @property
    def config(self) -> LoggingConfig | None:
        """What is in effect; `None` if nothing is configured."""
        return self._config

    def reset(self) -> None:
        """Remove what was set up."""
        release()
        for name, former in self._set.items():
            logging.getLogger(name).setLevel(former)
        self._set.clear()
        self._remove_handlers()
        self._config = None
        self._base = {}
        self._stays = False

    # -- putting it into effect

    def _effective(self, given: Mapping[str, Any]) -> LoggingConfig:
        """Return a configuration, over what `configure` set."""
        return config_of(merge_config(self._base, given))

    def _apply(self, config: LoggingConfig, *, again: bool = False) -> None:
        before = self._config
        if again or before is None or _of_handlers(before) != _of_handlers(config):
            self._replace_handlers(config)
        elif before.level != config.level:
            self._replace_handlers(config, keep=True)
        self._config = config
        self._set_levels(config)
        if config.process:
            adopt()

    def _replace_handlers(self, config: LoggingConfig, *, keep: bool = False) -> None:
        """Make the handlers, and only then remove those of before: making them may fail."""
        level = number_of(config.level)
        whole = level <= LEVELS["debug"]
        stream = self._stream or (sys.__stderr__ if config.process else sys.stderr) or sys.stderr
        shown: dict[str, Any] = {"folds": not whole, "fields": self.fields}
        text = TextFormatter(dated=False, traced=self._traced or whole, **shown)
        json = JSONFormatter(**shown)
        if keep:
            handlers = self._handlers
        else:
            handlers = [console(stream, text)]
            if config.file is not None:
                handlers.append(self._open(config))
        for handler, formatter in zip(handlers, (text, TextFormatter(**shown)), strict=False):
            handler.setFormatter(json if config.format == "json" else formatter)
        self._handlers, kept = ([], handlers) if keep else (self._handlers, handlers)
        self._remove_handlers()
        self._handlers = kept
        if config.process:
            replaced = stream if config.format == "json" and stream is sys.__stderr__ else None
            self._process = ProcessLogs(kept, level, replaced)
            self._process.install()
            return
        logger = logging.getLogger("veko")
        self._former_level = logger.level
        logger.setLevel(level)
        for handler in kept:
            logger.addHandler(handler)

    def _open(self, config: LoggingConfig) -> Sink:
        path = Path(self.directory or ".", config.file or "").absolute()
        return open_log(path, config.max_bytes, config.backups)

    def _remove_handlers(self) -> None:
        if self._process is not None:
            self._process.remove()
            self._process = None
        logger = logging.getLogger("veko")
        if self._former_level is not None:
            logger.setLevel(self._former_level)
            self._former_level = None
        while self._handlers:
            handler = self._handlers.pop()
            logger.removeHandler(handler)
            handler.close()

    def _set_levels(self, config: LoggingConfig) -> None:
        wanted: dict[str, int] = {}
        for name, level in config.levels.items():
            if level is not None:
                wanted[_PLUGIN + name] = number_of(level)
                wanted |= dict.fromkeys(_roots(name), number_of(level))
        wanted |= self.logger_levels()
        for name in self._set.keys() - wanted.keys():
            logging.getLogger(name).setLevel(self._set.pop(name))
        for name, number in wanted.items():
            logger = logging.getLogger(name)
            self._set.setdefault(name, logger.level)
            logger.setLevel(number)

    # -- hooks

    def _on_validate(self, config: object, record: PluginRecord) -> object:
        """Refuse what is wrong, also a file that cannot be written, before it is in effect."""
        if record.plugin is not self:
            return None
        checked = config_of(config)
        if checked.file is not None and (self._config is None or checked.file != self._config.file):
            self._open(checked).close()
        return checked

    def _on_change(self, config: object, record: PluginRecord) -> None:
        if record.plugin is self and record.current is not None:
            self._apply(self._effective(record.current.given))

    def _on_created(self, context: Context) -> None:
        """Take note of a plugin whose module is imported now, and of structlog if it is used."""
        MODULES[_base(context.name)] = context.name
        if self._config is None:
            return
        level = self._config.levels.get(context.name)
        if level is not None:
            for root in _roots(context.name):
                self._set.setdefault(root, logging.NOTSET)
                logging.getLogger(root).setLevel(number_of(level))
        self._on_loaded()

    def _on_loaded(self) -> None:
        if self._config is not None and self._config.process:
            adopt()


def _base(plugin: str) -> str:
    return re.sub(r"\W", "_", plugin)


def _roots(plugin: str) -> list[str]:
    """Return the names of a plugin's modules, one for each generation that there is."""
    begin = f"veko_generation.{_base(plugin)}_"
    return [
        name
        for name in list(sys.modules)
        if name.startswith(begin) and name[len(begin) :].isdecimal()
    ]


def _of_handlers(config: LoggingConfig) -> object:
    return msgspec.structs.replace(config, **dict.fromkeys(_OF_LEVELS))
