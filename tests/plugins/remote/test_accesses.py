"""What plugins access is counted, refusals are reported, and Deno's own trail is read."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from veko_plugins.remote.accesses import Accesses, Watch
from veko_plugins.remote.audit import AuditTrail
from veko_plugins.remote.deno.flags import deno_flags
from veko_plugins.remote.deno.runtime import find
from veko_plugins.remote.permissions import Grants, grants
from veko_plugins.remote.protocol import Violation


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def accesses(log: list[str]) -> Accesses:
    return Accesses(lambda plugin, text: log.append(f"{plugin} {text}"))


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Grants]:
    (tmp_path / "plugins").mkdir()

    def make(*permissions: str) -> Grants:
        return grants(permissions, folder=tmp_path / "plugins", directory=tmp_path, plugin="shop")

    return make


def test_accesses_are_counted(accesses: Accesses, log: list[str]) -> None:
    for granted in (True, True, False):
        accesses.record("shop", "read:files", "/data/a", granted, where="shop.py:3")
    accesses.record("other", "env:read", "HOME", True)
    assert accesses.counts("shop") == (2, 1)
    assert accesses.counts("other") == (1, 0)
    assert accesses.counts("nobody") == (0, 0)
    assert log == [
        'shop was refused read:files:/data/a, at shop.py:3. If it needs that, add "read:files:/data'
        '/a" to its permissions'
    ]
    accesses.forget("shop")
    assert accesses.of("shop") == []


def test_a_plugin_that_tries_everything_fills_neither_memory_nor_log(
    accesses: Accesses, log: list[str]
) -> None:
    for number in range(5_000):
        accesses.record("shop", "read:files", f"/{number}" + "x" * 10_000, granted=False)
    found = accesses.of("shop")
    assert len(found) <= 2_001
    assert max(len(one.value) for one in found) <= 512
    assert accesses.counts("shop") == (0, 5_000)
    assert len(log) == 5


def test_refusals_are_reported_again_later(log: list[str]) -> None:
    now = 0.0
    accesses = Accesses(lambda _, text: log.append(text), clock=lambda: now)
    for number in range(8):
        accesses.record("shop", "net:connect", f"h{number}.example:80", granted=False)
    now = 61.0
    accesses.record("shop", "net:connect", "late.example:80", granted=False)
    accesses.record("shop", "net:connect", "late.example:80", granted=False)
    assert len(log) == 6
    assert log[-1].endswith("3 other refusals were not reported")


def test_a_value_cannot_write_to_the_terminal(accesses: Accesses, log: list[str]) -> None:
    accesses.record("shop", "read:files", "/a\n\x1b[2J\u202e", False, where="x\r.py:1")
    assert log[0].isprintable()
    assert r"/a\n\x1b[2J\u202e" in log[0]


def test_a_variable_that_is_not_set_is_no_refusal_to_report(
    accesses: Accesses, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET_HERE", "1")
    monkeypatch.delenv("NOT_SET", raising=False)
    accesses.record("shop", "env:read", "NOT_SET", granted=False)
    accesses.record("shop", "env:read", "SET_HERE", granted=False)
    assert len(log) == 1


@pytest.mark.parametrize("bad", [None, 1, [], {}])
def test_notes_that_are_not_texts_break_the_protocol(
    accesses: Accesses, given: Callable[..., Grants], bad: object
) -> None:
    watch = Watch(accesses, "shop", given())
    for arguments in ((bad, "a"), ("a", bad), ("a", "a", bad)):
        with pytest.raises(Violation):
            watch.denied(*arguments)


# -- Deno's trail

SCRIPT = """
const tries = [
  () => Deno.readTextFileSync(Deno.args[0] + "/data/a.txt"),
  () => Deno.readTextFileSync("/etc/hostname"),
  () => Deno.readTextFileSync("/etc/hostname"),
  () => Deno.writeTextFileSync(Deno.args[0] + "/data/b.txt", ""),
  () => Deno.writeTextFileSync("mine.txt", ""),
  () => Deno.env.get("HOME"),
  () => process.env.SECRET_OF_HOST,
  () => Deno.connect({ hostname: "127.0.0.1", port: 1 }),
  () => Deno.connect({ hostname: "localhost", port: 1 }),
  () => fetch("http://user:secret@example.com/path?key=secret"),
  () => Deno.listen({ port: 0 }),
  () => new Deno.Command("/bin/ls").outputSync(),
  () => Deno.dlopen("libc.so.6", {}),
  () => Deno.networkInterfaces(),
  () => Deno.hostname(),
];
for (const one of tries)
  try { await one(); console.log("ok") } catch (error) { console.log(error.name) }
