"""Handles: what every registration returns, to be awaited, cancelled or ignored."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, Final, Self

import anyio

from ..errors import HookError, HookTimeout, TransactionError, VekoError
from .arguments import check_seconds
from .limits import Expired
from .owners import Owner, name_of
from .signature import is_async, required_arguments

__all__ = ["STAGING", "Handle", "Subscription", "staging"]

STAGING: Final[ContextVar[weakref.ref[Any] | None]] = ContextVar("veko_staging", default=None)
"""The transaction whose registrations are made or accepted in this context.

Weakly: a timer or task that is made meanwhile keeps a copy of the context for as long as it lives.
"""


def staging() -> object:
    """Return the transaction whose registrations are made or accepted here, or `None`."""
    reference = STAGING.get()
    return None if reference is None else reference()


class Handle:
    """A registration. Awaiting it waits until it is live, and raises the error that refused it.

    Args:
        undo: Removes the registration; called at most once.
        transaction: What it is part of while that is not decided; `None` if it is live already.
    """

    __slots__ = ("__weakref__", "_decided", "_error", "_transaction", "_undo")

    def __init__(self, undo: Callable[[], object] | None, transaction: object = None) -> None:
        self._undo = undo
        self._transaction = transaction
        self._decided: anyio.Event | None = None
        self._error: BaseException | None = None

    def cancel(self) -> None:
        """Remove the registration; the second time nothing happens.

        What has to be accepted by others (a route, a middleware) is removed a little later if one
        of them waits for something.
        """
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()
        if self._transaction is not None:
            self.settle(TransactionError("it was cancelled before it was live"))

    def undo_by(self, undo: Callable[[], object]) -> None:
        """Set what `cancel` calls to remove the registration."""
        self._undo = undo

    def wait_for(self, transaction: object) -> None:
        """Make awaiting it wait until a transaction is decided."""
        self._transaction = transaction

    @property
    def pending(self) -> bool:
        """Whether it is not decided yet."""
        return self._transaction is not None

    def settle(self, error: BaseException | None = None) -> None:
        """Decide it: the registration is live, or was refused with an error.

        For kinds and for what runs transactions.
        """
        self._transaction = None
        self._error = error
        if error is not None:
            self._undo = None
        if self._decided is not None:
            self._decided.set()

    async def _wait(self) -> Self:
        if self._transaction is not None:
            if staging() is self._transaction:
                raise TransactionError(
                    "awaiting this inside load() would wait for itself",
                    remedy="It goes live after load() has returned; await it then, or not at all.",
                )
            if self._decided is None:
                self._decided = anyio.Event()
            await self._decided.wait()
        if self._error is not None:
            raise self._error
        return self

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._wait().__await__()


_NUMBERS: Final = (float, int)
"""The usual types of a time limit, compared exactly: a bool is an int, and is refused."""


class Subscription(Handle):
    """A handler on an event or a pattern.

    Attributes:
        event: The event's name or the pattern.
        handler: The function.
        priority: The higher runs first.
        owner: Its owner: anything with a `name`, a string, or `None`.
        timeout: Seconds that an async handler may take, or `None`.
        observes: Whether the handler only looks: what it returns is ignored, its failure ends no
            emission, and nothing has to be accepted again because of it.
        is_async: Whether calling it gives a coroutine; settled here, once.
        arity: How many arguments it gets; `None` for all.
    """

    __slots__ = (
        "arity", "event", "handler", "is_async", "observes", "owner", "priority", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        event: str,
        handler: Callable[..., Any],
        *,
        priority: float = 10,
        owner: Owner | str | None = None,
        timeout: float | None = None,
        observe: bool = False,
    ) -> None:
        super().__init__(None)
        if not callable(handler):
            raise VekoError(
                f"{handler!r} is not callable",
                event=event,
                remedy="Give a function, def or async def.",
            )
        if timeout is not None and not (type(timeout) in _NUMBERS and timeout > 0):
            check_seconds("timeout", timeout)
        self.event = event
        self.handler = handler
        self.priority = priority
        self.owner: Any = owner  # readers know which type of owner subscribes there
        self.timeout = timeout
        self.observes = observe
        self.is_async = is_async(handler)
        try:
            self.arity = required_arguments(handler)
        except TypeError as error:
            raise VekoError(
                f"{self.label} cannot be a handler: {error}",
                event=event,
                remedy="Handlers get positional arguments only; give it a default.",
            ) from error

    @property
    def label(self) -> str:
        """The handler's name, after that of its owner or module, as messages show it."""
        function: Any = self.handler
        while isinstance(function, functools.partial):
            function = function.func
        owner = getattr(self.owner, "name", None)
        where = owner or getattr(function, "__module__", None) or type(function).__module__
        return f"{where}.{getattr(function, '__qualname__', type(function).__qualname__)}"

    def fault(self, error: BaseException, event: str) -> Exception:
        """Return the error as which a failure of the handler is reported.

        Args:
            error: What the handler raised.
            event: The event that was being emitted.
        """
        owner = name_of(self.owner)
        if isinstance(error, Expired):
            return HookTimeout(
                f"{self.label} did not end within {self.timeout} s and was cancelled",
                plugin=owner,
                event=event,
                remedy="Move long work to a task (context.spawn), or give it a higher timeout.",
            )
        if isinstance(error, Exception):
            note = f"in the handler {self.label} of {owner or 'the host'} on {event!r}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            return error
        fault = HookError(
            f"{self.label} raised {type(error).__name__}",
            plugin=owner,
            event=event,
            remedy="A handler may fail, but it may not end the application.",
        )
        fault.__cause__ = error
        return fault

    def __repr__(self) -> str:
        owner = name_of(self.owner) or "the host"
        return f"<Subscription {self.event} -> {self.label} of {owner}, priority {self.priority}>"
