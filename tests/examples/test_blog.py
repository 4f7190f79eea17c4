"""The blog through `veko serve`, embedded and on PostgreSQL and Redis: used as a browser without
scripts uses it, and attacked."""

import html
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from veko_plugins import PluginManager

from ..conftest import Veko
from ..storages.conftest import running

BLOG = Path(__file__).parents[2] / "examples" / "blog"
PASSWORD = "correct horse battery"
PAGE = {"accept": "text/html,*/*"}
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
EVIL = "<script>alert(1)</script>"


def copy_of_blog(folder: Path) -> Path:
    root = folder / "blog"
    shutil.copytree(BLOG, root, ignore=shutil.ignore_patterns(".veko", "__pycache__", "*.png"))
    settings = (root / "veko.toml").read_text()
    (root / "veko.toml").write_text(settings.replace("every = 10", "every = 0.2"))
    return root


class Browser(httpx.Client):
    """A browser without scripts: it keeps cookies and sends the forms of pages."""

    def __init__(self, url: str) -> None:
        super().__init__(base_url=url, headers=PAGE, timeout=30, follow_redirects=True)

    def token(self, page: str = "/") -> str:
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.get(page).text)
        assert found, "the page has no form with a token"
        return html.unescape(found[1])

    def submit(self, path: str, page: str = "/", **fields: Any) -> httpx.Response:
        files = fields.pop("files", None)
        return self.post(path, data={"csrf_token": self.token(page), **fields}, files=files)

    def enter(self, name: str, page: str = "register") -> httpx.Response:
        return self.post(f"/{page}", data={"name": name, "password": PASSWORD, "next": "/"})

    def publish(self, title: str, body: str = "A text.", **fields: str) -> str:
        answer = self.submit("/posts", title=title, body=body, **{"publish": "now", **fields})
        assert answer.status_code == 200, answer.text
        return answer.url.path

    def cookie_header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())


class Served(Veko):
    """`veko serve` on a free port; it stops with the block."""

    def __init__(self, root: Path, *words: str, **environ: str) -> None:
        super().__init__("serve", str(root), "--port", "0", *words, **environ)
        self.url = self.wait_for(r"Listening on (http://[^\s,]+)")[1]

    def __exit__(self, *_: object) -> None:
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            super().__exit__()


