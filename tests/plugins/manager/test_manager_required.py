"""Required plugins: the application neither starts nor serves without them."""

import asyncio
import logging
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from veko import LoadError, Plugin, VekoError

pytestmark = pytest.mark.anyio

GUARD = """
def load(context):
    context.hook("request:start", lambda request: None)
"""
SHOP = """
async def echo(socket):
    await socket.send("x")

def load(context):
    context.add_route("GET", "/x", lambda: "served")
    context.add_websocket("/echo", echo)
"""


async def handshake(client: Any, path: str = "/echo") -> int:
    """Return the status of a handshake; 101 if it is done."""
    url = str(client.base_url.join(path)).replace("http", "ws", 1)
    try:
        async with connect(url, proxy=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def status(client: Any) -> tuple[int, int]:
    """Return how a request and a handshake are answered."""
    answer = await client.get("/x")
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, await handshake(client)


UP, REFUSED = (200, 101), (503, 503)


@pytest.mark.parametrize(
    "body",
    [
        "def load(): raise ValueError('no luck')",
        "def load(: pass",  # not even its syntax is right
        "import no_such_module\ndef load(): pass",
        "dependencies = ('absent',)\ndef load(): pass",
        "def load(nonsense): pass",
    ],
    ids=["load", "syntax", "import", "dependency", "manifest"],
)
async def test_M14_the_application_does_not_start_without_a_required_plugin(
    home: Any, body: str
) -> None:
    home.plugin("shop", SHOP)
    home.plugin("guard", body, required=True)
    manager = home.manager()
    with pytest.raises(LoadError, match=r"required plugins did not load: guard: "):
        await manager.start()
    assert manager.state == "stopped"
    home.plugin("guard", GUARD, required=True)
    async with manager:
        assert len(manager.list_plugins()) == 2


async def test_M14_required_in_plugin_toml(home: Any) -> None:
    path = home.package("guard", "def load(): raise ValueError('no luck')")
    (path / "plugin.toml").write_text('name = "guard"\nversion = "1"\nrequired = true\n')
    with pytest.raises(LoadError, match="guard"):
        await home.manager().start()
    (path / "plugin.toml").write_text('name = "guard"\nversion = "1"\nrequired = true\nodd = 1\n')
    with pytest.raises(LoadError, match="guard"):
        await home.manager().start()
    (path / "plugin.toml").write_text('name = "guard"\nversion = "1"\n')
    async with home.manager() as manager:
        assert manager.report.required == []


async def test_M14_required_in_a_class_and_by_the_builder(home: Any) -> None:
    class Guard(Plugin):
        name, version, required = "guard", "1", True

        def load(self) -> None: ...

    manager = home.manager(auto_load=False)
    async with manager:
        record = await manager.load_plugin(Guard)
        assert record.manifest.required
        built = manager.create_plugin_builder().name("built").required().load(lambda: None).build()
        assert built.manifest.required
        assert (
            not manager.create_plugin_builder()
            .name("b")
            .load(lambda: None)
            .build()
            .manifest.required
        )


async def test_M14_required_must_be_a_bool(home: Any) -> None:
    home.plugin("guard", GUARD, required="yes")
    async with home.manager() as manager:
        assert "required: expected `bool`" in str(manager.report.failed["guard"]).lower()


async def test_M14_requests_are_refused_while_it_is_down(
    home: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    home.plugin("shop", SHOP)
    home.plugin("guard", GUARD, required=True)
    caplog.set_level(logging.INFO)

    def said() -> list[str]:
        found = [one.getMessage() for one in caplog.records if "requests are" in one.getMessage()]
        caplog.clear()
        return found

    down = "requests are refused with 503: the required plugin guard"
    up = ["requests are served again: guard is up"]
    async with home.manager() as manager, serve(manager) as client:
        assert await status(client) == UP
        assert said() == []
        await manager.toggle_plugin("guard", False)
        assert await status(client) == REFUSED
        assert (await client.get("/nowhere")).status_code == 503
        assert said() == [f"{down} is switched off"]
        await manager.toggle_plugin("guard", True)
        assert await status(client) == UP
        assert said() == up
        await manager.unload_plugin("guard")
        assert await status(client) == REFUSED
        assert said() == [f"{down} is not loaded"]
        await manager.load_plugin("guard")
        assert await status(client) == UP
        assert said() == up
        home.plugin("guard", "def load(): raise ValueError('no luck')", required=True)
        with pytest.raises(VekoError, match="no luck"):
            await manager.reload_plugin("guard")
        assert await status(client) == UP  # the old generation stays
        home.plugin("guard", GUARD, required=True)
        await manager.reload_plugin("guard")
        assert await status(client) == UP
        assert said() == []
    assert said() == []  # the end of the application is no outage


async def test_M14_a_restart_that_fails_has_requests_refused(home: Any, serve: Any) -> None:
    home.plugin("shop", SHOP)
    home.plugin("guard", GUARD, required=True, reload="restart")
    async with home.manager() as manager, serve(manager) as client:
        assert await status(client) == UP
        home.plugin(
            "guard",
            "def load(): raise ValueError('no luck')\ndef unload():\n raise ValueError('twice')",
            required=True,
            reload="restart",
        )
        record = manager.kernel.get("guard")
        old_load = record.plugin.life_cycle
        vars(record.plugin)["life_cycle"] = lambda step: (
            _fails if step == "load" else old_load(step)
        )
        with pytest.raises(VekoError):
            await manager.reload_plugin("guard")
        assert await status(client) == REFUSED
        home.plugin("guard", GUARD, required=True, reload="restart")
        await manager.load_plugin("guard")
        assert await status(client) == UP


def _fails() -> None:
    raise ValueError("the old one fails too")


async def test_M14_one_that_comes_and_fails_has_requests_refused(home: Any, serve: Any) -> None:
    home.plugin("shop", SHOP)
    async with home.manager() as manager, serve(manager) as client:
        home.plugin("guard", "def load(): raise ValueError('no luck')", required=True)
        with pytest.raises(VekoError, match="no luck"):
            await manager.load_plugin("guard")
        assert await status(client) == REFUSED
        home.plugin("guard", "def load(: pass", required=True)
        report = await manager.load_all_plugins()
        assert report.required == ["guard"]
        assert await status(client) == REFUSED
        home.plugin("guard", GUARD, required=True)
        await manager.load_all_plugins()
        assert await status(client) == UP


async def test_M14_one_that_is_found_broken_has_requests_refused(home: Any, serve: Any) -> None:
    home.plugin("shop", SHOP)
    async with home.manager() as manager, serve(manager) as client:
        home.plugin("guard", "def load(: pass", required=True)
        await manager.load_all_plugins()
        assert await status(client) == REFUSED
        home.plugin("guard", GUARD, required=True)
        await manager.load_all_plugins()
        assert await status(client) == UP


async def test_M14_one_that_is_no_longer_required_may_leave(home: Any, serve: Any) -> None:
    home.plugin("shop", SHOP)
    home.plugin("guard", GUARD, required=True)
    async with home.manager() as manager, serve(manager) as client:
        home.plugin("guard", GUARD)
        await manager.reload_plugin("guard")
        assert await status(client) == UP
        await manager.unload_plugin("guard")
        assert await status(client) == UP
        home.plugin("guard", GUARD, required=True)
        await manager.load_plugin("guard")
        await manager.unload_plugin("guard")
        assert await status(client) == REFUSED
        home.plugin("guard", GUARD)
        await manager.load_plugin("guard")
        assert await status(client) == UP


async def test_O14_requests_are_refused_until_what_the_option_names_is_up(
    home: Any, serve: Any
) -> None:
    home.plugin("shop", SHOP, priority=100)
    home.plugin("guard", "import asyncio\nasync def load(app):\n    await app.wait()\n")
    gate = asyncio.Event()
    shop_is_up = asyncio.Event()
    manager = home.manager(gate, required=["guard"])
    manager.on("plugin:loaded", lambda name: shop_is_up.set() if name == "shop" else None)
    async with serve(manager) as client:
        starting = asyncio.create_task(manager.start())
        await shop_is_up.wait()
        assert await status(client) == REFUSED
        gate.set()
        await starting
        assert await status(client) == UP
        await manager.unload_plugin("guard")
        assert await status(client) == REFUSED
        await manager.stop()


@pytest.mark.parametrize(
    "event", ["request:start", "websocket:connect", "route:create", "request:*"]
)
async def test_M14_the_start_warns_about_a_guard_that_is_not_required(
    home: Any, caplog: pytest.LogCaptureFixture, event: str
) -> None:
    body = f"def load(context): context.hook({event!r}, lambda one: None, observe=OBSERVE)"
    home.plugin("guard", body.replace("OBSERVE", "False"))
    home.plugin("sure", body.replace("OBSERVE", "False"), required=True)
    home.plugin("named", body.replace("OBSERVE", "False"))
    home.plugin("watch", body.replace("OBSERVE", "True"))
    async with home.manager(required=["named"]):
        pass
    warnings = [r.getMessage() for r in caplog.records if "not required" in r.getMessage()]
    [warning] = warnings
    assert warning.startswith("guard decides about ")
