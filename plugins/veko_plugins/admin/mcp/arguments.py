"""The arguments of tools: a struct each, of which the JSON Schema is made that clients get.

Unknown names and wrong types are refused, all at once, each with its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from ..documents import Fault

__all__ = ["Arguments", "arguments_of", "faults_of", "parts_of", "schema_of"]

_T = TypeVar("_T", bound="Arguments")

Name = Annotated[str, Meta(description="The name of the plugin.", min_length=1, max_length=200)]
Few = Annotated[int, Meta(description="How many to return at most.", ge=1, le=500)]
PlanOnly = Annotated[
    bool,
    Meta(description="True: only say what would happen. Do so first; then call it again without."),
]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments; the base of all."""


class ListPlugins(Arguments, frozen=True):
    core: Annotated[bool, Meta(description="Also list Veko's own plugins.")] = False
    problems: Annotated[
        bool,
        Meta(description="Only plugins that are not healthy, failed lately, or are not on."),
    ] = False
    contains: Annotated[str, Meta(description="Only names that contain this.")] = ""
    limit: Few = 200


class OfPlugin(Arguments, frozen=True):
    plugin: Name


class ListErrors(Arguments, frozen=True):
    plugin: Annotated[str | None, Meta(description="Only failures of this plugin.")] = None
    limit: Few = 10


class ListRoutes(Arguments, frozen=True):
    plugin: Annotated[str | None, Meta(description="Only routes of this plugin.")] = None
    contains: Annotated[str, Meta(description="Only paths that contain this.")] = ""
    limit: Few = 200


class ListEvents(Arguments, frozen=True):
    contains: Annotated[str, Meta(description="Only names that contain this.")] = ""
    hooked: Annotated[bool, Meta(description="Only events that have handlers now.")] = False
    limit: Few = 200


class ListTraces(Arguments, frozen=True):
    failed: Annotated[bool, Meta(description="Only those in which something failed.")] = False
    limit: Few = 20


class ShowTrace(Arguments, frozen=True):
    id: Annotated[str, Meta(description="The id, from list_traces.", min_length=1)]


class ReadLogs(Arguments, frozen=True):
    after: Annotated[int, Meta(description="Only records after the one with this id.", ge=0)] = 0
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"] | None,
        Meta(description="The lowest level."),
    ] = None
    plugin: Annotated[str | None, Meta(description="Only records of this plugin.")] = None
    limit: Few = 50


class ListChanges(Arguments, frozen=True):
    limit: Few = 20


class ReadConfig(Arguments, frozen=True):
    plugin: Name
    path: Annotated[
        str, Meta(description="The part of it, such as `smtp/host`; empty is all of it.")
    ] = ""


class SearchDocs(Arguments, frozen=True):
    query: Annotated[
        str,
        Meta(description="Words: what to do, an option, an error message.", min_length=1),
    ]
    limit: Annotated[int, Meta(description="How many sections to return.", ge=1, le=30)] = 8


class ReadDocs(Arguments, frozen=True):
    page: Annotated[
        str, Meta(description="The page, such as `guides/reload.md`; `llms.txt` lists all pages.")
    ] = "llms.txt"
    heading: Annotated[str | None, Meta(description="Only the section with this heading.")] = None


class LoadPlugin(Arguments, frozen=True):
    plugin: Annotated[
        str,
        Meta(description="The name, or the path of its file or folder.", min_length=1),
    ]
    config: Annotated[
        dict[str, Any] | None, Meta(description="Its configuration; the stored one if left out.")
    ] = None
    plan: PlanOnly = False


class ChangePlugin(OfPlugin, frozen=True):
    plan: PlanOnly = False


class UnloadPlugin(ChangePlugin, frozen=True):
    cascade: Annotated[
        bool, Meta(description="Unload the plugins that need it, too; else that is refused.")
    ] = False


class TogglePlugin(ChangePlugin, frozen=True, kw_only=True):
    active: Annotated[bool, Meta(description="True switches it on, false off.")]
    cascade: Annotated[
        bool, Meta(description="Switch off the plugins that need it, too; else that is refused.")
    ] = False


Reloads = Annotated[
    bool,
    Meta(description="Reload the plugin then: for one that reads its configuration at its load."),
]


class SetConfig(ChangePlugin, frozen=True, kw_only=True):
    value: Annotated[Any, Meta(description="The new value.")]
    path: Annotated[
        str, Meta(description="The part to replace, such as `smtp/host`; empty is all of it.")
    ] = ""
    etag: Annotated[
        str | None,
        Meta(
            description="The etag from read_config: the change is refused if the configuration "
            "was changed since."
        ),
    ] = None
    reload: Reloads = False


class MergeConfig(ChangePlugin, frozen=True, kw_only=True):
    value: Annotated[dict[str, Any], Meta(description="The fields to change.")]
    path: Annotated[str, Meta(description="The part to change; empty is all of it.")] = ""
    etag: Annotated[str | None, Meta(description="As in set_config.")] = None
    reload: Reloads = False


class ResetConfig(ChangePlugin, frozen=True):
    path: Annotated[str, Meta(description="The part to reset; empty is all of it.")] = ""
    etag: Annotated[str | None, Meta(description="As in set_config.")] = None
    reload: Reloads = False


class Undo(Arguments, frozen=True):
    change: Annotated[
        str, Meta(description="The id of the change: every change returns its id.", min_length=1)
    ]
    plan: PlanOnly = False


class RestoreBackup(Arguments, frozen=True):
    backup: Annotated[str, Meta(description="The name, from list_backups.", min_length=1)]
    plan: PlanOnly = False


def parts_of(path: str) -> tuple[str, ...]:
    """Return the segments of a path within a configuration."""
    return tuple(part for part in path.split("/") if part)


def schema_of(kind: type[Arguments]) -> dict[str, Any]:
    """Return the JSON Schema of the arguments, as one object without references."""
    (_,), parts = msgspec.json.schema_components([kind])
    schema = dict(parts[kind.__name__])
    for key in ("title", "description"):
        schema.pop(key, None)
    return schema


def faults_of(schema: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Return every fault of given arguments."""
    from jsonschema_rs import validator_for

    return tuple(
        Fault(".".join(map(str, error.instance_path)), error.message)
        for error in validator_for(dict(schema)).iter_errors(dict(given))
    )


def arguments_of(kind: type[_T], given: Mapping[str, Any]) -> _T:
    """Return arguments that `faults_of` has checked, as their struct.

    Raises:
        msgspec.ValidationError: They were not checked.
    """
    return msgspec.convert(dict(given), kind)
