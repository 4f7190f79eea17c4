"""What agents change through the MCP server, and tools that come and go with plugins."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from .agents import SECONDS, Site, agent_at, served

pytestmark = pytest.mark.anyio
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])
GREETER = (
    'name = "greeter"\nversion = "1.0.0"\n'
    "def load(context):\n"
    "    def greet(name: str, times: int = 1):\n"
    '        """Greet a person."""\n'
    "        return ' '.join([f'hello {name}'] * times)\n"
    "    context.add_command('greet', greet)\n"
    "    context.add_command('say:hello', lambda: None)\n"
)
READING = {
    "check_health", "list_backups", "list_changes", "list_commands", "list_errors", "list_events",
    "list_plugins", "list_routes", "list_traces", "read_config", "read_docs", "read_logs",
    "search_docs", "show_graph", "show_plugin", "show_startup", "show_trace", "status",
}  # fmt: skip
CHANGING = {
    "create_backup", "load_plugin", "merge_config", "reload_plugin", "reset_config",
    "restore_backup", "set_config", "toggle_plugin", "undo", "unload_plugin",
}  # fmt: skip
VIEWER = "a-token-for-those-who-look"


@MODES
async def test_an_agent_reads_everything_that_the_tools_offer(tmp_path: Path, mode: str) -> None:
    async with (
        served(tmp_path, {"plugins/greeter.py": GREETER}, "[plugins.tracing]\nkeep = 10\n") as site,
        agent_at(site, mode=mode) as agent,
    ):
        assert await agent.names() == READING | CHANGING | {
            "command_greet", "command_say_hello",
        }  # fmt: skip
        assert (await agent.call("status"))["name"] == tmp_path.name
        listed = await agent.call("list_plugins")
        assert [row["name"] for row in listed["plugins"]] == ["greeter"]
        assert await agent.call("list_plugins", problems=True) == {"total": 0, "plugins": []}
        details = await agent.call("show_plugin", plugin="greeter")
        assert {row["name"] for row in details["commands"]} == {"greet", "say:hello"}
        await site.http.get("/nothing")
        await agent.until("list_traces", lambda found: bool(found["traces"]))
        for tool in sorted(READING - {"show_plugin", "show_trace", "search_docs", "read_config"}):
            assert isinstance(await agent.call(tool), dict)


@MODES
async def test_wrong_calls_say_what_is_wrong_and_do_nothing(tmp_path: Path, mode: str) -> None:
    async with (
        served(tmp_path, {"plugins/greeter.py": GREETER}) as site,
        agent_at(site, mode=mode) as agent,
    ):
        for unknown in ("", "nothing", "command_nothing", "status ", "x" * 10_000, "../status"):
            with pytest.raises(MCPError, match="no tool"):
                await agent.result(unknown)
        wrong: list[tuple[str, dict[str, Any], set[str]]] = [
            ("toggle_plugin", {"plugin": 1, "active": "yes", "cascad": True},
             {"plugin", "active", ""}),
            ("show_plugin", {}, {""}),
            ("read_logs", {"limit": 0, "level": "loud"}, {"limit", "level"}),
            ("read_logs", {"limit": 10**9, "after": -1}, {"limit", "after"}),
            ("merge_config", {"plugin": "greeter", "value": [1]}, {"value"}),
            ("command_greet", {}, {""}),
            ("command_greet", {"name": "ada", "times": "many"}, {"times"}),
        ]  # fmt: skip
        for tool, arguments, paths in wrong:
            problem = await agent.refused(tool, **arguments)
            assert problem["status"] == 422
            assert {fault["path"] for fault in problem["faults"]} == paths
        problem = await agent.refused("show_plugin", plugin="nobody\n\x00é/..")
        assert problem["status"] == 404
        assert problem["remedy"]
        assert (await agent.call("command_greet", name="ada", times=2))["result"] == (
            "hello ada hello ada"
        )


async def test_tools_come_and_go_with_plugins(tmp_path: Path) -> None:
    async with (
        served(tmp_path, {"plugins/_more/greeter.py": GREETER}) as site,
        agent_at(site) as agent,
        agent_at(site) as other,
        agent.client.listen(tools_list_changed=True) as changes,
    ):
        assert "command_greet" not in await agent.names()
        for tool, arguments in (
            ("load_plugin", {"plugin": str(tmp_path / "plugins" / "_more" / "greeter.py")}),
            ("toggle_plugin", {"plugin": "greeter", "active": False}),
            ("toggle_plugin", {"plugin": "greeter", "active": True}),
            ("unload_plugin", {"plugin": "greeter"}),
        ):
            await other.call(tool, **arguments)
            with anyio.fail_after(SECONDS):
                await anext(aiter(changes))
            there = tool == "load_plugin" or arguments.get("active") is True
            assert ("command_greet" in await agent.names()) is there


async def test_a_session_of_the_older_protocol_is_notified_too(tmp_path: Path) -> None:
    changed = asyncio.Event()

    async def heard(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    async with (
        served(tmp_path, {"plugins/_more/greeter.py": GREETER}) as site,
        agent_at(site, mode="legacy", message_handler=heard) as agent,
    ):
        assert agent.client.server_capabilities.tools is not None
        assert agent.client.server_capabilities.tools.list_changed
        await agent.names()
        await site.other("load_plugin", plugin=str(tmp_path / "plugins" / "_more" / "greeter.py"))
        with anyio.fail_after(SECONDS):
            await changed.wait()
        assert "command_greet" in await agent.names()


async def test_an_undo_that_is_replayed_is_refused(tmp_path: Path) -> None:
    async with (
        served(tmp_path, {"plugins/greeter.py": GREETER}) as site,
        agent_at(site) as agent,
    ):
        change = await agent.change("toggle_plugin", plugin="greeter", active=False)
        undone = await agent.call("undo", change=change)
        problem = await agent.refused("undo", change=change)
        assert problem["status"] == 409
        assert (await agent.call("list_plugins"))["plugins"][0]["state"] == "active"
        await agent.call("undo", change=undone["id"])  # which does it again
        assert (await agent.call("list_plugins"))["plugins"][0]["state"] == "inactive"
        assert (await agent.refused("undo", change="nothing"))["status"] == 404


async def test_two_agents_at_once_lose_no_change(tmp_path: Path) -> None:
    more = 'name = "limits"\nversion = "1.0.0"\ndefault_config = {"a": 0, "b": 0}\n'
    files = {"plugins/limits.py": f"{more}def load(context):\n    pass\n"}
    async with (
        served(tmp_path, files) as site,
        agent_at(site) as one,
        agent_at(site, mode="legacy") as two,
    ):
        await asyncio.gather(
            *(one.call("merge_config", plugin="limits", value={"a": n}) for n in range(1)),
            *(two.call("show_plugin", plugin="limits") for _ in range(5)),
        )
        etag = (await one.call("read_config", plugin="limits"))["etag"]
        results = await asyncio.gather(
            one.result("merge_config", plugin="limits", value={"a": 1}, etag=etag),
            two.result("merge_config", plugin="limits", value={"b": 1}, etag=etag),
        )
        failed = [one for one in results if one.is_error]
        assert len(failed) == 1
        assert failed[0].structured_content is not None
        assert failed[0].structured_content["status"] == 412


SLOW = """
name = "slow"
version = "1.0.0"
import asyncio
from pathlib import Path

