"""Lets only who has the token into /admin/, whichever plugin has the routes there.

It puts a middleware before each such route when that is about to go live (`route:create`), also
before those of plugins that are loaded later. When this plugin is switched off or on, the routes
are made again without or with it, in the same step: there is no moment in between.

The token comes from SHORTENER_ADMIN_TOKEN or `[plugins.guard] token`. If neither is set, one is
made at the first start and kept in .veko/admin-token, readable by its owner only. There is no
default: a token that stands in this file would open every copy of this application.
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
description = "Asks for a token under /admin/"

_VARIABLE = "SHORTENER_ADMIN_TOKEN"
_FILE = Path(__file__).resolve().parents[1] / ".veko" / "admin-token"


class Settings(msgspec.Struct, frozen=True):
    # A secret: messages about a bad configuration do not show it.
    token: Annotated[str | None, msgspec.Meta(extra={"secret": True})] = None


config_schema = Settings


def load(config: Settings, context: Context) -> None:
    token = (os.environ.get(_VARIABLE) or config.token or _kept(context)).encode()

    async def check(request: Request, call_next: CallNext) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # compare_digest takes as long for a wrong first letter as for a wrong last one.
        right = hmac.compare_digest(given.strip().encode(), token)
        if scheme.lower() != "bearer" or not right:
            raise HTTPError(401, "a token is needed", headers={"www-authenticate": "Bearer"})
        return await call_next(request)

    @context.hook("route:create", priority=-100)  # last: what others made of the path counts
    def protect(route: Route) -> Route | None:
        if not f"{route.path}/".startswith("/admin/"):
            return None
        # In front of the route's own middleware, which should not run for strangers either.
        return msgspec.structs.replace(route, middlewares=(check, *route.middlewares))


def _kept(context: Context) -> str:
    """Return the token of an earlier start, or make one."""
    try:
        if found := _FILE.read_text("utf-8").strip():
            return found
    except FileNotFoundError:
        pass
    made = secrets.token_urlsafe(32)
    _FILE.parent.mkdir(exist_ok=True)
    _FILE.touch(mode=0o600)  # before there is anything in it to read
    _FILE.write_text(made + "\n", "utf-8")
    context.log("warning", f"made a token for /admin/: it lies in {_FILE}")
    return made
