"""Making a plugin in a worker from a source: start, describe, check what it is granted."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from veko import Context
from veko.errors import LoadError, VekoError
from veko.extend import location_of

from .._source.bytecode import MAX_SOURCE, read_source
from .._source.content import Content, content_of
from .._source.scripts import manifest_fields
from .._source.source import Source, SourceImport
from .accesses import Watch
from .copies import copy_of, remove_copy
from .doors import Doors
from .life import Life
from .proxy import RemotePlugin
from .python.kinds import Marked, kinds
from .records import levels_of
from .static import says_isolated
from .worker import Worker

if TYPE_CHECKING:
    from .guard import Permissions
    from .launcher import Launcher, Process
    from .permissions import Grants

__all__ = ["Imports"]

_AT_ONCE: Final = max(4, os.cpu_count() or 1)
"""Workers that are started side by side."""
_MARKS: Final = ("request", "response", "route", "plugin", "socket")
_DECODE: Final = {kind: functools.partial(Marked, kind) for kind in _MARKS}


class Imports:
    """Makes plugins that run in workers.

    Args:
        context: The context of the core plugin `remote`.
        launcher: Starts workers.
        directory: The application's directory.
        dev_mode: Whether the application is being developed.
        setup: Returns what a worker gets at `load`.
        crashed: Is called when a worker of a plugin has ended by itself.
        written: Is called with what a plugin has stored, and with the keys that are gone.
        ended: Is called when a generation has ended.
    """

    def __init__(
        self,
        context: Context,
        launcher: Launcher,
        *,
        directory: Path,
        dev_mode: bool,
        setup: Callable[[Life, Context, Any], dict[str, Any]],
        crashed: Callable[[RemotePlugin, Life, VekoError], None],
        written: Callable[[Life, dict[str, Any], list[str]], None],
        ended: Callable[[Life], None],
    ) -> None:
        self._context = context
        self._launcher = launcher
        self._directory = directory
        self._dev_mode = dev_mode
        self._setup = setup
        self._crashed = crashed
        self._written = written
        self._ended = ended
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._starting = asyncio.Semaphore(_AT_ONCE)

    async def close(self) -> None:
        """Kill all workers, and wait until nothing of them is left."""
        for worker in tuple(self._workers):
            worker.end()
        await self._launcher.close()
        for worker in tuple(self._workers):
            await worker.ended()

    async def make(
        self, source: Source, asked: SourceImport, program: Path | None = None
    ) -> RemotePlugin:
        """Make the plugin of a source.

        Args:
            source: Where it was found.
            asked: What to import, to be filled in.
            program: The interpreter of its own environment; `None` for the host's.

        Raises:
            LoadError: It could not be started, or its code raised.
            ManifestError: It is no valid plugin.
        """
        asked.held, asked.content = await anyio.to_thread.run_sync(_read, source)
        here, copy = source, None
        if asked.wanted is not None:
            asked.held, asked.content = dict(asked.wanted), {}
            if source.kind == "script":
                write = functools.partial(copy_of, source, asked.wanted, self._directory)
                here = copy = await anyio.to_thread.run_sync(write)
        try:
            return await self._made(source, here, copy, asked, program)
        except BaseException:
            if copy is not None:
                remove_copy(copy)
            raise

    async def _made(
        self,
        source: Source,
        here: Source,
        copy: Source | None,
        asked: SourceImport,
        program: Path | None,
    ) -> RemotePlugin:
        known = {**source.fields, **(source.outline.fields if source.outline is not None else {})}
        permissions, isolation = _permissions(known), str(known.get("isolation") or "none")
        own = program is not None and not says_isolated(source)
        if source.outline is None and source.kind != "script" and not own:
            isolation = "process"  # its code is why it runs here; nothing of it runs unconfined
        made: list[RemotePlugin] = []
        start = functools.partial(self._start, source, here, asked.wanted, made, program)
        async with self._starting:
            life, described = await start(permissions, isolation)
        try:
            fields = _fields(source, described)
            declared = _permissions(fields), str(fields.get("isolation") or "none")
            if set(declared[0]) != set(permissions) or declared[1] != isolation:
                # It says now what could not be read before it ran.
                life.worker.end()
                self._ended(life)
                life, described = await start(*declared)
                fields = _fields(source, described)
                if set(_permissions(fields)) != set(declared[0]):
                    raise LoadError(
                        "it declares other permissions each time it is imported",
                        step="import",
                        plugin=source.name,
                        path=source.path,
                        remedy="List them as texts.",
                    )

            async def again() -> Life:
                return (await start(*declared))[0]

            plugin = RemotePlugin(
                life,
                described,
                fields,
                source.path,
                setup=self._setup,
                again=again,
                ended=self._ended,
            )
        except BaseException:
            life.worker.end()
            self._ended(life)
            raise
        made.append(plugin)

        def dispose() -> None:
            plugin.dispose()
            if copy is not None:
                remove_copy(copy)

        asked.dispose = dispose
        return plugin

    async def _start(
        self,
        source: Source,
        here: Source,
        sources: Mapping[str, bytes] | None,
        made: list[RemotePlugin],
        program: Path | None,
        permissions: tuple[str, ...],
        isolation: str,
    ) -> tuple[Life, dict[str, Any]]:
        service: Permissions = self._context.use("permissions")
        grants = service.grants(
            source, permissions, isolation=isolation, plugin=source.name, folder=here.path
        )
        script = source.kind == "script"
        watch = None
        if grants is not None:
            watch = Watch(service.accesses, source.name, grants, audited=script)
        life = Life(source.name, "script" if script else "python", grants)

        def lost(why: VekoError) -> None:
            for plugin in made:
                if life in plugin.lives:
                    self._crashed(plugin, life, why)

        worker = life.worker = Worker(source.name, lost)
        self._workers.add(worker)
        doors = Doors(life, watch, self._written)
        ends: list[Callable[[], None]] = []
        begin = self._script if script else functools.partial(self._python, program)
        path = here.file if script else here.path
        hello = {
            "plugin": {"name": source.name, "path": str(path), "kind": life.kind},
            "dev_mode": self._dev_mode,
        }
        if life.is_python:
            hello["levels"] = levels_of(self._context, life.name)
        try:
            await worker.start(
                functools.partial(begin, grants, watch, ends),
                methods=doors.methods,
                notes=doors.notes,
                kinds=kinds(_DECODE, source=lambda: source.path, traces=grants is None),
                failed=functools.partial(self._note_failed, life),
                hello=hello,
            )
        except VekoError as error:
            _close(ends)
            raise LoadError(
                error.message,
                step="import",
                plugin=source.name,
                path=source.path,
                remedy=error.remedy,
            ) from error
        except BaseException:
            _close(ends)
            raise
        worker.ends = ends
        try:
            facts = self._facts(here, sources, grants, bool(ends))
            with worker.liveness.patient():  # an import may block for long
                return life, _described(await life.call("describe", facts))
        except BaseException as error:
            worker.end()
            if not isinstance(error, Exception) or isinstance(error, VekoError):
                _complete(error, source)
                raise
            raise _import_error(error, source) from error

    def _facts(
        self,
        here: Source,
        sources: Mapping[str, bytes] | None,
        grants: Grants | None,
        brokered: bool,
    ) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "name": here.name,
            "path": None if here.path is None else str(here.path),
            "kind": here.kind,
            "fields": here.fields,
            "sources": None if here.kind == "script" or sources is None else dict(sources),
        }
        if here.entry_point is not None:
            point = here.entry_point
            facts["entry_point"] = {
                "name": point.name, "value": point.value, "group": point.group,
            }  # fmt: skip
        if here.kind != "script":
            from .python.runtime import Python

            facts["grants"] = Python.granted(grants, brokered=brokered)
        return facts

    async def _script(
        self,
        grants: Grants | None,
        watch: Watch | None,
        ends: list[Callable[[], None]],
        stderr: int,
    ) -> tuple[socket.socket, Process]:
        from .audit import AuditTrail
        from .deno import find

        runtime = find()
        trail = None
        if watch is not None and runtime.name == "deno":
            trail = AuditTrail(watch, runtime.files)
            ends.append(trail.close)
        return await runtime.start(
            grants,
            launcher=self._launcher,
            directory=self._directory,
            stderr=stderr,
            trail=trail,
        )

    async def _python(
        self,
        program: Path | None,
        grants: Grants | None,
        watch: Watch | None,
        ends: list[Callable[[], None]],
        stderr: int,
    ) -> tuple[socket.socket, Process]:
        from .broker import Channel
        from .python.runtime import Python

        runtime = Python(program=program, cache=self._directory / ".veko" / "cache")
        channel = None
        if watch is not None:
            service: Permissions = self._context.use("permissions")
            channel = Channel(service.broker, watch)
            ends.append(channel.close)
        found = await runtime.start(
            grants,
            launcher=self._launcher,
            directory=self._directory,
            stderr=stderr,
            channel=None if channel is None else channel.worker,
        )
        if channel is not None:
            channel.started()
        return found

    def _note_failed(self, life: Life, name: str, error: Exception) -> None:
        """Hear that what a worker has noted failed: while it loads, `load` fails with that."""
        if not life.live:
            life.faults.append(error)
            return
        kernel = self._context.kernel
        report = functools.partial(
            kernel.bus.report, error, owner=kernel.get(life.name) or life.name, handler=name
        )
        kernel.root.start(report)


def _described(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("fields"), dict):
        raise LoadError("its process described it with something else than fields", step="import")
    return answer


def _fields(source: Source, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the manifest: what the plugin says comes before `package.json`."""
    said = manifest_fields(described["fields"])
    fields = {**manifest_fields(source.fields), **said}
    if source.kind == "script":
        fields.pop("peer_dependencies", None)  # they are npm's; see `RemotePlugin.peer_faults`
    return fields


