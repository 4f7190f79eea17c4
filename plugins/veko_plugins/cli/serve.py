"""`veko serve`: serves an application over HTTP and prints what happens.

This is one process that serves: the only one, or a worker of `supervisor`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import rich_click as click

from veko import PluginRecord, VekoError, __version__, as_plugin
from veko_plugins._lib.masking import masked_text
from veko_plugins._lib.tracebacks import folded
from veko_plugins.admin import API, ControlSocket, admin_token
from veko_plugins.http import Route
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.options import Options
from veko_plugins.reload import Refresher
from veko_plugins.workers import Workers

from .application import options_of
from .learning import show_learned
from .lines import lines
from .runner import Quit, Stop, held_back, print_error, reasons, run

__all__ = [
    "READY",
    "Settings",
    "WorkerSettings",
    "bind",
    "end",
    "listening",
    "options_for",
    "serve_here",
    "set_up",
]

_ACCESS: Final = ("uvicorn.access", "granian.access")
READY: Final = "ready"
"""What a worker sends its supervisor when it serves."""


class WorkerSettings(msgspec.Struct, frozen=True):
    """What a supervisor gives a worker.

    Attributes:
        number: Its number, from 1.
        listener: The descriptor of the socket that all workers share.
        ready: The descriptor for its answer: `ready`, or the reasons why it did not start.
        again: Whether it replaces a worker that exited.
        run: The name of this run, the same for all workers.
    """

    number: int
    listener: int
    ready: int
    again: bool = False
    run: str = ""


class Settings(msgspec.Struct, frozen=True):
    """The options of `veko serve`; `worker` is set in a worker only."""

    directory: Path | None
    host: str
    port: int
    adapter: str | None
    server: str
    workers: int
    dev: bool
    log_level: str | None
    log_file: Path | None
    log_format: str | None
    access_log: bool
    forwarded_allow_ips: tuple[str, ...]
    grace: float
    debug: bool
    otlp: str | None = None
    locked: bool = False
    learn: bool = False
    write: bool = False
    worker: WorkerSettings | None = None


def serve_here(settings: Settings) -> int:
    """Serve an application until a signal; return the exit code."""
    worker = settings.worker
    quiet = worker is not None and (worker.number > 1 or worker.again)
    prefix = "" if worker is None else f"worker {worker.number}: "
    answer = _Answer(None if worker is None else worker.ready)
    report = functools.partial(_report, answer, debug=settings.debug)
    logs = Logging()
    lines.json = settings.log_format == "json"
    try:
        options = options_for(settings, logs)
        set_up(logs, options, settings)
    except VekoError as error:
        report(error)
        end(logs)
        return 2

    async def work(stop: Stop) -> int:
        if worker is None:
            bind(settings.host, settings.port).close()
        manager = PluginManager(**options)
        stop.suspects = functools.partial(_names, manager)
        if not quiet:
            lines.say(f"Veko {__version__}, loading {options['root']}")
            manager.on("plugin:loaded", _loaded)
        refresher = Refresher(
            manager.kernel,
            manager.options,
            lambda line: lines.say(masked_text(f"  {prefix}{line}")),
        )
        with held_back(settings.debug) as write:
            await manager.start()
            write(() if quiet else manager.report.failed)
        manager.off("plugin:loaded", _loaded)
        refreshing = asyncio.ensure_future(_refresh(refresher, stop))
        control = ControlSocket(manager.options.directory, functools.partial(_answering, manager))
        await control.open()
        try:
            if not quiet:
                _not_loaded(manager, traced=settings.dev)
            stop.gently = True
            await manager.use("http").serve(
                host=settings.host,
                port=settings.port,
                server=settings.server,
                listener=None if worker is None else _inherited(worker.listener),
                started=functools.partial(_started, manager, answer),
                stop=stop.asked,
                drain_timeout=settings.grace / 2,
                access_log=settings.access_log,
                forwarded_allow_ips=settings.forwarded_allow_ips,
            )
        finally:
            refreshing.cancel()
            await asyncio.wait([refreshing])
            await control.close()
            manager.kernel.closing_by = stop.closing_by
            learned = manager.use("permissions").learned() if settings.learn else []
            await manager.stop()
            if settings.learn:
                show_learned(learned, options["root"], write=settings.write)
        return 0

    try:
        code = run(
            work,
            debug=settings.debug,
            grace=settings.grace,
            on_stop="Stopping" if worker is None else "",
            # A worker may get the system's signal and then its supervisor's for one stop.
            second_kills=worker is None,
            report=report,
        )
        if code == 0 and worker is None:
            lines.say("Stopped")
    finally:
        end(logs)
    return code


def set_up(logs: Logging, options: dict[str, Any], settings: Settings) -> None:
    """Set up the logging of this process, as `options` will set up that of the core plugin.

    Args:
        logs: The core plugin.
        options: The manager's options, to which those of the command line for logs are added.
        settings: The options of `veko serve`.

    Raises:
        VekoError: An option is wrong, or the log file cannot be written.
    """
    given: dict[str, Any] = {"process": True}
    if settings.debug or settings.log_level is not None:
        given["level"] = "debug" if settings.debug else settings.log_level
    if settings.log_file is not None:
        given["file"] = str(settings.log_file.absolute())
    if settings.log_format is not None:
        given["format"] = settings.log_format
    given["loggers"] = dict.fromkeys(_ACCESS, "info" if settings.access_log else "critical")
    sections = dict(options.get("plugins", {}))
    sections["logging"] = {**sections.get("logging", {}), **given}
    options["plugins"] = sections
    rest = {key: value for key, value in options.items() if key != "root"}
    read = Options.read(options["root"], rest)
    logs.directory = read.directory
    if settings.worker is not None:
        logs.fields["worker"] = lines.fields["worker"] = settings.worker.number
    config = logs.read(read.sections.of(logs.name, as_plugin(logs).manifest))
    lines.json = config.format == "json"
    logs.apply(config, traced=settings.dev, stays=True)
    lines.logged = True


def end(logs: Logging) -> None:
    """End the logging of this process."""
    lines.logged = lines.json = False
    logs.reset()


def options_for(settings: Settings, logs: Logging) -> dict[str, Any]:
    """Return the manager's options.

    Args:
        settings: The options of `veko serve`.
        logs: The log handlers of the command.

    Raises:
        OptionError: There is no application in the directory.
    """
    options = options_of(settings.directory, logs, serves=True)
    if settings.adapter is not None:
        options["adapter"] = settings.adapter
    if settings.dev:
        options |= {"dev_mode": True, "watch_mode": True}
    if settings.otlp is not None:
        options["otlp"] = settings.otlp
    if settings.locked:
        options["locked"] = True
    if settings.learn:
        options["learn"] = True
    options["drain_timeout"] = settings.grace / 2
    if settings.worker is not None:
        workers = Workers(f"{settings.host}:{settings.port}", settings.worker.run)
        options["core"] = {**options.get("core", {}), "workers": workers}
    return options


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        Quit: The address cannot be used; the reason has been printed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "another program listens there. Stop it, or choose another port with --port"
        elif error.errno == errno.EACCES:
            why = "this user is not allowed to. Choose a port above 1023 with --port"
        else:
            why = f"{error.strerror or error}. Choose another address with --host and --port"
        lines.say(f"veko: cannot listen on {host}:{port}: {why}", "error")
        raise Quit(1) from error
    return listener


def listening(host: str, port: int, more: str = "") -> str:
    """Print the address, followed by `more`; return the URL."""
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    lines.say(f"Listening on {url}{more} (Ctrl+C stops)", url=url)
    return url


async def _refresh(refresher: Refresher, stop: Stop) -> None:
    """Refresh at each SIGHUP; any number of them during a refresh cause one more."""
    while True:
        await stop.refresh.wait()
        stop.refresh.clear()
        try:
            await refresher.refresh()
        except Exception as error:
            print_error(error, debug=False)


async def _answering(manager: PluginManager) -> API:
    """Return what answers at the control socket, which is loaded if it is not yet."""
    await manager.administration()
    found: API = manager.use("admin:api")
    return found


def _inherited(descriptor: int) -> socket.socket:
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return listener


class _Answer:
    """A worker's one answer to its supervisor: that it is ready, or why it did not start."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def send(self, text: str) -> bool:
        """Send it; return whether it was still to be sent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return False
        with contextlib.suppress(OSError):
            os.write(descriptor, text.encode()[:4096])
        os.close(descriptor)
        return True


def _report(answer: _Answer, error: BaseException, *, debug: bool) -> None:
    """Print the error; a worker that has not started leaves that to its supervisor."""
    if not answer.send("\n".join(reasons(error, debug=debug))):
        print_error(error, debug=debug)


def _loaded(name: str, plugin: PluginRecord) -> None:
    if not plugin.core:
        line = f"  loaded   {name} {plugin.version}  {plugin.manifest.description}".rstrip()
        lines.say(line, about=name)


def _not_loaded(manager: PluginManager, *, traced: bool) -> None:
    report = manager.report
    for name, error in report.failed.items():
        lines.say(
            masked_text(f"  failed   {name}: {error}"), "error", err=False, error=error, about=name
        )
        trace = folded(error) if traced and not lines.json else ""
        if trace:
            click.echo(masked_text(trace))
    for name, why in report.skipped.items():
        lines.say(f"  skipped  {name}: {why}", "warning", err=False, about=name)
    for name, why in report.off.items():
        lines.say(f"  off      {name}: {why}", about=name)
    if not (report.loaded or report.failed or report.skipped or report.off):
        lines.say("  no plugins were found", "warning", err=False)


def _names(manager: PluginManager) -> str:
    return "the plugins " + ", ".join(info.name for info in manager.list_plugins())


def _started(manager: PluginManager, answer: _Answer, host: str, port: int) -> None:
    if answer.send(READY):
        return
    url = listening(host, port)
    _show_dashboard(manager, url)
    routes = [
        entry.value
        for entry in manager.bus.registry.entries("route")
        if isinstance(entry.value, Route) and entry.value.method == "GET"
        if not entry.owner.record.core
    ]
    plain = [route.path for route in routes if "{" not in route.path]
    for path in (plain or [route.path for route in routes])[:3]:
        if not lines.json:
            click.echo(f"  try  curl {url}{path}")


def _show_dashboard(manager: PluginManager, url: str) -> None:
    """Print the dashboard's address, with the token that was made where only a person sees it."""
    options = manager.options
    if (
        not options.enable_api
        or lines.json
        or manager.kernel.registry.get("service", "http") is None
    ):
        return
    chosen = "token" in options.sections.of("admin")
    token = None if chosen or not sys.stdout.isatty() else admin_token(options.directory)
    click.echo(f"  dashboard  {url}/_veko{'' if token is None else f'#token={token}'}")
