"""Which failures are the same: by plugin, by where it happened, and by the class of the error."""

from __future__ import annotations

from veko.errors import HookError, LoadError

from .entries import Failure

__all__ = ["cause_of", "fault_label", "label_of_failure"]


def cause_of(error: BaseException) -> BaseException:
    """Return the error of a plugin's code that one of Veko's wraps."""
    while isinstance(error, HookError | LoadError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def fault_label(plugin: str | None, where: str | None, error: str) -> str:
    """Return what failures are compared by.

    Args:
        plugin: The plugin.
        where: The route or the event; `None` for tasks, commands and steps of the life cycle.
        error: The class of the error.
    """
    return f"{plugin or 'the application'}: {f'{where}: ' if where else ''}{error}"


def label_of_failure(failure: Failure) -> str:
    """Return what a recorded failure is compared by."""
    return fault_label(failure.plugin, failure.part or failure.event, failure.error)
