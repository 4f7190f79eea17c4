"""A tool: a verb with a name, a description for the model, arguments, and hints for the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from .arguments import Arguments
from .verbs import Verbs

__all__ = ["Hints", "Tool"]


class Hints(msgspec.Struct, frozen=True):
    """What a client should know before it lets a model call a tool.

    Attributes:
        reads: It changes nothing.
        destroys: It may end or replace what is there (`undo` takes that back).
        repeats: Calling it twice with the same arguments is the same as once.
        opens: It may reach what is outside the application.
    """

    reads: bool = False
    destroys: bool = False
    repeats: bool = False
    opens: bool = False


READS: Final = Hints(reads=True, repeats=True)
ADDS: Final = Hints()
SETS: Final = Hints(destroys=True, repeats=True)
ENDS: Final = Hints(destroys=True)


class Tool(msgspec.Struct, frozen=True):
    """A tool.

    Attributes:
        name: Its name.
        title: Its name for people.
        description: What it does, and when to use it.
        arguments: The struct of its arguments.
        run: Calls the verb.
        hints: What a client should know.
    """

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    run: Callable[[Verbs, Any], Awaitable[object]]
    hints: Hints
