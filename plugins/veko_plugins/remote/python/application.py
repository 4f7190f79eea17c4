"""The application that a worker is: a kernel with one plugin, and what stands around that.

The worker's own bus passes the plugin's hooks by: the host's bus calls them.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from veko import Context, Kernel, Origin, Plugin, PluginRecord, Subscription

from ...commands import Commands
from ...config import Config
from ...http import Routes

__all__ = ["App", "WorkerKernel", "core_plugins"]

_ADAPTER: Final = "veko_adapters.asgi:ASGIAdapter"
_HOSTS_LIMIT: Final = 86_400.0
"""Seconds that a step may take here: the host has limits of its own."""


class App:
    """What a plugin in a process of its own gets as `app`.

    Attributes:
        name: The name of the application.
        dev_mode: Whether the application is being developed.
        directory: The application's folder.
    """

    name = ""
    dev_mode = False
    directory = "."

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the application has no attribute {name!r} in a process of its own: its object stays "
            "with the host. There are: name, dev_mode, directory.",
            name=name,
            obj=self,
        )


class _Absent(dict[str, str]):
    """Why a context lacks an attribute: what other plugins attach stays with the host."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        near = difflib.get_close_matches(name, [one for one in dir(Context) if one[0] != "_"], n=1)
        return (
            f"a context has no attribute {name!r} in a process of its own: what other plugins "
            "attach to contexts stays with the host. "
            + (f"Did you mean {near[0]!r}?" if near else "Let that plugin provide a service.")
        )


class WorkerKernel(Kernel):
    """A kernel with one plugin, whose dependencies are at the host.

    Args:
        app: What the plugin gets as `app`.
    """

    def __init__(self, app: App) -> None:
        super().__init__(app, timeout=_HOSTS_LIMIT, drain_timeout=_HOSTS_LIMIT)
        self.absent = _Absent()

    def needs(self, record: PluginRecord) -> tuple[str, ...]:
        """Return none: the host has seen to it that they are active."""
        return ()


def core_plugins(
    checks: Config,
    settle_in: Callable[[Any], None],
    failed: Callable[[BaseException, Origin], None],
) -> Iterator[Plugin]:
    """Make the core plugins that a plugin's context needs, in the order of loading.

    Args:
        checks: Checks configurations.
        settle_in: Is called with the plugin's generation before its `load()` runs.
        failed: Is called with what failed outside of the host's calls.
    """
    yield checks
    yield Commands()
    yield Routes(pkgutil.resolve_name(_ADAPTER)())
    yield _Border(settle_in, failed)


class _Border(Plugin):
    """The core plugin that knows which generation is the guest's, and what fails in its tasks."""

    name = "border"
    version = "2.0.0"
    core = True

    def __init__(
        self,
        settle_in: Callable[[Any], None],
        failed: Callable[[BaseException, Origin], None],
    ) -> None:
        self._settle_in = settle_in
        self._failed = failed

    def load(self, context: Context) -> None:
        """Stand between the plugin and the worker's own bus."""
        context.intercept(_silenced)
        context.intercept_step(self._enclose)
        context.hook("error:handle", self._failed, observe=True)

    def _enclose(self, step: str, owner: Any) -> AbstractContextManager[Any]:
        if step == "load()" and not owner.plugin.core:
            self._settle_in(owner)
        return nullcontext()


def _silenced(
    event: str, subscription: Subscription, call: Callable[..., Any]
) -> Callable[..., Any]:
    """Let the worker's bus pass the plugin's hooks by: the host's bus calls them."""
    plugin = getattr(subscription.owner, "plugin", None)
    return call if plugin is None or plugin.core else _nothing


def _nothing(*args: object) -> None:
    """Do nothing, in place of a hook."""
