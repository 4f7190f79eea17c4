"""The OpenAPI document: right again after each change, and no work for who never asks."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from openapi_spec_validator import validate

from veko import ConflictError, OptionError
from veko_adapters.litestar import LitestarAdapter
from veko_plugins import PluginManager
from veko_plugins.http import Fragment, OpenAPI, Route


class Counting(LitestarAdapter):
    """The adapter, and whom it has described."""

    def __init__(self) -> None:
        self.described: list[str] = []
        self.broken = ""

    def describe(self, context: Any, routes: Sequence[Route]) -> Fragment:
        self.described.append(context.name)
        if context.name == self.broken:
            raise LookupError("it has no words")
        return super().describe(context, routes)


class Site:
    """A manager, and a client that asks it."""

    def __init__(self, manager: PluginManager, client: httpx.AsyncClient) -> None:
        self.manager = manager
        self.client = client

    async def document(self) -> dict[str, Any]:
        response = await self.client.get("/schema/openapi.json")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        validate(found)  # type: ignore[arg-type]
        return found

    async def paths(self) -> set[str]:
        return set((await self.document())["paths"])

    async def load(self, name: str, load: Callable[[Any], Any], **manifest: Any) -> None:
        await self.manager.load_plugin({"name": name, "version": "1.0", "load": load, **manifest})


@asynccontextmanager
async def serving(root: Path, **options: Any) -> AsyncIterator[Site]:
    async with PluginManager(root=root, **{"auto_load": False, **options}) as manager:
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            yield Site(manager, client)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path) as site:
        yield site


def one(method: str, path: str, handler: Any = None) -> Callable[[Any], None]:
    def load(context: Any) -> None:
        context.add_route(method, path, handler or (lambda: None))

    return load


SHOP = """
name = "shop"
version = "{version}"
description = "Sells"

def load(context):
    context.add_route("GET", "/{path}", lambda: None)
