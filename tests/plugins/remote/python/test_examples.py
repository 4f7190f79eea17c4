"""The example application's plugins, unchanged, each in a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from veko.errors import VekoError
from veko_plugins import PluginManager
from veko_plugins.remote import Remote

from .test_conformance import Trusting

SHORTENER = Path(__file__).parents[4] / "examples" / "shortener"


async def test_the_shorteners_plugins_run_in_workers_or_say_why_not(tmp_path: Path) -> None:
    shutil.copytree(SHORTENER / "plugins", tmp_path / "plugins")
    shutil.copy(SHORTENER / "veko.toml", tmp_path)
    (tmp_path / "plugins" / "notes.py").write_text(
        'name, version = "notes", "1.0.0"\n'
        "def load(context):\n"
        '    context.add_route("GET", "/admin/notes", lambda: ["secret"])\n'
    )
    core = {"permissions": Trusting(tmp_path), "remote": Remote(tmp_path, sandbox=True)}
    async with PluginManager(
        root=tmp_path, adapter="asgi", storage="sqlite:///:memory:", core=core, max_retries=0
    ) as manager:
        loaded = {one.name for one in manager.list_plugins()}
        assert loaded == {"guard", "index", "notes", "ratelimit"}
        transport = httpx.ASGITransport(manager.asgi, client=("10.0.0.1", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            page = await client.get("/")
            assert "curl http://test/links" in page.text
            # The guard wraps the routes of another plugin, in another process.
            refused = await client.get("/admin/notes")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            token = (tmp_path / ".veko" / "links-token").read_text().strip()
            headers = {"authorization": f"Bearer {token}"}
            assert (await client.get("/admin/notes", headers=headers)).json() == ["secret"]
            answers = [(await client.get("/")).status_code for _ in range(150)]
            assert answers.count(429) > 0
            assert (await client.get("/")).headers["retry-after"].isdigit()
        # What shares living objects says so, and what needs it is not loaded.
        with pytest.raises(
            VekoError, match=r"context\.attach does not work in a process of its own"
        ):
            await manager.load_plugin("shortcodes")
