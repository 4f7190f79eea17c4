"""From a recorded failure to the least that reproduces it.

Tried are, in this order: loading the plugins; what came from outside and led to the failure; the
emission in which it happened; everything that was recorded before it, of which then only what is
needed is kept. Each try has a fresh application, so what reproduces once does so again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec

from .culprits import find_culprits
from .entries import Emission, Failure, Step, Stimulus
from .faults import label_of_failure
from .files import Recording, RecordingError
from .replay import Replay, label_of
from .setup import Hosted
from .values import Unreplayable

__all__ = ["Hosting", "Reproduction", "reproduce"]

Hosting = Callable[[Sequence[str] | None], AbstractAsyncContextManager[tuple[Replay, Hosted]]]
"""Gives a fresh application with some of the recorded plugins, or all."""
_MOST: Final = 60
"""Applications that are started to find out what is needed."""


class Reproduction(msgspec.Struct, frozen=True):
    """What reproduces a failure.

    Attributes:
        failure: The failure.
        stimuli: What has to come, in order; nothing if loading is enough.
        plugins: The plugins that are needed.
        verified: Whether it was seen to fail.
        why_not: Why it did not.
    """

    failure: Failure
    stimuli: list[Stimulus]
    plugins: list[str]
    verified: bool
    why_not: list[str] = []


async def reproduce(recording: Recording, failure: Failure, hosting: Hosting) -> Reproduction:
    """Find what reproduces a failure.

    Args:
        recording: The recording.
        failure: One of its failures.
        hosting: Gives a fresh application.
    """
    wanted, notes = label_of_failure(failure), dict[str, None]()
    above = recording.ancestors(failure)
    took = (failure.at - above[-1].at) / 1e9 if above else 0.0
    names = [one.name for one in recording.plugins]
    alone = [failure.plugin] if failure.plugin in names else names

    by_loading: list[bool] = []

    async def fails(stimuli: Sequence[Stimulus], plugins: Sequence[str] | None) -> bool:
        async with hosting(plugins) as (replay, hosted):
            for name, why in hosted.missing.items():
                if plugins is None or len(plugins) == len(names):
                    notes[f"the plugin {name} is not here: {why}"] = None
            if wanted in replay.failures:  # loading was enough
                by_loading.append(True)
                return True
            if not stimuli:
                await replay.settle([wanted], seconds=took)
            for stimulus in stimuli:
                awaited = [wanted] if stimulus is stimuli[-1] else []
                try:
                    await replay.play(stimulus, awaited, took)
                except Unreplayable as error:
                    notes[f"{label_of(stimulus)}: {error}"] = None
            return wanted in replay.failures

    for plugins in dict.fromkeys((tuple(alone), tuple(names))):
        for stimuli in _candidates(recording, failure):
            if await fails(stimuli, plugins):
                needed_stimuli = [] if by_loading else list(stimuli)
                return Reproduction(failure, needed_stimuli, list(plugins), verified=True)
    before = [one for one in recording.stimuli if one.number < failure.number]
    if not await fails(before, names):
        return Reproduction(failure, before, names, verified=False, why_not=list(notes))
    by_name = {str(one.number): one for one in before}

    async def needed(chosen: Sequence[str]) -> bool:
        return await fails([by_name[name] for name in chosen], names)

    try:
        found = await find_culprits(list(by_name), needed, most=_MOST, known=True)
    except RecordingError:  # it takes too long: everything is replayed
        return Reproduction(failure, before, names, verified=True)
    return Reproduction(failure, [by_name[one] for one in found.names], names, verified=True)


def _candidates(recording: Recording, failure: Failure) -> list[list[Stimulus]]:
    above = recording.ancestors(failure)
    if not above:  # of a step, or of the end of the application
        plugin = failure.plugin or ""
        steps: list[Stimulus] = [
            one
            for one in recording.entries
            if isinstance(one, Step) and one.plugin == plugin and one.number < failure.number
        ]
        last = Step(failure.number, None, failure.at, "unload", plugin)
        return [[], *([step] for step in steps[:-3:-1]), [last]]
    found: list[list[Stimulus]] = []
    root = above[-1]
    if isinstance(root, Stimulus):
        found.append([root])
    else:
        found.append([])  # a task does it by itself
    nearest = next((one for one in above if isinstance(one, Emission)), None)
    if nearest is not None and nearest is not root:
        found.append([nearest])
    return found
