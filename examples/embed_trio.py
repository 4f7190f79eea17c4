"""Using only the kernel, in a trio program: ``python examples/embed_trio.py`` (needs trio)."""

import trio

from veko import Context, Kernel, Plugin


class Shout(Plugin):
    name = "shout"
    version = "1.0.0"

    def load(self, context: Context) -> None:
        context.hook("greeting", self.louder, priority=5)

    async def louder(self, text: str) -> str:
        await trio.sleep(0.01)  # for example, query a database
        return text.upper()


async def main() -> None:
    async with Kernel() as kernel:
        kernel.bus.on("greeting", lambda text: f"{text}, world")
        print(await kernel.bus.emit("greeting", "hello"))

        await kernel.load(Shout)
        print(await kernel.bus.emit("greeting", "hello"))

        await kernel.toggle("shout", active=False)
        print(await kernel.bus.emit("greeting", "hello"))


if __name__ == "__main__":
    trio.run(main)
