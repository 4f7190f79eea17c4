"""The templates of plugins that there are."""

from __future__ import annotations

from typing import Final

import msgspec

from .._lib.versions import did_you_mean
from .errors import ScaffoldError

__all__ = ["TEMPLATES", "Template", "find_template"]


class Template(msgspec.Struct, frozen=True):
    """A template.

    Attributes:
        name: Its name, which is that of its folder.
        shows: What the plugin shows.
        description: The description of a plugin that is given none.
        extras: The extras that the plugin needs beside those for HTTP.
        options: Lines for `veko.toml` without which the plugin does not load.
    """

    name: str
    shows: str
    description: str
    extras: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


TEMPLATES: Final = {
    one.name: one
    for one in (
        Template("basic", "a route, a hook and a command", "Says hello"),
        Template("api", "a JSON API that stores what it is sent", "Keeps notes"),
        Template("middleware", "a middleware for all requests", "Measures requests"),
        Template("websocket", "a chat over WebSockets", "A room to talk in"),
        Template(
            "database",
            "tables in a database, with migrations",
            "Keeps tasks in a database",
            extras=("database",),
            options=('database = "sqlite:///data.db"',),
        ),
        Template(
            "auth",
            "registration, login, and routes for those who are logged in",
            "Accounts and a page for each",
            extras=("auth",),
            options=("auth = true",),
        ),
        Template(
            "typescript",
            "a route and a command in TypeScript",
            "Says hello in TypeScript",
            extras=("typescript",),
        ),
    )
}


def find_template(name: object) -> Template:
    """Return a template.

    Raises:
        ScaffoldError: There is none of that name.
    """
    found = TEMPLATES.get(name) if isinstance(name, str) else None
    if found is None:
        near = did_you_mean(name, TEMPLATES) if isinstance(name, str) else ""
        raise ScaffoldError(
            f"there is no template {str(name)[:60]!r}",
            remedy=f"{near} There are: {', '.join(TEMPLATES)}.".strip(),
        )
    return found
