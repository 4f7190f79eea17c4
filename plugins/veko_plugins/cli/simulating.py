"""`veko test --simulate`: the life of a plugin in many orders of its tasks, on all processors.

Each process has the same hash seed, so a plugin that iterates over a set of strings does so in the
same order when a run is repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import msgspec

from veko.testing import Scenario, SimulationFailure, simulate
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager
from veko_plugins.testing import PluginLife

__all__ = ["Runs", "simulate_plugin"]

_PROCESSES: Final = 8
_AT_ONCE: Final = 50
"""Runs in a row in one process."""
_OPTIONS: Final[dict[str, Any]] = {
    "auto_load": False, "required": (), "watch_mode": False, "max_retries": 0, "watchdog": 0,
    "storage": "memory:", "adapter": "asgi", "otlp": None,
}  # fmt: skip


class Runs(msgspec.Struct, frozen=True):
    """What runs of a plugin showed.

    Attributes:
        runs: How many there were.
        orders: In how many different orders tasks ran.
        failure: The report of the run that failed.
        seed: What repeats it.
    """

    runs: int
    orders: int
    failure: str | None = None
    seed: str | None = None


class _Work(msgspec.Struct, frozen=True):
    root: Path
    folders: tuple[Path, ...]
    plugin: str | Path
    numbers: range
    seed: str | None


def simulate_plugin(
    root: Path,
    folders: tuple[Path, ...],
    plugin: str | Path,
    *,
    runs: int,
    seed: str | None = None,
) -> Runs:
    """Simulate the life of a plugin.

    Args:
        root: The application's directory.
        folders: Its folders of plugins.
        plugin: The plugin's name or path.
        runs: How many runs.
        seed: Only this run.
    """
    if seed is not None:
        runs = 1
    starts = range(0, runs, _AT_ONCE)
    work = [
        _Work(root, folders, plugin, range(start, min(runs, start + _AT_ONCE)), seed)
        for start in starts
    ]
    processes = min(os.cpu_count() or 1, len(work), _PROCESSES)
    done, orders = 0, 0
    with _hash_seed(), get_context("spawn").Pool(processes) as pool:
        for ran in pool.imap(_run, work):
            done, orders = done + ran.runs, orders + ran.orders
            if ran.failure is not None:
                return Runs(done, orders, ran.failure, ran.seed)
    return Runs(done, orders)


def _run(work: _Work) -> Runs:
    logs = Logging()
    logs.configure("error")

    def manager() -> PluginManager:
        return PluginManager(
            root=work.root, plugins_dir=work.folders, core={"logging": logs}, **_OPTIONS
        )

    scenario: Scenario = PluginLife(manager, work.plugin)
    try:
        # Compiled bytecode and imported modules are there from the second run on; what is in the
        # first one would otherwise depend on which process it is in.
        simulate(scenario, runs=[0])
        ran = simulate(scenario, runs=work.numbers, seed=work.seed)
    except SimulationFailure as failure:
        return Runs(failure.runs, 0, str(failure), failure.seed)
    finally:
        logs.reset()
    return Runs(ran.runs, ran.orders)


@contextmanager
def _hash_seed() -> Iterator[None]:
    """Let processes that are started meanwhile have one hash seed."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0" if before in (None, "random") else str(before)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before
