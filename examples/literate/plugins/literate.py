"""Literate plugins: Markdown whose Python blocks are the plugin (`shop.py.md`)."""

name = "literate"
version = "1.0.0"


def to_python(text, path):
    """Return the Python blocks, each line where it stands in the page; the prose becomes blank."""
    lines, block = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        if fence and not block:
            block = line.strip() == "```python"
            lines.append("")
        elif fence:
            block = False
            lines.append("")
        else:
            lines.append(line if block else "")
    return "\n".join(lines)


def load(context):
    context.add_transpiler(".py.md", to_python)
