"""Plugins that wait for their first use: what loads them, what is refused, what is shown."""

import asyncio
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.plugins.manager.conftest import Home, source

from veko import Context, Plugin, as_plugin
from veko.errors import LoadError
from veko_plugins import PluginManager
from veko_plugins._lib.first_use import state_of
from veko_plugins.activation.index import RESERVED

pytestmark = pytest.mark.anyio

SHOP = """
from pathlib import Path
with Path(__file__).with_suffix(".runs").open("a") as runs:
    runs.write("x")

async def item(request):
    return {"id": request.path_params["id"]}

async def price(value, more=None):
    return [*value, "shop"]

def prune(count: int = 3):
    return f"pruned {count}"

async def socket(ws):
    await ws.accept()
    await ws.send_text("hi")
    await ws.close()

def load(context):
    context.add_route("GET", "/items/{id:int}", item)
    context.hook("order:placed", price, 20)
    context.add_command("prune", prune, "Prunes orders.")
    context.add_websocket("/ws", socket)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def runs(home: Home, name: str = "shop") -> int:
    """How often a plugin's module has run."""
    file = home.folder / f"{name}.runs"
    return len(file.read_text()) if file.exists() else 0


def waiting(manager: PluginManager) -> list[str]:
    return [one.name for one in manager.list_plugins() if one.waiting]


async def indexed(home: Home, body: str = SHOP, **manifest: Any) -> None:
    """Write the plugin `shop`, and start once so that it is indexed."""
    home.plugin("shop", body, activation="first use", **manifest)
    async with home.manager(adapter="asgi") as manager:
        assert manager.report.loaded == ["shop"]
        assert waiting(manager) == []  # there was no index: it has loaded at once
    assert runs(home) == 1


def client(manager: PluginManager) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(manager.asgi)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_its_module_does_not_run_at_the_start(home: Home) -> None:
    await indexed(home)
    async with home.manager(adapter="asgi") as manager:
        assert waiting(manager) == ["shop"]
        assert manager.report.loaded == ["shop"]
    assert runs(home) == 1


@pytest.mark.parametrize("adapter", ["asgi", "starlette", "litestar"])
async def test_requests_at_once_wait_for_one_load(home: Home, adapter: str) -> None:
    body = SHOP.replace("item(request)", "item(request: Request)")
    await indexed(home, "from veko_plugins.http import Request\n" + body)
    async with home.manager(adapter=adapter) as manager, client(manager) as http:
        answers = await asyncio.gather(*(http.get(f"/items/{number}") for number in range(5)))
        assert [answer.json() for answer in answers] == [{"id": number} for number in range(5)]
        assert waiting(manager) == []
    assert runs(home) == 2


async def test_a_request_for_another_route_loads_nothing(home: Home) -> None:
    await indexed(home)
    home.plugin("other", "def load(context): context.add_route('GET', '/', lambda request: 'x')")
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        assert (await http.get("/")).status_code == 200
        assert (await http.get("/nothing")).status_code == 404
        assert waiting(manager) == ["shop"]


async def test_a_request_hears_the_hooks_of_a_plugin_that_waits(home: Home) -> None:
    extra = """
    def seen(response, request):
        response.headers["x-shop"] = "1"
    def more(context):
        context.hook("response:start", seen)
    """
    body = SHOP + "\n".join(line[4:] for line in extra.splitlines())
    await indexed(home, body.replace("def load(context):", "def load(context):\n    more(context)"))
    home.plugin("other", "def load(context): context.add_route('GET', '/', lambda request: 'x')")
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        assert (await http.get("/")).headers["x-shop"] == "1"
    assert runs(home) == 2


async def test_an_event_loads_it_and_calls_its_hook_in_its_place(home: Home) -> None:
    await indexed(home)
    for name, priority in (("first", 30), ("last", 10)):
        home.plugin(
            name,
            f"def hook(value): return [*value, {name!r}]\n"
            f"def load(context): context.hook('order:placed', hook, {priority})",
        )
    async with home.manager(adapter="asgi") as manager:
        for _ in range(2):
            assert await manager.bus.emit("order:placed", []) == ["first", "shop", "last"]
        assert waiting(manager) == []
    assert runs(home) == 2


