"""`veko serve`: an application over HTTP, with plain words on what goes on."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import msgspec
import rich_click as click

from veko import PluginRecord, VekoError
from veko_plugins.logs import Logging
from veko_plugins.manager import PluginManager

from .application import options_of
from .running import Quit, complain, run

__all__ = ["Settings", "serve"]

_GRACE = 20.0
"""Seconds from a signal to the end of the process, whatever a plugin does."""


class Settings(msgspec.Struct, frozen=True):
    """What `veko serve` was asked for."""

    directory: Path | None
    host: str
    port: int
    adapter: str | None
    dev: bool
    log_level: str
    log_file: Path | None
    log_format: str
    debug: bool


def serve(settings: Settings) -> int:
    """Serve an application until a signal stops it; returns the exit code."""
    logs = Logging()
    try:
        options = options_of(settings.directory, logs)
        logs.configure(settings.log_level, settings.log_file, settings.log_format)
        _check_port(settings.host, settings.port)
    except VekoError as error:
        complain(error, debug=settings.debug)
        return 2 if isinstance(error, OptionError) else 1
