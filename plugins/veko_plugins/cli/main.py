"""The `veko` group: its commands, its version, and how to complete it."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from veko import __version__
from veko_plugins.logging import LEVELS

from .backups import back_up, restore_backup
from .listing import list_events, list_plugins
from .run_command import run_command
from .serve import Settings, serve_here
from .supervisor import serve_with_workers
from .trace import show_traces
from .validate import validate_plugin

__all__ = ["veko"]

_EPILOG = """
Completion in a shell: eval "$(_VEKO_COMPLETE=bash_source veko)" in ~/.bashrc, zsh_source in
~/.zshrc; for fish: _VEKO_COMPLETE=fish_source veko | source.
"""


def _remember(context: click.Context, _: click.Parameter, debug: bool) -> bool:
    context.meta["veko.debug"] = debug or context.meta.get("veko.debug", False)
    return debug


_directory = click.argument(
    "directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path)
)
_debug = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="Show tracebacks.",
)


def _debugging() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get("veko.debug", False))


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="veko", message="%(prog)s %(version)s")
@_debug
def veko() -> None:
    """Serve applications made of plugins, and look into them.

    An application is a folder DIR that holds `plugins/` and perhaps `veko.toml`.
    """


@veko.command()
@_directory
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port to listen on; 0 takes a free one.",
)
@click.option("--adapter", metavar="NAME", help="The HTTP adapter: litestar, starlette, asgi.")
@click.option(
    "--server", default="uvicorn", show_default=True, type=click.Choice(["uvicorn", "granian"]),
    help="The HTTP server.",
)  # fmt: skip
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 256), metavar="N",
    help="Processes that serve; more than one needs a storage that they can share, or none.",
)  # fmt: skip
@click.option(
    "--dev",
    is_flag=True,
    help="Development mode: plugins reload when their files change, errors say more.",
)
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(list(LEVELS)),
    help="The least that is logged.",
)  # fmt: skip
@click.option(
    "--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Log to this file too."
)
@click.option(
    "--log-format", default="text", show_default=True, type=click.Choice(["text", "json"]),
    help="One line of text or one JSON object a record.",
)  # fmt: skip
@click.option("--access-log", is_flag=True, help="Log a line a request.")
@click.option(
    "--otlp", metavar="URL", help="Send traces to this OTLP collector (http://localhost:4318)."
)
@click.option(
    "--forwarded-allow-ips", metavar="LIST", default="",
    help="Proxies whose X-Forwarded-For and -Proto are believed: addresses, networks, or *.",
)  # fmt: skip
@click.option(
    "--grace", default=20.0, show_default=True, type=click.FloatRange(min=0.1),
    help="Seconds that stopping may take, requests under way included.",
)  # fmt: skip
@_debug
def serve(
    directory: Path | None,
    host: str,
    port: int,
    adapter: str | None,
    server: str,
    workers: int,
    dev: bool,
    log_level: str,
    log_file: Path | None,
    log_format: str,
    access_log: bool,
    otlp: str | None,
    forwarded_allow_ips: str,
    grace: float,
) -> None:
    """Serve the application in DIR (here, if left out) over HTTP.

    Ctrl+C or SIGTERM stops it: requests under way are finished, plugins unload. SIGHUP looks at
    the disk again: changed plugins reload, new ones load, deleted ones unload.
    """
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
        access_log=access_log,
        forwarded_allow_ips=tuple(
            part.strip() for part in forwarded_allow_ips.split(",") if part.strip()
        ),
        grace=grace,
        debug=_debugging(),
        otlp=otlp,
    )
    raise SystemExit(serve_here(settings) if workers == 1 else serve_with_workers(settings))


@veko.command()
@click.argument("url", metavar="[URL]", default="http://127.0.0.1:8000/jaeger")
@click.option(
    "--jaeger", "file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the file that Jaeger's UI opens, instead of showing trees.",
)  # fmt: skip
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 1500),
    help="Traces at most.",
)  # fmt: skip
def trace(url: str, file: Path | None, limit: int) -> None:
    """Show the last traces of an application that is being served.

    URL is where it serves Jaeger's query API: `keep` and `jaeger` in [plugins.tracing].
    """
    raise SystemExit(show_traces(url, file, limit))


@veko.command("list")
@_directory
@click.option("--core", is_flag=True, help="The core plugins too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_debug
def list_(directory: Path | None, core: bool, as_json: bool) -> None:
    """List the plugins of the application in DIR, and why some are not up.

    The application is loaded, not served.
    """
    raise SystemExit(list_plugins(directory, core=core, as_json=as_json, debug=_debugging()))


@veko.command()
@_directory
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_debug
def events(directory: Path | None, as_json: bool) -> None:
    """List the events that may be hooked: when they fire and what they carry.

    Those of Veko and those that the plugins of the application in DIR declare.
    """
    raise SystemExit(list_events(directory, as_json=as_json, debug=_debugging()))


@veko.command()
@_directory
@click.argument("path", metavar="[PATH]", required=False, type=click.Path(path_type=Path))
@_debug
def backup(directory: Path | None, path: Path | None) -> None:
    """Back the application in DIR up: plugins, states, configurations, storage, in one file.

    PATH is that file, and is never written over; .veko/backups/<time>.jsonl if left out. Secrets
    are not in it. The application must not be served meanwhile.
    """
    raise SystemExit(back_up(directory, path, debug=_debugging()))


@veko.command()
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@_directory
@_debug
def restore(path: Path, directory: Path | None) -> None:
    """Restore the application in DIR from the backup PATH, all of it or nothing.

    The file is checked first. The application must not be served meanwhile.
    """
    raise SystemExit(restore_backup(path, directory, debug=_debugging()))


@veko.command()
@click.argument("path", metavar="PATH")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.option("--strict", is_flag=True, help="Fail if there are warnings, too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_debug
def validate(path: str, directory: Path | None, strict: bool, as_json: bool) -> None:
    """Check the plugin PATH, a file or a folder, without loading it.

    Its manifest, configuration schema, engines, peers and declared hooks; in an application, its
    name will do. Its module is imported only where the source does not tell enough. The exit code
    is 0 if it is sound, 1 if not.
    """
    raise SystemExit(
        validate_plugin(path, directory, strict=strict, as_json=as_json, debug=_debugging())
    )


@veko.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[--dir DIR]",
)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)
@click.argument("name", metavar="NAME", required=False)
@click.argument("words", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    context: click.Context, directory: Path | None, name: str | None, words: tuple[str, ...]
) -> None:
    """Run a command of a plugin; without NAME, list the commands.

    `veko run NAME --help` shows what a command takes. What the command returns is printed: text
    as it is, anything else as JSON. After `--` every word is the command's, `--dir` too. The exit
    code is 0 if it succeeded, 1 if it failed, 2 if it was called wrongly.
    """
    if name in ("-h", "--help"):
        click.echo(context.get_help())
        return
    raise SystemExit(run_command(directory, name, list(words), debug=_debugging()))
