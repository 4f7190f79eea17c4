"""Litestar's own handlers in the OpenAPI document: as Litestar describes them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import pydantic
from litestar import Controller, Router, delete, get, post
from litestar.dto import DataclassDTO, DTOConfig
from litestar.exceptions import PermissionDeniedException
from litestar.params import FromHeader, FromPath, FromQuery, JSONBody, QueryParameter
from openapi_spec_validator import validate

from veko_plugins import PluginManager


class Order(msgspec.Struct):
    price: float


@dataclass
class User:
    name: str
    password: str


class UserDTO(DataclassDTO[User]):
    config = DTOConfig(exclude={"password"})


class Users(Controller):
    path = "/users"
    return_dto = UserDTO

    @get("/{id:int}", summary="Find one", tags=["people"])
    async def one(self, id: FromPath[int], full: FromQuery[bool] = False) -> User:
        return User("a", "b")

    @post("/", operation_id="hire", raises=[PermissionDeniedException])
    async def make(self, data: JSONBody[User]) -> User:
        return data

    @delete("/{id:int}", include_in_schema=False)
    async def drop(self, id: FromPath[int]) -> None: ...


@get("/orders", security=[{"token": []}])
async def orders(
    limit: Annotated[int, QueryParameter(ge=1, description="How many")] = 9,
) -> list[Order]:
    return []


@get("/files/{rest:path}", deprecated=True)
async def files(rest: FromPath[Path]) -> str:
    return str(rest)


async def described(root: Path, load: Callable[[Any], Any], name: str = "shop") -> dict[str, Any]:
    async with PluginManager(root=root, auto_load=False) as manager:
        await manager.load_plugin({"name": name, "version": "1", "load": load})
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            document: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    validate(document)  # type: ignore[arg-type]
    return document


async def test_routers_and_controllers_are_described_by_litestar(tmp_path: Path) -> None:
    def load(context: Any) -> None:
        context.add_routes(Router("/v1", route_handlers=[Users, orders]), path="/api")
        context.add_routes(files)

    document = await described(tmp_path, load)
    paths = document["paths"]
    assert {path: set(item) for path, item in paths.items()} == {
        "/api/v1/users/{id}": {"get"},
        "/api/v1/users": {"post"},
        "/api/v1/orders": {"get"},
        "/files/{rest}": {"get"},
    }
    one = paths["/api/v1/users/{id}"]["get"]
    assert (one["summary"], one["tags"]) == ("Find one", ["shop", "people"])
    assert {p["name"]: p["in"] for p in one["parameters"]} == {"id": "path", "full": "query"}
    assert one["responses"]["400"] == {"$ref": "#/components/responses/Problem"}

    hire = paths["/api/v1/users"]["post"]
    assert hire["operationId"] == "hire"
    assert hire["responses"]["403"] == {"$ref": "#/components/responses/Problem"}
    answer = hire["responses"]["201"]["content"]["application/json"]["schema"]["$ref"]
    schemas = document["components"]["schemas"]
    assert set(schemas[answer.rpartition("/")[2]]["properties"]) == {"name"}  # the DTO's

    limit = paths["/api/v1/orders"]["get"]["parameters"][0]
    assert limit["schema"]["minimum"] == 1
    assert "security" not in paths["/api/v1/orders"]["get"]  # no plugin declares the scheme
    assert paths["/files/{rest}"]["get"]["deprecated"] is True


async def test_plain_handlers_stand_beside_them(tmp_path: Path) -> None:
    class Plain(msgspec.Struct):
        box: int

    Plain.__name__ = "Order"

    def other() -> Plain: ...

    def load(context: Any) -> None:
        context.add_routes(orders)
        context.add_route("GET", "/other", other)

    other.__annotations__["return"] = Plain
    document = await described(tmp_path, load)
    assert len(document["components"]["schemas"]) == 2
    assert set(document["paths"]) == {"/orders", "/other"}


async def test_plain_handlers_with_annotations_of_others(tmp_path: Path) -> None:
    class Pet(pydantic.BaseModel):
        name: str
        inner: "Inner"

    class Inner(pydantic.BaseModel):
        count: int = 1

    async def headed(agent: FromHeader[str], page: int = 1) -> str:
        """Say who asks."""
        return agent

    async def pet(id: int, data: Pet) -> Pet:
        return data

    Pet.model_rebuild(_types_namespace={"Inner": Inner})

    def load(context: Any) -> None:
        context.add_route("GET", "/headed/{shop}", headed)
        context.add_route("POST", "/pets/{id:int}", pet)

    document = await described(tmp_path, load)
    headed_ = document["paths"]["/headed/{shop}"]["get"]
    assert headed_["summary"] == "Say who asks"
    assert {(p["in"], p["name"]) for p in headed_["parameters"]} == {
        ("header", "agent"),
        ("query", "page"),
        ("path", "shop"),
    }
    assert list(headed_["responses"]["200"]["content"]) == ["text/plain"]
    body = document["paths"]["/pets/{id}"]["post"]["requestBody"]
    assert "application/json" in body["content"]
    assert "Inner" in document["components"]["schemas"]
