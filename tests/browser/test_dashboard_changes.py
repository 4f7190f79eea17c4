"""What an operator does in the dashboard: every button that changes something, and what fails."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .dashboard_shop import Shop, Visit, expect, make_shop

VIEWER = "a-viewers-token-0123456789"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A shop of one's own."""
    shop = Shop(make_shop(tmp_path / "shop"))
    with shop.served:
        yield shop


def confirm(page: Any, title: str, button: str) -> Any:
    """Read the plan and let it be done."""
    dialog = page.get_by_role("dialog", name=title)
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_have_count(0)
    return page.locator(".notice").last


def test_a_plugin_is_switched_off_and_on_and_each_is_undone(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    switch = page.get_by_role("switch", name="ratings is on")
    switch.click()
    dialog = page.get_by_role("dialog", name="Switch off ratings?")
    expect(dialog).to_contain_text("GET /stars/{good}")
    expect(dialog).to_contain_text("This can be undone.")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert shop.get("/stars/tea").status_code == 200
    switch.click()
    done = confirm(page, "Switch off ratings?", "Switch off")
    expect(switch).to_have_attribute("aria-checked", "false")
    assert shop.get("/stars/tea").status_code == 404
    done.get_by_role("button", name="Undo").click()
    confirm(page, "Undo", "Undo")
    expect(switch).to_have_attribute("aria-checked", "true")
    assert shop.get("/stars/tea").status_code == 200


def test_a_plugin_that_others_need_is_switched_off_with_them(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    page.get_by_role("switch", name="catalog is on").click()
    dialog = page.get_by_role("dialog", name="Switch off catalog?")
    expect(dialog.get_by_role("alert")).to_contain_text("cart")
    dialog.get_by_role("button", name="With the plugins that need it").click()
    confirm(page, "Switch off catalog?", "Switch off")
    for name in ("catalog", "cart", "checkout", "discounts"):
        switch = page.get_by_role("switch", name=f"{name} is on")
        expect(switch).to_have_attribute("aria-checked", "false")


def test_new_code_is_loaded_and_broken_code_is_not(shop: Shop, visit: Visit) -> None:
    file = shop.root / "plugins/ratings.py"
    good = file.read_text("utf-8")
    page = shop.enter(visit)
    file.write_text(good.replace('"0.4.0"', '"0.5.0"').replace("% 5 + 1", "* 0 + 99"))
    page.get_by_role("button", name="Reload ratings").click()
    confirm(page, "Reload ratings?", "Reload")
    expect(page.get_by_role("row").filter(has_text="ratings")).to_contain_text("0.5.0")
    assert shop.get("/stars/tea").json() == {"stars": 99}

    file.write_text(
        good.replace("def load(context: Context) -> None:", "def load(context):\n    1 / 0")
    )
    page.get_by_role("link", name="ratings").click()
    page.get_by_role("button", name="Reload", exact=True).click()
    dialog = page.get_by_role("dialog", name="Reload ratings?")
    dialog.get_by_role("button", name="Reload", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("ZeroDivisionError")
    dialog.get_by_role("button", name="Cancel").click()
    assert shop.get("/stars/tea").json() == {"stars": 99}  # the version before serves on


def test_a_plugin_is_unloaded_loaded_and_both_are_listed(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "plugins/ratings")
    page.get_by_role("button", name="Unload").click()
    confirm(page, "Unload ratings?", "Unload")
    assert shop.get("/stars/tea").status_code == 404
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Plugins").click()
    page.get_by_role("button", name="Load a plugin").click()
    page.get_by_role("dialog", name="Load a plugin").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Load a plugin").click()
    page.get_by_label("Name, or path of a file or folder").fill("ratings")
    page.get_by_role("button", name="Show the plan").click()
    confirm(page, "Load ratings?", "Load")
    expect(page.get_by_role("switch", name="ratings is on")).to_have_attribute(
        "aria-checked", "true"
    )
    assert shop.get("/stars/tea").status_code == 200
    page.get_by_role("navigation", name="Views").get_by_role("link", name="Changes").click()
    changes = page.get_by_role("table", name="Changes")
    expect(changes.locator("tbody tr")).to_have_count(2)
    changes.get_by_role("button", name="unload ratings", exact=True).click()
    dialog = page.get_by_role("dialog", name="unload ratings")
    expect(dialog).to_contain_text("ratings 0.4.0 is unloaded")
    dialog.get_by_role("button", name="Close").click()
    changes.get_by_role("button", name="Undo load ratings").click()
    confirm(page, "Undo load ratings?", "Undo")
    expect(changes).to_contain_text("undone")
    assert shop.get("/stars/tea").status_code == 404


def test_loading_something_that_is_not_there_says_so(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    page.get_by_role("button", name="Load a plugin").click()
    page.get_by_label("Name, or path of a file or folder").fill("no-such-plugin")
    page.get_by_role("button", name="Show the plan").click()
    dialog = page.get_by_role("dialog", name="Load no-such-plugin?")
    expect(dialog.get_by_role("alert")).to_contain_text("no-such-plugin")
    expect(dialog.get_by_role("button", name="Load", exact=True)).to_have_count(0)


def test_a_plugin_is_configured_and_each_fault_stands_at_its_field(
    shop: Shop, visit: Visit
) -> None:
    page = shop.enter(visit, "plugins/catalog")
    form = page.get_by_role("form", name="Configuration of catalog")
    form.get_by_label("title").fill("")
    form.get_by_label("per_page").fill("many")
    form.get_by_label("shelves").fill("0")
    form.get_by_role("button", name="Show the plan").click()
    expect(form.get_by_label("title")).to_have_attribute("aria-invalid", "true")
    for label in ("per_page", "shelves"):
        field = form.get_by_label(label)
        expect(field).to_have_attribute("aria-invalid", "true")
        described = field.get_attribute("aria-describedby").split()[-1]
        expect(page.locator(f"[id='{described}']")).to_contain_text("int")
    expect(form.get_by_label("city")).not_to_have_attribute("aria-invalid", "true")
    expect(form.get_by_label("title")).to_be_focused()

    form.get_by_label("title").fill("Everything")
    form.get_by_label("per_page").fill("30")
    form.get_by_label("shelves").fill("41")
    form.get_by_label("currency").fill("EUR")
    form.get_by_label("discounts").check()
    form.get_by_role("button", name="Remove tags 1").click()
    form.get_by_role("button", name="Add to tags").click()
    form.get_by_label("tags 2", exact=True).fill("cheap")
    form.get_by_label("New key in limits").fill("carts")
    form.get_by_role("button", name="Add to limits").click()
    form.get_by_label("carts", exact=True).fill("7")
    form.get_by_role("button", name="Remove orders from limits").click()
    form.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_role("dialog", name="Configure catalog?")).to_contain_text("warehouse")
    confirm(page, "Configure catalog?", "Configure")
    assert shop.get("/goods").json()["title"] == "Everything"
    config = shop.api("GET", "plugins/catalog/config").json()
    assert config["warehouse"] == {"city": "Bremen", "shelves": 41}
    assert config["tags"] == ["sale", "cheap"]
    assert config["limits"] == {"carts": 7}
    assert config["api_key"] == "********"
    expect(form.get_by_role("button", name="Show the plan")).to_be_disabled()

    form.get_by_label("title").fill("Something else")
    form.get_by_role("button", name="Discard").click()
    expect(form.get_by_label("title")).to_have_value("Everything")
    form.get_by_role("button", name="As JSON").click()
    text = form.get_by_label("Configuration as JSON")
    text.fill("{")
    expect(text).to_have_attribute("aria-invalid", "true")
    text.fill('{"title": "From JSON", "per_page": "x"}')
    form.get_by_role("button", name="Show the plan").click()
    expect(form.get_by_role("listitem").filter(has_text="per_page")).to_contain_text("int")
    text.fill('{"title": "From JSON"}')
    form.get_by_label("Reload the plugin then").check()
    form.get_by_role("button", name="Show the plan").click()
    confirm(page, "Configure catalog?", "Configure")
    assert shop.get("/goods").json()["title"] == "From JSON"


def test_of_two_operators_the_second_learns_of_the_first(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "plugins/catalog")
    form = page.get_by_role("form", name="Configuration of catalog")
    form.get_by_label("title").fill("Mine")
    shop.api("PATCH", "plugins/catalog/config", json={"title": "Theirs"})
    form.get_by_role("button", name="Show the plan").click()
    expect(form.get_by_role("alert")).to_contain_text("Somebody else has changed")
    form.get_by_role("button", name="Take the current one").click()
    expect(form.get_by_label("title")).to_have_value("Theirs")
    form.get_by_label("title").fill("Mine")
    form.get_by_role("button", name="Show the plan").click()
    confirm(page, "Configure catalog?", "Configure")
    assert shop.get("/goods").json()["title"] == "Mine"


def test_a_command_is_run_with_its_arguments(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "plugins/cart")
    commands = page.get_by_role("region", name="Commands")
    commands.get_by_text("clear-cart").click()
    commands.get_by_role("button", name="Run clear-cart").click()
    expect(commands.get_by_role("group", name="Result")).to_have_text("say that you are sure")
    commands.get_by_label("sure").check()
    commands.get_by_role("button", name="Run clear-cart").click()
    expect(commands.get_by_role("group", name="Result")).to_have_text("0 taken out")


def test_a_backup_is_made_and_restored(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit, "changes")
    page.get_by_text("Nothing was changed yet.").wait_for()
    page.get_by_role("button", name="Back up now").click()
    backups = page.get_by_role("table", name="Backups")
    expect(backups.locator("tbody tr")).to_have_count(1)
    shop.api("POST", "plugins/ratings/toggle", json={"active": False})
    backups.get_by_role("button", name="Restore").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Restore", exact=True).click()
    expect(dialog).to_have_count(0)
    assert shop.get("/stars/tea").status_code == 200


def test_what_others_do_is_seen_at_once(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    switch = page.get_by_role("switch", name="ratings is on")
    expect(switch).to_have_attribute("aria-checked", "true")
    shop.api("POST", "plugins/ratings/toggle", json={"active": False})
    expect(switch).to_have_attribute("aria-checked", "false")


def test_a_plugin_that_crashes_while_one_looks_is_seen_to_fail(shop: Shop, visit: Visit) -> None:
    page = shop.enter(visit)
    row = page.get_by_role("row").filter(has_text="Stars for goods")
    expect(row).to_contain_text("healthy")
    for _ in range(4):
        shop.get("/stars/broken")
    expect(row).to_contain_text("warning")
    expect(row.locator(".bad-text")).to_have_text("4")


def test_a_viewer_sees_everything_and_changes_nothing(tmp_path: Path, visit: Visit) -> None:
    root = make_shop(tmp_path / "shop")
    settings = root / "veko.toml"
    more = f'\n[plugins.admin]\nviewer_token = "{VIEWER}"\n'
    settings.write_text(settings.read_text("utf-8") + more)
    shop = Shop(root)
    with shop.served:
        page = shop.enter(visit, token=VIEWER)
        page.get_by_text("read only").wait_for()
        expect(page.get_by_role("switch", name="cart is on")).to_be_disabled()
        expect(page.get_by_role("button", name="Reload cart")).to_be_disabled()
        expect(page.get_by_role("button", name="Load a plugin")).to_be_disabled()
        page.get_by_role("link", name="catalog").click()
        for name in ("Switch off", "Reload", "Unload"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
        form = page.get_by_role("form", name="Configuration of catalog")
        expect(form.get_by_label("title")).to_be_disabled()
        page.goto("/_veko/#/changes")
        expect(page.get_by_role("button", name="Back up now")).to_be_disabled()


def test_a_server_that_restarts_is_found_again(tmp_path: Path, visit: Visit) -> None:
    shop = Shop(make_shop(tmp_path / "shop"))
    with shop.served:
        port = shop.url.rpartition(":")[2]
        page = shop.enter(visit)
        expect(page.get_by_role("row").filter(has_text="ratings")).to_contain_text("0.4.0")
        shop.served.stop()
        expect(page.get_by_text("The connection to the application is lost.")).to_be_visible()
        file = shop.root / "plugins/ratings.py"
        file.write_text(file.read_text("utf-8").replace('"0.4.0"', '"0.9.0"'))
    again = Shop(shop.root, "--port", port)
    with again.served:
        expect(page.get_by_text("The connection to the application is lost.")).to_have_count(
            0, timeout=60_000
        )
        expect(page.get_by_role("row").filter(has_text="ratings")).to_contain_text("0.9.0")
        shop.api("POST", "plugins/ratings/toggle", json={"active": False})
        switch = page.get_by_role("switch", name="ratings is on")
        expect(switch).to_have_attribute("aria-checked", "false")


SLEEP = """hidden => {
  Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
  document.dispatchEvent(new Event('visibilitychange'))
}"""


def test_a_tab_that_sleeps_lets_go_and_is_up_to_date_when_it_wakes(
    shop: Shop, visit: Visit
) -> None:
    page = shop.enter(visit)
    # What it shows of this has come by its stream, so that is open before it falls asleep.
    shop.api("POST", "plugins/clock/toggle", json={"active": False})
    expect(page.get_by_role("switch", name="clock is on")).to_have_attribute(
        "aria-checked", "false"
    )
    page.clock.install()
    page.evaluate(SLEEP, True)
    page.clock.run_for(60_000)
    page.get_by_text("This page was asleep.").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    shop.api("POST", "plugins/ratings/toggle", json={"active": False})
    page.evaluate(SLEEP, False)
    page.clock.run_for(2_000)
    switch = page.get_by_role("switch", name="ratings is on")
    expect(switch).to_have_attribute("aria-checked", "false")
    expect(page.get_by_text("This page was asleep.")).to_have_count(0)
