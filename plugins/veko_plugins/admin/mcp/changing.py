"""The tools that change something; only the role `operate` gets them.

Each takes `plan: true`, which says what would happen and does nothing. Each change returns an id,
which the tool `undo` takes back.
"""

from __future__ import annotations

from typing import Final

from .arguments import (
    Arguments,
    ChangePlugin,
    LoadPlugin,
    MergeConfig,
    ResetConfig,
    RestoreBackup,
    SetConfig,
    TogglePlugin,
    Undo,
    UnloadPlugin,
    parts_of,
)
from .tools import ADDS, ENDS, SETS, Tool
from .verbs import NOTHING, Failed, Verbs

__all__ = ["CHANGING"]


async def _load(verbs: Verbs, asked: LoadPlugin) -> object:
    body: dict[str, object] = {"plugin": asked.plugin}
    if asked.config is not None:
        body["config"] = asked.config
    return await verbs.ask("POST", "plugins", query=_plan(asked), body=body)


async def _unload(verbs: Verbs, asked: UnloadPlugin) -> object:
    body = {"cascade": asked.cascade}
    return await verbs.ask("POST", "plugins", asked.plugin, "unload", query=_plan(asked), body=body)


async def _toggle(verbs: Verbs, asked: TogglePlugin) -> object:
    body = {"active": asked.active, "cascade": asked.cascade}
    return await verbs.ask("POST", "plugins", asked.plugin, "toggle", query=_plan(asked), body=body)


async def _reload(verbs: Verbs, asked: ChangePlugin) -> object:
    return await verbs.ask("POST", "plugins", asked.plugin, "reload", query=_plan(asked))


async def _set(verbs: Verbs, asked: SetConfig) -> object:
    return await _configure(verbs, "PUT", asked, asked.value)


async def _merge(verbs: Verbs, asked: MergeConfig) -> object:
    return await _configure(verbs, "PATCH", asked, asked.value)


async def _reset(verbs: Verbs, asked: ResetConfig) -> object:
    return await _configure(verbs, "DELETE", asked, None)


async def _configure(
    verbs: Verbs, method: str, asked: SetConfig | MergeConfig | ResetConfig, value: object
) -> object:
    """Change a configuration; without an etag, on what it is now.

    Not that of the management API: another token would lock out the agent, and so its undo.
    """
    if asked.plugin == "admin":
        raise Failed(
            {
                "status": 403,
                "detail": "an agent may not change how the management API lets clients in",
                "remedy": "Change [plugins.admin] in veko.toml, and start again.",
            }
        )
    etag = asked.etag
    if etag is None:
        etag = (await verbs.ask("GET", "plugins", asked.plugin))["config_etag"]
    path = ("plugins", asked.plugin, "config", *parts_of(asked.path))
    body = NOTHING if method == "DELETE" else value
    query = {**_plan(asked), "reload": int(asked.reload)}
    return await verbs.ask(method, *path, query=query, body=body, etag=etag)


async def _undo(verbs: Verbs, asked: Undo) -> object:
    return await verbs.ask("POST", "changes", asked.change, "undo", query=_plan(asked))


async def _back_up(verbs: Verbs, _: Arguments) -> object:
    return await verbs.ask("POST", "backups")


async def _restore(verbs: Verbs, asked: RestoreBackup) -> object:
    return await verbs.ask("POST", "backups", asked.backup, "restore", query=_plan(asked))


def _plan(asked: LoadPlugin | ChangePlugin | Undo | RestoreBackup) -> dict[str, object]:
    return {"plan": int(asked.plan)}


CHANGING: Final = (
    Tool(
        "load_plugin",
        "Load a plugin",
        "Load a plugin by its name, or from a file or folder. If anything fails, nothing happened.",
        LoadPlugin,
        _load,
        ADDS,
    ),
    Tool(
        "unload_plugin",
        "Unload a plugin",
        "Unload a plugin: running calls finish, then its routes, hooks and tasks end. Lasts over "
        "restarts.",
        UnloadPlugin,
        _unload,
        ENDS,
    ),
    Tool(
        "toggle_plugin",
        "Switch a plugin on or off",
        "Switch a plugin off (its routes, hooks and tasks stop, but it stays loaded) or on. The "
        "quickest way to stop a plugin that does harm. Lasts over restarts.",
        TogglePlugin,
        _toggle,
        SETS,
    ),
    Tool(
        "reload_plugin",
        "Reload a plugin",
        "Replace a plugin by the version in its files, without failed requests. If the new "
        "version does not load, the old one keeps running and the error says why.",
        ChangePlugin,
        _reload,
        ENDS,
    ),
    Tool(
        "set_config",
        "Set a configuration",
        "Replace a plugin's configuration, or the part of it at a path. The plugin checks it: "
        "every fault comes back with its path, and nothing changed. Lasts over restarts.",
        SetConfig,
        _set,
        SETS,
    ),
    Tool(
        "merge_config",
        "Change fields of a configuration",
        "Change some fields of a plugin's configuration; the others stay. Otherwise as set_config.",
        MergeConfig,
        _merge,
        SETS,
    ),
    Tool(
        "reset_config",
        "Reset a configuration",
        "Take back what operators set in a plugin's configuration, or in the part at a path: the "
        "settings' own value or the default applies again.",
        ResetConfig,
        _reset,
        SETS,
    ),
    Tool(
        "undo",
        "Undo a change",
        "Take back a change by its id (see list_changes). A change is undone once; undoing an "
        "undo does it again.",
        Undo,
        _undo,
        ENDS,
    ),
    Tool(
        "create_backup",
        "Create a backup",
        "Write a backup of the state and the storage of all plugins.",
        Arguments,
        _back_up,
        ADDS,
    ),
    Tool(
        "restore_backup",
        "Restore a backup",
        "Bring back the state and the storage of all plugins from a backup. Plan it first.",
        RestoreBackup,
        _restore,
        ENDS,
    ),
)
