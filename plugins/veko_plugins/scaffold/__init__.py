"""Generates plugins and applications from templates, each with a test that passes."""

from .catalogue import TEMPLATES, Template
from .errors import ScaffoldError
from .generate import (
    Application,
    Plan,
    create_application,
    generate_plugin,
    generate_plugin_now,
    plan_plugin,
)
from .names import check_name

__all__ = [
    "TEMPLATES",
    "Application",
    "Plan",
    "ScaffoldError",
    "Template",
    "check_name",
    "create_application",
    "generate_plugin",
    "generate_plugin_now",
    "plan_plugin",
]
