"""The dashboard's files over HTTP: caching, compression, and what the browser may do with them."""

import gzip
import re
import zipfile
from pathlib import Path

import httpx
from hatchling.builders.wheel import WheelBuilder

from veko_plugins import PluginManager
from veko_plugins.admin.dashboard import ASSETS

from .conftest import Home, http_client

ROOT = Path(__file__).parents[3]
PAGE = "http://localhost/_veko/"


async def test_the_page_is_served_to_everybody_and_shows_nothing_by_itself(
    manager: PluginManager,
) -> None:
    async with http_client(manager, token=None) as http:
        page = await http.get(PAGE)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert (await http.get("plugins")).status_code == 401


async def test_the_page_may_load_its_own_files_only_and_be_framed_by_nobody(
    http: httpx.AsyncClient,
) -> None:
    headers = (await http.get(PAGE)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


async def test_its_files_are_kept_by_the_browser_under_the_hash_of_their_content(
    http: httpx.AsyncClient,
) -> None:
    page = (await http.get(PAGE)).text
    names = re.findall(r'"(assets/app\.[0-9a-f]{16}\.(?:js|css))"', page)
    assert len(names) == 2
    for name in names:
        answer = await http.get(f"{PAGE}{name}", headers={"accept-encoding": "identity"})
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == ASSETS.joinpath("app" + Path(name).suffix).read_bytes()
    for other in ("app.js", "app.0000000000000000.js", "index.html"):
        answer = await http.get(f"{PAGE}assets/{other}")
        assert answer.status_code == 404
        assert answer.headers["cache-control"] == "no-store"


async def test_they_are_compressed_where_the_client_takes_that(http: httpx.AsyncClient) -> None:
    packed = await http.get(PAGE, headers={"accept-encoding": "br, gzip"})
    plain = await http.get(PAGE, headers={"accept-encoding": "identity"})
    refused = await http.get(PAGE, headers={"accept-encoding": "gzip;q=0"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in refused.headers
    assert packed.text == plain.text
    assert len(gzip.compress(plain.content, 9, mtime=0)) == int(packed.headers["content-length"])


async def test_an_unchanged_page_is_not_sent_again(http: httpx.AsyncClient) -> None:
    etag = (await http.get(PAGE)).headers["etag"]
    again = await http.get(PAGE, headers={"if-none-match": f'"x", {etag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag


async def test_the_address_without_a_slash_leads_to_the_page(http: httpx.AsyncClient) -> None:
    answer = await http.get(PAGE.rstrip("/"), follow_redirects=True)
    assert answer.status_code == 200
    assert answer.url.path == "/_veko/"


async def test_without_the_option_there_is_no_dashboard(home: Home) -> None:
    async with home.manager(enable_api=False) as manager, http_client(manager) as http:
        assert (await http.get(PAGE)).status_code == 404


def test_the_wheel_has_the_built_files_and_not_their_sources(tmp_path: Path) -> None:
    (made,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(made).namelist()
    folder = "veko_plugins/admin/dashboard/assets"
    for path in ASSETS.iterdir():
        assert f"{folder}/{path.name}" in names
    assert not [name for name in names if name.endswith(".mjs") and "dashboard" in name]
    assert not [name for name in names if "node_modules" in name]
