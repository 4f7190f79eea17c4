"""The MCP server over HTTP: tools, roles, bad input, and the docs."""

from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError

from .agents import agent_at, served

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
@pytest.mark.parametrize("adapter", ["litestar", "starlette"])
async def test_other_adapters_serve_it_too(tmp_path: Path, adapter: str, mode: str) -> None:
    async with (
        served(tmp_path, {"plugins/greeter.py": GREETER}, adapter=adapter) as site,
        agent_at(site, mode=mode) as agent,
    ):
        assert {"command_greet", "command_say_hello"} <= await agent.names()
        assert (await agent.call("status"))["role"] == "operate"


async def test_every_tool_says_what_it_may_do(tmp_path: Path) -> None:
    async with served(tmp_path, {}) as site, agent_at(site) as agent:
        for tool in (await agent.client.list_tools()).tools:
            hints = tool.annotations
            assert hints is not None
            assert hints.read_only_hint is (tool.name in READING)
            assert hints.destructive_hint is not None
            assert hints.idempotent_hint is not None
            assert hints.open_world_hint is False
            assert tool.description
            assert tool.input_schema["type"] == "object"
            if tool.name in CHANGING - {"create_backup"}:
                assert "plan" in tool.input_schema["properties"]


async def test_the_role_look_gets_the_tools_that_read_and_no_others(tmp_path: Path) -> None:
    settings = f'[plugins.admin]\nviewer_token = "{VIEWER}"\n'
    async with (
        served(tmp_path, {"plugins/greeter.py": GREETER}, settings) as site,
        agent_at(site, token=VIEWER) as agent,
    ):
        assert await agent.names() == READING
        assert (await agent.call("status"))["role"] == "look"
        for tool in (*sorted(CHANGING), "command_greet"):
            with pytest.raises(MCPError, match="no tool"):
                await agent.result(tool, plugin="greeter")
        assert (await agent.call("list_plugins"))["plugins"][0]["state"] == "active"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer TOKEN", "host": "evil.example"}, 403),
        ({"authorization": "Bearer TOKEN", "origin": "https://evil.example"}, 403),
        ({"authorization": "Bearer TOKEN", "sec-fetch-site": "cross-site"}, 403),
    ],
)
async def test_a_client_without_a_token_or_of_another_site_is_refused(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with served(tmp_path, {}) as site:
        sent = {name: text.replace("TOKEN", site.token) for name, text in headers.items()}
        for path in ("/_veko/mcp", "/_veko/docs/llms.txt"):
            method = "POST" if path.endswith("mcp") else "GET"
            answer = await site.http.request(method, path, headers=sent, content=b"{}")
            assert answer.status_code == status, answer.text
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"jsonrpc": "2.0"}', b'{"jsonrpc":"2.0","id":1,"method":"x"}',
     b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
async def test_what_is_no_message_is_refused(tmp_path: Path, body: bytes) -> None:
    async with served(tmp_path, {}) as site:
        headers = {
            "authorization": f"Bearer {site.token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }
        answer = await site.http.post("/_veko/mcp", headers=headers, content=body)
        assert 400 <= answer.status_code < 500, answer.text
        assert (await site.http.delete("/_veko/mcp", headers=headers)).status_code < 500


async def test_the_docs_are_served_searched_and_read(tmp_path: Path) -> None:
    async with served(tmp_path, {}) as site, agent_at(site) as agent:
        found = await agent.call("search_docs", query="roll back a broken reload", limit=3)
        assert len(found["sections"]) == 3
        assert "guides/reload.md" in {one["page"] for one in found["sections"]}
        first = found["sections"][0]
        read = await agent.call("read_docs", page=first["page"], heading=first["heading"])
        assert first["heading"] in read["markdown"].splitlines()[0]
        index = (await agent.call("read_docs"))["markdown"]
        assert "(guides/reload.md)" in index
        for page in ("../pyproject.toml", "/etc/passwd", "nothing.md", "guides/\x00"):
            problem = await agent.refused("read_docs", page=page)
            assert (problem["status"], bool(problem["remedy"])) == (404, True)
        token = {"authorization": f"Bearer {site.token}"}
        answer = await site.http.get("/_veko/docs/guides/reload.md", headers=token)
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.text.startswith("# Reloading")
        answer = await site.http.get("/_veko/docs/../../etc/passwd", headers=token)
        assert answer.status_code == 404
