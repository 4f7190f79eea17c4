"""Which plugin a piece of code belongs to: a function, a file, an allocation.

A function belongs to the plugin that registered it as a handler, otherwise to the plugin in whose
files it is defined. Functions are identified by file and first line, so nothing here keeps a
plugin's code alive.

Cost: a walk over the registry for each `CodeOwners`, in slices; made only when something was
sampled, never on a hot path. A function is looked up by its file and the folders above.
"""

from __future__ import annotations

import functools
import glob
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veko.extend import Turns

if TYPE_CHECKING:
    from veko import Kernel, PluginRecord
    from veko.extend import Entry

__all__ = ["CodeOwners", "FunctionKey", "allocated", "allocated_by", "files_of"]

FunctionKey = tuple[str, int]
"""Identifies a function: its file and its first line."""


def files_of(record: PluginRecord) -> Path | None:
    """Return a plugin's file or folder; `None` if it does not come from files."""
    source = record.source
    if source is None:
        return None
    return source.parent if source.name == "__init__.py" else source


def allocated(record: PluginRecord) -> int | None:
    """Return the bytes that code in a plugin's files has allocated and not freed yet.

    Takes a snapshot of tracemalloc, which costs more the more memory is traced.

    Returns:
        `None` if the plugin does not come from files, or tracemalloc is not tracing.
    """
    files = files_of(record)
    if files is None or not tracemalloc.is_tracing():
        return None
    pattern = glob.escape(str(files)) + ("/*" if files.is_dir() else "")
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, pattern)])
    return sum(trace.size for trace in snapshot.traces)


def allocated_by(owner_of: Callable[[str], str | None]) -> dict[str, int]:
    """Return the bytes that are allocated and not freed yet, by the owner of the file.

    Takes one snapshot of tracemalloc, which costs more the more memory is traced. Without tracing,
    the result is empty.

    Args:
        owner_of: Returns the owner of a file; `None` for files that are not counted.
    """
    found: dict[str, int] = {}
    if tracemalloc.is_tracing():
        for one in tracemalloc.take_snapshot().statistics("filename"):
            owner = owner_of(one.traceback[0].filename)
            if owner is not None:
                found[owner] = found.get(owner, 0) + one.size
    return found


class CodeOwners:
    """The application plugins of a kernel and the functions that they own at this moment.

    Core plugins own nothing: their time is spent on behalf of others.

    `await CodeOwners.of(kernel)` makes them.
    """

    def __init__(self) -> None:
        self._handlers: dict[FunctionKey, tuple[str, str | None]] = {}
        self._files: dict[Path, str] = {}

    @classmethod
    async def of(cls, kernel: Kernel) -> CodeOwners:
        """Read a kernel's plugins and handlers, once.

        With thousands of them that takes long, and the watchdog would report its own report: so
        others run in between (test_whose_code_it_is_is_found_in_pieces).

        Args:
            kernel: The kernel.
        """
        made, turns = cls(), Turns()
        registry = kernel.bus.registry
        for record in kernel.records():
            files = None if record.core else files_of(record)
            if files is not None:
                made._files.setdefault(files, record.name)
            if turns.due:
                await turns.pause()
        for kind in ("hook", "pattern", "route"):
            for key in registry.keys(kind):
                for entry in registry.all(kind, key):
                    made._add(kind, entry)
                    if turns.due:
                        await turns.pause()
        return made

    def _add(self, kind: str, entry: Entry) -> None:
        if entry.owner is None or entry.owner.record.core:
            return
        value: Any = entry.value
        key = _key(value.handler)
        if key is not None:
            event = f"{value.method} {value.path}" if kind == "route" else str(value.event)
            ambiguous = key in self._handlers and self._handlers[key][1] != event
            self._handlers[key] = entry.owner.name, None if ambiguous else event

    def plugin(self, function: FunctionKey) -> str | None:
        """Return the name of the plugin that owns a function; `None` for the application's own."""
        if function in self._handlers:
            return self._handlers[function][0]
        # Up the folders of its file, not along the plugins: there may be thousands.
        path, files = Path(function[0]), self._files
        return next((files[one] for one in (path, *path.parents) if one in files), None)

    def is_handler(self, function: FunctionKey) -> bool:
        """Return whether a function is registered as a handler."""
        return function in self._handlers

    def event(self, function: FunctionKey) -> str | None:
        """Return the event, or the method and path, that a function handles.

        Returns:
            `None` if it is no handler, or handles several events.
        """
        return self._handlers[function][1] if function in self._handlers else None


def _key(handler: Callable[..., object]) -> FunctionKey | None:
    function: object = handler
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return None if code is None else (code.co_filename, code.co_firstlineno)