@pytest.fixture(scope="module", params=["embedded", "servers"])
def environ(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What an operator sets: nothing, or the URLs of two servers."""
    with ExitStack() as stack:
        if request.param == "embedded":
            yield {}
            return
        postgres = stack.enter_context(running("postgres"))
        redis = stack.enter_context(running("redis"))
        yield {"VEKO_DATABASE": postgres.url, "VEKO_CACHE": redis.url}


@pytest.fixture(scope="module")
def blog(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = copy_of_blog(tmp_path_factory.mktemp("blog"))
    with Served(root, **environ) as served:
        served.root = root  # type: ignore[attr-defined]
        with Browser(served.url) as first:
            assert "The first account that registers is the author" in first.get("/").text
            assert first.enter("ann").status_code == 200
            served.ann = first  # type: ignore[attr-defined]
            with Browser(served.url) as second:
                assert second.enter("bob").status_code == 200
                served.bob = second  # type: ignore[attr-defined]
                yield served


@pytest.fixture
def ann(blog: Any) -> Browser:
    """The author."""
    found: Browser = blog.ann
    return found


@pytest.fixture
def bob(blog: Any) -> Browser:
    """A reader."""
    found: Browser = blog.bob
    return found


@pytest.fixture
def guest(blog: Any) -> Iterator[Browser]:
    """Somebody who is not logged in."""
    with Browser(blog.url) as client:
        yield client


def test_a_post_is_written_read_changed_and_deleted(ann: Browser, guest: Browser) -> None:
    path = ann.publish("Tea in winter", "It is **hot**.")
    assert path == "/posts/tea-in-winter"
    page = guest.get(path)
    assert "<strong>hot</strong>" in page.text
    assert "Change" not in page.text
    assert "Tea in winter" in guest.get("/").text
    assert "Tea in winter" in guest.get("/feed.xml").text
    ann.submit(f"{path}/edit", title="Tea in summer", body="It is *cold*.", publish="now")
    assert "<em>cold</em>" in guest.get(path).text
    assert "Tea in summer" in guest.get("/").text, "the cache still has the old list"
    assert "<h1>Delete" in ann.get(f"{path}/delete").text
    ann.submit(f"{path}/delete")
    assert guest.get(path).status_code == 404
    assert "Tea in summer" not in guest.get("/").text


def test_the_feed_is_kept_until_a_post_changes(ann: Browser, guest: Browser) -> None:
    ann.publish("In the feed")
    first, second = guest.get("/feed.xml"), guest.get("/feed.xml")
    assert "hit" in second.headers["cache-status"]
    assert second.text == first.text
    assert ElementTree.fromstring(first.content).tag == "{http://www.w3.org/2005/Atom}feed"
    known = {"if-none-match": first.headers["etag"]}
    assert guest.get("/feed.xml", headers=known).status_code == 304
    other = guest.get("/feed.xml", headers={"host": "evil.example"})
    assert "evil.example" in other.text
    assert "evil.example" not in guest.get("/feed.xml").text
    ann.publish("Later in the feed")
    assert "Later in the feed" in guest.get("/feed.xml", headers=known).text


def test_nothing_that_was_typed_becomes_html(ann: Browser, bob: Browser, guest: Browser) -> None:
    body = f'{EVIL}\n\n[x](javascript:alert(1)) ![x](data:text/html,x) <img src=x onerror="x">'
    path = ann.publish(f"Evil {EVIL}", body)
    bob.submit(f"{path}/comments", path, text=f"{EVIL} {{{{ 7 * 7 }}}}")
    for page in (path, "/", "/feed.xml"):
        text = guest.get(page).text
        assert EVIL not in text, page
        assert "<img src=x" not in text
    text = guest.get(path).text
    assert 'href="javascript:' not in text
    assert html.escape(EVIL) in text
    assert "{{ 7 * 7 }}" in text
    assert EVIL not in guest.get("/login", params={"next": f'/"{EVIL}'}).text
    assert EVIL not in guest.post("/login", data={"name": EVIL, "password": "x"}).text


def test_pages_protect_their_readers(guest: Browser) -> None:
    page = guest.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"


def test_lists_have_pages(ann: Browser, guest: Browser) -> None:
    for number in range(7):
        ann.publish(f"Number {number}")
    first, second = guest.get("/"), guest.get("/", params={"page": "2"})
    assert first.text.count("<article>") == 5
    assert "?page=2" in first.text
    assert second.text.count("<article>") >= 2
    assert "Number 6" in first.text
    assert "Number 6" not in second.text
    for page in ("0", "-1", "99999", "9" * 30, "x", "1; drop table blog_post", "²"):
        assert guest.get("/", params={"page": page}).status_code == 404, page


def test_posts_of_one_title_have_paths_of_their_own(ann: Browser) -> None:
    paths = [ann.publish(title) for title in ("New", "new!", "ÄÖ", "日本", "../../etc/passwd")]
    assert paths == [
        "/posts/new-2", "/posts/new-3", "/posts/ao", "/posts/post", "/posts/etc-passwd",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"title": " "}, "The title is missing"),
        ({"title": "x" * 201}, "longer than 200"),
        ({"body": ""}, "The text is missing"),
        ({"body": "x" * 50_001}, "longer than 50,000"),
        ({"title": "a\0b"}, "cannot be stored"),
        ({"publish": "never"}, "Choose when"),
        ({"publish": "later"}, "Give the day"),
        ({"publish": "later", "due": "9999-12-31T23:59"}, "Give the day"),
        ({"publish": "later", "due": "soon"}, "Give the day"),
    ],
    ids=["title", "long-title", "text", "long-text", "nul", "publish", "due", "far", "soon"],
)
def test_a_form_says_what_is_wrong_and_keeps_the_rest(
    ann: Browser, fields: dict[str, str], problem: str
) -> None:
    answer = ann.submit("/posts", **{"title": "Kept", "body": "Kept", "publish": "now", **fields})
    assert answer.status_code == 400
    assert problem in answer.text
    assert "Kept" in answer.text


def test_drafts_are_for_their_author_only(ann: Browser, bob: Browser, guest: Browser) -> None:
    path = ann.publish("A secret", publish="draft")
    assert ann.get(path).status_code == 200
    assert "A secret" in ann.get("/drafts").text
    for other in (bob, guest):
        assert other.get(path).status_code == 404
        assert "A secret" not in other.get("/").text
        assert other.post(f"{path}/comments", data={"text": "x"}).status_code in {401, 403, 404}
    assert bob.submit(f"{path}/comments", text="x").status_code == 404


def test_the_scheduled_job_publishes_what_is_due(ann: Browser, guest: Browser) -> None:
    assert "From the future" not in guest.get("/").text  # the list is in the cache
    due = f"{datetime.now(UTC) + timedelta(days=300):%Y-%m-%dT%H:%M}"
    later = ann.publish("Much later", publish="later", due=due)
    path = ann.publish("From the future", publish="later", due="2026-01-02T03:04")
    end = time.monotonic() + 30
    while "From the future" not in guest.get("/", params={"page": "1"}).text + guest.get(path).text:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert '<time datetime="2026-01-02T03:04:00Z">' in guest.get(path).text
    assert guest.get(later).status_code == 404


# -- who may do what


def test_guests_are_sent_to_the_login_and_readers_refused(
    ann: Browser, bob: Browser, guest: Browser
) -> None:
    path = ann.publish("Guarded")
    pages = ("/posts/new", "/drafts", "/uploads", f"{path}/edit", f"{path}/delete")
    for page in pages:
        assert guest.get(page).url.path == "/login", page
        refused = bob.get(page)
        assert refused.status_code == 403, page
        assert "You may not do this" in refused.text
    for page in ("/posts", "/uploads", f"{path}/edit", f"{path}/delete", f"{path}/comments"):
        assert guest.post(page, data={"title": "x"}).status_code == 401, page
    for page in ("/posts", "/uploads", f"{path}/edit", f"{path}/delete"):
        answer = bob.submit(page, title="Mine", body="x", publish="now")
        assert answer.status_code == 403, page
    assert "Guarded" in guest.get(path).text


@pytest.mark.parametrize("page", ["/posts", "/uploads", "{}/edit", "{}/delete", "{}/comments"])
def test_other_sites_cannot_use_a_session(ann: Browser, page: str) -> None:
    path = ann.publish("Forged")
    page = page.format(path)
    token = ann.token()
    fields = {"title": "Forged!", "body": "x", "publish": "now", "text": "x"}
    assert ann.post(page, data=fields).status_code == 403
    assert ann.post(page, data={**fields, "csrf_token": "wrong"}).status_code == 403
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = ann.post(page, data={**fields, "csrf_token": token}, headers=headers)
        assert answer.status_code == 403
    assert "Forged!" not in ann.get(path).text


def test_registering_and_logging_in(blog: Any, guest: Browser) -> None:
    answer = guest.enter("carol")
    assert "Log out carol" in answer.text
    assert "Write" not in answer.text  # only the first is the author
    guest.submit("/logout")
    assert "Log in" in guest.get("/").text
    wrong = guest.post("/login", data={"name": "carol", "password": "not this"})
    assert wrong.status_code == 401
    assert "the name or the password is wrong" in wrong.text
    assert guest.enter("carol").status_code == 409
    assert guest.post("/register", data={"name": "d", "password": "short"}).status_code == 400
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb: c"):
        answer = guest.post(
            "/login",
            data={"name": "carol", "password": PASSWORD, "next": target},
            follow_redirects=False,
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "name",
    ["%00", "a%00b", "x" * 900, "%ff", "ä", "'", "a/../b", "NEW"],
    ids=["nul", "with-nul", "long", "byte", "umlaut", "quote", "dots", "capitals"],
)
def test_odd_names_are_not_found(ann: Browser, guest: Browser, name: str) -> None:
    for client, path in ((guest, ""), (ann, "/edit"), (ann, "/delete")):
        assert client.get(f"/posts/{name}{path}").status_code == 404
    assert ann.submit(f"/posts/{name}/delete").status_code == 404
    assert ann.submit(f"/posts/{name}/comments", text="x").status_code == 404
    assert ann.submit(f"/uploads/{name}/delete").status_code == 404


def test_a_text_made_to_be_slow_holds_up_nobody(ann: Browser, guest: Browser) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ann.publish, "Slow", "![[" * 16_000)
        slowest = 0.0
        while not slow.done():
            began = time.monotonic()
            assert guest.get("/login").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slow.result() == "/posts/slow"
    began = time.monotonic()
    assert "Slow" in guest.get("/").text
    slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2, slowest


# -- images


def test_images_are_uploaded_shown_and_deleted(blog: Any, ann: Browser, guest: Browser) -> None:
    answer = ann.submit("/uploads", files={"file": ("../../evil.html", PNG, "text/html")})
    found = re.findall(r"/uploads/([0-9a-f]{32}\.png)", answer.text)
    assert found
    image = guest.get(f"/uploads/{found[0]}")
    assert image.content == PNG
    assert image.headers["content-type"] == "image/png"
    assert image.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in image.headers["content-security-policy"]
    assert [path.name for path in (blog.root / ".veko" / "uploads").iterdir()] == [found[0]]
    assert not list(blog.root.rglob("evil*"))
    ann.submit(f"/uploads/{found[0]}/delete")
    assert guest.get(f"/uploads/{found[0]}").status_code == 404
    assert not list((blog.root / ".veko" / "uploads").iterdir())


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("a.png", b"<html><script>alert(1)</script>", 415),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 415),
        ("a.png", b"", 400),
        ("a.png", PNG + b"\0" * (2 << 20), 413),
        ("a.png", PNG + b"\0" * (11 << 20), 413),
        ("a.exe", b"MZ" + b"\0" * 100, 415),
    ],
    ids=["html", "svg", "empty", "large", "very-large", "exe"],
)
def test_what_is_no_small_image_is_refused(
    blog: Any, ann: Browser, name: str, data: bytes, status: int
) -> None:
    answer = ann.submit("/uploads", files={"file": (name, data, "image/png")})
    assert answer.status_code == status
    assert not list((blog.root / ".veko" / "uploads").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "../../veko.toml", "..%2f..%2fveko.toml", "%2e%2e/%2e%2e/veko.toml", "..\\veko.toml",
        "%00.png", "a" * 32 + ".html", "a" * 32 + ".png", "x" * 500,
    ],
    ids=["up", "encoded-up", "encoded-dots", "backslash", "nul", "kind", "none", "long"],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["uploads", "static"])
def test_no_path_leads_out_of_the_folders(guest: Browser, folder: str, name: str) -> None:
    answer = guest.get(f"/{folder}/{name}")
    assert answer.status_code == 404
    assert "required" not in answer.text


# -- comments


def test_comments_need_no_script(ann: Browser, bob: Browser, guest: Browser) -> None:
    path = ann.publish("Discussed")
    answer = bob.submit(f"{path}/comments", path, text="First!\nSecond line")
    assert "First!\nSecond line" in answer.text
    assert answer.url.fragment.startswith("comment-")
    assert "First!" in guest.get(path).text
    for text, status in (("", 400), ("  ", 400), ("x" * 2001, 400), ("\0", 400)):
        assert bob.submit(f"{path}/comments", path, text=text).status_code == status
    number = answer.url.fragment.removeprefix("comment-")
    other = ann.publish("Other")
    assert bob.submit(f"{other}/comments/{number}/delete").status_code == 404
    assert bob.submit(f"{path}/comments/{2**40}/delete").status_code == 404
    assert guest.post(f"{path}/comments/{number}/delete").status_code == 401
    own = ann.submit(f"{path}/comments", path, text="Mine").url.fragment.removeprefix("comment-")
    assert bob.submit(f"{path}/comments/{own}/delete").status_code == 403
    assert "Mine" in guest.get(path).text
    assert bob.submit(f"{path}/comments/{number}/delete").status_code == 200
    assert "First!" not in guest.get(path).text
    ann.submit(f"{path}/delete")


def socket_of(client: Browser, path: str, **headers: str) -> Any:
    url = str(client.base_url.join(f"{path}/live")).replace("http", "ws", 1)
    origin = headers.pop("origin", str(client.base_url).rstrip("/"))
    cookie = client.cookie_header()
    return connect(url, origin=origin, additional_headers={"cookie": cookie} if cookie else {})


def test_comments_arrive_at_once_and_are_written_over_the_socket(
    ann: Browser, guest: Browser, blog: Any
) -> None:
    with Browser(blog.url) as dave:
        dave.enter("dave")
        path = ann.publish("Live")
        with socket_of(guest, path) as reads, socket_of(dave, path) as writes:
            dave.submit(f"{path}/comments", path, text=f"by form {EVIL}")
            for socket in (reads, writes):
                message = json.loads(socket.recv(30))
                assert html.escape(f"by form {EVIL}") in message["html"]
                assert message["id"].startswith("comment-")
            writes.send("by socket")
            answers = [json.loads(writes.recv(30)) for _ in range(2)]
            assert {"accepted": True} in answers
            assert "by socket" in json.loads(reads.recv(30))["html"]
            writes.send("  ")
            assert json.loads(writes.recv(30)) == {"problem": "a comment needs a text"}
            reads.send("nobody")
            assert json.loads(reads.recv(30)) == {"problem": "log in to write a comment"}
            for _ in range(8):
                writes.send("again")
                while "accepted" not in json.loads(writes.recv(30)):
                    pass
            writes.send("too many")
            while "problem" not in (message := json.loads(writes.recv(30))):
                pass
            assert "10 comments a minute" in message["problem"]
            dave.submit("/logout")
            writes.send("after the end of the session")
            while "problem" not in (message := json.loads(writes.recv(30))):
                pass
            assert message["problem"] == "log in to write a comment"
        text = guest.get(path).text
        assert text.count("<li id=") == 10
        assert "nobody" not in text
        assert "too many" not in text


def test_sockets_of_other_sites_cannot_write(ann: Browser, blog: Any) -> None:
    path = ann.publish("Elsewhere")
    with socket_of(ann, path, origin="https://evil.example") as socket:
        socket.send("forged")
        assert json.loads(socket.recv(30)) == {"problem": "log in to write a comment"}
    draft = ann.publish("No socket", publish="draft")
    with pytest.raises(Exception, match="404"), socket_of(ann, draft):
        pass


# -- pages for errors


def test_errors_are_pages_for_browsers_and_problems_for_programs(guest: Browser) -> None:
    page = guest.get("/nowhere")
    assert page.status_code == 404
    assert "<h1>Not Found</h1>" in page.text
    assert "All posts" in page.text
    problem = guest.get("/nowhere", headers={"accept": "application/json"})
    assert problem.json()["status"] == 404
    none = guest.get("/posts/none")
    assert (none.status_code, none.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert guest.delete("/").status_code == 405


def test_every_page_is_sound_for_people_and_machines(ann: Browser, guest: Browser) -> None:
    path = ann.publish("Accessible", "Text")
    pages = [(ann, one) for one in ("/", path, "/posts/new", "/drafts", "/uploads", f"{path}/edit")]
    for client, page in [*pages, (guest, "/login"), (guest, "/register"), (guest, "/none")]:
        text = client.get(page).text
        assert text.count("<h1") == 1, page
        assert '<html lang="en">' in text
        assert text.count("<main") == text.count("</main>") == 1
        identifiers = re.findall(r' id="([^"]+)"', text)
        assert len(identifiers) == len(set(identifiers)), page
        labelled = set(re.findall(r'<label for="([^"]+)"', text))
        for field in re.findall(r"<(?:input|textarea)[^>]*>", text):
            if 'type="hidden"' in field or 'type="radio"' in field:
                continue
            assert set(re.findall(r' id="([^"]+)"', field)) <= labelled, field
        for image in re.findall(r"<img[^>]*>", text):
            assert " alt=" in image
        assert "style=" not in text  # the policy forbids it
        assert not re.search(r"\son\w+=", text)


# -- the plugins together


@asynccontextmanager
async def embedded(root: Path) -> AsyncIterator[tuple[PluginManager, httpx.AsyncClient]]:
    async with PluginManager(root=root) as manager:
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=PAGE, follow_redirects=True
        ) as client:
            yield manager, client


async def test_a_section_goes_with_its_plugin_and_another_author_is_refused(
    tmp_path: Path,
) -> None:
    root = copy_of_blog(tmp_path)

    async def send(client: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
        page = (await client.get("/")).text
        token = re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]
        return await client.post(path, data={"csrf_token": html.unescape(token), **fields})

    async with embedded(root) as (manager, ann):
        fields = {"name": "ann", "password": PASSWORD}
        await ann.post("/register", data=fields)
        post = {"title": "One", "body": "Text", "publish": "now"}
        assert (await send(ann, "/posts", **post)).url.path == "/posts/one"
        await ann.post("/login", data=fields)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=manager.asgi), base_url="http://test", headers=PAGE,
            follow_redirects=True,
        ) as eve:  # fmt: skip
            await eve.post("/register", data={"name": "eve", "password": PASSWORD})
            await manager.use("auth").set_roles("eve", "author")
            assert (await eve.get("/posts/new")).status_code == 200
            assert (await eve.get("/posts/one/edit")).status_code == 403
            assert (await send(eve, "/posts/one/edit", **post)).status_code == 403
            assert (await send(eve, "/posts/one/delete")).status_code == 403
            await manager.use("auth").end_sessions("eve")
            assert (await eve.get("/posts/new")).url.path == "/login"

        assert "Comments" in (await ann.get("/posts/one")).text
        await manager.toggle_plugin("comments")
        assert "Comments" not in (await ann.get("/posts/one")).text
        await manager.toggle_plugin("comments")
        assert "Comments" in (await ann.get("/posts/one")).text

        await manager.unload_plugin("uploads")
        assert "Images" not in (await ann.get("/")).text
        before = manager.use("cache").stats("posts").hits
        await ann.get("/")
        await ann.get("/")
        assert manager.use("cache").stats("posts").hits > before
        assert manager.get_stats().errors == 0

    async with embedded(root) as (manager, ann):
        assert "One" in (await ann.get("/")).text
        await ann.post("/login", data=fields)
        assert "Drafts" in (await ann.get("/")).text


def test_several_processes_show_one_blog(tmp_path: Path) -> None:
    root = copy_of_blog(tmp_path)
    with ExitStack() as stack:
        postgres = stack.enter_context(running("postgres"))
        redis = stack.enter_context(running("redis"))
        served = stack.enter_context(
            Served(
                root, "--workers", "2", VEKO_DATABASE=postgres.url, VEKO_CACHE=redis.url,
                VEKO_STORAGE=postgres.url,
            )
        )  # fmt: skip
        ann = stack.enter_context(Browser(served.url))
        ann.enter("ann")
        path = ann.publish("Shared")
        # Each of these connections may be with either process; the comment reaches all.
        sockets = [stack.enter_context(socket_of(ann, path)) for _ in range(8)]
        with Browser(served.url) as other:
            other.cookies.update(ann.cookies)
            other.submit(f"{path}/comments", path, text="to both")
        for socket in sockets:
            assert "to both" in json.loads(socket.recv(30))["html"]
            with pytest.raises((TimeoutError, ConnectionClosed)):
                socket.recv(0.05)
        for number in range(6):
            ann.publish(f"More {number}")
            for _ in range(4):
                with Browser(served.url) as guest:  # a connection of its own
                    assert f"More {number}" in guest.get("/").text


def test_servers_may_go_and_come_back(tmp_path: Path) -> None:
    root = copy_of_blog(tmp_path)
    with ExitStack() as stack:
        postgres = stack.enter_context(running("postgres"))
        redis = stack.enter_context(running("redis"))
        environ = {"VEKO_DATABASE": postgres.url, "VEKO_CACHE": redis.url}
        served = stack.enter_context(Served(root, **environ))
        ann = stack.enter_context(Browser(served.url))
        ann.enter("ann")
        path = ann.publish("Here to stay")
        redis.kill()  # the blog is slower, and that is all
        assert ann.publish("Without a cache") == "/posts/without-a-cache"
        assert "Without a cache" in ann.get("/").text
        postgres.kill()
        for _ in range(30):
            answer = ann.get(path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "2"
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert "postgres" not in answer.text
        assert ann.get("/login").status_code == 200
        postgres.start()
        redis.start()
        assert "Here to stay" in ann.get(path).text  # at once: no route was switched off
        ann.publish("Back again")
        assert "Back again" in ann.get("/").text
