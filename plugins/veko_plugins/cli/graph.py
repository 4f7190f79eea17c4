"""`veko routes` and `veko graph`: what answers which path, and which plugin needs which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import rich_click as click

from veko_plugins.admin import AdminClient
from veko_plugins.manager import PluginManager

from .listing import with_application
from .printing import print_json, print_table
from .runner import Stop
from .running import ask_if_running

__all__ = ["Shape", "show_graph", "show_routes"]

Shape = Literal["text", "mermaid", "dot", "json"]


class RouteRow(msgspec.Struct, frozen=True):
    """A route as `veko routes` shows it."""

    method: str
    path: str
    plugin: str


class PluginNode(msgspec.Struct, frozen=True):
    """A plugin as `veko graph` shows it.

    Attributes:
        name: Its name.
        needs: The plugins that it names in `dependencies`.
        problem: Why it is not loaded; `None` if it is.
    """

    name: str
    needs: tuple[str, ...]
    problem: str | None = None


def show_routes(directory: Path | None, *, as_json: bool, debug: bool) -> int:
    """List the routes of an application; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show_running(client: AdminClient, _: Stop) -> None:
        found = await client.routes(core=True)
        show_rows([RouteRow(one.method, one.path, one.plugin) for one in found])

    async def show(manager: PluginManager) -> None:
        http = manager.use("http")
        show_rows(
            [
                RouteRow(method, path, plugin.name)
                for plugin in (*manager.list_plugins(core=True), *manager.list_plugins())
                for method, _, path in (route.partition(" ") for route in http.routes(plugin.name))
            ]
        )

    def show_rows(rows: list[RouteRow]) -> None:
        rows.sort(key=lambda row: (row.path, row.method))
        if as_json:
            print_json(rows)
        elif not rows:
            click.echo("no routes")
        else:
            print_table([("METHOD", "PATH", "PLUGIN"), *map(msgspec.structs.astuple, rows)])

    code = ask_if_running(directory, show_running, debug=debug)
    return with_application(directory, show, debug=debug) if code is None else code


def show_graph(directory: Path | None, *, shape: Shape, debug: bool) -> int:
    """Show which plugin of an application needs which; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        shape: Text, a diagram for Mermaid or Graphviz, or JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show_running(client: AdminClient, _: Stop) -> None:
        rows = await client.plugins()
        known = {
            one.name: PluginNode(
                one.name, one.dependencies, None if one.loaded else one.error or f"is {one.state}"
            )
            for one in rows
        }
        show_nodes(_with_missing(known))

    async def show(manager: PluginManager) -> None:
        show_nodes(_nodes(manager))

    def show_nodes(nodes: list[PluginNode]) -> None:
        if shape == "json":
            print_json(nodes)
            return
        lines = {"text": _text, "mermaid": _mermaid, "dot": _dot}[shape](nodes)
        click.echo("\n".join(lines) or "no plugins")

    code = ask_if_running(directory, show_running, debug=debug)
    return with_application(directory, show, debug=debug) if code is None else code


def _nodes(manager: PluginManager) -> list[PluginNode]:
    report = manager.report
    nodes = {info.name: PluginNode(info.name, info.dependencies) for info in manager.list_plugins()}
    for problems in (report.failed, report.skipped, report.off):
        for name, why in problems.items():
            needs = nodes[name].needs if name in nodes else ()
            nodes[name] = PluginNode(name, needs, str(why))
    return _with_missing(nodes)


def _with_missing(nodes: dict[str, PluginNode]) -> list[PluginNode]:
    """Return the plugins by name, with those that are needed and not there."""
    for needed in sorted({need for node in nodes.values() for need in node.needs} - set(nodes)):
        nodes[needed] = PluginNode(needed, (), "is not here")
    return [nodes[name] for name in sorted(nodes)]


def _text(nodes: Sequence[PluginNode]) -> Iterator[str]:
    width = max((len(node.name) for node in nodes), default=0)
    for node in nodes:
        needs = f"needs {', '.join(node.needs)}" if node.needs else ""
        problem = f"not loaded: {node.problem}" if node.problem else ""
        notes = "; ".join(note for note in (needs, problem) if note)
        yield f"{node.name.ljust(width)}  {notes}".rstrip()


def _mermaid(nodes: Sequence[PluginNode]) -> Iterator[str]:
    ids = {node.name: f"p{index}" for index, node in enumerate(nodes)}
    yield "graph TD"
    for node in nodes:
        yield f'    {ids[node.name]}["{node.name}{" (not loaded)" if node.problem else ""}"]'
    for node in nodes:
        for need in node.needs:
            yield f"    {ids[node.name]} --> {ids[need]}"


def _dot(nodes: Sequence[PluginNode]) -> Iterator[str]:
    yield "digraph plugins {"
    for node in nodes:
        yield f'    "{node.name}"{" [style=dashed]" if node.problem else ""};'
    for node in nodes:
        for need in node.needs:
            yield f'    "{node.name}" -> "{need}";'
    yield "}"
