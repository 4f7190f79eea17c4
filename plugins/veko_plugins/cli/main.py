"""The commands of `veko`, with their options and help.

A command imports what it does when it runs: help, completion and `--version` load no plugin
manager (`tests/cli/test_start.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from veko import __version__

from .agents import mcp
from .authoring import debug, init, new, test, validate
from .completion import complete_adapters, complete_commands, complete_plugins, completion
from .database import database
from .doctor import doctor
from .examples import Commands
from .operating import COMMANDS as OPERATING
from .parameters import debug_option, debugging, directory_argument, json_option
from .recordings import COMMANDS as RECORDINGS

if TYPE_CHECKING:
    from .graph import Shape

__all__ = ["LEVELS", "veko"]

LEVELS = ["debug", "info", "success", "warning", "error"]
"""Those of `veko_plugins.logging`."""

_EPILOG = """
Exit codes: 0 success, 1 failure, 2 wrong usage; `veko run` gives that of the plugin's command.

Completion: eval "$(veko completion bash)" in ~/.bashrc; also zsh and fish.
"""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(
    __version__, "-V", "--version", prog_name="veko", message="%(prog)s %(version)s"
)
@debug_option
def veko() -> None:
    """Serve and inspect applications made of plugins.

    An application is a folder DIR with a folder `plugins/` and, optionally, a `veko.toml`.
    """


@veko.command()
@directory_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port to listen on; 0 for any free one.",
)
@click.option(
    "--adapter", metavar="NAME", shell_complete=complete_adapters,
    help="The HTTP adapter: litestar, starlette, asgi.",
)  # fmt: skip
@click.option(
    "--server", default="uvicorn", show_default=True, type=click.Choice(["uvicorn", "granian"]),
    help="The HTTP server.",
)  # fmt: skip
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 256), metavar="N",
    help="Processes that serve; more than one needs a shared storage, or no storage.",
)  # fmt: skip
@click.option(
    "--dev",
    is_flag=True,
    help="Development mode: plugins reload when their files change; errors are detailed.",
)
@click.option(
    "--log-level", type=click.Choice(LEVELS),
    help="The lowest level that is logged; `info` if [plugins.logging] says nothing else.",
)  # fmt: skip
@click.option(
    "--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Also log to this file."
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]),
    help="Log lines of text (the default) or JSON objects, one a line.",
)  # fmt: skip
@click.option(
    "--locked",
    is_flag=True,
    help="Refuse plugins whose files or permissions are not those in veko.lock.",
)
@click.option(
    "--learn", is_flag=True,
    help="Let confined plugins do everything, and say which permissions they need.",
)  # fmt: skip
@click.option(
    "--write", is_flag=True,
    help="With --learn: put them into package.json and plugin.toml at the end.",
)  # fmt: skip
@click.option("--access-log", is_flag=True, help="Log one line per request.")
@click.option(
    "--otlp", metavar="URL", help="Send traces to this OTLP collector (http://localhost:4318)."
)
@click.option(
    "--forwarded-allow-ips", metavar="LIST", default="",
    help="Proxies whose X-Forwarded-For and -Proto are trusted: addresses, networks, or *.",
)  # fmt: skip
@click.option(
    "--grace", default=20.0, show_default=True, type=click.FloatRange(min=0.1),
    help="Seconds that stopping may take, including running requests.",
)  # fmt: skip
@debug_option
def serve(
    directory: Path | None,
    host: str,
    port: int,
    adapter: str | None,
    server: str,
    workers: int,
    dev: bool,
    log_level: str | None,
    log_file: Path | None,
    log_format: str | None,
    locked: bool,
    learn: bool,
    write: bool,
    access_log: bool,
    otlp: str | None,
    forwarded_allow_ips: str,
    grace: float,
) -> None:
    """Serve the application in DIR (default: the current folder) over HTTP.

    Ctrl+C or SIGTERM stops it: running requests finish, then plugins unload. On SIGHUP, changed
    plugins reload, new ones load and deleted ones unload.
    """

    from .serve import Settings, serve_here
    from .supervisor import serve_with_workers

    if learn and workers > 1:
        raise click.UsageError("--learn needs one process: leave out --workers")
    if write and not learn:
        raise click.UsageError("--write needs --learn")
    settings = Settings(
        directory=directory,
        host=host,
        port=port,
        adapter=adapter,
        server=server,
        workers=workers,
        dev=dev,
        log_level=log_level,
        log_file=log_file,
        log_format=log_format,
        locked=locked,
        learn=learn,
        write=write,
        access_log=access_log,
        forwarded_allow_ips=tuple(
            part.strip() for part in forwarded_allow_ips.split(",") if part.strip()
        ),
        grace=grace,
        debug=debugging(),
        otlp=otlp,
    )
    raise SystemExit(serve_here(settings) if workers == 1 else serve_with_workers(settings))


@veko.command()
@click.argument("target", metavar="[DIR|URL]", required=False)
@click.option(
    "--jaeger", "file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Write a file for Jaeger's UI instead of showing trees; needs the URL.",
)  # fmt: skip
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 1500),
    help="Show at most this many traces.",
)  # fmt: skip
@click.option("--failed", is_flag=True, help="Only those in which something failed.")
@click.option("-f", "--follow", is_flag=True, help="Continue with those that come.")
@json_option
@debug_option
def trace(
    target: str | None, file: Path | None, limit: int, failed: bool, follow: bool, as_json: bool
) -> None:
    """Show the last traces of the running application, with its hooks and the slowest of them.

    DIR is the application's folder. With the URL of its Jaeger query API (see `keep` and `jaeger`
    in [plugins.tracing]) it may run elsewhere: http://127.0.0.1:8000/jaeger.
    """
    if file is not None or (target is not None and not Path(target).is_dir()):
        from .trace import show_traces

        if failed or follow:
            raise click.UsageError("--failed and --follow need an application on this machine")
        url = target or "http://127.0.0.1:8000/jaeger"
        raise SystemExit(show_traces(url, file, limit, as_json=as_json))
    from .traces import show_running_traces

    directory = None if target is None else Path(target)
    raise SystemExit(
        show_running_traces(
            directory, limit=limit, failed=failed, follow=follow, as_json=as_json,
            debug=debugging(),
        )
    )  # fmt: skip


@veko.command("list")
@directory_argument
@click.option("--core", is_flag=True, help="Include core plugins.")
@click.option(
    "--permissions", is_flag=True,
    help="Show what plugins ask for, are allowed, have used and were refused; load nothing.",
)  # fmt: skip
@json_option
@debug_option
def list_(directory: Path | None, core: bool, permissions: bool, as_json: bool) -> None:
    """List the plugins of the application in DIR, and why some did not load.

    If it is being served, the running application is asked. Otherwise this loads it, without
    serving it.
    """

    from .status import list_running

    if permissions:
        from .permissions import list_permissions

        raise SystemExit(list_permissions(directory, as_json=as_json, debug=debugging()))
    code = list_running(directory, core=core, as_json=as_json, debug=debugging())
    if code is None:
        from .listing import list_plugins

        code = list_plugins(directory, core=core, as_json=as_json, debug=debugging())
    raise SystemExit(code)


@veko.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_plugins)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option("--all", "everything", is_flag=True, help="All plugins; forget those that are gone.")
@json_option
@debug_option
def allow(names: tuple[str, ...], directory: Path | None, everything: bool, as_json: bool) -> None:
    """Allow what the plugins NAME ask for, in veko.lock: files and permissions.

    Without NAME, show what differs and change nothing; the exit code is then 1 if anything does.
    """

    from .allow import allow_plugins

    raise SystemExit(
        allow_plugins(directory, names, everything=everything, as_json=as_json, debug=debugging())
    )


@veko.command()
@directory_argument
@json_option
@debug_option
@click.option(
    "--plugin", metavar="NAME", shell_complete=complete_plugins,
    help="Only the hooks of this plugin, in its order.",
)  # fmt: skip
def events(directory: Path | None, as_json: bool, plugin: str | None) -> None:
    """List the events that plugins can hook: when they fire, and their arguments.

    Includes the events that plugins of the application in DIR declare.
    """

    from .listing import list_events

    raise SystemExit(list_events(directory, plugin=plugin, as_json=as_json, debug=debugging()))


@veko.command()
@directory_argument
@json_option
@debug_option
def routes(directory: Path | None, as_json: bool) -> None:
    """List the routes of the application in DIR: method, path and plugin."""

    from .graph import show_routes

    raise SystemExit(show_routes(directory, as_json=as_json, debug=debugging()))


@veko.command()
@directory_argument
@click.option(
    "--format", "shape", default="text", show_default=True,
    type=click.Choice(["text", "mermaid", "dot", "json"]), help="What to print.",
)  # fmt: skip
@json_option
@debug_option
def graph(directory: Path | None, shape: Shape, as_json: bool) -> None:
    """Show which plugin of the application in DIR needs which, and what is not loaded."""

    from .graph import show_graph

    raise SystemExit(show_graph(directory, shape="json" if as_json else shape, debug=debugging()))


@veko.command()
@directory_argument
@click.argument("path", metavar="[PATH]", required=False, type=click.Path(path_type=Path))
@json_option
@debug_option
def backup(directory: Path | None, path: Path | None, as_json: bool) -> None:
    """Back up the application in DIR: plugins, states, configurations and storage, in one file.

    PATH is the file to write (default: .veko/backups/<time>.jsonl); an existing file is never
    overwritten. Secrets are left out. If the application is being served, it backs itself up.
    """

    from .saving import back_up_running

    code = back_up_running(directory, path, as_json=as_json, debug=debugging())
    if code is None:
        from .backups import back_up

        code = back_up(directory, path, as_json=as_json, debug=debugging())
    raise SystemExit(code)


@veko.command()
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@directory_argument
@click.option("--plan", is_flag=True, help="Only say what would happen; it must be running.")
@json_option
@debug_option
def restore(path: Path, directory: Path | None, plan: bool, as_json: bool) -> None:
    """Restore the application in DIR from the backup PATH, completely or not at all.

    The file is checked first. An application that is being served restores itself, and
    `veko undo` takes that back.
    """

    from .saving import restore_running

    code = restore_running(path, directory, plan=plan, as_json=as_json, debug=debugging())
    if code is None:
        from .backups import restore_backup

        code = restore_backup(path, directory, as_json=as_json, debug=debugging())
    raise SystemExit(code)


@veko.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[--dir DIR]",
)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.argument("name", metavar="NAME", required=False, shell_complete=complete_commands)
@click.argument("words", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    context: click.Context, directory: Path | None, name: str | None, words: tuple[str, ...]
) -> None:
    """Run a command of a plugin; without NAME, list the commands (`--json`: as JSON).

    If the application is being served, the command runs there, and what it prints is printed there.
    `veko run NAME --help` shows a command's arguments. The command's result is printed: text as it
    is, anything else as JSON. Everything after `--` is passed to the command, even `--dir`. The
    exit code is that of the command's `sys.exit`, else 0 for success, 1 for failure, 2 for wrong
    usage.
    """

    from .commanding import list_running_commands, run_in_running

    if name in ("-h", "--help"):
        click.echo(context.get_help())
        return
    as_json = name == "--json" and not words
    if name is None or as_json:
        code = list_running_commands(directory, as_json=as_json, debug=debugging())
    else:
        code = run_in_running(directory, name, list(words), debug=debugging())
    if code is None:
        from .run_command import list_commands, run_command

        if as_json:
            code = list_commands(directory, debug=debugging())
        else:
            code = run_command(directory, name, list(words), debug=debugging())
    raise SystemExit(code)


for command in (
    *OPERATING,
    *RECORDINGS,
    new,
    init,
    validate,
    test,
    debug,
    doctor,
    database,
    mcp,
    completion,
):
    veko.add_command(command)
