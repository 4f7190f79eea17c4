"""The core plugin `recording`: when it records, and when files are written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from veko import Context, Handle, Plugin, PluginRecord, __version__
from veko.errors import text_of
from veko.extend import location_of

from .._lib.masking import masked_text
from .._lib.secret_fields import masked
from .config import RecordingConfig, config_of
from .control import Answer, serving
from .entries import FORMAT, VERSION, Entry, Failure, Header, Loaded, Step
from .faults import cause_of
from .files import RecordingError, write_recording
from .requests import around_requests, around_sockets
from .tape import CURRENT, Tape, entry_of
from .values import forms_of, mask

__all__ = ["Recorder", "folder_of"]

_log: Final = logging.getLogger("veko.recording")
_SUFFIX: Final = ".vekorec"
_LONGEST: Final = 2_000
"""Characters of an error's text that are recorded."""
_MOST_KINDS: Final = 200
"""Kinds of failures for which a file is written."""
_STEPS: Final = ("load", "reload", "unload", "activate", "deactivate")


def folder_of(directory: Path, config: object) -> Path:
    """Return where an application's recordings are.

    Args:
        directory: The application's directory.
        config: Its section [plugins.recording].

    Raises:
        ConfigError: The section is not valid.
    """
    return directory / config_of(config).folder


