"""The worker on the reference page of the protocol, started and called as the host would."""

import asyncio
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from veko_plugins.remote.protocol import Connection, Kinds, RemoteError

PAGE = Path(__file__).parents[4] / "docs/reference/remote-protocol.md"


class Request(dict[str, Any]):
    """A request as the host sends it."""


async def test_the_worker_of_the_page_works(tmp_path: Path) -> None:
    found = re.search(r"^```python\n# worker\.py\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert found is not None
    assert found[1].count("\n") <= 80
    file = tmp_path / "worker.py"
    file.write_text(found[1], "utf-8")
    registered: list[Any] = []
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(file), stdin=theirs, stdout=theirs
        )
    host = Connection(
        ours,
        methods={},
        notes={
            "hook": lambda *args: registered.append(args),
            "add_route": lambda *args: registered.append(args),
        },
        kinds=Kinds(encode={Request: lambda request: ("request", dict(request))}),
        other="the worker of tiny",
    )
    plugin = {"name": "tiny", "path": str(file), "kind": "script"}
    hello = await host.open({"plugin": plugin}, timeout=20)
    assert hello["runtime"] == "tiny 1.0"
    described = await host.call("describe", {"path": str(file), "name": "tiny"})
    assert described["fields"] == {"name": "tiny", "version": "1.0.0"}
    await host.call("load", {"config": {}, "storage": None})
    (_, event, hook, _), (_, method, path, handler, _) = registered
    assert (event, method, path) == ("order:placed", "GET", "/hello/:name")
    assert await hook({"id": 7}) == [{"id": 7, "counted": True}, None]
    answer = await handler(Request(method="GET", params={"name": "ada"}, body=None))
    assert answer == [200, [["content-type", "text/plain"]], "hello ada", {}]
    with pytest.raises(RemoteError, match="'name'") as raised:
        await handler(Request(params={}))
    assert raised.value.type == "KeyError"
    assert await host.ping(5) < 5
    host.note("shutdown")
    assert await asyncio.wait_for(process.wait(), 10) == 0
    await host.close()
