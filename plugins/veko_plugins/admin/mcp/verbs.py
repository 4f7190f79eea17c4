"""What tools stand on: the endpoints of the management API, asked in this process or outside it.

So a tool does what the endpoint does: the same checks, plans, refusals, and lines in the audit log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol

__all__ = ["NOTHING", "Failed", "Verbs", "text_of"]

NOTHING: Final = object()
"""The body of a request that has none; `None` is JSON's null."""


class Failed(Exception):
    """A verb was refused or failed; a model reads why, and what to do about it.

    Attributes:
        problem: The problem document.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "")))
        self.problem = problem


class Verbs(Protocol):
    """The endpoints."""

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, object] | None = None,
        body: object = NOTHING,
        etag: str | None = None,
    ) -> Any:
        """Ask an endpoint.

        Args:
            method: The method.
            path: The segments of the path below the prefix.
            query: The query parameters; what is `None` is left out.
            body: The document to send.
            etag: The version that a change is based on, for `If-Match`.

        Returns:
            The document that it answered.

        Raises:
            Failed: It refused.
        """

    def moves(self) -> AsyncIterator[None]:
        """Yield at once, and whenever plugins may have come, gone or changed since."""
        ...


def text_of(query: Mapping[str, object] | None) -> dict[str, str]:
    """Return query parameters as text, without those that are `None`."""
    return {name: str(value) for name, value in (query or {}).items() if value is not None}
