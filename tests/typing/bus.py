"""What a type checker makes of the kernel's interface. Checked, never run."""

from collections.abc import Coroutine
from functools import partial
from typing import Any, assert_type

from veko import Bus, Context, Event, Handle, Kernel, Plugin, PluginRecord, Stop, Subscription
from veko.extend import Registry

PAID = Event("order:paid", payload=int, returns=True, doc="An order was paid. The amount.")
NAMED: Event[str | None] = Event("order:named", payload=str | None)
ANY = Event("order:any", doc="Anything.")
STOPPED = Event("order:stopped", payload=int, stops=str)
NOTHING: Event[None] = Event("order:nothing", payload=None)


class Typed(Plugin):
    name = "typed"
    version = "1.0.0"

    async def load(self, context: Context) -> None:
        context.hook("greeting", self.louder, priority=5)

        @context.hook("greeting")
        def quieter(text: str) -> str:
            return text.lower()

        assert_type(quieter("HELLO"), str)
        assert_type(context.name, str)

    async def louder(self, text: str) -> str:
        if not text:
            raise Stop("nothing")
        return text.upper()


async def bus(bus: Bus) -> None:
    async def handler(value: int) -> int:
        return value + 1

    subscription = bus.on("event", handler, priority=20, timeout=5)
    assert_type(subscription, Subscription)
    subscription.cancel()
    bus.declare(Event("event", payload=int, returns=True, doc="An example."))
    await bus.emit("event", 1, "more", strict=True)
    await bus.first("event", 1)
    for answer in await bus.gather("event", 1):
        print(answer)
    emit = bus.emitter("event")
    assert_type(emit, partial[Coroutine[Any, Any, Any]])
    await emit(1)
    assert_type(await bus.emit("event", 1), Any)


async def declared(bus: Bus) -> None:
    assert_type(PAID, Event[int])
    assert_type(ANY, Event[Any])
    assert_type(STOPPED, Event[Any])  # the emission may return what stops it
    assert_type(bus.declare(PAID), Handle)
    assert_type(await bus.emit(PAID, 1), int)
    assert_type(await bus.emit(PAID, 1, "more", strict=True), int)
    await bus.emit(NAMED, None)
    await bus.emit(NAMED, "name")
    await bus.emit(ANY)
    await bus.emit(NOTHING)
    emit = bus.emitter(PAID)
    assert_type(await emit(1, "more"), int)
    assert_type(await bus.first(PAID, 1), Any)
    assert_type(await bus.gather(PAID, 1), list[Any])
    assert_type(bus.heard(PAID), bool)

    def whole(amount: int, order: object) -> int:
        return amount

    async def shorter(amount: int) -> None: ...
    def shortest() -> None: ...

    for handler in (whole, shorter, shortest):
        assert_type(bus.on("order:paid", handler, owner="shop"), Subscription)
    assert_type(bus.on(PAID, whole, observe=True), Subscription)
    bus.on(PAID, shorter)
    bus.on(PAID, shortest)
    bus.on(PAID, lambda amount: amount + 1)


async def kernel() -> None:
    async with Kernel(timeout=5.0) as kernel:
        record = await kernel.load(Typed, {"volume": 11})
        assert_type(record, PluginRecord)
        assert_type(record.name, str)
        assert_type(kernel.bus, Bus)
        assert_type(kernel.get("typed"), PluginRecord | None)
        assert_type(await kernel.toggle("typed", active=False), bool)
        with kernel.pin() as registry:
            assert_type(registry, Registry)
        await kernel.unload("typed", cascade=True)
