"""Failures of plugins' code, as in `tests/faults/`, each in a plugin that is loaded from a file.

`bad()` is what fails. The fixed version of each plugin is the same without that.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from veko_plugins import PluginManager
from veko_plugins.testing.client import Client

HEAD = """
import asyncio, contextlib, sys
name, version = {name!r}, "1.0.0"

def bad(*args):
    {bad}

async def abad(*args):
    bad()

def load(app, config, context):
    pass
"""
ERRORS = {
    "KeyError": "raise KeyError('key')",
    "SystemExit": "sys.exit(3)",
    "GeneratorExit": "raise GeneratorExit",
    "group": "raise ExceptionGroup('some', [ValueError('a')])",
}
FIXED = "return None"

Act = Callable[[PluginManager, Client], Awaitable[object]]


class Scenario(NamedTuple):
    """One way to fail.

    Attributes:
        like: The test of `tests/faults/` that fails alike.
        code: What follows `HEAD`.
        act: What makes it fail, if loading is not enough.
    """

    like: str
    code: str
    act: Act | None = None


def get(path: str, times: int = 1) -> Act:
    async def act(manager: PluginManager, client: Client) -> None:
        for _ in range(times):
            with contextlib.suppress(Exception, BaseExceptionGroup):
                await client.get(path)

    return act


def post(path: str, **body: Any) -> Act:
    async def act(manager: PluginManager, client: Client) -> None:
        await client.get("/elsewhere")
        await client.post(path, **body)

    return act


def emit(event: str, *args: Any, verb: str = "emit", **options: Any) -> Act:
    async def act(manager: PluginManager, client: Client) -> None:
        with contextlib.suppress(BaseException):
            await getattr(manager.bus, verb)(event, *args, **options)

    return act


def command(*args: Any) -> Act:
    async def act(manager: PluginManager, client: Client) -> None:
        with contextlib.suppress(Exception):
            await manager.run_command("do", *args)

    return act


def talk(*messages: str) -> Act:
    async def act(manager: PluginManager, client: Client) -> None:
        with contextlib.suppress(Exception):
            async with client.websocket("/talk", timeout=1) as socket:
                for message in messages:
                    await socket.send(message)
                while True:
                    await socket.receive()

    return act


def lives(step: str) -> Act:
    async def act(manager: PluginManager, client: Client) -> None:
        (info,) = manager.list_plugins()
        with contextlib.suppress(Exception):
            match step:
                case "unload":
                    await manager.unload_plugin(info.name)
                case "toggle":
                    await manager.toggle_plugin(info.name, False)
                    await manager.toggle_plugin(info.name, True)
                case "reload":
                    await manager.reload_plugin(info.name)
                case "config":
                    record = manager.get_plugin(info.name)
                    assert record is not None

    return act


def loading(body: str) -> str:
    """Return code in which `load` does something."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return f"def load(app, config, context):\n{lines}\n"


