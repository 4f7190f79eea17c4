"""The management API without a transport: a request in, an answer out.

The core plugin serves it over HTTP, `control` over a Unix socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from .audit import Audit
from .changing_endpoints import CHANGING
from .endpoints import Endpoint, answered, given_of
from .errors import AdminError
from .exchange import PREFIX, Answer, Asked
from .openapi import document_of
from .operations import Operations
from .reading_endpoints import READING

__all__ = ["API"]


class API:
    """Answers requests.

    Args:
        operations: The verbs.
        audit: The audit log.

    Attributes:
        operations: The verbs.
        audit: The audit log.
    """

    def __init__(self, operations: Operations, audit: Audit) -> None:
        self.operations = operations
        self.audit = audit
        self.endpoints: Sequence[Endpoint] = (*READING, *CHANGING)

    def describe(self) -> dict[str, Any]:
        """Return the OpenAPI document of the API."""
        return document_of(self.endpoints)

    async def answer(self, asked: Asked) -> Answer:
        """Answer a request; whatever fails becomes a problem document."""
        target = "/".join(asked.path)
        name = f"{asked.method} {target}"
        changes = asked.method != "GET"
        try:
            if asked.path == ("openapi.json",) and asked.method == "GET":
                return Answer.of(self.describe())
            endpoint, path = self._find(asked)
            name, changes = endpoint.name, endpoint.role == "operate"
            if changes and asked.caller.role != "operate":
                raise AdminError(
                    403,
                    f"the role {asked.caller.role!r} may not do this",
                    remedy="Ask with the token for the role `operate`.",
                )
            given = given_of(endpoint, asked, path)
            planned = bool(given.get("plan"))
            answer = answered(endpoint, await endpoint.handler(self.operations, asked, given))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            answer = Answer.refusal(error)
            if changes:
                self.audit.write(asked.caller, name, target, answer.status, why=_why(error))
            return answer
        if changes and not planned:
            change = answer.headers.get("veko-change")
            self.audit.write(asked.caller, name, target, answer.status, change=change)
        return answer

    def _find(self, asked: Asked) -> tuple[Endpoint, dict[str, Any]]:
        """Return the endpoint of a request, and the parameters in its path.

        Raises:
            AdminError: There is none (404), or none for the method (405).
        """
        allowed = []
        for endpoint in self.endpoints:
            path = endpoint.match(asked.path)
            if path is None:
                continue
            if endpoint.method == asked.method:
                return endpoint, path
            allowed.append(endpoint.method)
        if allowed:
            raise AdminError(
                405,
                f"{asked.method} is not allowed here",
                headers={"allow": ", ".join(dict.fromkeys(allowed))},
                remedy=f"Use {' or '.join(dict.fromkeys(allowed))}.",
            )
        raise AdminError(
            404,
            "there is nothing at this path",
            remedy=f"See {PREFIX}/openapi.json for what there is.",
        )


def _why(error: Exception) -> str:
    return type(error).__name__
