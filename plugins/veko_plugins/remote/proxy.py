"""The plugin that stands at the host for one whose code runs in a worker.

To the kernel and the manager it is a plugin like any other. Its steps are calls to the worker; what
it exports are functions that call the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from veko import Context, LoadError, Plugin
from veko.errors import Fault

from .._lib.manifests import checked_plugin
from .life import Life
from .protocol import ConnectionLost
from .python.errors import across
from .services import Offered
from .worker import WorkerLost

__all__ = ["RemotePlugin"]

_ALWAYS: Final = ("load", "unload", "activate", "deactivate")
_STATE: Final = ("export_state", "import_state")


class _State:
    """The state of a generation, which its worker is still sending."""

    def __init__(self, answer: Awaitable[Any]) -> None:
        self.answer = asyncio.ensure_future(answer)
        self.answer.add_done_callback(_known)


def _known(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()  # `_hand_over` reports it, if there is a next generation


class RemotePlugin(Plugin):
    """One version of a plugin in a worker.

    Args:
        life: The generation of the worker that has described it.
        described: What the worker said of it.
        fields: The fields of its manifest.
        source: Its file or folder.
        setup: Returns what the worker gets at `load`.
        again: Starts another worker of the same source.
        ended: Is called when a generation has ended.

    Attributes:
        engine_versions: The version of Node that its runtime stands for.
        lives: Its generations that have begun and not ended.

    Raises:
        ManifestError: It is no valid plugin; all faults are listed.
    """

    def __init__(
        self,
        life: Life,
        described: Mapping[str, Any],
        fields: Mapping[str, Any],
        source: Path | None,
        *,
        setup: Callable[[Life, Context, Any], dict[str, Any]],
        again: Callable[[], Awaitable[Life]],
        ended: Callable[[Life], None],
    ) -> None:
        self.lives: list[Life] = [life]
        self.checks_config = described.get("schema") == "type"
        self._life = life
        self._fresh: Life | None = life
        self._by_context: dict[int, Life] = {}
        self._setup = setup
        self._again = again
        self._ended = ended
        self._steps = {*_ALWAYS, *(one for one in _STATE if one in _texts(described, "steps"))}
        constants = described.get("constants")
        self._exports = Offered(
            f"the plugin {life.name}",
            self._call_export,
            _texts(described, "functions"),
            constants if isinstance(constants, Mapping) else {},
        )
        self._peers = described.get("peers")
        node = described.get("node")
        self.engine_versions = {"node": node} if isinstance(node, str) else {}
        vars(self).update(fields)
        checked_plugin(self, source=source, module=self._exports)
        life.manifest = self.manifest

    @property
    def exports(self) -> Any:
        """What other plugins may use of it: data, and functions to be awaited."""
        return self._exports

    @property
    def peer_faults(self) -> list[Fault] | None:
        """The npm packages that it needs and that are missing; `None` if it is no script."""
        if self._life.is_python:
            return None
        peers = self._peers if isinstance(self._peers, Mapping) else {}
        return list(_peer_faults(peers))

    async def _call_export(self, name: str, *args: Any, **named: Any) -> Any:
        life = self._life
        more = [named] if named and life.is_python else []
        return await life.call("plugin_call", name, list(args), *more)

    # -- its steps

    def life_cycle(self, name: str) -> Callable[..., Any] | None:
        """Return the function of a step, if the plugin has it."""
        return getattr(self, f"_{name}") if name in self._steps else None

    async def _load(self, app: Any, config: Any, context: Context) -> None:
        life, self._fresh = self._fresh, None
        if life is None:  # it was loaded before: a generation has a process of its own
            life = await self._again()
            life.manifest = self.manifest
            self.lives.append(life)
        self._life = life
        self._by_context[id(context)] = life
        life.context = context
        await self._step(life, "load", self._setup(life, context, config))

    async def _activate(self, context: Context) -> None:
        await self._step(self._of(context), "activate")

    async def _step(self, life: Life, step: str, *args: Any) -> None:
        try:
            await life.call(step, *args)
            if life.faults:
                raise life.faults[0]
        except WorkerLost as error:
            raise LoadError(
                error.message, step=step, plugin=life.name, path=self.source, remedy=error.remedy
            ) from None

    async def _deactivate(self, context: Context) -> None:
        life = self._of(context)
        if not life.down:
            await life.call("deactivate")

    async def _unload(self, context: Context) -> None:
        life = self._of(context)
        life.live = False
        try:
            if not life.down:
                await life.call("unload")
        except WorkerLost:
            pass
        finally:
            self._by_context.pop(id(context), None)
            self._end(life)

    def _of(self, context: Context) -> Life:
        return self._by_context.get(id(context), self._life)

    def _end(self, life: Life) -> None:
        life.live = False
        life.worker.end()
        if life in self.lives:
            self.lives.remove(life)
            self._ended(life)

    def dispose(self) -> None:
        """End what is left of its workers."""
        for life in tuple(self.lives):
            self._end(life)

    # -- its state

    def _export_state(self) -> object:
        """Ask for the state. The swap does not wait; the next generation's calls do."""
        life = self._life
        return None if life.down else _State(_ask(life, "export_state"))

    def _import_state(self, state: Any, version: str = "") -> None:
        if state is not None:  # else what had it has crashed
            life = self._life
            life.wait_for(self._hand_over(life, state, version))

    async def _hand_over(self, life: Life, state: Any, version: str) -> None:
        try:
            value = await state.answer if isinstance(state, _State) else state
            if value is not None:
                if life.is_python:
                    from .python.kinds import Stored

                    value = Stored("the state", value)
                await _ask(life, "import_state", value, version)
        except Exception as error:
            if life.context is not None:
                bus = life.context.kernel.bus
                await bus.report(error, owner=life.context.plugin, handler="import_state")


async def _ask(life: Life, method: str, *args: Any) -> Any:
    """Call a worker past the gate that holds the other calls back."""
    try:
        return await across(life.worker.connection.call(method, *args))
    except ConnectionLost as error:
        raise life.lost(error) from None


def _texts(described: Mapping[str, Any], key: str) -> list[str]:
    found = described.get(key)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _peer_faults(peers: Mapping[str, Any]) -> Any:
    from .._lib.versions import satisfies, valid_range

    for number, (name, found) in enumerate(peers.items()):
        wanted, here = (*found, None, None)[:2] if isinstance(found, list) else (None, None)
        path = f"peer_dependencies[{number}]"
        text = f"{name}@{wanted}" if wanted else str(name)
        if not isinstance(here, str):
            message = f"{text} is wanted, {name} is not in node_modules (npm install {name})"
            yield Fault(path, message)
        elif wanted and valid_range(wanted) and not satisfies(here, wanted):
            yield Fault(path, f"{text} is wanted, {name} {here} is installed")
