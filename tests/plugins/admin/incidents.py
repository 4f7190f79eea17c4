"""Twenty incidents of production: what happened, what users see, and how an agent repairs it.

An agent has the tools of the MCP server and nothing else: no files, no shell, no Python. Each
repair is a script, written as an agent would act: look until the cause is found, plan, apply.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

import httpx

__all__ = ["INCIDENTS", "Agent", "Incident", "Site"]

HEAD = 'version = "{version}"\nname = "{name}"\n'


class Agent(Protocol):
    """A client with the tools."""

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must succeed."""

    async def refused(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must fail, and return the problem."""

    async def change(self, tool: str, /, **arguments: Any) -> str:
        """Plan a change, apply it, and return its id."""

    async def until(self, tool: str, found: Any, /, **arguments: Any) -> dict[str, Any]:
        """Call a reading tool until a function of its answer is true."""


class Site(Protocol):
    """The application, as its users and its developers reach it."""

    root: Path
    http: httpx.AsyncClient

    async def other(self, tool: str, /, **arguments: Any) -> str:
        """Another operator makes a change without a plan."""


def plugin(name: str, version: str = "1.0.0", more: str = "") -> str:
    return f'name = "{name}"\nversion = "{version}"\n{more}\n'


class Incident(ABC):
    """An incident.

    Attributes:
        files: The files of the application, below its directory.
    """

    files: ClassVar[dict[str, str]]
    settings: ClassVar[str] = ""

    async def cause(self, site: Site) -> None:  # noqa: B027
        """What happens to the running application: nothing, if it began so."""

    @abstractmethod
    async def broken(self, site: Site) -> bool:
        """Whether users are affected."""

    @abstractmethod
    async def repair(self, agent: Agent) -> list[str]:
        """Find the cause and repair it; return the ids of the changes."""


async def status_of(site: Site, path: str) -> int:
    return (await site.http.get(path)).status_code


class BadRelease(Incident):
    """The release on disk does not load; the one before it lies beside it."""

    files: ClassVar = {
        "plugins/shop.py": plugin("shop", "2.0.0") + "import shop_payments_v2\n",
        "plugins/_releases/shop.py": plugin("shop")
        + "def load(context):\n    context.add_route('GET', '/shop', lambda: 'open')\n",
    }

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/shop") == 404

    async def repair(self, agent: Agent) -> list[str]:
        listed = await agent.call("list_plugins", problems=True)
        (row,) = [one for one in listed["plugins"] if one["name"] == "shop"]
        assert "shop_payments_v2" in row["error"]
        directory = (await agent.call("status"))["directory"]
        return [await agent.change("load_plugin", plugin=f"{directory}/plugins/_releases/shop.py")]


class BadReload(Incident):
    """An operator reloaded a version that loads and then fails every request."""

    files: ClassVar = {
        "plugins/prices.py": plugin("prices")
        + "def load(context):\n    context.add_route('GET', '/price', lambda: {'chair': 20})\n",
    }

    async def cause(self, site: Site) -> None:
        source = plugin("prices", "1.1.0") + (
            "def load(context):\n    context.add_route('GET', '/price', lambda: {}['chair'])\n"
        )
        (site.root / "plugins" / "prices.py").write_text(source, "utf-8")
        await site.other("reload_plugin", plugin="prices")

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/price") == 500

    async def repair(self, agent: Agent) -> list[str]:
        errors = (await agent.call("list_errors"))["errors"]
        assert (errors[0]["plugin"], errors[0]["type"]) == ("prices", "KeyError")
        (last, *_) = (await agent.call("list_changes"))["changes"]
        assert (last["verb"], last["target"], last["undoable"]) == ("reload", "prices", True)
        return [await agent.change("undo", change=last["id"])]


class SlowHook(Incident):
    """A hook in front of every request waits for an audit that nobody needs."""

    files: ClassVar = {
        "plugins/pages.py": plugin("pages")
        + "def load(context):\n    context.add_route('GET', '/page', lambda: 'text')\n",
        "plugins/audit.py": plugin("audit", more="import asyncio\ndefault_config = {'wait': 0.3}")
        + """
def load(context):
    @context.hook("response:start")
    async def audited(response, request):
        wait = context.config["wait"]
        if request.path == "/page" and wait:
            await asyncio.sleep(wait)
            response.headers["x-audited"] = str(wait)
        return response
""",
    }

    async def broken(self, site: Site) -> bool:
        return "x-audited" in (await site.http.get("/page")).headers

    async def repair(self, agent: Agent) -> list[str]:
        listed = (await agent.call("list_plugins"))["plugins"]
        slowest = max(listed, key=lambda row: row.get("p95", 0))
        assert slowest["name"] == "audit"
        assert slowest["p95"] > 0.25
        details = await agent.call("show_plugin", plugin="audit")
        assert details["hooks"][0]["event"] == "response:start"
        return [await agent.change("merge_config", plugin="audit", value={"wait": 0})]


class WrongSetting(Incident):
    """A setting names a currency that the plugin cannot convert."""

    files: ClassVar = {
        "plugins/checkout.py": plugin("checkout", more="default_config = {'currency': 'EUR'}")
        + """
RATES = {"EUR": 1.0, "USD": 1.1}

def load(context):
    context.add_route("GET", "/total", lambda: {"total": 10 * RATES[context.config["currency"]]})
""",
    }
    settings = '[plugins.checkout]\ncurrency = "EURO"\n'

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/total") != 200

    async def repair(self, agent: Agent) -> list[str]:
        (error, *_) = (await agent.call("list_errors", plugin="checkout"))["errors"]
        assert (error["type"], error["message"]) == ("KeyError", "'EURO'")
        found = await agent.call("read_config", plugin="checkout", path="currency")
        assert found["value"] == "EURO"
        return [
            await agent.change(
                "set_config",
                plugin="checkout",
                path="currency",
                value="EUR",
                etag=found["etag"],
            )
        ]


class RefusedSettings(Incident):
    """A plugin refuses its settings and does not load."""

    files: ClassVar = {
        "plugins/mail.py": plugin("mail", more="import msgspec")
        + """
class config_schema(msgspec.Struct):
    host: str
    port: int = 25

def load(context):
    context.add_route("GET", "/mail", lambda: context.config.host)
""",
    }
    settings = '[plugins.mail]\nhost = "mail.example.com"\nport = "smtp"\n'

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/mail") == 404

    async def repair(self, agent: Agent) -> list[str]:
        reasons = (await agent.call("list_errors"))["not_loaded"]
        assert "port" in reasons["mail"]
        config = {"host": "mail.example.com", "port": 25}
        return [await agent.change("load_plugin", plugin="mail", config=config)]


class MissingDependency(Incident):
    """A plugin was skipped, because the plugin that it needs did not load."""

    files: ClassVar = {
        "plugins/orders.py": plugin("orders", more="dependencies = ['stock']")
        + "def load(context):\n    context.add_route('GET', '/orders', lambda: [])\n",
        "plugins/_more/stock.py": plugin("stock")
        + "def load(context):\n    context.provide('stock', object())\n",
    }

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/orders") == 404

    async def repair(self, agent: Agent) -> list[str]:
        listed = (await agent.call("list_plugins", problems=True))["plugins"]
        (row,) = [one for one in listed if one["name"] == "orders"]
        assert "stock" in row["error"]
        directory = (await agent.call("status"))["directory"]
        first = await agent.change("load_plugin", plugin=f"{directory}/plugins/_more/stock.py")
        return [first, await agent.change("load_plugin", plugin="orders")]


class CrashLoop(Incident):
    """A task of a plugin crashes each time that it runs, until the plugin is switched off."""

    files: ClassVar = {
        "plugins/feed.py": plugin(
            "feed", more="default_config = {'source': 'http://[broken', 'pause': 0.01}"
        )
        + """
from urllib.parse import urlsplit

def load(context):
    async def poll():
        urlsplit(context.config["source"])

    context.every(context.config["pause"], poll)
    context.add_route("GET", "/feed", lambda: "news")
""",
    }

    async def cause(self, site: Site) -> None:
        while await status_of(site, "/feed") != 503:
            pass

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/feed") != 200

    async def repair(self, agent: Agent) -> list[str]:
        listed = (await agent.call("check_health"))["plugins"]
        (row,) = [one for one in listed if one["name"] == "feed"]
        assert (row["health"], row["active"]) == ("critical", False)
        (error, *_) = (await agent.call("list_errors", plugin="feed"))["errors"]
        assert error["type"] in {"ValueError", "BreakerError"}
        value = {"source": "http://example.com/feed"}
        first = await agent.change("merge_config", plugin="feed", value=value)
        return [first, await agent.change("toggle_plugin", plugin="feed", active=True)]


class FailingRoute(Incident):
    """A route failed so often that it is off; the cause is a feature switched on too early."""

    files: ClassVar = {
        "plugins/search.py": plugin("search", more="default_config = {'fuzzy': False}")
        + """
def load(context):
    def search():
        if context.config["fuzzy"]:
            raise NotImplementedError("no index for fuzzy search")
        return ["chair"]

    context.add_route("GET", "/search", search)
""",
    }
    settings = "[plugins.search]\nfuzzy = true\n"

    async def cause(self, site: Site) -> None:
        while await status_of(site, "/search") != 503:
            pass

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/search") != 200

    async def repair(self, agent: Agent) -> list[str]:
        routes = (await agent.call("list_routes", contains="/search"))["routes"]
        assert routes[0]["state"] == "off"
        (error, *_) = [
            one
            for one in (await agent.call("list_errors", plugin="search"))["errors"]
            if one["type"] != "BreakerError"
        ]
        assert "fuzzy" in error["traceback"]
        first = await agent.change("merge_config", plugin="search", value={"fuzzy": False})
        return [first, await agent.change("reload_plugin", plugin="search")]


class ClosedGuard(Incident):
    """A guard refuses every request, because it was told that there is maintenance."""

    files: ClassVar = {
        "plugins/gate.py": plugin("gate", more="default_config = {'closed': True}")
        + """
from veko_plugins import HTTPError

def load(context):
    @context.hook("request:start")
    def gate(request):
        if context.config["closed"] and not request.path.startswith("/_veko"):
            raise HTTPError(503, "maintenance", counts=False)
""",
        "plugins/pages.py": plugin("pages")
        + "def load(context):\n    context.add_route('GET', '/page', lambda: 'text')\n",
    }

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/page") == 503

    async def repair(self, agent: Agent) -> list[str]:
        events = (await agent.call("list_events", contains="request:start", hooked=True))["events"]
        assert events[0]["fails_closed"]
        plugins = (await agent.call("list_plugins"))["plugins"]
        guards = [
            row["name"]
            for row in plugins
            if any(
                hook["event"] == "request:start"
                for hook in (await agent.call("show_plugin", plugin=row["name"]))["hooks"]
            )
        ]
        assert guards == ["gate"]
        found = await agent.call("search_docs", query="guard request:start refuses requests")
        assert found["sections"]
        return [await agent.change("toggle_plugin", plugin="gate", active=False)]


class BlockedLoop(Incident):
    """A handler computes on the event loop, and everybody waits."""

    files: ClassVar = {
        "plugins/report.py": plugin("report", more="import time\ndefault_config = {'years': 10}")
        + """
def load(context):
    async def report():
        years = context.config["years"]
        time.sleep(0.05 * years)
        return {"years": years}

    context.add_route("GET", "/report", report)
""",
    }

    async def cause(self, site: Site) -> None:
        await site.http.get("/report")

    async def broken(self, site: Site) -> bool:
        return (await site.http.get("/report")).json()["years"] > 1

    async def repair(self, agent: Agent) -> list[str]:
        listed = await agent.until(
            "list_plugins", lambda found: any("blocked_seconds" in r for r in found["plugins"])
        )
        worst = max(listed["plugins"], key=lambda row: row.get("blocked_seconds", 0))
        assert worst["name"] == "report"
        logs = await agent.until(
            "read_logs",
            lambda found: any("report" in one["message"] for one in found["records"]),
            level="warning",
        )
        assert logs["records"]
        return [await agent.change("set_config", plugin="report", path="years", value=1)]


class LeakOfTasks(Incident):
    """Each request leaves a task behind."""

    files: ClassVar = {
        "plugins/notify.py": plugin(
            "notify", more="import asyncio\ndefault_config = {'mail': True}"
        )
        + """
def load(context):
    waiting = set()

    async def order():
        if context.config["mail"]:
            task = asyncio.ensure_future(asyncio.Event().wait())
            waiting.add(task)
        if len(waiting) > 3:
            context.log("warning", f"{len(waiting)} mails wait for the mail server")
        return {"waiting": len(waiting)}

    async def end():
        for task in waiting:
            task.cancel()
        waiting.clear()

    async def hold():
        try:
            await asyncio.Event().wait()
        finally:
            await end()

    context.spawn(hold)
    context.add_route("POST", "/order", order)
    context.add_command("notify:waiting", lambda: len(waiting), "Count the mails that wait.")
""",
    }

    async def cause(self, site: Site) -> None:
        for _ in range(5):
            await site.http.post("/order")

    async def broken(self, site: Site) -> bool:
        before = (await site.http.post("/order")).json()["waiting"]
        return (await site.http.post("/order")).json()["waiting"] > before

    async def repair(self, agent: Agent) -> list[str]:
        records = (await agent.call("read_logs", level="warning", plugin="notify"))["records"]
        assert "wait for the mail server" in records[-1]["message"]
        assert (await agent.call("command_notify_waiting"))["result"] >= 5
        first = await agent.change("merge_config", plugin="notify", value={"mail": False})
        second = await agent.change("reload_plugin", plugin="notify")
        assert (await agent.call("command_notify_waiting"))["result"] == 0
        return [first, second]


class TooManyPermissions(Incident):
    """Somebody loaded a plugin that asks for the network and for every program."""

    files: ClassVar = {
        "plugins/_more/helper.py": plugin(
            "helper", more="permissions = ['net:connect', 'process:spawn']"
        )
        + "def load(context):\n    context.add_route('GET', '/helper', lambda: 'hello')\n",
    }

    async def cause(self, site: Site) -> None:
        await site.other("load_plugin", plugin=str(site.root / "plugins" / "_more" / "helper.py"))

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/helper") == 200

    async def repair(self, agent: Agent) -> list[str]:
        (row,) = (await agent.call("list_plugins", contains="helper"))["plugins"]
        assert set(row["permissions"]) == {"net:connect", "process:spawn"}
        (last, *_) = (await agent.call("list_changes"))["changes"]
        assert last["target"] == "helper" or "helper" in last["target"]
        return [await agent.change("undo", change=last["id"])]


class FloodOfLogs(Incident):
    """A plugin logs everything, and the disk fills."""

    files: ClassVar = {
        "plugins/chatty.py": plugin("chatty", more="default_config = {'verbose': True}")
        + """
def load(context):
    async def work():
        lines = 0
        if context.config["verbose"]:
            for number in range(50):
                context.log("warning", f"step {number} of the work")
                lines += 1
        return {"lines": lines}

    context.add_route("GET", "/work", work)
""",
    }

    async def cause(self, site: Site) -> None:
        for _ in range(3):
            await site.http.get("/work")

    async def broken(self, site: Site) -> bool:
        return (await site.http.get("/work")).json()["lines"] > 0

    async def repair(self, agent: Agent) -> list[str]:
        records = (await agent.call("read_logs", limit=100))["records"]
        by = [record["plugin"] for record in records]
        assert max(set(by), key=by.count) == "chatty"
        found = await agent.call("read_config", plugin="chatty")
        assert found["value"]["verbose"] is True
        return [await agent.change("set_config", plugin="chatty", value={"verbose": False})]


class SwitchedOff(Incident):
    """Somebody switched a plugin off and left."""

    files: ClassVar = {
        "plugins/login.py": plugin("login")
        + "def load(context):\n    context.add_route('GET', '/login', lambda: 'form')\n",
    }

    async def cause(self, site: Site) -> None:
        await site.other("toggle_plugin", plugin="login", active=False)

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/login") == 404

    async def repair(self, agent: Agent) -> list[str]:
        (row,) = (await agent.call("list_plugins", problems=True))["plugins"]
        assert (row["name"], row["state"]) == ("login", "inactive")
        return [await agent.change("toggle_plugin", plugin="login", active=True)]


class WrongMiddleware(Incident):
    """A middleware in front of everything answers with an empty page."""

    files: ClassVar = {
        "plugins/pages.py": plugin("pages")
        + "def load(context):\n    context.add_route('GET', '/page', lambda: 'text')\n",
        "plugins/minify.py": plugin("minify")
        + """
def load(context):
    async def minify(request, call_next):
        response = await call_next(request)
        if request.path == "/page":
            response.body = b""
        return response

    context.add_middleware(minify)
""",
    }

    async def broken(self, site: Site) -> bool:
        return (await site.http.get("/page")).text == ""

    async def repair(self, agent: Agent) -> list[str]:
        plugins = (await agent.call("list_plugins"))["plugins"]
        around = [
            row["name"]
            for row in plugins
            if (await agent.call("show_plugin", plugin=row["name"]))["middleware"]
        ]
        assert around == ["minify"]
        return [await agent.change("unload_plugin", plugin="minify")]


class TwiceTheSame(Incident):
    """Two plugins add the tax, since a new one came and the old one stayed."""

    files: ClassVar = {
        "plugins/cart.py": plugin("cart")
        + """
def load(context):
    async def cart():
        return {"total": await context.emit("total", 100)}

    context.add_route("GET", "/cart", cart)
""",
        "plugins/tax.py": plugin("tax")
        + "def load(context):\n    context.hook('plugin:cart:total', lambda total: total + 20)\n",
        "plugins/vat.py": plugin("vat", more="description = 'Replaces tax'")
        + "def load(context):\n    context.hook('plugin:cart:total', lambda total: total + 20)\n",
    }

    async def broken(self, site: Site) -> bool:
        return (await site.http.get("/cart")).json()["total"] != 120

    async def repair(self, agent: Agent) -> list[str]:
        events = (await agent.call("list_events", contains="cart:total"))["events"]
        assert events[0]["hooks"] == 2
        (vat,) = (await agent.call("list_plugins", contains="vat"))["plugins"]
        assert vat["description"] == "Replaces tax"
        return [await agent.change("unload_plugin", plugin="tax")]


class LostData(Incident):
    """A command deleted what was stored; there is a backup."""

    files: ClassVar = {
        "plugins/notes.py": plugin("notes")
        + """
def load(context):
    async def clear() -> None:
        await context.storage.delete("note")

    async def note(text: str) -> None:
        await context.storage.set("note", text)

    context.add_command("notes:clear", clear)
    context.add_command("notes:set", note)
    context.add_route("GET", "/note", lambda: {"note": context.storage.get("note")})
""",
    }

    async def cause(self, site: Site) -> None:
        await site.other("command_notes_set", text="buy tea")
        await site.other("create_backup")
        await site.other("command_notes_clear")

    async def broken(self, site: Site) -> bool:
        return (await site.http.get("/note")).json()["note"] is None

    async def repair(self, agent: Agent) -> list[str]:
        (backup, *_) = (await agent.call("list_backups"))["backups"]
        return [await agent.change("restore_backup", backup=backup["name"])]


class DeadUpstream(Incident):
    """A hook waits for a server that does not answer, until the time limit ends it."""

    files: ClassVar = {
        "plugins/rates.py": plugin(
            "rates", more="import asyncio\ndefault_config = {'server': 'dead.example'}"
        )
        + """
def load(context):
    async def rate():
        return {"rate": await context.emit("rate", 0)}

    async def asked(rate):
        if context.config["server"].startswith("dead"):
            await asyncio.Event().wait()
        return 1.1

    context.hook("plugin:rates:rate", asked, timeout=0.05)
    context.add_route("GET", "/rate", rate)
""",
    }

    async def cause(self, site: Site) -> None:
        await site.http.get("/rate")

    async def broken(self, site: Site) -> bool:
        return (await site.http.get("/rate")).json()["rate"] == 0

    async def repair(self, agent: Agent) -> list[str]:
        (error, *_) = (await agent.call("list_errors"))["errors"]
        assert (error["plugin"], "Timeout" in error["type"]) == ("rates", True)
        value = {"server": "backup.example"}
        return [await agent.change("merge_config", plugin="rates", value=value)]


class UnloadedByMistake(Incident):
    """Somebody unloaded the wrong plugin."""

    files: ClassVar = {
        "plugins/invoice.py": plugin("invoice")
        + "def load(context):\n    context.add_route('GET', '/invoice', lambda: 'pdf')\n",
    }

    async def cause(self, site: Site) -> None:
        await site.other("unload_plugin", plugin="invoice")

    async def broken(self, site: Site) -> bool:
        return await status_of(site, "/invoice") == 404

    async def repair(self, agent: Agent) -> list[str]:
        (last, *_) = (await agent.call("list_changes"))["changes"]
        assert (last["verb"], last["target"]) == ("unload", "invoice")
        return [await agent.change("undo", change=last["id"])]


class TwoOperators(Incident):
    """Two operators change one configuration; the second must not overwrite the first."""

    files: ClassVar = {
        "plugins/limits.py": plugin("limits", more="default_config = {'rate': 0, 'burst': 1}")
        + "def load(context):\n    context.add_route('GET', '/limits', lambda: context.config)\n",
    }

    async def broken(self, site: Site) -> bool:
        return (await site.http.get("/limits")).json()["rate"] == 0

    async def repair(self, agent: Agent) -> list[str]:
        old = await agent.call("read_config", plugin="limits")
        first = await agent.change("merge_config", plugin="limits", value={"burst": 5})
        problem = await agent.refused(
            "set_config", plugin="limits", value={"rate": 10, "burst": 1}, etag=old["etag"]
        )
        assert "remedy" in problem
        new = await agent.call("read_config", plugin="limits")
        assert new["value"]["burst"] == 5
        value = {**new["value"], "rate": 10}
        second = await agent.change("set_config", plugin="limits", value=value, etag=new["etag"])
        return [first, second]


INCIDENTS: list[type[Incident]] = [
    BadRelease, BadReload, SlowHook, WrongSetting, RefusedSettings, MissingDependency, CrashLoop,
    FailingRoute, ClosedGuard, BlockedLoop, LeakOfTasks, TooManyPermissions, FloodOfLogs,
    SwitchedOff, WrongMiddleware, TwiceTheSame, LostData, DeadUpstream, UnloadedByMistake,
    TwoOperators,
]  # fmt: skip
