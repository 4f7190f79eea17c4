"""A real browser: Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium. Without one tests are skipped, which fails in CI.

    It ends with the module: until then its event loop runs, and async tests could not run theirs.
    """
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        why = "there is no Chromium here: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # its 5 s are not enough on a busy machine

    with sync_playwright() as playwright:
        # The user of a container is often root, as whom Chromium has no sandbox of its own.
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=args)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a window with cookies of its own; what its console reports as errors fails the test."""
    contexts: list[Any] = []
    problems: list[str] = []

    def visit(url: str, *, expected: str = "", **options: Any) -> Any:
        contexts.append(chromium.new_context(base_url=url, **options))
        contexts[-1].set_default_timeout(30_000)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda one: (
                one.type == "error"
                and not (expected and expected in one.text)
                and problems.append(one.text)
            ),
        )
        page.on("dialog", lambda dialog: problems.append(f"a dialog: {dialog.message}"))
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []
