"""Files as responses: whole files, ranges, conditional requests, and paths outside the root."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins.http import CHUNK, FileResponse

from ._site import Site
from ._wire import request, wire

pytestmark = pytest.mark.anyio

TEXT = b"0123456789"


def write(folder: Path, name: str = "a.txt", content: bytes = TEXT) -> Path:
    path = folder / name
    path.write_bytes(content)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def opened() -> set[str]:
    """Return the open files of this process, where the system lists them."""
    descriptors = Path("/proc/self/fd")
    return {os.path.realpath(it) for it in descriptors.iterdir()} if descriptors.exists() else set()


async def test_a_file_says_what_it_is(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path)
    async with site.route("GET", "/file", lambda request: FileResponse(path)) as client:
        whole, head = await client.get("/file"), await client.head("/file")
    assert (whole.status_code, whole.content) == (200, TEXT)
    assert (head.status_code, head.content) == (200, b"")
    for answer in (whole, head):
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["content-length"] == "10"
        assert answer.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        assert answer.headers["etag"]
        assert answer.headers["accept-ranges"] == "bytes"
        assert "transfer-encoding" not in answer.headers
        assert "content-disposition" not in answer.headers


async def test_a_download_has_its_name_whatever_is_in_it(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path, "a.tar.gz")

    def handler(name: str) -> FileResponse:
        return FileResponse(path, filename=name, headers=[("x-a", "1"), ("x-a", "2")])

    async with site.route("GET", "/file", handler) as client:
        answer = await client.get("/file", params={"name": 'é"\r\nset-cookie: a=b;.txt'})
    assert answer.headers["content-disposition"] == (
        "attachment; filename*=UTF-8''%C3%A9%22%0D%0Aset-cookie%3A%20a%3Db%3B.txt"
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers.get_list("x-a") == ["1", "2"]
    assert "set-cookie" not in answer.headers


async def test_who_has_it_gets_no_second_copy(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path)
    async with site.route("GET", "/file", lambda request: FileResponse(path)) as client:

        async def status(**headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = await client.get("/file", headers=named)
            assert answer.content == (TEXT if answer.status_code == 200 else b"")
            return answer.status_code

        etag = (await client.get("/file")).headers["etag"]
        assert await status(if_none_match=etag) == 304
        assert await status(if_none_match=f'"other", W/{etag}') == 304
        assert await status(if_none_match="*") == 304
        assert await status(if_none_match='"other"') == 200
        assert await status(if_modified_since="Tue, 14 Nov 2023 22:13:20 GMT") == 304
        assert await status(if_modified_since="Tue, 14 Nov 2023 22:13:19 GMT") == 200
        # If both are sent, the tag decides; an invalid date is ignored.
        since = "Tue, 14 Nov 2023 22:13:20 GMT"
        assert await status(if_none_match='"other"', if_modified_since=since) == 200
        for odd in ("yesterday", "", "0", "Tue, 99 Nov 99999 22:13:20 GMT"):
            assert await status(if_modified_since=odd) == 200
        path.write_bytes(b"9876543210")
        assert (await client.get("/file", headers={"if-none-match": etag})).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, TEXT, "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=5-2", 200, TEXT, None),
        ("bytes=-", 200, TEXT, None),
        ("bytes=0-1,4-5", 200, TEXT, None),
        ("bytes=" + "9" * 5_000 + "-", 200, TEXT, None),
        ("bytes=٣-", 200, TEXT, None),
        ("lines=0-3", 200, TEXT, None),
    ],
)
async def test_a_part_of_a_file(
    site: Site, tmp_path: Path, asked: str, status: int, content: bytes, content_range: str | None
) -> None:
    path = write(tmp_path)
    async with site.route("GET", "/file", lambda request: FileResponse(path)) as client:
        answer = await client.get("/file", headers=[(b"range", asked.encode())])
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers.get("content-range") == content_range
    assert answer.headers["content-length"] == str(len(content))


async def test_a_part_of_what_has_changed_is_the_whole(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path)
    async with site.route("GET", "/file", lambda request: FileResponse(path)) as client:
        first = await client.head("/file", headers={"range": "bytes=0-1"})
        assert first.status_code == 200
        for known in (first.headers["etag"], first.headers["last-modified"]):
            headers = {"range": "bytes=0-1", "if-range": known}
            assert (await client.get("/file", headers=headers)).content == b"01"
        headers = {"range": "bytes=0-1", "if-range": '"other"'}
        assert (await client.get("/file", headers=headers)).content == TEXT


async def test_middleware_may_stand_around_a_file(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path)

    async def named(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["x-a"] = "1"
        return answer

    async def replaced(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.body = b"other"
        return answer

    for around, content in ((named, b"01"), (replaced, b"other")):
        handler = lambda request: FileResponse(path)  # noqa: E731
        async with site.route("GET", "/file", around, handler) as client:
            answer = await client.get("/file", headers={"range": "bytes=0-1"})
            assert answer.content == content


async def test_a_folder_keeps_what_is_outside_of_it(site: Site, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    write(inside)
    write(tmp_path, "secret", b"secret")
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "loop").symlink_to(inside / "loop")
    (inside / "sub").mkdir()
    os.mkfifo(inside / "pipe")

    def handler(rest: str) -> FileResponse:
        return FileResponse(rest, root=inside)

    def queried(name: str) -> FileResponse:
        return FileResponse(name, root=inside)

    def load(context: Any) -> None:
        context.add_route("GET", "/files/{rest:path}", handler)
        context.add_route("GET", "/named", queried)

    async with site.plugin(load) as record, wire(site.url) as connection:
        found = await connection.ask(request("GET", "/files/a.txt"))
        assert found is not None
        assert found.body == TEXT
        for rest in (
            "../secret", "%2e%2e/secret", "..%2fsecret", "/etc/passwd", "%2fetc/passwd", "link",
            "loop", "pipe", "sub", "sub/..%2f..%2fsecret", "a.txt/x", "a%00.txt", "a" * 5_000,
            "%ff", "..%5csecret", "sub/",
        ):  # fmt: skip
            answer = await connection.ask(request("GET", f"/files/{rest}"))
            assert answer is not None
            assert (rest, answer.status) == (rest, 404)
        for name in ("../secret", str(tmp_path / "secret"), "", "."):
            assert (await site.client.get("/named", params={"name": name})).status_code == 404
        assert record.error_count == 0


async def test_a_large_file_comes_in_pieces(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path, "a.bin", os.urandom(3 * CHUNK + 1))
    async with site.route("GET", "/file", lambda request: FileResponse(path)) as client:
        assert (await client.get("/file")).content == path.read_bytes()
        part = await client.get("/file", headers={"range": f"bytes={CHUNK - 1}-{2 * CHUNK}"})
        assert part.content == path.read_bytes()[CHUNK - 1 : 2 * CHUNK + 1]


async def test_who_goes_away_leaves_no_file_open(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path, "a.bin", bytes(64 * CHUNK))
    ended = asyncio.Event()

    def load(context: Any) -> None:
        context.add_route("GET", "/file", lambda request: FileResponse(path))
        context.hook("response:error", lambda response, request: ended.set())

    async with site.plugin(load) as record:
        async with (
            httpx.AsyncClient(base_url=site.url) as client,
            client.stream("GET", "/file") as answer,
        ):
            assert await anext(answer.aiter_raw())
        async with asyncio.timeout(5):
            await ended.wait()
        assert str(path) not in opened()
        assert record.error_count == 0


async def test_a_file_that_shrinks_is_cut_off(site: Site, tmp_path: Path) -> None:
    path = write(tmp_path, "a.bin", bytes(10))

    def handler(request: Any) -> FileResponse:
        made = FileResponse(path)
        path.write_bytes(b"less")
        return made

    async with site.plugin(lambda context: context.add_route("GET", "/file", handler)) as record:
        with pytest.raises(httpx.RemoteProtocolError):
            await site.client.get("/file")
        assert record.error_count == 1
