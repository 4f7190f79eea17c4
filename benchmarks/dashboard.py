"""How long does the dashboard's first page take on loopback with 200 plugins?

    python benchmarks/dashboard.py [--seconds N] [--quick] [--plugins 200]

Each run opens a window of Chromium that is logged in already, with an empty cache, and takes the
time from the start of the navigation until the list is in the page, and until the page can be used.
It needs Chromium and `playwright`. There is no peer; the limit is what the browser needs for an
empty page, some 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from _report import Report, progress, script

TIMES = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done({
  list: performance.getEntriesByName('veko-list')[0].startTime,
  painted: performance.now(),
  page: performance.getEntriesByType('navigation')[0].responseEnd,
  bytes: performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0),
}))))"""


ROOT = str(Path(__file__).resolve().parents[1])
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
NAMES = {
    "page": "answered", "list": "the list is in the page", "painted": "the page can be used",
}  # fmt: skip


def runs(program: str, plugins: int, count: int) -> dict[str, list[float]]:
    """Open the page so often; return the ms and the bytes of each run."""
    from playwright.sync_api import sync_playwright
    from tests.browser.shop import make_shop
    from tests.examples.test_blog import Served

    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = make_shop(Path(folder) / "shop", more=plugins - 8)
        with Served(root) as served, sync_playwright() as playwright:
            token = (root / ".veko/admin-token").read_text("utf-8").strip()
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for number in range(count + 1):
                progress(f"window {number} of {count}")
                context = browser.new_context(base_url=served.url)
                context.request.post("/_veko/login", data={"token": token})
                page = context.new_page()
                page.goto("/_veko/", wait_until="commit")
                page.locator("table.plugins tbody tr").nth(plugins - 1).wait_for()
                for name, value in page.evaluate(TIMES).items():
                    times.setdefault(name, []).append(value)
                context.close()
            browser.close()
    return {name: values[1:] for name, values in times.items()}  # the first warms the server up


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Open the page again and again."""
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        report.say("Chromium is not installed, so nothing was measured.")
        return
    count = max(3, round(given.seconds))
    sys.path.insert(0, ROOT)
    try:
        # It sets the handler of a signal, which only the main thread can.
        importlib.import_module("tests.examples.test_blog")
        times = await asyncio.to_thread(runs, program, given.plugins, count)
    except ImportError as error:  # the group `test` brings a browser's driver, `bench` does not
        report.say(f"Not measured: {error}; `make test` installs it.")
        return
    rows = []
    for name, said in NAMES.items():
        kept = times[name]
        rows.append([said, *(f"{f(kept):.0f}" for f in (statistics.median, min, max))])
    size = statistics.median(times["bytes"])
    report.table([f"{given.plugins} plugins, ms until", "median", "least", "most"], rows)
    report.say(f"{size / 1024:.0f} KiB are transferred.")


if __name__ == "__main__":
    script(
        measure,
        seconds=6,
        options=lambda parser: parser.add_argument("--plugins", type=int, default=200),
    )
