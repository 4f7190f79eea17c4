"""Checks of arguments: a value of a wrong type is refused where it is given, with what to give."""

from __future__ import annotations

from typing import Any

from ..errors import VekoError
from .events import Event

__all__ = [
    "check_callable",
    "check_context_manager",
    "check_flag",
    "check_seconds",
    "check_text",
    "name_of_event",
]


def check_text(what: str, given: object) -> None:
    """Raise unless an argument is a string.

    Args:
        what: What the argument is: `the name of a plugin`.
        given: The argument.

    Raises:
        VekoError: It is not.
    """
    if not isinstance(given, str):
        raise VekoError(
            f"{what} must be a string, not {_kind(given)}", remedy=f"Pass {what} as a string."
        )


def check_callable(what: str, given: object) -> None:
    """Raise unless an argument can be called.

    Raises:
        VekoError: It cannot.
    """
    if not callable(given):
        raise VekoError(
            f"{what} must be a function, not {_kind(given)}", remedy="Pass a def or an async def."
        )


def check_seconds(what: str, given: object, *, zero: bool = False) -> None:
    """Raise unless an argument is a number of seconds.

    Args:
        what: The name of the argument.
        given: The argument.
        zero: Whether it may be 0.

    Raises:
        VekoError: It is not a number, or not above 0.
    """
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise VekoError(
            f"{what} must be a number of seconds, not {_kind(given)}",
            remedy="Pass seconds, such as 2.5.",
        )
    if not (given > 0 or (zero and given == 0)):
        least = "0 or more" if zero else "above 0"
        raise VekoError(f"{what} must be {least}, got {given}", remedy="Pass seconds, such as 2.5.")


def check_flag(what: str, given: object) -> None:
    """Raise unless an argument is a boolean or `None`.

    Raises:
        VekoError: It is not.
    """
    if given is not None and not isinstance(given, bool):
        raise VekoError(
            f"{what} must be True, False or None, not {_kind(given)}",
            remedy=f"Pass {what}=True or {what}=False.",
        )


def check_context_manager(what: str, given: object) -> None:
    """Raise unless an argument is an async context manager.

    Raises:
        VekoError: It is not.
    """
    if not hasattr(given, "__aenter__"):
        raise VekoError(
            f"{what} must be an async context manager, not {_kind(given)}",
            remedy="Pass one, such as what a function with @asynccontextmanager returns.",
        )


def name_of_event(event: Any) -> str:
    """Return the name of an event, which may be the name itself.

    Raises:
        VekoError: It is neither a string nor an `Event`.
    """
    if isinstance(event, str):
        return event
    if isinstance(event, Event):
        return event.name
    raise VekoError(
        f"an event must be a name or an Event, not {_kind(event)}",
        remedy="Pass the event's name as a string, or the declared Event.",
    )


def _kind(given: object) -> str:
    return "None" if given is None else f"of type {type(given).__name__}"
