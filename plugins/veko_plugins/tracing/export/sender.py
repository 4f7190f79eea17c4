"""The sender: posts encoded spans to an OTLP collector over HTTP, from a thread of its own.

A collector that is down, slow or answers errors costs memory up to a limit and one line in the log,
but no time of the event loop: what exceeds the limit is dropped and counted. After a failure that
may pass (no connection, 429, 502, 503, 504) the same bytes are sent again, after pauses that double
up to `MAX_PAUSE` seconds, or as long as the collector asks for (`Retry-After`). Any other answer
means that the collector will never accept these bytes, so they are dropped.
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

from ..._lib.masking import masked_text

__all__ = ["Sender"]

_log: Final = logging.getLogger("veko.tracing")
MAX_PAUSE: Final = 30.0
"""The longest pause between two tries, in seconds."""
_RETRYABLE: Final = frozenset((429, 502, 503, 504))


class Sender:
    """Sends requests to a collector.

    Args:
        url: The collector: `http://localhost:4318`. If it has no path, `/v1/traces` is added.
        headers: Headers of each request, such as the collector's authentication.
        limit: How many bytes may wait to be sent.
        timeout: How long the collector may take to answer, in seconds.
        compress: Whether to gzip requests, which costs more CPU than everything else here.

    Attributes:
        sent: How many spans the collector accepted.
        dropped: How many spans were dropped.

    Raises:
        OptionError: The URL is not that of a collector.
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
            host, port = parts.hostname or "", parts.port
        except ValueError:  # its text may quote a password as the port
            parts, host, port = urllib.parse.urlsplit(""), "", None
        if parts.scheme not in ("http", "https") or not host:
            raise OptionError(
                f"otlp: {masked_text(url)!r} is not the URL of a collector: it needs a scheme "
                "(http or https), a host, and a port that is a number if there is one",
                remedy="Give http://HOST:4318 (OTLP over HTTP); see also OTEL_EXPORTER_OTLP_*.",
            )
        self._address = host, port
        self.url = masked_text(url)  # for messages
        self.sent = 0
        self.dropped = 0
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
        self._deadline: float | None = None
        self._failing = False
        self._connection: http.client.HTTPConnection | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._retry_after = 0.0

    def put(self, body: bytes, spans: int) -> None:
        """Queue a request; the oldest ones are dropped if too many bytes wait.

        Args:
            body: The request.
            spans: The number of spans in it.
        """
        with self._lock:
            self._start()
            while self._queue and self._size + len(body) > self._limit:
                old, count = self._queue.popleft()
                self._size -= len(old)
                self.dropped += count
            self._queue.append((body, spans))
            self._size += len(body)
            self._lock.notify_all()

    @property
    def waiting(self) -> bool:
        """Whether requests are waiting or being sent."""
        with self._lock:
            return bool(self._queue) or self._busy

    def flush(self, seconds: float) -> bool:
        """Wait until all requests are sent or dropped; return `False` after so many seconds."""
        end = time.monotonic() + seconds
        with self._lock:
            return self._lock.wait_for(
                lambda: not (self._queue or self._busy), max(0.0, end - time.monotonic())
            )

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for at most so many seconds, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None or self._process != os.getpid():
                return
            self._deadline = time.monotonic() + seconds
            self._lock.notify_all()
        thread.join(seconds + 1)
        with self._lock:
            self.dropped += sum(count for _, count in self._queue)
            self._queue.clear()
            self._size = 0
            self._deadline = None

    def _start(self) -> None:
        if self._thread is not None and self._process == os.getpid():
            return
        self._process = os.getpid()  # a forked child has the object, but not the thread
        self._thread = threading.Thread(target=self._run, name="veko-otlp", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._lock:
                self._busy = False
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._queue or self._deadline is not None)
                if not self._queue:
                    break
                body, count = self._queue.popleft()
                self._size -= len(body)
                self._busy = True
            retry = self._send(body, count)
            if not retry:
                pause = 0.0
                continue
            pause = min(MAX_PAUSE, max(pause * 2 or 0.5, self._retry_after))
            with self._lock:
                if self._size + len(body) > self._limit:
                    self.dropped += count
                else:
                    self._queue.appendleft((body, count))
                    self._size += len(body)
                self._busy = False
                if self._wait(pause):
                    break
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _wait(self, pause: float) -> bool:
        """Wait before the next try; return whether the deadline leaves no time for one."""
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            if self._deadline is not None:
                if time.monotonic() >= self._deadline or self._deadline < until:
                    return True
                until = min(until, time.monotonic() + 0.2)
                left = until - time.monotonic()
            self._lock.wait(left)
        return False

    def _send(self, body: bytes, count: int) -> bool:
        """Send one request; return whether it has to be sent again."""
        self._retry_after = 0.0
        try:
            status = self._post(gzip.compress(body, 1) if self._compress else body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection = None
            self._log_failure(f"{type(error).__name__}: {error}", retry=True)
            return True
        if 200 <= status < 300:
            self.sent += count
            if self._failing:
                self._failing = False
                _log.info("%s accepts spans again; %d were dropped so far", self.url, self.dropped)
            return False
        self._log_failure(f"it answered {status}", retry=status in _RETRYABLE)
        if status in _RETRYABLE:
            return True
        self.dropped += count
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
                self._retry_after = float(after) if after.isdecimal() else 0.0
            except (OSError, http.client.HTTPException) as error:
                # The collector may have closed a connection that was kept open: only then the same
                # request is tried once more at once. A time-out is not repeated.
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

    def _log_failure(self, reason: str, *, retry: bool) -> None:
        if not self._failing:
            self._failing = True
            _log.warning(
                "spans cannot be sent to %s (%s); %s. This is logged once until it works again",
                self.url,
                reason,
                f"up to {self._limit // 2**20} MiB are kept, then the oldest are dropped"
                if retry
                else "refused spans are dropped",
            )
