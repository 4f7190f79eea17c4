"""What does a guard cost a request, and how many logins does an application take?

    python benchmarks/auth.py [--quick]

The application is called as a server would call it, with nothing behind `send`. A guarded request
is measured beside the same route without a guard, with the token in a header and in a cookie, and
beside a dependency that checks the same token's signature with joserfc each time and looks nothing
up. Logins run eight at once, beside bare argon2id with the same parameters and as many threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
from _harness import Batch, batch, compare, pin
from joserfc import jwt
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from veko_plugins import HTTPError, PluginManager, Request
from veko_plugins.auth import Auth
from veko_plugins.auth.cookies import ACCESS

NAME, PASSWORD = "joe", "correct horse"
COMMON = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"wrk"), (b"accept", b"*/*")]


def load(context: Any) -> None:
    auth: Auth = context.use("auth")

    async def hello(request: Request) -> dict[str, str]:
        return {"hello": "world"}

    async def by_hand(request: Request, call_next: Any) -> Any:
        token = request.headers.get("authorization", "").partition(" ")[2]
        _, key = auth.keys.newest()
        found = jwt.decode(token, key, algorithms=["HS256"])
        if found.claims["exp"] < time.time():
            raise ValueError("expired")
        request.state["user"] = found.claims["sub"]
        return await call_next(request)

    async def nothing(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    context.add_route("GET", "/open", hello)
    context.add_route("GET", "/nothing", nothing, hello)
    context.add_route("GET", "/guarded", auth.require(), hello)
    context.add_route("GET", "/admin", auth.require("posts:write"), hello)
    context.add_route("GET", "/hand", by_hand, hello)


async def ask(app: Any, path: str, headers: list[tuple[bytes, bytes]]) -> int:
    status = 0

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(
        {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
            "query_string": b"", "headers": headers, "state": {},
            "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 8_000),
        },
        receive,
        send,
    )  # fmt: skip
    assert status == 200, (path, status)
    return status


async def requests(manager: PluginManager, seconds: float) -> None:
    auth: Auth = manager.use("auth")
    tokens = await auth.login(NAME, PASSWORD)
    header = [*COMMON, (b"authorization", f"Bearer {tokens.access_token}".encode())]
    cookie = [*COMMON, (b"cookie", f"__Host-{ACCESS}={tokens.access_token}".encode())]
    kinds = {
        "no guard": ("/open", header),
        "a middleware that does nothing": ("/nothing", header),
        "a signature by hand": ("/hand", header),
        "a guard, token in the header": ("/guarded", header),
        "a guard, token in a cookie": ("/guarded", cookie),
        "a guard for a permission": ("/admin", header),
    }
    for path, headers in kinds.values():
        for _ in range(1_500):  # past the threshold for compiling a plan
            await ask(manager.asgi, path, headers)

    async def make() -> dict[str, Batch]:
        return {
            kind: batch("await ask(app, path, headers)", ask=ask, app=manager.asgi, path=path,
                        headers=headers)
            for kind, (path, headers) in kinds.items()
        }  # fmt: skip

    timings = await compare(make, seconds=seconds, batch_ns=4_000_000, lives=1)
    for kind in kinds:
        spent, more = timings.median(kind), timings.difference(kind, "no guard")
        print(f"{kind:<32}{spent / 1000:8.1f} us{more / 1000:+8.1f} us")


async def rate(work: Callable[[], Awaitable[Any]], seconds: float) -> float:
    """Return how often something is done in a second, eight at once."""
    done, begin = 0, time.perf_counter()

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() - begin < seconds:
            await work()
            done += 1

    await asyncio.gather(*(repeat() for _ in range(8)))
    return done / (time.perf_counter() - begin)


async def logins(manager: PluginManager, seconds: float) -> None:
    auth: Auth = manager.use("auth")
    hasher = PasswordHash((Argon2Hasher(),))
    hashed, limiter = hasher.hash(PASSWORD), anyio.CapacityLimiter(2)

    async def bare() -> None:
        await anyio.to_thread.run_sync(hasher.verify, PASSWORD, hashed, limiter=limiter)

    async def login() -> None:
        await auth.login(NAME, PASSWORD)

    async def refuse() -> None:
        with contextlib.suppress(HTTPError):
            await auth.login("nobody", PASSWORD)

    floor = 0.0
    for title, work in {"bare argon2id": bare, "logins": login, "of nobody": refuse}.items():
        found = await rate(work, seconds)
        floor = floor or found
        print(f"{title:<32}{found:8.1f} a second{found / floor:8.2f}")


async def main(quick: bool) -> None:
    with tempfile.TemporaryDirectory() as root:
        manager = PluginManager(
            root=Path(root), auth=True, auto_load=False, adapter="asgi", watchdog=0,
            plugins={
                "auth": {
                    "cookies": True, "attempts": 10**9, "roles": {"author": ["posts:*"]},
                    "access_lifetime": 10**6,
                }
            },
        )  # fmt: skip
        async with manager:
            await manager.load_plugin({"name": "app", "version": "1.0.0", "load": load})
            await manager.use("auth").register(NAME, PASSWORD, roles=("author",))
            cores = os.sched_getaffinity(0)
            pin()
            await requests(manager, 3 if quick else 20)
            os.sched_setaffinity(0, cores)
            await logins(manager, 3 if quick else 15)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    given = parser.parse_args()
    asyncio.run(main(given.quick))
