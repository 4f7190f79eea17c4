"""The documents about changes: plans, what was done, configurations, and refusals."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

__all__ = [
    "Change",
    "Coming",
    "CommandAnswer",
    "ConfigView",
    "Fault",
    "Plan",
    "Problem",
    "Step",
    "StreamEvent",
    "Touched",
]

Step = Literal["load", "unload", "reload", "activate", "deactivate", "configure"]


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the live feed.

    Attributes:
        id: Its id; empty if it has none.
        topic: Its topic; `dropped` if messages were dropped before it, `reset` if what came after
            the given id is not known any more.
        data: What it says.
    """

    id: str = ""
    topic: str
    data: Any = None


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that a change touches, and what happens to it."""

    name: str
    step: Step
    version: str | None = None


class Coming(msgspec.Struct, frozen=True, kw_only=True):
    """What comes and what goes: routes as `GET /x`, hooks as events, the others by name."""

    come: tuple[str, ...] = ()
    go: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a change would do.

    Attributes:
        verb: `load`, `unload`, `toggle`, `reload`, `configure`, `restore` or `undo`.
        target: The plugin, or the file of the backup.
        plugins: The plugins that it touches, in the order in which that happens.
        routes: Routes that come and go.
        hooks: Handlers that come and go, as `event handler`.
        services: Services that come and go.
        commands: Commands that come and go.
        permissions: Permissions that grow, by plugin.
        unknown: Which of `routes`, `hooks`, `services` and `commands` are known only once the new
            code has run: a plugin may register what it likes in its `load()`.
        warnings: What one should know before.
        undoable: Whether `undo` takes it back.
        why_not: Why `undo` does not.
        changes: For a configuration: the paths that change.
        etag: The version of the configuration that it is based on.
    """

    verb: str
    target: str
    plugins: tuple[Touched, ...] = ()
    routes: Coming = Coming()
    hooks: Coming = Coming()
    services: Coming = Coming()
    commands: Coming = Coming()
    permissions: dict[str, tuple[str, ...]] = {}
    unknown: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    undoable: bool = True
    why_not: str | None = None
    changes: tuple[str, ...] = ()
    etag: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was done.

    Attributes:
        id: Its id, for `undo`.
        at: When it was done.
        who: The caller: the role and the way in, such as `operate over the socket (pid 12)`.
        verb: As in `Plan`.
        target: As in `Plan`.
        plan: What it did.
        undone: The id of the change that took it back; `None` if it still holds.
        undoable: Whether `undo` takes it back.
        why_not: Why `undo` does not.
        workers: The processes in which it was done.
    """

    id: str
    at: datetime
    who: str
    verb: str
    target: str
    plan: Plan
    undone: str | None = None
    undoable: bool = True
    why_not: str | None = None
    workers: tuple[int, ...] = ()


class ConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, or the part of it at a path, and its version for `If-Match`."""

    value: Any
    etag: str


class CommandAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a command returned; as text if it has no JSON form."""

    command: str
    result: Any = None


class Fault(msgspec.Struct, frozen=True):
    """One fault of a configuration or a request: where, and what is wrong."""

    path: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a refusal (RFC 9457).

    Attributes:
        type: `about:blank`: the status says it.
        title: The status in words.
        status: The status code.
        detail: What is wrong.
        remedy: What to do about it.
        plugin: The plugin that it is about.
        faults: Every fault, with its path.
        exit_code: The code with which a command has exited.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    remedy: str | None = None
    plugin: str | None = None
    faults: tuple[Fault, ...] = ()
    exit_code: int | None = None
