"""Signals: observers, which see every event and change nothing.

The idea: a blinker signal for each event, fed by one subscription on the bus. Observers belong to
the application, not to a plugin: they are held strongly, may be added before the kernel is started,
and outlive a restart. The sender of a signal is the event's first argument, so
`signals["plugin:loaded"].connect(fn, sender="links")` observes one plugin only; a function that is
connected to a signal directly gets `(sender, *, event, args)`.

Cost: nothing for an event without observers; with observers, one subscription and one call each,
one after the other.
Promise: an observer sees every emission, before any hook can stop it, except those about core
plugins, unless it asks for them (`core=True`). What it returns is ignored.
An observer that fails or takes too long is reported, and delays nothing further.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

import anyio
from blinker import Signal

from veko import Bus, HookTimeout, Plugin, PluginRecord, Subscription

from ._lib.calls import call

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Observer", "Signals"]


class _Receiver(Protocol):
    def __call__(self, sender: object, *, event: str, args: tuple[object, ...]) -> object: ...


class Observer:
    """One observer of one event, connected to its signal; `cancel()` may be called twice."""

    __slots__ = ("__weakref__", "_arity", "_cancel", "core", "event", "fn", "label")

    def __init__(
        self,
        event: str,
        fn: Callable[..., object],
        cancel: Callable[[Observer], None],
        core: bool = False,
    ) -> None:
        checked = Subscription(event, fn)
        self.event = event
        self.fn = fn
        self.core = core
        self.label = checked.label
        self._arity = checked.arity
        self._cancel = cancel

    def __call__(
        self, sender: object = None, *, event: str = "", args: tuple[object, ...] | None = None
    ) -> object:
        arguments = (sender,) if args is None else args
        return self.fn(*arguments[: self._arity])

    def cancel(self) -> None:
        """Stop observing."""
        self._cancel(self)

    def __repr__(self) -> str:
        return f"<Observer of {self.event}: {self.label}>"


class Signals(Plugin):
    """The core plugin of observers; the service `signals` is this object.

    Args:
        limit: How long an `async def` observer may take for one emission, in seconds.
    """

    name = "signals"
    version = "2.0.0"
    description = "Observers of every event, as blinker signals"
    core = True

    def __init__(self, *, limit: float = 5.0) -> None:
        self.limit = limit
        self._signals: dict[str, Signal] = {}
        self._observers: dict[str, list[Observer]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._bus: Bus | None = None

    def load(self, context: Context) -> None:
        context.provide("signals", self)

    def activate(self, context: Context) -> None:
        self._attach(context.kernel.bus)

    def deactivate(self) -> None:
        self._detach()

    def on(self, event: str, fn: Callable[..., object], *, core: bool = False) -> Observer:
        """Observe an event. Observing it again with the same function changes nothing.

        Args:
            event: The name of an event, or a pattern (`plugin:*`).
            fn: A `def` or `async def` function. It gets the event's arguments by position, as many
                as it requires, or all of them if it takes `*args`.
            core: Whether it also hears what happens to core plugins: that they were loaded, say.

        Raises:
            VekoError: The name of the event or the function is invalid.
        """
        for observer in self._observers.get(event, ()):
            if observer.fn == fn and observer.core == core:
                return observer
        signal = self[event]
        observer = Observer(event, fn, self._remove, core)
        signal.connect(observer, weak=False)
        self._observers.setdefault(event, []).append(observer)
        return observer

    def off(self, event: str, fn: Callable[..., object]) -> None:
        """Stop observing; does nothing if the function does not observe the event."""
        for observer in list(self._observers.get(event, ())):
            if observer.fn == fn:
                self._remove(observer)

    def __getitem__(self, event: str) -> Signal:
        """Return the signal of an event or pattern, made at first use.

        Raises:
            VekoError: It is neither the name of an event nor a pattern.
        """
        signal = self._signals.get(event)
        if signal is None:
            Bus().on(event, lambda: None)  # raises if the name is invalid
            signal = self._signals[event] = Signal(event)
            signal.receiver_connected.connect(lambda *_, **__: self._subscribe(event), weak=False)
            signal.receiver_disconnected.connect(
                lambda *_, **__: self._unsubscribe(event), weak=False
            )
        return signal

    def _remove(self, observer: Observer) -> None:
        known = self._observers.get(observer.event, [])
        if observer in known:
            known.remove(observer)
            self._signals[observer.event].disconnect(observer)

    def _attach(self, bus: Bus) -> None:
        self._bus = bus
        for event, signal in self._signals.items():
            if signal.receivers:
                self._subscribe(event)

    def _detach(self) -> None:
        self._bus = None
        while self._subscriptions:
            self._subscriptions.popitem()[1].cancel()

    def _subscribe(self, event: str) -> None:
        if self._bus is None or event in self._subscriptions:
            return

        async def relay(*args: object) -> None:
            await self._send(event, args)

        self._subscriptions[event] = self._bus.on(event, relay, priority=math.inf, observe=True)

    def _unsubscribe(self, event: str) -> None:
        if not self._signals[event].receivers and event in self._subscriptions:
            self._subscriptions.pop(event).cancel()

    async def _send(self, event: str, args: tuple[object, ...]) -> None:
        signal = self._signals[event]
        if signal.is_muted:
            return
        sender = args[0] if args else None
        of_core = len(args) > 1 and isinstance(args[1], PluginRecord) and args[1].core
        for receiver in _in_order(signal, sender):
            if of_core and isinstance(receiver, Observer) and not receiver.core:
                continue
            try:
                with anyio.move_on_after(self.limit) as scope:
                    await call(receiver, sender, event=event, args=args)
                if scope.cancelled_caught:
                    raise HookTimeout(
                        f"observer {_label(receiver)} took more than {self.limit:g} s",
                        event=event,
                        remedy="Make the observer return sooner, or start long work in a task.",
                    )
            except (Exception, SystemExit) as error:
                if self._bus is not None:
                    await self._bus.report(error, event=event, handler=_label(receiver))


def _in_order(signal: Signal, sender: object) -> list[_Receiver]:
    """Return the receivers for a sender in the order in which they were connected.

    `Signal.receivers_for` returns them in no order.
    """
    wanted = list(signal.receivers_for(sender))
    held = [held() if isinstance(held, weakref.ref) else held for held in signal.receivers.values()]
    return [cast("_Receiver", receiver) for receiver in held if receiver in wanted]


def _label(receiver: Callable[..., object]) -> str:
    if isinstance(receiver, Observer):
        return receiver.label
    return getattr(receiver, "__qualname__", None) or repr(receiver)
