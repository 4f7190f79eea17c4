"""What surrounds a run: clocks, random numbers and threads that the simulation decides about.

Everything here acts only in a thread whose running loop is a simulated one; other threads, and this
one between two runs, see the real functions.

- `time.time`, `monotonic`, `perf_counter` (also `_ns`) and `time.sleep` are of the virtual time,
  also where a module holds them under a name of its own. `datetime.now()` is not: it is written in
  C and asks the system.
- `random`, `os.urandom` and with it `uuid.uuid4` and `secrets` depend on the seed.
- `anyio.to_thread.run_sync` runs in a task, as do `loop.run_in_executor` and thread pools.
- Threads are refused, and by an audit hook processes and sockets, whatever name calls them.
- Sets of tasks, futures and cancel scopes have one order in all processes. Sets of strings depend
  on PYTHONHASHSEED, as ever.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import anyio

from .decisions import Decisions
from .loop import SimulatedLoop
from .threads import executor_methods, simulated, thread_functions

__all__ = ["collect", "world"]

_EPOCH: Final = 1_767_225_600.0
"""2026-01-01 in UTC, when each run begins."""
_REFUSED: Final = frozenset({
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "subprocess.Popen", "os.system", "os.fork",
    "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn",
})  # fmt: skip
_hooked: list[bool] = []


def _clock(real: Callable[[], Any], base: float, unit: int) -> Callable[[], Any]:
    def now() -> Any:
        loop = simulated()
        if loop is None:
            return real()
        return int((base + loop.time()) * unit) if unit > 1 else base + loop.time()

    return now


def _sleep(real: Callable[[float], None]) -> Callable[[float], None]:
    def sleep(seconds: float, /) -> None:
        loop = simulated()
        if loop is None:
            real(seconds)
        else:
            loop.advance(seconds)

    return sleep


def _urandom(real: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def urandom(size: int, /) -> bytes:
        loop = simulated()
        return real(size) if loop is None else loop.decisions.values.randbytes(size)

    return urandom


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event in _REFUSED:
        loop = simulated()
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
    ]
    return pairs


@contextlib.contextmanager
def world() -> Iterator[None]:
    """Replace what a simulation decides about, as long as the block runs."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_audit)  # it cannot be removed, and does nothing outside runs
    pairs = [*_replacements(), *thread_functions()]
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
    scope_type = type(_a_scope())
    patched = [(scope_type, "__hash__", _hash_of_scope), *executor_methods()]
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in patched]
    for owner, name, method in patched:
        setattr(owner, name, method)
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
        for owner, name, method in before:
            if method is None:
                delattr(owner, name)
            else:
                setattr(owner, name, method)
        for names, name, value in changed:
            names[name] = value


def _hash_of_scope(scope: Any) -> int:
    loop = simulated()
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
