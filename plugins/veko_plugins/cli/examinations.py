"""What `veko doctor` looks at, and what it finds there."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from veko import VekoError, __version__
from veko_plugins import Options
from veko_plugins._lib.masking import masked_text
from veko_plugins.admin import AdminClient
from veko_plugins.logging import message_of
from veko_plugins.manager import PluginManager

from .progress import loading

__all__ = ["Finding", "Level", "application", "environment", "folder", "running", "settings"]

Level = Literal["ok", "warning", "problem"]
_DISTRIBUTION: Final = "veko"
_EXTRA: Final = re.compile(r"""extra == ["']([^"']+)""")


class Finding(msgspec.Struct, frozen=True):
    """One finding of `veko doctor`.

    Attributes:
        area: `environment`, `extras`, `settings`, `folder`, `plugins` or `tracing`.
        level: `ok`; `warning` for what works, but not as one may think; `problem` for the rest.
        text: What was found.
        remedy: What to do about it.
    """

    area: str
    level: Level
    text: str
    remedy: str | None = None


def environment() -> Iterator[Finding]:
    """Look at Python, Veko and the extras that are installed."""
    version = platform.python_version()
    system = f"Python {version} ({sys.executable}) on {platform.system()} {platform.machine()}"
    try:
        veko = importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Finding("environment", "ok", system)
        yield Finding(
            "environment",
            "warning",
            f"Veko {__version__} runs from its sources and is not installed",
            "Entry points, such as those of adapters, are not found: pip install -e .",
        )
        return
    wanted = str(veko.metadata["Requires-Python"] or "")
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield Finding("environment", "ok", system)
    else:
        remedy = f"Use Python {wanted}."
        yield Finding("environment", "problem", f"{system} is not supported", remedy)
    where = Path(importlib.util.find_spec("veko").origin or "").parent  # type: ignore[union-attr]
    if veko.version == __version__:
        yield Finding("environment", "ok", f"Veko {__version__} ({where})")
    else:
        yield Finding(
            "environment",
            "problem",
            f"Veko {__version__} ({where}) is imported, and Veko {veko.version} is installed",
            "Remove one of them: pip uninstall veko",
        )
    loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio; uvloop is faster"
    yield Finding("environment", "ok", f"event loop: {loop}")
    yield from _extras(veko.requires or ())
    yield from _forms()


def _extras(requirements: Iterable[str]) -> Iterator[Finding]:
    """Look at the distributions that Veko and its extras need."""
    extras: dict[str, list[Requirement]] = {}
    for text in requirements:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            continue
        extra = _extra_of(text)
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            extras.setdefault(extra, []).append(one)
    wrong: dict[str, Finding] = {}
    lacking: dict[str, list[str]] = {}
    for extra, needed in extras.items():
        for one in needed:
            found = _version(one.name)
            if found is None:
                lacking.setdefault(extra, []).append(one.name)
            elif not one.specifier.contains(found, prereleases=True):
                level: Level = "warning" if extra else "problem"
                wrong[one.name] = Finding(
                    "extras",
                    level,
                    f"{one.name} {found} is installed, and Veko needs {one.specifier}",
                    f"pip install --upgrade {str(one).partition(';')[0].strip()!r}",
                )
    yield from wrong.values()
    for name in lacking.pop("", ()):
        yield Finding("extras", "problem", f"{name} is missing", f"pip install {name}")
    lacking.pop("all", None)
    there = sorted(extras.keys() - lacking.keys() - {"", "all"})
    yield Finding("extras", "ok", f"installed: {', '.join(there) or 'none'}")
    for extra, names in sorted(lacking.items()):
        text = f"not installed: {extra} (lacks {', '.join(sorted(set(names)))})"
        yield Finding("extras", "ok", text, f"pip install 'veko[{extra}]'")


def _extra_of(text: str) -> str:
    """Return the extra that a requirement belongs to; empty for one of Veko's own."""
    found = _EXTRA.search(text)
    return found[1] if found else ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _forms() -> Iterator[Finding]:
    if importlib.util.find_spec("multipart") is None:
        return
    import multipart  # type: ignore[import-untyped]

    if not hasattr(multipart, "PushMultipartParser"):
        yield Finding(
            "extras",
            "problem",
            "the module multipart is that of python-multipart, which hides the one of Veko: forms "
            "and uploads do not work",
            "pip uninstall python-multipart, then pip install --force-reinstall multipart",
        )


def settings(root: Path) -> tuple[list[Finding], Options | None]:
    """Look at `veko.toml`, `pyproject.toml` and the variables of the environment.

    Returns:
        The findings, and the options if they are valid.
    """
    try:
        options = Options.read(root)
    except VekoError as error:
        return [finding_of("settings", error)], None
    files = [name for name in ("veko.toml", "pyproject.toml") if (root / name).is_file()]
    given = ", ".join(files) or "no settings file"
    return [Finding("settings", "ok", f"{root}: {given}, {len(options.origins)} options")], options


def folder(options: Options) -> Iterator[Finding]:
    """Look at the folder that Veko writes to."""
    stored = options.state_dir
    inside = stored if stored.exists() else stored.parent
    if stored.exists() and not stored.is_dir():
        yield Finding("folder", "problem", f"{stored} is not a folder", "Move it away.")
    elif not os.access(inside, os.W_OK | os.X_OK):
        yield Finding(
            "folder", "problem", f"this user may not write to {inside}",
            "Run as its owner, or allow this user to write there: storage, backups and compiled "
            "files are kept in .veko.",
        )  # fmt: skip
    else:
        yield Finding("folder", "ok", f"{stored} can be written")


async def application(given: Mapping[str, Any], options: Options) -> list[Finding]:
    """Load the application with an empty storage in memory, and look at its plugins.

    Args:
        given: The manager's options.
        options: All options, with those of the files.
    """
    found: list[Finding] = []
    with _warnings(found):
        manager = PluginManager(**given, storage="sqlite:///:memory:", watch_mode=False)
        try:
            with loading(manager):
                await manager.start()
        except Exception as error:
            return [*found, finding_of("plugins", error)]
        try:
            found += _plugins(manager)
            logged = {one.text for one in found}
            found += await _validated(manager, logged)
            found += _server(options)
            found += _tracing(manager)
        finally:
            await manager.stop()
    return found


async def running(client: AdminClient) -> list[Finding]:
    """Look at the plugins of the application that runs."""
    status = await client.status()
    found = [Finding("plugins", "ok", f"the application runs (process {status.pid})")]
    loaded = []
    for row in await client.plugins():
        if row.loaded:
            loaded.append(row.name)
        if row.error is not None:
            level: Level = "ok" if row.state == "off" else "problem"
            found.append(Finding("plugins", level, f"{row.name} is {row.state}: {row.error}"))
        elif row.health in ("warning", "critical"):
            level = "problem" if row.health == "critical" else "warning"
            text = f"{row.name} has the health {row.health}: {'; '.join(row.reasons)}"
            remedy = f"See its errors: veko logs --plugin {row.name}"
            found.append(Finding("plugins", level, text, remedy))
    names = ", ".join(loaded) or "none"
    return [*found, Finding("plugins", "ok", f"{len(loaded)} loaded: {names}")]


def _plugins(manager: PluginManager) -> Iterator[Finding]:
    report = manager.report
    for name, error in report.failed.items():
        yield finding_of("plugins", error, f"{name} did not load: ")
    for name, why in report.skipped.items():
        yield Finding("plugins", "problem", f"{name} was skipped: {why}")
    for name, why in report.off.items():
        yield Finding("plugins", "ok", f"{name} is off: {why}")
    loaded = ", ".join(report.loaded) or "none"
    yield Finding("plugins", "ok", f"{len(report.loaded)} loaded: {loaded}")


async def _validated(manager: PluginManager, logged: Collection[str]) -> list[Finding]:
    found = []
    for name in manager.report.loaded:
        report = await manager.validate_plugin(name)
        found += [
            Finding("plugins", "warning", f"{name}: {text}")
            for text in report.warnings
            if text not in logged
        ]
    return found


def _server(options: Options) -> Iterator[Finding]:
    if options.adapter is None:
        yield Finding("settings", "ok", "HTTP is off (adapter = None)")
    elif not any(importlib.util.find_spec(name) for name in ("uvicorn", "granian")):
        yield Finding(
            "extras", "problem", "there is no HTTP server, so `veko serve` does not work",
            "pip install 'veko[asgi]'",
        )  # fmt: skip


def _tracing(manager: PluginManager) -> Iterator[Finding]:
    if "tracing" not in {info.name for info in manager.list_plugins(core=True)}:
        return
    if manager.use("tracing").ordinary:
        yield Finding(
            "tracing", "warning",
            "the TracerProvider of this process has span processors other than the SDK's own batch "
            "and simple ones: each hook becomes an ordinary span, which takes about 26 µs instead "
            "of 4",
            "Give Veko the collector itself (the option otlp), or use BatchSpanProcessor only.",
        )  # fmt: skip
    else:
        yield Finding("tracing", "ok", "spans are handed over in bulk")


def finding_of(area: str, error: BaseException, before: str = "") -> Finding:
    """Return the problem that an error is, with its remedy apart."""
    text, remedy = f"{type(error).__name__}: {error}", None
    if isinstance(error, VekoError):
        remedy, text = error.remedy, str(error)
        text = text.removesuffix(f". {remedy}")
    return Finding(
        area, "problem", masked_text(f"{before}{text}"), masked_text(remedy) if remedy else None
    )


@contextlib.contextmanager
def _warnings(found: list[Finding]) -> Iterator[None]:
    """Add what is logged as a warning by the manager and its core plugins."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING and record.name != "veko":
                found.append(Finding("plugins", "warning", masked_text(message_of(record))))

    logger, handler = logging.getLogger("veko"), Collector(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
