"""Lists and deletes links: GET /admin/links, DELETE /admin/links/{code}.

This plugin does not check permissions: the plugin `guard` protects everything under /admin/.
Switching `guard` off by hand removes the protection. To prevent that, add `guard` to `dependencies`
below: then this plugin is never on without it.
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
            raise HTTPError(404, "no link has this code")
        context.log("info", f"deleted {code}")

    context.add_route("GET", "/admin/links", every)
    context.add_route("DELETE", "/admin/links/{code}", delete)
