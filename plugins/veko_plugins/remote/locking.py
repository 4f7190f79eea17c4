"""Compares plugins with `veko.lock`: before their code runs, before a worker is given anything, and
before they go live.

There are three moments, since each knows what the one before did not: `before_import` the files and
what the source spells out, `before_worker` what a worker is about to be granted, `before_live` the
manifest as the plugin's code made it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import anyio.to_thread

from veko import VekoError

from .._source.source import Source
from .lock import NAME, Entry, Lock, digest, growth
from .static import says_isolated

__all__ = ["LockError", "Locking"]

_ALLOW: Final = "Run `veko allow {}` to allow it."


class LockError(VekoError):
    """A plugin differs from what `veko.lock` allows. Allow it, or take its change back."""


class Locking:
    """What `veko.lock` allows the plugins of an application.

    Args:
        directory: The application's directory.
        locked: Whether a plugin must be exactly what the file says.
        trusts_first: Whether, without the file, what runs first is what is allowed.
        running: Returns what the running generation of a plugin is, by its name.
    """

    def __init__(
        self,
        directory: Path,
        *,
        locked: bool,
        trusts_first: bool,
        running: Callable[[str], tuple[Entry, Source] | None],
    ) -> None:
        self._running = running
        self._directory = directory
        self._file = str(directory / NAME)
        self._locked = locked
        self._trusts_first = trusts_first
        self._read: tuple[object, Lock | None] | None = None

    async def before_import(
        self, source: Source, described: Callable[[], Entry], *, again: bool
    ) -> None:
        """Refuse a plugin whose code must not run, or not where it would run.

        Args:
            source: Where it was found.
            described: Returns what its source says.
            again: Whether files that ran before run once more, as they were.

        Raises:
            LockError: It is not allowed.
        """
        lock = self._lock(source)
        if lock is None:
            return
        now = described()
        found = _at(lock, now)
        if self._locked:
            if not found:
                raise self._unknown(source.name, source)
            if not again:
                await self._same_files(source, found[0])
        if now.confined or (found and found[0].confined and only_a_worker_knows(source)):
            return
        before = found[0] if found else lock.entries.get(source.name)
        if before is None:
            raise self._unknown(source.name, source, now)
        if before.confined:
            raise self._grown(source.name, source, now, growth(before, now))

    def before_worker(self, name: str, source: Source, now: Entry) -> None:
        """Refuse a worker that would be granted more than the plugin was allowed.

        Raises:
            LockError: It is not allowed.
        """
        self._compared(name, source, now)

    def was_confined(self, source: Source, now: Entry) -> bool:
        """Return whether the plugin at a source was allowed to run confined only."""
        lock = self._lock(source)
        return lock is not None and any(one.confined for one in _at(lock, now))

    async def before_live(self, name: str, source: Source, described: Callable[[], Entry]) -> None:
        """Refuse a plugin that asks for more than it was allowed, or differs if that is forbidden.

        Args:
            name: The plugin's name.
            source: Where it was found.
            described: Returns what its manifest says.

        Raises:
            LockError: It is not allowed.
        """
        if not self._trusts_first and self._lock(source) is None:
            return
        now = described()
        before = self._compared(name, source, now)
        if before is None or not self._locked:
            return
        if (now.permissions, now.confined) != (before.permissions, before.confined):
            raise LockError(
                "its permissions are not those in veko.lock",
                plugin=name,
                path=source.path,
                remedy=_ALLOW.format(name),
            )
        await self._same_files(source, before)  # they may have changed while it was imported

    def _compared(self, name: str, source: Source, now: Entry) -> Entry | None:
        """Return what the plugin was allowed, if anything is known of that."""
        lock = self._lock(source)
        if lock is not None:
            before = lock.entries.get(name)
            if before is None:
                if self._locked or not now.confined or now.permissions:
                    raise self._unknown(name, source, now)
                return None
        else:
            running = self._running(name) if self._trusts_first else None
            if running is None:
                return None
            before = running[0]
        grown = growth(before, now)
        if now.source != before.source:
            grown.append(f"to be {now.source} instead of {before.source}")
        if grown:
            raise self._grown(name, source, now, grown)
        return before

    async def _same_files(self, source: Source, entry: Entry) -> None:
        try:
            now = await anyio.to_thread.run_sync(digest, source)
        except OSError as error:
            raise LockError(
                f"its files cannot be compared with veko.lock: {error}",
                plugin=source.name,
                path=source.path,
                remedy="Make them readable.",
            ) from error
        if now != entry.hash:
            raise LockError(
                f"its files are not those of version {entry.version} in veko.lock",
                plugin=source.name,
                path=source.path,
                remedy=_ALLOW.format(source.name),
            )

    def _lock(self, source: Source) -> Lock | None:
        """Return `veko.lock` as it is now."""
        stamp = _stamp(self._file)
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, Lock.read(self._directory)
        if self._read[1] is None and self._locked:
            raise LockError(
                f"there is no veko.lock in {self._directory}",
                plugin=source.name,
                remedy="Run `veko allow --all` where you have checked the plugins.",
            )
        return self._read[1]

    @staticmethod
    def _unknown(name: str, source: Source, now: Entry | None = None) -> LockError:
        asked = ""
        if now is not None:
            asked = f"; it asks for {', '.join(now.permissions)}"
            asked = asked if now.confined else "; it asks to run without being confined"
        return LockError(
            f"veko.lock does not have it{asked}",
            plugin=name,
            path=source.path,
            remedy=_ALLOW.format(name),
        )

    def _grown(self, name: str, source: Source, now: Entry, grown: list[str]) -> LockError:
        running = self._running(name)
        stays = f"; version {running[0].version} keeps running" if running is not None else ""
        version = f"version {now.version}" if now.version else "it"
        return LockError(
            f"{version} asks for more than it was allowed: {', '.join(grown)}{stays}",
            plugin=name,
            path=source.path,
            remedy=_ALLOW.format(name),
        )

    async def trust(self, names: Iterable[str]) -> int:
        """Write the file, if there is none, with what runs now; returns how many plugins.

        Args:
            names: The names of all plugins.

        Raises:
            OSError: It cannot be written, or a plugin's files cannot be read.
            OptionError: The file that is there is not valid.
        """
        if not self._trusts_first or Lock.read(self._directory) is not None:
            return 0
        live = {name: found for name in names if (found := self._running(name)) is not None}
        if not live:
            return 0
        entries = {
            name: Entry(
                version=entry.version,
                source=entry.source,
                hash=await anyio.to_thread.run_sync(digest, source),
                confined=entry.confined,
                permissions=entry.permissions,
            )
            for name, (entry, source) in live.items()
        }
        Lock(self._directory / NAME, entries).write()
        return len(entries)


def only_a_worker_knows(source: Source) -> bool:
    """Return whether a plugin has to run in a worker to find out what it asks for."""
    return source.outline is None and (source.kind == "script" or says_isolated(source))


def _at(lock: Lock, now: Entry) -> list[Entry]:
    return [one for one in lock.entries.values() if one.source == now.source]


def _stamp(path: str) -> object:
    try:
        state = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino
