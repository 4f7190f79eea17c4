"""What the plugin `links` keeps, and the service that it gives to others."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from veko_plugins.storage import Namespace

_CODE = re.compile(r"[0-9A-Za-z]{1,32}")

# Only http and https: a javascript: or data: link would run in whoever follows it. Only printable
# ASCII, since it goes into a header as it is.
_URL = r"^https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?([/?#][!-~]*)?$"


class NewLink(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /links, JSON or a form; what does not fit it is answered with 400."""

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
        if self.url.endswith("\n"):  # which `$` lets pass
            raise ValueError("the URL goes on in another line")


class Link(msgspec.Struct, frozen=True):
    code: str
    url: str
    created: datetime


class Links:
    """The service `links`.

    Args:
        storage: Where they are kept, by code.
        tell: Emits an event of the plugin.
    """

    def __init__(self, storage: Namespace, tell: Callable[[str, Link], Awaitable[object]]) -> None:
        self._storage = storage
        self._tell = tell

    def get(self, code: str) -> Link | None:
        # What is asked for comes from a URL: it may be longer than the storage takes for a key.
        found = self._storage.get(code) if _CODE.fullmatch(code) else None
        return None if found is None else msgspec.convert(found, Link)

    def __contains__(self, code: str) -> bool:
        return self.get(code) is not None

    def all(self) -> list[Link]:
        return [msgspec.convert(found, Link) for _, found in self._storage.items()]

    async def create(self, code: str, url: str) -> Link:
        link = Link(code, url, datetime.now(UTC))
        # Awaited, so that nobody is given a link that a crash could take away again.
        await self._storage.set(code, msgspec.structs.asdict(link))
        await self._tell("created", link)
        return link

    async def delete(self, code: str) -> bool:
        link = self.get(code)
        if link is None:
            return False
        await self._storage.delete(code)
        await self._tell("deleted", link)
        return True
