"""Commands: functions of plugins that are run by name, from Python or from a command line.

A plugin registers a function under a name; its signature is its command line (see `arguments`). A
command is an entry of the registry, so it loads, unloads and is switched off with its plugin.

Cost: registering stores one struct; signatures are read when a command is run.
Promise: names are unique; the error for an unknown name suggests the nearest; wrong arguments are
reported before anything runs; a command's failure is counted against its plugin and raised.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from veko import Handle, HookError, Kernel, NotFoundError, Origin, Plugin, StateError, VekoError
from veko.extend import Call, Kind, must_pass

from .._lib.calls import call
from .._lib.first_use import FirstUse
from .arguments import UsageError, read
from .commandline import parse

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Command", "CommandExit", "Commands", "UsageError"]


class Command(msgspec.Struct, frozen=True):
    """A command of a plugin.

    Attributes:
        name: Its name.
        fn: The function, `def` or `async def`.
        description: One line about what it does.
        plugin: The name of the plugin that registered it.
    """

    name: str
    fn: Callable[..., object]
    description: str
    plugin: str


class CommandExit(HookError):
    """A command called `sys.exit` with something else than 0.

    Attributes:
        code: The exit code of a process that does so, from 1 to 255.
    """

    def __init__(self, name: str, code: object) -> None:
        super().__init__(f"command {name!r} exited: {code}")
        # A process exits with the lowest byte of a number, and with 1 after anything else.
        self.code = (code & 0xFF) or 1 if isinstance(code, int) else 1


class Commands(Plugin):
    """The core plugin of commands; the service `commands` is this object."""

    name = "commands"
    version = "2.0.0"
    description = "Commands from the signatures of functions"
    core = True

    _kernel: Kernel

    def load(self, context: Context) -> None:
        """Provide the service and attach `context.add_command`."""
        self._kernel = context.kernel
        context.add_kind(Kind("command", unique=True, pinned=False))
        context.attach("add_command", _adder)
        context.provide("commands", self)

    def list(self) -> tuple[Command, ...]:
        """Return the commands that can be run now, sorted by name."""
        entries = self._kernel.bus.live.registry.entries("command")
        return tuple(sorted((entry.value for entry in entries), key=lambda found: found.name))

    def get(self, name: str) -> Command:
        """Return a command.

        Raises:
            NotFoundError: No active plugin has a command of that name.
        """
        entry = self._kernel.bus.live.registry.get("command", name)
        if entry is not None and isinstance(entry.value, Command):
            return entry.value
        known = [command.name for command in self.list()]
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            remedy = f"Did you mean {near[0]!r}?"
        elif known:
            remedy = f"There are: {', '.join(known)}."
        else:
            remedy = "No active plugin provides a command."
        raise NotFoundError(f"there is no command {name!r}", remedy=remedy)

    async def run(self, name: str, /, *args: object, **kwargs: object) -> object:
        """Run a command with Python arguments.

        Args:
            name: The command.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            What the command returned.

        Raises:
            NotFoundError: There is no command of that name.
            UsageError: The command does not accept these arguments; it did not run.
            CommandExit: The command exited with a code other than 0.
            StateError: Its plugin was unloaded, replaced or switched off while it ran, and it did
                not end within `drain_timeout`.
            Exception: What the command raised, after it was counted against its plugin.
        """
        command = await self._arrived(name)
        try:
            inspect.signature(command.fn).bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(
                f"command {name!r}: {error}",
                plugin=command.plugin,
                remedy=f"Its signature is {name}{inspect.signature(command.fn)}.",
            ) from error
        except ValueError:
            pass  # a builtin without a signature reports wrong arguments itself
        return await self._call(command, args, kwargs)

    async def invoke(self, name: str, argv: Sequence[str]) -> object:
        """Run a command with the words of a command line.

        Args:
            name: The command.
            argv: The words after its name.

        Returns:
            What the command returned; its help if the words contain `--help`.

        Raises:
            NotFoundError, UsageError, CommandExit, StateError, Exception: As for `run`.
        """
        await self.arrive(name)
        return await self.parse(name, argv)()

    async def arrive(self, name: str) -> None:
        """Load the plugin of a command, if it waits for its first use; call it before `parse`.

        Raises:
            NotFoundError: There is no command of that name.
            LoadError: The plugin cannot be loaded.
        """
        await self._arrived(name)

    async def _arrived(self, name: str) -> Command:
        command = self.get(name)
        if isinstance(command.fn, FirstUse):
            await command.fn.arrive()
            return self.get(name)
        return command

    def parse(self, name: str, argv: Sequence[str]) -> Callable[[], Awaitable[object]]:
        """Parse a command line without running the command.

        Args:
            name: The command.
            argv: The words after its name.

        Returns:
            A function that runs the command.

        Raises:
            NotFoundError: There is no command of that name.
            UsageError: The command does not accept these words.
        """
        command = self.get(name)
        try:
            parsed = parse(name, read(command.fn), command.description, argv)
        except UsageError as error:
            error.plugin = command.plugin
            raise

        async def run() -> object:
            if isinstance(parsed, str):
                return parsed
            return await self._call(command, parsed.args, parsed.kwargs)

        return run

    async def _call(
        self, command: Command, args: Sequence[object], kwargs: dict[str, object]
    ) -> object:
        # With the pin the command is a call into its plugin: when that leaves it is waited for, and
        # cut after drain_timeout (test_a_command_is_cut_after_drain_timeout).
        with (pin := self._kernel.pin_live()):
            pin.owner = command.plugin
            try:
                record = self._kernel.get(command.plugin)
                owner = record.current if record is not None else None
                fn = functools.partial(command.fn, *args, **kwargs)
                counted = self._kernel.bus.enclose(Call("command", command.name, fn, owner))
                return await _unless_exited(command, counted)
            except Exception as error:
                if pin.cut:  # the kernel has reported it
                    raise StateError(
                        f"command {command.name!r} was cut off: its plugin was unloaded, replaced "
                        "or switched off meanwhile",
                        plugin=command.plugin,
                        remedy="Run it again, or raise drain_timeout.",
                    ) from error
                if isinstance(error, VekoError) and error.plugin is None:
                    error.plugin = command.plugin
                origin = Origin(plugin=command.plugin, handler=command.name)
                label = f"command {command.name}"
                await self._kernel.fault(error, plugin=command.plugin, origin=origin, handler=label)
                raise


async def _unless_exited(command: Command, fn: Callable[[], object]) -> object:
    try:
        return await call(fn)
    except SystemExit as error:
        if not error.code:
            return None
        raise CommandExit(command.name, error.code) from error
    except GeneratorExit as error:
        # The closing of this coroutine raises it in this very frame, a command in one below.
        trace = error.__traceback__
        if trace is None or trace.tb_next is None:
            raise
        raise HookError(f"command {command.name!r} raised GeneratorExit") from error
    except BaseExceptionGroup as group:
        if isinstance(group, Exception) or must_pass(group):
            raise
        raise HookError(f"command {command.name!r} raised {group!r}") from group


def _adder(context: Context) -> Callable[..., Handle]:
    def add_command(name: str, fn: Callable[..., object], description: str = "") -> Handle:
        """Register a command of this plugin (staged).

        Args:
            name: Its name: one word that does not begin with a dash.
            fn: The function, `def` or `async def`; its signature is its command line.
            description: One line about what it does.

        Returns:
            A handle; cancelling it removes the command.

        Raises:
            VekoError: The name is not one word, or `fn` is not callable.
        """
        if not _is_name(name):
            raise VekoError(
                f"{name!r} is not a valid command name",
                plugin=context.name,
                remedy="Use one word that does not begin with a dash, such as 'links:prune'.",
            )
        if not callable(fn):
            raise VekoError(
                f"command {name!r} is {fn!r}, not a function",
                plugin=context.name,
                remedy="Call add_command(name, fn, description).",
            )
        return context.register("command", name, Command(name, fn, description, context.name))

    return add_command


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.split() == [name] and not name.startswith("-")
