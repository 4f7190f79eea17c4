"""A manager inside a Litestar application: ``litestar --app examples.mount_in_litestar:app run``.

``python examples/mount_in_litestar.py`` sends requests and prints the answers.
"""

import asyncio

import httpx
from litestar import Litestar, get
from litestar.di import NamedDependency

from veko_adapters.litestar import VekoPlugin
from veko_plugins import Context, PluginManager

manager = PluginManager(storage="none", auto_load=False)


def greetings(context: Context) -> None:
    async def greet(name: str) -> dict[str, str]:
        return {"greeting": f"hello, {name}"}

    context.add_route("GET", "/hello/{name}", greet)


@get("/")
async def home(veko: NamedDependency[PluginManager]) -> dict[str, list[str]]:
    return {"plugins": [plugin.name for plugin in veko.list_plugins()]}


async def load_plugins() -> None:
    await manager.load_plugin(manager.create_simple_plugin("greetings", greetings))


app = Litestar([home], plugins=[VekoPlugin(manager)], on_startup=[load_plugins])


async def main() -> None:
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        for path in ("/", "/hello/world", "/nothing"):
            response = await client.get(path)
            print(path, response.status_code, response.text)


if __name__ == "__main__":
    asyncio.run(main())