async def test_hooks_of_one_priority_keep_the_order_of_the_plugins(home: Home) -> None:
    await indexed(home)
    for name in ("after", "zero"):
        home.plugin(
            name,
            f"def hook(value): return [*value, {name!r}]\n"
            "def load(context): context.hook('order:placed', hook, 20)",
        )
    async with home.manager(adapter="asgi") as manager:
        assert waiting(manager) == ["shop"]
        expected = [*manager.report.loaded]
        for _ in range(2):
            assert await manager.bus.emit("order:placed", []) == expected


async def test_a_command_is_listed_and_loads_it_when_it_runs(home: Home) -> None:
    await indexed(home)
    async with home.manager(adapter="asgi") as manager:
        commands = manager.use("commands")
        assert [(one.name, one.description) for one in commands.list()] == [
            ("prune", "Prunes orders.")
        ]
        assert waiting(manager) == ["shop"]
        assert await commands.invoke("prune", ["--count", "7"]) == "pruned 7"
        assert await commands.run("prune", 2) == "pruned 2"
    assert runs(home) == 2


async def test_a_changed_file_loads_at_once_and_is_indexed_again(home: Home) -> None:
    await indexed(home)
    home.plugin("shop", SHOP.replace("/items/", "/things/"), activation="first use")
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        assert waiting(manager) == []
        assert (await http.get("/items/1")).status_code == 404
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        assert waiting(manager) == ["shop"]
        assert (await http.get("/things/1")).json() == {"id": 1}


async def test_another_configuration_makes_the_index_stale(home: Home) -> None:
    body = SHOP.replace("def load(context):", "def load(config, context):").replace(
        '"/items/{id:int}"', 'config["prefix"] + "/{id:int}"'
    )
    await indexed(home, body, default_config={"prefix": "/items"})
    (home.root / "veko.toml").write_text('[plugins.shop]\nprefix = "/goods"\n')
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        assert waiting(manager) == []
        assert (await http.get("/goods/1")).status_code == 200


async def test_a_damaged_index_is_none(home: Home) -> None:
    await indexed(home)
    file = home.root / ".veko/first-use/shop.json"
    file.write_bytes(file.read_bytes()[:-20])
    async with home.manager(adapter="asgi") as manager:
        assert waiting(manager) == []
    assert json.loads(file.read_bytes())["manifest"]["name"] == "shop"


