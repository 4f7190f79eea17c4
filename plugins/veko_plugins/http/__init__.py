"""HTTP: the routing table, middleware, requests and responses, and the port for adapters."""

from .dispatch import Dispatcher, lifespan
from .exchange import pulled, scope_for
from .messages.files import FileResponse
from .messages.forms import Fields, Upload
from .messages.headers import Headers
from .messages.problem import Fault, HTTPError, Problem
from .messages.request import MAX_BODY, REQUEST, SOCKET, Address, Receive, Request, Route, Scope
from .messages.response import Response
from .middleware import CallNext, Middleware
from .openapi.fragments import METHODS, Fragment, Merger
from .openapi.plugin import OpenAPI
from .plugin import HTTP, Routes
from .port import ASGI, Adapter, Answering, ASGISend, Endpoint, Starting, find_adapter
from .sockets.websocket import SocketClosed, WebSocket
from .table import Found, Table, Taken, parse_path

__all__ = [
    "ASGI",
    "HTTP",
    "MAX_BODY",
    "METHODS",
    "REQUEST",
    "SOCKET",
    "ASGISend",
    "Adapter",
    "Address",
    "Answering",
    "CallNext",
    "Dispatcher",
    "Endpoint",
    "Fault",
    "Fields",
    "FileResponse",
    "Found",
    "Fragment",
    "HTTPError",
    "Headers",
    "Merger",
    "Middleware",
    "OpenAPI",
    "Problem",
    "Receive",
    "Request",
    "Response",
    "Route",
    "Routes",
    "Scope",
    "SocketClosed",
    "Starting",
    "Table",
    "Taken",
    "Upload",
    "WebSocket",
    "find_adapter",
    "lifespan",
    "parse_path",
    "pulled",
    "scope_for",
]
