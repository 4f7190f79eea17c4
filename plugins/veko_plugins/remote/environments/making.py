"""Environments for plugins, made by uv, each once.

`.veko/environments/<digest>.txt` is the lock of some requirements: the exact versions that they
were resolved to. `.veko/environments/<digest of the lock>/` is the environment that has them, so
plugins that need the same share it. With both there nothing is asked of the network any more.
Deleting a lock resolves its requirements again.

Cost: seconds for a new environment, a look at two files for one that is there.
Promise: making one runs no code of what is installed, unless a trusted plugin needs a distribution
that has to be built. An environment is made aside and renamed when it is complete, so a process
that is killed leaves nothing that counts, and two processes may make the same one. One that no
application has used for 30 days is removed when another one is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from veko import LoadError, VekoError

from ..python.packages import COMPILED
from ..python.runtime import Python
from .index import index_variables
from .requirements import Requirements

__all__ = ["Environments"]

TIMEOUT: Final = 600.0
"""Seconds that making an environment may take."""
UNUSED: Final = 30 * 24 * 3600.0
"""Seconds after its last use that an environment is kept."""
_ABANDONED: Final = 3600.0
"""Seconds after which what was made aside is left over: its process was killed."""
_AT_ONCE: Final = 4
"""Environments that are made side by side."""
_LONGEST: Final = 20
"""Lines that an error shows of what uv said."""


class Environments:
    """The environments of an application's plugins.

    Args:
        folder: Where they are kept.
        cache: Where the links to the host's packages are kept.
        log: Is called with a line about what takes long.
    """

    def __init__(self, folder: Path, cache: Path, log: Callable[[str], object]) -> None:
        self._folder = folder
        self._cache = cache
        self._log = log
        self._used: dict[Path, int] = {}  # with a descriptor that holds a shared lock
        self._making: dict[str, anyio.Lock] = {}
        self._turns = anyio.CapacityLimiter(_AT_ONCE)

    async def get(self, name: str, requirements: Requirements, *, trusted: bool = True) -> Path:
        """Return the interpreter of an environment that has some requirements.

        Args:
            name: The plugin that needs it, for the log.
            requirements: What it needs.
            trusted: Whether distributions may be built, which runs their code in no confinement,
                and be fetched from URLs; else the index must have wheels of them.

        Raises:
            LoadError: It cannot be made; the message is uv's reason.
        """
        if not trusted:
            requirements.check_index_only(name)
        key = _digest(_tag(), requirements.python, *requirements.distributions)
        async with self._making.setdefault(key, anyio.Lock()), self._turns:
            lock = self._folder / f"{key}.txt"
            build = () if trusted else ("--no-build",)
            try:
                with anyio.fail_after(TIMEOUT):
                    if not await anyio.to_thread.run_sync(lock.is_file):
                        await self._resolve(name, requirements, lock, build)
                    environment = self._folder / _digest(_tag(), lock.read_text())
                    if not await anyio.to_thread.run_sync(_is_complete, environment):
                        await self._make(name, requirements, lock, environment, build)
                    self._use(lock, environment)
            except TimeoutError:
                raise _failed(name, requirements, f"it took longer than {TIMEOUT:g} s") from None
            except OSError as error:
                raise _failed(name, requirements, str(error)) from error
        return _interpreter(environment)

    def close(self) -> None:
        """Use none of them any more."""
        while self._used:
            os.close(self._used.popitem()[1])

    def _use(self, lock: Path, environment: Path) -> None:
        """Note that an environment is in use, so that no process removes it."""
        os.utime(lock)
        mark = environment / "used"
        if environment not in self._used:
            descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            self._used[environment] = descriptor
        os.utime(mark)

    async def _resolve(
        self, name: str, requirements: Requirements, lock: Path, build: tuple[str, ...]
    ) -> None:
        wanted = "\n".join((*requirements.distributions, *_own())).encode()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        python = requirements.python or sys.executable
        made = await self._uv(
            name, requirements, "pip", "compile", "-", "--python", python, "--no-header",
            "--no-annotate", "--quiet", *build, given=wanted,
        )  # fmt: skip
        _write(lock, made)

    async def _make(
        self,
        name: str,
        requirements: Requirements,
        lock: Path,
        environment: Path,
        build: tuple[str, ...],
    ) -> None:
        pinned = ", ".join((await anyio.to_thread.run_sync(lock.read_text)).split("\n")[:-1])
        self._log(f"making an environment for {name}: {pinned}")
        begin = time.monotonic()
        await anyio.to_thread.run_sync(self._clean)
        aside = Path(tempfile.mkdtemp(prefix=".making-", dir=self._folder))
        try:
            python = requirements.python or sys.executable
            run = (name, requirements)
            made = aside / "environment"
            await self._uv(
                *run, "venv", str(made), "--python", python, "--relocatable", "--no-project",
                "--quiet",
            )  # fmt: skip
            program = _interpreter(made)
            install = ("pip", "install", "--python", str(program), "--no-deps", "--quiet")
            await self._uv(*run, *install, "--no-build", *_own())
            # Before the rest is installed: a `.pth` file of it would run here, in no confinement.
            runtime = Python(program=program, cache=self._cache)
            await anyio.to_thread.run_sync(runtime.prepare)
            await self._uv(*run, *install, *build, "--requirements", str(lock))
            # Without `site` for the same reason; confined, a plugin cannot write bytecode itself.
            compiling = [str(program), *["-I", "-S", "-m", "compileall", "-q"], str(made / "lib")]
            await anyio.run_process(
                compiling, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _complete(made)
            try:
                made.rename(environment)
            except OSError:
                if not _is_complete(environment):  # else another process was quicker
                    raise
        except VekoError as error:
            error.plugin = error.plugin or name
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(aside, ignore_errors=True))
        self._log(f"made an environment for {name} in {time.monotonic() - begin:.1f} s")

    async def _uv(
        self, name: str, requirements: Requirements, *words: str, given: bytes = b""
    ) -> str:
        environ = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
        environ |= index_variables(os.environ)
        environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
        ran = await anyio.run_process(
            [_find_uv(name), *words], input=given, check=False, env=environ,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self._folder,
        )  # fmt: skip
        if ran.returncode:
            said = ran.stderr.decode(errors="replace").strip().splitlines()
            raise _failed(name, requirements, "\n".join(said[:_LONGEST]))
        return ran.stdout.decode()

    def _clean(self) -> None:
        """Remove what nobody has used for long, and what a killed process has left."""
        now = time.time()
        for path in self._folder.iterdir():
            try:
                if path.name.startswith(".making-"):
                    if now - path.stat().st_mtime > _ABANDONED:
                        _remove(path)
                elif path.is_dir():
                    _remove_unused(path, now)
                elif now - path.stat().st_mtime > UNUSED:
                    path.unlink()
            except OSError:
                continue  # another process has just removed it


def _remove_unused(environment: Path, now: float) -> None:
    mark = environment / "used"
    if now - mark.stat().st_mtime <= UNUSED:
        return
    with mark.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # a process runs in it
        gone = environment.with_name(f".making-{environment.name}")
        environment.rename(gone)  # at once: nobody finds half of it
    _remove(gone)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _find_uv(name: str) -> str:
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise LoadError(
            "it needs an environment of its own, and uv is not installed",
            step="environment",
            plugin=name,
            remedy="pip install 'veko[environments]'.",
        )
    return found


def _failed(name: str, requirements: Requirements, why: str) -> LoadError:
    return LoadError(
        f"no environment can be made with {', '.join(requirements.distributions)}: {why}",
        step="environment",
        plugin=name,
        remedy="Fix its requirements, or what is in the way of the package index.",
    )


def _interpreter(environment: Path) -> Path:
    return environment / "bin" / "python"


def _is_complete(environment: Path) -> bool:
    return (environment / "used").is_file() and _interpreter(environment).exists()


def _complete(environment: Path) -> None:
    (environment / "used").touch(mode=0o600)


def _write(file: Path, text: str) -> None:
    """Write a file so that readers find all of it or nothing."""
    handle, temporary = tempfile.mkstemp(prefix=".making-", dir=file.parent)
    with os.fdopen(handle, "w") as new:
        new.write(text)
    Path(temporary).rename(file)


def _tag() -> str:
    """Return what else an environment depends on: the host's Python, and what Veko needs in it."""
    return " ".join((sys.executable, sys.version, sysconfig.get_platform(), *_own()))


def _own() -> tuple[str, ...]:
    """Return what Veko itself needs in an environment."""
    return tuple(f"{one}=={importlib.metadata.version(one)}" for one in COMPILED)


def _digest(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=12).hexdigest()
