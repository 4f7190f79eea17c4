"""The examples that `--help` shows below each command."""

from __future__ import annotations

from typing import Final

import rich_click as click

__all__ = ["EXAMPLES", "Commands"]

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "allow": ("veko allow", "veko allow shop mail", "veko allow --all --dir app"),
    "backup": ("veko backup", "veko backup app before-the-move.jsonl"),
    "bisect": (
        "veko bisect -- pytest -x tests/test_shop.py",
        "veko bisect --dir app --timeout 20 -- veko run report",
        "veko bisect --recording FILE",
    ),
    "completion": (
        'eval "$(veko completion bash)"    # in ~/.bashrc',
        'eval "$(veko completion zsh)"     # in ~/.zshrc',
        "veko completion fish | source    # in ~/.config/fish/config.fish",
    ),
    "database": ("veko database list", "veko database export shop"),
    "database export": ("veko database export shop", "veko database export shop shop.jsonl"),
    "database list": ("veko database list", "veko database list --dir app --json"),
    "database purge": ("veko database purge shop", "veko database purge shop --yes"),
    "debug": ("veko debug shop", "veko debug shop --dir app", "veko debug shop -c 'plugin.state'"),
    "doctor": ("veko doctor", "veko doctor app --json"),
    "events": ("veko events", "veko events app --plugin shop", "veko events --json"),
    "graph": ("veko graph", "veko graph app --format dot | dot -Tsvg > plugins.svg"),
    "init": ("veko init shop", "cd shop && veko serve"),
    "list": ("veko list", "veko list app --core", "veko list --permissions --json"),
    "mcp": ("veko mcp", "veko mcp app --look"),
    "new": ("veko new shop", "veko new shop --template api --author Ann --yes"),
    "record": (
        "veko record where",
        "veko record dump --dir app",
        "veko record --failure",
        "veko record --failure=FILE --number 17 -o tests/test_shop.py",
    ),
    "replay": ("veko replay FILE", "veko replay FILE --with shop=../shop/fixed.py --json"),
    "restore": ("veko restore .veko/backups/before-the-move.jsonl", "veko restore one.jsonl app"),
    "routes": ("veko routes", "veko routes app --json"),
    "run": (
        "veko run",
        "veko run greet ann --times 2",
        "veko run greet --help",
        "veko run --dir app greet -- --dir",
    ),
    "serve": (
        "veko serve",
        "veko serve app --port 8080 --dev",
        "veko serve app --host 0.0.0.0 --workers 4 --server granian",
    ),
    "status": ("veko status", "veko status app --json"),
    "test": (
        "veko test",
        "veko test shop --tier gold",
        "veko test plugins/shop.py --simulate 1000",
    ),
    "trace": (
        "veko trace",
        "veko trace app --failed --follow",
        "veko trace http://127.0.0.1:8000/jaeger --jaeger traces.json",
    ),
    "changes": ("veko changes", "veko changes app --json"),
    "config": (
        "veko config shop",
        "veko config shop smtp.host mail.example.org",
        "veko config shop limit 20 --plan",
        "veko config shop limit --delete",
    ),
    "load": ("veko load shop", "veko load plugins/shop.py --config '{\"limit\": 20}' --plan"),
    "logs": ("veko logs -f", "veko logs app --plugin shop --level warning", "veko logs --json"),
    "reload": ("veko reload shop", "veko reload shop --plan"),
    "toggle": (
        "veko toggle shop",
        "veko toggle shop --off --cascade",
        "veko toggle shop --on --plan",
    ),
    "top": ("veko top", "veko top app --interval 1", "veko top --once"),
    "undo": ("veko undo", "veko undo --plan"),
    "unload": ("veko unload shop", "veko unload shop --cascade --plan"),
    "validate": ("veko validate plugins/shop.py", "veko validate shop --dir app --strict --json"),
}
"""Command lines by command; tests/cli/test_cli_manners.py parses each of them."""


class Commands(click.RichGroup):
    """A group of commands whose help ends with examples."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, with its examples as the end of its help."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.epilog is None:
            group = ctx.command_path.partition(" ")[2]
            # An empty line between them keeps rich-click from joining the lines.
            lines = ("Examples:", *EXAMPLES.get(f"{group} {cmd_name}".strip(), ()))
            command.epilog = "\n\n".join(lines) if len(lines) > 1 else None
        return command
