"""Workers driven over the wire as the host drives them, without the host."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from veko_plugins.remote.deno import JavaScript, find
from veko_plugins.remote.protocol import Connection, Kinds

SECONDS = 20.0


class Marked:
    """A value of a kind that the host knows."""

    def __init__(self, kind: str, data: dict[str, Any]) -> None:
        self.kind = kind
        self.data = data

    def __getitem__(self, name: str) -> Any:
        return self.data[name]


KINDS = Kinds(
    encode={Marked: lambda value: (value.kind, value.data)},
    decode={
        kind: (lambda data, kind=kind: Marked(kind, data))
        for kind in ("request", "response", "route", "plugin", "socket")
    },
)


def request(
    method: str = "GET",
    url: str = "/",
    *,
    params: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    body: Any = None,
    state: dict[str, Any] | None = None,
) -> Marked:
    """A request as the host sends it; a body that is data is sent as JSON."""
    headers = {"host": "localhost:8000"} | (headers or {})
    if isinstance(body, dict | list):
        body = json.dumps(body).encode()
        headers.setdefault("content-type", "application/json")
    path, _, query = url.partition("?")
    return Marked(
        "request",
        {
            "method": method,
            "url": url,
            "path": path,
            "scheme": "http",
            "host": "localhost:8000",
            "params": params or {},
            "query": dict(part.split("=") for part in query.split("&") if part),
            "headers": headers,
            "ip": "127.0.0.1",
            "body": body,
            "state": state or {},
        },
    )


class Answer:
    """What a handler answered."""

    def __init__(self, wire: list[Any]) -> None:
        self.status, self.pairs, self.body, self.state = wire
        self.headers = {name.lower(): value for name, value in self.pairs}

    @property
    def text(self) -> str:
        return self.body.decode() if isinstance(self.body, bytes) else self.body or ""

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Worker:
    """A worker, and what it registered and noted."""

    def __init__(self) -> None:
        self.connection: Connection
        self.process: asyncio.subprocess.Process
        self.routes: dict[tuple[str, str], Callable[..., Awaitable[Any]]] = {}
        self.middlewares: list[Callable[..., Awaitable[Any]]] = []
        self.sockets: dict[str, Callable[..., Awaitable[Any]]] = {}
        self.hooks: dict[str, list[Callable[..., Awaitable[Any]]]] = {}
        self.commands: dict[str, tuple[Any, str, list[dict[str, Any]]]] = {}
        self.services: dict[str, Any] = {}
        self.registered: dict[int, tuple[dict[Any, Any] | list[Any], Any]] = {}
        self.logs: list[tuple[str, str]] = []
        self.failures: list[tuple[Any, str]] = []
        self.denied: list[tuple[str, str, str]] = []
        self.stored: dict[str, Any] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Callable[..., Any]] = {}
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    # -- what the worker may call

    def notes(self) -> dict[str, Callable[..., Any]]:
        return {
            "log": lambda level, message, details, fields: self.logs.append((level, message)),
            "denied": lambda *denied: self.denied.append(denied),
            "failed": lambda error, where: self.failures.append((error, where)),
            "storage": self._store,
            "add_route": lambda rid, method, path, fn, _: self.routes.update({(method, path): fn}),
            "add_middleware": lambda rid, fn, priority: self.middlewares.append(fn),
            "add_websocket": lambda rid, path, fn: self.sockets.update({path: fn}),
            "hook": self._hook,
            "add_command": lambda rid, name, *rest: self.commands.update({name: rest}),
            "provide": lambda rid, name, value: self.services.update({name: value}),
            "remove": self._remove,
        }

    def methods(self) -> dict[str, Callable[..., Any]]:
        names = ("emit", "use", "when", "service_call", "plugin_call", "update_config",
                 "run_command")  # fmt: skip
        return {"storage": self._store} | {name: self._answer(name) for name in names}

    def _answer(self, name: str) -> Callable[..., Any]:
        def answer(*args: Any) -> Any:
            self.calls.append((name, *args))
            return self.answers[name](*args) if name in self.answers else None

        return answer

    def _store(self, changes: dict[str, Any], deleted: list[str], clear: bool) -> None:
        if clear:
            self.stored.clear()
        self.stored.update(changes)
        for key in deleted:
            self.stored.pop(key, None)

    def _hook(self, rid: int, event: str, fn: Any, options: dict[str, Any]) -> None:
        self.hooks.setdefault(event, []).append(fn)
        self.registered[rid] = (self.hooks[event], fn)

    def _remove(self, rid: int) -> None:
        kept, fn = self.registered[rid]
        assert isinstance(kept, list)
        kept.remove(fn)

    # -- driving it

    async def call(self, method: str, *args: Any) -> Any:
        async with asyncio.timeout(SECONDS):
            return await self.connection.call(method, *args)

    async def load(self, config: Any = None, **setup: Any) -> dict[str, Any]:
        """Describe and load the plugin, and return the description."""
        described = await self.call("describe", {})
        default = described["fields"].get("defaultConfig", {})
        await self.call(
            "load",
            {
                "config": default | (config or {}),
                "storage": {},
                "plugins": [],
                "exports": {},
                "app": {"name": "test", "dev_mode": True, "directory": "/"},
                "services": [],
            }
            | setup,
        )
        return dict(described)

    async def send(self, method: str, url: str, route: str | None = None, **options: Any) -> Answer:
        """Send a request to a route of the plugin's."""
        handler = self.routes[method, route or url.partition("?")[0]]
        async with asyncio.timeout(SECONDS):
            return Answer(await handler(request(method, url, **options)))

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait for a note of the worker's."""
        async with asyncio.timeout(SECONDS):
            while not true():  # noqa: ASYNC110 (notes are counted by many tests, each in its way)
                await asyncio.sleep(0.001)


@pytest.fixture(scope="session", params=["deno", "node"])
def runtime(request: pytest.FixtureRequest) -> JavaScript:
    """Both runtimes: Node comes with the type checkers that the tests need anyway."""
    return find(request.param)


@pytest.fixture(scope="session")
def npm() -> Path:
    """The node_modules that `make test` installs from tests/npm."""
    path = Path(sys.prefix) / "npm" / "node_modules"
    if not path.is_dir():
        message = f"{path} is missing: `make test` installs the packages of tests/npm there"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return path


Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start(runtime: JavaScript, tmp_path: Path) -> AsyncIterator[Start]:
    """Start a worker for a plugin, given as the text of its file."""
    running: list[Worker] = []

    async def started(text: str | None, name: str = "p.js") -> Worker:
        path = tmp_path / name
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        worker = Worker()
        environment = dict(os.environ) | {"DENO_DIR": str(tmp_path / "deno")}
        command = runtime.command(environment=environment, directory=tmp_path)
        assert command.argv is not None
        ours, theirs = socket.socketpair()
        with theirs:
            worker.process = await asyncio.create_subprocess_exec(
                *command.argv, stdin=theirs, stdout=theirs, env=command.env, cwd=command.cwd
            )
        worker.connection = Connection(
            ours, methods=worker.methods(), notes=worker.notes(), kinds=KINDS,
            lost=lambda error: worker.lost.done() or worker.lost.set_result(error),
        )  # fmt: skip
        running.append(worker)
        plugin = {"name": path.stem, "path": str(path), "kind": "script"}
        await worker.connection.open({"plugin": plugin, "dev_mode": True}, timeout=SECONDS)
        return worker

    yield started
    for worker in running:
        await worker.connection.close()
        with contextlib.suppress(ProcessLookupError):
            worker.process.kill()
        await worker.process.wait()
