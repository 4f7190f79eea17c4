"""`veko.lock` and plugins in workers: what is refused, and that the running version stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import PluginManager
from veko_plugins.remote import Lock, LockError, digest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def manage(tmp_path: Path) -> Callable[..., PluginManager]:
    (tmp_path / "plugins").mkdir()

    def make(**options: Any) -> PluginManager:
        return PluginManager(root=tmp_path, adapter=None, storage="none", max_retries=0, **options)

    return make


def script(root: Path, version: str, *permissions: str, more: str = "") -> Path:
    path = root / "plugins" / "shop.ts"
    path.write_text(
        f"{more}\nexport = {{ name: 'shop', version: {version!r}, load() {{}}, "
        f"permissions: {json.dumps(permissions)} }}\n"
    )
    return path


def computed(root: Path, version: str, *permissions: str) -> Path:
    """A plugin that says only when it runs what it asks for."""
    path = root / "plugins" / "shop.py"
    path.write_text(
        f"name = 'shop'\nversion = {version!r}\nisolation = 'process'\n"
        f"permissions = list({list(permissions)!r})\n"
        f"try:\n    open({str(root / 'ran')!r}, 'w').close()\nexcept OSError as error:\n    pass\n"
        "def load(): pass\n"
    )
    return path


async def allow(manager: PluginManager, root: Path, name: str = "shop") -> None:
    """Do what `veko allow` does."""
    service, source = (
        manager.use("permissions"),
        manager.use("discovery").find(
            root / "plugins" / next(p.name for p in (root / "plugins").iterdir())
        ),
    )
    async with manager.use("loading").preview(source) as plugin:
        fields = {
            key: getattr(plugin.manifest, key) for key in ("version", "permissions", "isolation")
        }
    lock = Lock.read(root) or Lock(root / "veko.lock")
    lock.entries[name] = service.entry(source, fields, digest(source))
    lock.write()


@pytest.mark.parametrize("write", [script, computed])
async def test_a_worker_that_asks_for_more_does_not_go_live_until_allowed(
    manage: Callable[..., PluginManager], tmp_path: Path, write: Callable[..., Path]
) -> None:
    write(tmp_path, "1.0.0", "env:read:A")
    async with manage(auto_load=False) as manager:
        await allow(manager, tmp_path)
    async with manage() as manager:
        assert set(manager.report.loaded) == {"shop"}
        write(tmp_path, "2.0.0", "env:read:A", "net:connect:evil.example")
        with pytest.raises(LockError) as caught:
            await manager.reload_plugin("shop")
        assert "net:connect:evil.example" in str(caught.value)
        assert "version 1.0.0 keeps running" in str(caught.value)
        assert manager.get_plugin("shop").version == "1.0.0"
        write(tmp_path, "3.0.0", "env:read:A")
        assert (await manager.reload_plugin("shop")).version == "3.0.0"
    assert not (tmp_path / "ran").exists()


async def test_the_code_of_a_script_that_asks_for_more_does_not_run(
    manage: Callable[..., PluginManager], tmp_path: Path
) -> None:
    """What it asks for is spelled out, so no worker is started to find out."""
    script(tmp_path, "1.0.0", "env:read:A")
    async with manage(auto_load=False) as manager:
        await allow(manager, tmp_path)
    async with manage() as manager:
        write = f"write:files:{tmp_path}"
        script(tmp_path, "2.0.0", write, more=f"Deno.mkdirSync({str(tmp_path / 'ran')!r});")
        with pytest.raises(LockError, match="asks for more"):
            await manager.reload_plugin("shop")
    assert not (tmp_path / "ran").exists()


async def test_a_script_that_drops_its_permissions_does_not_run_unconfined(
    manage: Callable[..., PluginManager], tmp_path: Path
) -> None:
    script(tmp_path, "1.0.0", "env:read:A")
    async with manage(auto_load=False) as manager:
        await allow(manager, tmp_path)
    script(tmp_path, "2.0.0", more=f"Deno.mkdirSync({str(tmp_path / 'ran')!r});")
    async with manage() as manager:
        text = str(manager.report.failed["shop"])
        assert "to run without being confined" in text
    assert not (tmp_path / "ran").exists()
