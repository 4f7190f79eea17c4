"""The core plugin `testing`: tests loaded plugins, and finds what keeps ended ones in memory.

It is loaded when `PluginManager.test_plugin` or `use("testing")` first needs it, and costs an
application that does not nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Final

import anyio
import anyio.lowlevel

from veko import ConfigError, Context, NotFoundError, Plugin, PluginRecord
from veko.errors import OptionError, text_of
from veko.extend import location_of, merge_config, must_pass

from .._lib.leaks import Leak, find_leaks
from .results import Outcome, TestResults

__all__ = ["Testing"]

Test = Callable[[PluginRecord], object]
_VERSION: Final = re.compile(r"\d+(\.\d+)*([-+.]?[0-9A-Za-z.-]+)?")
_TURNS: Final = 20


class Testing(Plugin):
    """The service `testing`."""

    __test__ = False  # pytest takes a class of this name for tests

    name = "testing"
    version = "2.0.0"
    description = "Tests plugins, and names what keeps ended generations in memory"
    core = True

    _context: Context

    def load(self, context: Context) -> None:
        """Provide the service."""
        self._context = context
        context.provide("testing", self)

    async def run(self, name: str, tests: Mapping[str, Test] | None) -> TestResults:
        """Test a loaded plugin; see `PluginManager.test_plugin`."""
        record = self._context.kernel.get(name)
        if record is None:
            raise NotFoundError(
                f"no plugin named {name!r} is loaded", plugin=name, remedy="Load it first."
            )
        own = _checked(tests)
        details: dict[str, str] = {}
        errors: list[str] = []
        built_in: dict[str, Test] = {
            "load": lambda plugin: plugin.loaded,
            "active": lambda plugin: plugin.active,
            "config": self._has_valid_config,
            "version": lambda plugin: bool(_VERSION.fullmatch(plugin.version)),
        }
        for title, test in (*built_in.items(), *own.items()):
            outcome, error = await self._run(test, record)
            details[title] = outcome
            if error:
                errors.append(f"{title}: {error}")
        passed = sum(outcome == "PASS" for outcome in details.values())
        return TestResults(passed, len(details) - passed, errors, details)

    async def _run(self, test: Test, record: PluginRecord) -> tuple[Outcome, str | None]:
        seconds = self._context.kernel.timeout
        try:
            with anyio.move_on_after(seconds) as scope:
                answer = test(record)
                if inspect.isawaitable(answer):
                    answer = await answer
                # A test that only asserts returns nothing.
                return ("PASS" if answer is None or answer else "FAIL"), None
        except BaseException as error:
            if must_pass(error):
                raise
            found = location_of(error)
            where = f" ({found.path}:{found.line})" if found is not None else ""
            return "FAIL", f"{type(error).__name__}: {text_of(error)}{where}"
        assert scope.cancelled_caught
        return "FAIL", f"it did not end within {seconds:g} s"

    async def _has_valid_config(self, record: PluginRecord) -> bool:
        """Return whether its present configuration would be accepted."""
        current = record.current
        if current is None:
            return False
        merged = merge_config(record.manifest.default_config, current.given)
        bus = self._context.kernel.bus
        try:
            await bus.emit("config:validate", merged, record, strict=True)
        except ConfigError as error:
            raise AssertionError(str(error)) from error
        return True

    async def leaks(self, name: str) -> list[Leak]:
        """Return what keeps ended generations of a plugin in memory.

        Waits until calls into replaced generations have ended, within `drain_timeout`.

        Args:
            name: The plugin's name; it may be loaded or unloaded.
        """
        record = self._context.kernel.get(name)
        source = record.source if record is not None else None
        if record is not None:
            for retiring in tuple(record.retiring):
                await retiring.done.wait()
        for _ in range(_TURNS):  # what was posted is emitted, and tasks that have ended go
            await anyio.lowlevel.checkpoint()
        return find_leaks(name, source=source)


def _checked(tests: object) -> dict[str, Test]:
    if tests is None:
        return {}
    if not isinstance(tests, Mapping):
        raise OptionError(
            f"tests must be a mapping from names to functions, got {type(tests).__name__}",
            remedy="test_plugin(name, {'my test': lambda plugin: plugin.config['x'] == 1})",
        )
    for title, test in tests.items():
        if not (isinstance(title, str) and callable(test)):
            raise OptionError(
                f"the test {title!r} must be a function with a name, got {type(test).__name__}",
                remedy="Give a function of the plugin, `def` or `async def`.",
            )
        if title in ("load", "active", "config", "version"):
            raise OptionError(
                f"{title!r} is the name of a test that every plugin gets",
                remedy="Choose another name.",
            )
    return dict(tests)
