"""The shop, served, and a window of its dashboard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..examples.test_blog import Served
from .shop import make_shop

__all__ = ["DENIED", "Shop", "Visit", "expect", "make_shop"]

expect = pytest.importorskip("playwright.sync_api").expect
Visit = Callable[..., Any]
DENIED = "Failed to load resource"
"""What the console says about a refusal, and about a server that is not there."""


class Shop:
    """The shop, served."""

    def __init__(self, root: Path, *words: str) -> None:
        self.root = root
        self.served = Served(root, *words)
        self.url = self.served.url

    @property
    def token(self) -> str:
        return self.root.joinpath(".veko/admin-token").read_text("utf-8").strip()

    def get(self, path: str) -> httpx.Response:
        """Ask the application for something, as a visitor."""
        return httpx.get(f"{self.url}{path}", timeout=60)

    def api(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Ask the management API, as another operator."""
        headers = {"authorization": f"Bearer {self.token}", **given.pop("headers", {})}
        url = f"{self.url}/_veko/api/{path}"
        return httpx.request(method, url, headers=headers, timeout=60, **given)

    def enter(self, visit: Visit, view: str = "plugins", **options: Any) -> Any:
        """Log in by the address that has the token, wait for the list, and go to a view."""
        options.setdefault("viewport", {"width": 1280, "height": 900})
        token = options.pop("token", self.token)
        page = visit(self.url, expected=options.pop("expected", DENIED), **options)
        page.goto(f"/_veko/#token={token}")
        # The heading is there before the token is read, which another address would replace.
        page.locator("table.plugins").wait_for()
        if view != "plugins":
            page.goto(f"/_veko/#/{view}")
        return page
