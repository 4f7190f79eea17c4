"""The storage of the plugin `links`, and the service that it provides."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from veko_plugins.storage import Namespace

_CODE = re.compile(r"[0-9A-Za-z]{1,32}")

# Only http and https: a javascript: or data: link would run code in the visitor's browser. Only
# printable ASCII, because the URL is sent in a header.
_URL = r"^https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?([/?#][!-~]*)?$"


class NewLink(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /links, JSON or a form; other bodies are answered with 400."""

    url: Annotated[
        str,
        Meta(
            pattern=_URL,
            max_length=2048,
            description="http:// or https://, a host, and the rest percent-encoded",
            examples=["https://example.com/"],
        ),
    ]

    def __post_init__(self) -> None:
        if self.url.endswith("\n"):  # `$` also matches before it
            raise ValueError("the URL ends with a line break")


class Link(msgspec.Struct, frozen=True):
    code: str
    url: str
    created: datetime


class Links:
    """The service `links`.

    Args:
        storage: The storage of the links, by code.
        emit: Emits an event of the plugin.
    """

    def __init__(self, storage: Namespace, emit: Callable[[str, Link], Awaitable[object]]) -> None:
        self._storage = storage
        self._emit = emit

    def get(self, code: str) -> Link | None:
        # The code comes from a URL and could be too long for a key of the storage.
        found = self._storage.get(code) if _CODE.fullmatch(code) else None
        return None if found is None else msgspec.convert(found, Link)

    def __contains__(self, code: str) -> bool:
        return self.get(code) is not None

    def all(self) -> list[Link]:
        return [msgspec.convert(found, Link) for _, found in self._storage.items()]

    async def create(self, code: str, url: str) -> Link:
        link = Link(code, url, datetime.now(UTC))
        # Awaited, so that a crash cannot lose a link that was already handed out.
        await self._storage.set(code, msgspec.structs.asdict(link))
        await self._emit("created", link)
        return link

    async def delete(self, code: str) -> bool:
        link = self.get(code)
        if link is None:
            return False
        await self._storage.delete(code)
        await self._emit("deleted", link)
        return True