"""


async def test_it_is_right_after_load_reload_toggle_and_unload(tmp_path: Path) -> None:
    source = tmp_path / "plugins" / "shop.py"
    source.parent.mkdir()
    source.write_text(SHOP.format(version="1.0", path="old"))
    async with serving(tmp_path, auto_load=True) as site:
        manager = site.manager
        first = await site.document()
        assert first["tags"] == [{"name": "shop", "description": "Sells (version 1.0)"}]
        assert first["paths"]["/old"]["get"]["tags"] == ["shop"]

        await site.load("blog", one("POST", "/posts"))
        assert await site.paths() == {"/old", "/posts"}

        source.write_text(SHOP.format(version="2.0", path="new"))
        await manager.reload_plugin("shop")
        again = await site.document()
        assert set(again["paths"]) == {"/new", "/posts"}
        assert again["tags"][0]["description"] == "Sells (version 2.0)"

        await manager.toggle_plugin("shop")
        assert await site.paths() == {"/posts"}
        await manager.toggle_plugin("shop")
        assert await site.paths() == {"/new", "/posts"}
        await manager.unload_plugin("blog")
        assert await site.paths() == {"/new"}
        await manager.unload_plugin("shop")
        assert await site.document() == {
            "openapi": "3.1.0",
            "info": {"title": tmp_path.name, "version": "0.0.0"},
            "tags": [],
            "paths": {},
            "components": {},
        }


async def test_nobody_asks_and_nothing_is_described(tmp_path: Path) -> None:
    adapter = Counting()
    async with serving(tmp_path, adapter=adapter) as site:
        await site.load("a", one("GET", "/a"))
        await site.load("b", one("GET", "/b"))
        await site.client.get("/a")
        assert (await site.client.get("/schema")).status_code == 200
        assert adapter.described == []
        await site.document()
        assert adapter.described == ["a", "b"]
        # What changes no route changes no document.
        await site.load("c", lambda context: context.hook("app:stop", lambda app: None))
        await site.document()
        assert adapter.described == ["a", "b"]


async def test_two_who_ask_at_once_wait_for_one_document(tmp_path: Path) -> None:
    adapter = Counting()
    async with serving(tmp_path, adapter=adapter) as site:
        await site.load("a", one("GET", "/a"))
        found = await asyncio.gather(*(site.document() for _ in range(8)))
        assert adapter.described == ["a"]
        assert all(document == found[0] for document in found)


async def test_who_has_it_is_told_that_nothing_changed(site: Site) -> None:
    await site.load("a", one("GET", "/a"))
    url = "/schema/openapi.json"
    etag = (await site.client.get(url)).headers["etag"]
    for value in (etag, f'"other", W/{etag}'):
        same = await site.client.get(url, headers={"if-none-match": value})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    await site.load("b", one("GET", "/b"))
    other = await site.client.get(url, headers={"if-none-match": etag})
    assert other.status_code == 200
    assert other.headers["etag"] != etag


async def test_a_plugin_that_cannot_be_described_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = Counting()
    adapter.broken = "odd"
    async with serving(tmp_path, adapter=adapter) as site:
        await site.load("odd", one("GET", "/odd"))
        await site.load("even", one("GET", "/even"))
        assert await site.paths() == {"/even"}
        assert "plugin odd, whose routes cannot be described: LookupError" in caplog.text
        assert site.manager.error_count("odd") == 0


async def test_equal_names_of_different_things_are_kept_apart(site: Site) -> None:
    def bring(order: Any, path: str) -> Callable[[Any], None]:
        def give() -> Any: ...

        give.__annotations__["return"] = order
        return one("GET", path, give)

    def order(**fields: Any) -> Any:
        return msgspec.defstruct("Order", list(fields.items()))

    await site.load("shop", bring(order(price=float), "/shop"))
    await site.load("depot", bring(order(box=int), "/depot"))
    await site.load("store", bring(order(price=float), "/store"))
    found = await site.document()
    assert set(found["components"]["schemas"]) == {"Order", "depot_Order"}
    for path, name in {"/shop": "Order", "/depot": "depot_Order", "/store": "Order"}.items():
        content = found["paths"][path]["get"]["responses"]["200"]["content"]
        schema = content["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{name}"}
    assert "price" in found["components"]["schemas"]["Order"]["properties"]


async def test_hidden_sockets_and_core_routes_are_left_out(site: Site) -> None:
    def hidden() -> None: ...

    hidden.include_in_schema = False  # type: ignore[attr-defined]

    def load(context: Any) -> None:
        context.add_route("GET", "/hidden", hidden)
        context.add_route("GET", "/shown", lambda: None)
        context.add_route("CONNECT", "/shown", lambda: None)

    await site.load("a", load)
    found = await site.document()
    assert {path: set(item) for path, item in found["paths"].items()} == {"/shown": {"get"}}
    assert site.manager.get_stats().routes == 3
    assert [info.name for info in site.manager.list_plugins()] == ["a"]


async def test_title_and_version_are_the_projects(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "mill"\nversion = "3.2"\ndescription = "Grinds"\n'
    )
    async with serving(tmp_path) as site:
        info = (await site.document())["info"]
        assert info == {"title": "mill", "version": "3.2", "description": "Grinds"}
        assert "<title>mill</title>" in (await site.client.get("/schema/")).text
    own = OpenAPI(directory=tmp_path, title="<Own>", api_version="9")
    async with serving(tmp_path, core={"openapi": own}) as site:
        info = (await site.document())["info"]
        assert (info["title"], info["version"]) == ("<Own>", "9")
        assert "<title>&lt;Own&gt;</title>" in (await site.client.get("/schema")).text


async def test_the_page_brings_all_that_it_needs(site: Site) -> None:
    page = await site.client.get("/schema")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for name, kind in {
        "swagger-ui.css": "text/css",
        "swagger-ui-bundle.js": "text/javascript",
        "ui.js": "text/javascript",
    }.items():
        assert f'"/schema/{name}"' in page.text
        found = await site.client.get(f"/schema/{name}")
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(kind)
        assert found.content


async def test_without_swagger_ui_the_page_takes_it_from_a_network_it_can_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko_plugins.http.openapi.plugin.find_files", lambda: None)
    async with serving(tmp_path) as site:
        page = await site.client.get("/schema")
        assert page.text.count("https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.") == 2
        assert page.text.count('integrity="sha384-') == 2
        policy = page.headers["content-security-policy"]
        assert "script-src 'self' https://cdn.jsdelivr.net;" in policy
        assert (await site.client.get("/schema/swagger-ui.css")).status_code == 404


async def test_the_path_is_an_option(tmp_path: Path) -> None:
    async with serving(tmp_path, openapi="/docs/api/") as site:
        assert (await site.client.get("/docs/api")).status_code == 200
        assert (await site.client.get("/docs/api/openapi.json")).json()["paths"] == {}
        assert (await site.client.get("/schema")).status_code == 404
    for off in (None, ""):
        async with serving(tmp_path, openapi=off) as site:
            assert (await site.client.get("/schema")).status_code == 404
    async with serving(tmp_path, adapter=None):
        pass
    for bad in ("schema", "/{name}", "/a//b"):
        with pytest.raises(OptionError, match="openapi"):
            await PluginManager(root=tmp_path, openapi=bad).start()


async def test_a_plugin_that_wants_the_path_is_told_of_the_option(site: Site) -> None:
    with pytest.raises(ConflictError, match="option `openapi`"):
        await site.load("a", one("GET", "/schema"))
    await site.manager.kernel.unload("openapi")
    await site.load("a", one("GET", "/schema", lambda: "mine"))
    assert (await site.client.get("/schema")).text == "mine"


async def test_mounted_it_tells_where(site: Site) -> None:
    await site.load("a", one("GET", "/a"))
    transport = httpx.ASGITransport(site.manager.asgi, root_path="/below")
    async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
        found = (await client.get("/below/schema/openapi.json")).json()
        assert found["servers"] == [{"url": "/below"}]
        assert set(found["paths"]) == {"/a"}
        validate(found)
        assert 'src="/below/schema/ui.js"' in (await client.get("/below/schema")).text
    assert "servers" not in await site.document()


async def test_it_keeps_no_plugin_alive(site: Site) -> None:
    class Handler:
        def __call__(self) -> None: ...

    handler = Handler()
    gone = weakref.ref(handler)
    await site.load("a", one("GET", "/a", handler))
    await site.document()
    await site.manager.unload_plugin("a")
    del handler
    gc.collect()
    assert gone() is None


async def test_hooks_have_a_say_in_it(site: Site) -> None:
    def move(route: Route) -> Route | None:
        return msgspec.structs.replace(route, path=f"/v1{route.path}") if route.plugin else None

    await site.load("a", one("GET", "/a"))
    await site.load("mover", lambda context: context.hook("route:create", move))
    # The page itself moves with the rest.
    found = (await site.client.get("/v1/schema/openapi.json")).json()
    assert set(found["paths"]) == {"/v1/a"}
