"""The table of posts, and what is asked of it. Moments are seconds since 1970, in UTC."""

from __future__ import annotations

import re
import time
import unicodedata

import msgspec
from sqlalchemy import BigInteger, Index, String, Text, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["PER_PAGE", "Listing", "Post", "Summary", "find", "free_slug", "listing", "publish_due"]

PER_PAGE = 5
_LONGEST_SLUG = 60
_RESERVED = {"new"}
_SLUG = re.compile(r"[a-z0-9-]{1,80}")


class Base(DeclarativeBase):
    pass


class Post(Base):
    """A post: published, if `published` is set; scheduled, if `due` is; else a draft."""

    __tablename__ = "blog_post"
    __table_args__ = (Index("blog_post_published", "published"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(80), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    author_id: Mapped[str] = mapped_column(String(64))
    author: Mapped[str] = mapped_column(String(200))
    updated: Mapped[int] = mapped_column(BigInteger)
    due: Mapped[int | None] = mapped_column(BigInteger)
    published: Mapped[int | None] = mapped_column(BigInteger)


class Summary(msgspec.Struct, frozen=True):
    """What lists show of a post."""

    slug: str
    title: str
    author: str
    published: int
    begins: str


class Listing(msgspec.Struct, frozen=True):
    """A page of the list of published posts, the latest first."""

    posts: list[Summary]
    number: int
    pages: int


async def listing(session: AsyncSession, number: int, per_page: int = PER_PAGE) -> Listing:
    """Return a page of the list; its posts are empty if there is no such page."""
    public = Post.published.is_not(None)
    count = await session.scalar(select(func.count()).select_from(Post).where(public)) or 0
    pages = max(1, -(-count // per_page))
    if number > pages:
        return Listing([], number, pages)
    found = await session.scalars(
        select(Post).where(public).order_by(Post.published.desc(), Post.id.desc())
        .offset((number - 1) * per_page).limit(per_page)
    )  # fmt: skip
    posts = [
        Summary(post.slug, post.title, post.author, post.published or 0, _beginning(post.body))
        for post in found
    ]
    return Listing(posts, number, pages)


async def find(session: AsyncSession, slug: str) -> Post | None:
    """Return a post, published or not."""
    if not _SLUG.fullmatch(slug):
        return None
    return await session.scalar(select(Post).where(Post.slug == slug))


async def publish_due(session: AsyncSession) -> list[str]:
    """Publish what is due, and return the titles; of several processes one publishes a post."""
    now = int(time.time())
    changed = await session.scalars(
        update(Post).where(Post.published.is_(None), Post.due <= now)
        .values(published=Post.due).returning(Post.title)
    )  # fmt: skip
    return list(changed)


async def free_slug(session: AsyncSession, title: str) -> str:
    """Return the part of a URL for a title, which no other post has."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_SLUG].strip("-")
    taken = set(
        await session.scalars(select(Post.slug).where(Post.slug.startswith(stem or "post")))
    )
    stem, number = stem or "post", 1
    slug = stem
    while slug in taken or slug in _RESERVED:
        number += 1
        slug = f"{stem}-{number}"
    return slug


def _beginning(text: str, length: int = 220) -> str:
    """Return the first words of a Markdown text, without its marks."""
    # Only of the first part: on a long text made for that, these expressions take seconds.
    plain = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text[:1000])
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    plain = " ".join(re.sub(r"[#>*_`]+", "", plain).split())
    if len(plain) <= length and len(text) <= 1000:
        return plain
    return plain[:length].rsplit(" ", 1)[0] + " …"
