"""The blog in a real browser: a newcomer's first minutes, live comments, both colour schemes.

`VEKO_SCREENSHOT=examples/blog/screenshot.png` takes the picture of the README.
"""

import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..examples.test_blog import PASSWORD, Served, copy_of_blog

expect = pytest.importorskip("playwright.sync_api").expect
LUMINANCE = """
selector => {
  const element = document.querySelector(selector)
  const numbers = color => color.match(/[\\d.]+/g).map(Number)
  const bright = color => numbers(color).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  let behind = element, ground
  do {
    ground = getComputedStyle(behind).backgroundColor
    behind = behind.parentElement
  } while (numbers(ground)[3] === 0)
  const both = [bright(getComputedStyle(element).color), bright(ground)]
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05)
}
"""


def picture(width: int, height: int) -> bytes:
    """A PNG: evening light over hills."""
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            hill = height * 0.62 + 14 * ((x / 70) % 2 - 1) ** 2 * 2 + 10 * ((x / 31) % 2 - 1) ** 2
            if y > hill:
                rows += bytes((28, 72 - y // 8, 78))
            else:
                rows += bytes((236 - y // 3, 170 - y // 4, 120 + y // 3))

    def chunk(kind: bytes, data: bytes) -> bytes:
        code = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + code

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    parts = (
        chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(rows), 9)), chunk(b"IEND", b""),
    )  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Served(copy_of_blog(tmp_path_factory.mktemp("browser"))) as served:
        yield served.url


def enter(page: Any, name: str) -> None:
    page.goto("/register")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Register").click()
    page.get_by_role("button", name=f"Log out {name}").wait_for()


def publish(page: Any, title: str, text: str) -> str:
    page.goto("/posts/new")
    page.get_by_label("Title").fill(title)
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", name=title, level=1).wait_for()
    path: str = page.evaluate("location.pathname")
    return path


@pytest.fixture(scope="module")
def author(url: str, chromium: Any) -> Iterator[Any]:
    """A window of the author, who has registered first."""
    context = chromium.new_context(base_url=url, viewport={"width": 1000, "height": 900})
    page = context.new_page()
    enter(page, "ann")
    yield page
    context.close()


def test_a_newcomer_writes_a_post_with_an_image_and_readers_discuss_it(
    url: str, visit: Callable[..., Any], author: Any
) -> None:
    author.goto("/uploads")
    author.get_by_label("Image").set_input_files(
        {"name": "evening.png", "mimeType": "image/png", "buffer": picture(640, 200)}
    )
    author.get_by_role("button", name="Upload").click()
    code = author.locator(".images code").first.inner_text()
    found = re.fullmatch(r"!\[evening\.png\]\((/uploads/\w+\.png)\)", code)
    assert found
    path = publish(
        author,
        "An evening in the hills",
        f"![Hills at dusk]({found[1]})\n\nThe path rises slowly, and then **all at once**. Every "
        "part of this page is a plugin: the text, the image, and the comments below, which "
        "appear while you read.\n\n> Switch one off, and the others go on.",
    )

    reader = visit(url, viewport={"width": 1000, "height": 900})
    enter(reader, "bob")
    dark = visit(url, viewport={"width": 1000, "height": 900}, color_scheme="dark")
    for page in (reader, dark):
        page.goto(path)
        page.get_by_text("New comments appear here by themselves").wait_for()
        expect(page.locator(".body img")).to_have_js_property("naturalWidth", 640)
    dark.get_by_role("link", name="Log in").nth(1).wait_for()

    # The reader's comment goes over the socket, and is at the guest's at once.
    before = reader.evaluate("performance.timeOrigin")
    reader.get_by_label("Your comment").fill("I have been there!\n<img src=x onerror=alert(1)>")
    reader.get_by_role("button", name="Send").click()
    for page in (reader, dark):
        comment = page.locator(".comments li")
        comment.wait_for()
        expect(comment.locator("p")).to_contain_text("<img src=x onerror=alert(1)>")
    reader.get_by_text("Sent.").wait_for()
    expect(reader.get_by_label("Your comment")).to_have_value("")
    assert reader.evaluate("performance.timeOrigin") == before, "the page was loaded anew"

    author.goto(path)
    author.get_by_role("button", name="Delete the comment of bob").click()
    author.get_by_text("Nobody has written one yet").wait_for()
    if shot := os.environ.get("VEKO_SCREENSHOT"):
        for page, text in (
            (reader, "I have been there!"), (author, "Come again in spring: it is greener."),
        ):  # fmt: skip
            page.goto(path)
            page.get_by_text("New comments appear here by themselves").wait_for()
            page.get_by_label("Your comment").fill(text)
            page.get_by_role("button", name="Send").click()
            dark.get_by_text(text).wait_for()
        take(reader, dark, path, Path(shot))


def take(light: Any, dark: Any, path: str, target: Path) -> None:
    """Write both colour schemes into one small picture."""
    import io

    from PIL import Image

    shots = []
    for page in (light, dark):
        page.set_viewport_size({"width": 760, "height": 1000})
        page.goto(path)
        page.get_by_text("New comments appear here by themselves").wait_for()
        page.wait_for_timeout(800)  # the end of animations
        shots.append(Image.open(io.BytesIO(page.screenshot())))
    both = Image.new("RGB", (1520, 1000))
    for number, shot in enumerate(shots):
        both.paste(shot, (760 * number, 0))
    both.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


def test_scripts_are_only_needed_for_live_comments(
    url: str, visit: Callable[..., Any], author: Any
) -> None:
    path = publish(author, "Without scripts", "Text")
    page = visit(url, java_script_enabled=False)
    enter(page, "carol")
    page.goto(path)
    page.get_by_label("Your comment").fill("Written by a form")
    page.get_by_role("button", name="Send").click()
    page.locator(".comments li", has_text="Written by a form").wait_for()
    assert "#comment-" in page.url
    page.get_by_role("button", name="Delete the comment of carol").click()
    page.get_by_text("Nobody has written one yet").wait_for()
    page.get_by_role("button", name="Log out carol").click()
    page.get_by_role("link", name="Log in").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(
    url: str, visit: Callable[..., Any], author: Any, scheme: str
) -> None:
    path = publish(author, f"Contrast in {scheme}", "[a link](/) and `code`")
    page = visit(url, color_scheme=scheme)
    enter(page, f"reader-of-{scheme}")
    page.goto(path)
    checked = ("h1", ".meta", ".body p", ".body a", "nav a", "footer p", ".state", "textarea",
               "form.fields button", "label", "nav button")  # fmt: skip
    for selector in checked:
        assert page.evaluate(LUMINANCE, selector) >= 4.5, selector
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(251, 250, 247)" if scheme == "light" else "rgb(20, 24, 27)"
    )


def test_pages_fit_a_small_screen_and_the_keyboard(
    url: str, visit: Callable[..., Any], author: Any
) -> None:
    path = publish(author, "A" + "very" * 30 + "longword", f"`{'wide' * 60}`\n\n    {'x' * 300}")
    page = visit(url, viewport={"width": 320, "height": 640})
    for one in ("/", path, "/login", "/register"):
        page.goto(one)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, one
    author.set_viewport_size({"width": 320, "height": 640})
    for one in ("/posts/new", "/uploads", "/drafts", f"{path}/edit", f"{path}/delete"):
        author.goto(one)
        assert author.evaluate("document.documentElement.scrollWidth") <= 320, one
    page.goto("/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()


def test_a_reader_who_was_cut_off_is_connected_again(
    tmp_path: Path, visit: Callable[..., Any], chromium: Any
) -> None:
    root = copy_of_blog(tmp_path)
    with Served(root) as served:
        page = visit(served.url, expected="ERR_CONNECTION_REFUSED")
        enter(page, "ann")
        path = publish(page, "Cut off", "Text")
        page.get_by_text("New comments appear here by themselves").wait_for()
        port = served.url.rpartition(":")[2]
        served.stop()
        page.get_by_text("Not connected").wait_for()
    with Served(root, "--port", port):
        page.get_by_text("New comments appear here by themselves").wait_for()
        page.get_by_label("Your comment").fill("back again")
        page.get_by_role("button", name="Send").click()
        page.locator(".comments li", has_text="back again").wait_for()
        assert page.evaluate("location.pathname") == path
