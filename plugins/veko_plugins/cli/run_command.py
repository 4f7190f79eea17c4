"""`veko run`: a plugin's command, from the shell."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import rich_click as click

from veko import NotFoundError, VekoError
from veko_plugins._lib.masking import masked_text
from veko_plugins.commands import CommandExit, Commands, UsageError
from veko_plugins.logging import Logging, message_of
from veko_plugins.manager import PluginManager

from .application import options_of
from .listing import with_application
from .printing import print_json, print_result
from .runner import Quit, Stop, print_error, run_quiet

__all__ = ["list_commands", "run_command"]


def run_command(directory: Path | None, name: str | None, words: list[str], *, debug: bool) -> int:
    """Run a command of a plugin; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        name: The command; `None` lists all commands.
        words: The command's arguments, as on a command line.
        debug: Whether errors are shown with their traceback.
    """
    logs = Logging()
    try:
        options = options_of(directory, logs)
    except VekoError as error:
        print_error(error, debug=debug)
        return 2

    async def work(_: Stop) -> int:
        async with PluginManager(**options) as manager:
            commands = manager.use("commands")
            assert isinstance(commands, Commands)
            for plugin, error in manager.report.failed.items():
                click.echo(masked_text(f"veko: {plugin} did not load: {error}"), err=True)
            if name is None:
                _show(commands)
                return 0
            try:
                await commands.arrive(name)
                call = commands.parse(name, words)
            except (NotFoundError, UsageError) as error:
                print_error(error, debug=debug)
                raise Quit(2) from error
            try:
                with _output_of(manager, commands, name):
                    result = await call()
            except CommandExit as error:
                print_error(error, debug=debug)
                raise Quit(error.code) from error
            print_result(result)
        return 0

    return run_quiet(logs, work, "warning", debug=debug)


def list_commands(directory: Path | None, *, debug: bool) -> int:
    """Print the commands of an application as JSON; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        debug: Whether errors are shown with their traceback.
    """

    async def show(manager: PluginManager) -> None:
        keys = ("name", "description", "plugin")
        found = manager.use("commands").list()
        print_json([{key: getattr(command, key) for key in keys} for command in found])

    return with_application(directory, show, debug=debug)


@contextlib.contextmanager
def _output_of(manager: PluginManager, commands: Commands, name: str) -> Iterator[None]:
    """Print what the plugin of a command prints, if it runs in a process of its own.

    That process has no terminal: what it prints arrives as records of its log below `warning`.
    """
    plugin = next(command.plugin for command in commands.list() if command.name == name)
    record = manager.get_plugin(plugin)
    if record is None or not hasattr(record.plugin, "lives"):
        yield
        return
    logger, handler = logging.getLogger(f"veko.plugin.{plugin}"), _Printer()
    former = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(former[0])
        logger.propagate = former[1]


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            click.echo(masked_text(message_of(record)))
        else:
            logging.getLogger("veko").callHandlers(record)


def _show(commands: Commands) -> None:
    found = commands.list()
    width = max((len(command.name) for command in found), default=0)
    for command in found:
        click.echo(f"{command.name.ljust(width)}  {command.description}".rstrip())
    if not found:
        click.echo("no plugin provides a command", err=True)
