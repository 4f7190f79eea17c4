"""What the OpenAPI document says of handlers, the same on every adapter."""

import dataclasses
import enum
import functools
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import httpx
import msgspec
import pytest
from msgspec import Meta
from openapi_spec_validator import validate

from veko_plugins import PluginManager, Request, Response

ADAPTERS = ("litestar", "starlette", "asgi")


class Kind(enum.Enum):
    BIG = "big"
    SMALL = "small"


class Item(msgspec.Struct):
    """A thing."""

    name: str
    parent: "Item | None" = None


class Form(msgspec.Struct):
    name: str
    count: Annotated[int, Meta(ge=1)] = 1


class Page(TypedDict):
    items: list[Item]


@dataclasses.dataclass
class Point:
    x: float
    y: float


class Strange:
    """No schema can tell what it is."""


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def described(root: Path, adapter: str, load: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the document of an application of one plugin, which must be valid."""
    async with PluginManager(root=root, auto_load=False, adapter=adapter) as manager:
        await manager.load_plugin({"name": "odd", "version": "1", "load": load})
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            document: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    validate(document)  # type: ignore[arg-type]
    return document


async def operation(root: Path, adapter: str, method: str, path: str, handler: Any) -> Any:
    def load(context: Any) -> None:
        context.add_route(method, path, handler)

    document = await described(root, adapter, load)
    (item,) = document["paths"].values()
    return item[method.lower()]


async def test_parameters_have_place_type_limits_and_default(tmp_path: Path, adapter: str) -> None:
    async def handler(
        id: int,
        page: Annotated[int, Meta(ge=1, le=100, description="Which page")] = 1,
        kind: Kind = Kind.BIG,
        tag: list[str] | None = None,
        since: date | None = None,
        *,
        q: str,
    ) -> None: ...

    found = await operation(tmp_path, adapter, "GET", "/items/{id}", handler)
    assert found["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
        {
            "name": "page",
            "in": "query",
            "required": False,
            "description": "Which page",
            "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 1},
        },
        {
            "name": "kind",
            "in": "query",
            "required": False,
            "schema": {"$ref": "#/components/schemas/Kind", "default": "big"},
        },
        {
            "name": "tag",
            "in": "query",
            "required": False,
            "schema": {"type": "array", "items": {"type": "string"}},
        },
        {
            "name": "since",
            "in": "query",
            "required": False,
            "schema": {"type": "string", "format": "date"},
        },
        {"name": "q", "in": "query", "required": True, "schema": {"type": "string"}},
    ]
    assert set(found["responses"]) == {"204", "400", "4XX"}


async def test_a_path_tells_what_no_handler_names(tmp_path: Path, adapter: str) -> None:
    path = "/{a:int}/{b:float}/{c:uuid}/{d}/{e:path}"
    found = await operation(tmp_path, adapter, "GET", path, lambda request: None)
    assert {p["name"]: p["schema"] for p in found["parameters"]} == {
        "a": {"type": "integer"},
        "b": {"type": "number"},
        "c": {"type": "string", "format": "uuid"},
        "d": {"type": "string", "minLength": 1},
        "e": {"type": "string"},
    }
    assert set(found["responses"]) == {"default", "4XX"}


async def test_bodies_are_told_as_what_takes_them(tmp_path: Path, adapter: str) -> None:
    async def item(data: Item) -> None: ...
    async def form(data: Form) -> None: ...
    async def raw(data: bytes) -> None: ...
    async def perhaps(data: list[Point] | None = None) -> None: ...

    def load(context: Any) -> None:
        for handler in (item, form, raw, perhaps):
            context.add_route("POST", f"/{handler.__name__}", handler)

    paths = (await described(tmp_path, adapter, load))["paths"]
    bodies = {path: item["post"]["requestBody"] for path, item in paths.items()}
    assert list(bodies["/item"]["content"]) == ["application/json"]
    assert list(bodies["/form"]["content"]) == [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ]
    assert bodies["/raw"]["content"] == {"application/octet-stream": {}}
    assert [bodies[path]["required"] for path in ("/item", "/raw", "/perhaps")] == [
        True,
        True,
        False,
    ]


async def test_answers_are_told_as_annotated(tmp_path: Path, adapter: str) -> None:
    async def stream() -> AsyncIterator[str]:
        yield ""

    def item() -> Item: ...
    def page() -> Page: ...
    def text() -> str: ...
    def data() -> bytes: ...
    def nothing() -> None: ...
    def perhaps() -> Item | None: ...
    def whole() -> Response: ...
    def either() -> Item | Response: ...
    def unnamed() -> "Nowhere": ...  # type: ignore[name-defined]  # noqa: F821
    def strange() -> Strange: ...
    def bare(): ...  # type: ignore[no-untyped-def]

    handlers = [stream, item, page, text, data, nothing, perhaps, whole, either, unnamed]

    def load(context: Any) -> None:
        for handler in (*handlers, strange, bare):
            context.add_route("GET", f"/{handler.__name__}", handler)

    paths = (await described(tmp_path, adapter, load))["paths"]
    found = {}
    for path, item_ in paths.items():
        responses = item_["get"]["responses"]
        content = responses.get("200", {}).get("content", {})
        found[path] = (sorted(set(responses) - {"4XX"}), list(content))
    assert found == {
        "/stream": (["200"], ["text/plain"]),
        "/item": (["200"], ["application/json"]),
        "/page": (["200"], ["application/json"]),
        "/text": (["200"], ["text/plain"]),
        "/data": (["200"], ["application/octet-stream"]),
        "/nothing": (["204"], []),
        "/perhaps": (["200", "204"], ["application/json"]),
        "/whole": (["default"], []),
        "/either": (["200", "default"], ["application/json"]),
        "/unnamed": (["default"], []),
        "/strange": (["200"], ["application/json"]),
        "/bare": (["default"], []),
    }


async def test_docstrings_names_and_deprecation_are_told(tmp_path: Path, adapter: str) -> None:
    def told(a: str, b: str = "") -> None:
        """Say it
        in two lines.

        And more of it.
        """

    def old() -> None: ...

    old.__deprecated__ = "use told"  # type: ignore[attr-defined]

    class Called:
        """Not the handler's words."""

        def __call__(self, request: Request) -> None: ...

        def method(self) -> None:
            """Do it."""

    def load(context: Any) -> None:
        context.add_route("GET", "/told", told)
        context.add_route("PUT", "/told", told)
        context.add_route("GET", "/partial", functools.partial(told, "x"))
        context.add_route("GET", "/old", old)
        context.add_route("GET", "/called/{x}", Called())
        context.add_route("GET", "/method", Called().method)
        context.add_route("GET", "/lambda", lambda: None)

    paths = (await described(tmp_path, adapter, load))["paths"]
    told_ = paths["/told"]["get"]
    assert told_["summary"] == "Say it in two lines"
    assert told_["description"] == "And more of it."
    assert paths["/old"]["get"]["deprecated"] is True
    assert "summary" not in paths["/called/{x}"]["get"]
    assert paths["/method"]["get"]["summary"] == "Do it"
    ids = [op["operationId"] for item in paths.values() for op in item.values()]
    assert len(set(ids)) == len(ids) == 7
    assert paths["/lambda"]["get"]["operationId"] == "odd_get_lambda"
    assert paths["/called/{x}"]["get"]["operationId"] == "odd_get_called_x"


async def test_what_a_handler_is_given_besides_is_not_told(tmp_path: Path, adapter: str) -> None:
    class Clock: ...

    def load(context: Any) -> None:
        async def handler(request: Request, context: Any, clock: Any, id: uuid.UUID) -> Item:
            raise NotImplementedError

        context.provide("clock", Clock())
        handler.__annotations__.pop("clock")
        context.add_route("GET", "/{id}", handler)

    found = await described(tmp_path, adapter, load)
    assert [p["name"] for p in found["paths"]["/{id}"]["get"]["parameters"]] == ["id"]


async def test_odd_types_spoil_nothing(tmp_path: Path, adapter: str) -> None:
    def odd(
        a: Literal["x", 1] = "x",
        b: tuple[int, ...] = (),
        c: dict[str, int] | None = None,
        d: Any = object(),  # noqa: B008
        e: float = float("inf"),
    ) -> dict[str, Strange | int]: ...

    def more(data: dict[str, Item | int]) -> list[Annotated[str, Meta(pattern="^a+$")]]: ...

    def load(context: Any) -> None:
        context.add_route("GET", "/odd", odd)
        context.add_route("TRACE", "/odd", lambda: None)
        context.add_route("POST", "/more/{name}/", more)
        context.add_route("GET", "/more/{other:int}", lambda other: None)
        context.add_route("GET", "/", lambda: None)

    found = await described(tmp_path, adapter, load)
    assert set(found["paths"]) == {"/", "/odd", "/more/{name}"} or set(found["paths"]) == {
        "/",
        "/odd",
        "/more/{other}",
    }
