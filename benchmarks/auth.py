"""What does a guard cost a request, and how many logins does an application take?

    python benchmarks/auth.py [--seconds N] [--quick]

The application is called as a server would call it, with nothing behind `send`. A guarded request
is measured beside the same route without a guard, with the token in a header and in a cookie, and
beside a dependency that checks the same token's signature with joserfc each time and looks nothing
up. Logins run eight at once, beside bare argon2id with the same parameters and as many threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
from _apps import HEADERS, ask
from _harness import Batch, batch, compare, pinned
from _report import Report, progress, script
from joserfc import jwt
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from veko_plugins import HTTPError, PluginManager, Request
from veko_plugins.auth import Auth
from veko_plugins.auth.cookies import ACCESS

NAME, PASSWORD = "joe", "correct horse"


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


async def requests(report: Report, manager: PluginManager, seconds: float) -> None:
    auth: Auth = manager.use("auth")
    tokens = await auth.login(NAME, PASSWORD)
    header = [*HEADERS, (b"authorization", f"Bearer {tokens.access_token}".encode())]
    cookie = [*HEADERS, (b"cookie", f"__Host-{ACCESS}={tokens.access_token}".encode())]
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

    with pinned():
        timings = await compare(make, seconds=seconds, batch_ns=4_000_000, lives=1)
    rows = []
    for kind in kinds:
        spent, more = timings.median(kind), timings.difference(kind, "no guard")
        rows.append([kind, f"{spent / 1000:.1f} µs", f"{more / 1000:+.1f} µs"])
    report.table(["a request", "in all", "more than without a guard"], rows)


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


async def logins(report: Report, manager: PluginManager, seconds: float) -> None:
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

    rows, floor = [], 0.0
    for title, work in {"bare argon2id": bare, "logins": login, "of nobody": refuse}.items():
        progress(title)
        found = await rate(work, seconds / 3)
        floor = floor or found
        rows.append([title, f"{found:.1f} a second", f"{found / floor:.2f}×"])
    report.table(["eight at once", "", "of bare"], rows)


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure requests, then logins."""
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
            await requests(report, manager, given.seconds / 2)
            await logins(report, manager, given.seconds / 2)


if __name__ == "__main__":
    script(measure, seconds=8)
