"""The reference pages name everything public of the classes that they describe."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import (
    HTTPError,
    LoadReport,
    PluginHealth,
    PluginInfo,
    PluginManager,
    PluginMetrics,
    Request,
    Response,
    RestoreReport,
    Route,
    StateReport,
    Stats,
)
from veko_plugins.http import Address, Fault, Fields, FileResponse, Headers, Upload

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
# Used by adapters and core plugins.
INTERNAL = {
    Request: {"forget", "keep", "kept", "label", "left", "lend", "read", "receive",
              "refused", "source", "take", "unwrap", "wrap"},
    Response: {"of", "received", "silent", "start", "whole", "content"},
    FileResponse: {"of", "received", "silent", "start", "whole", "content"},
    Fields: {"of", "get"},
    Headers: {"of"},
    Fault: {"of", "at", "message", "path"},
}  # fmt: skip


def public(cls: type) -> set[str]:
    """Return the names of a class, of its fields, and of the attributes that it documents."""
    ours = [one for one in cls.__mro__ if one.__module__.startswith("veko")]
    names = {name for one in ours for name in (*vars(one), *inspect.get_annotations(one))}
    attributes = inspect.getdoc(cls) or ""
    _, _, attributes = attributes.partition("Attributes:")
    attributes = attributes.partition("Raises:")[0]
    names |= set(re.findall(r"^ {4}(\w+): ", attributes, re.MULTILINE))
    return {name for name in names if not name.startswith("_")}


def written(page: str) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", (REFERENCE / page).read_text("utf-8"), flags=re.M | re.S)
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", code)}


@pytest.mark.parametrize(
    "cls",
    [Request, Response, FileResponse, Upload, HTTPError, Route, Fault, Fields, Headers, Address],
)
def test_the_page_of_requests_and_responses_is_complete(cls: type[Any]) -> None:
    assert public(cls) - INTERNAL.get(cls, set()) - written("http.md") == set()


@pytest.mark.parametrize(
    "cls",
    [
        PluginManager, PluginInfo, PluginHealth, PluginMetrics, Stats, LoadReport, StateReport,
        RestoreReport,
    ],
)  # fmt: skip
def test_the_page_of_the_manager_is_complete(cls: type[Any]) -> None:
    assert public(cls) - written("manager.md") == set()


@pytest.mark.parametrize("verb", ["set_cookie"])
def test_arguments_of_verbs_are_named(verb: str) -> None:
    parameters = inspect.signature(getattr(Response, verb)).parameters
    assert set(parameters) - {"self"} - written("http.md") == set()
