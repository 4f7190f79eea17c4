"""A small shop of eight plugins for the dashboard: some work, one blocks, one fails on demand."""

from pathlib import Path

SETTINGS = """
adapter = "asgi"
enable_api = true
watchdog = 0.05
error_threshold = 1000
warn_threshold = 3

[plugins.tracing]
keep = 200
"""

PLUGINS = {
    "catalog": '''
"""The goods and their prices."""
from typing import Annotated
import msgspec
from veko_plugins import Context

name = "catalog"
version = "1.2.0"
description = "The goods, with their prices and how many are left"


class Warehouse(msgspec.Struct):
    """Where the goods are."""

    city: str = "Bremen"
    shelves: Annotated[int, msgspec.Meta(ge=1, le=500)] = 40


class Config(msgspec.Struct):
    title: Annotated[str, msgspec.Meta(min_length=1, description="Above the goods")] = "All goods"
    per_page: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    currency: str | None = None
    discounts: bool = False
    tags: list[str] = msgspec.field(default_factory=lambda: ["new", "sale"])
    api_key: str = "k-123456"
    warehouse: Warehouse = msgspec.field(default_factory=Warehouse)
    limits: dict[str, int] = msgspec.field(default_factory=lambda: {"orders": 5})


config_schema = Config


def load(context: Context) -> None:
    goods = {"tea": 4.5, "cup": 9.0}

    async def index() -> dict[str, object]:
        prices = {good: await context.emit("price", price) for good, price in goods.items()}
        return {"title": context.config.title, "goods": prices}

    context.provide("catalog", goods)
    context.add_route("GET", "/goods", index)
''',
    "discounts": """
from veko_plugins import Context

name = "discounts"
version = "0.9.1"
description = "Lowers prices of goods on sale"
dependencies = ["catalog"]


def load(context: Context) -> None:
    async def lower(price: float) -> float:
        return round(price * 0.9, 2)

    context.hook("plugin:catalog:price", lower)
""",
    "cart": '''
from veko_plugins import Context

name = "cart"
version = "2.0.0"
description = "What a visitor wants to buy"
dependencies = ["catalog"]


def load(context: Context) -> None:
    goods = context.use("catalog")
    cart: list[str] = []

    async def put(good: str) -> dict[str, object]:
        cart.append(good)
        return {"cart": cart, "sum": sum(goods.get(one, 0) for one in cart)}

    def clear(sure: bool = False) -> str:
        """Empty the cart."""
        if not sure:
            return "say that you are sure"
        count = len(cart)
        cart.clear()
        return f"{count} taken out"

    context.provide("cart", cart)
    context.add_route("POST", "/cart/{good}", put)
    context.add_command("clear-cart", clear)
''',
    "checkout": """
from veko_plugins import Context

name = "checkout"
version = "1.0.3"
description = "Takes the money"
dependencies = ["cart", "mailer"]


def load(context: Context) -> None:
    async def pay() -> dict[str, str]:
        return {"paid": "yes"}

    context.add_route("POST", "/pay", pay)
""",
    "mailer": """
from veko_plugins import Context

name = "mailer"
version = "1.1.0"
description = "Sends letters"


def load(context: Context) -> None:
    context.provide("mailer", print)
    context.log("info", "the mailer is ready")
""",
    "ratings": """
from veko_plugins import Context

name = "ratings"
version = "0.4.0"
description = "Stars for goods; fails when asked to"


def load(context: Context) -> None:
    async def stars(good: str) -> dict[str, int]:
        if good == "broken":
            raise ValueError("no stars for broken goods")
        return {"stars": len(good) % 5 + 1}

    context.add_route("GET", "/stars/{good}", stars)
""",
    "reports": """
import time
from veko_plugins import Context

name = "reports"
version = "1.0.0"
description = "Counts what was sold; blocks the event loop while it does"


def load(context: Context) -> None:
    async def report() -> dict[str, int]:
        time.sleep(0.4)  # as a heavy computation would
        return {"sold": 3}

    context.add_route("GET", "/report", report)
""",
    "clock": """
import anyio
from veko_plugins import Context

name = "clock"
version = "1.0.0"
description = "Says what time it is, five times a second"


def load(context: Context) -> None:
    async def tick() -> None:
        count = 0
        while True:
            count += 1
            await context.emit("tick", count)
            context.log("info", f"tick {count}")
            await anyio.sleep(0.2)

    context.spawn(tick)
    context.hook("plugin:clock:tick", lambda count: None)
""",
}


def make_shop(folder: Path, *, more: int = 0, settings: str = SETTINGS) -> Path:
    """Write the shop, with more plugins that do little."""
    (folder / "plugins").mkdir(parents=True)
    (folder / "veko.toml").write_text(settings)
    for name, source in PLUGINS.items():
        (folder / "plugins" / f"{name}.py").write_text(source)
    for number in range(more):
        (folder / "plugins" / f"plugin_{number:03}.py").write_text(
            f'name = "plugin-{number:03}"\nversion = "1.0.0"\ndescription = "Number {number}"\n\n\n'
            "def load(context):\n"
            f'    context.add_route("GET", "/number/{number}", lambda: {number})\n'
            '    context.hook("request:start", lambda request: None, priority=1)\n'
        )
    return folder
