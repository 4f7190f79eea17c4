"""`veko.lock`: what it holds, what differs, and who does not go live."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko.errors import OptionError, VekoError
from veko_plugins import PluginManager
from veko_plugins._source.source import Source
from veko_plugins.remote import Entry, Lock, LockError, Permissions, changes, digest
from veko_plugins.remote.lock import growth


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def package(path: Path) -> Source:
    return Source(name="shop", kind="package", path=path)


# -- the file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = {
        "shop": Entry(
            version="1.0", source="plugins/shop.py", hash="sha256:0", confined=True,
            permissions=("env:read:APP_*", "read:files:./déjà vu"),
        ),
        "a.b-c": Entry(version='"\\\n\x7f\x01', source="é"),
    }  # fmt: skip
    Lock(tmp_path / "veko.lock", entries).write()
    read = Lock.read(tmp_path)
    assert read is not None
    assert read.entries == entries
    assert list(tmp_path.iterdir()) == [tmp_path / "veko.lock"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_survives_the_file(tmp_path_factory: Any, text: str) -> None:
    folder = tmp_path_factory.mktemp("lock")
    lock = Lock(folder / "veko.lock", {text: Entry(version=text, source=text, hash=text)})
    lock.write()
    assert Lock.read(folder) == lock


@pytest.mark.parametrize(
    "text",
    [
        "version = 2",
        "",
        "not toml",
        'version = 1\n[plugins.shop]\npermissions = ["fly"]',
        'version = 1\n[plugins.shop]\npermissions = ["read:files:./a/../../etc"]',
        "version = 1\n[plugins.shop]\nconfined = 1",
        "version = 1\nplugins = 1",
    ],
)
def test_a_file_that_is_not_valid_is_not_taken_for_missing(tmp_path: Path, text: str) -> None:
    (tmp_path / "veko.lock").write_text(text)
    with pytest.raises(OptionError, match=r"veko.lock is not valid"):
        Lock.read(tmp_path)


def test_a_file_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(tmp_path / "veko.lock", {"shop": Entry()})
    lock.write()
    before = lock.path.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    lock.entries = {}
    with pytest.raises(OSError, match="full"):
        lock.write()
    assert lock.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "veko.lock"]


# -- digests


def test_a_digest_covers_what_can_run(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "node_modules" / "x").mkdir(parents=True)
    (shop / "index.ts").write_text("1")
    (shop / "node_modules" / "x" / "index.js").write_text("1")
    (shop / "data.bin").write_bytes(b"x" * 200_000)
    (shop / "run").write_text("#!/bin/sh")
    seen = [digest(package(shop))]

    def differs(change: Callable[[], object]) -> None:
        change()
        now = digest(package(shop))
        assert now not in seen
        seen.append(now)

    differs(lambda: (shop / "index.ts").write_text("2"))
    differs(lambda: (shop / "node_modules" / "x" / "index.js").write_text("2"))
    differs(lambda: (shop / "data.bin").write_bytes(b"x" * 199_999 + b"y"))  # of the same size
    differs(lambda: (shop / "new.js").write_text(""))
    differs(lambda: (shop / "new.js").rename(shop / "newer.js"))
    differs(lambda: (shop / "run").chmod(0o755))
    differs(lambda: (shop / "link").symlink_to("/etc/passwd"))
    differs(lambda: ((shop / "link").unlink(), (shop / "link").symlink_to("/etc/group")))
    (tmp_path / "outside").mkdir()
    differs(lambda: (shop / "folder").symlink_to(tmp_path / "outside"))
    differs(lambda: (tmp_path / "outside" / "code.js").write_text("1"))


def test_a_digest_leaves_out_what_tools_write(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (shop / "__pycache__").mkdir(parents=True)
    (shop / "__init__.py").write_text("1")
    before = digest(package(shop))
    (shop / "__pycache__" / "x.pyc").write_text("1")
    os.utime(shop / "__init__.py", (0, 0))
    (shop / "circle").symlink_to(".")
    assert digest(package(shop)) != before  # of the link, which does not lead it astray
    (shop / "circle").unlink()
    assert digest(package(shop)) == before


def test_names_and_contents_cannot_be_mixed_up(tmp_path: Path) -> None:
    found = set()
    for number, files in enumerate([{"a": "b\n1 c d"}, {"a": "b", "c": "d"}, {"a\n1 c": "b"}]):
        shop = tmp_path / str(number)
        shop.mkdir()
        for name, text in files.items():
            (shop / name).write_text(text)
        found.add(digest(package(shop)))
    assert len(found) == 3


def test_a_device_or_fifo_is_no_file_to_wait_for(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    os.mkfifo(shop / "fifo")
    (shop / "zero").symlink_to("/dev/zero")
    assert digest(package(shop)).startswith("sha256:")


# -- what grew


@pytest.mark.parametrize(
    ("before", "now", "grown"),
    [
        (["read:files:./data"], ["read:files:./data/a"], []),
        (["read:files:./data"], ["read:files:./data", "env:read"], ["env:read"]),
        (["net:connect:a.example"], ["net:connect"], ["net:connect"]),
        (["net:connect"], ["net:connect:a.example:80"], []),
        (["write:files:."], ["read:files:./a"], []),
        ([], [], []),
    ],
)
def test_what_grew(before: list[str], now: list[str], grown: list[str]) -> None:
    old, new = (Entry(confined=True, permissions=tuple(one)) for one in (before, now))
    assert growth(old, new) == grown


def test_to_be_confined_no_more_is_growth() -> None:
    """Asking for nothing may be asking for everything."""
    confined = Entry(confined=True, permissions=("env:read",))
    assert growth(confined, Entry()) == ["to run without being confined"]
    assert growth(Entry(), confined) == ["env:read"]


def test_changes_are_shown() -> None:
    old = {"a": Entry(version="1", hash="1", confined=True, permissions=("env:read",)),
           "gone": Entry(), "same": Entry()}  # fmt: skip
    new = {"a": Entry(version="2", hash="2", confined=True, permissions=("net:connect",)),
           "same": Entry(), "trusted": Entry(version="1")}  # fmt: skip
    assert list(changes(old, new)) == [
        "~ a 2", "    + net:connect", "    - env:read", "    files changed", "- gone",
        "+ trusted 1  (not confined)",
    ]  # fmt: skip


# -- who goes live


class Shop:
    """An application with one plugin, whose core plugin `permissions` is told what to do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "plugins" / "shop.py"
        self.file.parent.mkdir()

    def write(self, version: str, *permissions: str, more: str = "", name: str = "shop") -> Path:
        path = self.file.with_name(f"{name}.py")
        ran = self.root / "ran"
        path.write_text(
            f"name = {name!r}\nversion = {version!r}\npermissions = {list(permissions)!r}\n{more}\n"
            f"with open({str(ran)!r}, 'a') as file: file.write({name!r})\ndef load(): pass\n"
        )
        return path

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """The plugin's code does not run meanwhile."""
        ran = self.root / "ran"
        ran.unlink(missing_ok=True)
        yield
        assert not ran.exists()

    def manager(self, **options: Any) -> PluginManager:
        service = Permissions(self.root, **options)
        return PluginManager(
            root=self.root, adapter=None, storage="none", core={"permissions": service},
            max_retries=0,
        )  # fmt: skip

    def allow(self, *names: str, sandbox: bool = True) -> None:
        service = Permissions(self.root, sandbox=sandbox)
        lock = Lock.read(self.root) or Lock(self.root / "veko.lock")
        for name in names or ("shop",):
            fields: dict[str, Any] = {}
            text = self.file.with_name(f"{name}.py").read_text().partition("with open(")[0]
            exec(text, fields)
            source = Source(name=name, kind="file", path=self.file.with_name(f"{name}.py"))
            lock.entries[name] = service.entry(source, fields, digest(source))
        lock.write()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_without_a_lock_and_a_sandbox_nothing_is_compared(shop: Shop) -> None:
    shop.write("1", "env:read:A")
    async with shop.manager() as manager:
        shop.write("2", "env:read", "net:connect")
        assert (await manager.reload_plugin("shop")).version == "2"
    assert not (shop.root / "veko.lock").exists()


