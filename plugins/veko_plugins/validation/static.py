"""A plugin made from its source alone, so that it can be checked without running it.

If the manifest is spelled out (see `outline`) and the life-cycle functions are plain `def`s, empty
functions with the same parameters replace them.

Promise: the result, or the error, is the same that importing the plugin would give, as far as its
manifest goes; if that is not certain, the result is `None`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from veko import Plugin

from .._lib.manifests import FIELDS, checked_plugin
from .._source.outline import bound_names, outline_fields

__all__ = ["static_plugin"]

_STEPS: Final = frozenset(
    {"load", "unload", "activate", "deactivate", "export_state", "import_state"}
)


def static_plugin(source: bytes, path: Path, more: Mapping[str, object]) -> Plugin | None:
    """Return the plugin that a source describes, with empty functions.

    Args:
        source: The text of the module.
        path: Its file.
        more: Manifest fields that the source may leave out (from `plugin.toml`).

    Returns:
        The plugin, or `None` if only importing it can tell.

    Raises:
        ManifestError: The plugin is invalid, whatever importing it adds; all faults are listed.
        SyntaxError, ValueError: The source is not valid Python.
    """
    tree = ast.parse(source, path)
    fields = outline_fields(tree)
    body = _body(tree)
    if fields is None or body is None:
        return None
    steps: dict[str, Callable[..., object]] = {}
    hidden = False
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name in _STEPS:
                if statement.decorator_list or name in steps:
                    return None
                steps[name] = _stub(statement, method=body is not tree.body)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                pass
            case _:
                names = set(bound_names(statement))
                if not names.isdisjoint(_STEPS):
                    return None
                hidden = hidden or any(name in FIELDS and name not in fields for name in names)
    spelled = {key: value for key, value in fields.items() if value is not None}
    plugin = checked_plugin({**more, **spelled, **steps}, source=path)
    return None if hidden else plugin


def _body(tree: ast.Module) -> list[ast.stmt] | None:
    """Return the statements of the plugin: the module's, or those of its only class."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    if any(isinstance(one, functions) and one.name == "load" for one in tree.body):
        return tree.body
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef)]
    if not classes:
        imports = any(isinstance(one, ast.Import | ast.ImportFrom) for one in tree.body)
        return None if imports and not _names_itself(tree) else tree.body
    if len(classes) > 1 or len(classes[0].bases) != 1:
        return None  # only the import knows which of them is the plugin, and what it inherits
    base = classes[0].bases[0]
    names = {
        alias.asname or alias.name
        for one in tree.body
        if isinstance(one, ast.ImportFrom) and one.module == "veko"
        for alias in one.names
        if alias.name == "Plugin"
    }
    known = isinstance(base, ast.Name) and base.id in names
    return classes[0].body if known or ast.unparse(base) == "veko.Plugin" else None


def _names_itself(tree: ast.Module) -> bool:
    return any("name" in bound_names(statement) for statement in tree.body)


def _stub(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> Callable[..., object]:
    """Return a function with the same parameters that does nothing."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    first = positional[:1] if method else []
    nothing = ast.Constant(None)

    def bare(arguments: list[ast.arg]) -> list[ast.arg]:
        return [ast.arg(one.arg) for one in arguments if one not in first]

    defaults: list[ast.expr] = [nothing for _ in given.defaults]
    arguments = ast.arguments(
        posonlyargs=bare(given.posonlyargs),
        args=bare(given.args),
        vararg=given.vararg and ast.arg(given.vararg.arg),
        kwonlyargs=bare(given.kwonlyargs),
        kw_defaults=[None if one is None else nothing for one in given.kw_defaults],
        kwarg=given.kwarg and ast.arg(given.kwarg.arg),
        defaults=defaults[: len(positional) - len(first)],
    )
    tree = ast.Expression(ast.Lambda(arguments, nothing))
    code = compile(ast.fix_missing_locations(tree), f"<{node.name}>", "eval")
    stub: Callable[..., object] = eval(code, {})
    return stub
