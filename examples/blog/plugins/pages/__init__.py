"""The look of the blog: templates, style, error pages, and headers that protect readers.

Other plugins use the service `pages`, with templates of their own that extend `layout.html`:

    pages = context.use("pages").of(Path(__file__).parent / "templates")
    return await pages.render(request, "post.html", post=post)
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from veko_plugins import Context, Request, Response
from veko_plugins.http import CallNext, FileResponse

name = "pages"
version = "1.0.0"
description = "Templates, style and error pages"

FOLDER = Path(__file__).parent
# Scripts, styles and images come from this server only, so even if HTML of a visitor's got into a
# page, it could load nothing and run nothing.
PROTECTION = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str = "A blog made of plugins"


config_schema = Settings


# The path and the text of a link in the navigation.
Link = tuple[str, str]


class Pages:
    """Renders pages.

    Args:
        auth: The service `auth`.
        links: Returns the links that plugins add to the navigation for a user.
        title: The title of the blog.
        folders: Where templates are; the first folder that has one wins.
    """

    def __init__(
        self,
        auth: Any,
        links: Callable[[Any], Awaitable[list[Link]]],
        title: str,
        folders: tuple[Path, ...] = (FOLDER / "templates",),
    ) -> None:
        self._auth, self._links, self._title, self._folders = auth, links, title, folders
        self._environment = Environment(
            loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
            autoescape=True,  # whatever a visitor wrote is text, never HTML
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["date"] = _date
        self._environment.filters["iso"] = _iso

    def of(self, folder: Path) -> Pages:
        """Return the same with the templates of another plugin."""
        return Pages(self._auth, self._links, self._title, (folder, *self._folders))

    def fragment(self, template: str, **values: object) -> str:
        """Render a part of a page, which knows no user."""
        return self._environment.get_template(template).render(**values)

    async def render(
        self, request: Request, template: str, *, status: int = 200, **values: object
    ) -> Response:
        """Render a page for the user who makes a request."""
        user = await self._auth.user(request)
        body = self._environment.get_template(template).render(
            blog=self._title,
            here=request.path,
            links=await self._links(user),
            user=user,
            csrf_token=await self._auth.csrf_token(request) if user is not None else "",
            **values,
        )
        # It has the user's name in it: no cache may show it to others, nor the browser later.
        headers = PROTECTION | {"cache-control": "no-store"}
        return Response(body, status, headers, media_type="text/html")

    def plain_error(self, status: int, title: str) -> Response:
        """Return the page for an error that leaves nothing to render with."""
        body = self.fragment("plain_error.html", blog=self._title, status=status, title=title)
        return Response(body, status, PROTECTION, media_type="text/html")


def load(config: Settings, context: Context) -> None:
    async def links(user: Any) -> list[Link]:
        # Other plugins add theirs in hooks on `plugin:pages:links`.
        found: list[Link] = await context.emit("links", [("/", "Posts")], user)
        return found

    pages = Pages(context.use("auth"), links, config.title)

    async def page_of_error(response: Response, request: Request) -> Response:
        """Return a page for browsers in place of a problem document."""
        wants_page = "text/html" in request.headers.get("accept", "")
        if response.media_type != "application/problem+json" or not wants_page:
            return response
        problem = json.loads(response.body or b"{}")
        title, detail = str(problem.get("title", "")), str(problem.get("detail", ""))
        try:
            page = await pages.render(
                request,
                "error.html",
                status=response.status,
                title=title,
                detail=detail,
                code=response.status,
                login=f"/login?next={quote(request.path)}",
            )
        except Exception as error:
            context.log("error", f"the page of an error cannot be rendered: {error!r}")
            page = pages.plain_error(response.status, title)
        for header in ("retry-after", "allow", "www-authenticate"):
            if header in response.headers:
                page.headers[header] = response.headers[header]
        return page

    async def where_no_route_is(request: Request, call_next: CallNext) -> Response:
        # Hooks on a response do not run if no route matched.
        return await page_of_error(await call_next(request), request)

    def static(name: str) -> FileResponse:
        return FileResponse(
            name, root=FOLDER / "static", headers={"cache-control": "public, max-age=300"}
        )

    context.provide("pages", pages)
    context.hook("response:start", page_of_error)
    context.add_middleware(where_no_route_is)
    context.add_route("GET", "/static/{name}", static)


def _date(seconds: int) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment.day} {moment:%B %Y}"


def _iso(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
