"""Finds the plugins that make a recording fail, by switching them off and on in one application."""

from __future__ import annotations

from collections.abc import Sequence

from veko import DependencyError

from .culprits import Culprits, find_culprits
from .entries import Failure
from .faults import label_of_failure
from .files import Recording, RecordingError
from .replay import Host, Replay
from .values import Unreplayable

__all__ = ["bisect_recording"]


async def bisect_recording(
    host: Host, replay: Replay, recording: Recording, failure: Failure, *, repeat: int = 1
) -> Culprits:
    """Find the plugins that make a recorded failure happen.

    Args:
        host: The manager, with the recorded plugins.
        replay: Replays on it.
        recording: The recording.
        failure: One of its failures.
        repeat: How often a set is tried that does not fail, before it counts as passing.

    Raises:
        SearchError: It does not fail with all plugins, fails without any, or only sometimes.
        RecordingError: Nothing of what led to the failure can be replayed.
    """
    wanted = label_of_failure(failure)
    stimuli = [one for one in replay.stimuli(recording) if one.number < failure.number]
    above = recording.ancestors(failure)
    if above and above[-1] in stimuli:
        stimuli = [*stimuli[: stimuli.index(above[-1])], above[-1]]
    if not stimuli:
        raise RecordingError("nothing came from outside before the failure")
    names = [info.name for info in host.list_plugins() if info.active]

    async def fails(chosen: Sequence[str]) -> bool:
        await _switch(host, names, set(chosen))
        for _ in range(repeat):
            before = len(replay.failures)
            for stimulus in stimuli:
                try:
                    await replay.play(stimulus)
                except Unreplayable:
                    continue
            if wanted in replay.failures[before:]:
                return True
        return False

    try:
        return await find_culprits(names, fails)
    finally:
        await _switch(host, names, set(names))


async def _switch(host: Host, names: Sequence[str], wanted: set[str]) -> None:
    """Leave on only those that are wanted, and those that they need."""
    for name in reversed(names):
        record = host.get_plugin(name)
        if record is not None and record.active and name not in wanted:
            try:
                await host.toggle_plugin(name, False)
            except DependencyError:
                continue  # one that is wanted needs it
    for name in names:
        record = host.get_plugin(name)
        if record is not None and not record.active and name in wanted:
            await _switch_on(host, name, set())


async def _switch_on(host: Host, name: str, under_way: set[str]) -> None:
    """Switch a plugin on, and first those that it needs."""
    record = host.get_plugin(name)
    if record is None or record.active or name in under_way:
        return
    under_way.add(name)
    needs = {one.name: one.dependencies for one in host.list_plugins()}.get(name, ())
    for need in needs:
        await _switch_on(host, need, under_way)
    await host.toggle_plugin(name, True)
