"""The endpoints of an application in another process, asked through its control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from veko import VekoError

from ..client import AdminClient
from ..errors import AdminError, problem_of
from .verbs import NOTHING, Failed, text_of

__all__ = ["There"]

_POLL: Final = 0.4  # seconds


class There:
    """The endpoints of the application that serves from a directory.

    Its socket is looked for again with each request, so the application may stop and start.

    Args:
        directory: The application's directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, object] | None = None,
        body: object = NOTHING,
        etag: str | None = None,
    ) -> Any:
        """Ask an endpoint; see `Verbs.ask`."""
        try:
            answer, _ = await AdminClient.local(self._directory).request(
                method,
                "/".join(quote(part, safe="") for part in path),
                query=text_of(query),
                body=msgspec.UNSET if body is NOTHING else body,
                headers={"if-match": etag} if etag is not None else None,
            )
        except VekoError as error:
            raise _failed(error) from error
        return msgspec.json.decode(answer) if answer else {}

    async def moves(self) -> AsyncIterator[None]:
        """Yield when plugins may have changed; see `Verbs.moves`."""
        while True:
            yield None
            await asyncio.sleep(_POLL)


def _failed(error: VekoError) -> Failed:
    if not isinstance(error, AdminError):  # there is no application, or it does not answer
        error = AdminError(503, error.message, remedy=error.remedy)
    return Failed(msgspec.to_builtins(problem_of(error)[0]))
