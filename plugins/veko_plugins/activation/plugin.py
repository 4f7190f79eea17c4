"""The core plugin `activation`: plugins with `activation = "first use"` wait until they are used.

When such a plugin loads for the first time, what it registers is written down (see `index`). From
then on it is answered at `source:import` by a plugin that registers the same without running the
module (see `waiting`). The first use reloads it, and that reload imports the module: all that holds
of a reload holds of it (one swap, the same order of hooks, plugins that need it come along).

Cost: nothing for plugins that do not wait, but a look at their outlines. While one waits that has
routes, each request is matched a second time.
Promise: a use that needs the plugin waits for its load. Uses at once load it once. A load that
fails is raised to all of them, and is not tried again for a second, then two, at most a minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from veko import Context, LoadError, Manifest, ManifestError, Plugin, PluginRecord, VekoError
from veko.errors import text_of

from .._lib.first_use import FIRST_USE, Waiting
from .._lib.manifests import requirement_fault
from .._lib.versions import Requirement
from .._source.content import content_now
from .._source.loading import Loading
from .._source.source import Source, SourceImport
from .index import Index, Indexes, key_of, registered
from .waiting import WaitingPlugin

__all__ = ["Activation"]

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds until a plugin that could not be loaded is tried again; twice as long each time."""
_AFTER_REMOTE: Final = 0.0
_NOTHING: Final = nullcontext()
_REMEDY: Final = 'Remove activation = "first use" from its manifest.'

_Scope = MutableMapping[str, Any]
_ASGI = Callable[[_Scope, Any, Any], Awaitable[Any]]


class _Failure(msgspec.Struct, frozen=True):
    """Why a load failed. Not the error: it would keep the module of the failed import alive.

    Attributes:
        text: What the error says.
        step: The step that failed.
        until: When the plugin may be tried again, on the clock of the event loop.
        wait: How many seconds after the failure that is.
    """

    text: str
    step: str
    until: float = 0.0
    wait: float = 0.0


