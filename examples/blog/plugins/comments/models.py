"""The table of comments, and what is asked of it. Moments are seconds since 1970, in UTC."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import BigInteger, Index, String, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from veko_plugins import HTTPError

__all__ = ["SHOWN", "Comment", "latest", "write"]

SHOWN = 200
_LONGEST = 2_000
_PER_MINUTE = 10


class Base(DeclarativeBase):
    pass


class Comment(Base):
    """A comment on a post."""

    __tablename__ = "blog_comment"
    __table_args__ = (
        Index("blog_comment_post", "post_id", "id"),
        Index("blog_comment_author", "author_id", "created"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int]
    author_id: Mapped[str] = mapped_column(String(64))
    author: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    created: Mapped[int] = mapped_column(BigInteger)


async def latest(session: AsyncSession, post_id: int) -> list[Comment]:
    """Return the latest comments on a post, the oldest of them first."""
    found = await session.scalars(
        select(Comment).where(Comment.post_id == post_id).order_by(Comment.id.desc()).limit(SHOWN)
    )
    return list(found)[::-1]


async def write(session: AsyncSession, post_id: int, user: Any, text: str) -> Comment:
    """Add a comment.

    Raises:
        HTTPError: 400: it is empty or too long. 429: the user writes too many.
    """
    text = text.replace("\r\n", "\n").strip()
    if not text or "\0" in text:
        raise HTTPError(400, "a comment needs a text")
    if len(text) > _LONGEST:
        raise HTTPError(400, f"a comment has at most {_LONGEST:,} characters")
    now = int(time.time())
    recent = await session.scalar(
        select(func.count()).select_from(Comment)
        .where(Comment.author_id == user.id, Comment.created > now - 60)
    )  # fmt: skip
    if (recent or 0) >= _PER_MINUTE:
        detail = f"{_PER_MINUTE} comments a minute are enough; wait a little"
        raise HTTPError(429, detail, headers={"retry-after": "60"})
    comment = Comment(post_id=post_id, author_id=user.id, author=user.name, body=text, created=now)
    session.add(comment)
    await session.flush()  # it has its number now
    return comment
