"""The pictures of the docs: with `VEKO_PICTURES=docs/dashboard` these tests write them there."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .dashboard_shop import Shop, Visit, expect, make_shop

WIDE = {"width": 1240, "height": 800}
Take = Callable[[Any, str], None]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop that has been busy for some seconds."""
    shop = Shop(make_shop(tmp_path_factory.mktemp("pictures") / "shop"))
    with shop.served:
        yield shop


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Take a picture of what a window shows."""
    folder = Path(os.environ.get("VEKO_PICTURES", tmp_path))

    def take(page: Any, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size > 10_000

    return take


def work(shop: Shop) -> None:
    """Send the requests of a busy minute, shortened."""
    for number in range(40):
        shop.get("/goods")
        shop.get(f"/stars/{'x' * (number % 7 + 1)}")
        if number % 20 == 0:
            shop.get("/report")
        if number % 8 == 0:
            shop.get("/stars/broken")


def test_the_list_of_plugins(shop: Shop, visit: Visit, take: Take) -> None:
    pages = [
        (shop.enter(visit, viewport=WIDE, color_scheme="light"), "plugins"),
        (shop.enter(visit, viewport={"width": 390, "height": 800}, color_scheme="dark"), "phone"),
    ]
    for _ in range(3):
        work(shop)
        if "VEKO_PICTURES" in os.environ:
            pages[0][0].wait_for_timeout(1_500)  # measurements come once a second
    for page, name in pages:
        expect(page.get_by_role("region", name="Who blocked the event loop")).to_be_visible()
        take(page, name)


def test_a_trace(shop: Shop, visit: Visit, take: Take) -> None:
    shop.get("/goods")
    page = shop.enter(visit, "traces", viewport={"width": 1240, "height": 560})
    page.get_by_label("Search traces").fill("/goods")
    page.get_by_role("link", name="GET /goods").first.click()
    expect(page.get_by_role("table")).to_contain_text("discounts")
    take(page, "trace")


def test_the_graph(shop: Shop, visit: Visit, take: Take) -> None:
    page = shop.enter(visit, "graph", viewport={"width": 1240, "height": 420}, color_scheme="dark")
    expect(page.locator("path.edge")).to_have_count(4)
    take(page, "graph")


def test_a_form_with_a_fault(shop: Shop, visit: Visit, take: Take) -> None:
    page = shop.enter(visit, "plugins/catalog", viewport={"width": 1240, "height": 560})
    form = page.get_by_role("form", name="Configuration of catalog")
    form.get_by_label("per_page").fill("1000")
    form.get_by_role("button", name="Show the plan").click()
    expect(form.get_by_label("per_page")).to_be_focused()
    form.evaluate("element => element.closest('section').scrollIntoView({ block: 'center' })")
    form.get_by_label("title").evaluate(
        "element => scrollTo(0, element.getBoundingClientRect().top + scrollY - 150)"
    )
    take(page, "configure")
