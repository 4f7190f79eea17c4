"""The form of a post: what was typed, and what is wrong with it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from veko_plugins import HTTPError, Request

from .models import Post

__all__ = ["PostForm"]

_LONGEST_TITLE = 200
_LONGEST_BODY = 50_000
_FAR = 10 * 366 * 86_400


class PostForm(msgspec.Struct):
    """A post as it was typed.

    Attributes:
        title: The title.
        body: The text, in Markdown.
        publish: `now`, `later` or `draft`.
        due: The moment of `later`, as a browser sends it, in UTC.
        problems: What is wrong with it.
    """

    title: str = ""
    body: str = ""
    publish: str = "now"
    due: str = ""
    problems: list[str] = []

    @classmethod
    def of(cls, post: Post) -> PostForm:
        """Return the form for changing a post."""
        publish = "now" if post.published else "later" if post.due else "draft"
        due = f"{datetime.fromtimestamp(post.due, UTC):%Y-%m-%dT%H:%M}" if post.due else ""
        return cls(post.title, post.body, publish, due)

    @classmethod
    async def read(cls, request: Request) -> PostForm:
        """Return what a request has, with its problems."""
        fields: Any = await request.form()
        values = {name: fields.get(name, "") for name in ("title", "body", "publish", "due")}
        if not all(isinstance(value, str) for value in values.values()):
            raise HTTPError(400, "the form has a file in place of a text")
        form = cls(**{name: value.strip() for name, value in values.items()})
        form.title = " ".join(form.title.split())
        form.body = form.body.replace("\r\n", "\n")
        form.problems = form._check()
        return form

    def _check(self) -> list[str]:
        problems = []
        if not self.title:
            problems.append("The title is missing.")
        elif len(self.title) > _LONGEST_TITLE:
            problems.append(f"The title is longer than {_LONGEST_TITLE} characters.")
        if not self.body:
            problems.append("The text is missing.")
        elif len(self.body) > _LONGEST_BODY:
            problems.append(f"The text is longer than {_LONGEST_BODY:,} characters.")
        if "\0" in self.title + self.body:
            problems.append("The title or the text has a character that cannot be stored.")
        if self.publish not in {"now", "later", "draft"}:
            problems.append("Choose when to publish the post.")
        if self.publish == "later" and self.moment is None:
            problems.append("Give the day and the time at which to publish the post.")
        return problems

    @property
    def moment(self) -> int | None:
        """When to publish it, if later; `None` if that is no moment within ten years."""
        try:
            moment = int(datetime.fromisoformat(self.due).replace(tzinfo=UTC).timestamp())
        except (ValueError, OverflowError):
            return None
        return moment if 0 < moment < time.time() + _FAR else None

    def fill(self, post: Post) -> None:
        """Change a post to what was typed."""
        now = int(time.time())
        post.title, post.body, post.updated = self.title, self.body, now
        post.due = self.moment if self.publish == "later" else None
        if self.publish != "now":
            post.published = None
        elif post.published is None:
            post.published = now
