"""The endpoints asked in this process, for clients that come over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import anyio
import msgspec

from veko import Kernel

from ..access import Caller
from ..api import API
from ..exchange import JSON, Asked
from .verbs import NOTHING, Failed, text_of

__all__ = ["CALLER", "Here"]

CALLER: Final = "veko.admin.caller"
"""The key of the caller in the scope of a request."""
_POLL: Final = 0.25  # seconds


class Here:
    """The endpoints of this process.

    Args:
        kernel: The kernel.
        api: What answers.
        caller: The caller, with the role.
    """

    def __init__(self, kernel: Kernel, api: API, caller: Caller) -> None:
        self._kernel = kernel
        self._api = api
        self._caller = caller

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, object] | None = None,
        body: object = NOTHING,
        etag: str | None = None,
    ) -> Any:
        """Ask an endpoint; see `Verbs.ask`."""
        asked = self._asked(method, path, query, body, etag)
        # A client that leaves in the middle of a change must not end it halfway, with no line in
        # the list of changes (test_a_client_that_leaves_in_the_middle_of_a_change).
        with anyio.CancelScope(shield=method != "GET"):
            answer = await self._api.answer(asked)
            document = msgspec.json.decode(answer.body) if answer.body else {}
            if answer.status >= 400:
                raise Failed(document)
            return document
        raise AssertionError("the scope is not cancelled")

    async def moves(self) -> AsyncIterator[None]:
        """Yield when plugins may have changed; see `Verbs.moves`."""
        bus = self._kernel.bus
        known = None
        while True:
            if bus.live.registry is not known:  # each change makes another
                known = bus.live.registry
                yield None
            await anyio.sleep(_POLL)

    def _asked(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object] | None,
        body: object,
        etag: str | None,
    ) -> Asked:
        headers = {"if-match": etag} if etag is not None else {}
        if body is not NOTHING:
            headers["content-type"] = JSON
        return Asked(
            method=method,
            path=path,
            query=text_of(query),
            headers=headers,
            body=b"" if body is NOTHING else msgspec.json.encode(body),
            caller=self._caller,
        )