def _permissions(fields: Mapping[str, Any]) -> tuple[str, ...]:
    found = fields.get("permissions")
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def _import_error(error: Exception, source: Source) -> LoadError:
    """Return the error of a plugin whose code raised while it was imported."""
    where, said = location_of(error, source.path), str(error).strip() or type(error).__name__
    kind = type(error).__name__
    syntax = isinstance(error, SyntaxError)
    text = f"syntax error: {said}" if syntax else f"importing it raised {kind}: {said}"
    return LoadError(
        text,
        step="import",
        plugin=source.name,
        path=source.path if where is None else where.path,
        line=None if where is None else where.line,
        remedy="Fix the line; nothing of the plugin was registered.",
    )


def _complete(error: BaseException, source: Source) -> None:
    """Add to an error of Veko's which plugin it is about."""
    if isinstance(error, VekoError):
        error.plugin = error.plugin or source.name
        error.path = error.path or source.path


def _close(ends: list[Callable[[], None]]) -> None:
    while ends:
        ends.pop()()


def _read(source: Source) -> tuple[dict[str, bytes], Content]:
    """Return the sources of a plugin and the digests of its files, as they are before it runs."""
    path = source.path
    if path is None:
        return {}, {}
    held: dict[str, bytes] = {}
    if path.is_dir():
        content = content_of(path, keep=held)
    else:
        held[str(path)] = read_source(str(path), MAX_SOURCE)[0]
        content = content_of(path, held)
    return held, content
