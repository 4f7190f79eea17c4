"""OpenTelemetry's runtime context for our traces, which `OTEL_PYTHON_CONTEXT=veko` loads.

It is OpenTelemetry's own, except that the variable may also hold a position in a trace (see
`tracing/recording/context`), which becomes a context when somebody asks for it.

It stands here and not with tracing because it has a second user: OpenTelemetry loads it by an entry
point while `opentelemetry.context` is being imported, so neither this file nor the packages above
it may import anything that needs `opentelemetry.context`
(test_the_entry_point_of_the_runtime_context).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, ClassVar

from opentelemetry.context.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

__all__ = ["VekoContext"]


class VekoContext(ContextVarsRuntimeContext):
    """OpenTelemetry's runtime context, whose variable may hold positions in our traces.

    Args:
        variable: That of the runtime context which this one replaces; a new one if left out.
    """

    resolve: ClassVar[Callable[[Any], Context]] = Context
    """Makes the context of a position in a trace; tracing sets this when it is installed."""

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
        """Restore the context from before `attach`.

        A token of another task, such as that of an async generator which is closed elsewhere, is
        ignored; OpenTelemetry's own runtime context makes an error in the log of it
        (test_async_generators_leave_no_context_behind).
        """
        try:
            self._current_context.reset(token)
        except ValueError:
            pass
