"""How the host runs a Python worker: forked from the launcher, or by another interpreter.

The launcher has imported what a worker needs (`MODULES`), so a fork is ready within milliseconds. A
plugin with an environment of its own runs in that environment's interpreter, which starts cold.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from veko import VekoError

from ..launcher import Command, Launcher, Process
from ..permissions import Grants
from .packages import COMPILED, linked_packages, packages

__all__ = ["MODULES", "Python"]

ENTRY: Final = "veko_plugins.remote.python.worker:main"
MODULES: Final = (
    "veko_plugins.remote.python.worker",
    "veko_adapters.asgi",
    "veko_plugins.context",
    "anyio._backends._asyncio",
    "concurrent.futures.thread",
    "encodings.idna",
    "stringprep",
)
"""What the launcher imports before it forks, so that a worker starts at once."""
_COLD: Final = """\
import sys
sys.path.append(sys.argv.pop())
from veko_plugins.remote.python.worker import main
sys.exit(main())
"""
_COMPILE: Final = """\
import importlib, sys
sys.path.append(sys.argv.pop(1))
for name in sys.argv[1:]: importlib.import_module(name)
"""
_DEVICES: Final = (
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/etc/localtime",
    "/usr/share/zoneinfo",
)  # fmt: skip
"""What Python's library and others open by themselves; nothing in it is anybody's."""
_COMPILING: Final = 120.0
"""Seconds for compiling what a worker imports, once for each interpreter."""


class Python(msgspec.Struct, frozen=True):
    """A runtime for Python plugins.

    Attributes:
        program: The interpreter of the plugin's own environment; `None` for the host's, forked.
        cache: Where the folder of links for another interpreter is kept.
    """

    program: Path | None = None
    cache: Path = Path(".veko/cache")

    name = "python"

    def command(
        self, *, environment: Mapping[str, str] = {}, directory: Path | None = None
    ) -> Command:
        """Return the command that runs the worker.

        Its descriptor 3, if the launcher gives it one, is the channel by which the host hands it
        connected sockets; see `connecting`.

        Args:
            environment: The variables that the plugin may read.
            directory: The working folder; `None` is a private one.
        """
        if self.program is None:
            return Command(entry=ENTRY, env=dict(environment), cwd=directory)
        argv = (*self._cold(), _COLD, str(self._links()))
        return Command(argv=argv, env=dict(environment), cwd=directory)

    def _links(self) -> Path:
        return linked_packages(self.cache.absolute())

    def _cold(self) -> tuple[str, ...]:
        # Isolated: neither variables nor the working folder add to what it imports. Bytecode of
        # the host's packages is kept apart: this may be another version of Python.
        bytecode = self._links() / "bytecode"
        return str(self.program), "-I", "-X", f"pycache_prefix={bytecode}", "-c"

    def prepare(self) -> None:
        """Compile what a worker imports, so that it starts fast, and confined cannot write.

        Takes some seconds the first time; for the host's own interpreter there is nothing to do.

        Raises:
            VekoError: The environment cannot run a worker; the message says why.
        """
        if self.program is None:
            return
        command = [*self._cold(), _COMPILE, str(self._links()), *MODULES]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=_COMPILING, env={}
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise VekoError(
                f"{self.program} cannot run a plugin: {said[-1] if said else error}",
                remedy=f"The environment needs {', '.join(COMPILED)} in the host's version.",
            ) from None

    async def start(
        self,
        grants: Grants | None,
        *,
        launcher: Launcher,
        directory: Path,
        stderr: int,
        memory: int | None = None,
        channel: socket.socket | None = None,
    ) -> tuple[socket.socket, Process]:
        """Start a worker.

        Args:
            grants: What the plugin may do; `None` trusts it as a plugin in this process.
            launcher: Starts the process.
            directory: The application's directory, in which a trusted plugin runs. One that is
                confined runs in a private folder.
            stderr: The worker's descriptor 2, which the caller closes.
            memory: Bytes that it may use; `None` is the launcher's default.
            channel: The worker's end of the channel to the broker, which the caller closes.

        Returns:
            The host's end of its connection, and its process.

        Raises:
            LaunchError: It could not be started.
        """
        if grants is None:
            command = self.command(environment=os.environ, directory=directory)
            confinement = None
        else:
            command = self.command(environment=grants.environment(os.environ))
            confinement = grants.confinement(
                read=(*self.reads(grants.directory), *_present(_DEVICES)),
                write=_present(_DEVICES[:1]),
                execute=() if self.program is None else (self.program.resolve(),),
                brokered=channel is not None,
                memory=memory,
            )
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await launcher.start(
                    command,
                    confinement=confinement,
                    stdio=theirs,
                    stderr=stderr,
                    fds=() if channel is None else (channel.fileno(),),
                )
            except BaseException:
                ours.close()
                raise
        return ours, process

    @staticmethod
    def granted(grants: Grants | None, *, brokered: bool) -> dict[str, Any] | None:
        """Return what `describe` tells the worker of its permissions, under `grants`.

        Args:
            grants: What the plugin may do.
            brokered: Whether the worker has a channel to the broker.
        """
        if grants is None:
            return None
        return {
            "permissions": [str(one) for one in grants.permissions],
            "folder": str(grants.folder),
            "directory": str(grants.directory),
            "plugin": grants.plugin,
            "everything": grants.everything,
            "brokered": brokered,
        }

    def reads(self, directory: Path) -> tuple[Path, ...]:
        """Return what the interpreter itself reads: its library, and the packages of the host.

        `python -m veko` puts the working folder on the path: the application's secrets and its
        storage are no packages (`test_the_application_is_no_package_of_the_host`).

        Args:
            directory: The application's directory; it and the folders around it are left out.
        """
        if self.program is None:
            folders = [sys.prefix, sys.base_prefix, *(p for p in sys.path if p)]
        else:
            # The environment, and the installation that it was made from.
            real = self.program.resolve().parent.parent
            folders = [str(self.program.absolute().parent.parent), str(real)]
            folders.append(str(self._links()))
        found = [Path(one).resolve() for one in folders]
        found += [path.resolve() for path in packages().values()]
        home = directory.resolve()
        return tuple(
            path for path in dict.fromkeys(found) if path.exists() and not home.is_relative_to(path)
        )


def _present(paths: Sequence[str]) -> tuple[Path, ...]:
    return tuple(path.resolve() for path in map(Path, paths) if path.exists())