async def test_a_version_that_asks_for_more_does_not_go_live_until_allowed(shop: Shop) -> None:
    shop.write("1", "env:read:A")
    shop.allow()
    async with shop.manager(sandbox=True) as manager:
        shop.write("2", "env:read:A", "net:connect:evil.example")
        with pytest.raises(LockError) as caught:
            await manager.reload_plugin("shop")
        text = str(caught.value)
        assert "version 2 asks for more than it was allowed: net:connect:evil.example" in text
        assert "version 1 keeps running" in text
        assert "veko allow shop" in text
        assert manager.get_plugin("shop").version == "1"
        shop.write("3", "env:read:A")  # which asks for no more
        assert (await manager.reload_plugin("shop")).version == "3"
        shop.write("4", "env:read:A", "net:connect:evil.example")
        shop.allow()
        assert (await manager.reload_plugin("shop")).version == "4"


async def test_a_refused_version_does_not_start_either(shop: Shop) -> None:
    shop.write("1", "env:read:A")
    shop.allow()
    shop.write("2", "env:read")
    async with shop.manager(sandbox=True) as manager:
        assert isinstance(manager.report.failed["shop"], LockError)


async def test_a_plugin_that_is_new_is_refused_unless_it_asks_for_nothing(shop: Shop) -> None:
    shop.write("1")
    shop.allow()
    shop.write("1", "env:read", name="greedy")
    shop.write("1", name="modest")
    async with shop.manager(sandbox=True) as manager:
        assert set(manager.report.loaded) == {"shop", "modest"}
        assert "it asks for env:read" in str(manager.report.failed["greedy"])


