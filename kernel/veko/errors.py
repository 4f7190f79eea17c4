"""Every error that Veko raises, as one tree under `VekoError`, in families by cause.

A message says what is wrong, where (plugin, event, file) and what to do. The same facts are
attributes, so code need not parse text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

__all__ = [
    "ConfigError",
    "ConflictError",
    "DependencyError",
    "Fault",
    "HookError",
    "HookTimeout",
    "LoadError",
    "LoadTimeout",
    "ManifestError",
    "NotFoundError",
    "OptionError",
    "RefusedError",
    "RouteError",
    "ServiceError",
    "StateError",
    "StorageError",
    "TimeLimitError",
    "TransactionError",
    "VekoError",
]


class VekoError(Exception):
    """The root of the tree.

    Args:
        message: What is wrong, without a full stop.
        plugin: The name of the plugin concerned.
        event: The name of the event concerned.
        path: The file or folder concerned.
        line: The line in that file, from 1.
        remedy: What to do about it: whole sentences.

    Attributes:
        counts: Whether it counts as a failure of the plugin that raised it. An error that a client
            can cause at will does not: a client must not be able to have a plugin switched off.
    """

    counts: bool = True

    def __init__(
        self,
        message: str,
        *,
        plugin: str | None = None,
        event: str | None = None,
        path: str | Path | None = None,
        line: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.plugin = plugin
        self.event = event
        self.path = Path(path) if path is not None else None
        self.line = line
        self.remedy = remedy

    def __str__(self) -> str:
        file = f"{self.path}:{self.line}" if self.path and self.line else self.path
        facts = (("plugin", self.plugin), ("event", self.event), ("file", file))
        where = ", ".join(f"{label} {fact}" for label, fact in facts if fact is not None)
        text = f"{self.message} ({where})" if where else self.message
        return f"{text}. {self.remedy}" if self.remedy else text


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with a manifest or a configuration.

    Attributes:
        path: Where in it: `limits[2].day`, `load()`; empty for the whole of it.
        message: What is wrong there: `expected int, got str`, or, following the path directly,
            `is missing`.
    """

    path: str
    message: str

    def __str__(self) -> str:
        if not self.path:
            return self.message
        separator = " " if self.message.startswith("is ") else ": "
        return f"{self.path}{separator}{self.message}"


class _FaultsError(VekoError):
    def __init__(
        self,
        message: str,
        *,
        faults: Iterable[Fault] = (),
        plugin: str | None = None,
        event: str | None = None,
        path: str | Path | None = None,
        line: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, plugin=plugin, event=event, path=path, line=line, remedy=remedy)
        self.faults = tuple(dict.fromkeys(faults))
        if self.faults:
            self.message = f"{message}: {'; '.join(map(str, self.faults))}"


class ManifestError(_FaultsError):
    """A plugin's manifest or life-cycle functions are wrong. Fix the plugin.

    Args:
        faults: Every fault; they are appended to the message.

    Attributes:
        faults: Every fault, each once; empty if the error is not about single fields.
    """


class ConfigError(_FaultsError):
    """A configuration was refused; the one before stays in use. Fix the values that it names.

    Args:
        faults: Every fault; they are appended to the message.

    Attributes:
        faults: Every fault, each once; empty if the error is not about single values.
    """


class OptionError(VekoError):
    """An option of the manager is unknown or has the wrong type. Fix the options that it names.

    For an unknown option it suggests the nearest known one.
    """


class NotFoundError(VekoError):
    """There is no plugin, command or file of that name. The message suggests similar names."""


class ConflictError(VekoError):
    """A name or route is taken. The message names the plugin that has it; rename one of the two."""


class DependencyError(VekoError):
    """A plugin needs one that is not active, or is still needed by active ones.

    Load what it needs first, or unload what needs it first (`cascade=True`).
    """


class StateError(VekoError):
    """The operation is not possible in the present state, which the message names."""


class RefusedError(VekoError):
    """A hook refused a step by raising; what it raised is the `__cause__`."""


class TransactionError(VekoError):
    """A registration was awaited where it would wait for itself, or its plugin was unloaded."""


class LoadError(VekoError):
    """A life-cycle step of a plugin failed. What the plugin registered was removed again.

    Attributes:
        step: The step that failed: `import`, `load`, `activate`, `accept`, ...
    """

    def __init__(
        self,
        message: str,
        *,
        step: str = "load",
        plugin: str | None = None,
        path: str | Path | None = None,
        line: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, plugin=plugin, path=path, line=line, remedy=remedy)
        self.step = step


class TimeLimitError(VekoError):
    """Something did not end within its time limit."""


class LoadTimeout(LoadError, TimeLimitError):
    """A life-cycle step of a plugin did not end within the time limit and was cancelled."""


class HookError(VekoError):
    """A handler returned what its event does not take, or tried to end the application.

    `SystemExit` and `GeneratorExit` of a handler are reported as this, with the original as the
    `__cause__`.
    """


class HookTimeout(HookError, TimeLimitError):
    """A handler did not end within its time limit and was cancelled."""


class ServiceError(VekoError):
    """A service is not provided, or its plugin is switched off. Load or switch on that plugin."""


class StorageError(VekoError):
    """The storage could not write or read something."""


class RouteError(VekoError):
    """A route, or what its handler returned, is not valid. Fix the route that it names."""


def text_of(error: BaseException) -> str:
    """Return the text of an error, even of one whose own `__str__` fails."""
    try:
        return str(error)
    except Exception as second:
        return f"<no text: __str__ raised {type(second).__name__}>"


def counts(error: BaseException) -> bool:
    """Return whether an error counts as a failure; a group does if one of its errors does."""
    if isinstance(error, BaseExceptionGroup):
        return any(counts(part) for part in error.exceptions)
    return getattr(error, "counts", True) is not False
