"""The grammar of `permissions`, and what they grant; with attacks on both."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veko.errors import ManifestError
from veko_plugins._lib.permissions import PERMISSIONS, covers, parse_permission
from veko_plugins.remote.addresses import address_of, canonical_host, is_internal, is_loopback
from veko_plugins.remote.deno.flags import deno_flags
from veko_plugins.remote.permissions import Grants, grants

# -- the grammar


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("read:files", "read:files"),
        ("read:files:./data", "read:files:./data"),
        ("read:files:data/", "read:files:./data"),
        ("read:files:./data//a/./b", "read:files:./data/a/b"),
        ("read:files:.", "read:files:."),
        ("read:files:../shared", "read:files:../shared"),
        ("write:files:/var/lib/x/", "write:files:/var/lib/x"),
        ("read:files://etc", "read:files:/etc"),
        ("read:files:./a:b", "read:files:./a:b"),
        ("read:files:./déjà", "read:files:./déjà"),
        ("net:connect:Example.COM.", "net:connect:example.com"),
        ("net:connect:example.com:443", "net:connect:example.com:443"),
        ("net:connect:*.example.com", "net:connect:*.example.com"),
        ("net:connect::443", "net:connect::443"),
        ("net:connect:443", "net:connect::443"),
        ("net:connect:127.0.0.1:80", "net:connect:127.0.0.1:80"),
        ("net:connect:[::1]:80", "net:connect:[::1]:80"),
        ("net:connect:::1", "net:connect:[::1]"),
        ("net:connect:[::FFFF:10.0.0.1]", "net:connect:10.0.0.1"),
        ("net:connect:xn--bcher-kva.example", "net:connect:xn--bcher-kva.example"),
        ("net:listen:8080", "net:listen::8080"),
        ("net:listen:127.0.0.1:8080", "net:listen:127.0.0.1:8080"),
        ("env:read:APP_*", "env:read:APP_*"),
        ("env:read:*", "env:read"),
        ("process:spawn:git", "process:spawn:git"),
        ("process:spawn:/usr/bin/git", "process:spawn:/usr/bin/git"),
        ("read:database:orders", "read:database:orders"),
    ],
)
def test_a_permission_has_one_normal_form(text: str, normal: str) -> None:
    permission = parse_permission(text)
    assert str(permission) == normal
    assert parse_permission(str(permission)) == permission


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("read:files:./data/../../etc", "'..' may only begin"),
        ("read:files:/var/../etc", "'..' may only begin"),
        ("read:files:.\\data", "write /"),
        ("read:files:~/x", "is not expanded"),
        ("read:files:$HOME/x", "is not expanded"),
        ("read:files:./*.txt", "a folder stands for all"),
        ("read:files:./a,/etc", "','"),  # a second path to Deno
        ("read:files:./a\0b", "U+0000"),
        ("read:files:./a\nb", "U+000A"),
        ("read:files:./a\u202etxt", "U+202E"),  # reads backwards
        ("read:files:./a\u200bb", "U+200B"),
        ("read:files:./a\u2025", "U+2025"),  # a two-dot leader
        ("read:files:\uff0e\uff0e/etc", "U+FF0E"),
        ("read:files:./a\uff0fb", "U+FF0F"),
        ("read:files: ./a", "white space"),
        ("read:files:" + "a" * 2000, "characters"),
        ("net:connect:http://example.com", "without a scheme"),
        ("net:connect:example.com/path", "without a scheme"),
        ("net:connect:user@example.com", "without a scheme"),
        ("net:connect:*", "without a scheme"),
        ("net:connect:*.com", "at least two parts"),
        ("net:connect:a.*.com", "without a scheme"),
        ("net:connect:example.com:0", "1 to 65535"),
        ("net:connect:example.com:99999", "1 to 65535"),
        ("net:connect:example.com:+80", "1 to 65535"),
        ("net:connect:example.com:٨٠", "ASCII"),
        ("net:connect:bücher.example", "ASCII"),
        ("net:connect:127。0。0。1", "ASCII"),
        ("net:connect:127.1", "four numbers"),
        ("net:connect:0x7f000001", "four numbers"),
        ("net:connect:0177.0.0.1", "four numbers"),
        ("net:connect:2130706433", "1 to 65535"),
        ("net:connect:[::1", "in brackets"),
        ("net:connect:[fe80::1%eth0]", "without a scheme"),
        ("net:connect:::1:80:zz", "without a scheme"),
        ("net:connect:-x.example", "without a scheme"),
        ("net:connect:a..b", "without a scheme"),
        ("net:listen:example.com:80", "an address of this machine"),
        ("env:read:A,B", "name of a variable"),
        ("env:read:A=B", "name of a variable"),
        ("process:spawn:git status", "a program"),
        ("process:spawn:-c", "a program"),
        ("read:database:../x", "name of a storage namespace"),
    ],
)
def test_a_scope_with_two_readings_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_permission(text)
    assert why in str(caught.value)


@given(st.sampled_from(PERMISSIONS), st.text(min_size=1, max_size=40))
def test_any_scope_is_refused_or_has_a_normal_form(kind: str, scope: str) -> None:
    try:
        permission = parse_permission(f"{kind}:{scope}")
    except ValueError:
        return
    assert parse_permission(str(permission)) == permission
    assert covers(permission, permission)
    assert "\0" not in permission.scope
    assert "," not in permission.scope


@pytest.mark.parametrize(
    ("granted", "asked", "answer"),
    [
        ("read:files", "read:files:/etc", True),
        ("read:files:./data", "read:files", False),
        ("read:files:./data", "read:files:./data/a", True),
        ("read:files:./data", "read:files:./data2", False),
        ("read:files:./data", "read:files:./Data", False),
        ("read:files:.", "read:files:./data", True),
        ("read:files:.", "read:files:../data", False),
        ("read:files:/", "read:files:/etc", True),
        ("read:files:./data", "write:files:./data", False),
        ("write:files:./data", "read:files:./data/a", True),
        ("read:database", "write:database", False),
        ("write:database", "read:database", False),
        ("net:connect:*.example.com", "net:connect:a.example.com:443", True),
        ("net:connect:*.example.com", "net:connect:example.com", True),
        ("net:connect:*.example.com", "net:connect:badexample.com", False),
        ("net:connect:example.com:443", "net:connect:example.com", False),
        ("net:connect:example.com", "net:connect:*.example.com", False),
        ("net:connect::443", "net:connect:example.com:443", True),
        ("net:connect::443", "net:connect:example.com:80", False),
        ("net:connect", "net:listen:80", False),
        ("env:read:APP_*", "env:read:APP_KEY", True),
        ("env:read:APP_*", "env:read:APP", False),
        ("env:read:APP_*", "env:read:APP_A*", True),
        ("env:read:APP_KEY", "env:read:APP_*", False),
        ("process:spawn:git", "process:spawn:/usr/bin/git", False),
    ],
)
def test_what_a_permission_includes(granted: str, asked: str, answer: bool) -> None:
    assert covers(parse_permission(granted), parse_permission(asked)) is answer


# -- what is granted


@pytest.fixture
def app(tmp_path: Path) -> Path:
    home = tmp_path / "app"
    (home / "plugins" / "shop").mkdir(parents=True)
    (home / "data").mkdir()
    return home


def granted(app: Path, *permissions: str) -> Grants:
    return grants(permissions, folder=app / "plugins" / "shop", directory=app, plugin="shop")


def test_faults_are_reported_together(app: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        granted(app, "read:files:~", "env:read", "fly")
    assert [fault.path for fault in caught.value.faults] == ["permissions[0]", "permissions[2]"]


def test_nothing_is_granted_without_a_permission(app: Path) -> None:
    none = granted(app)
    for kind in PERMISSIONS:
        assert not none.allows(kind)
        assert not none.allows(kind, "/etc/passwd" if "files" in kind else "x")
    assert none.paths("read:files") == ()
    assert none.ports("net:connect") == ()
    assert none.programs() == ()
    assert none.environment({"HOME": "/", "PATH": "/bin"}) == {}


def test_own_files_and_modules_may_be_read(app: Path) -> None:
    (app / "node_modules" / "x").mkdir(parents=True)
    none = granted(app)
    assert none.own() == (app / "plugins" / "shop", app / "node_modules")
    assert none.allows("read:files", str(app / "plugins" / "shop" / "index.ts"))
    assert none.allows("read:files", str(app / "node_modules" / "x" / "index.js"))
    assert not none.allows("read:files", str(app / "plugins" / "other.py"))
    assert not none.allows("write:files", str(app / "plugins" / "shop" / "index.ts"))


@pytest.mark.parametrize("climb", ["..", "x/../..", "./data/../.."])
def test_paths_do_not_leave_their_scope_by_dots(app: Path, climb: str) -> None:
    read = granted(app, "read:files:./data")
    assert read.allows("read:files", str(app / "data" / "a"))
    assert not read.allows("read:files", f"{app}/data/{climb}/secret")


def test_links_in_a_scope_do_not_lead_out(app: Path, tmp_path: Path) -> None:
    read = granted(app, "read:files:./data")
    (tmp_path / "secret").write_text("x")
    (app / "data" / "link").symlink_to(tmp_path / "secret")
    assert not read.allows("read:files", str(app / "data" / "link"))
    assert read.paths("read:files") == (app / "data",)


@pytest.mark.parametrize("where", ["plugins/shop/data", "data/inner"])
def test_links_that_a_plugin_may_have_made_are_no_scope(
    app: Path, tmp_path: Path, where: str
) -> None:
    (app / where).symlink_to(tmp_path)
    with pytest.raises(ManifestError, match="symbolic link that the plugin may have made"):
        granted(app, f"read:files:./{where}").paths("read:files")
    with pytest.raises(ManifestError, match="symbolic link"):
        granted(app, f"write:files:./{where}/x").paths("write:files", create=True)
    assert not (tmp_path / "x").exists()


def test_links_of_the_operator_are_followed(app: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (app / "store").symlink_to(volume)
    assert granted(app, "read:files:./store").paths("read:files") == (volume,)
    assert granted(app, "read:files:./store").allows("read:files", str(volume / "a"))
    with pytest.raises(ManifestError, match="symbolic link"):  # which it could replace
        granted(app, "read:files:./store", "write:files:.").paths("read:files")


def test_links_where_it_may_write_outside_of_the_application_are_no_scope(
    app: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "new").symlink_to("/etc")
    asked = (f"write:files:{outside}", f"read:files:{outside}/new")
    with pytest.raises(ManifestError, match="symbolic link"):
        granted(app, *asked).paths("read:files")


def test_links_in_a_circle_end(app: Path) -> None:
    (app / "a").symlink_to("b")
    (app / "b").symlink_to("a")
    with pytest.raises(ManifestError, match="too many"):
        granted(app, "read:files:./a").paths("read:files")


def test_links_as_node_modules_of_the_plugin_open_nothing(app: Path, tmp_path: Path) -> None:
    (app / "plugins" / "shop" / "node_modules").symlink_to(tmp_path)
    assert granted(app).own() == (app / "plugins" / "shop",)


def test_missing_folders_to_write_to_are_made_inside_the_application(
    app: Path, tmp_path: Path
) -> None:
    write = granted(app, "write:files:./out/a", f"write:files:{tmp_path}/elsewhere")
    assert write.paths("write:files", create=True)[0] == app / "out" / "a"
    assert (app / "out" / "a").is_dir()
    assert not (tmp_path / "elsewhere").exists()


def test_variables(app: Path) -> None:
    some = granted(app, "env:read:APP_*", "env:read:HOME")
    given = {"APP_KEY": "1", "APPX": "2", "HOME": "3", "LD_PRELOAD": "4", "home": "5"}
    assert some.environment(given) == {"APP_KEY": "1", "HOME": "3"}
    assert granted(app, "env:read").environment(given).keys() == {"APP_KEY", "APPX", "HOME", "home"}
    assert granted(app, "env:read:LD_PRELOAD").environment(given) == {}


def test_programs(app: Path) -> None:
    some = granted(app, "process:spawn:sh", "process:spawn:no-such-program")
    (program,) = some.programs() or ()
    assert program == Path(os.path.realpath("/bin/sh"))
    assert some.allows("process:spawn", "sh")
    assert some.allows("process:spawn", "/bin/sh")
    assert not some.allows("process:spawn", "/bin/ls")
    assert granted(app, "process:spawn").programs() is None


def test_ports(app: Path) -> None:
    assert granted(app, "net:connect:a.example:443", "net:connect:80").ports("net:connect") == (
        80, 443,
    )  # fmt: skip
    assert granted(app, "net:connect:a.example").ports("net:connect") is None
    assert granted(app, "net:listen:8080").ports("net:listen") == (8080,)


# -- the kernel


def test_the_kernel_gets_what_is_granted_and_nothing_else(app: Path) -> None:
    nothing = granted(app).confinement()
    assert nothing is not None
    assert nothing.read == (app / "plugins" / "shop",)
    assert (nothing.write, nothing.execute) == ((), ())
    assert (nothing.connect, nothing.listen, nothing.udp, nothing.spawn) == ((), (), False, False)
    some = granted(
        app, "write:files:./out", "net:connect:db.example:5432", "net:listen:80", "process:spawn:sh"
    ).confinement(read=[Path("/opt")], execute=[Path("/bin/deno")], memory=2**20)
    assert some is not None
    assert some.write == (app / "out",)
    assert (app / "out").is_dir()
    assert Path("/opt") in some.read
    assert Path("/etc/resolv.conf").resolve() in some.read
    assert some.execute == (Path("/bin/deno").resolve(), Path("/bin/sh").resolve())
    for path in (*some.read, *some.write, *some.execute):
        assert path == path.resolve()
    assert (some.connect, some.listen, some.udp, some.spawn) == ((5432, 53), (80,), True, True)
    assert some.memory == 2**20


def test_a_worker_for_which_the_host_connects_opens_no_socket(app: Path) -> None:
    brokered = granted(app, "net:connect").confinement(brokered=True)
    assert brokered is not None
    assert (brokered.connect, brokered.udp) == ((), False)


def test_writing_includes_reading(app: Path) -> None:
    write = granted(app, "write:files:./data")
    assert write.allows("read:files", str(app / "data" / "a"))
    assert f"{app}/data" in deno_flags(write)[2]


# -- hosts


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.COM.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127。0。0。1", "127.0.0.1"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:7f00:1", "127.0.0.1"),
    ],
)
def test_each_host_has_one_spelling(text: str, host: str) -> None:
    assert canonical_host(text) == host


@pytest.mark.parametrize(
    "text",
    ["", ".", "a\0.example", "a b", "fe80::1%eth0", "a/b", "1.2.3.4.5", "256.1.1.1", "x" * 300,
     "\ud800", "a:b", "http://a"],
)  # fmt: skip
def test_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        canonical_host(text)


@given(st.text(max_size=60))
def test_any_text_is_a_host_in_one_spelling_or_none(text: str) -> None:
    try:
        host = canonical_host(text)
    except ValueError:
        return
    assert canonical_host(host) == host
    assert host.isascii()


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("api.example.com:443", True),
        ("API.example.com.:443", True),
        ("api.example.com:80", False),
        ("api.example.com.evil.example:443", False),
        ("evilapi.example.com:443", False),
        ("api.example.com@evil.example:443", False),
        ("api.example.com\0.evil.example:443", False),
        ("other.example.com:8080", False),
        ("sub.wild.example:1", True),
        ("wild.example:1", True),
        ("wild.example", True),
        ("unwild.example:1", False),
        ("10.0.0.1:5432", True),
        ("[::ffff:10.0.0.1]:5432", True),
        ("167772161:5432", True),  # 10.0.0.1
        ("10.0.0.2:5432", False),
        ("anything.example:8443", True),
        ("unix:/run/docker.sock", False),
        (":8443", False),
    ],
)
def test_hosts_are_granted_in_any_spelling(app: Path, value: str, answer: bool) -> None:
    some = granted(
        app,
        "net:connect:api.example.com:443",
        "net:connect:*.wild.example",
        "net:connect:10.0.0.1:5432",
        "net:connect::8443",
    )
    assert some.allows("net:connect", value) is answer
    assert not some.allows("net:listen", value)


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "169.254.170.2", "fe80::1", "::ffff:169.254.169.254", "168.63.129.16",
     "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "100.100.100.200"],
)  # fmt: skip
def test_no_name_leads_to_the_machines_metadata(app: Path, text: str) -> None:
    address = ipaddress.ip_address(text)
    assert is_internal(address)
    meant = address_of(address)
    for permission in ("net:connect", "net:connect:evil.example", "net:connect::80"):
        assert not granted(app, permission).allows_address("evil.example", meant, 80)
    by_address = granted(app, f"net:connect:[{text}]:80" if ":" in text else f"net:connect:{text}")
    assert by_address.allows_address(str(meant), meant, 80)


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:0.0.0.0"]
)
def test_a_name_leads_to_this_machine_only_if_it_is_localhost(app: Path, text: str) -> None:
    address = address_of(ipaddress.ip_address(text))
    assert is_loopback(address)
    assert not granted(app, "net:connect:evil.example").allows_address("evil.example", address, 80)
    assert granted(app, "net:connect:localhost").allows_address("localhost", address, 80)
    assert granted(app, "net:connect").allows_address("db", address, 80)
    assert granted(app, "net:connect::80").allows_address("db", address, 80)
    assert not granted(app, "net:connect::81").allows_address("db", address, 80)


# -- Deno


def test_deno_gets_what_is_granted_and_nothing_else(app: Path) -> None:
    some = granted(app, "read:files:./data", "net:connect:api.example.com:443", "env:read:APP_*")
    flags = deno_flags(some, read=[Path("/opt/worker")])
    assert f"--allow-read={app}/data,{app}/plugins/shop,/opt/worker" in flags
    assert "--allow-net=api.example.com:443" in flags
    assert "--allow-env=APP_*" in flags
    assert "--ignore-env" in flags
    assert not [one for one in flags if one.startswith(("--allow-write", "--allow-run", "-A"))]
    assert not [one for one in flags if one.startswith(("--allow-ffi", "--allow-all"))]
    (denied,) = [one for one in flags if one.startswith("--deny-net")]
    assert "169.254.0.0/16" in denied
    assert "127.0.0.0/8" in denied


def test_deno_may_use_an_address_that_is_granted(app: Path) -> None:
    asked = ("net:connect:169.254.169.254", "net:connect:127.0.0.1:5432")
    flags = deno_flags(granted(app, *asked))
    (denied,) = [one for one in flags if one.startswith("--deny-net")]
    networks = [one for one in denied.partition("=")[2].split(",") if "[" not in one]
    inside = [
        n for n in networks if ipaddress.ip_address("169.254.169.254") in ipaddress.ip_network(n)
    ]
    assert inside == []
    assert any(ipaddress.ip_address("169.254.1.1") in ipaddress.ip_network(n) for n in networks)
    assert "127.0.0.0/8" not in denied


def test_a_comma_in_the_applications_path_gives_deno_no_second_path(tmp_path: Path) -> None:
    home = tmp_path / "a,b"
    (home / "plugins").mkdir(parents=True)
    with pytest.raises(ManifestError, match="has a comma"):
        deno_flags(grants([], folder=home / "plugins", directory=home))