async def load(context):
    context.add_route("GET", "/slow", lambda: "there")
    await asyncio.to_thread(Path(__file__).with_suffix(".begun").touch)
    await asyncio.sleep(0.3)
"""


@MODES
async def test_a_client_that_leaves_in_the_middle_of_a_change(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "plugins" / "_more" / "slow.py"

    async def load(site: Site) -> None:
        async with agent_at(site, mode=mode) as agent:
            await agent.call("load_plugin", plugin=str(path))

    async with served(tmp_path, {"plugins/_more/slow.py": SLOW}) as site:
        loading = asyncio.ensure_future(load(site))
        async with asyncio.timeout(SECONDS):
            while not path.with_suffix(".begun").exists():  # noqa: ASYNC110 - a file sets no event
                await asyncio.sleep(0.01)
        loading.cancel()
        await asyncio.wait([loading])
        async with agent_at(site) as agent:
            found = await agent.until("list_changes", lambda found: found["total"] == 1)
            assert found["changes"][0]["verb"] == "load"
            assert (await site.http.get("/slow")).text == "there"
            await agent.call("undo", change=found["changes"][0]["id"])
            assert (await site.http.get("/slow")).status_code == 404


ODD = """
name = "odd"
version = "1.0.0"

def load(context):
    context.add_command("odd:big", lambda: "x" * 3_000_000)
    context.add_command("odd:raises", raises)
    context.add_command("odd:exits", exit)
    context.add_command("odd:object", object)
    context.add_command("odd.big", lambda: "the other")

def raises():
    raise ValueError("no such mail")
"""


@MODES
async def test_commands_that_answer_oddly_are_answers_too(tmp_path: Path, mode: str) -> None:
    async with (
        served(tmp_path, {"plugins/odd.py": ODD}) as site,
        agent_at(site, mode=mode) as agent,
    ):
        big = await agent.call("command_odd_big")
        assert "3000" in big["cut"]
        assert len(big["begins"]) < 300_000
        problem = await agent.refused("command_odd_raises")
        assert "no such mail" in problem["detail"]
        assert (await agent.call("command_odd_exits"))["result"] is None
        assert "object" in (await agent.call("command_odd_object"))["result"]
        assert (await agent.call("command_odd.big"))["result"] == "the other"
        (error, *_) = (await agent.call("list_errors", plugin="odd"))["errors"]
        assert (error["type"], error["line"]) == ("ValueError", 13)


async def test_an_agent_cannot_lock_itself_out(tmp_path: Path) -> None:
    async with served(tmp_path, {}) as site, agent_at(site) as agent:
        token = {"token": "another-token-0123456789"}
        for tool, more in (
            ("set_config", {"value": token}),
            ("merge_config", {"value": token}),
            ("reset_config", {}),
        ):
            assert (await agent.refused(tool, plugin="admin", **more))["status"] == 403
        for tool, more in (("unload_plugin", {}), ("toggle_plugin", {"active": False})):
            for plugin in ("admin", "routes", "commands"):
                assert (await agent.refused(tool, plugin=plugin, **more))["status"] == 409
        assert (await agent.call("status"))["role"] == "operate"


async def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, {"plugins/greeter.py": GREETER}) as site:
        meta = (
            '{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
            '"io.modelcontextprotocol/clientCapabilities":{}}'
        )
        body = (
            '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"command_greet",'
            f'"arguments":{{"name":"\\ud800"}},"_meta":{meta}}}}}'
        )
        headers = {
            "authorization": f"Bearer {site.token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "command_greet",
        }
        answer = await site.http.post("/_veko/mcp", headers=headers, content=body)
        assert answer.json()["result"]["structuredContent"]["status"] == 422
