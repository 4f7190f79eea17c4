"""`veko mcp`: the MCP server on stdio, beside an application that `veko serve` runs."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from .agents import SECONDS, Agent

pytestmark = pytest.mark.anyio
GREETER = (
    'name = "greeter"\nversion = "1.0.0"\n'
    "def load(context):\n    context.add_command('greet', lambda name: f'hello {name}')\n"
)
ENVIRON = dict(os.environ)
GRACE = 600
"""Seconds that `veko serve` lets running requests have: longer than any test waits."""


class Served(NamedTuple):
    popen: subprocess.Popen[str]
    url: str


@contextmanager
def serving(root: Path) -> Iterator[Served]:
    """Run `veko serve` until the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "veko_plugins.cli", "serve", str(root), "--port", "0",
         "--adapter", "asgi", "--grace", str(GRACE)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRON,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Listening" in line:
                break
        assert process.poll() is None, lines
        yield Served(process, re.findall(r"http://[\d.:]+", lines[-1])[0])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)


@asynccontextmanager
async def started(root: Path, *words: str, mode: str = "auto") -> AsyncIterator[Agent]:
    """Start `veko mcp` as clients do."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "veko_plugins.cli", "mcp", str(root), *words],
        env=ENVIRON,
    )
    async with Client(server, mode=mode) as client:
        yield Agent(client)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "greeter.py").write_text(GREETER, "utf-8")
    return tmp_path


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_agent_on_stdio_needs_no_token_and_no_option(root: Path, mode: str) -> None:
    with anyio.fail_after(2 * SECONDS), serving(root) as process:
        async with started(root, mode=mode) as agent:
            status = await agent.call("status")
            assert (status["pid"], status["role"]) == (process.popen.pid, "operate")
            assert "command_greet" in await agent.names()
        async with started(root, "--look", mode=mode) as agent:
            names = await agent.names()
            assert "list_plugins" in names
            assert not names & {"undo", "toggle_plugin", "command_greet"}


async def test_tools_come_and_go_on_stdio(root: Path) -> None:
    with anyio.fail_after(2 * SECONDS), serving(root):
        async with (
            started(root) as agent,
            started(root) as other,
            agent.client.listen(tools_list_changed=True) as changes,
        ):
            assert "command_greet" in await agent.names()
            change = await other.change("toggle_plugin", plugin="greeter", active=False)
            for there in (False, True):
                await anext(aiter(changes))
                assert ("command_greet" in await agent.names()) is there
                if not there:
                    await other.call("undo", change=change)


async def test_the_application_may_stop_and_start_meanwhile(root: Path) -> None:
    with anyio.fail_after(2 * SECONDS):
        async with started(root) as agent:
            problem = await agent.refused("status")
            assert problem["status"] == 503
            assert "veko serve" in problem["remedy"]
            assert "command_greet" not in await agent.names()
            found = await agent.call("search_docs", query="serve")
            assert found["sections"]
            with serving(root) as process:
                assert (await agent.call("status"))["pid"] == process.popen.pid
                assert "command_greet" in await agent.names()
            assert (await agent.refused("status"))["status"] == 503


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_agent_that_listens_does_not_hold_up_the_stop(root: Path, mode: str) -> None:
    (root / "veko.toml").write_text("enable_api = true\n", "utf-8")
    with anyio.fail_after(GRACE), serving(root) as process:
        url = process.url
        token = (root / ".veko" / "admin-token").read_text("ascii").strip()
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, verify=False, timeout=SECONDS) as http,
            Client(streamable_http_client(f"{url}/_veko/mcp", http_client=http), mode=mode) as one,
            AsyncExitStack() as stack,
        ):
            assert (await Agent(one).call("status"))["pid"] == process.popen.pid
            if mode == "auto":  # the older protocol has a stream of its own
                await stack.enter_async_context(one.listen(tools_list_changed=True))
            process.popen.send_signal(signal.SIGTERM)
            await anyio.to_thread.run_sync(process.popen.wait, GRACE / 2)


def test_without_the_package_the_command_names_its_extra(root: Path) -> None:
    code = (
        "import sys\nsys.modules['mcp'] = None\n"
        "from veko_plugins.cli.main import veko\nveko(['mcp', '.'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root, capture_output=True, text=True, check=False, timeout=SECONDS, env=ENVIRON,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'veko[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_application_that_no_agent_asks_imports_nothing_of_it(root: Path) -> None:
    code = """
import asyncio, json, sys
from veko_plugins import PluginManager
import veko_plugins.admin
async def main():
    async with PluginManager(adapter="asgi", enable_api=True) as manager:
        await manager.administration()
asyncio.run(main())
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root, capture_output=True, text=True, check=False, timeout=SECONDS, env=ENVIRON,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1])
    heavy = re.compile(r"(mcp|mcp_types|pydantic|httpx2|starlette|sse_starlette|jwt)(\.|$)")
    assert [name for name in modules if heavy.match(name)] == []
    assert "veko_plugins.admin.mcp.toolbox" not in modules
