"""A test that reproduces a failure: a file for pytest, with Veko's fixtures.

The fixture `plugin_failures` fails a test in which a plugin's code failed, so the test fails for as
long as the fault is there, and passes when it is fixed. The plugin's path can be given from
outside, so the same file tests any version.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any, Final

from .entries import Command, Emission, Request, Socket, Step, Stimulus, Task
from .files import Recording
from .reproducing import Reproduction
from .setup import source_of, without_masks
from .values import Unreplayable, value_of

__all__ = ["name_of_test", "test_file"]

_WORD: Final = re.compile(r"[^a-z0-9]+")
_PATIENCE: Final = 2.0
_SKIPPED: Final = frozenset({"content-length", "transfer-encoding", "host"})
_HEAD: Final = '''\
"""A recorded failure of {plugin}: {error}

Recorded by Veko {veko}{where}.
The test fails until that is fixed. Another version: {variable}=PATH pytest {file}
"""

{standard}import os

import pytest
{imports}
pytestmark = pytest.mark.anyio
{paths}

@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def veko_options():
    return {options!r}


async def {name}({fixtures}):
{body}
'''


def name_of_test(reproduction: Reproduction) -> str:
    """Return the name of a failure's test."""
    failure = reproduction.failure
    where = failure.part or failure.event or failure.handler or ""
    text = f"{failure.plugin or 'host'} {where} {failure.error}".lower()
    return f"test_{_WORD.sub('_', text).strip('_')[:80]}"


def test_file(recording: Recording, reproduction: Reproduction, file: str) -> str:
    """Return the text of a test.

    Args:
        recording: The recording.
        reproduction: What reproduces the failure.
        file: The name that the file will have.
    """
    failure = reproduction.failure
    options: dict[str, Any] = {"adapter": recording.header.adapter, "error_threshold": 10**9}
    above = recording.ancestors(failure)
    waits = not reproduction.stimuli or (bool(above) and isinstance(above[-1], Task))
    lines = list(_body(recording, reproduction, waits=waits))
    text = "\n".join(f"    {line}" if line else "" for line in lines)
    paths = list(_paths(recording, reproduction))
    imports = []
    if any(isinstance(one, Socket) for one in reproduction.stimuli):
        imports.append("from veko_plugins.testing import Closed")
    if "recorded_value(" in text:
        imports.append("from veko_plugins.recording import recorded_value")
    error = f"{failure.error}: {failure.message}" if failure.message else failure.error
    where = f", at {failure.path}:{failure.line}" if failure.path else ""
    fixtures = ["manager", "load_plugin"]
    if any(isinstance(one, Request | Socket) for one in reproduction.stimuli):
        fixtures.append("client")
    fixtures += ["bus_recorder"] if waits else []
    fixtures.append("plugin_failures")
    return _HEAD.format(
        plugin=failure.plugin or "the application",
        error=_plain(error),
        veko=recording.header.veko,
        where=where,
        variable=_variable(failure.plugin or "plugin"),
        file=file,
        standard="import contextlib\n" if "contextlib." in text else "",
        imports="".join(f"\n{line}" for line in imports) + ("\n" if imports else ""),
        paths="".join(f"\n{line}" for line in paths) + ("\n" if paths else ""),
        options=options,
        name=name_of_test(reproduction),
        fixtures=", ".join(fixtures),
        body=text,
    )


def _plain(text: str) -> str:
    """Return a text for a docstring."""
    one = " ".join(text.split())
    one = one.encode("ascii", "backslashreplace").decode() if "\\" in one else one
    return one.replace("\\", "\\\\").replace('"', "'")[:200]


def _variable(plugin: str) -> str:
    return f"PLUGIN_{_WORD.sub('_', plugin.lower()).upper()}"


def _constant(plugin: str) -> str:
    found = _WORD.sub("_", plugin.lower()).upper()
    return f"P_{found}" if found[:1].isdigit() else found


def _paths(recording: Recording, reproduction: Reproduction) -> Iterator[str]:
    for one in recording.plugins:
        if one.name in reproduction.plugins and one.source is not None:
            source = str(source_of(one.source))
            given = f"os.environ.get({_variable(one.name)!r}, {source!r})"
            yield f"{_constant(one.name)} = os.path.abspath({given})"


def _body(recording: Recording, reproduction: Reproduction, *, waits: bool) -> Iterator[str]:
    if not reproduction.verified:
        yield "# It did not fail again when this file was made:"
        for note in reproduction.why_not or ["it may depend on time, or on what was stored"]:
            yield f"# - {_plain(note)}"
    for one in recording.plugins:
        if one.name in reproduction.plugins and one.source is not None:
            config = without_masks(one.config)
            given = f", {_literal(config)}" if config else ""
            yield f"await load_plugin({_constant(one.name)}{given})"
    yield "for event in ('app:init', 'app:start'):"
    yield "    await manager.bus.emit(event, manager.app)"
    for stimulus in reproduction.stimuli:
        yield from _statements(stimulus)
    if waits:
        yield "if not plugin_failures.failures:  # a task may take its time"
        yield "    with contextlib.suppress(AssertionError):"
        yield f"        await bus_recorder.wait_for('plugin:error', timeout={_PATIENCE})"


def _literal(form: Any) -> str:
    """Return Python that makes the value of a form."""
    try:
        value = value_of(form)
    except Unreplayable:
        return f"recorded_value({form!r}, manager)"
    text = repr(value)  # in the form of a literal, if it has one
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError):
        pass
    return f"recorded_value({form!r}, manager)"


def _statements(stimulus: Stimulus) -> Iterator[str]:
    match stimulus:
        case Emission():
            args = "".join(f", {_literal(form)}" for form in stimulus.args)
            verb = "gather" if stimulus.gathered else "emit"
            yield f"await manager.bus.{verb}({stimulus.event!r}{args})"
        case Command():
            given = [repr(stimulus.name), *map(_literal, stimulus.args)]
            if stimulus.named:
                given.append(f"**{_literal(stimulus.named)}")
            yield f"await manager.run_command({', '.join(given)})"
        case Request():
            headers = [pair for pair in stimulus.headers if pair[0] not in _SKIPPED]
            for what in stimulus.masked:
                yield f"# {_plain(what)} was masked: put in one that is valid"
            yield "await client.request("
            yield f"    {stimulus.method!r},"
            yield f"    {stimulus.url!r},"
            if stimulus.body is not None:
                yield f"    content={_literal(stimulus.body)},"
            if headers:
                yield f"    headers={headers!r},"
            yield ")"
        case Socket():
            yield "with contextlib.suppress(Closed, TimeoutError):"
            yield f"    async with client.websocket({stimulus.url!r}, timeout=2) as socket:"
            for form in stimulus.received:
                yield f"        await socket.send({_literal(form)})"
            count = len(stimulus.sent) + (stimulus.closed is not None)
            yield f"        for _ in range({count}):"
            yield "            await socket.receive()"
        case Step():
            yield _step(stimulus)


def _step(step: Step) -> str:
    name = repr(step.plugin)
    match step.step:
        case "load":
            return f"await load_plugin({name})"
        case "reload":
            return f"await manager.reload_plugin({name})"
        case "unload":
            return f"await manager.unload_plugin({name}, cascade=True)"
        case _:
            on = step.step == "activate"
            return f"await manager.toggle_plugin({name}, {on}, cascade=True)"