async def test_a_load_that_fails_answers_503_and_is_tried_again_later(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko_plugins.activation.plugin.FIRST_WAIT", 0.0)
    flag = home.root / "broken"
    body = SHOP.replace(
        "def load(context):", f"def load(context):\n    assert not Path({str(flag)!r}).exists()"
    )
    await indexed(home, body)
    flag.touch()
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        reported: list[object] = []
        manager.bus.on("plugin:error", lambda *args: reported.append(args))
        answer = await http.get("/items/1")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "could not be loaded" in answer.text
        with pytest.raises(LoadError, match=r"first use.*AssertionError"):
            await manager.use("commands").run("prune")
        assert waiting(manager) == ["shop"]
        assert len(reported) == 2
        flag.unlink()
        assert (await http.get("/items/1")).json() == {"id": 1}


async def test_a_load_that_failed_is_not_tried_again_at_once(home: Home) -> None:
    flag = home.root / "broken"
    await indexed(home, f"{SHOP}\nassert not Path({str(flag)!r}).exists()\n")
    flag.touch()
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        for _ in range(4):
            assert (await http.get("/items/1")).status_code == 503
    assert runs(home) == 2


async def test_a_use_that_is_cancelled_does_not_end_the_load_for_others(home: Home) -> None:
    home.plugin(
        "shop",
        SHOP.replace(
            "def load(context):", "async def load(context):\n    await context.kernel.app.gate()"
        ),
        activation="first use",
    )

    class App:
        entered, opened = asyncio.Event(), asyncio.Event()

        async def gate(self) -> None:
            self.entered.set()
            await self.opened.wait()

    app = App()
    app.opened.set()
    async with home.manager(app, adapter="asgi") as manager:
        assert manager.report.loaded == ["shop"]
    async with home.manager(app, adapter="asgi") as manager:
        assert waiting(manager) == ["shop"]
        app.opened.clear()
        app.entered.clear()
        first = asyncio.create_task(manager.use("commands").run("prune"))
        await app.entered.wait()
        first.cancel()
        second = asyncio.create_task(manager.use("commands").run("prune"))
        with pytest.raises(asyncio.CancelledError):
            await first
        app.opened.set()
        assert await second == "pruned 3"
    assert runs(home) == 2


async def test_a_plugin_that_needs_it_loads_it(home: Home) -> None:
    await indexed(home)
    home.plugin(
        "user",
        "def load(context):\n    assert context.get_plugin('shop').exports['prune'](1)",
        dependencies=["shop"],
    )
    async with home.manager(adapter="asgi") as manager:
        assert manager.report.loaded == ["shop", "user"]
        assert waiting(manager) == []


async def test_a_plugin_that_waits_and_needs_another_one_that_waits(home: Home) -> None:
    await indexed(home)
    home.plugin(
        "user",
        SHOP.replace("/items", "/users").replace("prune", "users").replace("/ws", "/wu"),
        activation="first use",
        dependencies=["shop"],
    )
    async with home.manager(adapter="asgi") as manager:
        assert waiting(manager) == []  # `user` had no index, and needs `shop`
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        assert waiting(manager) == ["shop", "user"]
        assert (await http.get("/items/1")).status_code == 200
        assert waiting(manager) == ["user"]
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        assert (await http.get("/users/1")).status_code == 200
        assert waiting(manager) == []


async def test_it_is_unloaded_switched_and_reloaded_while_it_waits(home: Home) -> None:
    await indexed(home)
    async with home.manager(adapter="asgi") as manager, client(manager) as http:
        await manager.toggle_plugin("shop", False)
        assert (await http.get("/items/1")).status_code == 404
        assert waiting(manager) == []
        await manager.toggle_plugin("shop", True)
        assert waiting(manager) == ["shop"]
        await manager.reload_plugin("shop")
        assert waiting(manager) == ["shop"]
        await manager.unload_plugin("shop")
        assert (await http.get("/items/1")).status_code == 404
        await manager.load_plugin("shop")
        assert waiting(manager) == ["shop"]
        assert runs(home) == 1
        assert (await http.get("/items/1")).status_code == 200
        await manager.reload_plugin("shop")
        assert waiting(manager) == []
    assert runs(home) == 3


async def test_a_socket_loads_it(home: Home) -> None:
    await indexed(home)
    async with home.manager(adapter="asgi") as manager:
        sent: list[dict[str, Any]] = []
        given = iter([{"type": "websocket.connect"}])

        async def receive() -> dict[str, Any]:
            message = next(given, None)
            if message is None:
                await asyncio.Event().wait()
            assert message is not None
            return message

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        scope = {
            "type": "websocket", "path": "/ws", "headers": [], "query_string": b"",
            "subprotocols": [], "scheme": "ws", "client": ("127.0.0.1", 1), "raw_path": b"/ws",
            "server": ("127.0.0.1", 2), "root_path": "", "asgi": {"version": "3.0"},
            "http_version": "1.1",
        }  # fmt: skip
        await manager.asgi(scope, receive, send)
        assert [one["type"] for one in sent] == [
            "websocket.accept", "websocket.send", "websocket.close",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "manifest", "why"),
    [
        ("def load(context): context.provide('x', 1)", {}, "the service 'x'"),
        ("def load(context): context.add_middleware(lambda request, call_next: 1)", {}, "middlew"),
        ("def load(context): context.hook('order:*', print)", {}, "the pattern 'order:*'"),
        ("def load(context): context.hook('app:start', lambda app: 1)", {}, "app:start"),
        ("def load(context): context.hook('plugin:loaded', lambda name: 1)", {}, "plugin:loaded"),
        ("def load(context): context.hook('request:start', lambda request: 1)", {}, "guards"),
        ("async def task(): ...\ndef load(context): context.spawn(task)", {}, "starts tasks"),
        ("def load(): pass", {}, "registers nothing"),
    ],
    ids=[
        "service", "middleware", "pattern", "start", "life", "guard", "task", "nothing",
    ],
)  # fmt: skip
async def test_what_cannot_wait_is_refused(
    home: Home, body: str, manifest: dict[str, Any], why: str
) -> None:
    home.plugin("shop", body, activation="first use", **manifest)
    async with home.manager(adapter="asgi") as manager:
        error = manager.report.failed["shop"]
        assert "it cannot wait for its first use" in str(error)
        assert why in str(error)
        assert "activation" in str(error)


