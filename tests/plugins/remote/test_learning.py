"""The least permissions that accesses need, and where they are written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko_plugins._lib.permissions import PERMISSIONS, covers, parse_permission
from veko_plugins._source.source import Source
from veko_plugins.remote.accesses import Access
from veko_plugins.remote.learning import (
    Learned,
    learned,
    least_permissions,
    write_learned,
    write_manifest,
)

APP = Path("/srv/app")


def least(kind: str, values: Iterable[str]) -> list[str]:
    found = [Access(kind, value, True, 1) for value in values]
    return [str(one).removeprefix(f"{kind}:") for one in least_permissions(found, APP)]


@pytest.mark.parametrize(
    ("values", "scopes"),
    [
        (["/srv/app/data/a", "/srv/app/data/b"], ["./data/a", "./data/b"]),
        ([f"/srv/app/data/{n}" for n in range(400)], ["./data"]),
        ([f"/srv/app/data/{n % 20}/{n}" for n in range(400)], ["./data"]),
        ([f"/srv/app/{n}.txt" for n in range(5)], [f"./{n}.txt" for n in range(5)]),
        ([f"/etc/{n}.conf" for n in range(5)], [f"/etc/{n}.conf" for n in range(5)]),
        ([f"/etc/x/{n}.conf" for n in range(5)], ["/etc/x"]),
        ([f"/{n}" for n in range(5)], [f"/{n}" for n in range(5)]),
        (["/srv/app/data/../other/a"], ["./other/a"]),
        (["/srv/application/a"], ["/srv/application/a"]),
        (["/srv/app/a,b", "/srv/app/\0"], []),
    ],
)
def test_files(values: list[str], scopes: list[str]) -> None:
    assert least("read:files", values) == scopes


def test_what_is_written_to_is_a_folder() -> None:
    assert least("write:files", ["/srv/app/out/tmp1", "/srv/app/out/deep/x"]) == ["./out"]
    assert least("write:files", ["/srv/app/state.json"]) == ["./state.json"]
    assert least("write:files", ["/tmp/x"]) == ["/tmp/x"]


def test_writing_includes_reading() -> None:
    found = [Access("write:files", "/srv/app/out/a", True), Access("read:files", "/srv/app/out/b",
             True)]  # fmt: skip
    assert list(map(str, least_permissions(found, APP))) == ["write:files:./out"]


@pytest.mark.parametrize(
    ("values", "scopes"),
    [
        (["a.example:80", "a.example:443"], ["a.example:443", "a.example:80"]),
        ([f"a.example:{n}" for n in range(1, 9)], ["a.example"]),
        ([f"{n}.example.com:443" for n in "abcd"], ["*.example.com:443"]),
        ([f"{n}.example.com:443" for n in "abc"], [f"{n}.example.com:443" for n in "abc"]),
        ([f"{n}.com:443" for n in "abcd"], [f"{n}.com:443" for n in "abcd"]),
        ([f"{n}.co.uk:443" for n in "abcd"], [f"{n}.co.uk:443" for n in "abcd"]),
        (["127.0.0.1:1", "[::1]:1"], ["127.0.0.1:1", "[::1]:1"]),
        (["unix:/run/x.sock", "a b:1"], []),
    ],
)
def test_hosts(values: list[str], scopes: list[str]) -> None:
    assert least("net:connect", values) == scopes


def test_ports_variables_and_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert least("net:listen", ["0.0.0.0:80", "[::]:81", "127.0.0.1:82"]) == [
        "127.0.0.1:82", ":80", ":81",
    ]  # fmt: skip
    assert least("net:listen", ["0.0.0.0:0", "0.0.0.0:80"]) == ["net:listen"]
    names = ["APP_A", "APP_B", "APP_C", "APP_D", "DB_A", "HOME"]
    for name in names:
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("NODE_ENV", raising=False)
    assert least("env:read", [*names, "NODE_ENV", ""]) == ["APP_*", "DB_A", "HOME"]
    assert least("process:spawn", ["/usr/bin/git", "/opt/x/run"]) == ["/opt/x/run", "git"]
    assert least("process:spawn", [""]) == ["process:spawn"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(PERMISSIONS),
            st.sampled_from(
                ["/srv/app/a/b", "/srv/app/a/c", "/srv/app/a/d/e", "/srv/app/f", "/etc/x/y/z",
                 "a.example.com:80", "b.example.com:80", "10.0.0.1:1", "orders", "/bin/sh"]
            ),
        ),
        max_size=40,
    )
)  # fmt: skip
def test_whatever_is_generalised_covers_what_was_done(pairs: list[tuple[str, str]]) -> None:
    found = [Access(kind, value, True) for kind, value in pairs if kind != "env:read"]
    needed = least_permissions(found, Path("/nowhere"))
    for one in found:
        if not one.permission:
            continue
        asked = parse_permission(one.permission)
        if asked.kind == "process:spawn" and asked.scope == "/bin/sh":
            asked = parse_permission("process:spawn:sh")
        assert any(covers(permission, asked) for permission in needed), (one, needed)
    for permission in needed:
        assert not any(covers(o, permission) for o in needed if o != permission)


# -- where it is written


def one(path: Path, *needed: str, declared: tuple[str, ...] = ()) -> Learned:
    kind = "package" if path.is_dir() else "file"
    return Learned("shop", Source(name="shop", kind=kind, path=path), declared, needed)


def test_its_own_files_need_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "plugins" / "shop"
    folder.mkdir(parents=True)
    found = [
        Access("read:files", str(folder / "views" / "a.html"), True),
        Access("write:files", str(folder / "cache" / "a"), True),
    ]
    result = learned("shop", Source(name="shop", kind="package", path=folder), [], found, tmp_path)
    assert result.needed == ("write:files:./plugins/shop/cache",)


def test_what_no_permission_grants_is_said(tmp_path: Path) -> None:
    found = [Access("ffi", "libc.so.6", True), Access("env:read", "", True)]
    source = Source(name="shop", kind="file", path=tmp_path / "shop.py")
    result = learned("shop", source, ["env:read:*"], found, tmp_path)
    assert result.needed == ()
    assert result.difference() == ["- env:read", "! no permission grants ffi:libc.so.6"]


def test_the_learned_file_is_what_a_manifest_takes(tmp_path: Path) -> None:
    file = write_learned(
        one(tmp_path, "net:connect:[::1]:80", 'read:files:./"x"', declared=("env:read",)), tmp_path
    )
    assert file == tmp_path / ".veko" / "learned" / "shop.toml"
    assert tomllib.loads(file.read_text()) == {
        "permissions": ["net:connect:[::1]:80", 'read:files:./"x"']
    }
    assert "# - env:read" in file.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        'name = "shop"',
        'name = "shop"\n\n[default_config]\npermissions = ["mine"]\n',
        '# about\npermissions = ["net:connect:[::1]:80", \'x]\'] # why\nname = "shop"\n',
        'permissions = [\n  "read:files",\n]\n[engines]\npython = ">=3"\n',
        "permissions = []\n",
    ],
)
def test_plugin_toml_keeps_all_else(tmp_path: Path, text: str) -> None:
    file = tmp_path / "plugin.toml"
    file.write_text(text)
    assert write_manifest(one(tmp_path, "env:read:A", "net:connect:[::1]:80")) == file
    table = tomllib.loads(file.read_text())
    assert table.pop("permissions") == ["env:read:A", "net:connect:[::1]:80"]
    before = tomllib.loads(text)
    before.pop("permissions", None)
    assert table == before
    assert ("# about" in text) == ("# about" in file.read_text())


def test_a_file_that_a_program_cannot_change_stays(tmp_path: Path) -> None:
    file = tmp_path / "plugin.toml"
    text = 'note = """\npermissions = ["x"]\n"""\nname = "shop"\n'
    file.write_text(text)
    with pytest.raises(ValueError, match="cannot be changed by a program"):
        write_manifest(one(tmp_path, "env:read:A"))
    assert file.read_text() == text


def test_package_json_keeps_all_else(tmp_path: Path) -> None:
    file = tmp_path / "package.json"
    file.write_text('{\n    "name": "shop",\n    "veko": {"reload": "swap"}\n}\n')
    assert write_manifest(one(tmp_path, "env:read:A")) == file
    assert json.loads(file.read_text()) == {
        "name": "shop", "veko": {"reload": "swap", "permissions": ["env:read:A"]}
    }  # fmt: skip
    assert file.read_text().startswith('{\n    "name"')
    file.write_text('{"veko": []}')
    with pytest.raises(ValueError, match="is not a table"):
        write_manifest(one(tmp_path, "env:read:A"))


def test_source_code_is_never_changed(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text("permissions = []")
    assert write_manifest(one(file, "env:read:A")) is None
    assert file.read_text() == "permissions = []"
    assert list(tmp_path.iterdir()) == [file]
