"""How logging is configured: `[plugins.logging]`, and the names of levels."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from veko import ConfigError, OptionError

__all__ = ["LEVELS", "LoggingConfig", "config_of", "number_of"]

LEVELS: Final = {"debug": 10, "info": 20, "success": 25, "warning": 30, "error": 40}
_KNOWN: Final = {**LEVELS, "critical": 50}
_HIGHEST: Final = 1_000


class LoggingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How logging is configured: `[plugins.logging]`.

    Attributes:
        level: The lowest level that is written: `debug`, `info`, `success`, `warning`, `error`,
            `critical`, or a number of the standard library's logging. At `debug` tracebacks are
            whole; else Veko's frames are folded.
        format: Whether a record is one line of text or one JSON object.
        file: A file to append to and rotate; a relative path starts at the application's directory.
        max_bytes: The size in bytes at which the file is rotated; 0 means never.
        backups: How many rotated files are kept: `veko.log.1`, the newest, to `veko.log.5`.
        levels: Levels by plugin; `None` (null) stands for `level`.
        loggers: Levels of other loggers by name, such as `"sqlalchemy.engine" = "info"`.
        process: Whether the whole process is logged: also other loggers from `warning` on,
            warnings, and exceptions that nothing caught. `veko serve` sets it.
    """

    level: str | int = "info"
    format: Literal["text", "json"] = "text"
    file: str | None = None
    max_bytes: Annotated[int, Meta(ge=0)] = 10_000_000
    backups: Annotated[int, Meta(ge=0, le=1_000)] = 5
    levels: dict[str, str | int | None] = {}
    loggers: dict[str, str | int | None] = {}
    process: bool = False


def number_of(level: str | int) -> int:
    """Return the number of a level.

    Raises:
        OptionError: There is no such level.
    """
    if isinstance(level, str) and level.strip().isdecimal():
        level = int(level)
    if isinstance(level, int) and not isinstance(level, bool):
        if 0 < level <= _HIGHEST:
            return level
        raise OptionError(
            f"log level {level} is not between 1 and {_HIGHEST}",
            remedy=f"Use one of {', '.join(_KNOWN)}.",
        )
    number = _KNOWN.get(level.strip().lower()) if isinstance(level, str) else None
    if number is None:
        near = difflib.get_close_matches(str(level).lower(), _KNOWN, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of {', '.join(_KNOWN)}."
        raise OptionError(f"log level {level!r} is unknown", remedy=hint)
    return number


def config_of(values: object) -> LoggingConfig:
    """Check and convert the values of the configuration.

    Logging is loaded before the plugin that checks configurations of others.

    Raises:
        ConfigError: A value is unknown or has the wrong type, or a level does not exist.
    """
    try:
        config: LoggingConfig = msgspec.convert(_plain(values), LoggingConfig)
        number_of(config.level)
        for level in (*config.levels.values(), *config.loggers.values()):
            if level is not None:
                number_of(level)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{str(error)[:1].lower()}{str(error)[1:]}",
            plugin="logging",
            remedy="[plugins.logging] has the fields of veko_plugins.logging.LoggingConfig.",
        ) from error
    except OptionError as error:
        raise ConfigError(error.message, plugin="logging", remedy=error.remedy) from error
    return config


def _plain(values: object) -> Any:
    if isinstance(values, LoggingConfig):
        return msgspec.structs.asdict(values)
    return dict(values) if isinstance(values, Mapping) else (values or {})
