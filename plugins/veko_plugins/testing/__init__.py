"""Testing plugins: `test_plugin`, the contract of `veko test`, and what the fixtures stand on.

The fixtures are in `veko_pytest`, beside the packages, so that pytest imports nothing of Veko until
a test asks for one.
"""

from .asgi import Closed, WebSocket, request
from .contract import Contract
from .plugin import Testing
from .pytest_runs import own_tests
from .results import Check, Grade, TestResults, Tier
from .simulation import PluginLife

__all__ = [
    "Check",
    "Closed",
    "Contract",
    "Grade",
    "PluginLife",
    "TestResults",
    "Testing",
    "Tier",
    "WebSocket",
    "own_tests",
    "request",
]
