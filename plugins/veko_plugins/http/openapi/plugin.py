"""The core plugin `openapi`: one OpenAPI document of all active plugins, and a page that shows it.

The adapter describes the routes of each plugin separately, under a tag of the plugin's own. The
document is made on the first request for it, in a thread, and kept until the routes change by a
load, a toggle or a reload. Until then it costs some routes in the table. Requests that arrive while
it is being made wait for the same document.

A plugin whose routes cannot be described is left out with a warning. Routes of core plugins are not
in it, unless the plugin provides a description as the service `openapi:<plugin>`. The document
lists routes, not permissions.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import msgspec

from veko import Context, Plugin, PluginRecord
from veko.errors import OptionError, RouteError
from veko.extend import Registry

from ..._lib.regular_files import read_toml
from ..._lib.route_paths import parse_path
from ..exchange import Target
from ..messages.request import Request
from ..messages.response import Response
from ..port import Fragment
from ..route import Route
from ..table import Table
from .fragments import Merger
from .security import secure
from .swagger import MEDIA_TYPES, SCRIPT, find_files, make_page

if TYPE_CHECKING:
    from ..port import Adapter

__all__ = ["OpenAPI"]

_log: Final = logging.getLogger("veko.openapi")
_DAY: Final = "max-age=86400"


class _Built(msgspec.Struct, frozen=True):
    """A document and the table that it describes."""

    table: weakref.ref[Table[Target]]
    body: bytes
    etag: str


class OpenAPI(Plugin):
    """The core plugin `openapi`.

    Args:
        path: The path of the page; the document is `openapi.json` below it.
        directory: The application's directory, whose `pyproject.toml` may have title and version.
        title: The document's title; by default `[project] name`, or the directory's name.
        api_version: The document's version; by default `[project] version`, or `0.0.0`.

    Raises:
        OptionError: The path is not valid, or has parameters.
    """

    name = "openapi"
    version = "2.0.0"
    description = "One OpenAPI document of all active plugins, and a page that shows it."
    core = True

    def __init__(
        self,
        path: str = "/schema",
        directory: Path | None = None,
        *,
        title: str | None = None,
        api_version: str | None = None,
    ) -> None:
        try:
            fixed = not any(segment.converter for segment in parse_path(path))
        except RouteError as error:
            raise OptionError(f"openapi: {error}", remedy=error.remedy) from None
        if not fixed:
            raise OptionError(
                f"openapi: the path {path!r} has parameters", remedy="Use one like '/schema'."
            )
        self._path = path.rstrip("/")
        self._directory = directory or Path.cwd()
        self._title = title
        self._api_version = api_version
        self._files = find_files()
        self._lock = anyio.Lock()
        self._built: _Built | None = None
        self._adapter: Adapter
        self._context: Context

    def load(self, context: Context) -> None:
        """Register the page, the document and, where it is installed, Swagger UI."""
        self._context = context
        self._adapter = context.use("http").adapter
        add_route = context.attached("add_route")
        for path, handler in {
            self._path or "/": self._page,
            f"{self._path}/openapi.json": self._document,
            f"{self._path}/ui.js": self._script,
        }.items():
            add_route("GET", path, handler)
        if self._files is not None:
            for name in MEDIA_TYPES:
                add_route("GET", f"{self._path}/{name}", self._file)

    async def _page(self, request: Request) -> Response:
        info = await anyio.to_thread.run_sync(self._info)
        here = request.scope.get("root_path", "").rstrip("/") + self._path
        page, headers = make_page(info["title"], here, offline=self._files is not None)
        return Response(page, headers=headers, media_type="text/html")

    async def _script(self, request: Request) -> Response:
        del request
        headers = {"cache-control": _DAY, "x-content-type-options": "nosniff"}
        return Response(SCRIPT, headers=headers, media_type="text/javascript")

    async def _file(self, request: Request) -> Response:
        assert self._files is not None
        name = request.path.rstrip("/").rpartition("/")[2]
        data = await anyio.to_thread.run_sync((self._files / name).read_bytes)
        headers = {"cache-control": _DAY, "x-content-type-options": "nosniff"}
        return Response(data, headers=headers, media_type=MEDIA_TYPES[name])

    async def _document(self, request: Request) -> Response:
        built = await self._current()
        body, etag = built.body, built.etag
        if root := request.scope.get("root_path", "").rstrip("/"):
            # The document begins with a brace; the path of the mount is inserted behind it.
            body = b'{"servers":' + msgspec.json.encode([{"url": root}]) + b"," + body[1:]
            etag = _etag(body)
        headers = {"etag": etag, "cache-control": "no-cache"}
        asked = request.headers.get("if-none-match", "")
        if etag in (tag.strip().removeprefix("W/") for tag in asked.split(",")):
            return Response(status=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    async def _current(self) -> _Built:
        """Return the document for the registry that this request pinned."""
        registry = self._context.kernel.registry
        table: Table[Target] = registry.view("route")
        async with self._lock:
            built = self._built
            if built is None or built.table() is not table:
                built = await anyio.to_thread.run_sync(self._build, registry, table)
                self._built = built
        return built

    def _build(self, registry: Registry, table: Table[Target]) -> _Built:
        owners: dict[str, Any] = {}
        for entry in registry.entries("route"):
            if not entry.owner.record.core:
                owners[entry.owner.name] = entry.owner
        routes: dict[str, list[Route]] = {name: [] for name in owners}
        for target in table:
            if target.route.plugin in routes:
                routes[target.route.plugin].append(target.route)
        merger = Merger()
        tags = []
        for name, owner in owners.items():
            found = sorted(routes[name], key=lambda route: (route.path, route.method))
            try:
                fragment = self._adapter.describe(owner.context, found)
                secure(fragment, found)
                count = merger.add(fragment, name, name)
            except Exception as error:
                _log.warning(
                    "the OpenAPI document leaves out the plugin %s, whose routes cannot be "
                    "described: %s: %s", name, type(error).__name__, error,
                )  # fmt: skip
                continue
            if count:
                tags.append(_tag(owner.record))
        self._add_fragments(registry, merger)
        if missing := merger.undeclared():
            _log.warning(
                "the OpenAPI document leaves out the security schemes %s, which no plugin declares",
                ", ".join(sorted(missing)),
            )
        document = {
            "openapi": "3.1.0",
            "info": self._info(),
            "tags": tags,
            "paths": dict(sorted(merger.whole.paths.items())),
            "components": merger.whole.components,
        }
        body = msgspec.json.encode(document, enc_hook=str)
        return _Built(weakref.ref(table), body, _etag(body))

    @staticmethod
    def _add_fragments(registry: Registry, merger: Merger) -> None:
        """Add what core plugins describe themselves: services named `openapi:<plugin>`."""
        for entry in registry.entries("service"):
            prefix, _, name = str(entry.key).partition(":")
            if prefix == "openapi" and name:
                paths, components = entry.value()
                merger.add(Fragment(paths, components), name, name)

    def _info(self) -> dict[str, str]:
        project: object = {}
        try:
            project = read_toml(self._directory / "pyproject.toml").get("project")
        except (OSError, ValueError):
            pass
        project_table = project if isinstance(project, dict) else {}
        info = {
            "title": self._title
            or str(project_table.get("name") or self._directory.name or "Veko"),
            "version": self._api_version or str(project_table.get("version") or "0.0.0"),
        }
        if description := project_table.get("description"):
            info["description"] = str(description)
        return info


def _tag(record: PluginRecord) -> dict[str, Any]:
    manifest = record.manifest
    version = f"Version {manifest.version}"
    tag: dict[str, Any] = {
        "name": record.name,
        "description": f"{manifest.description} ({version.lower()})"
        if manifest.description
        else version,
    }
    if manifest.homepage:
        tag["externalDocs"] = {"url": manifest.homepage}
    return tag


def _etag(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