"""


async def run_deno(tmp_path: Path, script: str, given: Grants, trail: AuditTrail) -> list[str]:
    """Run a script as a confined worker is run, without the kernel's part; returns its lines."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("x")
    private = tmp_path / "private"
    private.mkdir()
    (private / "main.mjs").write_text(script)
    deno = find("deno")
    command = deno.command(
        permissions=deno_flags(given, read=[Path()], write=[Path()]),
        environment=given.environment(os.environ) | trail.environment(trail.descriptor),
        directory=private,
    )
    argv = [*(command.argv or ())[:-1], str(private / "main.mjs"), str(tmp_path)]
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=command.env | {"HOME": str(private)},
        cwd=private,
        pass_fds=[trail.descriptor],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    trail.started()
    out, err = await process.communicate()
    trail.close()
    assert process.returncode == 0, err.decode()
    return out.decode().split()


async def test_deno_enforces_what_is_granted_and_says_what_was_accessed(
    tmp_path: Path,
    accesses: Accesses,
    given: Callable[..., Grants],
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_HOST", "1")
    allowed = given("read:files:./data", "env:read:HOME", "net:connect:127.0.0.1:1")
    trail = AuditTrail(Watch(accesses, "shop", allowed, audited=True))
    lines = await run_deno(tmp_path, SCRIPT, allowed, trail)
    refused = "NotCapable"
    assert lines == [
        "ok", refused, refused, refused, "ok", "ok", "ok", "ConnectionRefused", refused, refused,
        refused, refused, refused, refused, "ok",
    ]  # fmt: skip
    found = {(one.kind, one.value): (one.granted, one.times) for one in accesses.of("shop")}
    assert found[("read:files", f"{tmp_path}/data/a.txt")] == (True, 1)
    assert found[("read:files", "/etc/hostname")] == (False, 2)
    assert found[("write:files", f"{tmp_path}/data/b.txt")] == (False, 1)
    assert found[("env:read", "HOME")][0]
    assert not found[("env:read", "SECRET_OF_HOST")][0]
    assert found[("net:connect", "127.0.0.1:1")][0]
    assert not found[("net:connect", "localhost:1")][0]
    assert not found[("net:connect", "example.com:80")][0]
    assert not found[("net:listen", "0.0.0.0:0")][0]
    assert not found[("ffi", "libc.so.6")][0]
    assert not found[("sys", "networkInterfaces")][0]
    assert not any("secret" in line or "mine.txt" in line for line in log)
    assert not any("secret" in one.value for one in accesses.of("shop"))


async def test_a_name_that_deno_may_connect_to_does_not_lead_to_this_machine(
    tmp_path: Path, accesses: Accesses, given: Callable[..., Grants]
) -> None:
    """`a.localhost` stands for a name whose owner lets it resolve to loopback."""
    allowed = given(
        "net:connect:*.local.test", "net:connect:ip6-localhost", "net:connect:x.example"
    )
    trail = AuditTrail(Watch(accesses, "shop", allowed, audited=True))
    script = """
    for (const hostname of ["ip6-localhost", "127.0.0.1", "0.0.0.0", "169.254.169.254"])
      try { await Deno.connect({ hostname, port: 1 }); console.log("ok") }
      catch (error) { console.log(error.name) }
    """
    lines = await run_deno(tmp_path, script, allowed, trail)
    assert lines[1:] == ["NotCapable"] * 3
    assert lines[0] in ("NotCapable", "Error")  # where the machine does not know that name
    assert "ConnectionRefused" not in lines


async def test_a_trail_of_garbage_is_bounded(
    accesses: Accesses, given: Callable[..., Grants]
) -> None:
    trail = AuditTrail(Watch(accesses, "shop", given(), audited=True))
    line = b'{"v":1,"datetime":"2025-01-01T00:00:00Z","permission":"read","value":"/etc/%d"}\n'

    def write() -> None:
        with open(trail.descriptor, "wb", buffering=0, closefd=False) as file:
            file.write(b"x" * 200_000 + b"\n[]\n\xff\n{}\n")
            file.writelines(line % number for number in (*range(6_000), 0))

    await asyncio.to_thread(write)
    trail.close()
    assert accesses.counts("shop") == (0, 6_001)
    assert accesses.of("shop")[0].times == 2
    trail.close()
