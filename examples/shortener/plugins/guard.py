"""Requires a token for every route under /admin/, whichever plugin registered it.

It adds a middleware to each such route before the route goes live (`route:create`), including the
routes of plugins that load later. When this plugin is switched on or off, Veko rebuilds the routes
in the same step, so no request slips through in between.

The token comes from SHORTENER_ADMIN_TOKEN or `[plugins.guard] token`. If neither is set, one is
created at the first start and stored in .veko/links-token, readable by its owner only. There is no
default: a token in this file would open every copy of this application.

It is required: the application does not start without it, and answers 503 while it is down.
"""

import hmac
import os
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from veko_plugins import Context, Request, Response, Route
from veko_plugins.http import CallNext, HTTPError

name = "guard"
version = "1.0.0"
description = "Requires a token under /admin/"
required = True

_VARIABLE = "SHORTENER_ADMIN_TOKEN"
_FILE = Path(__file__).resolve().parents[1] / ".veko" / "links-token"


class Settings(msgspec.Struct, frozen=True):
    # A secret: messages about a bad configuration do not show it.
    token: Annotated[str | None, msgspec.Meta(extra={"secret": True})] = None


config_schema = Settings


def load(config: Settings, context: Context) -> None:
    token = (os.environ.get(_VARIABLE) or config.token or _kept(context)).encode()

    async def check(request: Request, call_next: CallNext) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # compare_digest takes the same time wherever the first difference is.
        right = hmac.compare_digest(given.strip().encode(), token)
        if scheme.lower() != "bearer" or not right:
            raise HTTPError(401, "a token is required", headers={"www-authenticate": "Bearer"})
        return await call_next(request)

    @context.hook("route:create", priority=-100)  # runs last, after hooks that change the path
    def protect(route: Route) -> Route | None:
        if not f"{route.path}/".startswith("/admin/"):
            return None
        # Before the route's own middleware, which must not run without a token either.
        return msgspec.structs.replace(route, middlewares=(check, *route.middlewares))


def _kept(context: Context) -> str:
    """Return the token of an earlier start, or create one."""
    try:
        if found := _FILE.read_text("utf-8").strip():
            return found
    except FileNotFoundError:
        pass
    made = secrets.token_urlsafe(32)
    _FILE.parent.mkdir(exist_ok=True)
    _FILE.touch(mode=0o600)  # restrict access before the token is written
    _FILE.write_text(made + "\n", "utf-8")
    context.log("warning", f"created a token for /admin/ in {_FILE}")
    return made
