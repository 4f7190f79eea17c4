"""The rows of the parity table with the tests that cover each: ``python -m tests.parity``.

A test covers the rows that its name begins with (``test_A9_…``, ``test_M1_M2_…``); one of section
H covers the events that its name or its body says (``test_H_file_add``). Tests are read, not run.
It fails if a row that is due has no test, or a test names a row that is none.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent

ROWS = {
    "O1": "plugins_dir", "O2": "auto_load", "O3": "support_typescript", "O4": "dev_mode",
    "O5": "watch_mode", "O6": "enable_metrics", "O7": "enable_validation",
    "O8": "allow_hot_reload", "O9": "max_retries", "O10": "timeout", "O11": "enable_sandbox",
    "O12": "enable_hooks", "O13": "enable_api", "O14": "adapter, storage, core, required, …",
    "M1": "name, version, description, author", "M2": "license, homepage, repository",
    "M3": "dependencies", "M4": "peer_dependencies", "M5": "engines", "M6": "default_config",
    "M7": "config_schema", "M8": "hooks", "M9": "permissions", "M10": "type", "M11": "priority",
    "M12": "load", "M13": "unload, activate, deactivate", "M14": "required, enabled",
    "C1": "log", "C2": "add_middleware", "C3": "add_route", "C4": "hook", "C5": "remove_hook",
    "C6": "add_command", "C7": "storage", "C8": "get_plugin, list_plugins",
    "C9": "provide, use, when", "C10": "add_websocket", "C11": "spawn, every",
    "C12": "config, update_config", "C13": "emit, app", "C14": "enter",
    "A0": "start, stop, restart, asgi", "A1": "load_plugin", "A2": "load_all_plugins",
    "A3": "unload_plugin", "A4": "reload_plugin", "A5": "toggle_plugin",
    "A6": "get_plugin, list_plugins", "A7": "check_plugin_health", "A8": "get_stats",
    "A9": "backup_plugins", "A10": "restore_plugins", "A11": "save_state, restore_state",
    "A12": "on, off", "A13": "error_threshold", "A14": "metrics", "A15": "order, circles",
    "A16": "validate_plugin",
    "T1": "JS and TS plugins", "T2": "transpilers", "T3": "the original's examples",
    "T4": "a plugin's transpiler", "T5": "lines of the source", "T6": "functions in storage",
    "D1": "create_dev_plugin", "D2": "create_plugin_builder", "D3": "generate_plugin",
    "D4": "debug_plugin", "D5": "profile_plugin", "D6": "inject_code", "D7": "test_plugin",
    "D8": "hot reload, unwatch", "D9": "veko debug, --log-level, hooks",
    "D10": "create_simple_plugin",
    "P1": "auth", "P2": "redis-cache", "P3": "logger", "P4": "monitoring",
}  # fmt: skip
EVENTS = (
    "app:init", "app:start", "app:stop", "app:restart", "route:load", "route:create",
    "route:update", "route:delete", "request:start", "request:end", "request:error",
    "response:start", "response:end", "response:error", "middleware:add", "middleware:remove",
    "error:handle", "error:critical", "websocket:connect", "websocket:message",
    "websocket:disconnect", "file:add", "file:change", "file:delete", "plugin:load",
    "plugin:unload", "plugin:activate", "plugin:deactivate", "plugin:reload", "plugin:error",
    "plugin:timeout", "config:validate", "config:change", "database:connect", "database:query",
    "database:disconnect", "cache:get", "cache:set", "cache:delete", "cache:clear", "auth:login",
    "auth:logout", "auth:register", "dev:hotreload", "dev:debug", "dev:profile", "plugin:loaded",
    "plugin:unloaded", "plugin:activated", "plugin:deactivated", "log",
)  # fmt: skip
LATER: dict[str, str] = {}
"""What is not due yet, by row by event, or by the first word of events, and what it comes with."""


class Test(NamedTuple):
    """A test: where it stands, its name, the rows that it names, the strings in it."""

    place: str
    name: str
    rows: tuple[str, ...]
    strings: frozenset[str]


def tests(folder: Path) -> Iterator[Test]:
    """Give the tests below a folder that name a row or an event."""
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            named = re.match(r"test((?:_[A-Za-z]\d+)+)(?:_|$)", node.name)
            rows = tuple(named[1].lstrip("_").split("_")) if named else ()
            if rows or node.name.startswith("test_H_"):
                inside = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
                strings = frozenset(value for value in inside if isinstance(value, str))
                yield Test(
                    f"{path.relative_to(folder).as_posix()}:{node.lineno}", node.name, rows, strings
                )


def covers(test: Test, row: str) -> bool:
    """Tell whether a test covers a row of the table, or an event."""
    if row in ROWS:
        return row in (name.upper() for name in test.rows)
    if not test.name.startswith("test_H_") or "declared" in test.name:
        return False
    return row in test.strings or f"_{row.replace(':', '_')}_" in f"{test.name}_"


def unknown(found: Iterable[Test]) -> list[str]:
    """Name the tests that claim a row which is none; small letters may mean something else."""
    return [
        f"{test.place} {test.name}: {row} is not a row"
        for test in found
        for row in test.rows
        if row[0].isupper() and row not in ROWS
    ]


def main(arguments: list[str]) -> int:
    """Print the table; returns 1 if something is missing."""
    found = list(tests(Path(arguments[0]) if arguments else ROOT))
    missing: list[str] = []
    due = 0
    for row in (*ROWS, *EVENTS):
        title = f"{row:<6}{ROWS[row]}" if row in ROWS else f"H     {row}"
        covering = [f"{test.place} {test.name}" for test in found if covers(test, row)]
        wait = LATER.get(row) or LATER.get(row.partition(":")[0], "")
        due += not wait
        if not covering:
            missing += [] if wait else [title]
            covering = [f"(later: {wait})" if wait else "MISSING"]
        print(f"{title:<44}{covering[0]}")
        for line in covering[1:]:
            print(f"{'':<44}{line}")
    faults = unknown(found)
    print(f"\n{due} rows are due, {len(missing)} of them without a test.")
    for line in (*missing, *faults):
        print(f"  {line}")
    return int(bool(missing or faults))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
