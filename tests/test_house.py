"""The house: which rooms there are, and that import-linter's contracts name each of them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import grimp
import pytest

import veko
import veko_plugins

KERNEL, PLUGINS = Path(veko.__file__).parent, Path(veko_plugins.__file__).parent
NOT_CORE = {"cli", "context", "manager", "options", "reports"}
LONGEST = 430
PROJECT: dict[str, Any] = tomllib.loads(
    Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8")
)
CONTRACTS: dict[str, Any] = {
    contract["id"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]
}


def core_plugins() -> set[str]:
    """The core plugins: every file or folder of `veko_plugins` that is none of the others."""
    names = {
        path.stem
        for path in PLUGINS.iterdir()
        if path.suffix == ".py" or path.joinpath("__init__.py").is_file()
    }
    return {name for name in names if not name.startswith("_")} - NOT_CORE


def test_no_core_plugin_is_left_out_of_the_independence_contract() -> None:
    layers = CONTRACTS["rooms"]["layers"]
    listed = {name for layer in layers for name in re.split(r"\s*\|\s*", layer)}
    assert core_plugins() <= listed
    independent = next(layer for layer in layers if "|" in layer and "http" in layer)
    assert set(re.split(r"\s*\|\s*", independent)) == core_plugins()


def test_no_room_is_left_out_of_the_contract_on_faces() -> None:
    rooms = {name for name in core_plugins() if PLUGINS.joinpath(name).is_dir()}
    assert set(CONTRACTS["faces"]["forbidden_modules"]) == {f"veko_plugins.{r}.*" for r in rooms}


def test_a_core_plugin_is_a_file_or_folder_of_its_own_name() -> None:
    private = {path.name for path in PLUGINS.glob("_*") if path.name != "__pycache__"}
    assert private == {"__init__.py", "_lib", "_saved", "_source"}


def test_no_file_of_the_kernel_is_too_long_for_one_sitting() -> None:
    lengths = {
        str(path.relative_to(KERNEL)): path.read_text("utf-8").count("\n")
        for path in KERNEL.rglob("*.py")
    }
    assert {name: count for name, count in lengths.items() if count > LONGEST} == {}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    graph = grimp.build_graph("veko", "veko_plugins", "veko_adapters")
    # The one type that is needed upward: `context.kernel`, taken from the face for checkers alone.
    graph.remove_import(importer="veko._life.context", imported="veko")
    return graph


def test_no_module_imports_itself_by_a_detour(graph: grimp.ImportGraph) -> None:
    circles = {
        module
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if graph.chain_exists(importer=imported, imported=module)
    }
    assert circles == set()


def test_what_is_shared_has_two_users_at_least(graph: grimp.ImportGraph) -> None:
    def room(module: str) -> str:
        return ".".join(module.split(".")[:2])

    alone = {}
    # OpenTelemetry loads one of them by its entry point, before a core plugin may be imported.
    loaded_from_outside = {
        name.partition(":")[0]
        for group in PROJECT["project"]["entry-points"].values()
        for name in group.values()
    }
    for shared in ("_lib", "_saved", "_source"):
        for module in graph.find_children(f"veko_plugins.{shared}"):
            users = _rooms_above(graph, module, room)
            if len(users) < 2 and module not in loaded_from_outside:
                alone[module] = users
    assert alone == {}


def _rooms_above(graph: grimp.ImportGraph, module: str, room: Any) -> set[str]:
    """The rooms that use a shared module, also through other files of the shared rooms."""
    found: set[str] = set()
    pending, seen = [module], {module}
    while pending:
        for importer in graph.find_modules_that_directly_import(pending.pop()):
            if importer in seen:
                continue
            seen.add(importer)
            if room(importer).rpartition(".")[2].startswith("_"):
                pending.append(importer)
            else:
                found.add(room(importer))
    return found
