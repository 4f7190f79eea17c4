"""The contract that every plugin should keep, checked by running it.

The order is that of a life: it is validated, loaded, unloaded, loaded again, reloaded, switched
off and on, given a wrong configuration, sent malformed requests, and loaded while a hook refuses
it. What is left behind is compared with what was there before; what is still in memory at the end
is traced to what holds it.

Cost: the plugin's own time, and some 100 ms for each look into the memory of the process.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel

from veko import Kernel, NotFoundError, Origin, PluginRecord, RefusedError, State, VekoError
from veko.errors import text_of
from veko.extend import must_pass

from .._lib.leaks import Leak, find_leaks
from .asgi import App
from .configs import wrong_configs
from .leftovers import Leftovers
from .requests import malformed
from .results import Check, Grade, Outcome, Tier, grade

__all__ = ["Contract"]

_RELOADS: Final = 3
_TURNS: Final = 30
_AFTER: Final = (
    "plugin:loaded", "plugin:unloaded", "plugin:activated", "plugin:deactivated", "config:change",
    "response:end", "request:end",
)  # fmt: skip
"""Events on which a hook of another plugin may raise without refusing anything."""

Found = list[str] | None
"""The problems that a check found; `None` if there was nothing to check."""


class Contract:
    """Checks one plugin in a running manager that has not loaded it.

    Args:
        kernel: The kernel of the manager.
        wanted: The plugin's name or path.
        config: Its configuration, merged over its section in the settings.
        app: The manager as an ASGI application; `None`: its routes are not tried.
        own_tests: Runs its own tests; returns their failures, or `None` if there are none.
    """

    def __init__(
        self,
        kernel: Kernel,
        wanted: str | Path,
        config: Mapping[str, Any] | None = None,
        *,
        app: App | None = None,
        own_tests: Callable[[PluginRecord], Awaitable[Found]] | None = None,
    ) -> None:
        self._kernel = kernel
        self._wanted = wanted
        self._config = config
        self._app = app
        self._own_tests = own_tests
        self._loading = kernel.use("loading")
        self._checks: list[Check] = []
        self._leaks: list[Leak] = []
        self._modules: set[str] = set()
        self._failures: list[str] = []
        self._before: Leftovers
        self.name = Path(wanted).stem if isinstance(wanted, Path) else wanted
        self.version = ""
        self._source: Path | None = None

    async def run(self) -> Grade:
        """Run all checks. The plugin is not loaded afterwards.

        Raises:
            NotFoundError: There is no such plugin.
        """
        quiet = logging.getLogger("veko").disabled
        logging.getLogger("veko").disabled = True  # handlers keep errors, and these their frames
        watching = self._kernel.bus.on("error:handle", self._note_failure)
        try:
            await self._run()
        finally:
            watching.cancel()
            logging.getLogger("veko").disabled = quiet
        return grade(self.name, self.version, self._checks, self._leaks)

    async def _run(self) -> None:
        bronze, silver, gold = Tier.BRONZE, Tier.SILVER, Tier.GOLD
        await self._check("valid", bronze, "has no faults in what it declares", self._valid)
        loaded = await self._check("loads", bronze, "loads, and is active", self._loads)
        if not loaded:
            return
        await self._check("tests", gold, "has tests of its own, and they pass", self._tests)
        await self._check("unloads", bronze, "leaves nothing behind", self._unloads)
        await self._check("loads-again", bronze, "loads again after that", self._load)
        await self._check("reloads", silver, "reloads, again and again", self._reloads)
        await self._check("toggles", silver, "can be switched off and on", self._toggles)
        await self._check(
            "validates-config", gold, "refuses a wrong configuration", self._validates
        )
        await self._check(
            "survives-hooks", gold, "works on while hooks of others raise", self._survives
        )
        await self._check(
            "refuses-requests", Tier.PLATINUM, "answers malformed requests with 4xx", self._requests
        )
        await self._check(
            "described", Tier.PLATINUM, "says what it and its commands do", self._described
        )
        await self._check(
            "undoes", gold, "leaves nothing behind if it is refused while it loads", self._undoes
        )
        await self._check("collected", silver, "is freed when it has ended", self._collected)
        # Last: it is about all that was done.
        await self._check("no-failures", silver, "fails nowhere meanwhile", self._no_failures)

    async def _check(
        self, name: str, tier: Tier, promise: str, run: Callable[[], Awaitable[Found]]
    ) -> bool:
        try:
            problems = await run()
        except Exception as error:
            if must_pass(error):
                raise
            problems = [_text(error)]
            if isinstance(error, NotFoundError) and not self.version:  # nothing was ever loaded
                raise
        outcome: Outcome = "SKIP" if problems is None else "FAIL" if problems else "PASS"
        self._checks.append(Check(name, tier, outcome, promise, tuple(problems or ())))
        return outcome != "FAIL"

    def _note_failure(self, error: BaseException, origin: Origin) -> None:
        if origin.plugin == self.name and not isinstance(error, _Planted | RefusedError):
            self._failures.append(f"{origin.handler or origin.event}: {_text(error)}")

    @property
    def _record(self) -> PluginRecord:
        record = self._kernel.get(self.name)
        if record is None:
            raise NotFoundError(f"{self.name!r} is not loaded any more", plugin=self.name)
        return record

    # -- steps

    async def _load(self) -> Found:
        if self._kernel.get(self.name) is None or not self._record.loaded:
            record = await self._loading.load_plugin(self._wanted, self._config)
            self.name, self.version, self._source = record.name, record.version, record.source
            self._modules.add(getattr(record.module, "__name__", ""))
        record = self._record
        return [] if record.active else [f"it is {record.state}: {record.error}"]

    async def _unload(self) -> None:
        if self._kernel.get(self.name) is not None:
            await self._kernel.unload(self.name, cascade=True)
        await self._settle()

    async def _settle(self) -> None:
        record = self._kernel.get(self.name)
        for retiring in tuple(record.retiring) if record is not None else ():
            await retiring.done.wait()
        for _ in range(_TURNS):
            await anyio.lowlevel.checkpoint()

    def _note_leaks(self) -> list[Leak]:
        found = find_leaks(self.name, source=self._source, modules=frozenset(self._modules))
        known = {(leak.holder, leak.file, leak.line) for leak in self._leaks}
        self._leaks += [one for one in found if (one.holder, one.file, one.line) not in known]
        return found

    # -- checks

    async def _valid(self) -> Found:
        report = await self._kernel.use("validation").validate(self._wanted)
        if report.name:
            self.name = report.name
        return list(report.errors)

    async def _loads(self) -> Found:
        self._before = Leftovers(self._kernel)
        return await self._load()

    async def _unloads(self) -> Found:
        await self._unload()
        return await self._before.settled()

    async def _reloads(self) -> Found:
        problems: list[str] = []
        for _ in range(_RELOADS):
            await self._loading.reload_plugin(self.name)
            self._modules.add(getattr(self._record.module, "__name__", ""))
            await self._settle()
            problems += [] if self._record.active else [f"it is {self._record.state}"]
        return problems

    async def _toggles(self) -> Found:
        had, failed = self._registered(), len(self._failures)
        await self._kernel.toggle(self.name, False, cascade=True)
        problems = [f"while it is off, {one} is still there" for one in self._registered()]
        await self._kernel.toggle(self.name, True)
        await self._settle()
        now = self._registered()
        problems += [f"{one} does not come back" for one in had if one not in now]
        return problems + self._failures[failed:]

    def _registered(self) -> list[str]:
        registry, record = self._kernel.registry, self._record
        return [
            f"{kind} {entry.key!r}"
            for kind in ("hook", "pattern", "route", "middleware", "command", "service")
            for entry in registry.entries(kind)
            if getattr(entry.owner, "record", None) is record
        ]

    async def _validates(self) -> Found:
        record = self._record
        cases = wrong_configs(record.manifest)
        if not cases:
            return None
        problems: list[str] = []
        for path, value in cases:
            before = record.config
            current = record.current
            assert current is not None
            try:
                await current.context.update_config({path: value})
            except VekoError:
                if record.config is not before:
                    problems.append(f"`{path}` = {value!r} was refused and yet applied")
            else:
                how = "" if record.manifest.config_schema else "; it has no config_schema"
                problems.append(f"`{path}` may be {value!r}{how}")
                await self._unload()
                await self._load()
                record = self._record
        return problems

    async def _survives(self) -> Found:
        bus, record = self._kernel.bus, self._record
        failed = len(self._failures)

        def raising(*_: object) -> None:
            raise _Planted("a hook of another plugin raised")

        own = f"plugin:{self.name}:**"
        planted = [bus.on(event, raising, priority=1_000) for event in (*_AFTER, own)]
        try:
            await self._kernel.toggle(self.name, False, cascade=True)
            await self._kernel.toggle(self.name, True)
            await self._loading.reload_plugin(self.name)
            await self._settle()
        finally:
            for subscription in planted:
                subscription.cancel()
        problems = [] if record.active else [f"it is {record.state}: {record.error}"]
        return problems + self._failures[failed:]

    async def _requests(self) -> Found:
        entries = self._kernel.registry.entries("route")
        routes = [
            (entry.value.method, entry.value.path)
            for entry in entries
            if getattr(entry.owner, "name", None) == self.name and hasattr(entry.value, "path")
        ]
        if not routes or self._app is None:
            return None
        failed = len(self._failures)
        problems = await malformed(self._app, routes)
        del self._failures[failed:]  # each is reported here, by its request
        return problems

    async def _described(self) -> Found:
        manifest, registry = self._record.manifest, self._kernel.registry
        problems = [f"`{key}` is missing" for key in ("description", "license")
                    if not getattr(manifest, key)]  # fmt: skip
        for entry in registry.entries("command"):
            of_it = getattr(entry.owner, "record", None) is self._record
            if of_it and not getattr(entry.value, "description", ""):
                problems.append(f"the command {entry.key!r} has no description")
        return problems

    async def _undoes(self) -> Found:
        await self._unload()

        def refuse(name: str) -> None:
            if name == self.name:
                raise RefusedError("refused by the test", plugin=name)

        refusing = self._kernel.bus.on("plugin:activate", refuse, priority=1_000)
        problems: list[str] = []
        failed = len(self._failures)
        try:
            await self._load()
        except VekoError:
            pass
        else:
            problems.append("it loads although a hook on plugin:activate refuses it")
        finally:
            refusing.cancel()
        del self._failures[failed:]
        record = self._kernel.get(self.name)
        if record is not None and record.state is not State.UNLOADED:
            self._kernel.forget(record)
        await self._settle()
        return problems + await self._before.settled()

    async def _collected(self) -> Found:
        await self._unload()
        return [str(leak) for leak in self._note_leaks()]

    async def _no_failures(self) -> Found:
        return _unique(self._failures)

    async def _tests(self) -> Found:
        if self._own_tests is None:
            return None
        found = await self._own_tests(self._record)
        return ["there are none"] if found is None else found


class _Planted(Exception):
    """What a hook of another plugin raises here; it is not the plugin's failure."""


def _text(error: BaseException) -> str:
    if isinstance(error, VekoError):
        return str(error)
    return f"{type(error).__name__}: {text_of(error)}"


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
