"""Runs every benchmark and writes docs/benchmarks.md with its plots: `make bench`.

    python benchmarks/run.py [--quick] [NAME ...]

All of it takes ten to thirteen minutes on two cores. Each script runs in a process of its own, one
after the other. What they find is kept in `.bench/`, and when all have run, the parts between the
marks of the document (`<!-- NAME -->`) are written, from one commit and one machine. A script that
fails is named, here and in its part. With names, only those run, and the rest is taken from
`.bench/`; that is refused if it was measured on another commit. `--quick` takes a minute or two
and shows on stdout what would be written, which is inexact.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec
from _report import Goal, Result, progress, table

HERE: Final = Path(__file__).resolve().parent
DOCS: Final = HERE.parent / "docs"
README: Final = HERE.parent / "README.md"
KEPT: Final = HERE.parent / ".bench"
TIMEOUT: Final = 900.0
"""Seconds after which a script counts as failed."""
SCRIPTS: Final = (
    "instructions", "blocking", "serving", "routing", "metrics", "tracing", "watchdog", "auth",
    "recording", "dispatch", "scaling", "loading", "reload", "reload_load", "leaks", "holders",
    "storage", "storage_servers", "database", "cache", "logs", "ledger", "remote", "dashboard",
)  # fmt: skip
"""In the order in which they run."""
FRONT: Final = {
    "instructions": {
        "GET default request, uvicorn, by GET by hand, 6 hooks, uvicorn":
            "a request to the default application, in instructions, by the same by hand",
        "POST default request, uvicorn, by POST by hand, 6 hooks, uvicorn":
            "the same with a body",
        "emit hot, 5 async, by by hand, 5 async":
            "an event to five async hooks, by five calls by hand",
        "emit cold, 5 async, by by hand, 5 async":
            "the same before the event has been emitted a thousand times",
    },
    "serving": {
        "requests/s of veko default, of by hand, hooks":
            "requests a second of the default application, of those by hand",
    },
    "scaling": {
        "reload, among plugins, among 5,000": "reloading one of 5,000 plugins",
    },
}  # fmt: skip
"""The goals that the README shows, by script, and what they are called there."""
PEERS: Final = (
    "litestar", "starlette", "fastapi", "uvicorn", "blinker", "pluggy", "apluggy", "pyee",
    "opentelemetry-sdk", "SQLAlchemy", "aiosqlite", "structlog", "python-json-logger",
)  # fmt: skip


class Run(msgspec.Struct):
    """How a script ran.

    Attributes:
        commit: What was measured; with a plus sign if files differ from it.
        python: The version of Python.
        at: When it began, in UTC.
        seconds: How long it took.
        load: How many processes wanted the processor in the minute before.
        result: What it found.
        failed: Why it failed, if it did.
    """

    commit: str
    python: str
    at: str
    seconds: float
    load: float
    result: Result
    failed: str = ""


def commit() -> str:
    """Return the commit of this checkout, without regard to what is written."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=HERE.parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs", ":!README.md")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def run(name: str, options: list[str]) -> Run:
    """Run a script."""
    progress(f"{name} ...")
    file = KEPT / f"{name}.part"
    file.unlink(missing_ok=True)
    load, begin = os.getloadavg()[0], time.perf_counter()
    at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    command = [sys.executable, str(HERE / f"{name}.py"), "--result", str(file), *options]
    try:
        code = subprocess.run(
            command, stdout=subprocess.DEVNULL, timeout=TIMEOUT, check=False
        ).returncode
        failed = f"exit code {code}" if code or not file.exists() else ""
    except subprocess.TimeoutExpired:
        failed = f"took more than {TIMEOUT:g} s"
    seconds = time.perf_counter() - begin
    result = Result() if failed else msgspec.json.decode(file.read_bytes(), type=Result)
    file.unlink(missing_ok=True)
    progress(f"{name}: {failed or 'done'}, {seconds:.0f} s")
    return Run(commit(), platform.python_version(), at, seconds, load, result, failed)


def kept(name: str) -> Run | None:
    """Return how a script ran the last time."""
    file = KEPT / f"{name}.json"
    return msgspec.json.decode(file.read_bytes(), type=Run) if file.exists() else None


