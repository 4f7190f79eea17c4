"""One application on each HTTP adapter: ``python examples/swap_adapter.py [NAME ...]``.

The names are litestar, starlette and asgi. There are three plugins: one has routes, one guards
them, one counts the answers. None of them knows which framework it runs on.
"""

import asyncio
import sys

import httpx

from veko_plugins import Context, PluginManager, Request, Response

ADAPTERS = ("litestar", "starlette", "asgi")
notes: list[str] = []


def notebook(context: Context) -> None:
    async def add(data: dict[str, str]) -> Response:
        notes.append(data["text"])
        return Response({"id": len(notes)}, 201)

    async def read(number: int) -> dict[str, str]:
        return {"text": notes[number - 1]}

    context.add_route("POST", "/notes", add)
    context.add_route("GET", "/notes/{number:int}", read)


def guard(context: Context) -> None:
    async def check(request: Request) -> Response | None:
        if request.method == "POST" and request.headers.get("x-key") != "open":
            return Response({"detail": "the x-key header is missing or wrong"}, 401)
        return None

    context.hook("request:start", check)


def counter(context: Context) -> None:
    counts: dict[int, int] = {}

    def count(response: Response) -> None:
        counts[response.status] = counts.get(response.status, 0) + 1

    context.hook("response:end", count)
    context.add_route("GET", "/counts", lambda: {str(k): n for k, n in sorted(counts.items())})


async def answers(adapter: str) -> None:
    print(f"-- {adapter}")
    notes.clear()
    async with PluginManager(adapter=adapter, storage="none", auto_load=False) as manager:
        for name, load in (("notebook", notebook), ("guard", guard), ("counter", counter)):
            await manager.load_plugin(manager.create_simple_plugin(name, load))
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            note, key = {"text": "buy bread"}, {"x-key": "open"}
            for response in (
                await client.post("/notes", json=note),
                await client.post("/notes", json=note, headers=key),
                await client.get("/notes/1"),
                await client.get("/notes/one"),
                await client.get("/counts"),
            ):
                request = response.request
                print(request.method, request.url.path, response.status_code, response.text)


async def main(adapters: list[str]) -> None:
    for adapter in adapters or ADAPTERS:
        await answers(adapter)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
