"""A manager inside a FastAPI application: ``uvicorn --app-dir examples mount_in_fastapi:app``.

``python examples/mount_in_fastapi.py`` sends requests and prints the answers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from veko_plugins import Context, PluginManager

manager = PluginManager(storage="none", auto_load=False)


def greetings(context: Context) -> None:
    async def greet(name: str) -> dict[str, str]:
        return {"greeting": f"hello, {name}"}

    context.add_route("GET", "/hello/{name}", greet)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with manager:
        await manager.load_plugin(manager.create_simple_plugin("greetings", greetings))
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def home() -> dict[str, list[str]]:
    return {"plugins": [plugin.name for plugin in manager.list_plugins()]}


app.mount("/plugins", manager.asgi)


async def main() -> None:
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        for path in ("/", "/plugins/hello/world", "/plugins/nothing"):
            response = await client.get(path)
            print(path, response.status_code, response.text)


if __name__ == "__main__":
    asyncio.run(main())
