"""Samples: whose code runs while the process uses processor time.

Timing every call exactly costs 0.3 µs and more each, and must follow every task and thread. Samples
cost the same however many calls there are. The clocks of the operating system say exactly how much
processor time the loop's thread and all others used; samples only say how to divide it. So the sums
are exact, and the division is statistical: with `n` samples, a payer with the share `p` is off by
about sqrt(p * (1 - p) / n): by 1.6% of the process's time for one half, after ten seconds of
processor time.

On the main thread, a timer of the operating system counts the processor time of the process and
sends SIGPROF after each interval; Python calls the handler between two instructions of whatever
runs. A process that does nothing gets no signal. A thread that looks from outside would get the
interpreter's lock mostly when the loop waits or writes to a socket, and hardly ever see a short
handler; it is used only where signals cannot be: if the loop runs in another thread, on Windows, or
if something else uses SIGPROF.

Every sample counts the same. Linux looks at the timer when its clock ticks; weighing a sample by
what was used since the one before would charge too little to short work that follows a wait, since
less was used before a tick that hits it (test_short_work_after_a_wait_is_seen).

Cost: about 9 µs a sample, so 0.1% at 100 samples a second of processor time
(`benchmarks/ledger.py`).
Promise: the handler takes no lock, and raises nothing.
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Literal

from .stacks import HOST, Payer

__all__ = ["Sampler"]

_BY_THREAD: Final = sys.platform == "linux"
_IDLE: Final = 10
"""The thread waits up to this many intervals while little happens."""
_MOST: Final = 10_000
"""Payers; beyond that, routes are not told apart."""
_FEW: Final = 50
"""Samples that are too few to divide by for good."""


class _Lane:
    """The processor time of one or several threads, and who shares it.

    Attributes:
        used: Nanoseconds in all, at the last sample.
        hits: What samples have seen since the last division, by payer.
    """

    __slots__ = ("_divided", "hits", "used")

    def __init__(self) -> None:
        self.used = self._divided = 0
        self.hits: dict[Payer, float] = {}

    def hit(self, payer: Payer, weight: float) -> None:
        if len(self.hits) >= _MOST and payer not in self.hits:
            payer = Payer(payer.plugin)
        self.hits[payer] = self.hits.get(payer, 0.0) + weight

    def divide(self, among: dict[Payer, int], *, keep: bool) -> None:
        """Divide what was used since the last division.

        Args:
            among: Nanoseconds by payer, to which the parts are added.
            keep: Whether that is for good.
        """
        # A signal may add a hit between any two lines here.
        hits, used = dict(self.hits), self.used
        whole = sum(hits.values())
        if not whole:
            return
        new = used - self._divided
        for payer, weight in hits.items():
            among[payer] = among.get(payer, 0) + int(new * weight / whole)
        if keep:
            self.hits, self._divided = {}, used


class Sampler:
    """Divides the processor time of the process among payers.

    Args:
        payer: Returns who pays for what a stack does.
        interval: Seconds of processor time between samples.
        failed: Called with what `payer` raised; sampling has ended then.

    Attributes:
        samples: How many samples were taken.
        method: How samples are taken.
    """

    def __init__(
        self,
        payer: Callable[[FrameType | None], Payer],
        interval: float,
        failed: Callable[[Exception], None],
    ) -> None:
        self._payer = payer
        self._interval = interval
        self._failed = failed
        self._process = self._own = self._begun = self._loop = 0
        self._threads: dict[int, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._main, self._others = _Lane(), _Lane()
        self._spent: dict[Payer, int] = {}
        self._since = 0
        self.samples = 0
        self.method: Literal["signal", "thread"] = "signal"

    def start(self) -> None:
        """Begin, in the loop's thread. What the process used before is not counted."""
        self._threads = _used_by_threads()
        self._loop = threading.get_ident()
        self._own = time.thread_time_ns()
        self._process = self._begun = time.process_time_ns()
        if _signals_are_free():
            signal.signal(signal.SIGPROF, self._signalled)
            # Calls of C libraries that wait are continued instead of interrupted.
            signal.siginterrupt(signal.SIGPROF, False)
            signal.setitimer(signal.ITIMER_PROF, self._interval, self._interval)
            # Python resets handlers at its end, and the next signal would end the process
            # (test_a_process_that_never_stops_its_ledger_ends_well).
            atexit.register(_disarm)
        else:
            self._start_thread()

    def _start_thread(self) -> None:
        self.method = "thread"
        self._threads = _used_by_threads()
        self._thread = threading.Thread(target=self._run, name="veko-ledger", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join(timeout=5.0)
        elif self._holds_signal():
            _disarm()
            atexit.unregister(_disarm)

    def _holds_signal(self) -> bool:
        return signal.getsignal(signal.SIGPROF) == self._signalled

    def check(self) -> None:
        """Use a thread if something else has taken the signal since."""
        if self._thread is None and not self._holds_signal():
            atexit.unregister(_disarm)
            self._start_thread()

    def total(self) -> int:
        """Return the nanoseconds of processor time since `start`, whether divided yet or not."""
        time.thread_time_ns()  # brings the process's time up to date; see `_sample`
        return time.process_time_ns() - self._begun

    def spent(self) -> dict[Payer, int]:
        """Return the nanoseconds of processor time up to the last sample, by payer."""
        # Few samples are divided again together with later ones.
        keep = self.samples - self._since >= _FEW
        found = self._spent if keep else dict(self._spent)
        if keep:
            self._since = self.samples
        self._main.divide(found, keep=keep)
        self._others.divide(found, keep=keep)
        return dict(found) if keep else found

    def forget(self, plugin: str) -> int:
        """Forget a plugin; return the nanoseconds of processor time that it has used."""
        for lane in (self._main, self._others):
            lane.divide(self._spent, keep=True)
        gone = [payer for payer in self._spent if payer.plugin == plugin]
        return sum(self._spent.pop(payer) for payer in gone)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        try:
            self._sample(frame)
        except Exception as error:
            _disarm()
            self._failed(error)

    def _sample(self, frame: FrameType | None) -> None:
        # In this order: the kernel adds up a process's time at its ticks, and when the time of a
        # thread is read. The other way round, this thread used more than the process.
        own, process = time.thread_time_ns(), time.process_time_ns()
        used, mine = process - self._process, own - self._own
        if used <= 0:
            return
        part = min(1.0, mine / used)
        self._main.hit(self._payer(frame), part)
        if part < 0.97:
            self._look_at_threads(used, 1.0 - part, but=self._loop)
        else:
            self._others.hit(HOST, 1.0 - part)
        self._main.used += mine
        self._others.used += used - mine
        self._process, self._own = process, own
        self.samples += 1

    def _look_at_threads(self, used: int, part: float, but: int | None) -> None:
        """Count what threads do.

        Args:
            used: Nanoseconds that the process used since the last sample.
            part: The part of it that these threads used, from 0 to 1.
            but: The identity of a thread that is not among them.
        """
        frames = sys._current_frames()
        # This frame would hold itself, and with it all that called it, until the collector runs:
        # an unload would wait for an emission that has ended
        # (test_samples_keep_no_emission_alive).
        del frames[threading.get_ident()]
        before, now = self._threads, _used_by_threads()
        self._threads = now
        grown = {
            ident: max(0, spent - before.get(ident, 0)) / used
            for ident, spent in now.items()
            if ident != but
        }
        # Clocks are not read at each sample, and never all at once.
        whole = sum(grown.values())
        scale = min(1.0, part / whole) if whole else 0.0
        for ident, weight in grown.items():
            if weight:
                self._others.hit(self._payer(frames.get(ident)), weight * scale)
        self._others.hit(HOST, max(0.0, part - whole * scale))

    def _run(self) -> None:
        wait = self._interval
        while not self._stopping.wait(wait):
            now = time.process_time_ns()
            used = now - self._process
            if used < wait * 1e8:  # less than a tenth of a core
                wait = min(2 * wait, _IDLE * self._interval)
                continue
            wait = self._interval
            try:
                if _BY_THREAD:
                    self._look_at_threads(used, 1.0, but=None)
                else:
                    self._others.hit(self._payer(sys._current_frames().get(self._loop)), 1.0)
            except Exception as error:
                self._failed(error)
                return
            self._others.used += used
            self._process = now
            self.samples += 1


def _used_by_threads() -> dict[int, int]:
    """Return the processor time of each thread of Python, in ns, by its identity."""
    found: dict[int, int] = {}
    for thread in threading.enumerate() if _BY_THREAD else ():
        if thread.ident is not None and thread.native_id is not None:
            try:
                # Not `time.pthread_getcpuclockid`: it reads the memory of the thread, which may
                # have ended. This is Linux's number of its clock.
                spent = time.clock_gettime_ns((~thread.native_id << 3) | 6)
            except OSError:  # it has ended
                continue
            found[thread.ident] = spent
    return found


def _signals_are_free() -> bool:
    """Return whether SIGPROF can be used: on the main thread, and by nothing else."""
    if not hasattr(signal, "setitimer"):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    handler: Any = signal.getsignal(signal.SIGPROF)
    return handler is signal.SIG_DFL and signal.getitimer(signal.ITIMER_PROF)[0] == 0


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    # A signal that is pending would end the process under SIG_DFL; ignoring it discards it.
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
