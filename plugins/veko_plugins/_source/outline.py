"""What a module says of its plugin, read from its syntax tree: no code of it runs.

A field is told if it is assigned once or more at the top of the module (or in the body of the
module's only `Plugin` subclass), each time a literal. A field bound in any other way (under an
`if`, by an import, computed) makes the whole answer `None`, and the plugin is imported to know.

Cost: one walk over the top-level statements.
Promise: what is told is what `as_plugin` would find; where that is not sure, nothing is told.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from veko import Manifest

from .source import Outline

__all__ = ["FIELDS", "bound_names", "make_outline", "outline_fields"]

FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Manifest)}
# Binding one of these decides which form the plugin has, see `loader.plugin_of`.
_FORMS: Final = frozenset({"plugin", "load", "__getattr__"})


class _Order(msgspec.Struct):
    name: str
    version: str
    dependencies: tuple[str, ...] = ()
    priority: float = 10


_ORDER: Final = _Order.__struct_fields__


def outline_fields(tree: ast.Module) -> dict[str, object] | None:
    """Return the manifest fields that a module spells out, or `None` if that cannot be told."""
    fields: dict[str, object] = {}
    bodies: list[ast.ClassDef] = []
    bases: set[str] = set()
    has_load = False
    if any(_reaches_out(node) for node in ast.walk(tree)):
        return None
    for statement in tree.body:
        if not _take(statement, fields):
            return None
        match statement:
            case ast.FunctionDef(name="load") | ast.AsyncFunctionDef(name="load"):
                has_load = True
            case ast.ImportFrom(module="veko", names=names):
                bases |= {alias.asname or alias.name for alias in names if alias.name == "Plugin"}
            case ast.ClassDef(bases=[ast.Name(id=base)]) if base in bases:
                bodies.append(statement)
            case ast.ClassDef(bases=[ast.Attribute(value=ast.Name(id="veko"), attr="Plugin")]):
                bodies.append(statement)
    if has_load or not bodies:
        return fields
    return _class_fields(bodies[0]) if len(bodies) == 1 and not fields else None


def _class_fields(body: ast.ClassDef) -> dict[str, object] | None:
    fields: dict[str, object] = {}
    if body.decorator_list or body.keywords:
        return None
    for statement in body.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return None  # it may set fields on the instance
        if not _take(statement, fields):
            return None
    return fields


def _reaches_out(node: ast.AST) -> bool:
    """Tell whether a node deep in an expression or function binds a field of the module."""
    match node:
        case ast.Global(names=names):
            return not FIELDS.keys().isdisjoint(names)
        case ast.NamedExpr(target=ast.Name(id=name)):
            return name in FIELDS
    return False


def _take(statement: ast.stmt, fields: dict[str, object]) -> bool:
    """Take the fields of one statement; false if it binds one in a way that cannot be told."""
    value: ast.expr | None
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            if value is None:
                return True
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name not in FIELDS and name not in {"plugin", "__getattr__"}
        case _:
            return not any(
                name in FIELDS or name in _FORMS or name == "*" for name in bound_names(statement)
            )
    if name in _FORMS:
        return False
    if name in FIELDS:
        try:
            fields[name] = ast.literal_eval(value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            if name in _ORDER:
                return False
            # A type as config_schema, say: the order does not need it.
            fields.pop(name, None)
    return True


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield every name that a statement may bind or unbind; too many rather than too few."""
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name


def make_outline(fields: Mapping[str, object] | None, more: Mapping[str, object]) -> Outline | None:
    """Make an outline of what the source and `plugin.toml` say.

    Returns:
        `None` if the source could not tell, or a field that orders plugins is ill-typed: then
        importing the plugin says what is wrong.
    """
    if fields is None:
        return None
    found = {**more, **{key: value for key, value in fields.items() if value is not None}}
    try:
        order = msgspec.convert(found, _Order)
    except msgspec.ValidationError:
        return None
    return Outline(
        name=order.name,
        version=order.version,
        dependencies=order.dependencies,
        priority=order.priority,
        fields=found,
    )
