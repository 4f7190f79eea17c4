"""The dashboard in a real browser, over a real application."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..examples.test_blog import Served
from .shop import make_shop

expect = pytest.importorskip("playwright.sync_api").expect
Visit = Callable[..., Any]
DENIED = "Failed to load resource"
"""What the console says about the first question of a page that is not logged in."""


class Shop:
    """The shop, served."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.served = Served(root)
        self.url = self.served.url

    @property
    def token(self) -> str:
        return self.root.joinpath(".veko/admin-token").read_text("utf-8").strip()

    def get(self, path: str) -> httpx.Response:
        """Ask the application for something, as a visitor."""
        return httpx.get(f"{self.url}{path}", timeout=60)

    def enter(self, visit: Visit, view: str = "plugins", **options: Any) -> Any:
        """Log in by the address that `veko serve` prints, and go to a view."""
        options.setdefault("viewport", {"width": 1280, "height": 900})
        page = visit(self.url, expected=options.pop("expected", DENIED), **options)
        page.goto(f"/_veko/#token={self.token}")
        page.get_by_role("heading", name="Plugins", level=1).wait_for()
        if view != "plugins":
            page.goto(f"/_veko/#/{view}")
        return page


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop for tests that change nothing."""
    shop = Shop(make_shop(tmp_path_factory.mktemp("dashboard") / "shop", more=12))
    with shop.served:
        yield shop


def rows(page: Any) -> Any:
    """The names in the list of plugins, which are links."""
    return page.locator("table.plugins tbody th a")


def test_a_wrong_token_is_refused_and_the_right_one_lasts_over_a_reload(
    shop: Shop, visit: Visit
) -> None:
    page = visit(shop.url, expected=DENIED)
    page.goto("/_veko/")
    page.get_by_label("Token").fill("not-the-token-at-all")
    page.get_by_role("button", name="Log in").click()
    assert "not the application's" in page.get_by_role("alert").inner_text()
    page.get_by_label("Token").fill(shop.token)
    page.get_by_label("Token").press("Enter")
    page.get_by_role("link", name="catalog").wait_for()
    page.reload()
    page.get_by_role("link", name="catalog").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").wait_for()
    page.reload()
    page.get_by_label("Token").wait_for()


def test_the_token_in_the_address_is_used_and_taken_out(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    assert shop.token not in page.url
    assert shop.token not in page.content()
    page.go_back()
    assert shop.token not in page.url


def test_the_list_is_searched_filtered_and_sorted(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    everything = rows(page).all_inner_texts()
    assert everything == sorted(everything)
    assert len(everything) == 20
    page.get_by_label("Search plugins").fill("money")
    expect(rows(page)).to_have_text(["checkout"])
    page.get_by_label("Search plugins").fill("no such plugin")
    page.get_by_text("No plugin matches.").wait_for()
    page.get_by_label("Search plugins").fill("")
    shop.get("/stars/broken")
    page.get_by_label("Show").select_option("trouble")
    expect(rows(page).get_by_text("ratings")).to_be_visible()
    assert "catalog" not in rows(page).all_inner_texts()
    page.get_by_label("Show").select_option("off")
    page.get_by_text("No plugin matches.").wait_for()
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Sort by").select_option("errors")
    expect(rows(page).first).to_have_text("ratings")


def test_who_blocked_the_event_loop_is_named(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    shop.get("/report")
    section = page.get_by_role("region", name="Who blocked the event loop")
    section.get_by_role("link", name="reports").wait_for()
    assert re.search(r"\d+ ms|\d s", section.inner_text())
