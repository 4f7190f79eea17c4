"""A Python worker from a real launcher, and a host that does what its protocol asks for."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from veko_plugins.remote.launcher import Launcher, Process
from veko_plugins.remote.protocol import Connection
from veko_plugins.remote.python.errors import across
from veko_plugins.remote.python.kinds import Marked, kinds, stored
from veko_plugins.remote.python.runtime import MODULES, Python

SECONDS = 20.0
_VERBS = (
    "add_route", "add_websocket", "add_middleware", "hook", "add_command", "provide", "remove",
)  # fmt: skip


class Host:
    """One worker's host: keeps what the worker registers, and calls it.

    Attributes:
        order: What the worker registered, in order: verb, then key.
        functions: The functions that it registered, by verb and key.
        removed: The numbers that it removed.
        logged: What it logged.
        records: Its records of the standard library's logging.
        failed: What failed in its tasks.
        writes: What it wrote to its storage.
        refuse: The error for registrations that it makes later, or `None`.
        answers: What the host's methods answer, by name.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.connection: Connection
        self.order: list[tuple[str, object]] = []
        self.functions: dict[tuple[str, object], Any] = {}
        self.more: dict[tuple[str, object], tuple[Any, ...]] = {}
        self.removed: list[int] = []
        self.logged: list[tuple[Any, ...]] = []
        self.records: list[tuple[Any, ...]] = []
        self.failed: list[tuple[Any, str]] = []
        self.writes: list[tuple[dict[str, Any], list[str], bool]] = []
        self.noted: list[tuple[str, ...]] = []
        self.refuse: Exception | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}
        self._news = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the worker's messages have made something true."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def _heard(self, note: Callable[..., Any]) -> Callable[..., None]:
        def heard(*args: Any) -> None:
            note(*args)
            self._news.set()

        return heard

    @property
    def notes(self) -> dict[str, Callable[..., Any]]:
        def registering(verb: str) -> Callable[..., None]:
            return lambda number, *rest: self._register(verb, number, *rest)

        found = {verb: registering(verb) for verb in _VERBS} | {
            "log": lambda *args: self.logged.append(args[:4]),  # and the call in which it did
            "record": lambda *args: self.records.append(args),
            "failed": lambda error, handler: self.failed.append((error, handler)),
            "used": lambda *args: self.noted.append(("used", *args)),
            "denied": lambda *args: self.noted.append(("denied", *args)),
        }
        return {name: self._heard(note) for name, note in found.items()}

    @property
    def methods(self) -> dict[str, Callable[..., Any]]:
        def answering(name: str) -> Callable[..., Any]:
            async def answer(*args: Any) -> Any:
                self.asked.append((name, *args))
                found = self.answers.get(name)
                return await found(*args) if callable(found) else found

            return answer

        names = ("emit", "use", "when", "service_call", "plugin_call", "update_config")
        return {name: answering(name) for name in names} | {
            verb: self._late(verb) for verb in _VERBS
        } | {"storage": self._store}  # fmt: skip

    def _late(self, verb: str) -> Callable[..., Awaitable[None]]:
        async def register(number: int, *rest: Any) -> None:
            await asyncio.sleep(0)
            if self.refuse is not None:
                raise self.refuse
            self._register(verb, number, *rest)

        return register

    def _register(self, verb: str, number: int, *rest: Any) -> None:
        if verb == "remove":
            self.removed.append(number)
            self._news.set()
            return
        index = next((i for i, one in enumerate(rest) if callable(one)), 1)
        key: object = {0: number, 1: rest[0]}.get(index, tuple(rest[:index]))
        self.order.append((verb, key))
        self.functions[verb, key] = rest[index]
        self.more[verb, key] = (number, *rest)

    async def _store(self, changes: dict[str, Any], deleted: list[str], clear: bool) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.writes.append((changes, deleted, clear))

    async def call(self, method: str, *args: Any) -> Any:
        async with asyncio.timeout(SECONDS):
            return await across(self.connection.call(method, *args))

    async def run(self, verb: str, key: object, *args: Any) -> Any:
        """Call what it registered."""
        async with asyncio.timeout(SECONDS):
            return await across(self.functions[verb, key](*args))

    async def request(self, path: str, *, method: str = "GET", route: str = "", **more: Any) -> Any:
        """Send a request to its route; returns status, headers, body and state."""
        where = (method, route or path.partition("?")[0])
        status, headers, body, state = await self.run("add_route", where, request(path, **more))
        if body is not None and not isinstance(body, bytes):
            body = [chunk async for chunk in body]
        return status, dict(headers), body, state

    async def ends(self) -> int:
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


def request(path: str = "/", method: str = "GET", **more: Any) -> Marked:
    """Return a request as it crosses the border."""
    plain, _, _ = path.partition("?")
    return Marked("request", {
        "method": method, "url": path, "path": plain, "scheme": "http", "host": "test:80",
        "params": {}, "headers": {"host": "test"}, "ip": "10.0.0.1", "port": 7, "body": None,
        "state": {}, **more,
    })  # fmt: skip


Start = Callable[..., Awaitable[Host]]


@pytest.fixture(scope="module")
async def launcher() -> AsyncIterator[Launcher]:
    async with Launcher(MODULES) as launcher:
        yield launcher


@pytest.fixture
async def start(launcher: Launcher, tmp_path: Path) -> AsyncIterator[Start]:
    """Start a worker with a plugin of this text, loaded and activated unless said otherwise."""
    hosts: list[Host] = []

    async def start(text: str, *, steps: int = 2, config: object = None, **facts: Any) -> Host:
        path = tmp_path / "shop.py"
        text = textwrap.dedent(text)
        if "version = " not in text:
            text = f'name, version = "shop", "1.0.0"\n{text}'
        path.write_text(text)
        granted = facts.pop("granted", None)
        channel, confine = facts.pop("channel", None), facts.pop("confine", None)
        with (tmp_path / "stderr.txt").open("ab") as stderr:
            sock, process = await Python().start(
                confine,
                launcher=launcher,
                directory=tmp_path,
                stderr=stderr.fileno(),
                channel=channel,
            )
        host = Host(process)
        hosts.append(host)
        plain = {kind: lambda found: found for kind in ("request", "response", "route")}
        host.connection = Connection(
            sock, methods=host.methods, notes=host.notes, kinds=kinds(plain)
        )
        plugin = {"name": "shop", "path": str(path), "kind": "python"}
        await host.connection.open({"plugin": plugin}, timeout=SECONDS)
        host.answers["description"] = await host.call("describe", {"grants": granted})
        setup = {"config": config or {}, "storage": stored(facts.pop("storage", {})), **facts}
        if steps > 0:
            await host.call("load", setup)
        if steps > 1:
            await host.call("activate")
        return host

    yield start
    for host in hosts:
        with contextlib.suppress(Exception):
            host.connection.note("shutdown")
        await host.ends()
        await host.connection.close()
