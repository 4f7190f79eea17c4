"""Lists and deletes links: GET /admin/links, DELETE /admin/links/{code}.

Nothing here is about who may do so: that is the plugin `guard`'s, for all of /admin/. Whoever
switches `guard` off opens it, as does the breaker if it fails too often. Where that must not
happen, name `guard` in `dependencies` below: then this plugin is never on without it.
"""

from typing import Any

from veko_plugins import Context
from veko_plugins.http import HTTPError

name = "admin"
version = "1.0.0"
description = "Lists and deletes links"
dependencies = ["links"]


def load(context: Context) -> None:
    links = context.use("links")

    def every() -> list[Any]:
        """List all links, the oldest first."""
        return sorted(links.all(), key=lambda link: link.created)

    async def delete(code: str) -> None:
        """Delete a link."""
        if not await links.delete(code):
            raise HTTPError(404, "there is no such link")
        context.log("info", f"deleted {code}")

    context.add_route("GET", "/admin/links", every)
    context.add_route("DELETE", "/admin/links/{code}", delete)
