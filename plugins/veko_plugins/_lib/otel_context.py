"""OpenTelemetry's runtime context for traces of ours: what `OTEL_PYTHON_CONTEXT=veko` loads.

It is OpenTelemetry's own, whose variable may also hold a place in a trace (`tracing._context`),
which becomes a context when somebody asks. It is loaded while `opentelemetry.context` is being
imported, so it may import nothing that needs that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, ClassVar

from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

__all__ = ["VekoContext"]


class VekoContext(ContextVarsRuntimeContext):
    """OpenTelemetry's runtime context over the same variable, for places of ours too.

    Args:
        variable: The variable of the runtime context that this one takes the place of.
    """

    resolve: ClassVar[Callable[[Any], Context]] = Context
    """Makes a context of a position in a trace; tracing sets it when it is installed."""

    def __init__(self, variable: ContextVar[Any] | None = None) -> None:
        super().__init__()
        if variable is not None:
            self._current_context = variable

    def get_current(self) -> Context:
        """Return the current context."""
        held: Any = self._current_context.get()
        if held.__class__ is Context:
            return held
        return VekoContext.resolve(held)

    def detach(self, token: Token[Context]) -> None:
        """Put back what was there before.

        Where that belongs to another task, as after an async generator that was closed elsewhere,
        there is nothing to put back; OpenTelemetry's own would log an error.
        """
        try:
            self._current_context.reset(token)
        except ValueError:
            pass
