"""The endpoints that change, and those of configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from .documents import BackupRow, Change, CommandAnswer
from .endpoints import Endpoint, Given, Parameter
from .errors import AdminError
from .exchange import CHANGE, RELAYED, Answer, Asked
from .intents import Configure, Intent, Load, Reload, Restore, Toggle, Undo, Unload

if TYPE_CHECKING:
    from .operations import Operations

__all__ = ["CHANGING", "CommandBody", "ToggleBody", "UnloadBody"]

_RELOAD: Final = Parameter(
    "reload", bool, False, "Reload the plugin then, for one that reads it when it loads."
)
_REFUSALS: Final = (404, 409, 422)


class LoadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to load: a name, or a path in a folder of plugins; and values of its configuration."""

    plugin: str
    config: dict[str, Any] = {}


class UnloadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether those that need it are unloaded first."""

    cascade: bool = False


class ToggleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """On or off, the opposite if left out; and whether those that need it go first."""

    active: bool | None = None
    cascade: bool = False


class CommandBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a command, or the `words` of a command line instead."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    words: tuple[str, ...] | None = None


async def _changed(of: Operations, asked: Asked, given: Given, intent: Intent) -> Answer:
    """Plan or apply an intent."""
    if given["plan"]:
        return Answer.of(await of.plan(intent))
    relayed = asked.caller.way == "socket" and RELAYED in asked.headers
    change = await of.apply(
        intent,
        who=asked.headers[RELAYED] if relayed else str(asked.caller),
        id=asked.headers.get(CHANGE) if relayed else None,
        relayed=relayed,
    )
    return Answer.of(change, headers={CHANGE: change.id})


async def _load(of: Operations, asked: Asked, given: Given) -> object:
    return await _changed(of, asked, given, Load(given["body"].plugin, given["body"].config))


async def _unload(of: Operations, asked: Asked, given: Given) -> object:
    return await _changed(of, asked, given, Unload(given["name"], given["body"].cascade))


async def _toggle(of: Operations, asked: Asked, given: Given) -> object:
    body = given["body"]
    return await _changed(of, asked, given, Toggle(given["name"], body.active, body.cascade))


async def _reload(of: Operations, asked: Asked, given: Given) -> object:
    return await _changed(of, asked, given, Reload(given["name"]))


async def _undo(of: Operations, asked: Asked, given: Given) -> object:
    return await _changed(of, asked, given, Undo(given["id"]))


async def _restore(of: Operations, asked: Asked, given: Given) -> object:
    return await _changed(of, asked, given, Restore(given["name"]))


async def _change(of: Operations, asked: Asked, given: Given) -> object:
    return await _changed(of, asked, given, given["body"])


async def _changes(of: Operations, _: Asked, __: Given) -> object:
    return of.changes()


async def _backup(of: Operations, _: Asked, __: Given) -> object:
    return await of.backup()


async def _run(of: Operations, _: Asked, given: Given) -> object:
    body: CommandBody = given["body"]
    return await of.run(given["name"], body.args, body.kwargs, body.words)


# -- configurations


async def _config(of: Operations, asked: Asked, given: Given) -> object:
    view = of.config(given["name"], _unescaped(given.get("path", ())))
    if asked.headers.get("if-none-match") == view.etag:
        return Answer(status=304, headers={"etag": view.etag})
    return Answer.of(view.value, headers={"etag": view.etag})


async def _configured(of: Operations, asked: Asked, given: Given, how: Any) -> object:
    etag = asked.headers.get("if-match")
    if how == "put" and etag is None:
        raise AdminError(
            428,
            "a configuration is replaced only with the version that it is based on",
            plugin=given["name"],
            remedy="Send the `ETag` that you read as `If-Match`, or `If-Match: *`.",
        )
    intent = Configure(
        given["name"],
        _unescaped(given.get("path", ())),
        how,
        given.get("body"),
        etag,
        given["reload"],
    )
    answer = await _changed(of, asked, given, intent)
    answer.headers["etag"] = of.config(given["name"]).etag
    return answer


async def _put(of: Operations, asked: Asked, given: Given) -> object:
    return await _configured(of, asked, given, "put")


async def _patch(of: Operations, asked: Asked, given: Given) -> object:
    return await _configured(of, asked, given, "patch")


async def _delete(of: Operations, asked: Asked, given: Given) -> object:
    return await _configured(of, asked, given, "delete")


def _unescaped(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the steps of a path; a slash in a step may be written `~1`, as in JSON Pointer."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in path)


def _configuring(path: str, suffix: str, where: str) -> tuple[Endpoint, ...]:
    common: dict[str, Any] = {"path": path, "conditional": "optional", "refusals": _REFUSALS}
    changing: dict[str, Any] = {
        **common, "role": "operate", "plans": True, "parameters": (_RELOAD,), "answer": Change,
    }  # fmt: skip
    return (
        Endpoint(
            method="GET",
            path=path,
            name=f"config{suffix}",
            handler=_config,
            answer=Any,
            doc=f"The configuration{where}, with defaults and without secrets.",
            versioned=True,
            refusals=(404, 409),
        ),
        Endpoint(
            method="PUT",
            name=f"put_config{suffix}",
            handler=_put,
            doc=f"Replace the configuration{where}.",
            body=Any,
            body_required=True,
            **{**changing, "conditional": "required"},
        ),
        Endpoint(
            method="PATCH",
            name=f"patch_config{suffix}",
            handler=_patch,
            doc=f"Merge into the configuration{where}.",
            body=Any,
            body_required=True,
            **changing,
        ),
        Endpoint(
            method="DELETE",
            name=f"delete_config{suffix}",
            handler=_delete,
            doc=f"Let the defaults hold{where}.",
            **changing,
        ),
    )


def _operating(**given: Any) -> Endpoint:
    return Endpoint(**{"role": "operate", "answer": Change, "refusals": _REFUSALS, **given})


CHANGING: Final = (
    _operating(
        method="POST",
        path="plugins",
        name="load",
        handler=_load,
        doc="Load a plugin.",
        body=LoadBody,
        body_required=True,
        plans=True,
        refusals=(403, *_REFUSALS),
    ),
    _operating(
        method="POST",
        path="plugins/{name}/unload",
        name="unload",
        handler=_unload,
        doc="Unload a plugin; it stays unloaded over a restart.",
        body=UnloadBody,
        plans=True,
    ),
    _operating(
        method="POST",
        path="plugins/{name}/toggle",
        name="toggle",
        handler=_toggle,
        doc="Switch a plugin on or off; that lasts over a restart.",
        body=ToggleBody,
        plans=True,
    ),
    _operating(
        method="POST",
        path="plugins/{name}/reload",
        name="reload",
        handler=_reload,
        doc="Replace a plugin by what its files hold now.",
        plans=True,
    ),
    *_configuring("plugins/{name}/config", "", ""),
    *_configuring("plugins/{name}/config/{path:path}", "_at", " at a path"),
    _operating(
        method="POST",
        path="commands/{name}",
        name="run",
        handler=_run,
        answer=CommandAnswer,
        doc="Run a plugin's command; what it does cannot be undone.",
        body=CommandBody,
    ),
    _operating(
        method="POST",
        path="backups",
        name="backup",
        handler=_backup,
        answer=BackupRow,
        doc="Make a backup.",
        status=201,
        refusals=(409,),
    ),
    _operating(
        method="POST",
        path="backups/{name}/restore",
        name="restore",
        handler=_restore,
        doc="Restore a backup; a backup of what is now is made before.",
        plans=True,
    ),
    Endpoint(
        method="GET",
        path="changes",
        name="changes",
        handler=_changes,
        answer=tuple[Change, ...],
        doc="The changes that were done, the newest first.",
    ),
    _operating(
        method="POST",
        path="changes",
        name="change",
        handler=_change,
        doc="Do a change that is given as data.",
        body=Intent,
        body_required=True,
        plans=True,
    ),
    _operating(
        method="POST",
        path="changes/{id}/undo",
        name="undo",
        handler=_undo,
        doc="Take a change back.",
        plans=True,
    ),
)
