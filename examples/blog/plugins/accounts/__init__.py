"""Pages for registering, logging in and out. Users and sessions are the business of `auth`.

The first user who registers is the author of the blog; all others are readers, who may comment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from veko_plugins import Context, HTTPError, Request, Response

name = "accounts"
version = "1.0.0"
description = "Registering, logging in and out"
dependencies = ["pages"]

# What the forms show in place of an error page: wrong input, a wrong password, too many tries.
_SHOWN = {400, 401, 409, 429}


def load(context: Context) -> None:
    auth = context.use("auth")
    pages = context.use("pages").of(Path(__file__).parent / "templates")
    storage = context.storage

    async def show(
        request: Request, page: str, next: str = "/", problem: str = "", name: str = "",
        status: int = 200,
    ) -> Response:  # fmt: skip
        first = storage.get("author") is None
        return await pages.render(
            request, f"{page}.html", status=status,
            next=_local(next), problem=problem, name=name, first=first,
        )  # fmt: skip

    async def enter(user_name: str, password: str, next: str, request: Request) -> Response:
        tokens = await auth.login(user_name, password, request=request)
        response = Response(status=303, headers={"location": _local(next)})
        auth.set_cookies(response, tokens)
        return response

    async def show_login(request: Request, next: str = "/") -> Response:
        return await show(request, "login", next)

    async def show_register(request: Request, next: str = "/") -> Response:
        return await show(request, "register", next)

    async def login(request: Request) -> Response:
        user_name, password, target = await _read(request)
        try:
            return await enter(user_name, password, target, request)
        except HTTPError as error:
            return await again(request, "login", target, user_name, error)

    async def register(request: Request) -> Response:
        user_name, password, target = await _read(request)
        try:
            user = await auth.register(user_name, password, roles=("reader",), request=request)
        except HTTPError as error:
            return await again(request, "register", target, user_name, error)
        # Of two who register at once, one is the first, in all processes.
        if await storage.compare_and_set("author", None, user.id):
            await auth.set_roles(user.name, "author")
            context.log("info", f"{user.name} is the author of this blog")
        return await enter(user_name, password, target, request)

    async def again(
        request: Request, page: str, next: str, user_name: str, error: HTTPError
    ) -> Response:
        if error.status not in _SHOWN:
            raise error
        response = await show(request, page, next, error.detail, user_name, error.status)
        for header, value in error.headers.items():
            response.headers[header] = value
        return response

    async def logout(request: Request) -> Response:
        await auth.logout(request)
        response = Response(status=303, headers={"location": "/"})
        auth.clear_cookies(response)
        return response

    context.add_route("GET", "/login", show_login)
    context.add_route("POST", "/login", login)
    context.add_route("GET", "/register", show_register)
    context.add_route("POST", "/register", register)
    context.add_route("POST", "/logout", logout)


async def _read(request: Request) -> tuple[str, str, str]:
    form: Any = await request.form()
    values = [form.get(field, "") for field in ("name", "password", "next")]
    if not all(isinstance(value, str) for value in values):
        raise HTTPError(400, "the form has a file in place of a text")
    return values[0], values[1], values[2]


def _local(path: str) -> str:
    """Return a path of this site; anything else would lead readers to another one."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside and path.isascii() else "/"
