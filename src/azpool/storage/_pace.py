"""What one process has learned of the server during one call, and how fast it may go on.

Shared by all jobs of the call and all their threads. Times are `time.monotonic()`, passed in.
"""

from __future__ import annotations

import threading

__all__ = ["Pace", "pace_of"]

BURST_SECONDS = 0.1  # so much of a rate may be used at once after a quiet time


class _Rate:
    """Amounts per second; whoever reserves waits until it is due."""

    __slots__ = ("free_at", "per_second")

    def __init__(self) -> None:
        self.per_second: float | None = None
        self.free_at = 0.0

    def reserve(self, amount: float, now: float) -> float:
        """Take the amount; answer how many seconds to wait before using it."""
        if self.per_second is None:
            return 0.0
        start = max(self.free_at, now - BURST_SECONDS)
        self.free_at = start + amount / self.per_second
        return max(0.0, start - now)


class Pace:
    """Whether and when this process may ask the server again.

    Attributes:
        run: the call that it is about.
        lost: a request has failed to connect on its every attempt. The others fail at their first
            until one gets through: 2,000 files and no server take seconds, not hours.
        closed_until: no request begins before, because the server said so.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.lost = False
        self.closed_until = 0.0
        self._requests = _Rate()
        self._bytes = _Rate()
        self._limited = False
        self._lock = threading.Lock()

    def limit(self, requests_per_second: float | None, bytes_per_second: float | None) -> None:
        """Set this process's share of the rates, as the newest job has it."""
        with self._lock:
            self._requests.per_second = requests_per_second
            self._bytes.per_second = bytes_per_second
            self._limited = requests_per_second is not None or bytes_per_second is not None

    def close(self, now: float, seconds: float) -> None:
        """Begin no request for so long."""
        with self._lock:
            self.closed_until = max(self.closed_until, now + seconds)

    @property
    def is_free(self) -> bool:
        """Whether nothing needs to be asked: for the many calls without rates and trouble."""
        return not self._limited and not self.closed_until

    def wait_seconds(self, size_bytes: int, now: float) -> float:
        """Reserve one request of so many bytes; answer how long to wait before it."""
        with self._lock:
            wait = max(self._requests.reserve(1, now), self._bytes.reserve(size_bytes, now))
            wait = max(wait, self.closed_until - now)
            if self.closed_until <= now:
                self.closed_until = 0.0
            return max(wait, 0.0)


_pace = Pace("")


def pace_of(run: str) -> Pace:
    """Answer this process's pace for a call; that of the call before is forgotten."""
    global _pace
    if _pace.run != run:
        _pace = Pace(run)
    return _pace
