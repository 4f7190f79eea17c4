"""HTTP: the routing table, middleware, requests and responses, and the port for adapters."""

from .dispatch import Dispatcher, lifespan
from .exchange import pulled, scope_for
from .files import FileResponse
from .forms import Fields, Upload
from .fragments import METHODS, Fragment, Merger
from .headers import Headers
from .messages import MAX_BODY, REQUEST, SOCKET, Address, Receive, Request, Route, Scope
from .middleware import CallNext, Middleware
from .openapi import OpenAPI
from .plugin import HTTP, Routes
from .port import ASGI, Adapter, Answering, ASGISend, Endpoint, Starting, find_adapter
from .problem import Fault, HTTPError, Problem
from .response import Response
from .table import Found, Table, Taken, parse_path
from .websocket import SocketClosed, WebSocket

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
