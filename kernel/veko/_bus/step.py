"""A step: one handler in a plan, as the plan calls it."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import HookError
from .events import Event, Stop
from .handles import Handle, Subscription
from .probes import Snippet, enclosed
from .signature import is_async, may_suspend

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
        takes_one: Whether that is one, as it mostly is.
        limit: Seconds that it may take; `None` for any, or if it cannot suspend.
        late: Whether its answer counts if it returned in spite of its limit. Not at an event that
            fails closed: a guard that swallows its cancellation has let nobody in.
        observes: Whether what it answers is ignored.
        plain: The type that a `def` last returned and that is neither a handle nor a coroutine:
            asking the abstract class each time would cost more than the call.
        seen: The type that it last returned: generated code compares it instead of calling `check`.
    """

    __slots__ = (
        "_declared", "_event", "_payload", "arity", "call", "inner", "is_async", "late", "limit",
        "observes", "plain", "seen", "snippets", "subscription", "takes_one",
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
        self.takes_one = self.arity == 1
        self.call = enclosed(inner, snippets, self.arity) if snippets else inner
        self.late = declared is None or not declared.fails_closed
        self.observes = subscription.observes
        # What cannot suspend ends in its first step, and no limit can stop that.
        self.limit = subscription.timeout if self.is_async and may_suspend(inner) else None
        self.plain: type = type(None)
        self.seen: type = type(None)

    def returned_handle(self, answer: Any) -> bool:
        """Tell whether a plain def returned a handle, which counts as `None`.

        Raises:
            HookError: It returned a coroutine, which nobody will await.
        """
        if self.is_async:
            return False
        if isinstance(answer, Coroutine):
            answer.close()
            raise HookError(
                f"{self.subscription.label} is a plain def and returned a coroutine",
                event=self._event,
                remedy="Write it as async def: what a def returns is never awaited.",
            )
        if isinstance(answer, Handle):
            return True
        self.plain = answer.__class__
        return False

    def forget_types(self, module: str, staying: set[type]) -> None:
        """Forget the types that were last returned if they are of a module or below it.

        Args:
            module: The module, or the package.
            staying: Types that are not; others are added, so each is looked at once.
        """
        inside = f"{module}."
        for one in (self.plain, self.seen):
            if not f"{one.__module__}.".startswith(inside):
                staying.add(one)
        if self.plain not in staying:
            self.plain = type(None)
        if self.seen not in staying:
            self.seen = type(None)

    def check(self, answer: Any, value: Any) -> Any:
        """Return the value of an emission after an answer that is not `None`.

        Raises:
            HookError: It is of a type that the event does not take, or a coroutine.
            Stop: It is of a type that ends the chain.
        """
        if self.returned_handle(answer) or self.observes:
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
