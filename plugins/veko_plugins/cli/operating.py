"""The commands that ask the running application, over its control socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from .completion import complete_plugins
from .parameters import debug_option, debugging, directory_argument, directory_option, json_option

if TYPE_CHECKING:
    from veko_plugins.admin import Intent

__all__ = ["COMMANDS"]

_plugin = click.argument("name", metavar="NAME", shell_complete=complete_plugins)
_plan = click.option("--plan", is_flag=True, help="Only say what would happen.")
_cascade = click.option(
    "--cascade", is_flag=True, help="Also the plugins that need it, instead of refusing."
)


@click.command()
@directory_argument
@json_option
@debug_option
def status(directory: Path | None, as_json: bool) -> None:
    """Show the state of the application that is being served from DIR.

    The exit code is 0 if it runs, and 3 if not.
    """
    from .status import show_status

    raise SystemExit(show_status(directory, as_json=as_json, debug=debugging()))


@click.command()
@click.argument("plugin", metavar="PLUGIN", shell_complete=complete_plugins)
@click.option("--config", metavar="JSON", help="Its configuration, over that of the settings.")
@directory_option
@_plan
@json_option
@debug_option
def load(
    plugin: str, config: str | None, directory: Path | None, plan: bool, as_json: bool
) -> None:
    """Load PLUGIN, a name or a path, into the running application."""
    from veko_plugins.admin import Load

    given = {} if config is None else _value_of(config)
    if not isinstance(given, dict):
        raise click.BadParameter("expected a JSON object", param_hint="--config")
    _change(directory, Load(_place_of(plugin), given), plan=plan, as_json=as_json)


@click.command()
@_plugin
@_cascade
@directory_option
@_plan
@json_option
@debug_option
def unload(name: str, cascade: bool, directory: Path | None, plan: bool, as_json: bool) -> None:
    """Unload the plugin NAME of the running application, for good: it stays out after a restart."""
    from veko_plugins.admin import Unload

    _change(directory, Unload(name, cascade), plan=plan, as_json=as_json)


@click.command()
@_plugin
@directory_option
@_plan
@json_option
@debug_option
def reload(name: str, directory: Path | None, plan: bool, as_json: bool) -> None:
    """Load the code of the plugin NAME again; if that fails, the old one keeps running."""
    from veko_plugins.admin import Reload

    _change(directory, Reload(name), plan=plan, as_json=as_json)


@click.command()
@_plugin
@click.option("--on/--off", "active", default=None, help="On or off; else the opposite.")
@_cascade
@directory_option
@_plan
@json_option
@debug_option
def toggle(
    name: str,
    active: bool | None,
    cascade: bool,
    directory: Path | None,
    plan: bool,
    as_json: bool,
) -> None:
    """Switch the plugin NAME of the running application off or on; it stays so over restarts."""
    from veko_plugins.admin import Toggle

    _change(directory, Toggle(name, active, cascade), plan=plan, as_json=as_json)


@click.command()
@_plugin
@click.argument("path", metavar="[PATH]", required=False)
@click.argument("value", metavar="[VALUE]", required=False)
@click.option("--delete", is_flag=True, help="Remove what is at PATH: the default counts again.")
@click.option("--reload", is_flag=True, help="Reload the plugin then: it reads this when it loads.")
@directory_option
@_plan
@json_option
@debug_option
def config(
    name: str,
    path: str | None,
    value: str | None,
    delete: bool,
    reload: bool,
    directory: Path | None,
    plan: bool,
    as_json: bool,
) -> None:
    """Show the configuration of the plugin NAME, or set the part at PATH to VALUE.

    PATH has dots between names: `smtp.host`; a single dot is the whole. VALUE is JSON, or else text
    as it stands. Secrets are not shown. What is set lasts over restarts.
    """
    from veko_plugins.admin import Configure

    from .changing import show_config

    whole = path in (None, ".")
    steps = () if path is None or whole else tuple(path.split("."))
    if delete and (value is not None or whole):
        raise click.UsageError("--delete takes a PATH and no VALUE")
    if value is None and not delete:
        raise SystemExit(show_config(directory, name, steps, debug=debugging()))
    if value is None:
        intent = Configure(name, steps, "delete", reload=reload)
    else:
        intent = Configure(name, steps, "put", _value_of(value), reload=reload)
    _change(directory, intent, plan=plan, as_json=as_json)


@click.command()
@directory_argument
@json_option
@debug_option
def changes(directory: Path | None, as_json: bool) -> None:
    """List what was changed in the running application, and what can be taken back."""
    from .changing import show_changes

    raise SystemExit(show_changes(directory, as_json=as_json, debug=debugging()))


@click.command()
@click.argument("id_", metavar="[ID]", required=False)
@directory_option
@_plan
@json_option
@debug_option
def undo(id_: str | None, directory: Path | None, plan: bool, as_json: bool) -> None:
    """Take the change ID back, or the last one; `veko changes` lists them."""
    from .changing import undo as take_back

    raise SystemExit(take_back(directory, id_, plan=plan, as_json=as_json, debug=debugging()))


@click.command()
@directory_argument
@click.option("-f", "--follow", is_flag=True, help="Continue with what is logged from now on.")
@click.option(
    "--level", type=click.Choice(["debug", "info", "success", "warning", "error", "critical"]),
    help="Only this level and above.",
)  # fmt: skip
@click.option(
    "--plugin", metavar="NAME", shell_complete=complete_plugins, help="Only what is about it."
)
@click.option(
    "-n", "--count", default=50, show_default=True, type=click.IntRange(0, 1000),
    help="How many of the last records.",
)  # fmt: skip
@json_option
@debug_option
def logs(
    directory: Path | None,
    follow: bool,
    level: str | None,
    plugin: str | None,
    count: int,
    as_json: bool,
) -> None:
    """Show the last log records of the application that is being served from DIR.

    They are kept from the first time on that something asks the application: `veko logs`,
    `veko status`, the management API.
    """
    from .logs import show_logs

    raise SystemExit(
        show_logs(
            directory, follow=follow, level=level, plugin=plugin, count=count, as_json=as_json,
            debug=debugging(),
        )
    )  # fmt: skip


@click.command()
@directory_argument
@click.option(
    "--interval", default=2.0, show_default=True, type=click.FloatRange(0.2, 60),
    help="Seconds between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Show one snapshot and end; so does a pipe.")
@json_option
@debug_option
def top(directory: Path | None, interval: float, once: bool, as_json: bool) -> None:
    """Show the slowest plugins and hooks of the running application, and failed requests, live.

    Ctrl+C ends it. Failed requests are shown if traces are kept (`keep` in [plugins.tracing]).
    """
    from .top import show_top

    raise SystemExit(
        show_top(directory, interval=interval, once=once, as_json=as_json, debug=debugging())
    )


def _change(directory: Path | None, intent: Intent, *, plan: bool, as_json: bool) -> None:
    from .changing import change

    raise SystemExit(change(directory, intent, plan=plan, as_json=as_json, debug=debugging()))


def _value_of(text: str) -> Any:
    """Return a value as it was written on a command line: JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _place_of(plugin: str) -> str:
    """Return an absolute path for one: the application has another working directory."""
    path = Path(plugin)
    is_path = len(path.parts) > 1 or path.suffix in (".py", ".js", ".ts")
    return str(path.absolute()) if is_path else plugin


COMMANDS: Final = (status, load, unload, reload, toggle, config, changes, undo, logs, top)