async def test_code_that_would_run_unconfined_does_not_run_before_it_is_allowed(
    shop: Shop,
) -> None:
    shop.write("1")
    shop.allow(sandbox=False)
    shop.write("1", name="stranger")
    async with shop.manager() as manager:
        assert "to run without being confined" in str(manager.report.failed["stranger"])
    assert "stranger" not in (shop.root / "ran").read_text()


async def test_a_plugin_that_was_confined_does_not_run_unconfined_before_it_is_allowed(
    shop: Shop,
) -> None:
    shop.write("1", more="isolation = 'process'")
    shop.allow(sandbox=False)
    shop.write("2")
    with shop.fresh():
        async with shop.manager() as manager:
            text = str(manager.report.failed["shop"])
            assert "version 2 asks for more" in text
            assert "to run without being confined" in text


async def test_a_worker_is_given_no_more_than_was_allowed_not_even_to_find_out_its_manifest(
    shop: Shop,
) -> None:
    path = shop.write("1", "env:read:A")
    source = Source(name="shop", kind="file", path=path)
    service = Permissions(shop.root, sandbox=True)
    assert service.grants(source, ["env:read"]) is not None  # nothing was decided yet
    shop.allow()
    allowed = service.grants(source, ["env:read:A"])
    assert allowed is not None
    assert allowed.allows("env:read", "A")
    with pytest.raises(LockError, match="asks for more than it was allowed: env:read"):
        service.grants(source, ["env:read"])
    stranger = Source(name="stranger", kind="script", path=path.with_name("stranger.ts"))
    with pytest.raises(LockError, match=r"veko.lock does not have it"):
        service.grants(stranger, ["env:read:A"])
    assert service.grants(stranger, []) is not None
    observed = Permissions(shop.root, sandbox=True, learn=True).grants(source, ["env:read"])
    assert observed is not None
    assert observed.everything


async def test_a_script_that_says_only_when_it_runs_that_it_is_confined(shop: Shop) -> None:
    path = shop.file.with_suffix(".js")
    path.write_text("module.exports = { permissions: ask(), load() {} }")
    source = Source(name="shop", kind="script", path=path)
    service = Permissions(shop.root)
    assert service.grants(source, []) is None  # trusted, as without permissions
    asked = {"version": "1", "permissions": ["env:read:A"]}
    entry = service.entry(source, asked, digest(source))
    assert entry.confined
    Lock(shop.root / "veko.lock", {"shop": entry}).write()
    first = service.grants(source, [])
    assert first is not None
    assert first.permissions == ()
    second = service.grants(source, ["env:read:A"], folder=shop.root)
    assert second is not None
    assert second.allows("env:read", "A")
    assert second.folder == shop.root
    with pytest.raises(LockError):
        service.grants(source, ["env:read:B"])


def test_what_is_observed_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="exclude each other"):
        Permissions(tmp_path, locked=True, learn=True)


async def test_another_file_cannot_take_a_plugins_name(shop: Shop) -> None:
    shop.write("1", "env:read")
    shop.allow()
    thief = shop.file.rename(shop.file.with_name("thief.py"))
    async with shop.manager(sandbox=True) as manager:
        assert thief.exists()
        text = str(manager.report.failed["shop"])
        assert "to be plugins/thief.py instead of plugins/shop.py" in text


async def test_locked_refuses_other_files_before_they_run(shop: Shop) -> None:
    shop.write("1", "env:read:A")
    with shop.fresh():
        async with shop.manager(locked=True) as manager:
            assert "there is no veko.lock" in str(manager.report.failed["shop"])
    shop.allow(sandbox=False)
    async with shop.manager(locked=True) as manager:
        assert set(manager.report.loaded) == {"shop"}
        await manager.reload_plugin("shop")
        shop.write("1", "env:read:A", more="changed = True")
        with shop.fresh(), pytest.raises(LockError, match="not those of version 1"):
            await manager.reload_plugin("shop")
    with shop.fresh():
        async with shop.manager(locked=True) as manager:
            assert isinstance(manager.report.failed["shop"], LockError)


