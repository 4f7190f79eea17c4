"""Steps of the life cycle as spans: operations on a plugin, and calls of its functions."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from .recorder import Recorder
from .records import Unsampled
from .sites import step_site

__all__ = ["STEP", "StepSpan"]

STEP = "step"
"""The name of steps in the option `events`."""


class StepSpan:
    """The span of one step, as a context manager; see `Bus.intercept_step`.

    Args:
        recorder: The recorder that writes the span down.
        ratio: The share of traces beginning here that is recorded.
        step: The name of the step.
        plugin: The record or the generation of the plugin.
    """

    def __init__(self, recorder: Recorder, ratio: float, step: str, plugin: Any) -> None:
        self._recorder = recorder
        self._ratio = ratio
        self._step = step
        self._plugin = plugin
        self._outer: Any = None
        self._record: Any = None

    def __enter__(self) -> Self:
        variable = self._recorder.variable
        self._outer = variable.get()
        site = step_site(self._step, self._plugin)
        self._plugin = None  # a span must not keep a plugin's code alive
        self._record = self._recorder.begin(self._outer, site, self._ratio)
        skipped = isinstance(self._record, Unsampled)
        variable.set(self._record if skipped else (self._record, None))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(self._record, Unsampled):
            self._recorder.variable.set(self._outer)
        else:
            self._recorder.ended(self._record, self._outer, error)