def machine() -> str:
    """Return what the processor calls itself."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def heading(runs: dict[str, Run]) -> str:
    """Say what was measured, where and with what."""
    first = min(runs.values(), key=lambda one: one.at)
    loads = [one.load for one in runs.values()]
    versions = []
    for name in ("veko", *PEERS):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    return (
        f"Commit {first.commit}, {first.at} UTC, {sum(one.seconds for one in runs.values()):.0f} s "
        f"in all. {platform.python_implementation()} {first.python} on "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {machine()}; "
        f"{min(loads):.1f} to {max(loads):.1f} processes wanted the processor when a script began. "
        f"{', '.join(versions)}."
    )


def missed(runs: dict[str, Run]) -> str:
    """List the goals that were missed."""
    goals: list[tuple[str, Goal]] = [
        (name, goal) for name, one in runs.items() for goal in one.result.goals
    ]
    rows = [[goal.what, goal.measured, goal.wanted, name] for name, goal in goals if not goal.met]
    said = f"{len(goals) - len(rows)} of {len(goals)} goals were met."
    if broken := [f"{name} ({one.failed})" for name, one in runs.items() if one.failed]:
        said += f" Failed, so not measured: {', '.join(broken)}."
    if not rows:
        return said
    return f"{said} Missed:\n\n" + table(["missed", "measured", "goal", "script"], rows)


def front(runs: dict[str, Run]) -> str:
    """Return the table of the README."""
    found = {goal.what: goal for name in FRONT if name in runs for goal in runs[name].result.goals}
    rows = [
        [said, *found[what].cells()[1:]]
        for goals in FRONT.values()
        for what, said in goals.items()
        if what in found
    ]
    return table(["what", "measured", "goal", ""], rows)


def put(text: str, mark: str, part: str) -> str:
    """Replace what stands between two marks of a Markdown text.

    Raises:
        SystemExit: The text has no such marks.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page has no lines {begin} and {end}")
    return f"{before}{begin}\n\n{part.strip()}\n\n{end}{after}"


def write(runs: dict[str, Run]) -> None:
    """Write the document and its plots, all or nothing."""
    file = DOCS / "benchmarks.md"
    text = put(file.read_text("utf-8"), "run", heading(runs))
    text = put(text, "missed", missed(runs))
    for name, one in runs.items():
        if one.failed:
            said = f"`benchmarks/{name}.py` failed: {one.failed}."
            for mark in re.findall(rf"<!-- ({name}(?:: [^>]*)?) -->", text):
                text = put(text, mark, said)
        for part, found in one.result.parts.items():
            text = put(text, part, found)
    readme = README.read_text("utf-8")
    if not any(runs[name].failed for name in FRONT if name in runs):
        readme = put(readme, "performance", front(runs))
    for one in runs.values():
        for name, picture in one.result.plots.items():
            (DOCS / name).write_text(picture, "utf-8")
    file.write_text(text, "utf-8")
    README.write_text(readme, "utf-8")


def main() -> int:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}")
    parser.add_argument("--quick", action="store_true", help="inexact, and not written")
    given = parser.parse_args()
    if unknown := set(given.names) - set(SCRIPTS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    KEPT.mkdir(exist_ok=True)
    now = commit()
    runs: dict[str, Run] = {}
    for name in given.names or SCRIPTS:
        runs[name] = run(name, ["--quick"] if given.quick else [])
        if not given.quick:
            (KEPT / f"{name}.json").write_bytes(msgspec.json.encode(runs[name]))
    failed = [name for name, one in runs.items() if one.failed]
    if given.quick:
        for one in runs.values():
            print("\n\n".join(one.result.parts.values()) + "\n")
        print(missed(runs))
    else:
        found = {name: runs.get(name) or kept(name) for name in SCRIPTS}
        other = [name for name, one in found.items() if one is None or one.commit != now]
        if other:
            print(
                f"Not written, because these were not measured on {now}: {', '.join(other)}. "
                f"Run all, or add them: python benchmarks/run.py {' '.join(other)}",
                file=sys.stderr,
            )
            return 1
        write({name: one for name, one in found.items() if one is not None})
        progress("docs/benchmarks.md is written")
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
