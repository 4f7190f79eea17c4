"""Comments below posts: a form that needs no script, and a WebSocket that shows new ones at once.

A new comment is written to the database. Its number goes through the storage, which all processes
follow: each sends it to the readers who are connected to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from veko_plugins import Context, HTTPError, Request, Response
from veko_plugins.http import WebSocket

from .live import Readers
from .models import Comment, latest, write

name = "comments"
version = "1.0.0"
description = "Comments, shown as they are written"
dependencies = ["pages", "posts"]

FOLDER = Path(__file__).parent
# Seconds for which the storage keeps the number of a new comment, so that all processes see it.
_FRESH = 30


async def load(context: Context) -> None:
    database, storage = context.database, context.storage
    await database.migrate()
    auth, posts = context.use("auth"), context.use("posts")
    pages = context.use("pages").of(FOLDER / "templates")
    readers = Readers()

    async def add(post_id: int, user: Any, text: str) -> Comment:
        if not user.may("comments:write"):
            raise HTTPError(403, "a permission is missing")
        async with database.begin() as session:
            comment = await write(session, post_id, user, text)
        await storage.set(f"new:{comment.id}", post_id, ttl=_FRESH)
        return comment

    @context.hook("plugin:posts:sections")
    async def section(found: list[Markup], request: Request, post: Any) -> list[Markup]:
        async with database.session() as session:
            comments = await latest(session, post.id)
        user = await auth.user(request)
        html = pages.fragment(
            "section.html", post=post, comments=comments, user=user, here=request.path,
            csrf_token=await auth.csrf_token(request) if user else "", may_delete=_may_delete,
        )  # fmt: skip
        return [*found, Markup(html)]

    async def add_by_form(request: Request, slug: str) -> Response:
        post = await posts.public(slug)
        form: Any = await request.form()
        text = form.get("text", "")
        if not isinstance(text, str):
            raise HTTPError(400, "the form has a file in place of a text")
        comment = await add(post.id, request.state["user"], text)
        return Response(
            status=303, headers={"location": f"/posts/{post.slug}#comment-{comment.id}"}
        )

    async def remove(request: Request, slug: str, id: int) -> Response:
        post = await posts.public(slug)
        async with database.begin() as session:
            comment = await session.get(Comment, id) if 0 < id < 2**31 else None
            if comment is None or comment.post_id != post.id:
                raise HTTPError(404, "there is no such comment")
            if not _may_delete(request.state["user"], comment):
                raise HTTPError(403, "it is the comment of another user")
            await session.delete(comment)
        return Response(status=303, headers={"location": f"/posts/{slug}#comments"})

    async def live(socket: WebSocket, slug: str) -> None:
        post = await posts.public(slug)
        readers.add(post.id, socket)
        try:
            await socket.accept()
            async for message in socket:
                # Asked each time: the session may have ended meanwhile.
                user = await auth.user(socket)
                try:
                    if user is None:
                        raise HTTPError(401, "log in to write a comment")
                    if not isinstance(message, str):
                        raise HTTPError(400, "a comment is a text")
                    await add(post.id, user, message)
                except HTTPError as error:
                    await socket.send({"problem": error.detail})
                else:
                    await socket.send({"accepted": True})
        finally:
            readers.remove(post.id, socket)

    async def follow() -> None:
        async for change in storage.watch("new:"):
            post_id: Any = change.value
            if change.deleted or post_id not in readers:
                continue
            number = int(change.key.partition(":")[2])
            try:
                async with database.session() as session:
                    comment = await session.get(Comment, number)
            except SQLAlchemyError as error:
                context.log("warning", f"comment {number} was not shown at once: {error}")
                continue
            if comment is not None:
                html = pages.fragment("comment.html", comment=comment, form="")
                await readers.send(post_id, {"id": f"comment-{number}", "html": html})

    @context.hook("plugin:posts:deleted")
    async def forget(post_id: int) -> None:
        async with database.begin() as session:
            await session.execute(delete(Comment).where(Comment.post_id == post_id))

    def script() -> Response:
        return Response(
            (FOLDER / "static" / "live.js").read_text("utf-8"),
            headers={"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"},
            media_type="text/javascript",
        )

    may_write = auth.require("comments:write", login="/login")
    context.add_route("POST", "/posts/{slug}/comments", may_write, add_by_form)
    context.add_route("POST", "/posts/{slug}/comments/{id:int}/delete", may_write, remove)
    context.add_route("GET", "/static/live.js", script)
    context.add_websocket("/posts/{slug}/live", live)
    context.spawn(follow)


def _may_delete(user: Any, comment: Comment) -> bool:
    return user is not None and (
        comment.author_id == user.id or bool(user.may("comments:moderate"))
    )
