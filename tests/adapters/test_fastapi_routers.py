"""FastAPI's routers and applications behind our table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel
from starlette.responses import JSONResponse

from veko import Kernel, Plugin
from veko_plugins.http import Request, Routes

pytestmark = pytest.mark.anyio


class Guest(Plugin):
    version = "1.0.0"

    def __init__(self, load: Any, name: str = "guest") -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        return self._load(context)


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(Routes("starlette"))
        yield kernel


@pytest.fixture
async def client(kernel: Kernel) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(kernel.use("http").asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def errors(kernel: Kernel) -> int:
    record = kernel.get("guest")
    assert record is not None
    return record.error_count


class Item(BaseModel):
    name: str
    counts: list[int] = []


async def number(start: int = 40) -> AsyncIterator[int]:
    yield start + 2


def router() -> APIRouter:
    made = APIRouter(prefix="/items")
    inner = APIRouter()

    @made.get("/{item_id}", response_model=Item)
    async def one(item_id: int, n: Annotated[int, Depends(number)]) -> Any:
        return {"name": f"{item_id} {n}", "secret": "x"}

    @made.post("/", status_code=201)
    async def make(item: Item, request: fastapi.Request) -> Item:
        ours: Request = request.scope["veko.request"]
        assert ours.path.startswith("/api/items")
        return item

    @made.get("/fails/{status}")
    def fails(status: int) -> None:
        raise fastapi.HTTPException(status, {"why": "so"})

    @inner.get("/deep")
    def deep() -> str:
        return "deep"

    @inner.websocket("/talk")
    async def talk(socket: fastapi.WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    made.include_router(inner, prefix="/inner")
    return made


async def test_an_api_router_runs_with_all_it_is(kernel: Kernel, client: httpx.AsyncClient) -> None:
    created: list[tuple[str, str]] = []

    def load(context: Any) -> None:
        context.hook("route:create", lambda r: created.append((r.method, r.path)))
        context.add_routes(router(), path="/api")

    await kernel.load(Guest(load))
    assert set(created) == {
        ("GET", "/api/items/{item_id}"),
        ("POST", "/api/items"),
        ("GET", "/api/items/fails/{status}"),
        ("GET", "/api/items/inner/deep"),
        ("WEBSOCKET", "/api/items/inner/talk"),
    }
    assert (await client.get("/api/items/7")).json() == {"name": "7 42", "counts": []}
    assert (await client.get("/api/items/inner/deep")).json() == "deep"
    answer = await client.post("/api/items/", json={"name": "a"})
    assert (answer.status_code, answer.json()) == (201, {"name": "a", "counts": []})
    answer = await client.post("/api/items/", json={"counts": [1, "x", None]})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [(fault["in"], fault["name"]) for fault in answer.json()["errors"]] == [
        ("body", "name"), ("body", "counts[1]"), ("body", "counts[2]"),
    ]  # fmt: skip
    answer = await client.get("/api/items/x?start=y")
    assert {(fault["in"], fault["name"]) for fault in answer.json()["errors"]} == {
        ("path", "item_id"), ("query", "start"),
    }  # fmt: skip
    assert (await client.get("/api/items/fails/409")).json()["detail"] == '{"why":"so"}'
    assert errors(kernel) == 0
    assert (await client.get("/api/items/fails/503")).status_code == 503
    assert errors(kernel) == 1


async def test_a_fastapi_application_is_mounted(kernel: Kernel, client: httpx.AsyncClient) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        told.append("up")
        yield
        told.append("down")

    app = FastAPI(lifespan=lifespan)
    app.include_router(router())
    app.get("/invalid")(lambda n: n)
    await kernel.load(Guest(lambda context: context.add_routes(app, path="/shop")))
    assert (await client.get("/shop/items/inner/deep")).json() == "deep"
    assert (await client.get("/shop/openapi.json")).json()["servers"] == [{"url": "/shop"}]
    answer = await client.get("/shop/invalid")
    assert [fault["name"] for fault in answer.json()["errors"]] == ["n"]

    strict = FastAPI()
    strict.include_router(router())

    @strict.exception_handler(fastapi.exceptions.RequestValidationError)
    async def own(request: fastapi.Request, error: Exception) -> JSONResponse:
        return JSONResponse({"own": True}, 400)

    await kernel.load(Guest(lambda context: context.add_routes(strict, path="/own"), "other"))
    answer = await client.get("/own/items/x")
    assert (answer.status_code, answer.json()) == (400, {"own": True})
    assert told == ["up"]
    await kernel.reload(Guest(lambda context: context.add_routes(app, path="/shop")))
    assert told == ["up", "up", "down"]
    assert (await client.get("/shop/items/inner/deep")).json() == "deep"
    await kernel.unload("guest")
    assert told == ["up", "up", "down", "down"]
