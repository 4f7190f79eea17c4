"""Which plugin a piece of code belongs to: a function, a file, an allocation.

A function belongs to the plugin that registered it as a handler, otherwise to the plugin in whose
files it is defined. Functions are identified by file and first line, so nothing here keeps a
plugin's code alive.

Cost: a walk over the registry for each `CodeOwners`; made only when something was sampled, never on
a hot path.
"""

from __future__ import annotations

import functools
import glob
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from veko import Kernel, PluginRecord

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

    Args:
        kernel: The kernel whose plugins and handlers are read, once.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._handlers: dict[FunctionKey, tuple[str, str | None]] = {}
        self._files = {
            str(files): record.name
            for record in kernel.records()
            if not record.core and (files := files_of(record)) is not None
        }
        registry = kernel.bus.registry
        for kind in ("hook", "pattern", "route"):
            for entry in registry.entries(kind):
                if entry.owner is None or entry.owner.record.core:
                    continue
                value: Any = entry.value
                key = _key(value.handler)
                if key is None:
                    continue
                event = f"{value.method} {value.path}" if kind == "route" else str(value.event)
                ambiguous = key in self._handlers and self._handlers[key][1] != event
                self._handlers[key] = entry.owner.name, None if ambiguous else event

    def plugin(self, function: FunctionKey) -> str | None:
        """Return the name of the plugin that owns a function; `None` for the application's own."""
        if function in self._handlers:
            return self._handlers[function][0]
        # Up the folders of its file, not along the plugins: there may be thousands.
        path = Path(function[0])
        around = (self._files.get(str(one)) for one in (path, *path.parents))
        return next((name for name in around if name is not None), None)

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
