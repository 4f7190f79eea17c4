"""How the recorder is configured: `[plugins.recording]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from veko import ConfigError

from .._lib.config_schemas import convert_config

__all__ = ["RecordingConfig", "config_of"]


class RecordingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the recorder is configured: `[plugins.recording]`.

    Attributes:
        always: Record from the start. If not, `veko record start` begins it.
        entries: How many emissions and requests are kept in memory.
        megabytes: How much memory they take at most.
        dump_on_failure: Write a file when a plugin's code fails: once for each kind of failure.
        folder: Where files are written; below the application's directory if relative.
        keep: How many files are kept; older ones are deleted.
        control: Listen for `veko record`, on the loopback interface and with a token.
    """

    always: bool = True
    entries: Annotated[int, Meta(ge=256)] = 10_000
    megabytes: Annotated[int, Meta(ge=1)] = 32
    dump_on_failure: bool = True
    folder: Path = Path(".veko/recordings")
    keep: Annotated[int, Meta(ge=1)] = 20
    control: bool = True


def config_of(values: object) -> RecordingConfig:
    """Check and convert the values of the configuration.

    The recorder is loaded before the plugin that checks configurations of others.

    Raises:
        ConfigError: A value is unknown or has the wrong type.
    """

    config, faults = convert_config(values or {}, RecordingConfig, "recording")
    if faults or not isinstance(config, RecordingConfig):
        raise ConfigError(
            "the configuration of 'recording' does not match its schema",
            faults=faults,
            plugin="recording",
            remedy="[plugins.recording] has the fields of veko_plugins.recording.RecordingConfig.",
        )
    return config
