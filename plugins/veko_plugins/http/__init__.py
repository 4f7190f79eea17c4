"""HTTP: the core plugin `routes`, and `openapi` beside it; this module is their face.

Plugins and adapters import from here, never from the files behind it.
"""

from .._lib.route_paths import parse_path
from .current import CurrentASGI
from .dispatch import Dispatcher, lifespan, problem
from .events import Signals
from .exchange import Exchange, Target, pull_response, scope_for
from .messages.asgi import ASGI, EXCHANGE, REQUEST, ROUTE, ASGISend, Receive, Scope, path_of
from .messages.connection import Address
from .messages.faults import MAX_FAULTS, Fault, body_faults
from .messages.files import CHUNK, FileResponse
from .messages.forms import Fields, Upload
from .messages.headers import Headers
from .messages.problem import HTTPError, Problem
from .messages.request import MAX_BODY, Request
from .messages.response import Response
from .middleware import Middleware, as_middleware, compose
from .openapi.fragments import METHODS, Merger
from .openapi.plugin import OpenAPI
from .plugin import Routes
from .port import Adapter, Answering, CallNext, Endpoint, Fragment, Starting, find_adapter
from .route import SOCKET, Route
from .service import HTTP
from .sockets.exchange import SocketExchange
from .sockets.websocket import SocketClosed, WebSocket
from .table import Found, Table, Taken

__all__ = [
    "ASGI",
    "CHUNK",
    "EXCHANGE",
    "HTTP",
    "MAX_BODY",
    "MAX_FAULTS",
    "METHODS",
    "REQUEST",
    "ROUTE",
    "SOCKET",
    "ASGISend",
    "Adapter",
    "Address",
    "Answering",
    "CallNext",
    "CurrentASGI",
    "Dispatcher",
    "Endpoint",
    "Exchange",
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
    "Signals",
    "SocketClosed",
    "SocketExchange",
    "Starting",
    "Table",
    "Taken",
    "Target",
    "Upload",
    "WebSocket",
    "as_middleware",
    "body_faults",
    "compose",
    "find_adapter",
    "lifespan",
    "parse_path",
    "path_of",
    "problem",
    "pull_response",
    "scope_for",
]
