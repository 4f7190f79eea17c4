"""The table of images. Moments are seconds since 1970, in UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Image"]


class Base(DeclarativeBase):
    pass


class Image(Base):
    """An image: its name on the disk, which is ours, and the name that its owner gave it."""

    __tablename__ = "blog_upload"
    __table_args__ = (Index("blog_upload_owner", "owner_id", "created"),)

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    shown: Mapped[str] = mapped_column(String(100))
    owner_id: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    created: Mapped[int] = mapped_column(BigInteger)
