"""What surrounds a run: clocks, random numbers and threads that the simulation decides about.

Everything here acts only in a thread whose running loop is a simulated one; other threads, and this
one between two runs, see the real functions.

- `time.time`, `monotonic`, `perf_counter` (also `_ns`) and `time.sleep` are of the virtual time,
  also where a module holds them under a name of its own. `datetime.now()` is not: it is written in
  C and asks the system.
- `random`, `os.urandom` and with it `uuid.uuid4` and `secrets` depend on the seed.
- `anyio.to_thread.run_sync` runs in a task, as does `loop.run_in_executor`.
- Threads are refused, and by an audit hook processes and sockets, whatever name calls them.
- Sets of tasks, futures and cancel scopes have one order in all processes. Sets of strings depend
  on PYTHONHASHSEED, as ever.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from .decisions import Decisions
from .loop import SimulatedLoop

__all__ = ["collect", "world"]

_EPOCH: Final = 1_767_225_600.0
"""2026-01-01 in UTC, when each run begins."""
_REFUSED: Final = frozenset({
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "subprocess.Popen", "os.system", "os.fork",
    "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn",
})  # fmt: skip
_hooked: list[bool] = []


def _simulated() -> SimulatedLoop | None:
    loop = asyncio._get_running_loop()
    return loop if isinstance(loop, SimulatedLoop) else None


def _clock(real: Callable[[], Any], base: float, unit: int) -> Callable[[], Any]:
    def now() -> Any:
        loop = _simulated()
        if loop is None:
            return real()
        return int((base + loop.time()) * unit) if unit > 1 else base + loop.time()

    return now


def _sleep(real: Callable[[float], None]) -> Callable[[float], None]:
    def sleep(seconds: float, /) -> None:
        loop = _simulated()
        if loop is None:
            real(seconds)
        else:
            loop.advance(seconds)

    return sleep


def _urandom(real: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def urandom(size: int, /) -> bytes:
        loop = _simulated()
        return real(size) if loop is None else loop.decisions.values.randbytes(size)

    return urandom


def _to_thread(real: Callable[..., Any]) -> Callable[..., Any]:
    async def run_sync(
        func: Callable[..., Any],
        *args: Any,
        abandon_on_cancel: bool = False,
        cancellable: bool | None = None,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> Any:
        loop = _simulated()
        if loop is None:
            options = {} if cancellable is None else {"cancellable": cancellable}
            return await real(
                func, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter, **options
            )
        abandon = abandon_on_cancel if cancellable is None else cancellable
        await anyio.lowlevel.checkpoint()
        async with limiter or anyio.to_thread.current_default_thread_limiter():
            with anyio.CancelScope(shield=not abandon):
                call = contextvars.copy_context().run
                name = getattr(func, "__qualname__", type(func).__name__)
                task = loop.create_task(loop.executed(call, (func, *args)), name=f"thread: {name}")
                return await task

    return run_sync


def _from_thread_sync(real: Callable[..., Any]) -> Callable[..., Any]:
    def run_sync(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        # What a simulated thread asks for runs at once: the "thread" is a task of the loop.
        return real(func, *args, **options) if _simulated() is None else func(*args)

    return run_sync


def _from_thread(real: Callable[..., Any]) -> Callable[..., Any]:
    def run(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        loop = _simulated()
        if loop is None:
            return real(func, *args, **options)
        raise loop.refuse(
            "anyio.from_thread.run()",
            "A simulated thread is a task that cannot wait. Make the function async instead.",
        )

    return run


def _start_thread(real: Callable[..., Any]) -> Callable[..., Any]:
    def start(*args: Any, **options: Any) -> Any:
        loop = _simulated()
        if loop is not None:
            raise loop.refuse("threading.Thread.start()")
        return real(*args, **options)

    return start


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        loop = _simulated()
        if loop is not None:
            raise loop.refuse(event)


def _replacements() -> list[tuple[Any, Any]]:
    """Each function that is replaced, and by which."""
    pairs: list[tuple[Any, Any]] = []
    for name, base in (("time", _EPOCH - 1_000.0), ("monotonic", 0.0), ("perf_counter", 0.0)):
        real, in_ns = getattr(time, name), getattr(time, f"{name}_ns")
        pairs += [(real, _clock(real, base, 1)), (in_ns, _clock(in_ns, base, 10**9))]
    pairs += [
        (time.sleep, _sleep(time.sleep)),
        (os.urandom, _urandom(os.urandom)),
        (anyio.to_thread.run_sync, _to_thread(anyio.to_thread.run_sync)),
        (anyio.from_thread.run_sync, _from_thread_sync(anyio.from_thread.run_sync)),
        (anyio.from_thread.run, _from_thread(anyio.from_thread.run)),
    ]
    # Python 3.11 does not audit them.
    for name in ("start_new_thread", "start_joinable_thread"):
        if hasattr(_thread, name):
            pairs.append((getattr(_thread, name), _start_thread(getattr(_thread, name))))
    return pairs


@contextlib.contextmanager
def world() -> Iterator[None]:
    """Replace what a simulation decides about, as long as the block runs."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_audit)  # it cannot be removed, and does nothing outside runs
    pairs = _replacements()
    by_id = {id(real): new for real, new in pairs}
    changed: list[tuple[dict[str, Any], str, Any]] = []
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict) or names is globals():
            continue
        for name, value in list(names.items()):
            if id(value) in by_id:
                changed.append((names, name, value))
                names[name] = by_id[id(value)]
    scope_type: Any = type(_a_scope())
    own_hash = vars(scope_type).get("__hash__")
    scope_type.__hash__ = _hash_of_scope
    state, collects, disabled = random.getstate(), gc.isenabled(), logging.root.manager.disable
    gc.collect()
    gc.freeze()
    gc.disable()  # garbage is collected between runs, not in the middle of one
    logging.disable(sys.maxsize)
    try:
        yield
    finally:
        logging.disable(disabled)
        if collects:
            gc.enable()
        gc.unfreeze()
        random.setstate(state)
        if own_hash is None:
            del scope_type.__hash__
        else:
            scope_type.__hash__ = own_hash
        for names, name, value in changed:
            names[name] = value


def _hash_of_scope(scope: Any) -> int:
    loop = _simulated()
    return object.__hash__(scope) if loop is None else loop.hash_of(scope)


def _a_scope() -> object:
    """Make a cancel scope of asyncio; outside a loop anyio cannot choose the type."""
    made: list[object] = []
    loop = SimulatedLoop(Decisions(0), steps=100)

    async def make() -> None:
        made.append(anyio.CancelScope())

    loop.run_until_complete(make())
    loop.close()
    return made[0]


def collect(number: int) -> None:
    """Collect garbage now and then: between runs, so that it disturbs none."""
    if number % 50 == 49:
        gc.collect()
