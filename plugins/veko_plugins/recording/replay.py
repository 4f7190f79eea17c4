"""Replays: what came from outside comes again, and what differs is shown.

Requests, WebSockets, commands, emissions and steps of the life cycle that a recording holds are
repeated in their order against the plugins that are loaded now. What plugins themselves caused is
not repeated: it follows.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, Protocol

import anyio
import anyio.lowlevel
import msgspec

from veko import Bus, NotFoundError

from .entries import Command, Emission, Entry, Failure, Request, Socket, Step, Stimulus
from .faults import cause_of, fault_label, label_of_failure
from .files import Recording
from .values import Unreplayable, find_class, forms_of, mask, outcomes_of, value_of

__all__ = ["Clients", "Difference", "Host", "Outcome", "Replay", "Report", "label_of"]

_TURNS: Final = 30
_SECONDS: Final = 10.0
"""How long one request, emission or command may take."""
_PATIENCE: Final = 0.5
"""How long to wait for a failure, or for a message, longer than it took when it was recorded."""
_SHOWN: Final = 200


class Host(Protocol):
    """What a replay needs of a manager."""

    @property
    def bus(self) -> Bus:
        """The bus."""
        ...

    @property
    def asgi(self) -> Any:
        """The ASGI application."""
        ...

    def get_plugin(self, name: str) -> Any:
        """Return a plugin."""
        ...

    def list_plugins(self, core: bool = False) -> Sequence[Any]:
        """List the plugins."""
        ...

    async def load_plugin(self, plugin: Any, config: Any = None) -> Any:
        """Load a plugin."""
        ...

    async def unload_plugin(self, name: str, *, cascade: bool = False) -> None:
        """Unload a plugin."""
        ...

    async def reload_plugin(self, name: str, config: Any = None) -> Any:
        """Reload a plugin."""
        ...

    async def toggle_plugin(
        self, name: str, active: bool | None = None, *, cascade: bool = False
    ) -> bool:
        """Switch a plugin on or off."""
        ...

    async def run_command(self, name: str, *args: object, **kwargs: object) -> object:
        """Run a command."""
        ...


class Clients(NamedTuple):
    """What sends requests to an ASGI application in this process: see `veko_plugins.testing`.

    Attributes:
        request: Sends a request; its answer has `status`, `headers` and `body`.
        websocket: Makes a WebSocket.
        closed: What that raises when the application closes it.
    """

    request: Callable[..., Awaitable[Any]]
    websocket: Callable[..., AbstractAsyncContextManager[Any]]
    closed: type[Exception]


class Outcome(msgspec.Struct):
    """What came of a stimulus.

    Attributes:
        value: The form of the result; of the body of an answer.
        alike: Other forms that the same result may have in a recording.
        status: The status of an answer; the code that closed a WebSocket.
        raised: The class of the error that it raised, if it did.
        failures: The failures of plugins' code meanwhile: plugin, event or part, class.
    """

    value: Any = None
    alike: list[Any] = []
    status: int | None = None
    raised: str | None = None
    failures: list[str] = []


class Difference(msgspec.Struct, frozen=True):
    """What came out differently.

    Attributes:
        what: The stimulus.
        aspect: What of it: `status`, `body`, `result`, `failures`, …
        before: What was recorded.
        now: What came of it now.
    """

    what: str
    aspect: str
    before: str
    now: str


class Report(msgspec.Struct):
    """What came of a replay.

    Attributes:
        replayed: How many stimuli were replayed.
        differences: What came out differently.
        unreplayable: What could not be replayed, and why.
    """

    replayed: int = 0
    differences: list[Difference] = []
    unreplayable: list[str] = []


def label_of(entry: Entry) -> str:
    """Return how messages name an entry."""
    match entry:
        case Request():
            return f"{entry.method} {entry.url}"
        case Socket():
            return f"WEBSOCKET {entry.url}"
        case Emission():
            return f"event {entry.event}"
        case Command():
            return f"command {entry.name}"
        case Step():
            return f"{entry.step} of {entry.plugin}"
        case _:
            return f"entry {entry.number}"


class Replay:
    """Replays on a host.

    Args:
        host: The manager; what it loads after this was made is replayed on.
        clients: Send requests to it.
    """

    def __init__(self, host: Host, clients: Clients) -> None:
        self._host = host
        self._clients = clients
        self._system = {event.name for event in host.bus.events}
        self.failures: list[str] = []
        self._changed = anyio.Event()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Take note of failures while the block runs."""
        handle = self._host.bus.on("error:handle", self._note, priority=float("inf"), observe=True)
        try:
            yield
        finally:
            handle.cancel()

    def _note(self, error: BaseException, origin: Any) -> None:
        if origin.counts:
            where = origin.part or origin.event or getattr(error, "event", None)
            kind = type(cause_of(error)).__qualname__
            self.failures.append(fault_label(origin.plugin, where, kind))
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    def is_system(self, entry: Entry) -> bool:
        """Return whether an emission is one that the manager makes itself."""
        return isinstance(entry, Emission) and entry.event in self._system

    def stimuli(self, recording: Recording) -> list[Stimulus]:
        """Return what is replayed of a recording."""
        return [one for one in recording.stimuli if not self.is_system(one)]

    async def report(self, recording: Recording) -> Report:
        """Replay a recording, and compare."""
        report = Report()
        roots = _roots(recording)
        for stimulus in self.stimuli(recording):
            failures = roots.get(stimulus.number, [])
            expected = _recorded(stimulus, failures)
            try:
                outcome = await self.play(stimulus, expected.failures, _took(stimulus, failures))
            except Unreplayable as error:
                report.unreplayable.append(f"{label_of(stimulus)}: {error}")
                continue
            report.replayed += 1
            report.differences += _differences(stimulus, expected, outcome)
        return report

    async def play(
        self, stimulus: Stimulus, awaited: Sequence[str] = (), seconds: float = 0.0
    ) -> Outcome:
        """Let a stimulus come again.

        Args:
            stimulus: The stimulus.
            awaited: Failures that are waited for, for a moment: tasks may cause them.
            seconds: How long they took.

        Raises:
            Unreplayable: It cannot be made again.
        """
        before = len(self.failures)
        outcome = Outcome()
        try:
            with anyio.fail_after(_SECONDS):
                await self._play(stimulus, outcome)
        except (Unreplayable, KeyboardInterrupt):
            raise
        except Exception as error:
            outcome.raised = type(cause_of(error)).__qualname__
        await self.settle(awaited, before, seconds)
        outcome.failures = sorted(self.failures[before:])
        return outcome

    async def settle(
        self, awaited: Sequence[str] = (), before: int = 0, seconds: float = 0.0
    ) -> None:
        """Let what was caused happen; wait for failures that are expected, for a moment."""
        for _ in range(_TURNS):
            await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(_PATIENCE + min(seconds, _SECONDS)):
            while not set(awaited) <= set(self.failures[before:]):
                await self._changed.wait()

    async def _play(self, stimulus: Stimulus, outcome: Outcome) -> None:
        host = self._host
        match stimulus:
            case Request():
                await self._request(stimulus, outcome)
            case Socket():
                await self._socket(stimulus, outcome)
            case Emission():
                args = [value_of(form, self.find) for form in stimulus.args]
                first = forms_of(args[:1])
                emit = host.bus.gather if stimulus.gathered else host.bus.emit
                result = await emit(stimulus.event, *args)
                forms = mask(forms_of([result]))
                same = forms == mask(first)
                outcome.value = None if same else forms
                outcome.alike = [*map(mask, outcomes_of(result)), *([None] if same else [])]
            case Command():
                given = [value_of(form, self.find) for form in stimulus.args]
                named = value_of(stimulus.named, self.find)
                result = await host.run_command(stimulus.name, *given, **named)
                outcome.value = mask(forms_of([result]))
                outcome.alike = [*map(mask, outcomes_of(result))]
            case Step():
                await self._step(stimulus)

    async def _step(self, step: Step) -> None:
        host, name = self._host, step.plugin
        if step.step == "load":
            if host.get_plugin(name) is None:
                await host.load_plugin(name)
        elif step.step == "reload":
            await host.reload_plugin(name)
        elif step.step == "unload":
            with contextlib.suppress(NotFoundError):
                await host.unload_plugin(name, cascade=True)
        else:
            await host.toggle_plugin(name, step.step == "activate", cascade=True)

    async def _request(self, request: Request, outcome: Outcome) -> None:
        body = b"" if request.body is None else _bytes_of(request.body)
        skipped = {"content-length", "transfer-encoding"}
        headers = [pair for pair in request.headers if pair[0] not in skipped]
        answer = await self._clients.request(
            self._host.asgi, request.method, request.url, body, headers
        )
        outcome.status = answer.status
        outcome.value = answer.body

    async def _socket(self, recorded: Socket, outcome: Outcome) -> None:
        sent: list[Any] = []
        try:
            async with self._clients.websocket(
                self._host.asgi,
                recorded.url,
                headers=[pair for pair in recorded.headers if not pair[0].startswith("sec-")],
                subprotocols=recorded.subprotocols,
                timeout=4 * _PATIENCE,
            ) as socket:
                for form in recorded.received:
                    await socket.send(value_of(form))
                while len(sent) < len(recorded.sent) or recorded.closed is not None:
                    sent.append(await socket.receive())
        except self._clients.closed as closed:
            status = getattr(closed, "status", None)
            outcome.status = status or getattr(closed, "code", None)
        except TimeoutError:
            outcome.raised = "TimeoutError"
        outcome.value = forms_of(sent)

    def find(self, module: str, name: str) -> object:
        """Return the class of a recorded object; see `find_class`."""
        return find_class(self._host, module, name)


