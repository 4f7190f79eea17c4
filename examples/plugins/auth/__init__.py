"""Accounts over HTTP: register, log in, verify, refresh, log out; and everything under
`/api/protected/` is for users alone, whichever plugin has it.

Users, passwords, tokens and limits are the business of the service `auth`; this plugin gives it
routes, and guards. The guard is a hook on `route:create`: it adds a middleware to each protected
route before the route goes live, including those of plugins that load later. A route that leads
elsewhere too, such as `/{rest:path}`, is guarded where it leads here.

It is required: the application does not start without it, and answers 503 while it is down.
"""

from __future__ import annotations

import math
import posixpath
from typing import Annotated, Any

import msgspec

from veko_plugins import CallNext, Context, HTTPError, Request, Route
from veko_plugins.auth import Auth, Credentials, Tokens, User

name = "accounts"
version = "1.0.0"
description = "Login, verify and refresh over HTTP; guards /api/protected/"
required = True


class Settings(msgspec.Struct, frozen=True):
    """`[plugins.accounts]`."""

    registration: bool = True
    protected: Annotated[str, msgspec.Meta(pattern="^/([^/{}]+/)+$")] = "/api/protected/"
    permissions: tuple[str, ...] = ()


config_schema = Settings


class Token(msgspec.Struct):
    token: str


class Refresh(msgspec.Struct):
    refresh_token: str


class Shown(msgspec.Struct):
    id: str
    name: str
    roles: tuple[str, ...]


class Verified(msgspec.Struct):
    valid: bool
    user: Shown | None = None


def load(config: Settings, context: Context) -> None:
    auth: Auth = context.use("auth")
    only_users = auth.require(*config.permissions)

    async def register(data: Credentials, request: Request) -> Shown:
        """Register."""
        return shown(await auth.register(data.name, data.password, request=request))

    async def login(data: Credentials, request: Request) -> Tokens:
        """Log in."""
        return await auth.login(data.name, data.password, request=request)

    async def verify(data: Token) -> Verified:
        """Say whether an access token is valid, and whose it is."""
        try:
            return Verified(True, shown(await auth.verify(data.token)))
        except HTTPError as error:
            if error.status != 401:
                raise
            return Verified(False)

    async def refresh(data: Refresh, request: Request) -> Tokens:
        """Exchange a refresh token, once, for new tokens."""
        return await auth.refresh(data.refresh_token, request=request)

    async def logout(request: Request) -> None:
        """End the session of the access token."""
        await auth.logout(request)

    async def me(request: Request) -> Shown:
        """Say who is logged in."""
        return shown(request.state["user"])

    if config.registration:
        context.add_route("POST", "/auth/register", register)
    context.add_route("POST", "/auth/login", login)
    context.add_route("POST", "/auth/verify", verify)
    context.add_route("POST", "/auth/refresh", refresh)
    context.add_route("POST", "/auth/logout", logout)
    context.add_route("GET", "/auth/me", auth.require(), me)
    context.add_route("GET", f"{config.protected}me", me)  # guarded by the hook below

    async def only_users_here(request: Request, call_next: CallNext) -> Any:
        if is_below(request.path, config.protected):
            return await only_users(request, call_next)
        return await call_next(request)

    @context.hook("route:create", priority=-math.inf)  # last, after hooks that change the path
    def protect(route: Route) -> Route | None:
        if is_below(route.path, config.protected):
            guard: Any = only_users
        elif may_lead_below(route.path, config.protected):
            guard = only_users_here
        else:
            return None
        return msgspec.structs.replace(route, middlewares=(guard, *route.middlewares))


def shown(user: User) -> Shown:
    return Shown(user.id, user.name, user.roles)


def is_below(path: str, protected: str) -> bool:
    """Return whether a path is protected, however it is spelled."""
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return f"{plain}/".casefold().startswith(protected.casefold())


def may_lead_below(path: str, protected: str) -> bool:
    """Return whether the parameters of a route's path may stand for a protected one."""
    own, wanted = path.strip("/").split("/"), protected.strip("/").split("/")
    for mine, theirs in zip(own, wanted, strict=False):
        if mine.endswith(":path}"):
            return True
        if not mine.startswith("{") and mine.casefold() != theirs.casefold():
            return False
    return len(own) >= len(wanted)