ENDS = "test_whatever_a_handler_raises_is_its_plugins_fault"
RECORD = "test_failure_records.py"
INPUT = "test_a_handler_that_fails_is_answered_counted_and_attributed"
HOOKS = "test_a_hook_that_fails_is_counted_and_attributed_and_the_request_answered"
AROUND = """
async def around(request, call_next):
    bad()
    return await call_next(request)
"""
SOCKET = """
async def talk(socket):
    await socket.accept()
    async for message in socket:
        if message == "now":
            bad()
context.add_websocket("/talk", talk)
"""
SCENARIOS: dict[str, Scenario] = {
    "hook": Scenario(ENDS, loading("context.hook('x', bad)"), emit("x", 1)),
    "async-hook": Scenario(ENDS, loading("context.hook('x', abad)"), emit("x", {"a": [1]})),
    "limited-hook": Scenario(ENDS, loading("context.hook('x', abad, timeout=5.0)"), emit("x", 1)),
    "first": Scenario(ENDS, loading("context.hook('x', bad)"), emit("x", 1, verb="first")),
    "gather": Scenario(ENDS, loading("context.hook('x', abad)"), emit("x", 1, verb="gather")),
    "pattern": Scenario(ENDS, loading("context.hook('x:*', bad)"), emit("x:y", (1, {2}))),
    "observer": Scenario(ENDS, loading("context.hook('x', bad, observe=True)"), emit("x", b"1")),
    "nested": Scenario(
        ENDS,
        loading(
            "async def outer(n): await context.emit('inner', n)\n"
            "context.hook('x', outer)\n"
            "context.hook(f'plugin:{context.name}:inner', bad)"
        ),
        emit("x", 3),
    ),
    "spawn": Scenario(ENDS, loading("context.spawn(abad)")),
    "every": Scenario(ENDS, loading("context.every(0.01, bad)")),
    "task-of-request": Scenario(
        ENDS,
        loading(
            "async def go(request):\n    context.spawn(abad)\n    return 'x'\n"
            "context.add_route('GET', '/x', go)"
        ),
        get("/x"),
    ),
    "unload": Scenario(ENDS, "def unload(): bad()\n", lives("unload")),
    "async-unload": Scenario(ENDS, "async def unload(): bad()\n", lives("unload")),
    "deactivate": Scenario(ENDS, "def deactivate(): bad()\n", lives("toggle")),
    "activate": Scenario(ENDS, "def activate(): bad()\n"),
    "unload-at-stop": Scenario(ENDS, "def unload(): bad()\n"),
    "resource": Scenario(
        ENDS,
        "@contextlib.asynccontextmanager\nasync def held():\n    yield\n    bad()\n"
        "async def load(app, config, context):\n    await context.enter(held())\n",
        lives("unload"),
    ),
    "reload": Scenario(ENDS, "def unload(): bad()\n", lives("reload")),
    "load": Scenario("test_a_load_that_raises_says_the_line_once", loading("bad()")),
    "async-load": Scenario(
        "test_a_load_that_raises_says_the_line_once",
        "async def load(app, config, context):\n    bad()\n",
    ),
    "import": Scenario("test_everything_bad_at_once", "bad()\n"),
    "route": Scenario(ENDS, loading("context.add_route('GET', '/x', lambda: bad())"), get("/x")),
    "async-route": Scenario(ENDS, loading("context.add_route('GET', '/x', abad)"), get("/x")),
    "route-by-id": Scenario(
        "test_a_mistake_is_printed_with_its_remedy",
        loading(
            "def item(id: int):\n    return bad() if id == 2 else 'one'\n"
            "context.add_route('GET', '/items/{id:int}', item)"
        ),
        get("/items/2?x=1"),
    ),
    "post": Scenario(
        "test_a_handler_that_raises_is_one_record",
        loading(
            "async def buy(request):\n    data = await request.json()\n"
            "    return bad() if data['count'] < 0 else 'ok'\n"
            "context.add_route('POST', '/buy', buy)"
        ),
        post("/buy", json={"count": -1, "token": "t"}),
    ),
    "form": Scenario(
        "test_a_middleware_is_not_blamed_for_a_form_that_a_route_decodes",
        loading(
            "async def buy(request):\n    form = await request.form()\n"
            "    return bad() if form['count'] == '-1' else 'ok'\n"
            "context.add_route('POST', '/buy', buy)"
        ),
        post("/buy", data={"count": "-1", "password": "x"}),
    ),
    "bytes": Scenario(
        "test_a_handler_that_raises_is_one_record",
        loading(
            "async def put(request):\n"
            "    return bad() if (await request.body())[0] == 255 else ''\n"
            "context.add_route('PUT', '/x', put)\ncontext.add_route('POST', '/x', put)"
        ),
        post("/x", content=b"\xff\x00"),
    ),
    "third-time": Scenario(
        "test_a_route_that_fails_leaves_every_other_one_answering",
        loading(
            "seen = []\n"
            "async def go(request):\n    seen.append(1)\n"
            "    return bad() if len(seen) == 3 else 'x'\n"
            "context.add_route('GET', '/x', go)"
        ),
        get("/x", times=5),
    ),
    "after-an-event": Scenario(
        "test_a_plugin_that_is_off_for_its_hooks_answers_503",
        loading(
            "state = {}\n"
            "context.hook('prepare', lambda value: state.update(value))\n"
            "context.add_route('GET', '/x', lambda: bad() if state.get('broken') else 'x')"
        ),
        lambda manager, client: _prepared(manager, client),
    ),
    "stream": Scenario(
        "test_an_application_goes_on_or_ends_in_order_and_names_the_plugin",
        loading(
            "async def go(request):\n"
            "    async def parts():\n        yield 'a'\n        bad()\n"
            "    return parts()\n"
            "context.add_route('GET', '/x', go)"
        ),
        get("/x"),
    ),
    "middleware": Scenario(
        "test_a_middleware_that_raises_is_one_record",
        loading(
            f"{AROUND}\n"
            "context.add_middleware(around)\ncontext.add_route('GET', '/x', lambda: 'x')"
        ),
        get("/x"),
    ),
    "own-middleware": Scenario(
        INPUT,
        loading(
            f"{AROUND}\n"
            "context.add_route('GET', '/x', around, lambda: 'x')"
        ),
        get("/x"),
    ),
    "middleware-by-route-create": Scenario(
        "test_a_middleware_put_on_by_route_create_is_its_own_plugins",
        loading(
            "import msgspec\n"
            f"{AROUND}\n"
            "def guard(route):\n"
            "    return msgspec.structs.replace(route, middlewares=(around, *route.middlewares))\n"
            "context.hook('route:create', guard)\ncontext.add_route('GET', '/x', lambda: 'x')"
        ),
        get("/x"),
    ),
    "guard": Scenario(
        "test_a_guard_that_raises_is_one_record",
        loading("context.hook('request:start', abad)\ncontext.add_route('GET', '/x', lambda: 'x')"),
        get("/x"),
    ),
    **{
        f"on-{event.replace(':', '-')}": Scenario(
            HOOKS,
            loading(
                f"def hook(*args):\n    bad()\n"
                f"context.hook({event!r}, hook)\ncontext.add_route('GET', '/x', lambda: 'x')"
            ),
            get("/x"),
        )
        for event in ("response:start", "response:end", "request:end")
    },
    "on-request-error": Scenario(
        HOOKS,
        loading(
            "def hook(*args):\n    bad()\ndef broken():\n    raise OSError('expected')\n"
            "context.hook('request:error', hook)\ncontext.add_route('GET', '/x', broken)"
        ),
        get("/x"),
    ),
    "socket": Scenario(
        "test_a_websocket_handler_that_raises_is_one_record",
        loading(SOCKET),
        talk("hello", "now"),
    ),
    "socket-connect": Scenario(
        "test_a_websocket_that_fails_goes_off_alone",
        loading(f"{SOCKET.strip()}\ncontext.hook('websocket:connect', bad)"),
        talk("hello"),
    ),
    "socket-message": Scenario(
        "test_a_websocket_that_fails_goes_off_alone",
        loading(f"{SOCKET.strip()}\ncontext.hook('websocket:message', bad)"),
        talk("hello"),
    ),
    "command": Scenario(
        "test_a_command_that_fails_is_attributed",
        loading("context.add_command('do', lambda: bad())"),
        command(),
    ),
    "command-with-arguments": Scenario(
        "test_a_command_that_raises_is_one_record",
        loading(
            "async def do(days: int, name: str = 'x'):\n    return bad() if days < 0 else None\n"
            "context.add_command('do', do)"
        ),
        command(-1, "ann"),
    ),
    "on-plugin-loaded": Scenario(ENDS, loading("context.hook('plugin:loaded', bad)")),
    "on-app-start": Scenario(ENDS, loading("context.hook('app:start', bad)")),
    "on-app-stop": Scenario(ENDS, loading("context.hook('app:stop', bad)")),
    "on-config-validate": Scenario(ENDS, loading("context.hook('config:change', bad)"),
        emit("config:change", {"a": 1})),
    "on-file-change": Scenario(ENDS, loading("context.hook('file:change', bad)"),
        emit("file:change", "a.py")),
    "service": Scenario(
        ENDS,
        loading(
            "class Shop:\n    def sell(self): bad()\n"
            "context.provide('shop', Shop())\n"
            "context.add_route('GET', '/x', lambda: context.use('shop').sell())"
        ),
        get("/x"),
    ),
    "storage": Scenario(
        ENDS,
        loading(
            "async def go(request):\n    n = context.storage.get('n', 0)\n"
            "    context.storage.set('n', n + 1)\n    return bad() if n == 1 else 'x'\n"
            "context.add_route('GET', '/x', go)"
        ),
        get("/x", times=2),
    ),
}  # fmt: skip
MORE: dict[str, tuple[Scenario, str, str]] = {
    "hangs": (
        Scenario(
            "test_a_hook_that_hangs_is_ended_and_the_request_refused",
            loading(
                "async def hang(request):\n    bad()\n    if STUCK: await asyncio.Event().wait()\n"
                "context.hook('request:start', hang, timeout=0.05)\n"
                "context.add_route('GET', '/x', lambda: 'x')"
            ),
            get("/x"),
        ),
        "return None\nSTUCK = True",
        "return None\nSTUCK = False",
    ),
    "wrong-answer": (
        Scenario(
            "test_a_mistake_is_printed_with_its_remedy",
            loading(
                "context.hook('response:start', lambda response, request: bad())\n"
                "context.add_route('GET', '/x', lambda: 'x')"
            ),
            get("/x"),
        ),
        "return 'a text'",
        FIXED,
    ),
    "unsendable": (
        Scenario(
            "test_a_mistake_is_printed_with_its_remedy",
            loading("context.add_route('GET', '/x', lambda: bad())"),
            get("/x"),
        ),
        "return object()",
        FIXED,
    ),
    "interrupt": (
        Scenario(ENDS, loading("context.add_route('GET', '/x', lambda: bad())"), get("/x")),
        "raise KeyboardInterrupt",
        FIXED,
    ),
    "syntax-error": (
        Scenario("test_everything_bad_at_once", ""),
        "return (",
        FIXED,
    ),
}


async def _prepared(manager: PluginManager, client: Client) -> None:
    for number in range(20):
        await client.get(f"/nothing/{number}")
    await manager.bus.emit("prepare", {"broken": True})
    await client.get("/x")
