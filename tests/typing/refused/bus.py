"""What type checkers refuse of the bus. Checked by tests/test_typing.py, never run."""

from veko import Bus, Event

PAID = Event("order:paid", payload=int, returns=True)
NAMED: Event[str | None] = Event("order:named", payload=str | None)


async def emissions(bus: Bus) -> None:
    await bus.emit(PAID, "text")  # refused
    await bus.emit(PAID)  # refused
    await bus.emit(NAMED, 3)  # refused
    await bus.emit(3)  # refused
    await bus.emit("order:paid", 1, strict="yes")  # refused
    await bus.first(PAID, "text")  # refused
    await bus.gather(PAID)  # refused
    paid = bus.emitter(PAID)
    await paid("text")  # refused
    await paid()  # refused
    text: str = await bus.emit(PAID, 1)  # refused
    print(text)


def handlers(bus: Bus) -> None:
    def takes_text(value: str) -> None: ...

    async def takes_text_too(value: str, more: object) -> None: ...

    bus.on(PAID, takes_text)  # refused
    bus.on(PAID, takes_text_too)  # refused
    bus.on("order:paid", 3)  # refused
    bus.on("order:paid", takes_text, owner=3)  # refused
    bus.on("order:paid", takes_text, timeout="5")  # refused
    bus.on("order:paid", takes_text, prioritty=5)  # refused


def declarations(bus: Bus) -> None:
    bus.declare("order:paid")  # refused
    Event(3, payload=int)  # refused
    Event("order:paid", returns="yes")  # refused
