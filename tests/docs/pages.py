"""Runs the code blocks of a page of the docs in order, as a reader would.

- A ``python``, ``toml``, ``javascript`` or ``typescript`` block whose first line is a comment with
  a file name becomes that file.
- Any other ``python`` block runs; the blocks of a page share one namespace.
- In a ``console`` block, each line after ``$`` runs in a shell and must print the lines below it;
  ``...`` in them matches anything. ``veko serve`` keeps running in the background until the next
  ``veko`` command that does not ask it, or Python block.

A page runs in a temporary directory, and a free port replaces port 8000.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|//) ([\w./-]+\.(?:py|toml|js|ts))\n")
_FILES = {"python", "toml", "javascript", "typescript"}
_SECONDS = 60
_ASKING = re.compile(r"veko (changes|config|list|load|logs|reload|status|toggle|top|undo|unload) ")
"""Commands that ask the application that is being served."""


class Block(msgspec.Struct):
    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        yield Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1)


def is_file(block: Block) -> re.Match[str] | None:
    """Return the match of the file's name if a block becomes a file."""
    return _FILE.match(block.text) if block.language in _FILES else None


class Runner:
    """Runs one page in a directory."""

    def __init__(self, page: Path, directory: Path) -> None:
        self.page = page
        self.directory = directory
        self.module = ModuleType("page_" + re.sub(r"\W", "_", page.stem))
        self.server: subprocess.Popen[str] | None = None
        self.port = "8000"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        # What a page shows must not depend on how busy the machine is.
        self.environ = {**os.environ, "PATH": path, "VEKO_WATCHDOG": "10"}

    def run(self) -> None:
        sys.modules[self.module.__name__] = self.module
        try:
            for block in blocks(self.page):
                if named := is_file(block):
                    file = self.directory / named[1]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(block.text, "utf-8")
                elif block.language == "python":
                    self.stop()
                    code = compile("\n" * (block.line - 1) + block.text, str(self.page), "exec")
                    exec(code, vars(self.module))
                elif block.language == "console":
                    self.console(block)
        finally:
            del sys.modules[self.module.__name__]
            self.stop()

    def console(self, block: Block) -> None:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, wanted = part.partition("\n")
            if command.startswith("veko serve"):
                printed = self.serve(command)
            else:
                if command.startswith("veko ") and not _ASKING.match(command):
                    self.stop()
                printed = self.shell(command)
            pattern = re.escape(wanted.strip()).replace(r"\.\.\.", ".*")
            assert re.fullmatch(pattern, printed.strip(), re.DOTALL), (
                f"{self.page.name}:{block.line}: {command} printed\n{printed}\nnot\n{wanted}"
            )

    def shell(self, command: str) -> str:
        ran = subprocess.run(
            ["/bin/sh", "-c", command.replace(":8000", f":{self.port}")],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return (ran.stdout or ran.stderr).replace(f":{self.port}", ":8000")

    def serve(self, command: str) -> str:
        self.stop()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.server = subprocess.Popen(
            [*command.split(), "--port", self.port],
            cwd=self.directory,
            env={**self.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.server.stdout is not None
        printed = ""
        for line in self.server.stdout:
            printed += line
            if "Listening on" in line:
                break
        return printed.replace(f":{self.port}", ":8000")

    def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=_SECONDS)