class _Wake:
    """A load that is under way."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.failure: _Failure | None = _Failure("the application stopped meanwhile", "load")


class Activation(Plugin):
    """Lets plugins wait for their first use.

    Args:
        folder: The folder of the indexes.
    """

    name = "activation"
    version = "2.0.0"
    description = "Runs the modules of plugins when they are used for the first time"
    core = True

    _context: Context

    def __init__(self, folder: Path) -> None:
        self._indexes = Indexes(folder)

    def load(self, context: Context) -> None:
        """Answer `source:import`, and look at what was made."""
        self._context = context
        self._kernel = context.kernel
        self._live: set[WaitingPlugin] = set()
        self._keys: dict[str, str] = {}  # of plugins that load now, to be indexed
        self._waking: dict[str, _Wake] = {}
        self._failed: dict[str, _Failure] = {}
        self._indexing = False
        self._in_front: list[tuple[Any, str, _ASGI, _ASGI]] = []
        context.hook("source:import", self._import, priority=_AFTER_REMOTE, timeout=None)
        context.hook("source:imported", self._imported, priority=_AFTER_REMOTE, timeout=None)

    def unload(self) -> None:
        """Stand in front of requests no more."""
        self._leave()

    # -- making plugins

    async def _import(self, source: Source, asked: SourceImport) -> Plugin | None:
        """Answer with a plugin that waits, if the index knows this very source."""
        fields = source.outline.fields if source.outline is not None else {}
        if fields.get("activation") != FIRST_USE or source.path is None:
            return None
        name, record = source.name, self._kernel.get(source.name)
        if asked.wanted is not None or name in self._waking:
            return None
        if record is not None and record.loaded and not isinstance(record.plugin, Waiting):
            return None  # it is in use: a reload gives it the next version at once
        settings: Any = self._context.use("config")
        content = await content_now(source.path, {})
        key = key_of(content, settings.section(name))
        index = self._indexes.read(name, key)
        if index is None:
            self._keys[name] = key
            if not self._indexing:
                self._indexing = True
                self._context.intercept_step(self._around)
            return None
        asked.content = content
        return WaitingPlugin(index, source.path, self.wake, self._live)

    async def _imported(self, plugin: Plugin, source: Source) -> None:
        """Refuse what can never wait, and load what a plugin needs before it loads itself."""
        if isinstance(plugin, Waiting):
            if not self._in_front:
                self._step_in_front()
            return
        manifest = plugin.manifest
        for needed in _needed_by(manifest):
            if needed not in self._waking:  # else it reloads with this one
                await self.wake(needed)
        if manifest.activation != FIRST_USE:
            return
        why = ""
        if manifest.required:
            why = "required = True means that it must run from the start"
        elif hasattr(
            plugin, "lives"
        ):  # its process starts at once: that is for the operator to say
            self._keys.pop(manifest.name, None)
            self._context.log(
                "info", f"{manifest.name} runs in a process of its own: it never waits"
            )
        elif source.outline is None or source.outline.fields.get("activation") != FIRST_USE:
            why = "its manifest cannot be read without running it: write its fields as literals"
        elif source.path is None:
            why = "it comes from no file"
        if why:
            raise _refusal(plugin, why)

    # -- indexing

    def _around(self, step: str, owner: Any) -> AbstractContextManager[None]:
        if step not in ("load()", "activate()") or owner.name not in self._keys:
            return _NOTHING
        if owner.manifest.activation != FIRST_USE or isinstance(owner.plugin, Waiting):
            return _NOTHING
        return self._looking(step, owner)

    @contextmanager
    def _looking(self, step: str, owner: Any) -> Iterator[None]:
        """Write down what a plugin has registered when a step of it has ended well."""
        yield
        plugin: Plugin = owner.plugin
        if step == "load()" and plugin.life_cycle("activate") is not None:
            return
        key = self._keys.pop(owner.name)
        closed = {event.name for event in self._kernel.bus.events if event.fails_closed}
        found, why = registered(owner.entries, owner.scope.held, closed)
        if why is not None:
            raise _refusal(plugin, why)
        try:
            self._indexes.write(Index.of(key, plugin.manifest, found))
        except OSError as error:  # it loads at the next start again
            self._context.log("warning", f"{owner.name} cannot wait for its first use: {error}")

    # -- the first use

    async def wake(self, name: str) -> None:
        """Load a plugin that waits; nothing happens for others.

        Raises:
            LoadError: It cannot be loaded, or could not a moment ago.
        """
        record = self._kernel.get(name)
        if record is None or not record.active or not isinstance(record.plugin, Waiting):
            return
        failed = self._failed.get(name)
        if failed is not None and anyio.current_time() < failed.until:
            raise _not_loaded(record, failed)
        running = self._waking.get(name)
        if running is None:
            running = self._waking[name] = _Wake()
            # In a task of its own: the caller may be cancelled, and others wait as well.
            self._context.spawn(self._load, record, running)
        await running.done.wait()
        if running.failure is not None:
            raise _not_loaded(record, running.failure)

    async def _load(self, record: PluginRecord, running: _Wake) -> None:
        name, loading = record.name, self._loading
        try:
            for needed in _needed_by(record.manifest):
                await self.wake(needed)
            await loading.reload_plugin(name, drained=False)
        except Exception as error:
            before = self._failed.get(name)
            wait = FIRST_WAIT if before is None else min(2 * before.wait, LONGEST_WAIT)
            until, step = anyio.current_time() + wait, getattr(error, "step", "load")
            running.failure = self._failed[name] = _Failure(text_of(error), step, until, wait)
        else:
            running.failure = None
            self._failed.pop(name, None)
        finally:
            del self._waking[name]
            running.done.set()

    @property
    def _loading(self) -> Loading:
        loading: Loading = self._context.use("loading")
        return loading

    # -- requests

    def _step_in_front(self) -> None:
        """Let the plugins that a request needs load before it pins what it runs on."""
        http = self._kernel.bus.live.registry.get("service", "http")
        if http is None:
            return
        dispatcher = http.value.asgi
        for name in ("answer", "converse"):
            before: _ASGI = getattr(dispatcher, name)
            after = self._in_front_of(before, http.value.plugin_at)
            setattr(dispatcher, name, after)
            self._in_front.append((dispatcher, name, before, after))

    def _in_front_of(self, before: _ASGI, plugin_at: Callable[[_Scope], str | None]) -> _ASGI:
        async def arrive(scope: _Scope, receive: Any, send: Any) -> Any:
            if self._live:
                for name in self._needed(plugin_at(scope)):
                    try:
                        await self.wake(name)
                    except VekoError:
                        pass  # it was reported; what stands for the plugin's route answers 503
            return await before(scope, receive, send)

        return arrive

    def _needed(self, plugin: str | None) -> list[str]:
        """Return the plugins that wait and that a request for a plugin's route uses."""
        everything = plugin == "openapi"  # the document describes the routes of all plugins
        return [
            one.name
            for one in self._live
            if one.hears or one.name == plugin or (everything and one.serves)
        ]

    def _leave(self) -> None:
        while self._in_front:
            dispatcher, name, before, after = self._in_front.pop()
            if getattr(dispatcher, name) is after:
                setattr(dispatcher, name, before)


def _refusal(plugin: Plugin, why: str) -> ManifestError:
    return ManifestError(
        f"it cannot wait for its first use: {why}",
        plugin=plugin.manifest.name,
        path=plugin.source,
        remedy=_REMEDY,
    )


def _not_loaded(record: PluginRecord, failure: _Failure) -> LoadError:
    return LoadError(
        f"it could not be loaded at its first use: {failure.text}",
        step=failure.step,
        plugin=record.name,
        path=record.source,
        remedy="Fix it; a later use tries again.",
    )


def _needed_by(manifest: Manifest) -> list[str]:
    """Return the names of the plugins that one needs; validation reports what is no requirement."""
    valid = (text for text in manifest.dependencies if not requirement_fault(text))
    return [Requirement.parse(text).name for text in valid]
