"""An application whose plugins do real work in many ways; prints what that used, and the report.

Each plugin measures its own processor time; the ledger must come to the same.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httpx
import msgspec

from veko_plugins import PluginManager

spent: dict[str, float] = {}
of_route: dict[str, float] = {}


def burn(name: str, seconds: float, route: str | None = None) -> None:
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        sum(range(100))
    took = time.thread_time() - begin
    spent[name] = spent.get(name, 0.0) + took
    if route is not None:
        of_route[route] = of_route.get(route, 0.0) + took


def hooking(context: Any) -> None:
    async def suspends(seconds: float) -> None:
        burn("hooking", seconds)
        await asyncio.sleep(0)
        burn("hooking", seconds)

    context.hook("work", suspends)
    context.hook("work", lambda seconds: burn("hooking", seconds))


def serving(context: Any) -> None:
    async def on_loop(seconds: float) -> str:
        burn("serving", seconds, "GET /loop")
        return "done"

    def in_thread(seconds: float) -> str:
        burn("serving", seconds, "GET /thread")
        return "done"

    async def around(request: Any, call_next: Any) -> Any:
        burn("serving", 0.01, "GET /loop")
        return await call_next(request)

    context.add_route("GET", "/loop", around, handler=on_loop)
    context.add_route("GET", "/thread", in_thread)


def around(context: Any) -> None:
    async def through(request: Any, call_next: Any) -> Any:
        burn("around", 0.01)
        return await call_next(request)

    context.add_middleware(through)


def working(context: Any) -> None:
    async def job() -> None:
        while True:
            burn("working", 0.02)
            await asyncio.sleep(0.01)

    context.spawn(job)


async def main(seconds: float, rounds: int) -> None:
    options: dict[str, Any] = {
        "auto_load": False, "storage": "memory:", "watchdog": 0, "adapter": "asgi",
        "plugins": {"ledger": {"interval": 0.004}},
    }  # fmt: skip
    async with PluginManager(root=sys.argv[1], **options) as manager:
        begin = time.process_time() - manager.use("ledger").report().cpu
        for plugin in (hooking, serving, around, working):
            await manager.load_plugin({"name": plugin.__name__, "version": "1.0.0", "load": plugin})
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            for _ in range(rounds):
                await manager.bus.emit("work", seconds)
                query = {"seconds": str(seconds)}
                (await client.get("/loop", params=query)).raise_for_status()
                (await client.get("/thread", params=query)).raise_for_status()
                burn("host", seconds)
                await asyncio.sleep(0)
        report = manager.use("ledger").report()
        total = time.process_time() - begin
    print(json.dumps({"spent": spent, "routes": of_route, "total": total}))
    print(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[2]), int(sys.argv[3])))
