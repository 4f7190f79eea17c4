"""The tools of one application, by role, and how they are called.

Nothing here knows the protocol: `server` puts the tools into MCP's messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from veko import VekoError

from ..documents import Role
from .arguments import arguments_of, faults_of, schema_of
from .changing import CHANGING
from .commands import PREFIX, Row, description_of, names_of
from .commands import schema_of as command_schema
from .reading import READING
from .tools import Hints, Tool
from .verbs import Failed, Verbs

__all__ = ["Described", "Toolbox", "UnknownTool"]

_ALL: Final = {tool.name: tool for tool in (*READING, *CHANGING)}
_SCHEMAS: Final = {name: schema_of(tool.arguments) for name, tool in _ALL.items()}
_SHOWN: Final = 400  # characters
_COMMAND: Final = Hints(destroys=True, opens=True)


class Described(msgspec.Struct, frozen=True):
    """A tool as clients see it."""

    name: str
    title: str
    description: str
    schema: dict[str, Any]
    hints: Hints


class UnknownTool(VekoError):
    """There is no tool of that name for this role."""


class Toolbox:
    """The tools of one application, for one caller.

    Args:
        verbs: What they call.
        role: What the caller may do; `look` gets the tools that only read.
    """

    def __init__(self, verbs: Verbs, role: Role) -> None:
        self._verbs = verbs
        self._role = role

    async def tools(self) -> list[Described]:
        """Return the tools that the caller may call."""
        found = [
            Described(tool.name, tool.title, tool.description, _SCHEMAS[name], tool.hints)
            for name, tool in _ALL.items()
            if self._allows(tool)
        ]
        return found if self._role == "look" else [*found, *await self._commands()]

    async def _commands(self) -> list[Described]:
        try:
            found = await self.commands()
        except Failed:  # the application is down; the tools say so when they are called
            return []
        return [
            Described(name, row["name"], description_of(row), command_schema(row), _COMMAND)
            for name, row in found.items()
        ]

    async def commands(self) -> Mapping[str, Row]:
        """Return the commands of plugins, by the names of their tools."""
        return names_of(await self._verbs.ask("GET", "commands"))

    async def call(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Call a tool.

        Args:
            name: Its name.
            given: Its arguments, as they came.

        Returns:
            Its answer, JSON-able.

        Raises:
            UnknownTool: The caller has no such tool.
            Failed: The arguments are wrong, or the tool did not do it.
        """
        tool = _ALL.get(name)
        if tool is not None and self._allows(tool):
            _check(_SCHEMAS[name], given)
            answer = await tool.run(self._verbs, arguments_of(tool.arguments, given))
        else:
            row = await self._command(name)
            _check(command_schema(row), given)
            answer = await self._verbs.ask(
                "POST", "commands", row["name"], body={"args": [], "kwargs": dict(given)}
            )
        plain = msgspec.to_builtins(answer, str_keys=True)
        return plain if isinstance(plain, dict) else {"result": plain}

    async def _command(self, name: str) -> Row:
        row = None
        if self._role != "look" and name.startswith(PREFIX):
            row = (await self.commands()).get(name)
        if row is None:
            kept = ", ".join(sorted(tool.name for tool in _ALL.values() if self._allows(tool)))
            raise UnknownTool(
                f"there is no tool {name[:80]!r}"
                + (" for the role look" if self._role == "look" else ""),
                remedy=f"There are: {kept}; list the tools again for those of commands.",
            )
        return row

    def _allows(self, tool: Tool) -> bool:
        return tool.hints.reads or self._role == "operate"


def _check(schema: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    try:
        msgspec.json.encode(given)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        detail = f"the arguments have a value that JSON in UTF-8 cannot have: {error}"
        raise Failed({"status": 422, "detail": detail[:_SHOWN]}) from error
    faults = faults_of(schema, given)
    if faults:
        raise Failed(
            {
                "status": 422,
                "detail": "the arguments are wrong",
                "faults": msgspec.to_builtins(faults),
            }
        )
