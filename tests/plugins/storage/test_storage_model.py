"""The storage against a dict, through any sequence of writes, reads and new starts."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from veko import StorageError
from veko_plugins.storage import Durability, Engine

_NAMES = st.sampled_from(["a", "b"])
_KEYS = st.sampled_from(["k", "key", "é", "\0", "x" * 512]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
    | st.binary(max_size=9) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


class StorageMachine(RuleBasedStateMachine):
    durability: Durability = "process"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.model: dict[str, dict[str, Any]] = {"a": {}, "b": {}}
        self.handles: list[Awaitable[None]] = []
        self.engine = self.open()

    def open(self) -> Engine:
        async def start() -> Engine:
            engine = Engine(self.folder / "s.db", durability=self.durability)
            await engine.open()
            return engine

        return self.runner.run(start())

    def teardown(self) -> None:
        self.runner.run(self.engine.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def write(self, call: Any, *args: Any, wait: bool) -> None:
        async def run() -> None:
            handle = call(*args)
            if wait:
                await handle
            else:
                self.handles.append(handle)

        self.runner.run(run())

    @rule(name=_NAMES, key=_KEYS, value=_VALUES, wait=st.booleans())
    def set(self, name: str, key: str, value: Any, wait: bool) -> None:
        self.write(self.engine.namespace(name).set, key, value, wait=wait)
        self.model[name][key] = value

    @rule(name=_NAMES, key=_KEYS, wait=st.booleans())
    def delete(self, name: str, key: str, wait: bool) -> None:
        self.write(self.engine.namespace(name).delete, key, wait=wait)
        self.model[name].pop(key, None)

    @rule(name=_NAMES, wait=st.booleans())
    def clear(self, name: str, wait: bool) -> None:
        self.write(self.engine.namespace(name).clear, wait=wait)
        self.model[name].clear()

    @rule(name=_NAMES, entries=st.dictionaries(_KEYS, _VALUES, max_size=5), wait=st.booleans())
    def update(self, name: str, entries: dict[str, Any], wait: bool) -> None:
        self.write(self.engine.namespace(name).update, entries, wait=wait)
        self.model[name].update(entries)

    @rule(name=_NAMES, entries=st.dictionaries(_KEYS, _VALUES, max_size=5))
    def update_with_a_bad_value(self, name: str, entries: dict[str, Any]) -> None:
        try:
            self.write(self.engine.namespace(name).update, {**entries, "bad": print}, wait=True)
        except StorageError:
            return
        raise AssertionError("it was taken")

    @rule(name=_NAMES)
    def forget(self, name: str) -> None:
        self.engine.namespace(name).forget()

    @rule()
    def wait_for_all(self) -> None:
        async def wait() -> None:
            for handle in self.handles:
                await handle

        self.runner.run(wait())
        self.handles.clear()

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.engine.close())
        self.engine = self.open()

    @invariant()
    def reads_as_the_model(self) -> None:
        for name, entries in self.model.items():
            storage = self.engine.namespace(name)
            assert dict(storage.items()) == entries
            assert {*storage.keys()} == entries.keys()
            for key, value in entries.items():
                assert storage.get(key) == value
                assert type(storage.get(key)) is type(value)


class PowerMachine(StorageMachine):
    durability: Durability = "power"


TestStorageModel = StorageMachine.TestCase
TestPowerModel = PowerMachine.TestCase
# Each step may open a file and wait for the disk.
TestStorageModel.settings = settings(max_examples=settings.default.max_examples // 2)
TestPowerModel.settings = settings(max_examples=settings.default.max_examples // 5)
