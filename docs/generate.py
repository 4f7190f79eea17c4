"""Writes the reference pages that are made of declarations: events and options.

python docs/generate.py            write them
python docs/generate.py --check    say which are stale, and fail if there are any
"""

import asyncio
import inspect
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from veko import Event
from veko_plugins import Options, PluginManager
from veko_plugins.manager.option_checks import NOT_YET

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by docs/generate.py from the declarations: change those. -->"


async def declared() -> list[Event]:
    with tempfile.TemporaryDirectory() as nowhere:
        async with PluginManager(root=nowhere, auto_load=False, storage="sqlite:///:memory:") as m:
            return m.events()


def events(found: Iterable[Event]) -> str:
    lines = [
        MADE,
        "# Events",
        "",
        "What Veko fires, and what may be hooked: `context.hook(name, handler)`. The first",
        "argument of a handler is the payload. Where it may be *returned*, what a handler returns",
        "(unless `None`) is what the next one gets, and it must be of the payload's type;",
        "elsewhere it is ignored. `veko events DIR` lists these and those that the plugins of an",
        "application declare.",
        "",
        "| event | payload | returned | when, with what |",
        "|---|---|---|---|",
    ]
    for event in found:
        told = ["yes"] if event.returns else []
        if event.stops is not None:
            told.append(f"a {code(event.stops)} ends it")
        returned = "; ".join(told)
        doc = " ".join(event.doc.split()).replace("|", "\\|")
        lines.append(f"| `{event.name}` | {code(event.payload)} | {returned} | {doc} |")
    return "\n".join(lines) + "\n"


def code(annotation: object) -> str:
    return "" if annotation is object else f"`{shown(annotation)}`".replace("|", "\\|")


def shown(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return " | ".join(shown(one) for one in inner)
    if annotation is type(None):
        return "None"
    if hasattr(annotation, "__metadata__"):  # Annotated
        return shown(inner[0])
    if origin is not None:
        return f"{shown(origin)}[{', '.join('...' if a is ... else shown(a) for a in inner)}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def options() -> str:
    doc = inspect.getdoc(Options) or ""
    told = dict(re.findall(r"^    (\w+): (.*(?:\n        .*)*)", doc, re.MULTILINE))
    lines = [
        MADE,
        "# Options",
        "",
        "`PluginManager(app, root=…, **options)`. The same names stand in `veko.toml` or under",
        "`[tool.veko]` in `pyproject.toml`, both in the application's directory, and in the",
        "environment as `VEKO_<NAME>`. Arguments outweigh the environment, which outweighs",
        "`veko.toml`, which outweighs `pyproject.toml`. Durations are seconds, sizes bytes. All",
        "that is unknown or ill-typed is said at once (`OptionError`).",
        "",
        "| option | type | default | meaning |",
        "|---|---|---|---|",
    ]
    later = []
    for field in msgspec.structs.fields(Options):
        if field.name in {"directory", "origins"}:
            continue
        if field.name in NOT_YET:
            later.append(f"`{field.name}`")
            continue
        text = " ".join(told[field.name].split())
        lines.append(f"| `{field.name}` | {code(field.type)} | {default(field)} | {text} |")
    lines += [
        "",
        "Known and checked, but without effect in this version: " + ", ".join(later) + ".",
    ]
    return "\n".join(lines) + "\n"


def default(field: Any) -> str:
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if isinstance(value, tuple):
        value = [str(one) if isinstance(one, Path) else one for one in value]
    return f"`{value!r}`"


def main(arguments: list[str]) -> int:
    made = {"events.md": events(asyncio.run(declared())), "options.md": options()}
    stale = [
        name
        for name, text in made.items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text("utf-8") != text
    ]
    if "--check" in arguments:
        for name in stale:
            print(f"docs/reference/{name} is stale: run python docs/generate.py")
        return bool(stale)
    for name in stale:
        (REFERENCE / name).write_text(made[name], "utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
