"""The dashboard in a real browser, over a real application."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .dashboard_shop import DENIED, Shop, Visit, expect, make_shop
from .dashboard_sources import SOURCES, installed


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
    expect(page.get_by_role("alert")).to_contain_text("not the application's")
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


def test_the_address_with_the_token_is_followed_on_the_login_page(shop: Shop, visit: Visit) -> None:
    page = visit(shop.url, expected=DENIED)
    page.goto("/_veko/")
    page.get_by_label("Token").wait_for()
    page.goto(f"/_veko/#token={shop.token}")
    page.get_by_role("link", name="catalog").wait_for()
    assert shop.token not in page.url


def test_the_list_is_searched_filtered_and_sorted(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    expect(rows(page)).to_have_count(20)
    everything = rows(page).all_inner_texts()
    assert everything == sorted(everything)
    page.get_by_label("Search plugins").fill("money")
    expect(rows(page)).to_have_text(["checkout"])
    page.get_by_label("Search plugins").fill("no such plugin")
    page.get_by_text("No plugin matches.").wait_for()
    page.get_by_label("Search plugins").fill("")
    for _ in range(5):  # where the machine is slow, the watchdog blames others for a block or two
        shop.get("/stars/broken")
    page.get_by_label("Show").select_option("trouble")
    expect(rows(page).get_by_text("ratings")).to_be_visible()
    expect(rows(page).get_by_text("catalog", exact=True)).to_have_count(0)
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
    expect(section).to_contain_text(re.compile(r"\d+ ms|\d s"))


def test_a_plugin_that_fails_shows_its_error_with_the_traceback(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "plugins/ratings")
    page.get_by_role("heading", name="ratings").wait_for()
    shop.get("/stars/broken")
    errors = page.get_by_role("region", name=re.compile(r"last errors?$"))
    expect(errors.get_by_text("no stars for broken goods").first).to_be_visible()
    errors.get_by_text("Traceback").first.click()
    trace = errors.locator("pre").first
    expect(trace).to_contain_text("ratings.py")
    expect(trace).to_contain_text("ValueError")


def test_a_plugin_is_shown_with_what_it_registered(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "plugins/discounts")
    page.get_by_role("heading", name="discounts").wait_for()
    expect(page.get_by_role("table", name="Hooks")).to_contain_text("plugin:catalog:price")
    page.get_by_role("region", name="Connections and manifest").get_by_role(
        "link", name="catalog"
    ).click()
    page.get_by_role("heading", name="catalog").wait_for()
    expect(page.get_by_role("table", name="Routes")).to_contain_text("GET /goods")
    expect(page.get_by_role("region", name="Permissions")).to_contain_text("the application may do")
    page.get_by_role("link", name="All plugins").click()
    page.get_by_role("heading", name="Plugins", level=1).wait_for()


def test_a_plugin_that_does_not_exist_is_said_to_be_missing(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "plugins/no%20such%2Fplugin%20%3Cb%3E")
    expect(page.get_by_role("alert")).to_contain_text("no such/plugin <b>")


def test_the_graph_shows_who_needs_whom_and_leads_to_the_plugins(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "graph")
    drawing = page.get_by_role("region", name="Drawing of the dependency graph")
    expect(drawing.get_by_role("link")).to_have_count(5)
    expect(page.locator("path.edge")).to_have_count(4)
    page.get_by_text("The same as a list").click()
    expect(page.get_by_role("listitem").filter(has_text="checkout needs cart")).to_be_visible()
    expect(page.get_by_role("region", name="Without dependencies")).to_contain_text("clock")
    page.get_by_label("Show the parts of Veko").check()
    expect(page.get_by_role("region", name="Without dependencies")).to_contain_text("storage")
    drawing.get_by_role("link", name="cart, active").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="cart").wait_for()


def test_the_start_is_drawn_as_a_waterfall(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "startup")
    table = page.get_by_role("table", name=re.compile("Loading at the start"))
    expect(table.locator("tbody tr")).to_have_count(20)
    expect(table.get_by_role("row").filter(has_text="checkout")).to_contain_text("cart")
    page.get_by_label("Show the parts of Veko").check()
    expect(table).to_contain_text("storage")


def test_a_request_is_followed_through_its_hooks(shop: Shop, visit: Visit) -> None:
    shop.get("/goods")
    shop.get("/stars/broken")
    page = shop.enter(visit, "traces")
    page.get_by_label("Search traces").fill("/goods")
    page.get_by_role("link", name="GET /goods").first.click()
    page.get_by_role("heading", name="GET /goods").wait_for()
    spans = page.get_by_role("table", name=re.compile("spans of the trace"))
    expect(spans).to_contain_text("discounts")
    expect(spans).to_contain_text("plugin:catalog:price")
    first = spans.get_by_role("button").first
    first.click()
    expect(first).to_have_attribute("aria-expanded", "true")
    expect(spans).to_contain_text("http.")
    page.get_by_role("link", name="All traces").click()
    page.get_by_label("Failed only").check()
    expect(page.get_by_role("link", name="GET /stars/{good}").first).to_be_visible()
    expect(page.get_by_role("link", name="GET /goods")).to_have_count(0)
    page.get_by_role("button", name="Look again").click()
    # What this page asks is not traced: it would lead to ever more traces.
    page.get_by_label("Search traces").fill("/_veko")
    page.get_by_text("No traces.").wait_for()
    page.get_by_label("Search traces").fill("")
    page.get_by_label("Failed only").uncheck()
    expect(page.get_by_role("link", name="GET /goods").first).to_be_visible()


def test_the_log_is_filtered_paused_and_cleared(shop: Shop, visit: Visit) -> None:
    shop.get("/stars/broken")
    page = shop.enter(visit, "logs")
    log = page.get_by_role("region", name="Log records")
    expect(log).to_contain_text("no stars for broken goods")
    page.get_by_label("Plugin").select_option("mailer")
    expect(log).to_contain_text("the mailer is ready")
    page.get_by_label("Plugin").select_option("clock")
    expect(log).to_contain_text("tick")
    expect(log).not_to_contain_text("the mailer is ready")
    page.get_by_role("button", name="Pause").click()
    before = log.locator("li").count()
    shop.get("/goods")
    page.get_by_label("Search the log").fill("tick 1")
    expect(log.locator("li").first).to_contain_text("tick 1")
    page.get_by_label("Search the log").fill("")
    expect(log.locator("li")).to_have_count(before)
    page.get_by_role("button", name="Continue").click()
    expect(log.locator("li")).not_to_have_count(before)
    page.get_by_label("Level").select_option("CRITICAL")  # errors of a busy machine are none
    page.get_by_text("No records.").wait_for()
    page.get_by_label("Level").select_option("INFO")
    oldest = log.locator("li").first.inner_text()
    page.get_by_role("button", name="Clear").click()
    expect(log.locator("li").first).not_to_have_text(oldest)


def test_events_appear_as_they_are_emitted(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "events")
    events = page.get_by_role("region", name="Events", exact=True)
    expect(events).to_contain_text("plugin:clock:tick")
    page.get_by_label("Search events").fill("price")
    page.get_by_text("No events yet.").wait_for()
    expect(page.get_by_role("table", name="The catalogue of events")).not_to_contain_text("app:")
    shop.get("/goods")
    expect(events).to_contain_text("plugin:catalog:price")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Continue")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("No events yet.").wait_for()


def test_the_colours_follow_the_system_and_can_be_chosen(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ground = expect(page.locator("body"))
    page.get_by_role("button", name="Colours: auto").click()
    page.get_by_role("button", name="Colours: light").wait_for()
    ground.not_to_have_css("background-color", dark)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    page.get_by_role("button", name="Colours: light").wait_for()
    ground.to_have_css("background-color", light)
    page.get_by_role("button", name="Colours: light").click()
    ground.to_have_css("background-color", dark)
    page.get_by_role("button", name="Colours: dark").click()
    page.get_by_role("button", name="Colours: auto").wait_for()


def test_everything_is_reached_by_keyboard(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    reload = page.get_by_role("button", name="Reload clock")
    reload.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Reload clock?")
    dialog.wait_for()
    for _ in range(8):  # the focus stays in the dialog, or goes to the browser's own controls
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(reload).to_be_focused()
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Start").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Start", level=1)).to_be_focused()


def test_it_asks_nobody_but_the_application(shop: Shop, visit: Visit) -> None:
    asked: set[str] = set()
    page = visit(shop.url, expected=DENIED)
    page.on("request", lambda request: asked.add(request.url))
    page.goto(f"/_veko/#token={shop.token}")
    page.locator("table.plugins").wait_for()
    for view, title in VIEWS.items():
        show(page, view, title)
    assert {url for url in asked if not url.startswith((f"{shop.url}/_veko/", "data:"))} == set()


VIEWS = {
    "plugins": "Plugins",
    "plugins/catalog": "catalog",
    "plugins/ratings": "ratings",
    "graph": "Dependency graph",
    "startup": "Start",
    "traces": "Traces",
    "logs": "Log",
    "events": "Events",
    "changes": "Changes",
}
"""The heading of each view."""


def show(page: Any, view: str, title: str) -> None:
    """Go to a view, and wait until it is there whole; before it the last one is still shown."""
    page.goto(f"/_veko/#/{view}")
    page.get_by_role("heading", level=1, name=re.compile(rf"^{title}\b")).wait_for()
    expect(page.locator(".waiting")).to_have_count(0)


SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The rules of axe-core, as a script."""
    own = SOURCES / "node_modules"
    if not own.is_dir():
        own = installed(tmp_path_factory.mktemp("npm") / "dashboard") / "node_modules"
    return (own / "axe-core/axe.min.js").read_text("utf-8")


def findings(page: Any, axe: str) -> list[str]:
    """What axe finds in a page."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_axe_finds_nothing_and_no_view_is_wider_than_the_screen(
    shop: Shop, visit: Visit, axe: str, width: int, scheme: str
) -> None:
    shop.get("/stars/broken")
    shop.get("/report")
    page = visit(
        shop.url,
        expected=DENIED,
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        reduced_motion="reduce",
        bypass_csp=True,  # for axe's script
    )
    page.goto("/_veko/")
    page.get_by_label("Token").wait_for()
    found = {"login": findings(page, axe)}
    page.get_by_label("Token").fill(shop.token)
    page.get_by_role("button", name="Log in").click()
    page.locator("table.plugins").wait_for()
    for view, title in VIEWS.items():
        show(page, view, title)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found[view] = findings(page, axe)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    page.goto("/_veko/#/plugins")
    page.get_by_role("switch", name="cart is on").click()
    page.get_by_role("dialog").wait_for()
    expect(page.locator(".waiting")).to_have_count(0)
    found["dialog"] = findings(page, axe)
    assert {view: one for view, one in found.items() if one} == {}
