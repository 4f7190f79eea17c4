"""What a recording consists of: one struct for each kind of entry."""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = [
    "FORMAT", "VERSION", "Command", "Emission", "End", "Entry", "Failure", "Header", "Loaded",
    "Request", "Socket", "Step", "Stimulus", "Task",
]  # fmt: skip

FORMAT: Final = "veko-recording"
VERSION: Final = 1


class Header(msgspec.Struct, tag="recording", tag_field="kind", frozen=True):
    """The first entry of a file.

    Attributes:
        format: `veko-recording`.
        version: The version of the format.
        veko: The version of Veko that has recorded.
        at: When the file was written, in nanoseconds since 1970.
        root: The application's directory.
        adapter: The name of its HTTP adapter; `None` for no HTTP.
        why: Why the file was written.
        dropped: How many older entries were forgotten before.
    """

    format: str
    version: int
    veko: str
    at: int
    root: str
    adapter: str | None
    why: str
    dropped: int = 0


class _Numbered(msgspec.Struct, tag_field="kind"):
    """What entries have in common.

    Attributes:
        number: Its number.
        parent: The number of the entry inside which it happened; `None` if it came from outside.
        at: When it began, in nanoseconds since 1970.
    """

    number: int
    parent: int | None
    at: int

    def written(self) -> Any:
        """Return it as it is written."""
        return self


class Loaded(msgspec.Struct, tag="plugin", tag_field="kind", frozen=True):
    """A plugin that was loaded, or failed to load.

    Attributes:
        name: Its name.
        version: Its version.
        source: Its file or folder; `None` if it was made in code.
        config: Its configuration, with secrets masked.
        state: Its state when the file was written.
    """

    name: str
    version: str
    source: str | None
    config: Any
    state: str


class Emission(_Numbered, tag="emission"):
    """An emission of an event that had handlers.

    Attributes:
        event: The event.
        args: The forms of its arguments as they were at its beginning.
        outcome: A list with the form of its result, if that is not its first argument unchanged.
        failed: The class of the error that it raised, if it did.
        gathered: Whether all handlers were asked at once.
    """

    event: str
    args: list[Any]
    outcome: list[Any] | None = None
    failed: str | None = None
    gathered: bool = False


class Command(_Numbered, tag="command"):
    """A command of a plugin."""

    plugin: str | None
    name: str
    args: list[Any]
    named: Any
    outcome: list[Any] | None = None
    failed: str | None = None


class Task(_Numbered, tag="task"):
    """A run of a function that a plugin has started in a task."""

    plugin: str | None
    name: str
    failed: str | None = None


class Step(_Numbered, tag="step"):
    """A step that was asked for while the application ran: `load`, `reload`, `unload`, …"""

    step: str
    plugin: str


class Request(_Numbered, tag="request"):
    """A request and its answer.

    Attributes:
        method: The method.
        url: Path and query.
        headers: Names and values.
        body: The form of the body; `None` if none was read.
        status: The status of the answer; 0 if there was none.
        kind_of_answer: The media type of the answer.
        answer: The form of the beginning of the answer's body.
        masked: What was masked in the request.
    """

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: Any = None
    status: int = 0
    kind_of_answer: str = ""
    answer: Any = None
    masked: list[str] = []


class Socket(_Numbered, tag="socket"):
    """A WebSocket: what the client sent and what it got.

    Attributes:
        url: Path and query.
        headers: Names and values.
        subprotocols: What the client offered.
        received: The messages of the client.
        sent: The messages to the client.
        closed: The code with which the application closed it, or the status that refused it.
        masked: What was masked in the request.
    """

    url: str
    headers: list[tuple[str, str]]
    subprotocols: list[str]
    received: list[Any] = []
    sent: list[Any] = []
    closed: int | None = None
    masked: list[str] = []


class Failure(_Numbered, tag="failure"):
    """A failure of a plugin's code.

    Attributes:
        plugin: The plugin; `None` for the application's own code.
        event: The event that was being emitted.
        handler: The function.
        part: What it counts against: a route, say.
        error: The class of the error.
        message: Its text, with secrets masked.
        path: The file of the line that raised it.
        line: That line.
        counts: Whether it counts against the plugin.
    """

    plugin: str | None
    event: str | None
    handler: str | None
    part: str | None
    error: str
    message: str
    path: str | None
    line: int | None
    counts: bool

    @property
    def key(self) -> tuple[str | None, str | None, str | None, str]:
        """What failures have in common that are the same one, again."""
        return self.plugin, self.event, self.part, self.error


class End(msgspec.Struct, tag="end", tag_field="kind", frozen=True):
    """The last entry of a complete file.

    Attributes:
        entries: How many entries come before it.
    """

    entries: int


Stimulus = Emission | Command | Request | Socket | Step
Entry = Emission | Command | Task | Step | Request | Socket | Failure
