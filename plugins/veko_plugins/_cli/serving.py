"""`veko serve`: an application over HTTP, with plain words on what goes on."""

from __future__ import annotations

import errno
import functools
import socket
from pathlib import Path
from typing import Literal, cast

import msgspec
import rich_click as click

from veko import PluginRecord, VekoError, __version__
from veko_plugins.http import Route
from veko_plugins.logs import Logging
from veko_plugins.manager import PluginManager

from .application import options_of
from .running import Quit, Stop, complain, kernel_quiet, run

__all__ = ["Settings", "serve"]


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
    grace: float
    debug: bool


def serve(settings: Settings) -> int:
    """Serve an application until a signal stops it; returns the exit code."""
    logs = Logging()
    try:
        options = options_of(settings.directory, logs)
        logs.configure(
            "debug" if settings.debug else settings.log_level,
            settings.log_file,
            cast("Literal['text', 'json']", settings.log_format),
        )
    except VekoError as error:
        complain(error, debug=settings.debug)
        return 2
    if settings.adapter is not None:
        options["adapter"] = settings.adapter
    if settings.dev:
        options["dev_mode"] = True
    drain = settings.grace / 2
    options["drain_timeout"] = drain

    async def work(stop: Stop) -> int:
        _check_port(settings.host, settings.port)
        manager = PluginManager(**options)
        click.echo(f"Veko {__version__}, loading {options['root']}")
        manager.on("plugin:loaded", _loaded)
        with kernel_quiet(debug=settings.debug):
            await manager.start()
        try:
            _not_loaded(manager)
            stop.gently = True
            await manager.use("http").serve(
                host=settings.host,
                port=settings.port,
                started=functools.partial(_started, manager),
                stop=stop.asked,
                drain_timeout=drain,
            )
        finally:
            await manager.stop()
        return 0

    try:
        code = run(work, debug=settings.debug, grace=settings.grace, stops="Stopping")
    finally:
        logs.reset()
    if code == 0:
        click.echo("Stopped")
    return code


def _check_port(host: str, port: int) -> None:
    """Say at once, before plugins load, that the address cannot be had.

    Raises:
        Quit: It cannot; that has been said.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "something else listens there. Stop it, or choose another with --port"
        elif error.errno == errno.EACCES:
            why = "this user may not. Choose one above 1023 with --port"
        else:
            why = f"{error.strerror or error}. Choose another address with --host and --port"
        click.echo(f"veko: cannot listen on {host}:{port}: {why}", err=True)
        raise Quit(1) from error


def _loaded(name: str, plugin: PluginRecord) -> None:
    if not plugin.core:
        click.echo(f"  loaded   {name} {plugin.version}  {plugin.manifest.description}".rstrip())


def _not_loaded(manager: PluginManager) -> None:
    report = manager.report
    for name, error in report.failed.items():
        click.echo(f"  failed   {name}: {error}")
    for name, why in report.skipped.items():
        click.echo(f"  skipped  {name}: {why}")
    if not (report.loaded or report.failed or report.skipped):
        click.echo("  no plugins were found")


def _started(manager: PluginManager, host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    click.echo(f"Listening on {url} (Ctrl+C stops)")
    routes = [
        entry.value
        for entry in manager.bus.registry.entries("route")
        if isinstance(entry.value, Route) and entry.value.method == "GET"
    ]
    plain = [route.path for route in routes if "{" not in route.path]
    for path in (plain or [route.path for route in routes])[:3]:
        click.echo(f"  try  curl {url}{path}")
