"""The service `cache` on each kind of store: values, namespaces, tags, lifetimes, hooks."""

import asyncio
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veko import Stop
from veko.errors import ConfigError, OptionError, ServiceError
from veko_plugins import CacheError, PluginManager
from veko_plugins.cache import Draft, TooLarge

from .conftest import Start

pytestmark = pytest.mark.anyio


class Page(msgspec.Struct):
    title: str
    views: int = 0


@dataclasses.dataclass
class Point:
    x: int


async def test_a_value_comes_back_until_it_is_deleted(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    assert await cache.get("k") is None
    assert await cache.get("k", "nothing") == "nothing"
    assert await cache.set("k", {"a": [1, 2.5, None, True, b"raw"]})
    assert await cache.get("k") == {"a": [1, 2.5, None, True, b"raw"]}
    await cache.set("k", None)
    assert await cache.get("k", "nothing") is None
    await cache.delete("k")
    assert await cache.get("k", "nothing") == "nothing"
    await cache.delete("k")


async def test_a_type_gives_structs_back_and_a_wrong_one_is_missing(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    await cache.set("page", Page("tea", 2))
    assert await cache.get("page") == {"title": "tea", "views": 2}
    assert await cache.get("page", type=Page) == Page("tea", 2)
    assert await cache.get("page", type=Point) is None
    await cache.set("points", [Point(1)])
    assert await cache.get("points", type=list[Point]) == [Point(1)]
    assert await cache.get_or_set("page", lambda: Point(3), type=Point) == Point(3)
    assert await cache.get("page", type=Point) == Point(3)


async def test_nobody_gets_the_object_of_another(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    mine = {"list": [1]}
    first = await cache.get_or_set("k", lambda: mine)
    first["list"].append(2)
    mine["list"].append(3)
    assert await cache.get("k") == {"list": [1]}


async def test_namespaces_are_apart_and_the_applications_own_clears_all(
    start: Start, url: str
) -> None:
    app = await start(url)
    one, two, all_ = await app.cache("one"), await app.cache("two"), app.manager.use("cache")
    for cache in (one, two, all_):
        await cache.set("k", cache.name, tags=["t"])
    await one.clear(tags=["t"])
    assert [await c.get("k") for c in (one, two, all_)] == [None, "two", ""]
    await two.clear()
    assert [await c.get("k") for c in (one, two, all_)] == [None, None, ""]
    await one.set("k", 1)
    await all_.clear()
    assert [await c.get("k") for c in (one, two, all_)] == [None, None, None]
    assert all_.namespace("one").name == "one"


async def test_tags_delete_what_has_them(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    await cache.set("a", 1, tags=["red", "round"])
    await cache.set("b", 2, tags={"red"})
    await cache.set("c", 3, tags=["round"])
    await cache.set("d", 4)
    await cache.clear(tags=["red"])
    assert [await cache.get(key) for key in "abcd"] == [None, None, 3, 4]
    await cache.set("a", 5, tags=["red"])
    assert await cache.get("a") == 5
    await cache.clear(tags=["red", "round"])
    assert [await cache.get(key) for key in "abcd"] == [None, None, None, 4]


async def test_what_is_cleared_while_it_is_computed_is_not_kept(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    for clear in (cache.clear, lambda: cache.clear(tags=["posts"])):
        began, go_on = asyncio.Event(), asyncio.Event()

        async def compute(began: asyncio.Event = began, go_on: asyncio.Event = go_on) -> str:
            began.set()
            await go_on.wait()
            return "old"

        task = asyncio.create_task(cache.get_or_set("k", compute, tags=["posts"]))
        await began.wait()
        await clear()
        go_on.set()
        assert await task == "old"
        assert await cache.get("k") is None


async def test_a_value_expires(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    await cache.set("short", 1, ttl=0.05)
    await cache.set("long", 2, ttl=60)
    async with asyncio.timeout(10):
        while await cache.get("short") is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await cache.get("long") == 2


ODD = [
    " ", "a b", "a:b", "a\nb\r\n", "\0", "../../etc/passwd", "%2e", "ключ", "🍵", "*", "[a-z]?",
    "e:", "x" * 512, "Key", "key",
]  # fmt: skip


async def test_keys_with_odd_characters_are_keys_of_their_own(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    for number, key in enumerate(ODD):
        await cache.set(key, number, tags=[key])
    assert [await cache.get(key) for key in ODD] == list(range(len(ODD)))
    await cache.clear(tags=["*"])
    assert [await cache.get(key) is None for key in ODD] == [key == "*" for key in ODD]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("x" * 513, "513 characters"),
        ("a\ud800", "lone surrogate"),
        (7, "must be a str, not int"),
        (b"k", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
    ],
    ids=["empty", "long", "surrogate", "int", "bytes", "none"],
)
async def test_a_key_that_is_none_is_refused(start: Start, key: Any, why: str) -> None:
    cache = await (await start()).cache()
    for call in (
        cache.get(key),
        cache.set(key, 1),
        cache.delete(key),
        cache.get_or_set(key, lambda: 1),
    ):
        with pytest.raises(CacheError, match=why):
            await call


async def test_what_is_no_value_lifetime_or_tag_is_refused(start: Start) -> None:
    cache = await (await start(settings={"max_value": 100})).cache()
    with pytest.raises(TooLarge, match=r"has 10\d bytes, and 100 are allowed"):
        await cache.set("k", "x" * 101)
    with pytest.raises(CacheError, match="cannot be cached"):
        await cache.set("k", lambda: 1)
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(CacheError, match="cannot be cached"):
        await cache.set("k", circle)
    with pytest.raises(CacheError, match="cannot be cached"):
        await cache.get_or_set("k", lambda: object())
    for ttl in (0, -1, float("nan"), float("inf"), "5", True):
        with pytest.raises(CacheError, match="ttl must be above 0"):
            await cache.set("k", 1, ttl=ttl)  # type: ignore[arg-type]
    for tags in ("one", [""], [3], ["x"] * 1 + [f"t{n}" for n in range(70)]):
        with pytest.raises(CacheError, match="tag"):
            await cache.set("k", 1, tags=tags)  # type: ignore[arg-type]
    with pytest.raises(CacheError, match="does not begin with /"):
        await cache.clear(path="blog")
    with pytest.raises(CacheError, match="colon"):
        cache.namespace("a:b")
    assert await cache.get("k") is None


async def test_a_computed_value_that_is_too_large_is_returned(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await (await start(settings={"max_value": 100})).cache()
    for _ in range(3):
        assert await cache.get_or_set("k", lambda: "x" * 200) == "x" * 200
    assert await cache.get("k") is None
    assert len([r for r in caplog.records if "are allowed" in r.message]) == 1


async def test_memory_is_bounded_and_keeps_what_is_used(start: Start) -> None:
    app = await start(settings={"max_bytes": 100_000})
    cache = await app.cache()
    await cache.set("hot", "x" * 100)
    for number in range(2_000):
        await cache.set(f"n{number}", "x" * 100)
        assert await cache.get("hot") is not None
    left = [await cache.get(f"n{number}") is not None for number in range(2_000)]
    assert 50 < sum(left) < 500
    assert left[-1]
    assert not left[0]
    with pytest.raises(TooLarge):
        await cache.set("k", "x" * 60_000)


async def test_a_folder_is_swept_of_what_is_over_and_beyond_its_bound(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "cached"
    app = await start(f"file:{folder}", settings={"max_bytes": 20_000})
    assert folder.stat().st_mode & 0o777 == 0o700
    cache = await app.cache()
    await cache.set("short", 1, ttl=0.01)
    for number in range(100):
        await cache.set(f"n{number}", "x" * 1_000)
    torn = folder / "torn"
    torn.write_bytes(b"half")
    os.utime(torn, (0, 0))
    store: Any = cache._engine.store
    await store.sweep()  # it runs once a minute
    files = list(folder.iterdir())
    assert sum(path.stat().st_size for path in files) <= 20_000
    assert not torn.exists()
    assert await cache.get("n99") is not None
    assert await cache.get("n0") is None
    for path in files:
        path.write_bytes(b"damaged")
    assert await cache.get("n99") is None
    await cache.set("n99", 1)
    assert await cache.get("n99") == 1


async def test_a_folder_outlives_the_application(start: Start, tmp_path: Path) -> None:
    url = f"file:{tmp_path / 'cached'}"
    one, two = await (await start(url)).cache(), await (await start(url)).cache()
    await one.set("k", 1, tags=["t"])
    assert await two.get("k") == 1
    await two.clear(tags=["t"])
    assert await one.get("k") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
        | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)  # fmt: skip
def test_any_plain_value_comes_back_equal(value: Any) -> None:
    from veko_plugins.cache.entries import decode_entry, decode_value, encode_entry, encode_value

    try:
        data = encode_value("k", value, 1 << 20)
    except CacheError:
        assert "surrog" in ascii(value) or "\\ud" in ascii(value)
        return
    entry = decode_entry(encode_entry(1.0, {"v:": b"x"}, data))
    assert entry is not None
    assert decode_value(entry.value, Any) == value


# -- hooks


async def test_H_cache_get_first_answer_wins(start: Start) -> None:
    app = await start()
    cache = await app.cache()
    asked: list[str] = []

    def load(context: Any) -> None:
        context.hook("cache:get", lambda key: asked.append(key), priority=20)
        context.hook("cache:get", lambda key: {"from": "hook"} if key == "guest:h" else None)
        context.hook("cache:get", lambda key: {"from": "second"}, priority=5)

    await app.plugin("hooks", load)
    await cache.set("h", 1)
    assert await cache.get("h") == {"from": "hook"}
    assert await cache.get("other") == {"from": "second"}
    assert await cache.get_or_set("h", lambda: 1 / 0) == {"from": "hook"}
    assert asked == ["guest:h", "guest:other", "guest:h"]
    await app.manager.unload_plugin("hooks")
    assert await cache.get("h") == 1


async def test_a_hook_on_everything_and_one_that_fails_answer_nothing(start: Start) -> None:
    app = await start()
    cache = await app.cache()

    def load(context: Any) -> None:
        context.hook("cache:*", lambda *args: args[0])
        context.hook("cache:get", lambda key: 1 / 0)

    await app.plugin("hooks", load)
    await cache.set("k", 1)
    assert await cache.get("k") == 1


async def test_H_cache_set_may_change_or_refuse(start: Start) -> None:
    app = await start()
    cache = await app.cache()
    seen: list[Any] = []

    def change(key: str, value: Any, ttl: float, draft: Draft) -> str:
        seen.append((key, value, ttl))
        if "secret" in key:
            raise Stop(None)
        if "fails" in key:
            raise ValueError("broken")
        draft.value = {"wrapped": value}
        draft.tags = (*draft.tags, "hooked")
        return "ignored"

    await app.plugin("hooks", lambda context: context.hook("cache:set", change))
    assert await cache.set("k", 1, ttl=9)
    assert seen == [("guest:k", 1, 9.0)]
    assert await cache.get("k") == {"wrapped": 1}
    await cache.clear(tags=["hooked"])
    assert await cache.get("k") is None
    assert await cache.get_or_set("k", lambda: 2) == {"wrapped": 2}
    for key in ("secret", "fails"):
        assert not await cache.set(key, 1)
        assert await cache.get_or_set(key, lambda: 3) == 3
        assert await cache.get(key) is None


async def test_H_cache_delete_and_cache_clear(start: Start) -> None:
    app = await start()
    cache = await app.cache()
    heard: list[Any] = []

    def load(context: Any) -> None:
        context.hook("cache:delete", lambda key: heard.append(key))
        context.hook("cache:clear", lambda *args: heard.append(args))

    await app.plugin("hooks", load)
    await cache.delete("k")
    await cache.clear()
    await cache.clear(tags=["a", "b"])
    await cache.clear(path="/blog/")
    await app.manager.use("cache").clear()
    assert heard == [
        "guest:k",
        ("guest", (), None),
        ("guest", ("a", "b"), None),
        ("guest", (), "/blog"),
        ("", (), None),
    ]


# -- options


async def test_without_the_option_it_says_how_to_switch_it_on(tmp_path: Path) -> None:
    said: list[str] = []

    def load(context: Any) -> None:
        for ask in (lambda: context.cache, lambda: context.use("cache")):
            with pytest.raises((AttributeError, ServiceError)) as caught:
                ask()
            said.append(str(caught.value))

    async with PluginManager(
        root=tmp_path, auto_load=False, storage="memory:", adapter=None
    ) as manager:
        await manager.load_plugin(manager.create_simple_plugin("guest", load))
        assert not [p for p in manager.list_plugins(core=True) if p.name == "cache"]
    assert all(
        text.startswith('the cache is off. Set the option cache = "memory:"') for text in said
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memory", "not a URL that is known"),
        ("memcached://x", "not a URL that is known"),
        ("memory:5", "nothing follows memory:"),
        ("file:", "has no path"),
        ("redis://h/0?prefix=A-B", "is not a name"),
        ("redis://h:port/0", "is not valid"),
    ],
)
async def test_a_url_that_is_not_valid_is_refused(tmp_path: Path, url: str, why: str) -> None:
    manager = PluginManager(root=tmp_path, auto_load=False, storage="memory:", cache=url)
    with pytest.raises(OptionError, match=why):
        await manager.start()


async def test_settings_are_checked(tmp_path: Path) -> None:
    manager = PluginManager(
        root=tmp_path, storage="memory:", cache="memory:", plugins={"cache": {"ttl": 0, "size": 3}}
    )
    with pytest.raises(ConfigError) as caught:
        await manager.start()
    assert "ttl" in str(caught.value)
    assert "size" in str(caught.value)


async def test_one_of_litestars_own_stores_serves(tmp_path: Path) -> None:
    from litestar.stores.memory import MemoryStore

    from veko_plugins.cache import CachePlugin

    store = MemoryStore()
    async with PluginManager(
        root=tmp_path, auto_load=False, storage="memory:", core={"cache": CachePlugin(store)}
    ) as manager:
        cache = manager.use("cache")
        await cache.set("k", 1, tags=["t"])
        assert await cache.get("k") == 1
        await cache.clear(tags=["t"])
        assert await cache.get("k") is None
    assert await store.exists("e::k")


def test_an_application_without_a_cache_imports_its_events_alone() -> None:
    code = (
        "import sys, veko_plugins.manager\n"
        "print(*sorted(m for m in sys.modules if m.startswith('veko_plugins.cache.')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["veko_plugins.cache.events"]