async def test_locked_refuses_other_permissions(shop: Shop) -> None:
    """Also fewer: a lock that says more than is asked for is not what was reviewed."""
    shop.write("1", "env:read:A")
    shop.allow(sandbox=False)
    lock = Lock.read(shop.root)
    assert lock is not None
    entry = lock.entries["shop"]
    lock.entries["shop"] = Entry(
        version=entry.version, source=entry.source, hash=entry.hash, permissions=("env:read",)
    )
    lock.write()
    async with shop.manager(locked=True) as manager:
        assert "its permissions are not those" in str(manager.report.failed["shop"])


async def test_locked_refuses_files_that_change_while_they_are_imported(shop: Shop) -> None:
    shop.write("1", more=f"with open({str(shop.file)!r}, 'a') as f: f.write('#')")
    shop.allow(sandbox=False)
    async with shop.manager(locked=True) as manager:
        assert "not those of version 1" in str(manager.report.failed["shop"])


async def test_a_lock_that_is_not_valid_lets_nothing_load(shop: Shop) -> None:
    shop.write("1")
    (shop.root / "veko.lock").write_text("version = 1\n[plugins")
    with shop.fresh():
        async with shop.manager() as manager:
            assert "veko.lock is not valid" in str(manager.report.failed["shop"])


async def test_the_first_start_with_a_sandbox_trusts_what_it_finds(shop: Shop) -> None:
    shop.write("1", "env:read:A")
    async with shop.manager(sandbox=True) as manager:
        lock = Lock.read(shop.root)
        assert lock is not None
        assert lock.entries["shop"].permissions == ("env:read:A",)
        assert lock.entries["shop"].hash == digest(Source(name="shop", kind="file", path=shop.file))
        shop.write("2", "env:read")
        with pytest.raises(LockError, match="asks for more"):
            await manager.reload_plugin("shop")


async def test_while_plugins_are_developed_no_lock_is_written(shop: Shop) -> None:
    shop.write("1", "env:read:A")
    async with shop.manager(sandbox=True, dev_mode=True) as manager:
        shop.write("2", "env:read")
        assert (await manager.reload_plugin("shop")).version == "2"
    assert not (shop.root / "veko.lock").exists()


# -- the context's doors


async def test_a_service_with_data_needs_a_permission(shop: Shop) -> None:
    database = (
        "name = 'db'\nversion = '1'\ntype = 'database'\n"
        "def load(context): context.provide('orders', {'a': 1})\n"
    )
    (shop.file.parent / "db.py").write_text(database)
    use = "def load(context):\n    global found\n    found = context.use('orders')\n"

    def user(name: str, *permissions: str) -> None:
        (shop.file.parent / f"{name}.py").write_text(
            f"name = {name!r}\nversion = '1'\ndependencies = ['db']\n"
            f"permissions = {list(permissions)!r}\n{use}"
        )

    user("silent")
    user("asking", "read:database:orders")
    user("asking-all", "write:database")
    user("by-plugin", "read:database:db")
    user("refused", "read:files:./data")
    user("other", "read:database:other")
    async with shop.manager() as manager:
        assert set(manager.report.loaded) == {"db", "silent", "asking", "asking-all", "by-plugin"}
        for name in ("refused", "other"):
            assert "read:database:orders is not granted" in str(manager.report.failed[name])


async def test_H_source_imported_refuses_a_plugin(shop: Shop) -> None:
    path = shop.write("1")
    seen: list[tuple[str, Path | None]] = []

    def refuse(plugin: Any, source: Source) -> None:
        seen.append((plugin.manifest.name, source.path))
        if len(seen) > 1:
            raise VekoError("not today")

    guard = {"name": "guard", "version": "1", "load": lambda context: context.hook(
        "source:imported", refuse)}  # fmt: skip
    manager = PluginManager(root=shop.root, adapter=None, storage="none", auto_load=False)
    async with manager:
        await manager.load_plugin(guard)
        await manager.load_plugin(path)
        shop.write("2")
        with pytest.raises(VekoError, match="not today"):
            await manager.reload_plugin("shop")
        assert manager.get_plugin("shop").version == "1"
        assert seen == [("shop", path)] * 2


async def test_what_was_accessed_is_written_for_this_user_alone(shop: Shop) -> None:
    shop.write("1")
    async with shop.manager() as manager:
        service = manager.use("permissions")
        service.accesses.record("shop", "read:files", "/etc/passwd", granted=False)
        service.save()
        file = shop.root / ".veko" / "accesses.json"
        assert b"/etc/passwd" in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0
        before = file.stat().st_mtime_ns
        service.save()  # nothing is new
        assert file.stat().st_mtime_ns == before
    left = {path.name for path in file.parent.iterdir() if "accesses" in path.name}
    assert left == {"accesses.json"}