class Recorder(Plugin):
    """The core plugin of recordings; the service `recording` is this object.

    Args:
        directory: The application's directory.
        adapter: The name of its HTTP adapter.
    """

    name = "recording"
    version = "2.0.0"
    description = "The last emissions and requests, and files of them for replays"
    core = True

    def __init__(self, directory: Path, adapter: str | None = None) -> None:
        self._directory = directory
        self._adapter = adapter
        self._config = RecordingConfig()
        self._tape = Tape(self._config.entries, 1 << 20)
        self._context: Context | None = None
        self._probe: Handle | None = None
        self._unwrap = ExitStack()
        self._wrapped: Any = None
        self._seen: set[tuple[str | None, ...]] = set()
        self._wanted: list[str] = []
        self._running = False
        self._known: dict[str, Loaded] = {}

    def load(self, context: Context) -> None:
        """Begin to record, if that is wanted from the start."""
        config = self._config = config_of(context.config)
        self._context = context
        self._tape = Tape(config.entries, config.megabytes * 2**20)
        self._seen, self._wanted, self._known = set(), [], {}
        self._running = False
        context.provide("recording", self)
        context.hook("plugin:loaded", self._loaded, priority=float("-inf"))
        context.hook("error:handle", self._failed, priority=float("inf"), observe=True)
        context.hook("app:start", self._started, priority=float("-inf"), observe=True)
        for step in _STEPS:
            context.hook(f"plugin:{step}", self._step(step), priority=float("inf"), observe=True)
        self._wake = anyio.Event()
        context.spawn(self._write_wanted)
        if config.control:
            context.spawn(self._listen)
        if config.always:
            self._probe = context.probe(self._tape.probe)

    def activate(self, context: Context) -> None:
        """Wrap the dispatcher of requests, if it is there already."""
        self._wrap()

    def deactivate(self) -> None:
        """Stop recording requests."""
        self._unwrap.close()
        self._wrapped = None

    async def unload(self) -> None:
        """Write what still waits to be written, and release everything."""
        if self._wanted:
            await self._write_now()
        self._unwrap.close()
        self._wrapped = self._context = self._probe = None
        self._tape.clear()

    # -- the service

    @property
    def on(self) -> bool:
        """Whether it records."""
        return self._probe is not None

    @property
    def folder(self) -> Path:
        """Where files are written."""
        return self._directory / self._config.folder

    def start(self) -> None:
        """Begin to record, with an empty tape; nothing happens if it records already."""
        if self._probe is None and self._context is not None:
            self._tape.clear()
            self._seen.clear()
            self._probe = self._context.probe(self._tape.probe)
            self._wrap()

    async def stop(self) -> Path:
        """Stop recording, and write what was recorded.

        Raises:
            RecordingError: It does not record, or the file cannot be written.
        """
        if self._probe is None:
            raise RecordingError("it does not record", remedy="`veko record start` begins it.")
        self._probe.cancel()
        self._probe = None
        self._unwrap.close()
        self._wrapped = None
        return await self.dump("stopped")

    async def dump(self, why: str = "asked for") -> Path:
        """Write what was recorded so far to a new file, and continue.

        Args:
            why: What its header says.

        Raises:
            RecordingError: It cannot be written.
        """
        path = (
            self.folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9:09}{_SUFFIX}"
        )
        header = Header(
            FORMAT, VERSION, __version__, time.time_ns(), str(self._directory), self._adapter,
            why, self._tape.dropped,
        )  # fmt: skip
        plugins = self._plugins()
        entries = list(self._tape.raw())
        await anyio.to_thread.run_sync(self._write, path, header, plugins, entries)
        return path

    def files(self) -> list[Path]:
        """Return the files that were written and are still there, the oldest first."""
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    # -- what is recorded besides emissions

    def _loaded(self, name: str, record: PluginRecord) -> None:
        self._note_plugin(record)
        self._wrap()

    def _wrap(self) -> None:
        """Wrap the dispatcher of requests, once there is one."""
        context = self._context
        if context is None or self._probe is None:
            return
        http = context.kernel.registry.get("service", "http")
        dispatcher = getattr(http.value, "asgi", None) if http is not None else None
        if dispatcher is None or dispatcher is self._wrapped:
            return
        self._wrapped = dispatcher
        for name, around in (("answer", around_requests), ("converse", around_sockets)):
            before = getattr(dispatcher, name)
            after = around(self._tape, before)
            setattr(dispatcher, name, after)
            self._unwrap.callback(_unwrapper(dispatcher, name, before, after))

    def _started(self, *_: object) -> None:
        self._running = True

    def _step(self, step: str) -> Callable[[str, PluginRecord], None]:
        def note(name: str, record: PluginRecord) -> None:
            if self._running and self._probe is not None and not record.core:
                number = self._tape.number()
                self._tape.add(Step(number, CURRENT.get(), time.time_ns(), step, name))

        return note

    def _failed(self, error: BaseException, origin: Any) -> None:
        """Record a failure, and have a file written if it is a new one."""
        if self._probe is None:
            return
        context = self._context
        record = (
            context.kernel.get(origin.plugin) if context is not None and origin.plugin else None
        )
        if record is not None and record.core:
            return
        found = location_of(error, None if record is None else record.source)
        shown = cause_of(error)
        failure = Failure(
            self._tape.number(), entry_of(error), time.time_ns(), origin.plugin,
            origin.event or getattr(error, "event", None), origin.handler, origin.part,
            type(shown).__qualname__, masked_text(text_of(shown))[:_LONGEST],
            None if found is None else found.path, None if found is None else found.line,
            origin.counts,
        )  # fmt: skip
        self._tape.add(failure)
        if not (origin.counts and self._config.dump_on_failure) or failure.key in self._seen:
            return
        if len(self._seen) < _MOST_KINDS:
            self._seen.add(failure.key)
            self._wanted.append(f"{failure.plugin} failed: {failure.error}")
            self._wake.set()

    # -- files

    async def _write_wanted(self) -> None:
        """Write a file for new kinds of failures, one for all that come within a moment."""
        while True:
            await self._wake.wait()
            await anyio.sleep(0.05)  # what the failing emission or request does next belongs to it
            self._wake = anyio.Event()
            if self._wanted:
                await self._write_now()

    async def _write_now(self) -> None:
        why, self._wanted = "; ".join(self._wanted), []
        try:
            path = await self.dump(why)
        except RecordingError as error:
            _log.warning("%s", error)
        else:
            _log.info("recorded: %s (%s)", path, why)

    def _write(self, path: Path, header: Header, plugins: list[Loaded], entries: list[Any]) -> None:
        write_recording(path, header, plugins, self._written(entries))
        for old in self.files()[: -self._config.keep]:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("an old recording cannot be deleted: %s", error)

    def _written(self, entries: list[Any]) -> Iterator[Entry]:
        for number, entry in enumerate(self._tape.written(entries)):
            if not number % 64:
                time.sleep(0)  # lets the event loop's thread have its turn
            yield entry

    def _plugins(self) -> list[Loaded]:
        """Return the plugins, with those that were unloaded or never became known to the kernel."""
        if self._context is None:
            return []
        kernel = self._context.kernel
        for record in kernel.records():
            self._note_plugin(record)
        discovery = kernel.registry.get("service", "discovery")
        held = (row[2] for row in self._tape.raw())
        failed = {one.plugin for one in held if isinstance(one, Failure) and one.plugin}
        if discovery is not None and failed - set(self._known):
            for source in discovery.value.scan().sources:
                if source.name in failed and source.name not in self._known and source.path:
                    self._known[source.name] = Loaded(
                        source.name, "", str(source.path), {}, "failed"
                    )
        return list(self._known.values())

    def _note_plugin(self, record: PluginRecord) -> None:
        if record.core:
            return
        known = self._known.get(record.name)
        config: Any = None if known is None else known.config
        if record.config is not None:
            try:
                config = mask(masked(record.config, record.manifest.config_schema))
            except Exception as error:  # a configuration of any type
                config = forms_of([error])[0]
        source = None if record.source is None else str(record.source)
        self._known[record.name] = Loaded(
            record.name, record.version, source, config, str(record.state.value)
        )

    async def _listen(self) -> None:
        try:
            async with serving(self.folder, self._answer):
                await anyio.sleep_forever()
        except OSError as error:
            _log.warning("`veko record` cannot reach this application: %s", error)

    async def _answer(self, do: str) -> Answer:
        path: Path | None = None
        try:
            if do == "start":
                self.start()
            elif do == "stop":
                path = await self.stop()
            elif do == "dump":
                path = await self.dump()
        except RecordingError as error:
            return Answer(error=str(error))
        return Answer(
            self.on, len(self._tape), str(self.folder), None if path is None else str(path)
        )


def _unwrapper(holder: Any, name: str, before: Any, after: Any) -> Callable[[], None]:
    def unwrap() -> None:
        if getattr(holder, name) is after:
            setattr(holder, name, before)

    return unwrap
