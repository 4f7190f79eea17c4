"""Management: the service `admin`, the management API, its client and its control socket."""

from .access import COOKIE, Access, Caller
from .api import API
from .client import AdminClient
from .control import ControlSocket
from .documents import (
    BackupRow,
    Change,
    Coming,
    CommandAnswer,
    CommandRow,
    ConfigView,
    ErrorRow,
    EventRow,
    Fault,
    Graph,
    GraphEdge,
    GraphNode,
    HealthRow,
    HookRow,
    LogRow,
    OutageRow,
    Permissions,
    Plan,
    PluginDetails,
    PluginRow,
    Problem,
    Restored,
    Role,
    RouteRow,
    SpanRow,
    StartupStep,
    Status,
    Touched,
    Trace,
    TraceRow,
)
from .errors import AdminError
from .exchange import PREFIX, Answer, Asked
from .mcp import serve_mcp
from .operations import Operations
from .plugin import Admin
from .settings import AdminConfig
from .tokens import TOKEN_FILE, admin_token

__all__ = [
    "API",
    "COOKIE",
    "PREFIX",
    "TOKEN_FILE",
    "Access",
    "Admin",
    "AdminClient",
    "AdminConfig",
    "AdminError",
    "Answer",
    "Asked",
    "BackupRow",
    "Caller",
    "Change",
    "Coming",
    "CommandAnswer",
    "CommandRow",
    "ConfigView",
    "ControlSocket",
    "ErrorRow",
    "EventRow",
    "Fault",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "HealthRow",
    "HookRow",
    "LogRow",
    "Operations",
    "OutageRow",
    "Permissions",
    "Plan",
    "PluginDetails",
    "PluginRow",
    "Problem",
    "Restored",
    "Role",
    "RouteRow",
    "SpanRow",
    "StartupStep",
    "Status",
    "Touched",
    "Trace",
    "TraceRow",
    "admin_token",
    "serve_mcp",
]
