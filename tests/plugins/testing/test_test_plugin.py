"""`test_plugin`: the tests that every plugin gets, and those that are given."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from veko.errors import NotFoundError, OptionError, ServiceError
from veko_plugins import PluginManager, TestResults

pytestmark = pytest.mark.anyio


class Settings(msgspec.Struct):
    enabled: bool = True
    count: int = 1


def load(context: Any) -> None:
    context.hook("ask", lambda value: value + context.config.count)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    options: dict[str, Any] = {"storage": "none", "adapter": None, "max_retries": 0, "timeout": 5}
    async with PluginManager(root=tmp_path, **options) as manager:
        await manager.load_plugin(
            manager.create_simple_plugin("mine", load, config_schema=Settings), {"count": 2}
        )
        yield manager


async def test_D7_a_plugin_is_tested(manager: PluginManager) -> None:
    assert await manager.test_plugin("mine") == TestResults(
        4, 0, [], {"load": "PASS", "active": "PASS", "config": "PASS", "version": "PASS"}
    )


async def test_D7_own_tests_are_functions_of_the_plugin(manager: PluginManager) -> None:
    async def answers(plugin: Any) -> bool:
        await asyncio.sleep(0)
        return await manager.bus.emit("ask", 1) == 3

    def asserts(plugin: Any) -> None:
        assert plugin.name == "mine"

    results = await manager.test_plugin(
        "mine",
        {
            "custom-test": lambda plugin: plugin.config.enabled is True,
            "async-test": answers,
            "asserts": asserts,
            "false": lambda plugin: plugin.config.count == 7,
            "zero": lambda plugin: 0,
        },
    )
    assert (results.passed, results.failed, results.errors, results.ok) == (7, 2, [], False)
    assert results.details["custom-test"] == results.details["async-test"] == "PASS"
    assert results.details["asserts"] == "PASS"
    assert results.details["false"] == results.details["zero"] == "FAIL"


async def test_D7_what_a_test_raises_is_an_error_with_its_line(manager: PluginManager) -> None:
    def breaks(plugin: Any) -> None:
        raise KeyError("no such thing")

    def ends(plugin: Any) -> None:
        raise SystemExit(3)

    results = await manager.test_plugin("mine", {"breaks": breaks, "ends": ends})
    assert (results.passed, results.failed) == (4, 2)
    assert results.details["breaks"] == results.details["ends"] == "FAIL"
    assert "breaks: KeyError" in results.errors[0]
    assert Path(__file__).name in results.errors[0]
    assert "ends: SystemExit: 3" in results.errors[1]


async def test_D7_a_test_that_hangs_is_cut(tmp_path: Path) -> None:
    options: dict[str, Any] = {"storage": "none", "adapter": None, "timeout": 0.1}
    async with PluginManager(root=tmp_path, **options) as manager:
        await manager.load_plugin(manager.create_simple_plugin("mine", lambda: None))
        results = await manager.test_plugin("mine", {"hangs": lambda plugin: asyncio.sleep(60)})
    assert results.details["hangs"] == "FAIL"
    assert results.errors == ["hangs: it did not end within 0.1 s"]


async def test_D7_a_plugin_that_is_off_is_not_active(manager: PluginManager) -> None:
    await manager.toggle_plugin("mine", False)
    results = await manager.test_plugin("mine")
    assert (results.passed, results.failed) == (3, 1)
    assert results.details["active"] == "FAIL"


async def test_D7_a_config_that_was_damaged_is_found(manager: PluginManager) -> None:
    record = manager.get_plugin("mine")
    assert record is not None
    assert record.current is not None
    record.current.given["count"] = "many"
    results = await manager.test_plugin("mine")
    assert results.details["config"] == "FAIL"
    assert "count" in results.errors[0]


@pytest.mark.parametrize(
    "tests", [["x"], {"x": 1}, {1: print}, {"load": print}], ids=["list", "int", "key", "load"]
)
async def test_wrong_tests_are_refused(manager: PluginManager, tests: Any) -> None:
    with pytest.raises(OptionError):
        await manager.test_plugin("mine", tests)


async def test_an_unknown_plugin_is_named(manager: PluginManager) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        await manager.test_plugin("nothing")
    with pytest.raises(NotFoundError, match="created"):
        await PluginManager().test_plugin("mine")


async def test_it_is_loaded_once_and_only_when_needed(manager: PluginManager) -> None:
    assert "veko-testing" not in [one.name for one in manager.list_plugins(core=True)]
    await asyncio.gather(*(manager.test_plugin("mine") for _ in range(5)))
    assert [one.name for one in manager.list_plugins(core=True)].count("veko-testing") == 1
    assert await manager.use("testing").leaks("mine") == []


async def test_it_can_be_left_out(tmp_path: Path) -> None:
    options: dict[str, Any] = {"storage": "none", "adapter": None, "core": {"testing": None}}
    async with PluginManager(root=tmp_path, **options) as manager:
        await manager.load_plugin(manager.create_simple_plugin("mine", lambda: None))
        with pytest.raises(ServiceError, match="testing"):
            await manager.test_plugin("mine")
