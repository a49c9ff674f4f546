"""The simulator's one clock: real time, or faster, or moved by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["Clock", "written"]


class Clock:
    """Simulated seconds since the epoch.

    Args:
        speed: how many simulated seconds pass in a real one; 0 for a clock that `advance` alone
            moves.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._origin = time.monotonic()
        self._base = time.time()

    def now(self) -> float:
        return self._base + (time.monotonic() - self._origin) * self.speed

    def advance(self, seconds: float) -> None:
        """Let that many simulated seconds pass at once."""
        self._base += seconds

    def real(self, seconds: float) -> float:
        """How many real seconds those simulated ones take; what a Retry-After tells a client."""
        return seconds / self.speed if self.speed > 0 else 0.0


def written(at: float) -> str:
    """Write a time as Compute does."""
    return datetime.fromtimestamp(at, UTC).isoformat()
