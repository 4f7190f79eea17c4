"""The example of a transpiler: plugins that are Markdown, served as they are."""

import shutil
from pathlib import Path

import httpx
import pytest

from veko import LoadError
from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio
LITERATE = Path(__file__).parents[2] / "examples" / "literate"


async def test_a_page_is_a_plugin(tmp_path: Path) -> None:
    root = tmp_path / "literate"
    shutil.copytree(LITERATE, root, ignore=shutil.ignore_patterns(".veko", "__pycache__"))
    async with PluginManager(root=root, adapter="asgi") as manager:
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/greet/Ada")
            assert answer.json() == {"message": "Hello, Ada!"}
        page = root / "plugins" / "greeter.py.md"
        lines = page.read_text().splitlines()
        number = next(n for n, line in enumerate(lines, 1) if "async def greet" in line)
        lines[number - 1] = "    async def greet(request:"
        page.write_text("\n".join(lines))
        with pytest.raises(LoadError, match=f"'\\(' was never closed.*greeter.py.md:{number}"):
            await manager.reload_plugin("greeter")
