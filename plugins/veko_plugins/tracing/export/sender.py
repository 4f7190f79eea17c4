"""The sender: encoded spans go to an OTLP collector over HTTP, from a thread of its own.

A collector that is down, slow or answers errors costs memory up to a bound and one line in the log,
never time of the event loop: what does not fit is dropped and counted. After a failure that may
pass (no connection, 429, 502, 503, 504) the same bytes are sent again, with pauses that double, or
as long as the collector says (`Retry-After`), up to `PAUSE` seconds; other answers mean that these
bytes will never be taken.
"""

from __future__ import annotations

import gzip
import http.client
import logging
import os
import ssl
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Mapping
from typing import Final

from veko import OptionError, __version__

__all__ = ["Sender"]

_log: Final = logging.getLogger("veko.tracing")
PAUSE: Final = 30.0
"""Seconds between two tries at most."""
_PASSING: Final = frozenset((429, 502, 503, 504))


class Sender:
    """Sends requests to a collector.

    Args:
        url: The collector: `http://localhost:4318`; `/v1/traces` is added where there is no path.
        headers: Headers of each request, for the collector's authentication.
        limit: Bytes that may wait.
        timeout: Seconds that the collector may take for an answer.
        compress: Whether to gzip what is sent; it costs more CPU than anything else here.

    Attributes:
        sent: Spans that the collector took.
        lost: Spans that were dropped.

    Raises:
        OptionError: The URL is none.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        limit: int = 32 * 2**20,
        timeout: float = 10.0,
        compress: bool = False,
    ) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("no scheme, or no host")
            self._address = parts.hostname, parts.port
        except ValueError as error:
            raise OptionError(
                f"otlp: {url!r} is not the URL of a collector: {error}",
                remedy="Give http://HOST:4318 (OTLP over HTTP); see also OTEL_EXPORTER_OTLP_*.",
            ) from error
        self.url = url
        self.sent = 0
        self.lost = 0
        self._secure = parts.scheme == "https"
        path = parts.path if parts.path not in ("", "/") else "/v1/traces"
        self._path = f"{path}?{parts.query}" if parts.query else path
        self._headers = {
            "content-type": "application/x-protobuf",
            "user-agent": f"veko/{__version__}",
            **(headers or {}),
        }
        if compress:
            self._headers["content-encoding"] = "gzip"
        self._compress = compress
        self._limit = limit
        self._timeout = timeout
        self._queue: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self._lock = threading.Condition()
        self._busy = False
        self._ending: float | None = None
        self._told = False
        self._connection: http.client.HTTPConnection | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._after = 0.0

    def put(self, body: bytes, spans: int) -> None:
        """Send a request soon.

        Args:
            body: The request.
            spans: How many spans are in it.
        """
        with self._lock:
            self._start()
            while self._queue and self._size + len(body) > self._limit:
                old, count = self._queue.popleft()
                self._size -= len(old)
                self.lost += count
            self._queue.append((body, spans))
            self._size += len(body)
            self._lock.notify_all()

    @property
    def waiting(self) -> bool:
        """Whether something is still to be sent."""
        with self._lock:
            return bool(self._queue) or self._busy

    def flush(self, seconds: float) -> bool:
        """Wait until all was sent or dropped; false if it took longer."""
        end = time.monotonic() + seconds
        with self._lock:
            return self._lock.wait_for(
                lambda: not (self._queue or self._busy), max(0.0, end - time.monotonic())
            )

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for so many seconds, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None or self._process != os.getpid():
                return
            self._ending = time.monotonic() + seconds
            self._lock.notify_all()
        thread.join(seconds + 1)
        with self._lock:
            self.lost += sum(count for _, count in self._queue)
            self._queue.clear()
            self._size = 0
            self._ending = None

    def _start(self) -> None:
        if self._thread is not None and self._process == os.getpid():
            return
        self._process = os.getpid()  # a forked child has no thread
        self._thread = threading.Thread(target=self._run, name="veko-otlp", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._lock:
                self._busy = False
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._queue or self._ending is not None)
                if not self._queue:
                    break
                body, count = self._queue.popleft()
                self._size -= len(body)
                self._busy = True
            again = self._send(body, count)
            if not again:
                pause = 0.0
                continue
            pause = min(PAUSE, max(pause * 2 or 0.5, self._after))
            with self._lock:
                if self._size + len(body) > self._limit:
                    self.lost += count
                else:
                    self._queue.appendleft((body, count))
                    self._size += len(body)
                self._busy = False
                over = self._wait(pause)
                if over:
                    break
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _wait(self, pause: float) -> bool:
        """Wait before the next try; true if there will be none."""
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            if self._ending is not None:
                if time.monotonic() >= self._ending or self._ending < until:
                    return True
                until = min(until, time.monotonic() + 0.2)
                left = until - time.monotonic()
            self._lock.wait(left)
        return False

    def _send(self, body: bytes, count: int) -> bool:
        """Send one request; true if it is to be tried again."""
        self._after = 0.0
        try:
            status = self._post(gzip.compress(body, 1) if self._compress else body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection = None
            self._complain(f"{type(error).__name__}: {error}", again=True)
            return True
        if 200 <= status < 300:
            self.sent += count
            if self._told:
                self._told = False
                _log.info("%s takes spans again; %d were dropped so far", self.url, self.lost)
            return False
        self._complain(f"it answers {status}", again=status in _PASSING)
        if status in _PASSING:
            return True
        self.lost += count
        return False

    def _post(self, body: bytes) -> int:
        for fresh in (self._connection is None, True):
            if self._connection is None:
                host, port = self._address
                self._connection = (
                    http.client.HTTPSConnection(
                        host, port, timeout=self._timeout, context=ssl.create_default_context()
                    )
                    if self._secure
                    else http.client.HTTPConnection(host, port, timeout=self._timeout)
                )
            connection: http.client.HTTPConnection = self._connection
            try:
                connection.request("POST", self._path, body, self._headers)
                answer = connection.getresponse()
                answer.read(65_536)
                after = answer.getheader("retry-after", "")
                self._after = float(after) if after.isdecimal() else 0.0
            except (OSError, http.client.HTTPException) as error:
                # A connection that was kept may have been closed at its other end meanwhile.
                connection.close()
                self._connection = None
                if fresh or isinstance(error, TimeoutError):
                    raise
            else:
                if answer.will_close or not answer.isclosed():
                    connection.close()
                    self._connection = None
                return answer.status
        raise AssertionError("unreachable: the second connection is a fresh one")

    def _complain(self, why: str, *, again: bool) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "spans cannot be sent to %s (%s); %s. This is said once until it works again",
                self.url,
                why,
                f"up to {self._limit // 2**20} MiB are kept, then the oldest are dropped"
                if again
                else "what it refuses is dropped",
            )
