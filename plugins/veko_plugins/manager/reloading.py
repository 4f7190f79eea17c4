"""How the manager reloads plugins: import anew, check, swap, and what there is to go back to.

Those that need a plugin are imported anew with it. What a new generation replaced can be had again
as long as it is on probation (`former`): of that only the sources are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from veko import Kernel, Plugin, PluginRecord
from veko.errors import LoadError, ManifestError, NotFoundError

from .._source.content import Content, differing
from .._source.source import Source
from .origins import Former, Generations

if TYPE_CHECKING:
    from ..loader import Loaded
    from ..options import Options

__all__ = ["Reloading"]


class _Next(msgspec.Struct):
    """What a plugin is to run on next."""

    record: PluginRecord
    plugin: Plugin
    origin: Any
    loaded: Loaded | None
    former: Former | None


class Reloading:
    """The reloading of one run of the manager.

    Attributes:
        former: What plugins that are on probation were before, by name.
        rejected: What files held whose plugin was taken back, by name.
    """

    def __init__(
        self,
        kernel: Kernel,
        options: Options,
        generations: Generations,
        check: Callable[[Plugin, Mapping[str, str]], None],
        made: Callable[[Any], Plugin],
    ) -> None:
        self._kernel = kernel
        self._options = options
        self._generations = generations
        self._check = check
        self._made = made
        self.former: dict[str, Former] = {}
        self.rejected: dict[str, Content] = {}

    async def reload(
        self, name: str, config: Mapping[str, Any] | None, *, drained: bool = True
    ) -> PluginRecord:
        """Give a plugin a new generation; see `PluginManager.reload_plugin`."""
        record = self._kernel.get(name)
        assert record is not None
        try:
            first = await self._imported(record, {})
        except Exception as error:
            await self._kernel.bus.report(error, owner=record, handler="reload")
            raise
        if config:  # that may be what is wrong with it
            first.former = self._generations.former(name)
        await self._swap(first, config, self._imported)
        self.rejected.pop(name, None)
        for retirement in record.retiring[-1:] if drained else ():
            await retirement.done.wait()
        return record

    async def take_back(self, name: str) -> PluginRecord:
        """Give a plugin a generation of what it was before its probation.

        Raises:
            NotFoundError: It is not on probation.
            VekoError: It cannot be loaded any more as it was; it stays as it is.
        """
        former, record = self.former.pop(name, None), self._kernel.get(name)
        loaded = self._generations.loaded(name)
        if former is None or record is None or loaded is None:
            raise NotFoundError(f"{name!r} is not on probation", plugin=name)
        self.rejected[name] = loaded.content
        try:
            first = await self._as_it_was(record, former)
            await self._swap(first, former.given, self._as_it_is)
        except LoadError as error:
            if error.step not in ("export_state", "import_state"):
                raise
            first = await self._as_it_was(record, former)
            _without_state(first.plugin)  # what fails may have spoilt it
            await self._swap(first, former.given, self._as_it_is)
        return record

    def forget(self, name: str) -> None:
        """Forget what a plugin was; it is loaded anew, or no more."""
        self.former.pop(name, None)
        self.rejected.pop(name, None)

    async def _swap(
        self,
        first: _Next,
        config: Mapping[str, Any] | None,
        imported: Callable[[PluginRecord, Mapping[str, str]], Awaitable[_Next]],
    ) -> None:
        """Let the kernel swap a plugin and those that need it, and note what they run on."""
        group = [first]

        async def dependents(record: PluginRecord) -> Plugin:
            versions = {one.record.name: one.plugin.manifest.version for one in group}
            group.append(await imported(record, versions))
            self._on_probation(group[-1])
            return group[-1].plugin

        swapped = False
        try:
            self._on_probation(first)
            await self._kernel.reload(first.plugin, config, dependents=dependents, drained=False)
            swapped = True  # though another reload may have replaced it already
        finally:  # it may have been cancelled after the swap
            for one in group:
                name = one.record.name
                if swapped or one.record.plugin is one.plugin:
                    self._generations.keep(name, one.origin, one.loaded)
                    continue
                self._generations.drop(name, one.loaded)
                if self.former.get(name) is one.former:
                    self.former.pop(name, None)

    def _on_probation(self, one: _Next) -> None:
        """Keep what is replaced, unless there is something older that stood its probation."""
        if one.former is not None and self._options.probation:
            self.former.setdefault(one.record.name, one.former)

    async def _imported(self, record: PluginRecord, versions: Mapping[str, str]) -> _Next:
        """Import a plugin as its files are now, beside others that come with it."""
        kernel, name = self._kernel, record.name
        origin: Any = self._generations.origin(name) or record.plugin  # the kernel was given it
        loaded: Loaded | None = None
        try:
            if isinstance(origin, Source):
                if origin.path is not None:  # what plugin.toml says may have changed too
                    origin = kernel.use("discovery").find(origin.path)
                loaded = await kernel.use("loader").import_source(origin)
            plugin = self._made(origin) if loaded is None else loaded.plugin
            if plugin.manifest.name != name:
                raise ManifestError(
                    f"it calls itself {plugin.manifest.name!r} now",
                    plugin=name,
                    path=plugin.source,
                    remedy="Unload it and load it under its new name.",
                )
            self._check(plugin, versions)
        except BaseException:
            self._generations.dispose(loaded)
            raise
        former = self._generations.former(name)
        if former is not None and loaded is not None:
            changed = differing(former.content, loaded.content)
            former = former if changed else None  # going back would change nothing
        return _Next(record, plugin, origin, loaded, former)

    async def _as_it_was(self, record: PluginRecord, former: Former) -> _Next:
        """Import a plugin as its files were."""
        loader = self._kernel.use("loader")
        imported: Loaded = await loader.import_source(former.source, former.sources)
        loaded = msgspec.structs.replace(imported, content=former.content)
        return _Next(record, loaded.plugin, former.source, loaded, None)

    async def _as_it_is(self, record: PluginRecord, _: Mapping[str, str]) -> _Next:
        """Import a plugin as its files were when it was imported last."""
        former = self._generations.former(record.name)
        if former is not None:
            return await self._as_it_was(record, former)
        origin = self._generations.origin(record.name) or record.plugin
        return _Next(record, record.plugin, origin, None, None)


def _without_state(plugin: Plugin) -> None:
    """Let a plugin take over no state."""
    real = plugin.life_cycle
    vars(plugin)["life_cycle"] = lambda step: None if step == "import_state" else real(step)
