"""Posts: the list, the pages, the feed; writing, changing and deleting them.

Other plugins add sections below a post in hooks on `plugin:posts:sections`, and hear of deletions
through `plugin:posts:deleted`. They use the service `posts`.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from veko_plugins import Context, HTTPError, Request, Response

from .forms import PostForm
from .models import Listing, Post, find, free_slug, listing, publish_due

name = "posts"
version = "1.0.0"
description = "Posts, their list and their feed"
dependencies = ["pages"]

# HTML in a text is shown as text, and links lead to http, https and mailto only.
_markdown = MarkdownIt("commonmark", {"html": False})
_TAG = "posts"


class Posts:
    """The service `posts`, for other plugins.

    Args:
        context: The plugin's context.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def public(self, slug: str) -> Post:
        """Return a published post.

        Raises:
            HTTPError: 404: there is none.
        """
        async with self._context.database.session() as session:
            post = await find(session, slug)
        if post is None or post.published is None:
            raise HTTPError(404, "there is no such post")
        return post

    async def publish_due(self) -> list[str]:
        """Publish the posts that are due, and return their titles."""
        async with self._context.database.begin() as session:
            titles = await publish_due(session)
        if titles:
            await self._context.cache.clear(tags=[_TAG])
        return titles


async def load(context: Context) -> None:
    database, cache = context.database, context.cache
    await database.migrate()
    auth, pages = context.use("auth"), context.use("pages")
    pages = pages.of(Path(__file__).parent / "templates")
    writers = auth.require("posts:write", login="/login")

    # -- reading

    async def page_of_list(number: int) -> Listing:
        async def look() -> Listing:
            async with database.session() as session:
                return await listing(session, number)

        return await cache.get_or_set(f"list:{number}", look, type=Listing, ttl=300, tags=[_TAG])

    async def show_list(request: Request, page: str = "1") -> Response:
        number = int(page) if page.isdecimal() and len(page) < 7 else 0
        found = await page_of_list(number) if number > 0 else None
        if found is None or number > found.pages:
            raise HTTPError(404, "there is no such page")
        return await pages.render(request, "list.html", listing=found)

    async def html_of(post: Post) -> Markup:
        # The key says which text it is, so what is found is never an earlier one. Rendering takes
        # milliseconds, and seconds for a text that was made for that, so a thread does it.
        key = f"html:{hashlib.sha256(post.body.encode()).hexdigest()}"
        html = await cache.get_or_set(
            key, lambda: asyncio.to_thread(_markdown.render, post.body), type=str
        )
        return Markup(html)  # markdown-it has escaped it

    async def show(request: Request, slug: str) -> Response:
        async with database.session() as session:
            post = await find(session, slug)
        user = await auth.user(request)
        own = post is not None and user is not None and _may_change(user, post)
        if post is None or (post.published is None and not own):
            raise HTTPError(404, "there is no such post")  # drafts are not even hinted at
        sections: list[Markup] = []
        if post.published is not None:
            sections = await context.emit("sections", [], request, post)
        return await pages.render(
            request, "post.html", post=post, html=await html_of(post), own=own, sections=sections
        )

    async def feed(request: Request) -> Response:
        found = await page_of_list(1)
        site = request.url.removesuffix(request.path)
        body = pages.fragment("feed.xml", posts=found.posts, site=site)
        return Response(body, media_type="application/atom+xml")

    # -- writing. The guard has checked that the user may write, and the form's token.

    async def owned(session: Any, request: Request, slug: str) -> Post:
        post = await find(session, slug)
        if post is None:
            raise HTTPError(404, "there is no such post")
        if not _may_change(request.state["user"], post):
            raise HTTPError(403, "it is the post of another author")
        return post

    async def show_own(request: Request) -> Response:
        user = request.state["user"]
        async with database.session() as session:
            found = list(
                await session.scalars(
                    select(Post)
                    .where(Post.published.is_(None), Post.author_id == user.id)
                    .order_by(Post.updated.desc())
                    .limit(100)
                )
            )
        return await pages.render(request, "drafts.html", drafts=found)

    async def show_new(request: Request) -> Response:
        return await pages.render(request, "edit.html", form=PostForm(), post=None)

    async def create(request: Request) -> Response:
        form, user = await PostForm.read(request), request.state["user"]
        if form.problems:
            return await pages.render(request, "edit.html", status=400, form=form, post=None)
        post = Post(author_id=user.id, author=user.name)
        form.fill(post)
        try:
            async with database.begin() as session:
                post.slug = await free_slug(session, form.title)
                session.add(post)
        except IntegrityError:  # another process has taken the path in this moment
            raise HTTPError(409, "another post of this title was just written") from None
        return await changed(post)

    async def show_edit(request: Request, slug: str) -> Response:
        async with database.session() as session:
            post = await owned(session, request, slug)
        return await pages.render(request, "edit.html", form=PostForm.of(post), post=post)

    async def edit(request: Request, slug: str) -> Response:
        form = await PostForm.read(request)
        async with database.begin() as session:
            post = await owned(session, request, slug)
            if not form.problems:
                form.fill(post)
        if form.problems:
            return await pages.render(request, "edit.html", status=400, form=form, post=post)
        return await changed(post)

    async def show_delete(request: Request, slug: str) -> Response:
        async with database.session() as session:
            post = await owned(session, request, slug)
        return await pages.render(request, "delete.html", post=post)

    async def delete(request: Request, slug: str) -> Response:
        async with database.begin() as session:
            post = await owned(session, request, slug)
            await session.delete(post)
        await context.emit("deleted", post.id)
        await cache.clear(tags=[_TAG])
        return Response(status=303, headers={"location": "/"})

    async def changed(post: Post) -> Response:
        await cache.clear(tags=[_TAG])
        return Response(status=303, headers={"location": f"/posts/{post.slug}"})

    @context.hook("plugin:pages:links")
    def links(found: list[tuple[str, str]], user: Any) -> list[tuple[str, str]] | None:
        if user is None or not user.may("posts:write"):
            return None
        return [*found, ("/posts/new", "Write"), ("/drafts", "Drafts")]

    context.provide("posts", Posts(context))
    context.add_route("GET", "/", show_list)
    # The same for everybody, so the whole response is kept.
    context.add_route("GET", "/feed.xml", cache.cached(300, tags=[_TAG], public=True), feed)
    context.add_route("GET", "/posts/{slug}", show)
    context.add_route("GET", "/drafts", writers, show_own)
    context.add_route("GET", "/posts/new", writers, show_new)
    context.add_route("POST", "/posts", writers, create)
    context.add_route("GET", "/posts/{slug}/edit", writers, show_edit)
    context.add_route("POST", "/posts/{slug}/edit", writers, edit)
    context.add_route("GET", "/posts/{slug}/delete", writers, show_delete)
    context.add_route("POST", "/posts/{slug}/delete", writers, delete)


def _may_change(user: Any, post: Post) -> bool:
    return bool(user.may("posts:write") and (post.author_id == user.id or user.may("posts:all")))
