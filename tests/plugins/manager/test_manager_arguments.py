"""The typed arguments of `PluginManager` are the options: the same names, and types that fit."""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from veko_plugins import Options, PluginManager
from veko_plugins.manager.arguments import ManagerOptions

NOT_ARGUMENTS = {"directory", "origins", "sections", "warnings", "ignored"}
"""Fields of `Options` that say where the others came from, and what was found there."""
WIDER = {
    "plugins_dir": str | Path | Sequence[str | Path],
    "watch_ignore": Sequence[str],
    "required": Sequence[str],
    "plugins": Mapping[str, Mapping[str, Any]],
}
"""Types that callers write where `Options` holds what was made of it."""
OPEN = {"adapter", "core"}
"""`Options` takes any value; the arguments say which ones work."""
FIELDS = {
    field.name: field
    for field in msgspec.structs.fields(Options)
    if field.name not in NOT_ARGUMENTS
}
ARGUMENTS = typing.get_type_hints(ManagerOptions)


def test_O_arguments_have_the_names_of_the_options() -> None:
    assert ARGUMENTS.keys() == FIELDS.keys()
    assert not ManagerOptions.__required_keys__


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - OPEN))
def test_O_arguments_have_the_types_of_the_options(name: str) -> None:
    expected = WIDER[name] if name in WIDER else _plain(FIELDS[name].type)
    assert ARGUMENTS[name] == expected


def test_O_the_manager_is_typed_by_the_arguments() -> None:
    options = inspect.signature(PluginManager).parameters["options"]
    assert options.kind is inspect.Parameter.VAR_KEYWORD
    assert options.annotation == "Unpack[ManagerOptions]"


@pytest.mark.parametrize("value", ["asgi", None])
def test_O_open_arguments_take_what_their_types_say(value: Any) -> None:
    read = Options.read(arguments={"adapter": value, "core": {"storage": value}}, environ={})
    assert (read.adapter, read.core) == (value, {"storage": value})


def _plain(annotation: Any) -> Any:
    """Return a type without the limits that `Options` adds to it."""
    if typing.get_origin(annotation) is typing.Annotated:
        return typing.get_args(annotation)[0]
    assert not isinstance(annotation, types.GenericAlias), f"add a wider type for {annotation}"
    return annotation
