"""The core plugin `admin`: the service `admin`, and the management API over HTTP.

With the option `enable_api` it serves the API below `/_veko`. Without, it is loaded when something
first asks for it (the control socket of `veko serve`), and costs an application that nobody asks
nothing.
"""

from __future__ import annotations

import functools
import secrets
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec

from veko import Context, Plugin, PluginRecord, VekoError

from .access import COOKIE, Access, Caller
from .api import API
from .audit import Audit
from .dashboard import Dashboard
from .errors import AdminError
from .exchange import PREFIX, Answer, Asked, query_of, segments_of
from .manual import manual
from .mcp import MCP_PATH, MCPEndpoint
from .openapi import fragment_of
from .operations import Operations
from .peers import Peers
from .records import Errors, Logs
from .rows import plugin_service
from .settings import AdminConfig

__all__ = ["Admin"]

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_BODY: Final = 1024 * 1024
_ROOT: Final = "/_veko"
_LOGIN: Final = "/_veko/login"
_LOGOUT: Final = "/_veko/logout"
_DOCS: Final = "/_veko/docs"
_SEND: Final = 'Send {"token": "…"}.'


class _Login(msgspec.Struct):
    token: str


class Admin(Plugin):
    """The core plugin `admin`.

    Args:
        directory: The application's directory.
        serve: Whether the API is served over HTTP.
    """

    name = "admin"
    version = "2.0.0"
    description = "The management API: look at the plugins of a running application, change them."
    config_schema = AdminConfig
    core = True
    apart = True
    """No hook and no middleware of the application stands around its routes."""

    _access: Access
    _response: Any

    def __init__(self, directory: Path = Path(), *, serve: bool = False) -> None:
        self.directory = directory
        self._serves = serve
        self._logs = Logs()

    def load(self, context: Context) -> None:
        """Provide the services, and add the routes.

        Raises:
            OptionError: The token cannot be read or written.
        """
        config = msgspec.convert(context.config, AdminConfig)
        errors = Errors()
        errors.load(context)
        access = Access(config, self.directory) if self._serves else None
        self._operations = Operations(
            context,
            self.directory,
            errors,
            self._logs,
            key=secrets.token_bytes(32) if access is None else access.key,
            peers=Peers(self.directory),
        )
        audit = Audit(self.directory if config.audit else None)
        self._api = API(self._operations, audit)
        context.provide("admin", self._operations)
        context.provide("admin:api", self._api)
        if access is None:
            return
        http = plugin_service(context.kernel, "http")
        if http is None:
            context.log(
                "warning",
                "the management API is not served over HTTP: the option `adapter` is None",
            )
            return
        self._response = http.response
        self._access = access
        context.hook("config:change", functools.partial(self._configured, context))
        context.provide("openapi:admin", self._fragment)
        add_route = context.attached("add_route")
        for method in _METHODS:
            add_route(method, f"{PREFIX}/{{path:path}}", self._answer)
        self._mcp = MCPEndpoint(context, self._api, http.pull)
        http.at_stop |= {self._mcp.end, self._operations.feed.end}
        for method in ("GET", "POST", "DELETE"):
            add_route(method, MCP_PATH, self._answer_agent)
        add_route("GET", f"{_DOCS}/{{page:path}}", self._page)
        add_route("POST", _LOGIN, self._login)
        add_route("POST", _LOGOUT, self._logout)
        Dashboard(self._response).add(add_route)
        http.set_apart(_ROOT, self.name)

    async def unload(self) -> None:
        """Wait for changes that are being done."""
        await self._operations.finish()

    def activate(self) -> None:
        """Keep log records."""
        self._logs.start()

    def deactivate(self) -> None:
        """Keep no more."""
        self._logs.stop()

    def _configured(self, context: Context, config: object, record: PluginRecord) -> None:
        if record.plugin is self:
            self._access = Access(msgspec.convert(context.config, AdminConfig), self.directory)

    def _fragment(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the paths and components for the application's OpenAPI document."""
        return fragment_of(self._api.endpoints)

    # -- over HTTP

    async def _answer(self, request: Any) -> Any:
        headers, client = _headers(request), _client(request)
        try:
            caller = self._access.admit(request.method, headers, client)
        except AdminError as error:
            self._refused(request, error, client)
            return self._made(Answer.refusal(error))
        body = await request.body()
        if len(body) > _BODY:
            return self._made(Answer.refusal(AdminError(413, "the body is too long")))
        asked = Asked(
            method=request.method,
            path=_path(request),
            query=query_of(request.scope.get("query_string", b"").decode("latin-1")),
            headers=headers,
            body=body,
            caller=caller,
        )
        return self._made(await self._api.answer(asked))

    async def _answer_agent(self, request: Any) -> Any:
        headers, client = _headers(request), _client(request)
        try:
            caller = self._access.admit(request.method, headers, client)
            return await self._mcp.answer(request, caller)
        except AdminError as error:
            self._refused(request, error, client)
            return self._made(Answer.refusal(error))

    async def _page(self, request: Any, page: str) -> Any:
        headers, client = _headers(request), _client(request)
        try:
            self._access.admit(request.method, headers, client)
            text = await anyio.to_thread.run_sync(manual().read, page)
        except VekoError as error:
            return self._made(Answer.refusal(error))
        kind = "text/markdown" if page.endswith(".md") else "text/plain"
        return self._made(
            Answer(body=text.encode(), headers={"content-type": f"{kind}; charset=utf-8"})
        )

    async def _login(self, request: Any) -> Any:
        headers, client = _headers(request), _client(request)
        try:
            self._access.check_origin(request.method, headers, client)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise AdminError(415, "the body is not JSON", remedy=_SEND)
            try:
                token = msgspec.json.decode(await request.body(), type=_Login).token
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise AdminError(
                    400, "the body has no token", remedy='Send {"token": "…"}.'
                ) from error
            role = self._access.role_of(token)
            if role is None:
                raise AdminError(401, "the token is not valid", remedy="See .veko/admin-token.")
        except AdminError as error:
            self._refused(request, error, client)
            return self._made(Answer.refusal(error))
        self._api.audit.write(Caller(role, "login", client or ""), "login", "", 200)
        value, seconds = self._access.session(role)
        response = self._made(Answer.of({"role": role}))
        response.set_cookie(
            COOKIE,
            value,
            max_age=seconds,
            path=_cookie_path(request),
            secure=request.scope.get("scheme") == "https",
            samesite="strict",
        )
        return response

    async def _logout(self, request: Any) -> Any:
        try:
            self._access.check_origin(request.method, _headers(request), _client(request))
        except AdminError as error:
            return self._made(Answer.refusal(error))
        response = self._made(Answer.of({}))
        response.set_cookie(
            COOKIE, "", max_age=0, path=_cookie_path(request), secure=False, samesite="strict"
        )
        return response

    def _refused(self, request: Any, error: AdminError, client: str | None) -> None:
        self._api.audit.write(
            None,
            f"{request.method}",
            request.path,
            error.status,
            why=error.message,
            address=client or "",
        )

    def _made(self, answer: Answer) -> Any:
        content = answer.body if answer.stream is None else answer.stream
        return self._response(content, answer.status, answer.headers)


def _headers(request: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _client(request: Any) -> str | None:
    client = request.scope.get("client")
    return str(client[0]) if client else None


def _cookie_path(request: Any) -> str:
    """Return the path that browsers send the cookie to: the prefix, below the mount if any."""
    return f"{request.scope.get('root_path', '').rstrip('/')}{_ROOT}"


def _path(request: Any) -> tuple[str, ...]:
    """Return the segments below the prefix, as they were sent if the server says so."""
    raw = request.scope.get("raw_path")
    text = raw.decode("latin-1") if isinstance(raw, bytes) else request.path
    _, found, rest = text.partition(f"{PREFIX}/")
    if not found:  # the prefix itself was percent-encoded
        rest = request.path.partition(f"{PREFIX}/")[2]
    return segments_of(rest)
