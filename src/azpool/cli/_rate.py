"""How fast it goes now, how far it is, and how long it will take. Pure: the clock is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Amount", "Pace", "Speed"]

WINDOW_SECONDS = 5.0
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
    """Rates over a sliding window of a few seconds: a stall shows, and a burst does not jump."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Amount]] = deque()

    def sample(self, now: float, done: Amount) -> None:
        """Note what is done at `now` (monotonic seconds)."""
        samples = self._samples
        samples.append((now, done))
        # One sample older than the window stays: rates are taken across the whole window.
        while len(samples) > 2 and samples[1][0] <= now - WINDOW_SECONDS:
            samples.popleft()

    def pace(self, left: Amount | None = None) -> Pace:
        """Answer the rates, and the time that `left` will take at them."""
        if len(self._samples) < 2:
            return Pace()
        (then, before), (now, after) = self._samples[0], self._samples[-1]
        elapsed = now - then
        if elapsed <= 0:
            return Pace()
        work_per_second = (after.work - before.work) / elapsed
        seconds_left = None
        if left is not None and left.work <= 0:
            seconds_left = 0.0
        elif left is not None and work_per_second > 0:
            seconds_left = left.work / work_per_second
        return Pace(
            files_per_second=max(0.0, (after.files - before.files) / elapsed),
            bytes_per_second=max(0.0, (after.size_bytes - before.size_bytes) / elapsed),
            seconds_left=seconds_left,
        )


def fraction(done: Amount, total: Amount | None) -> float | None:
    """Answer how much of the work is done, 0 to 1, or None while the total is not known."""
    if total is None:
        return None
    if total.work <= 0:
        return 1.0
    return min(1.0, max(0.0, done.work / total.work))
