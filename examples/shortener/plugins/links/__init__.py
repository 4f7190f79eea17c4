"""Short links: POST /links makes one, GET /{code} goes where it leads.

A plugin as a package folder: plugin.toml says what it is, this file what it does.
"""

from veko import Event
from veko_plugins import Context, Request, Response
from veko_plugins.http import HTTPError

from .store import Link, Links, NewLink


def load(context: Context) -> None:
    links = Links(context.storage, tell=context.emit)
    context.provide("links", links)  # other plugins: context.use("links")
    context.declare(
        Event("plugin:links:created", payload=Link, doc="A short link was made. The link.")
    )
    context.declare(
        Event("plugin:links:deleted", payload=Link, doc="A short link was deleted. The link.")
    )

    async def create(data: NewLink, request: Request) -> Response:
        """Make a short link."""
        # `context.shortcodes` is there because the plugin `shortcodes` attaches it.
        link = await links.create(context.shortcodes.new(taken=links), data.url)
        here = request.url.partition("?")[0].rstrip("/").removesuffix("/links")
        short = f"{here}/{link.code}"
        return Response(
            {"code": link.code, "short": short, "url": link.url},
            status=201,
            headers={"location": short},
        )

    def follow(code: str) -> Response:
        """Go where a short link leads."""
        link = links.get(code)
        if link is None:
            raise HTTPError(404, "there is no such link")
        # 302, not 301: browsers keep a 301 for ever, and a deleted link would live on in them.
        return Response(status=302, headers={"location": link.url, "cache-control": "no-store"})

    context.add_route("POST", "/links", create)
    context.add_route("GET", "/{code}", follow)
