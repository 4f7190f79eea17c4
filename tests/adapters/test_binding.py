"""What handlers may name: context, services, and every fault of what does not fit."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, Protocol, TypedDict

import httpx
import msgspec
import pytest
from pydantic import BaseModel

from veko import Context, Kernel, Plugin, VekoError
from veko_plugins.http import Request, Routes, find_adapter

pytestmark = pytest.mark.anyio


class Guest(Plugin):
    version = "1.0.0"

    def __init__(self, load: Any, name: str = "guest") -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        return self._load(context)


@pytest.fixture(params=["asgi", "litestar", "starlette"])
async def kernel(request: pytest.FixtureRequest) -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(Routes(find_adapter(request.param)))
        yield kernel


@pytest.fixture
async def client(kernel: Kernel) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(kernel.use("http").asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


class Cache:
    def __init__(self, name: str = "cache") -> None:
        self.name = name


class Named(Protocol):
    name: str


async def provide(kernel: Kernel, name: str = "cache", value: Any = None) -> None:
    service = value or Cache(name)
    await kernel.load(Guest(lambda context: context.provide(name, service), f"has-{name}"))


async def get(kernel: Kernel, client: httpx.AsyncClient, handler: Any, url: str = "/x") -> Any:
    await kernel.load(Guest(lambda context: context.add_route("GET", "/x", handler)))
    return await client.get(url)


# -- context


@pytest.mark.parametrize(
    "handler",
    [
        lambda context: context.name,
        lambda request, context: context.name,
        lambda context, q=1: context.name,
    ],
)
async def test_the_context_by_name(kernel: Kernel, client: httpx.AsyncClient, handler: Any) -> None:
    assert (await get(kernel, client, handler)).text == "guest"


async def test_the_context_by_type(kernel: Kernel, client: httpx.AsyncClient) -> None:
    async def handler(mine: Context) -> str:
        return mine.name

    assert (await get(kernel, client, handler)).text == "guest"


async def test_a_context_with_another_type_is_a_parameter_like_others(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def handler(context: str) -> str:
        return context

    assert (await get(kernel, client, handler, "/x?context=a")).text == "a"


# -- services


async def test_a_service_by_type_whatever_its_name(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    async def handler(store: Cache, q: int = 1) -> list[Any]:
        return [store.name, q]

    await provide(kernel)
    assert (await get(kernel, client, handler, "/x?q=2")).json() == ["cache", 2]
    with pytest.raises(VekoError, match="guest need"):
        await kernel.unload("has-cache")


async def test_of_two_the_one_of_the_parameters_name(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def handler(second: Cache) -> str:
        return second.name

    def which(store: Cache) -> None: ...

    await provide(kernel, "first")
    await provide(kernel, "second")
    assert (await get(kernel, client, handler)).text == "second"
    with pytest.raises(VekoError, match="'first' and 'second' are of that class"):
        await kernel.load(Guest(lambda context: context.add_route("GET", "/y", which), "other"))


async def test_a_service_by_name_only(kernel: Kernel, client: httpx.AsyncClient) -> None:
    def handler(request: Request, cache) -> str:  # type: ignore[no-untyped-def]
        return cache.name

    await provide(kernel)
    assert (await get(kernel, client, handler, "/x?cache=7")).text == "cache"


async def test_an_annotated_parameter_is_in_the_query(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def handler(request: Request, cache: str) -> str:
        return cache

    await provide(kernel)
    assert (await get(kernel, client, handler, "/x?cache=7")).text == "7"


async def test_a_protocol_goes_by_name(kernel: Kernel, client: httpx.AsyncClient) -> None:
    def handler(cache: Named) -> str:
        return cache.name

    await provide(kernel)
    assert (await get(kernel, client, handler)).text == "cache"


async def test_a_plugin_gets_what_it_provides_itself(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def load(context: Any) -> None:
        context.provide("cache", Cache("own"))
        context.add_route("GET", "/x", lambda request, cache: cache.name)
        context.add_route("GET", "/y", typed)

    def typed(store: Cache) -> str:
        return store.name

    await kernel.load(Guest(load))
    assert (await client.get("/x")).text == "own"
    assert (await client.get("/y")).text == "own"


async def test_what_is_not_there_is_a_503_until_it_comes(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def handler(store: Cache) -> str:
        return store.name

    answer = await get(kernel, client, handler)
    assert (answer.status_code, answer.json()["detail"]) == (
        503, "the service 'store' is not available",
    )  # fmt: skip
    await provide(kernel)
    assert (await client.get("/x")).text == "cache"
    await kernel.reload(Guest(lambda context: context.provide("cache", Cache("new")), "has-cache"))
    assert (await client.get("/x")).text == "new"
    await kernel.unload("has-cache")
    assert (await client.get("/x")).status_code == 503


async def test_an_optional_service_may_be_missing(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def handler(store: Cache | None) -> str:
        return store.name if store else "none"

    assert (await get(kernel, client, handler)).text == "none"
    await provide(kernel)
    assert (await client.get("/x")).text == "cache"
    await kernel.unload("has-cache")
    assert (await client.get("/x")).text == "none"


# -- faults


class Item(msgspec.Struct):
    count: Annotated[int, msgspec.Meta(ge=1)]
    kind: str = "plain"


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    tricks: list[str]


class Extra(TypedDict, total=False):
    note: str


class Order(msgspec.Struct, forbid_unknown_fields=True):
    items: list[Item]
    by: dict[str, Item] = {}
    pet: Cat | Dog | None = None
    pair: tuple[int, str] = (1, "")
    extra: Extra = {}
    name: str = msgspec.field(default="", name="Name")


def take(data: Order, q: int, flag: bool = False) -> Order:
    return data


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"items": [{"count": 0}, {"count": "x", "kind": 1}, {}, 5]},
         ["items[0].count", "items[1].count", "items[1].kind", "items[2].count", "items[3]"]),
        ({"items": [], "by": {"a": {"count": None}}, "pair": ["x", 1]},
         ["by.a.count", "pair[0]", "pair[1]"]),
        ({"pet": {"type": "dog", "tricks": [1, "sit", None]}, "Name": 3},
         ["items", "pet.tricks[0]", "pet.tricks[2]", "Name"]),
        ({"items": [], "pet": {"type": "cow"}, "extra": {"note": 1}, "other": 1},
         ["pet.type", "extra.note", "other"]),
        ([], [""]),
        ("text", [""]),
    ],
)  # fmt: skip
async def test_every_fault_of_a_body_is_listed(
    kernel: Kernel, client: httpx.AsyncClient, body: Any, names: list[str]
) -> None:
    await kernel.load(Guest(lambda context: context.add_route("POST", "/x", take)))
    answer = await client.post("/x?flag=maybe", json=body)
    assert answer.status_code == 400
    faults = answer.json()["errors"]
    found = [fault.get("name", "") for fault in faults if fault["in"] == "body"]
    assert sorted(found) == sorted(names)
    assert {fault["name"] for fault in faults if fault["in"] == "query"} == {"q", "flag"}


async def test_faults_read_alike_and_show_no_value(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    await kernel.load(Guest(lambda context: context.add_route("POST", "/x", take)))
    body = {"items": [{"count": "hunter2"}], "itmes": 1}
    answer = await client.post("/x?q=1", json=body)
    assert "hunter2" not in answer.text
    assert answer.json()["errors"] == [
        {"detail": "is unknown (Did you mean 'items'?)", "in": "body", "name": "itmes"},
        {"detail": "expected `int`, got `str`", "in": "body", "name": "items[0].count"},
    ]


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"items": [', b"", b"[" * 100_000, b"nul"])
async def test_what_is_no_json_is_one_fault(
    kernel: Kernel, client: httpx.AsyncClient, body: bytes
) -> None:
    await kernel.load(Guest(lambda context: context.add_route("POST", "/x", take)))
    answer = await client.post("/x?q=1", content=body)
    assert (answer.status_code, len(answer.json()["errors"])) == (400, 1)


async def test_the_list_of_faults_is_bounded(kernel: Kernel, client: httpx.AsyncClient) -> None:
    await kernel.load(Guest(lambda context: context.add_route("POST", "/x", take)))
    answer = await client.post("/x?q=1", json={"items": [0] * 10_000})
    assert len(answer.json()["errors"]) == 100
    answer = await client.post("/x?q=1", json={"items": [0] * 200_000})
    assert len(answer.json()["errors"]) == 1


async def test_the_faults_of_a_form(kernel: Kernel, client: httpx.AsyncClient) -> None:
    class Form(msgspec.Struct):
        age: int
        size: float
        name: str

    def handler(data: Form) -> Form:
        return data

    handler.__annotations__["data"] = Form
    await kernel.load(Guest(lambda context: context.add_route("POST", "/x", handler)))
    answer = await client.post("/x", data={"age": "5", "size": "1.5", "name": "a"})
    assert answer.json() == {"age": 5, "size": 1.5, "name": "a"}
    answer = await client.post("/x", data={"age": "x", "size": "y"})
    assert [fault["name"] for fault in answer.json()["errors"]] == ["name", "age", "size"]


class Model(BaseModel):
    name: str
    counts: list[int] = []


async def test_a_body_may_be_a_pydantic_model(kernel: Kernel, client: httpx.AsyncClient) -> None:
    def handler(data: Model) -> Model:
        return data

    await kernel.load(Guest(lambda context: context.add_route("POST", "/x", handler)))
    answer = await client.post("/x", json={"name": "a"})
    assert (answer.status_code, answer.json()) == (200, {"name": "a", "counts": []})
    answer = await client.post("/x", json={"counts": [1, "x"]})
    assert answer.status_code == 400
    assert [(fault["in"], fault["name"]) for fault in answer.json()["errors"]] == [
        ("body", "name"), ("body", "counts[1]"),
    ]  # fmt: skip
    answer = await client.post("/x", data={"name": "a", "counts": "1"})
    assert (answer.status_code, answer.json()) == (200, {"name": "a", "counts": [1]})


class Choice(msgspec.Struct, rename={"tags": "tag"}):
    tags: list[str]
    sizes: set[int] | None = None
    name: str = ""


@dataclass
class Chosen:
    tag: Annotated[list[str], msgspec.Meta(min_length=1)]
    sizes: tuple[int, ...] = ()
    name: str = ""


class Picked(TypedDict):
    tag: list[str]
    sizes: NotRequired[list[int]]
    name: str


@pytest.mark.parametrize("kind", [Choice, Chosen, Picked])
async def test_a_form_may_give_one_of_several(
    kernel: Kernel, client: httpx.AsyncClient, kind: Any
) -> None:
    def handler(data: Any) -> Any:
        return data

    handler.__annotations__["data"] = kind
    await kernel.load(Guest(lambda context: context.add_route("POST", "/x", handler)))
    for form in ({"tag": "a", "sizes": "1"}, {"tag": ["a"], "sizes": ["1"]}):
        answer = await client.post("/x", data={**form, "name": "b"})
        assert answer.json() == {"tag": ["a"], "sizes": [1], "name": "b"}
    answer = await client.post("/x", data={"tag": "a", "sizes": "x", "name": ["a", "b"]})
    assert {fault["name"] for fault in answer.json()["errors"]} == {"sizes[0]", "name"}


async def test_a_socket_has_no_body(kernel: Kernel) -> None:
    async def handler(socket: Any, data: dict[str, int]) -> None: ...

    with pytest.raises(VekoError, match="has the parameter 'data', but a WebSocket has no body"):
        await kernel.load(Guest(lambda context: context.add_websocket("/x", handler)))
