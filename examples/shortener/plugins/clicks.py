"""Counts how often each link is followed: GET /stats, GET /stats/{code}.

A plugin as a module. It uses a service and an event of the plugin `links`, which does not know
about this one.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec

from veko_plugins import Context, Request, Response
from veko_plugins.http import HTTPError

name = "clicks"
version = "1.0.0"
description = "Counts how often links are followed"
dependencies = ["links"]


class Clicks(msgspec.Struct):
    clicks: int = 0
    last: datetime | None = None


def load(context: Context) -> None:
    links = context.use("links")
    storage = context.storage

    def clicks_of(code: str) -> Clicks:
        return msgspec.convert(storage.get(code, {}), Clicks)

    @context.hook("request:end")
    def count(request: Request, response: Response) -> None:
        route = request.route
        if route is None or route.plugin != "links" or response.status != 302:
            return
        if request.method != "GET":
            return  # a HEAD request is a preview, not a visit
        code = request.path_params["code"]
        now = Clicks(clicks_of(code).clicks + 1, datetime.now(UTC))
        # Not awaited: it is written in this turn of the event loop, and losing a click in a crash
        # is better than making every visitor wait for the disk.
        storage.set(code, msgspec.structs.asdict(now))

    @context.hook("plugin:links:deleted")
    async def forget(link: Any) -> None:
        await storage.delete(link.code)

    def everything() -> dict[str, Clicks]:
        """Return how often each link was followed."""
        return {link.code: clicks_of(link.code) for link in links.all()}

    def one(code: str) -> Clicks:
        """Return how often a link was followed."""
        if code not in links:
            raise HTTPError(404, "no link has this code")
        return clicks_of(code)

    context.add_route("GET", "/stats", everything)
    context.add_route("GET", "/stats/{code}", one)
