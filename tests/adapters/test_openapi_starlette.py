"""Starlette's and FastAPI's handlers in the OpenAPI document."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pydantic
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute

from veko_plugins import PluginManager


class Order(pydantic.BaseModel):
    price: float


async def described(
    root: Path, load: Callable[[Any], Any], adapter: str = "starlette"
) -> dict[str, Any]:
    async with PluginManager(root=root, auto_load=False, adapter=adapter) as manager:
        await manager.load_plugin({"name": "shop", "version": "1", "load": load})
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            document: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    validate(document)  # type: ignore[arg-type]
    return document


def orders() -> APIRouter:
    router = APIRouter(prefix="/orders")

    @router.get("/{id}", summary="Find one")
    async def one(id: int, full: bool = False) -> Order:
        return Order(price=1)

    @router.post("/", status_code=201, tags=["own"])
    async def make(order: Order) -> Order:
        return order

    @router.get("/hidden", include_in_schema=False)
    async def hidden() -> None: ...

    return router


async def text(request: Any) -> PlainTextResponse:
    """Say something."""
    return PlainTextResponse("x")


class Endpoint(HTTPEndpoint):
    async def post(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")


async def test_routers_of_fastapi_describe_themselves(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.add_routes(orders(), path="/v1")

    document = await described(tmp_path, load)
    paths = document["paths"]
    assert {path: set(item) for path, item in paths.items()} == {
        "/v1/orders/{id}": {"get"},
        "/v1/orders": {"post"},
    }
    one = paths["/v1/orders/{id}"]["get"]
    assert (one["summary"], one["tags"]) == ("Find one", ["shop"])
    assert [p["name"] for p in one["parameters"]] == ["id", "full"]
    assert one["responses"]["422"] == {"$ref": "#/components/responses/Problem"}
    assert paths["/v1/orders"]["post"]["tags"] == ["shop", "own"]
    assert "201" in paths["/v1/orders"]["post"]["responses"]
    assert set(document["components"]["schemas"]) == {"Order"}


async def test_a_single_route_of_fastapi_is_found_where_it_was_put(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.add_routes(*orders().routes, path="/v1/deep")

    paths = (await described(tmp_path, load))["paths"]
    assert {path: set(item) for path, item in paths.items()} == {
        "/v1/deep/orders/{id}": {"get"},
        "/v1/deep/orders": {"post"},
    }


@pytest.mark.parametrize("adapter", ["starlette", "asgi", "litestar"])
async def test_an_application_of_fastapi_describes_itself(tmp_path: Path, adapter: str) -> None:
    app = FastAPI()
    app.include_router(orders())

    @app.exception_handler(RequestValidationError)
    async def own(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({}, 422)

    secret = FastAPI(openapi_url=None)
    secret.include_router(orders())

    def load(context: Any) -> None:
        context.add_routes(app, path="/app")
        context.add_routes(secret, path="/secret")
        context.add_route("GET", "/plain", lambda: None)

    document = await described(tmp_path, load, adapter)
    assert set(document["paths"]) == {"/app/orders/{id}", "/app/orders", "/plain"}
    responses = document["paths"]["/app/orders/{id}"]["get"]["responses"]
    assert "HTTPValidationError" in str(responses["422"])  # what it answers is its own


async def test_routes_of_starlette_are_told_by_place_and_docstring(tmp_path: Path) -> None:
    async def socket(socket: Any) -> None: ...

    routes = [
        Route("/say/{id:int}", text, methods=["GET", "PUT"]),
        Route("/end", Endpoint),
        Route("/hidden", text, include_in_schema=False),
        WebSocketRoute("/socket", socket),
        Mount("/below", routes=[Route("/deep", text)]),
    ]

    def load(context: Any) -> None:
        context.add_routes(Router(routes=routes), path="/r")
        context.add_routes(Starlette(routes=routes[:1]), path="/s")

    paths = (await described(tmp_path, load))["paths"]
    assert {path: set(item) for path, item in paths.items()} == {
        "/r/say/{id}": {"get", "put"},
        "/r/end": {"post"},
        "/s/say/{id}": {"get", "put"},
    }
    said = paths["/r/say/{id}"]["get"]
    assert said["summary"] == "Say something"
    assert [p["schema"] for p in said["parameters"]] == [{"type": "integer"}]
    assert set(said["responses"]) == {"default", "4XX"}
