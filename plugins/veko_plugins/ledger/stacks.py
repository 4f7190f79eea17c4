"""Whose work a stack shows: the plugin, and the route of the request that it works for.

The innermost frame of a plugin decides: with its own file, or called by Veko as a handler, route,
middleware or task of a plugin (so plugins that are no files are known too). What a middleware
waits for is not its own work. What core plugins do belongs to the plugin whose code called them.

Cost: about 0.1 µs a frame; files are looked up once and kept until plugins come or go.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import veko
from veko.extend import owner_in

from .._lib.blame import files_of

if TYPE_CHECKING:
    from veko import Kernel, PluginRecord

__all__ = ["HOST", "Payer", "Stacks"]

_KERNEL: Final = f"{Path(veko.__file__).parent}{os.sep}"
_HTTP: Final = f"{Path(__file__).parents[1] / 'http'}{os.sep}"
_GENERATED: Final = "<veko "
_KERNEL_FRAME: Final = "\0kernel"
_HTTP_FRAME: Final = "\0http"
_MOST_FILES: Final = 10_000


class Payer(NamedTuple):
    """Whose processor time it is.

    Attributes:
        plugin: The plugin; `None` for the host.
        route: The plugin and the name of the route whose request it is for, or `None`.
    """

    plugin: str | None
    route: tuple[str, str] | None = None


HOST: Final = Payer(None)


class Stacks:
    """Tells the payers of stacks.

    Args:
        kernel: The kernel that has the plugins.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._paths: dict[str, str] = {}
        self._kinds: dict[str, str | None] = {}
        self._names: set[str] = set()
        for record in kernel.records():
            self.add(record)

    def add(self, record: PluginRecord) -> None:
        """Know a plugin of the application from now on."""
        if record.core:
            return
        self._names.add(record.name)
        files = files_of(record)
        if files is not None:
            self._paths[str(files)] = record.name
        self._kinds = {}

    def remove(self, name: str) -> None:
        """Forget a plugin."""
        self._names.discard(name)
        self._paths = {path: one for path, one in self._paths.items() if one != name}
        self._kinds = {}

    def owner_of(self, path: str) -> str | None:
        """Return the plugin that a file belongs to."""
        while path:
            if path in self._paths:
                return self._paths[path]
            path = path.rpartition(os.sep)[0]
        return None

    def _kind(self, path: str) -> str | None:
        """Return a file's plugin, or which part of Veko it is whose frames tell more."""
        if path.startswith((_KERNEL, _GENERATED)):
            kind: str | None = _KERNEL_FRAME
        elif path.startswith(_HTTP):
            kind = _HTTP_FRAME
        else:
            kind = self.owner_of(path)
        if len(self._kinds) >= _MOST_FILES:  # code that is generated has many names
            self._kinds = {}
        self._kinds[path] = kind
        return kind

    def payer(self, frame: FrameType | None) -> Payer:
        """Return who pays for what a stack does.

        Args:
            frame: The innermost frame.
        """
        plugin: str | None = None
        decided = False
        codes: set[CodeType] = set()
        kinds, part_in = self._kinds, None
        while frame is not None:
            code = frame.f_code
            path = code.co_filename
            kind = kinds[path] if path in kinds else self._kind(path)
            if kind is _HTTP_FRAME:
                part_in = part_in or self._part_in()
                part = None if part_in is None else part_in(frame)
                if part is None:
                    pass
                elif part.route is None:
                    if not decided:
                        decided, plugin = True, part.plugin
                else:
                    # It was seen further in than the middlewares around it.
                    if plugin is None and part.handler in codes:
                        plugin = part.plugin
                    return Payer(plugin, (part.plugin, part.route))
            elif decided:
                pass
            elif kind is _KERNEL_FRAME:
                name = getattr(owner_in(frame), "name", None)
                if name in self._names:
                    decided, plugin = True, name
            elif kind is not None:
                decided, plugin = True, kind
            else:
                codes.add(code)
            frame = frame.f_back
        return Payer(plugin)

    def _part_in(self) -> Callable[[FrameType], Any] | None:
        entry = self._kernel.bus.live.registry.get("service", "http")
        return None if entry is None else entry.value.part_in
