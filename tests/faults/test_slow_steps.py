"""A plugin that does not come to an end is named while it runs, with the line."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import PluginManager
from veko_plugins.manager import slow_steps

SLOW = {
    "awaits": ("import asyncio\n", "async def load():\n    await asyncio.sleep(60)  # here\n"),
    "blocks": ("import time\n", "def load():\n    time.sleep(0.9)  # here\n"),
    "imports": ("import time\n", "time.sleep(0.9)  # here\ndef load(): ...\n"),
    "activates": (
        "import asyncio\n",
        "def load(): ...\nasync def activate():\n    await asyncio.sleep(60)  # here\n",
    ),
}


@pytest.mark.parametrize("how", SLOW)
async def test_what_takes_long_is_named_with_its_line(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(slow_steps, "FIRST", 0.3)
    file = tmp_path / "plugins" / "slow.py"
    file.parent.mkdir()
    first, rest = SLOW[how]
    file.write_text(f'{first}name = "slow"\nversion = "1.0.0"\n{rest}')
    options: dict[str, Any] = {"adapter": None, "storage": "none", "timeout": 1.5}
    began = asyncio.get_running_loop().time()
    async with PluginManager(root=tmp_path, **options):
        took = asyncio.get_running_loop().time() - began
    line = file.read_text().partition("# here")[0].count("\n") + 1
    said = [one.getMessage() for one in caplog.records if one.name == "veko.loading"]
    assert said
    assert all(text.startswith("slow: ") for text in said)
    assert f" at {file}:{line}" in said[0]
    assert len(said) <= 3  # 0.3 s, 0.6 s, 1.2 s
    assert took < 5, "a time-out is tried again"


async def test_nothing_is_said_of_what_is_quick(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    for number in range(20):
        text = f'name = "p{number}"\nversion = "1.0.0"\ndef load(): ...\n'
        (folder / f"p{number}.py").write_text(text)
    caplog.set_level(logging.INFO)
    async with PluginManager(root=tmp_path, adapter=None, storage="none"):
        pass
    assert [one for one in caplog.records if one.name == "veko.loading"] == []