def _took(stimulus: Stimulus, failures: Sequence[Failure]) -> float:
    """Return how long it took until the last of its failures, in seconds."""
    return max((one.at - stimulus.at for one in failures), default=0) / 1e9


def _bytes_of(form: Any) -> bytes:
    value = value_of(form)
    return value if isinstance(value, bytes) else str(value).encode()


def _roots(recording: Recording) -> dict[int, list[Failure]]:
    """Return the failures of each stimulus."""
    found: dict[int, list[Failure]] = {}
    for failure in recording.failures:
        above = recording.ancestors(failure)
        if above:
            found.setdefault(above[-1].number, []).append(failure)
    return found


def _recorded(stimulus: Stimulus, failures: Sequence[Failure]) -> Outcome:
    outcome = Outcome(failures=sorted(map(label_of_failure, failures)))
    match stimulus:
        case Request():
            outcome.status, outcome.value = stimulus.status, stimulus.answer
        case Socket():
            outcome.status, outcome.value = stimulus.closed, stimulus.sent
        case Emission() | Command():
            outcome.value, outcome.raised = stimulus.outcome, stimulus.failed
        case Step():
            pass
    return outcome


def _differences(stimulus: Stimulus, before: Outcome, now: Outcome) -> list[Difference]:
    what = label_of(stimulus)
    found: list[Difference] = []

    def compare(aspect: str, old: Any, new: Any) -> None:
        if old != new:
            found.append(Difference(what, aspect, _shown(old), _shown(new)))

    compare("failures", before.failures, now.failures)
    if isinstance(stimulus, Request | Socket):
        compare("status", before.status, now.status)
    if isinstance(stimulus, Request):
        if before.status == now.status:
            old, new = _comparable(before.value, stimulus), _comparable(now.value, stimulus)
            if old is not None and new is not None:
                compare("body", old, new)
    elif isinstance(stimulus, Socket):
        compare("messages", before.value, now.value)
    elif isinstance(stimulus, Emission | Command):
        compare("error", before.raised, now.raised)
        if before.raised is None and now.raised is None and not _opaque(before.value):
            alike = before.value in now.alike
            compare("result", before.value, before.value if alike else now.value)
    else:
        compare("error", None, now.raised)
    return found


def _comparable(body: Any, request: Request) -> Any:
    """Return the body of an answer, masked and parsed, or `None` if it was not recorded whole."""
    if isinstance(body, dict):
        if "$opaque" in body:
            return None
        body = value_of(body)
    if isinstance(body, bytes):
        try:
            body = body.decode()
        except UnicodeDecodeError:
            return body
    if "json" in request.kind_of_answer and body:
        try:
            return mask(msgspec.json.decode(body))
        except msgspec.DecodeError:
            return body
    return mask(body or "")


def _opaque(form: Any) -> bool:
    return "$opaque" in str(form)


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        text = "; ".join(value)
    elif value is None or value == []:
        text = "none"
    else:
        text = (
            value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
        )
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
