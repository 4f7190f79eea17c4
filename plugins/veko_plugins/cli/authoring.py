"""The commands for those who write plugins: `veko new`, `init`, `validate`, `test`, `debug`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .completion import complete_plugins
from .parameters import debug_option, debugging, json_option

__all__ = ["TEMPLATES", "debug", "init", "new", "test", "validate"]

TEMPLATES = ["basic", "api", "middleware", "websocket", "database", "auth", "typescript"]
"""Those of `veko_plugins.scaffold`, which is imported when it is used."""


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "-t", "--template", type=click.Choice(TEMPLATES), help="What it starts from.  [default: basic]"
)
@click.option("--description", metavar="TEXT", help="What it does, in one line.")
@click.option("--author", metavar="TEXT", help="Its author.")
@click.option("--license", metavar="TEXT", help="Its license, such as MIT.")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: take the defaults.")
@json_option
@debug_option
def new(
    name: str | None,
    template: str | None,
    description: str | None,
    author: str | None,
    license: str | None,
    directory: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Generate the plugin NAME from a template, with a test that passes.

    Asks for what is missing if there is a terminal. Nothing is ever overwritten.
    """

    from .new import new_plugin

    answers = {"description": description, "author": author, "license": license}
    raise SystemExit(
        new_plugin(
            name, template, directory, answers,
            ask=not (yes or as_json), as_json=as_json, debug=debugging(),
        )
    )  # fmt: skip


@click.command()
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@json_option
@debug_option
def init(directory: Path, as_json: bool) -> None:
    """Create an application in DIR (default: the current folder), which `veko serve` runs.

    It has settings (veko.toml), a plugin and tests. Nothing is ever overwritten.
    """

    from .new import init_application

    raise SystemExit(init_application(directory, as_json=as_json, debug=debugging()))


@click.command()
@click.argument("path", metavar="PATH", shell_complete=complete_plugins)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
@json_option
@debug_option
def validate(path: str, directory: Path | None, strict: bool, as_json: bool) -> None:
    """Check the plugin PATH, a file or a folder, without loading it.

    Checks its manifest, configuration schema, engines, peers and declared hooks. Inside an
    application, PATH may be the plugin's name. The module is imported only if its source does not
    say enough. The exit code is 0 if there are no errors (with --strict: and no warnings), else 1,
    and 2 for wrong usage.
    """

    from .validate import validate_plugin

    raise SystemExit(
        validate_plugin(path, directory, strict=strict, as_json=as_json, debug=debugging())
    )


@click.command()
@click.argument("wanted", metavar="[PATH|NAME]", required=False, shell_complete=complete_plugins)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option(
    "--tier", default="bronze", show_default=True,
    type=click.Choice(["none", "bronze", "silver", "gold", "platinum"]),
    help="The tier that is needed for the exit code 0.",
)  # fmt: skip
@click.option("--no-tests", is_flag=True, help="Check the contract only.")
@click.option(
    "--simulate", default=0, type=click.IntRange(0, 1_000_000), metavar="RUNS",
    help="Simulate the plugin's life in so many orders of its tasks.",
)  # fmt: skip
@click.option("--seed", metavar="SEED", help="Only repeat the simulated run that a failure shows.")
@json_option
@debug_option
def test(
    wanted: str | None,
    directory: Path | None,
    tier: str,
    no_tests: bool,
    simulate: int,
    seed: str | None,
    as_json: bool,
) -> None:
    """Test the plugin PATH or NAME: its own tests, and the contract that every plugin should keep.

    Without PATH or NAME, test all plugins of the application. The plugin is loaded, unloaded,
    reloaded, switched off and on, given wrong configurations and malformed requests, with an empty
    storage in memory, and graded: bronze, silver, gold, platinum. The exit code is 0 if its own
    tests pass, it has the tier and no simulated run fails, 1 if not, and 2 for wrong usage.
    """

    from .test import test_plugins

    raise SystemExit(
        test_plugins(
            wanted, directory, tier=tier, own_tests=not no_tests, simulate=simulate, seed=seed,
            as_json=as_json, debug=debugging(),
        )
    )  # fmt: skip


@click.command()
@click.argument("name", metavar="NAME", shell_complete=complete_plugins)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option("-c", "code", metavar="CODE", help="Run this code, and leave.")
@click.option(
    "--process", type=int, metavar="PID", help="The process, if several run the application."
)
@debug_option
def debug(name: str, directory: Path | None, code: str | None, process: int | None) -> None:
    """Open a Python console in the running application, with the plugin NAME at hand.

    The code runs in the application's event loop, and may `await`. It has manager, plugin, context,
    config, hooks, module and debug. The application must run with --dev; if none runs, it is
    loaded here, without being served. Without a terminal, the code is read from standard input.
    """
    from .debug import debug_plugin

    raise SystemExit(debug_plugin(name, directory, code=code, process=process, debug=debugging()))
