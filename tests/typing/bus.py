"""What a type checker makes of the kernel's interface. Checked, never run."""

from typing import assert_type

from veko import Bus, Context, Event, Kernel, Plugin, PluginRecord, Stop, Subscription
from veko.extend import Registry


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
    await emit(1)


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
