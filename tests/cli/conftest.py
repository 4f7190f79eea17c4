"""What the tests of the command line share: applications on disk."""

from pathlib import Path

import pytest

HELLO = '''
"""Says hello."""
import asyncio, sys

name = "hello"
version = "1.2.3"
description = "Says hello"

def load(context):
    print("hello prints while it loads")
    context.add_route("GET", "/hello", lambda: {"hello": "world"})
    context.add_command("greet", greet, "Greets somebody")
    context.add_command("fail", fail)
    context.add_command("exit", leave)
    context.add_command("data", lambda: {"a": [1, None]})
    context.add_command("raw", lambda: b"\\xff")
    context.log("info", "hello is here")

async def greet(name: str, *, times: int = 1, loud: bool = False) -> str:
    """Greet somebody.

    Args:
        name: Whom.
    """
    await asyncio.sleep(0)
    text = " ".join([f"hello {name}"] * times)
    return text.upper() if loud else text

def leave(code: int):
    sys.exit(code)

def fail():
    raise ValueError("it was the wrong day")

def unload():
    print("hello says goodbye", flush=True)
'''

EVENTS = """
from veko import Event

name = "events"
version = "1.0.0"

def load(context):
    context.declare(Event("links:made", payload=str, returns=True, doc="A link was made."))
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """An application of two plugins that load, one that cannot and one that needs that."""
    root = tmp_path / "app"
    plugins = root / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "hello.py").write_text(HELLO)
    (plugins / "events.py").write_text(EVENTS)
    (plugins / "broken.py").write_text(
        'name = "broken"\nversion = "1.0.0"\n\ndef load():\n    raise ValueError("no luck")\n'
    )
    (plugins / "needy.py").write_text(
        'name = "needy"\nversion = "1.0.0"\ndependencies = ["broken"]\n\ndef load():\n    pass\n'
    )
    (root / "veko.toml").write_text("max_retries = 0\n")
    return root
