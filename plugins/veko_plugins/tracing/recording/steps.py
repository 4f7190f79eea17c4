"""Steps of the life cycle as spans: an operation on a plugin, and the calls of its functions."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from .recorder import Recorder
from .records import Unsampled
from .sites import step_site

__all__ = ["STEP", "StepSpan"]

STEP = "step"
"""What sampling by event calls a step."""


class StepSpan:
    """Stands around one step; see `Bus.intercept_step`.

    Args:
        recorder: What writes it down.
        ratio: How much of the traces that begin here is recorded.
        step: What is done.
        plugin: To which plugin: its record or its generation.
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
        held = isinstance(self._record, Unsampled)
        variable.set(self._record if held else (self._record, None))
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
