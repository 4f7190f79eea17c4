"""The loader: makes plugins that can be loaded from the sources that discovery found.

Handlers of `source:import` may stand in for it: plugins that run in a process of their own are not
imported here. The plugin in a module is the module itself if it has a `load`; else its attribute
`plugin` (a `Plugin`, its subclass or a mapping); else its only subclass of `Plugin`. Fields of
`plugin.toml` fill in what the source leaves out.

Cost: see `importer` and `_source.bytecode`.
Promise: see `importer`. An entry point is imported like any installed module, so it has one
generation only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from veko import (
    Context,
    Event,
    LoadError,
    Manifest,
    ManifestError,
    NotFoundError,
    Plugin,
    VekoError,
)
from veko.extend import DecoratedPlugin

from .._lib.manifests import checked_plugin
from .._source.bytecode import MAX_SOURCE, SourceCache
from .._source.content import Content, content_of
from .._source.import_errors import explain
from .._source.source import Source, SourceImport
from .foreign import transpiled
from .importer import Importer, ModuleGeneration, sources_of

__all__ = ["IMPORT", "Loaded", "Loader", "Source", "SourceCache", "plugin_of"]

IMPORT: Final = Event(
    "source:import",
    payload=Source,
    returns=True,
    stops=Plugin | VekoError,
    fails_closed=True,
    doc="A plugin's source is about to be imported. Arguments: its `Source`, and a `SourceImport` "
    "to fill in. The first `Plugin` that a handler returns stands for it; a `VekoError` that it "
    "raises is why it cannot be imported.",
)

IMPORTED: Final = Event(
    "source:imported",
    payload=Plugin,
    stops=VekoError,
    fails_closed=True,
    doc="A plugin was made from its source, and is not loaded yet. Arguments: the `Plugin`, its "
    "`Source`. A `VekoError` that a handler raises refuses it.",
)

_FIELDS = tuple(field.name for field in msgspec.structs.fields(Manifest))


class Loaded(msgspec.Struct, frozen=True):
    """A plugin and the import that it came from.

    Attributes:
        plugin: The plugin, its manifest checked; give it to `Kernel.load` or `Kernel.reload`.
        generation: Its modules, to be disposed of when it has ended; `None` for entry points, and
            if a handler of `source:import` made the plugin.
        source: What it was imported from.
        content: The digests of its files at that time; see `_source.content`. Empty if it was
            imported from the sources of an earlier generation.
        answered: What a handler of `source:import` made, if one did.
    """

    plugin: Plugin
    generation: ModuleGeneration | None
    source: Source
    content: Content = {}
    answered: SourceImport | None = None

    @property
    def sources(self) -> Mapping[str, bytes] | None:
        """Its source files by path, to import it once more; `None` if they are not known."""
        if self.generation is not None:
            return self.generation.sources
        return (self.answered.held or None) if self.answered is not None else None


class Loader(Plugin):
    """The service `loader`.

    Args:
        cache: The folder for bytecode (`.veko/cache` in the application's directory), or a
            `SourceCache` that discovery reads ahead into; `None` for no cache.
        max_source: The largest source that is read, in bytes.
        allow_symlinks: Whether packages may hold links to sources outside their folder.
    """

    name = "loader"
    version = "2.0.0"
    description = "Imports each generation of a plugin as a module of its own."
    core = True

    def __init__(
        self,
        cache: SourceCache | Path | None = None,
        *,
        max_source: int = MAX_SOURCE,
        allow_symlinks: bool = False,
    ) -> None:
        if not isinstance(cache, SourceCache):
            cache = SourceCache(cache, max_source=max_source)
        self.importer = Importer(cache, allow_symlinks=allow_symlinks)
        self._emit: Callable[..., Awaitable[Any]] | None = None
        self._accept: Callable[..., Awaitable[Any]] | None = None

    def load(self, context: Context) -> None:
        """Provide the service and declare its event."""
        context.declare(IMPORT)
        context.declare(IMPORTED)
        self._emit = context.kernel.bus.emitter(IMPORT)
        self._accept = context.kernel.bus.emitter(IMPORTED)
        context.provide("loader", self)

    async def import_source(
        self, source: Source, sources: Mapping[str, bytes] | None = None
    ) -> Loaded:
        """Import a new generation and find the plugin in it.

        Handlers of `source:import` are asked first.

        Args:
            source: What is imported.
            sources: The sources of an earlier generation, to import that once more.

        Raises:
            LoadError: The source cannot be read, compiled or run.
            ManifestError: There is no valid plugin in it. Nothing of it stays imported.
            VekoError: A handler of `source:import` or `source:imported` refuses it.
        """
        loaded = await self._import(source, sources)
        if self._accept is not None:
            try:
                await self._accept(loaded.plugin, source)
            except BaseException:
                self.dispose(loaded)
                raise
        return loaded

    async def _import(self, source: Source, sources: Mapping[str, bytes] | None) -> Loaded:
        if self._emit is not None:
            asked = SourceImport(wanted=sources)
            answer = await self._emit(source, asked)
            if isinstance(answer, Plugin):
                return Loaded(answer, None, source, asked.content, asked)
            source = answer
        if source.entry_point is not None:
            return Loaded(_from_entry_point(source, source.entry_point), None, source)
        if source.path is None:
            raise NotFoundError(
                f"the source of {source.name!r} is neither a file nor an entry point",
                plugin=source.name,
                remedy="Give it a path or an entry point.",
            )
        if source.kind == "script":
            raise LoadError(
                "nothing here runs scripts",
                step="import",
                plugin=source.name,
                path=source.path,
                remedy="The core plugin `remote` does; it was left out.",
            )
        package = source.kind == "package"
        importer = self.importer
        foreign = await transpiled(source.path, importer.cache, sources, importer.allow_symlinks)
        generation = importer.load(
            source.name,
            source.path,
            is_package=package,
            sources=sources,
            fields=source.fields,
            foreign=foreign,
        )
        try:
            module = generation.module
            plugin = plugin_of(module, generation.root, source.path, source.fields)
        except BaseException as error:  # finding the plugin runs `__init__` of its class
            self.dispose(generation)
            if isinstance(error, VekoError | KeyboardInterrupt):
                raise
            raise explain(error, source.name, source.path, generation.root) from error
        held = generation.sources
        if sources is not None:
            return Loaded(plugin, generation, source)
        if not package:
            return Loaded(plugin, generation, source, content_of(source.path, held))
        # Sources that are not imported yet are kept too, for late imports. Not in a thread: plugins
        # that load side by side have to arrive in order.
        keep: dict[str, bytes] = {}
        limit = self.importer.cache.max_source
        others = foreign.sources() if foreign is not None else {}
        content = content_of(source.path, {**others, **held}, keep=keep, limit=limit)
        generation.sources = {**keep, **others, **held}
        return Loaded(plugin, generation, source, content)

    def sources_of(self, module: object) -> Mapping[str, bytes]:
        """Return the source files of the generation that a module is part of; none for others."""
        return sources_of(module)

    def dispose(self, loaded: Loaded | ModuleGeneration | None) -> None:
        """Take a generation's modules out of `sys.modules`, or free what a handler made of it.

        A second time does nothing.
        """
        generation = loaded.generation if isinstance(loaded, Loaded) else loaded
        if generation is not None:
            self.importer.dispose(generation)
        answered = loaded.answered if isinstance(loaded, Loaded) else None
        if answered is not None and answered.dispose is not None:
            dispose, answered.dispose = answered.dispose, None
            dispose()


def plugin_of(
    module: object, root: str, path: Path | None, fields: Mapping[str, object] | None = None
) -> Plugin:
    """Find the plugin in a module.

    Args:
        module: The module, or the object that replaced it in `sys.modules`.
        root: The name under which its classes were defined.
        path: The file or folder, for messages.
        fields: Manifest fields that fill in what the source leaves out.

    Raises:
        ManifestError: There is none, or more than one.
    """
    found = _chosen(module, root, path)
    if not fields:
        return checked_plugin(found, source=path, module=module)
    if isinstance(found, type) and issubclass(found, Plugin):
        found = found()
    if isinstance(found, Plugin):
        for key, value in fields.items():
            if key in _FIELDS and getattr(found, key, None) is None:
                setattr(found, key, value)
        return checked_plugin(found, source=path, module=module)
    own = found if isinstance(found, Mapping) else vars(found)
    said = {key: value for key, value in own.items() if key[0] != "_" and value is not None}
    return checked_plugin({**fields, **said}, source=path, module=module)


def _chosen(module: object, root: str, path: Path | None) -> object:
    if not isinstance(module, ModuleType):
        return module
    named = getattr(module, "plugin", None)
    if isinstance(named, DecoratedPlugin):  # a function that it decorates may be named `load`
        return named
    if hasattr(module, "load"):
        return module
    if isinstance(named, Plugin | Mapping) or (
        isinstance(named, type) and issubclass(named, Plugin)
    ):
        return named
    own = {
        value.__qualname__: value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and _within(value, root)
    }.values()
    classes = [one for one in own if not any(one in other.__mro__[1:] for other in own)]
    if len(classes) > 1:
        raise ManifestError(
            f"there are several plugins in it: {', '.join(one.__name__ for one in classes)}",
            path=path,
            remedy="Name one of them `plugin`, or put each into a file of its own.",
        )
    return classes[0] if classes else module


def _within(value: type, root: str) -> bool:
    return value.__module__ == root or value.__module__.startswith(f"{root}.")


def _from_entry_point(source: Source, entry_point: EntryPoint) -> Plugin:
    try:
        found = entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LoadError(
            f"{source} cannot be imported: {type(error).__name__}: {error}",
            step="import",
            plugin=source.name,
            remedy="Fix, reinstall or uninstall the distribution.",
        ) from error
    return plugin_of(found, entry_point.module, None, source.fields)