async def test_a_required_plugin_cannot_wait(home: Home) -> None:
    home.plugin("shop", SHOP, activation="first use", required=True)
    with pytest.raises(LoadError, match="required = True means"):
        async with home.manager(adapter="asgi"):
            pass


async def test_a_manifest_that_is_computed_is_refused(home: Home) -> None:
    path = home.folder / "shop.py"
    path.write_text(source("shop", SHOP).replace("'1.0.0'", "'.'.join('100')"))
    path.write_text(path.read_text() + "\nactivation = 'first use'\n")
    async with home.manager(adapter="asgi") as manager:
        assert "literals" in str(manager.report.failed["shop"])


async def test_another_value_is_refused(home: Home) -> None:
    home.plugin("shop", SHOP, activation="later")
    async with home.manager(adapter="asgi") as manager:
        assert "neither 'start' nor 'first use'" in str(manager.report.failed["shop"])


async def test_secrets_of_a_plugin_that_waits_are_masked(home: Home) -> None:
    body = (
        "from typing import Annotated\nimport msgspec\n"
        + SHOP
        + (
            "\nclass Settings(msgspec.Struct):\n"
            "    key: Annotated[str, msgspec.Meta(extra_json_schema={'writeOnly': True})] = ''\n"
            "    size: int = 1\n"
            "config_schema = Settings\n"
        )
    )
    await indexed(home, body)
    (home.root / "veko.toml").write_text('[plugins.shop]\nkey = "geheim"\nsize = 2\n')
    for start in range(2):
        async with home.manager(adapter="asgi") as manager:
            record = manager.get_plugin("shop")
            assert record is not None
            validation = manager.use("validation")
            shown = validation.masked(record.config, record.manifest.config_schema)
            assert "geheim" not in str(shown)
            assert waiting(manager) == ["shop"] * start


async def test_every_event_of_veko_is_known_to_the_index(home: Home) -> None:
    async with home.manager(adapter="asgi") as manager:
        names = [event.name for event in manager.bus.events]
    assert "app:start" in names
    http = {"request", "response", "websocket"}
    assert {name.partition(":")[0] for name in names} - http <= RESERVED


async def test_its_index_is_for_its_user_alone(home: Home) -> None:
    await indexed(home)
    file = home.root / ".veko/first-use/shop.json"
    assert file.stat().st_mode & 0o077 == 0
    assert msgspec.json.decode(file.read_bytes())["registered"][0]["path"] == "/items/{id:int}"


async def test_a_plugin_in_a_process_of_its_own_loads_at_the_start(home: Home) -> None:
    """As the core plugin `remote` does it: another plugin answers for the source."""
    home.plugin("shop", SHOP, activation="first use")

    class InAWorker(Plugin):
        name, version = "shop", "1.0.0"
        activation = "first use"
        lives: tuple[object, ...] = ()

        def load(self, context: Context) -> None:
            context.spawn(asyncio.Event().wait)

    async with home.manager(adapter="asgi", auto_load=False) as manager:
        manager.bus.on("source:import", lambda source, asked: as_plugin(InAWorker()), priority=50)
        report = await manager.load_all_plugins()
        assert report.loaded == ["shop"]
        assert waiting(manager) == []
    assert not (home.root / ".veko/first-use").exists()


async def test_it_is_shown_as_waiting(home: Home) -> None:
    await indexed(home)
    async with home.manager(adapter="asgi") as manager:
        (info,) = manager.list_plugins()
        record = manager.get_plugin("shop")
        assert record is not None
        assert (info.waiting, info.active, info.type) == (True, True, "websocket")
        assert state_of(record) == "waiting"
        await manager.use("commands").run("prune")
        assert state_of(record) == "active"


async def test_it_stops_while_it_loads(home: Home) -> None:
    class App:
        entered, opened = asyncio.Event(), asyncio.Event()

        async def gate(self) -> None:
            self.entered.set()
            await self.opened.wait()

    app, gate = App(), "async def load(context):\n    await context.kernel.app.gate()"
    home.plugin("shop", SHOP.replace("def load(context):", gate), activation="first use")
    app.opened.set()
    async with home.manager(app, adapter="asgi"):
        pass
    app.opened.clear()
    app.entered.clear()
    async with home.manager(app, adapter="asgi") as manager:
        assert waiting(manager) == ["shop"]
        use = asyncio.create_task(manager.use("commands").run("prune"))
        await app.entered.wait()
    with pytest.raises(LoadError, match="first use"):
        await use
