"""A step: one handler in a plan, as the plan calls it."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import HookError
from .events import Event, Stop
from .handles import Handle, Subscription
from .limits import limited
from .probes import Snippet, enclosed
from .signature import is_async

__all__ = ["Step"]


class Step:
    """One handler in a plan.

    Args:
        event: The event's name.
        declared: The event's declaration, if it has one.
        subscription: The handler's subscription.
        inner: The handler as its interceptors have wrapped it.
        snippets: What probes put around that.

    Attributes:
        subscription: As given.
        inner: As given.
        snippets: As given.
        call: `inner` and `snippets` in one function.
        is_async: Whether `call` gives a coroutine.
        arity: How many arguments the handler gets; `None` for all.
        limit: Seconds that it may take, or `None`.
        late: Whether its answer counts if it returned in spite of its limit. Not at an event that
            fails closed: a guard that swallows its cancellation has let nobody in.
        observes: Whether what it answers is ignored.
        seen: The type that it last returned: generated code compares it instead of calling `check`.
    """

    __slots__ = (
        "_declared", "_event", "_payload", "arity", "call", "inner", "is_async", "late", "limit",
        "observes", "seen", "snippets", "subscription",
    )  # fmt: skip

    def __init__(
        self,
        event: str,
        declared: Event[Any] | None,
        subscription: Subscription,
        inner: Callable[..., Any],
        snippets: tuple[Snippet, ...],
    ) -> None:
        self._event = event
        self._declared = declared
        self._payload = object if declared is None else _runtime_type(declared.payload)
        self.subscription = subscription
        self.inner = inner
        self.snippets = snippets
        self.is_async = subscription.is_async if inner is subscription.handler else is_async(inner)
        self.arity = subscription.arity
        self.call = enclosed(inner, snippets, self.arity) if snippets else inner
        self.late = declared is None or not declared.fails_closed
        self.observes = subscription.observes
        self.limit = subscription.timeout if self.is_async else None
        self.seen: type = type(None)

    async def run(self, *args: Any) -> Any:
        """Call the handler and return its answer; a handle that a def returned counts as `None`."""
        given = args if self.arity is None else args[: self.arity]
        if not self.is_async:
            answer = self.call(*given)
        elif self.limit is None:
            answer = await self.call(*given)
        else:
            answer = await limited(self.call(*given), self.limit, self.late)
        return None if answer is None or self._is_handle(answer) else answer

    def _is_handle(self, answer: Any) -> bool:
        """Tell whether a plain def returned a handle, which counts as `None`.

        Raises:
            HookError: It returned a coroutine, which nobody will await.
        """
        if not self.is_async and isinstance(answer, Coroutine):
            answer.close()
            raise HookError(
                f"{self.subscription.label} is a plain def and returned a coroutine",
                event=self._event,
                remedy="Write it as async def: what a def returns is never awaited.",
            )
        return not self.is_async and isinstance(answer, Handle)

    def check(self, answer: Any, value: Any) -> Any:
        """Return the value of an emission after an answer that is not `None`.

        Raises:
            HookError: It is of a type that the event does not take, or a coroutine.
            Stop: It is of a type that ends the chain.
        """
        if self._is_handle(answer) or self.observes:
            return value
        event = self._declared
        if event is not None:
            if event.stops is not None and isinstance(answer, event.stops):
                raise Stop(answer)
            if not event.returns:
                self.seen = type(answer)
                return value
            if not isinstance(answer, self._payload):
                raise HookError(
                    f"{self.subscription.label} returned {type(answer).__name__} where the event "
                    f"carries {getattr(event.payload, '__name__', event.payload)}",
                    event=self._event,
                    remedy="Return a value of that type, or None to leave it as it is.",
                )
        self.seen = type(answer)
        return answer


def _runtime_type(payload: Any) -> Any:
    """The part of an annotation that `isinstance` understands; `object` if there is none."""
    origin = getattr(payload, "__origin__", payload)
    if origin is Any or not isinstance(origin, (type, types.UnionType, tuple)):
        return object
    if isinstance(origin, types.UnionType):
        return tuple(_runtime_type(member) for member in origin.__args__)
    return origin
