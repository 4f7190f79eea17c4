"""An application for a replay: the recorded plugins, from their files or from others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .._lib.masking import MASK
from .faults import cause_of, fault_label
from .files import Recording
from .replay import Host, Replay

__all__ = ["Hosted", "set_up", "source_of", "without_masks"]


class Hosted(msgspec.Struct):
    """What happened while an application was set up.

    Attributes:
        missing: Plugins that could not be loaded, and why.
    """

    missing: dict[str, str] = {}


def source_of(source: str) -> Path:
    """Return what a plugin is loaded by: of a package, its folder."""
    path = Path(source)
    return path.parent if path.name == "__init__.py" else path


def without_masks(config: Any) -> Any:
    """Return a configuration without the fields whose values were masked."""
    if isinstance(config, dict):
        return {key: without_masks(one) for key, one in config.items() if one != MASK}
    return config


async def set_up(
    host: Host,
    replay: Replay,
    recording: Recording,
    plugins: Collection[str] | None = None,
    others: Mapping[str, Path] | None = None,
) -> Hosted:
    """Load the recorded plugins in their order, and start the application.

    Args:
        host: The manager, without plugins.
        replay: Takes note of failures.
        recording: The recording.
        plugins: Which of them; `None` for all.
        others: Other files for some of them.
    """
    hosted = Hosted()
    others = others or {}
    for one in recording.plugins:
        if plugins is not None and one.name not in plugins:
            continue
        if one.source is None and one.name not in others:
            hosted.missing[one.name] = "it was made in code, not loaded from a file"
            continue
        path = others[one.name] if one.name in others else source_of(one.source or "")
        if not path.exists():
            hosted.missing[one.name] = f"{path} does not exist"
            continue
        before = len(replay.failures)
        try:
            await host.load_plugin(path, without_masks(one.config) or None)
        except Exception as error:
            hosted.missing[one.name] = str(error)
            if len(replay.failures) == before:
                label = fault_label(one.name, None, type(cause_of(error)).__qualname__)
                replay.failures.append(label)
    for event in ("app:init", "app:start"):
        await host.bus.emit(event, None)
    return hosted
