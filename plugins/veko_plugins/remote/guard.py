"""The core plugin `permissions`: what each plugin asks for, is granted, uses and is refused.

It asks `veko.lock` before a plugin runs: with `locked`, a plugin whose files or permissions differ
is refused before its code runs; without, one that asks for more than it was allowed is refused
before it goes live, so the running version stays. An application without `veko.lock` has not
decided anything: then nothing is compared, except with `enable_sandbox`: there the first start
trusts what it finds and writes the file.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veko import Context, Manifest, OptionError, Plugin, VekoError

from .._lib.private_files import open_private, private_folder
from .._source.source import Source
from .accesses import Access, Accesses
from .database_doors import guard
from .lock import Entry, location, normal
from .locking import Locking, only_a_worker_knows
from .permissions import Grants, grants

if TYPE_CHECKING:
    from .broker import Broker
    from .learning import Learned

__all__ = ["ACCESSES", "Permissions"]

ACCESSES: Final = "accesses.json"
"""The file in `.veko/` that says what plugins of a running application access."""
_EVERY: Final = 10.0


class Permissions(Plugin):
    """The service `permissions`.

    Args:
        directory: The application's directory.
        sandbox: Whether all plugins are confined.
        locked: Whether a plugin must be exactly what `veko.lock` says.
        learn: Whether confined plugins are observed only.
        dev_mode: Whether the plugins are being written here: then no first start writes the file.
        check: Whether `veko.lock` is asked at all.

    Attributes:
        accesses: What plugins accessed.
        learn: Whether confined plugins are observed only.
    """

    name = "permissions"
    version = "2.0.0"
    description = "Permissions: what plugins ask for, are granted, use and are refused."
    core = True

    accesses: Accesses
    _context: Context

    def __init__(
        self,
        directory: Path = Path(),
        *,
        sandbox: bool = False,
        locked: bool = False,
        learn: bool = False,
        dev_mode: bool = False,
        check: bool = True,
    ) -> None:
        self.directory = directory.absolute()
        if learn and locked:
            raise OptionError(
                "learn and locked exclude each other: one lets plugins do everything",
                remedy="Leave one of them out.",
            )
        self.learn = learn
        self.accesses = Accesses(self._report)
        self._sandbox = sandbox
        self._locking: Locking | None = None
        if check and not learn:
            trusts_first = sandbox and not (dev_mode or locked)
            self._locking = Locking(
                self.directory, locked=locked, trusts_first=trusts_first, running=self._running
            )
        self._broker: Broker | None = None
        self._observed: dict[str, tuple[Source, tuple[str, ...]]] = {}
        self._written: object = None

    def load(self, context: Context) -> None:
        """Provide the service, and follow how plugins come."""
        self._context = context
        context.provide("permissions", self)
        first, last = math.inf, -math.inf
        context.hook("source:import", self._before, priority=first, timeout=None)
        context.hook("source:imported", self._imported, priority=first, timeout=None)
        context.hook("context:create", self._created)
        context.hook("app:init", self._trust, timeout=None)
        context.hook("app:stop", self.save, priority=last)
        context.every(_EVERY, self.save)

    def unload(self) -> None:
        """End what connects for workers."""
        if self._broker is not None:
            self._broker.close()

    @property
    def broker(self) -> Broker:
        """What connects for workers that may open no connection."""
        if self._broker is None:
            from .broker import Broker  # only where workers are

            self._broker = Broker()
        return self._broker

    def _report(self, plugin: str, text: str) -> None:
        self._context.log("warning", f"{plugin}: {text}", about=plugin)

    # -- what is granted

    def confines(self, source: Source, permissions: Iterable[str], isolation: str = "none") -> bool:
        """Return whether a plugin is confined to its permissions."""
        if self._sandbox or isolation == "process":
            return True
        return source.kind == "script" and bool(tuple(permissions))

    def grants(
        self,
        source: Source,
        permissions: Iterable[str],
        *,
        isolation: str = "none",
        plugin: str | None = None,
        folder: Path | None = None,
    ) -> Grants | None:
        """Return what a plugin is granted; `None` if it is trusted with everything.

        Args:
            source: Where it was found.
            permissions: As in its manifest.
            isolation: As in its manifest.
            plugin: Its name.
            folder: The files that it runs from, if those are a copy of the source.

        Raises:
            LockError: It is more than `veko.lock` allows: a worker runs the plugin's code to find
                out its manifest, so it must not be given more even for that.
            ManifestError: A permission is not valid.
        """
        permissions = tuple(permissions)
        fields = {"permissions": permissions, "isolation": isolation}
        now = self.entry(source, self._spelled_out(source) | fields)
        if not now.confined and not self._asks_confined(source, now):
            return None
        if self._locking is not None and now.confined:
            self._locking.before_worker(plugin or source.name, source, now)
        found = grants(
            permissions,
            folder=folder or source.path or self.directory,
            directory=self.directory,
            plugin=plugin or source.name,
        )
        if not self.learn:
            return found
        self._observed[plugin or source.name] = source, permissions
        return msgspec.structs.replace(found, everything=True)

    def _asks_confined(self, source: Source, now: Entry) -> bool:
        """Return whether a plugin is asked for its manifest in a worker that is granted nothing.

        That it is confined may stand in code that has to run first.
        """
        locking = self._locking
        return (
            locking is not None
            and only_a_worker_knows(source)
            and locking.was_confined(source, now)
        )

    def learned(self) -> list[Learned]:
        """Return what was learned of the plugins that are observed, by name."""
        from .learning import learned  # only with `learn`

        return [
            learned(name, source, permissions, self.accesses.of(name), self.directory)
            for name, (source, permissions) in sorted(self._observed.items())
        ]

    # -- veko.lock

    def entry(self, source: Source, fields: dict[str, Any], hash: str = "") -> Entry:
        """Return what `veko.lock` holds of a plugin.

        Args:
            source: Where it was found.
            fields: The fields of its manifest.
            hash: The digest of its files, if it is known.
        """
        permissions = tuple(fields.get("permissions") or ())
        isolation = str(fields.get("isolation") or "none")
        return Entry(
            version=str(fields.get("version") or ""),
            source=location(source, self.directory),
            hash=hash,
            confined=self.confines(source, permissions, isolation),
            permissions=normal(permissions),
        )

    def _spelled_out(self, source: Source) -> dict[str, Any]:
        return source.fields | (source.outline.fields if source.outline is not None else {})

    async def _before(self, source: Source, asked: Any = None) -> None:
        """Refuse what must not run, before its code does."""
        if self._locking is not None:
            again = getattr(asked, "wanted", None) is not None
            await self._locking.before_import(
                source, lambda: self.entry(source, self._spelled_out(source)), again=again
            )

    async def _imported(self, plugin: Plugin, source: Source) -> None:
        """Refuse a plugin that asks for more than it was allowed, before it goes live."""
        if self._locking is not None:
            manifest = plugin.manifest
            described = functools.partial(self._entry_of, manifest, source)
            await self._locking.before_live(manifest.name, source, described)

    def _entry_of(self, manifest: Manifest, source: Source) -> Entry:
        fields = {
            "version": manifest.version,
            "permissions": manifest.permissions,
            "isolation": manifest.isolation,
        }
        return self.entry(source, fields)

    def _running(self, name: str) -> tuple[Entry, Source] | None:
        """Return what the running generation of a plugin is; `None` if it came from no source."""
        if not hasattr(self, "_context"):  # the command line asks it without an application
            return None
        kernel = self._context.kernel
        record, loading = kernel.get(name), kernel.registry.get("service", "loading")
        if record is None or not record.loaded or loading is None:
            return None
        source = loading.value.origin(name)
        if not isinstance(source, Source):
            return None
        return self._entry_of(record.manifest, source), source

    async def _trust(self) -> None:
        """Write `veko.lock` at the first start with `enable_sandbox`."""
        if self._locking is None:
            return
        try:
            names = [record.name for record in self._context.kernel.records()]
            count = await self._locking.trust(names)
        except (OSError, VekoError) as error:
            self._context.log("warning", f"veko.lock cannot be written: {error}")
            return
        if count:
            text = f"veko.lock was written: {count} plugins may do what they ask for today"
            self._context.log("info", f"{text}. Keep it with the application")

    # -- plugins come and go

    def _created(self, context: Context) -> None:
        manifest = context.manifest
        if context.plugin.core or not manifest.permissions:
            return
        plugin = context.plugin.plugin
        if hasattr(plugin, "lives"):
            return  # the host's end of its worker checks
        asked = grants(
            manifest.permissions,
            folder=plugin.source or self.directory,
            directory=self.directory,
            plugin=context.name,
        )
        guard(context, asked)

    def save(self) -> None:
        """Write what plugins accessed to `.veko/accesses.json`, and what was learned of it.

        Nothing is written if nothing is new.
        """
        found: dict[str, list[Access]] = {
            name: self.accesses.of(name) for name in self.accesses.plugins()
        }
        data = msgspec.json.encode(found)
        if not found or data == self._written:
            return
        file = self.directory / ".veko" / ACCESSES
        try:
            private_folder(file.parent)
            temporary = file.with_name(f".{file.name}.{os.getpid()}")  # several may serve
            with open(temporary, "wb", opener=open_private) as written:
                written.write(data)
            temporary.replace(file)
            if self._observed:
                from .learning import write_learned

                for one in self.learned():
                    write_learned(one, self.directory)
            self._written = data
        except OSError as error:
            self._context.log("warning", f"{file} cannot be written: {error}")
