"""Failures of plugins' code: a test in which one happens fails, unless it expects it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from veko import Bus, Kernel, Origin
from veko.errors import text_of
from veko.extend import location_of

__all__ = ["Failure", "PluginFailures"]


class Failure(NamedTuple):
    """One failure of a plugin's code.

    Attributes:
        plugin: The plugin.
        error: What it raised.
        event: The event that was emitted, if it was a hook.
        handler: The function that failed.
    """

    plugin: str
    error: BaseException
    event: str | None
    handler: str | None

    def __str__(self) -> str:
        found = location_of(self.error)
        where = f" at {found.path}:{found.line}" if found is not None else ""
        during = f" on {self.event}" if self.event else ""
        text = f"{type(self.error).__name__}: {text_of(self.error)}"
        return f"{self.plugin}: {self.handler or 'its code'}{during} failed{where}: {text}"


class PluginFailures:
    """The failures of plugins' code in one test.

    Args:
        allowed: The plugins whose code may fail; `None` for all.

    Attributes:
        failures: All of them, in order.
    """

    def __init__(self, allowed: Collection[str] | None = ()) -> None:
        self.failures: list[Failure] = []
        self._unexpected: list[Failure] = []
        self._all_allowed = allowed is None
        self._allowed = set(allowed or ())
        self._expected: list[list[Failure]] = []

    def watch(self, kernel: Kernel | Bus) -> None:
        """Take note of the failures that a kernel reports; those of core plugins too."""
        bus = kernel if isinstance(kernel, Bus) else kernel.bus
        bus.on("error:handle", self._note, priority=float("inf"), observe=True)

    def _note(self, error: BaseException, origin: Origin) -> None:
        if origin.plugin is None or not origin.counts:
            return
        failure = Failure(origin.plugin, error, origin.event, origin.handler)
        self.failures.append(failure)
        if self._expected:
            self._expected[-1].append(failure)
        elif not self._all_allowed and origin.plugin not in self._allowed:
            self._unexpected.append(failure)

    def allow(self, *plugins: str) -> None:
        """Let the code of some plugins fail from now on; without names, that of all."""
        self._allowed.update(plugins)
        self._all_allowed = self._all_allowed or not plugins

    @contextmanager
    def expect(
        self,
        error: type[BaseException] | tuple[type[BaseException], ...] = BaseException,
        *,
        plugin: str | None = None,
        match: str | None = None,
    ) -> Iterator[list[Failure]]:
        """Expect that code of a plugin fails inside, as `pytest.raises` expects an error.

        Args:
            error: The type of the error.
            plugin: The plugin; `None` for any.
            match: A regular expression that the error's text must match.

        Yields:
            The failures that happen inside.

        Raises:
            AssertionError: No such failure has happened.
        """
        found: list[Failure] = []
        self._expected.append(found)
        try:
            yield found
        finally:
            self._expected.remove(found)
        for one in found:
            text = str(one.error)
            if (
                isinstance(one.error, error)
                and plugin in (None, one.plugin)
                and (match is None or re.search(match, text))
            ):
                self._unexpected += [other for other in found if other is not one]
                self._unexpected = [u for u in self._unexpected if not self._is_allowed(u)]
                return
        seen = "; ".join(map(str, found)) or "nothing failed"
        raise AssertionError(f"the expected failure of a plugin did not happen: {seen}")

    def _is_allowed(self, failure: Failure) -> bool:
        return self._all_allowed or failure.plugin in self._allowed

    def report(self) -> str | None:
        """Return what failed unexpectedly since the last report; `None` if nothing did."""
        if not self._unexpected:
            return None
        lines = ["code of a plugin failed; mark the test with `plugin_failures`, or use "
                 "`plugin_failures.expect()`, if it should:"]  # fmt: skip
        for failure in self._unexpected:
            lines.append(str(failure))
            lines += "".join(traceback.format_exception(failure.error)).splitlines()
        self._unexpected.clear()
        return "\n".join(lines)

    def clear(self) -> None:
        """Let go of the errors, and with them of the frames of plugins."""
        self.failures.clear()
        self._unexpected.clear()
