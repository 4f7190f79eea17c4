"""The contract: a good plugin has the highest tier; each flaw is found by the check for it."""

import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from veko.errors import NotFoundError
from veko_plugins import PluginManager
from veko_plugins.testing import Contract, Grade, Tier, own_tests

pytestmark = pytest.mark.anyio
GOOD = """
import msgspec

name = "good"
version = "1.2.0"
description = "Counts"
license = "MIT"
default_config = {"start": 1, "labels": {}}

class Settings(msgspec.Struct):
    start: int
    labels: dict[str, str]

config_schema = Settings

def load(context):
    context.hook("count", count)
    context.add_route("GET", "/count/{number:int}", lambda number: number + 1)
    context.add_route("POST", "/count", post)
    context.add_command("count", lambda: 1, "Counts")
    context.every(60, lambda: None)

def count(value):
    return value + 1

def post(data: Settings) -> int:
    return data.start
"""
FLAWS = {
    "valid": ("version = '1.2.0'", "version = 12"),
    "loads": ("def load(context):", "def load(context):\n    raise ValueError('no')"),
    "unloads": (
        "def load(context):",
        "def load(context):\n    import signal\n    signal.signal(signal.SIGUSR2, lambda *_: None)",
    ),
    "loads-again": (
        "def load(context):",
        "def load(context):\n    import sys\n    if hasattr(sys, 'veko_once'):\n"
        "        raise ValueError('twice')\n    sys.veko_once = 1",
    ),
    "reloads": (
        "def load(context):",
        "def load(context):\n    import sys\n    sys.veko_once = getattr(sys, 'veko_once', 0) + 1\n"
        "    if sys.veko_once > 3: raise ValueError('again')",
    ),
    "toggles": (
        "def load(context):",
        "def deactivate():\n    raise ValueError('no')\n\ndef load(context):",
    ),
    "validates-config": ("config_schema = Settings", ""),
    "refuses-requests": ("lambda number: number + 1", "lambda number: 1 // number"),
    "described": ("license = 'MIT'", ""),
    "undoes": (
        "def load(context):",
        "def load(context):\n    import sys\n    sys.veko_once = getattr(sys, 'veko_once', 0) + 1\n"
        "    if sys.veko_once > 6: sys.modules['veko_alias'] = sys.modules[__name__]",
    ),
    "collected": (
        "def load(context):",
        "def load(context):\n    import sys\n    sys.veko_once = count",
    ),
}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)
    sys.modules.pop("veko_alias", None)
    vars(sys).pop("veko_once", None)
    assert not logging.getLogger("veko").disabled


async def graded(folder: Path, text: str, **more: Any) -> Grade:
    plugins = folder / "plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "good.py").write_text(text)
    options: dict[str, Any] = {"auto_load": False, "adapter": "asgi", "max_retries": 0}
    options |= {"storage": "none", "watchdog": 0}
    async with PluginManager(root=folder, **options) as manager:
        return await Contract(manager.kernel, "good", app=manager.asgi, **more).run()


def failing(grade: Grade) -> dict[str, tuple[str, ...]]:
    return {one.name: one.problems for one in grade.checks if one.outcome == "FAIL"}


async def test_a_good_plugin_has_the_highest_tier(tmp_path: Path) -> None:
    grade = await graded(tmp_path, GOOD)
    assert failing(grade) == {}
    assert (grade.plugin, grade.version) == ("good", "1.2.0")
    assert (grade.tier, grade.next, grade.missing) == (Tier.PLATINUM, None, ())
    assert len(grade.checks) == 14


@pytest.mark.parametrize("check", FLAWS)
async def test_each_flaw_is_found(check: str, tmp_path: Path) -> None:
    old, new = FLAWS[check]
    text = GOOD.replace("'", '"')
    flawed = text.replace(old.replace("'", '"'), new)
    assert flawed != text
    grade = await graded(tmp_path, flawed)
    found = failing(grade)
    assert check in found, found
    assert not grade.reaches(next(one.tier for one in grade.checks if one.name == check))
    if check in ("valid", "loads"):
        assert grade.tier is Tier.NONE
    if check == "collected":
        (leak,) = grade.leaks
        assert leak.holder == "attribute `veko_once` of module sys"
        assert leak.planted is not None
        line = next(n for n, text in enumerate(flawed.splitlines(), 1) if "veko_once" in text)
        assert leak.planted.endswith(f"good.py:{line}")


async def test_a_failure_of_its_code_meanwhile_is_found(tmp_path: Path) -> None:
    text = GOOD + "\ndef unload():\n    raise ValueError('in unload')\n"
    found = failing(await graded(tmp_path, text))
    assert "in unload" in "".join(found["no-failures"])


async def test_missing_lists_what_the_next_tier_lacks(tmp_path: Path) -> None:
    text = GOOD.replace("config_schema = Settings", "").replace('license = "MIT"', "")
    grade = await graded(tmp_path, text)
    assert (grade.tier, grade.next) == (Tier.SILVER, Tier.GOLD)
    assert [line.partition(":")[0] for line in grade.missing] == ["validates-config"] * 2


async def test_its_own_tests_count(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    file = tests / "test_good.py"
    file.write_text("def test_one():\n    pass\n")
    assert failing(await graded(tmp_path, GOOD, own_tests=own_tests)) == {}
    file.write_text("def test_one():\n    assert 1 == 2\n")
    found = failing(await graded(tmp_path, GOOD, own_tests=own_tests))
    assert found["tests"] == ("test_good::test_one: assert 1 == 2",)
    file.write_text("import nothing_like_this\n")
    found = failing(await graded(tmp_path, GOOD, own_tests=own_tests))
    assert "nothing_like_this" in "".join(found["tests"]) or "collection" in str(found["tests"])
    file.unlink()
    found = failing(await graded(tmp_path, GOOD, own_tests=own_tests))
    assert found == {"tests": ("there are none",)}


async def test_a_plugin_that_does_not_exist_is_no_grade(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, storage="none", adapter="asgi") as manager:
        with pytest.raises(NotFoundError):
            await Contract(manager.kernel, "nothing").run()
