"""Any sequence of calls, beside a dict: a value comes back until it is deleted or expires."""

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from veko import Bus
from veko_plugins import Cache
from veko_plugins.cache.engine import Engine, Scope
from veko_plugins.cache.memory import MemoryStore
from veko_plugins.cache.stats import Counts

KEYS = st.sampled_from(["a", "b", "a:b", "/"])
NAMES = st.sampled_from(["", "one", "two"])
TAGS = st.lists(st.sampled_from(["red", "round", "/"]), max_size=3)
SECONDS = st.sampled_from([1.0, 5.0, 100.0])


def unused() -> Any:
    raise AssertionError("no response is made")


class Model(RuleBasedStateMachine):
    """The cache in memory, and a dict: (namespace, key) to (value, tags, end)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        clock = lambda: self.now  # noqa: E731
        store = MemoryStore(1 << 20, clock=clock)
        self.engine = Engine(
            store, Bus(), ttl=50.0, max_value=1_000, patience=1.0, response=unused,
            warn=lambda text: None, clock=clock,
        )  # fmt: skip
        self.scopes: dict[str, Scope] = {}
        self.model: dict[tuple[str, str], tuple[int, set[str], float]] = {}
        self.count = 0

    def cache(self, name: str) -> Cache:
        scope = lambda name: self.scopes.setdefault(name, Scope(name, Counts()))  # noqa: E731
        return Cache(self.engine, scope, name)

    def known(self, name: str, key: str) -> int | None:
        value, _, end = self.model.get((name, key), (None, set(), 0.0))
        return value if end > self.now else None

    @rule(name=NAMES, key=KEYS, tags=TAGS, ttl=SECONDS)
    def set(self, name: str, key: str, tags: list[str], ttl: float) -> None:
        self.count += 1
        assert asyncio.run(self.cache(name).set(key, self.count, ttl=ttl, tags=tags))
        self.model[name, key] = self.count, {*tags}, self.now + ttl

    @rule(name=NAMES, key=KEYS, tags=TAGS)
    def get_or_set(self, name: str, key: str, tags: list[str]) -> None:
        self.count += 1
        found = asyncio.run(self.cache(name).get_or_set(key, lambda: self.count, tags=tags))
        there = self.known(name, key)
        assert found == (self.count if there is None else there)
        if there is None:
            self.model[name, key] = self.count, {*tags}, self.now + 50.0

    @rule(name=NAMES, key=KEYS)
    def get(self, name: str, key: str) -> None:
        assert asyncio.run(self.cache(name).get(key)) == self.known(name, key)

    @rule(name=NAMES, key=KEYS)
    def delete(self, name: str, key: str) -> None:
        asyncio.run(self.cache(name).delete(key))
        self.model.pop((name, key), None)

    @rule(name=NAMES, tags=TAGS)
    def clear(self, name: str, tags: list[str]) -> None:
        asyncio.run(self.cache(name).clear(tags=tags))
        for (owner, key), (_, own, _) in [*self.model.items()]:
            whole = not tags and name in {"", owner}
            if whole or (owner == name and own & {*tags}):
                del self.model[owner, key]

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds


TestModel = Model.TestCase
