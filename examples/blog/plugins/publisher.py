"""A scheduled job: publishes posts when they are due.

It may run in several processes: the database lets one of them publish a post.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from veko_plugins import Context

name = "publisher"
version = "1.0.0"
description = "Publishes posts when they are due"
dependencies = ["posts"]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    every: Annotated[float, msgspec.Meta(ge=0.1)] = 10.0  # seconds


config_schema = Settings


def load(config: Settings, context: Context) -> None:
    posts = context.use("posts")

    async def publish() -> list[str]:
        """Publish the posts that are due, and return their titles."""
        try:
            titles: list[str] = await posts.publish_due()
        except SQLAlchemyError as error:  # it is tried again soon
            context.log("warning", f"the database does not answer: {error}")
            return []
        for title in titles:
            context.log("info", f"published {title!r}")
        return titles

    context.every(config.every, publish)
    context.add_command("publish", publish)
