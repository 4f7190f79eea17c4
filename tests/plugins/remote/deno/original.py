"""The plugins in the original's documentation, taken out of the document itself."""

import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest

_NAME = "shared/seed/veko-plugin-manager.fr.md"
_BLOCK = re.compile(r"^```(javascript|typescript)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FRAGMENT = "async load(app, config, context) {"


class Block(NamedTuple):
    """A block of code that is a plugin, or the `load` of one."""

    text: str
    suffix: str

    def write(self, folder: Path, name: str) -> Path:
        """Write it to a file, as it stands."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}{self.suffix}"
        path.write_text(self.text, "utf-8")
        return path


def document() -> str:
    """The document; it lies beside the repository, not in it."""
    for folder in Path(__file__).resolve().parents:
        path = folder / _NAME
        if path.exists():
            return path.read_text("utf-8")
    if os.environ.get("CI"):
        pytest.fail(f"{_NAME} is missing beside the repository")
    pytest.skip(f"{_NAME} is not beside the repository")


def plugins() -> dict[str, Block]:
    """All blocks that are plugins, by what they are called; fragments by the heading above them."""
    text = document()
    found: dict[str, Block] = {}
    for match in _BLOCK.finditer(text):
        language, code = match.groups()
        suffix = ".ts" if language == "typescript" else ".js"
        exported = re.search(
            r"^(?:module\.exports|export) = \{\n  name: '([\w-]+)'", code, re.MULTILINE
        ) or re.search(
            r"^(?:module\.exports|export) = \{\n(?:  //.*\n)*  name: '([\w-]+)'", code, re.MULTILINE
        )
        heading = text[: match.start()].rsplit("\n### ", 1)[-1].partition("\n")[0]
        if exported is not None:
            # The template `basic` has the name of the first example.
            key = exported[1] if exported[1] not in found else heading
            found[key] = Block(code, suffix)
        elif _FRAGMENT in code and "module.exports" not in code:
            name = "fragment-" + str(sum(key.startswith("fragment") for key in found))
            found[heading] = Block(
                f"module.exports = {{\nname: '{name}', version: '1.0.0',\n{code}\n}};\n", suffix
            )
    return found
