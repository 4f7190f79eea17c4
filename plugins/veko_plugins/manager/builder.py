"""Plugins that are made in code: by the builder, or from one function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from veko import Context, ManifestError, Plugin, as_plugin
from veko.errors import Fault

from .._lib.versions import did_you_mean
from .._source.outline import FIELDS

__all__ = ["PluginBuilder", "simple_plugin"]

_FUNCTIONS: Final = ("unload", "activate", "deactivate", "export_state", "import_state")


class PluginBuilder:
    """Builds a plugin step by step; each method returns the builder."""

    def __init__(self) -> None:
        self._manifest: dict[str, Any] = {"version": "1.0.0"}
        self._verbs: list[Callable[[Any], object]] = []
        self._load: Callable[..., Any] | None = None

    def name(self, name: str) -> Self:
        """Set the plugin's name."""
        self._manifest["name"] = name
        return self

    def version(self, version: str) -> Self:
        """Set its version; the default is `1.0.0`."""
        self._manifest["version"] = version
        return self

    def description(self, description: str) -> Self:
        """Set its description."""
        self._manifest["description"] = description
        return self

    def author(self, author: str) -> Self:
        """Set its author."""
        self._manifest["author"] = author
        return self

    def depends(self, *dependencies: str | Iterable[str]) -> Self:
        """Add plugins that it needs: names, or lists of names."""
        needs = self._manifest.setdefault("dependencies", [])
        for one in dependencies:
            needs += [one] if isinstance(one, str) else one
        return self

    def config(self, config: dict[str, Any]) -> Self:
        """Set its default configuration."""
        self._manifest["default_config"] = config
        return self

    def required(self, required: bool = True) -> Self:
        """Let the application neither start nor serve without it."""
        self._manifest["required"] = required
        return self

    def route(
        self,
        method: str,
        path: str,
        *handlers: Callable[..., Any],
        sync_to_thread: bool = True,
    ) -> Self:
        """Add a route: middlewares, then the handler; see `context.add_route`."""
        self._verbs.append(
            lambda context: context.add_route(
                method, path, *handlers, sync_to_thread=sync_to_thread
            )
        )
        return self

    def middleware(self, fn: Callable[..., Any], priority: float = 10) -> Self:
        """Add a middleware."""
        self._verbs.append(lambda context: context.add_middleware(fn, priority))
        return self

    def hook(
        self, event: str, fn: Callable[..., Any], priority: float = 10, *, observe: bool = False
    ) -> Self:
        """Add a hook; see `Context.hook`."""
        self._verbs.append(lambda context: context.hook(event, fn, priority, observe=observe))
        return self

    def command(self, name: str, fn: Callable[..., Any], description: str = "") -> Self:
        """Add a command."""
        self._verbs.append(lambda context: context.add_command(name, fn, description))
        return self

    def load(self, fn: Callable[..., Any]) -> Self:
        """Set a function that runs at loading, after what the other methods added."""
        self._load = fn
        return self

    def build(self) -> Plugin:
        """Return the plugin.

        Raises:
            ManifestError: A field is missing or wrong; all faults are listed.
        """
        verbs, given = tuple(self._verbs), self._load
        inner = None if given is None else as_plugin({**self._manifest, "load": given})

        async def load(app: Any, config: Any, context: Context) -> None:
            for verb in verbs:
                verb(context)
            if inner is not None:
                answer = inner.call_life_cycle("load", app, config, context)
                if inspect.isawaitable(answer):
                    await answer

        return as_plugin({**self._manifest, "load": load})


def simple_plugin(name: str, load: Callable[..., Any], **manifest: Any) -> Plugin:
    """Make a plugin from a function; see `PluginManager.create_simple_plugin`.

    Raises:
        ManifestError: The manifest has faults; all are listed.
    """
    unknown = [
        Fault(key, f"is not a field. {did_you_mean(key, FIELDS)}".rstrip())
        for key in manifest
        if key not in FIELDS and key not in _FUNCTIONS
    ]
    if unknown:
        raise ManifestError(
            f"{name} is not valid",
            faults=unknown,
            plugin=name,
            remedy="Fields are those of `veko.Manifest`, beside the functions of the life cycle.",
        )
    return as_plugin({"version": "1.0.0", **manifest, "name": name, "load": load})
