"""How fast it goes now, how far it is, and how long it will take. Pure: the clock is passed in.

What moves in big parts arrives by jumps, and small files in batches: a rate is taken from one
arrival to another, not from one look to another, so a steady transfer shows a steady number.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

__all__ = ["Amount", "Pace", "Speed"]

WINDOW_SECONDS = 5.0
LEFT_WINDOW_SECONDS = 20.0  # time left may lag: what it must not do is jump
FEW_ARRIVALS = 4  # as many are looked at even where they came long ago
SETTLING_SECONDS = 1.0  # after the first arrival; what comes before is the start of the pool
EASE_SECONDS = 3.0
# A small file costs a request whatever its size, a large one its bytes: an hour of either should
# move the bar alike. 64 KiB is about what moves in the time that one request takes.
BYTES_PER_FILE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Some files and their bytes."""

    files: int = 0
    size_bytes: int = 0

    @property
    def work(self) -> int:
        return self.size_bytes + self.files * BYTES_PER_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the last seconds showed."""

    files_per_second: float = 0.0
    bytes_per_second: float = 0.0
    seconds_left: float | None = None


class Speed:
    """Rates over the last seconds, and a time left that runs down evenly."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, Amount]] = deque()
        self._began: float | None = None  # the first arrival
        self._now = 0.0
        self._left: float | None = None
        self._left_at = 0.0

    def sample(self, now: float, done: Amount) -> None:
        """Note what is done at `now` (monotonic seconds)."""
        arrivals = self._arrivals
        self._now = now
        if arrivals and arrivals[-1][1] == done:
            return
        if not arrivals:
            arrivals.append((now, done))
            return
        if self._began is None:
            self._began = now
        arrivals.append((now, done))
        while len(arrivals) > FEW_ARRIVALS and arrivals[1][0] <= now - LEFT_WINDOW_SECONDS:
            arrivals.popleft()

    def pace(self, left: Amount | None = None) -> Pace:
        """Answer the rates, and the time that `left` will take at them."""
        files, size_bytes, _ = self._rates(WINDOW_SECONDS)
        return Pace(
            files_per_second=files,
            bytes_per_second=size_bytes,
            seconds_left=None if left is None else self._time_left(left),
        )

    def _rates(self, window: float) -> tuple[float, float, float]:
        """Answer files, bytes and work a second."""
        arrivals = self._arrivals
        if len(arrivals) < 2:
            return 0.0, 0.0, 0.0
        last, after = arrivals[-1]
        at = len(arrivals) - 2
        while at > 0 and (
            arrivals[at - 1][0] >= last - window or len(arrivals) - at < FEW_ARRIVALS
        ):
            at -= 1
        then, before = arrivals[at]
        gap = (last - then) / (len(arrivals) - 1 - at)
        # Later than the others came: from here on a stall shows.
        late = max(0.0, self._now - last - 2 * gap)
        elapsed = last - then + late
        if elapsed <= 0 or late > WINDOW_SECONDS:
            return 0.0, 0.0, 0.0
        return (
            max(0.0, (after.files - before.files) / elapsed),
            max(0.0, (after.size_bytes - before.size_bytes) / elapsed),
            max(0.0, (after.work - before.work) / elapsed),
        )

    def _time_left(self, left: Amount) -> float | None:
        if left.work <= 0:
            return 0.0
        began = self._began
        work = self._rates(LEFT_WINDOW_SECONDS)[2]
        if began is None or self._now - began < SETTLING_SECONDS or work <= 0:
            self._left = None
            return None
        estimate = left.work / work
        passed = self._now - self._left_at
        if self._left is None:
            self._left = estimate
        else:
            due = max(0.0, self._left - passed)
            self._left = due + (estimate - due) * (1 - math.exp(-passed / EASE_SECONDS))
        self._left_at = self._now
        return self._left


def fraction(done: Amount, total: Amount | None) -> float | None:
    """Answer how much of the work is done, 0 to 1, or None while the total is not known."""
    if total is None:
        return None
    if total.work <= 0:
        return 1.0
    return min(1.0, max(0.0, done.work / total.work))
