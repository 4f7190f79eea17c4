"""Short links: POST /links creates one, GET /{code} redirects to its URL.

A plugin as a package folder: plugin.toml is its manifest, this file its code.
"""

from veko import Event
from veko_plugins import Context, Request, Response
from veko_plugins.http import HTTPError

from .store import Link, Links, NewLink


def load(context: Context) -> None:
    links = Links(context.storage, emit=context.emit)
    context.provide("links", links)  # other plugins: context.use("links")
    context.declare(
        Event("plugin:links:created", payload=Link, doc="A short link was created. The link.")
    )
    context.declare(
        Event("plugin:links:deleted", payload=Link, doc="A short link was deleted. The link.")
    )

    async def create(data: NewLink, request: Request) -> Response:
        """Create a short link."""
        # The plugin `shortcodes` attaches `context.shortcodes`.
        link = await links.create(context.shortcodes.new(taken=links), data.url)
        here = request.url.partition("?")[0].rstrip("/").removesuffix("/links")
        short = f"{here}/{link.code}"
        return Response(
            {"code": link.code, "short": short, "url": link.url},
            status=201,
            headers={"location": short},
        )

    def follow(code: str) -> Response:
        """Redirect to the URL of a short link."""
        link = links.get(code)
        if link is None:
            raise HTTPError(404, "no link has this code")
        # 302, not 301: browsers cache a 301 forever, so a deleted link would keep working.
        return Response(status=302, headers={"location": link.url, "cache-control": "no-store"})

    context.add_route("POST", "/links", create)
    context.add_route("GET", "/{code}", follow)
