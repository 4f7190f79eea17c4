"""How long the dashboard's first page takes on loopback with 200 plugins.

`python benchmarks/dashboard.py [--plugins 200] [--runs 11]` needs Chromium and `playwright`. Each
run opens a window that is logged in already, with an empty cache, and takes the time from the start
of the navigation until the list is in the page, and until the page can be used.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.browser.conftest import PROGRAMS
from tests.browser.shop import make_shop
from tests.examples.test_blog import Served

TIMES = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done({
  list: performance.getEntriesByName('veko-list')[0].startTime,
  painted: performance.now(),
  page: performance.getEntriesByType('navigation')[0].responseEnd,
  bytes: performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0),
}))))"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugins", type=int, default=200)
    parser.add_argument("--runs", type=int, default=11)
    given = parser.parse_args()
    program = next(path for name in PROGRAMS if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder:
        root = make_shop(Path(folder) / "shop", more=given.plugins - 8)
        with Served(root) as served, sync_playwright() as playwright:
            token = (root / ".veko/admin-token").read_text("utf-8").strip()
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            times: dict[str, list[float]] = {}
            for _ in range(given.runs + 1):
                context = browser.new_context(base_url=served.url)
                context.request.post("/_veko/login", data={"token": token})
                page = context.new_page()
                page.goto("/_veko/", wait_until="commit")
                page.locator("table.plugins tbody tr").nth(given.plugins - 1).wait_for()
                for name, value in page.evaluate(TIMES).items():
                    times.setdefault(name, []).append(value)
                context.close()
            browser.close()
    for name, values in times.items():
        kept = values[1:]  # the first run warms the server up
        unit = "bytes" if name == "bytes" else "ms"
        spread = f"min {min(kept):.0f}, max {max(kept):.0f}, first {values[0]:.0f}"
        print(f"{name:8} {statistics.median(kept):9.0f} {unit} ({spread})")


if __name__ == "__main__":
    main()
