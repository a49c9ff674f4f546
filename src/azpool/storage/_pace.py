"""What one process has learned of the server during one call, and how fast it may go on.

Shared by all jobs of the call and all their threads. Times are `time.monotonic()`, passed in.
"""

from __future__ import annotations

import threading

from azpool.limits import RateLimit

__all__ = ["Pace", "pace_of"]


# A file in memory is waited for less than once in ten; one on a disk or a network twice or more,
# for its folder, its node and its bytes.
WAITS_A_FILE = 0.5
SECONDS_A_FILE = 0.001  # ... and one in memory takes a tenth of it
ENOUGH_FILES = 8
SLOW_DISK_FLIGHTS = 8


class Pace:
    """Whether and when this process may ask the server again.

    Attributes:
        run: the call that it is about.
        lost: a request has failed to connect on its every attempt. The others fail at their first
            until one gets through: 2,000 files and no server take seconds, not hours.
        closed_until: no request begins before, because the server said so.
        flights: how many threads have requests in flight. One does for files that are at hand;
            more where reading or writing them has to be waited for, as on a network's disk.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.lost = False
        self.closed_until = 0.0
        self.flights = 1
        self._requests = RateLimit(None)
        self._bytes = RateLimit(None)
        self._limited = False
        self._lock = threading.Lock()

    def limit(self, requests_per_second: float | None, bytes_per_second: float | None) -> None:
        """Set this process's share of the rates, as the newest job has it."""
        with self._lock:
            _set(self._requests, requests_per_second)
            _set(self._bytes, bytes_per_second)
            self._limited = requests_per_second is not None or bytes_per_second is not None

    def note_local(self, files: int, waits: int, seconds: float) -> None:
        """Learn from one thread alone what its side of so many files took.

        Args:
            files: how many.
            waits: how often it gave up its core, but for the network.
            seconds: in which it did not wait for the network.
        """
        slow = waits > files * WAITS_A_FILE and seconds > files * SECONDS_A_FILE
        if slow and files >= ENOUGH_FILES:
            self.flights = SLOW_DISK_FLIGHTS

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
            wait = self.closed_until - now
            # Charged at once, so that those who wait come one after the other.
            for rate, amount in ((self._requests, 1), (self._bytes, size_bytes)):
                wait = max(wait, rate.wait_seconds(now))
                rate.charge(amount, now)
            if self.closed_until <= now:
                self.closed_until = 0.0
            return max(wait, 0.0)


def _set(rate: RateLimit, per_second: float | None) -> None:
    """Change a rate and keep its debts: shares change with each job."""
    if rate.per_second != per_second:
        rate.per_second = per_second
        rate.burst = RateLimit(per_second).burst


_pace = Pace("")


def pace_of(run: str) -> Pace:
    """Answer this process's pace for a call; that of the call before is forgotten."""
    global _pace
    if _pace.run != run:
        _pace = Pace(run)
    return _pace
