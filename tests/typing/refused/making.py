"""What type checkers refuse of plugins in code. Checked by tests/test_typing.py, never run."""

from veko import Event
from veko_plugins import Plugin, create_dev_plugin, create_plugin_builder

PRICE: Event[int] = Event("price", payload=int, returns=True)


def named(price: str) -> str:
    return price


def built() -> None:
    builder = create_plugin_builder()
    builder.name(5)  # refused
    builder.depends(5)  # refused
    builder.config([1])  # refused
    builder.route("GET", 5, named)  # refused
    builder.route("GET", "/x", 5)  # refused
    builder.hook(PRICE, named)  # refused
    builder.hook("price", 5)  # refused
    builder.middleware(named, "high")  # refused
    builder.every("often", named)  # refused
    builder.load(5)  # refused
    builder.licence("MIT")  # refused
    builder.build().rout  # refused


def quick() -> None:
    create_dev_plugin("x", {"/x": named})  # refused
    create_dev_plugin("x", routes={"/x": 5})  # refused
    create_dev_plugin("x", hook={"price": named})  # refused


def decorated() -> None:
    plugin = Plugin("shop", "1.0.0")
    Plugin("shop")  # refused
    Plugin("shop", "1.0.0", verzion="1")  # refused
    Plugin("shop", "1.0.0", dependencies=5)  # refused
    plugin.rout("GET", "/x")  # refused
    plugin.route("GET")  # refused
    plugin.route("GET", "/x")(5)  # refused
    plugin.every("often")  # refused
