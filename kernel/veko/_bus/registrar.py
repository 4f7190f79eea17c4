"""The registrar: the verbs that whatever registers on the bus shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..errors import VekoError
from .arguments import check_callable
from .events import Event, is_pattern
from .handles import Handle, Subscription
from .owners import Owner
from .probes import Probe
from .registry import EVENT, HOOK, INTERCEPTOR, PATTERN, PROBE, STEP

__all__ = ["Registrar", "hook_kind"]


class Registrar(ABC):
    """Registers on a bus. The bus itself is one; what registers for an owner is another."""

    @abstractmethod
    def register(self, kind: str, key: Hashable, value: object, *, priority: float = 0) -> Handle:
        """Register an entry of any kind.

        Args:
            kind: The kind's name.
            key: What it is found by.
            value: What is registered.
            priority: The higher comes first among entries of one key.

        Returns:
            A handle: awaiting it waits until the entry is live, `cancel()` removes it.
        """

    def declare(self, event: Event[Any]) -> Handle:
        """Declare an event: its payload is checked from now on.

        Raises:
            ConflictError: An event of that name is declared otherwise.
        """
        if not isinstance(event, Event):
            raise VekoError(
                f"{event!r} is not an event", remedy="Pass an Event: declare(Event('name'))."
            )
        return self.register(EVENT, event.name, event)

    def intercept(
        self, wrap: Callable[[str, Subscription, Callable[..., Any]], Callable[..., Any]]
    ) -> Handle:
        """Wrap handlers: `wrap(event, subscription, call)` returns what is called instead.

        It runs once per handler when a plan is made, so it costs nothing where it returns `call`.
        An async wrapper of a sync handler is fine. The first interceptor is the outermost.
        """
        check_callable("wrap", wrap)
        return self.register(INTERCEPTOR, INTERCEPTOR, wrap)

    def probe(self, make: Callable[[str, Sequence[Subscription]], Probe | None]) -> Handle:
        """Put lines of code around handlers and emissions: `make(event, subscriptions)`.

        For what must cost next to nothing per call, as tracing and metrics: see `Probe`. `make`
        runs when a plan is made; the lines stand around what interceptors made of the handlers.
        The first probe is the outermost.
        """
        check_callable("make", make)
        return self.register(PROBE, PROBE, make)

    def intercept_step(
        self, enclose: Callable[[str, Owner], AbstractContextManager[Any]]
    ) -> Handle:
        """Wrap steps: `with enclose(step, owner)`.

        A step is a piece of work on an owner that runs inside `with bus.step(name, owner)`. The
        life cycle runs each of its operations as one (`load`, `unload`, `toggle`, `reload`,
        `configure`), and within it each call of a function of the owner (`load()`, `activate()`).
        """
        check_callable("enclose", enclose)
        return self.register(STEP, STEP, enclose)


def hook_kind(event: str) -> str:
    """Return the kind of a subscription's entry.

    Raises:
        VekoError: It is not the name of an event, or a pattern.
    """
    return PATTERN if is_pattern(event) else HOOK
