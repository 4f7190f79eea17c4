"""Images for posts: uploading, showing and deleting them.

Nothing that a browser could run is accepted: the first bytes decide what a file is, not its name or
the type that the browser claims, and only four kinds of images pass (no SVG, which may have
scripts). A file gets a name of ours, so a name from outside never becomes a path.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from sqlalchemy import func, select

from veko_plugins import Context, HTTPError, Request, Response
from veko_plugins.http import FileResponse, Upload

from .models import Image

name = "uploads"
version = "1.0.0"
description = "Images for posts"
dependencies = ["pages"]

# Beside the database of `veko.toml`; it is not served by path.
FOLDER = Path(__file__).resolve().parents[2] / ".veko" / "uploads"
_OURS = re.compile(r"[0-9a-f]{32}\.(png|jpg|gif|webp)")
_HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "public, max-age=31536000, immutable",
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 2 << 20
    max_images: Annotated[int, msgspec.Meta(gt=0)] = 200


config_schema = Settings


def kind_of(data: bytes) -> str | None:
    """Return the suffix for an image, found out from its first bytes; `None` for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


async def load(config: Settings, context: Context) -> None:
    database = context.database
    await database.migrate()
    auth = context.use("auth")
    pages = context.use("pages").of(Path(__file__).parent / "templates")
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def show(request: Request, problem: str = "", status: int = 200) -> Response:
        user = request.state["user"]
        async with database.session() as session:
            found = await session.scalars(
                select(Image).where(Image.owner_id == user.id)
                .order_by(Image.created.desc(), Image.name).limit(config.max_images)
            )  # fmt: skip
            images = list(found)
        return await pages.render(
            request, "uploads.html", status=status, images=images, problem=problem,
            limit=config.max_bytes,
        )  # fmt: skip

    async def show_all(request: Request) -> Response:
        return await show(request)

    async def upload(request: Request) -> Response:
        form: Any = await request.form()
        file, user = form.get("file"), request.state["user"]
        if not isinstance(file, Upload) or not file.data:
            return await show(request, "Choose an image.", 400)
        if len(file.data) > config.max_bytes:
            return await show(request, f"The image is larger than {config.max_bytes:,} bytes.", 413)
        kind = kind_of(file.data)
        if kind is None:
            return await show(request, "It is not a PNG, JPEG, GIF or WebP image.", 415)
        image = Image(
            name=f"{secrets.token_hex(16)}.{kind}", shown=_shown(file.filename), owner_id=user.id,
            size=len(file.data), created=int(time.time()),
        )  # fmt: skip
        async with database.begin() as session:
            count = select(func.count()).select_from(Image).where(Image.owner_id == user.id)
            if (await session.scalar(count) or 0) >= config.max_images:
                full = True
            else:
                full = False
                await asyncio.to_thread(_write, FOLDER / image.name, file.data)
                session.add(image)
        if full:
            return await show(request, f"You have {config.max_images} images; delete some.", 409)
        return Response(status=303, headers={"location": "/uploads"})

    async def remove(request: Request, name: str) -> Response:
        user = request.state["user"]
        async with database.begin() as session:
            image = await session.get(Image, name) if _OURS.fullmatch(name) else None
            if image is None:
                raise HTTPError(404, "there is no such image")
            if image.owner_id != user.id:
                raise HTTPError(403, "it is the image of another author")
            await session.delete(image)
        await asyncio.to_thread((FOLDER / image.name).unlink, missing_ok=True)
        return Response(status=303, headers={"location": "/uploads"})

    def image(name: str) -> FileResponse:
        if not _OURS.fullmatch(name):
            raise HTTPError(404, "there is no such image")
        return FileResponse(name, root=FOLDER, headers=_HEADERS)

    @context.hook("plugin:pages:links")
    def links(found: list[tuple[str, str]], user: Any) -> list[tuple[str, str]] | None:
        if user is None or not user.may("uploads:write"):
            return None
        return [*found, ("/uploads", "Images")]

    may_write = auth.require("uploads:write", login="/login")
    context.add_route("GET", "/uploads", may_write, show_all)
    context.add_route("POST", "/uploads", may_write, upload)
    context.add_route("POST", "/uploads/{name}/delete", may_write, remove)
    context.add_route("GET", "/uploads/{name}", image)


def _shown(filename: str) -> str:
    """Return the last part of a name, as text to show; it is never a path."""
    last = re.split(r"[/\\]", filename)[-1]
    return "".join(one for one in last if one.isprintable())[:100] or "image"


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
