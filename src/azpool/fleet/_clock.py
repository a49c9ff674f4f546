"""What the loop knows of the world besides answers: the time, chance, and how it waits.

One object, so that a test gives it another and days pass in a moment: the loop then decides the
same for the same answers.
"""

from __future__ import annotations

import concurrent.futures
import random
import time
from collections.abc import Collection
from concurrent.futures import Future
from functools import partial
from typing import Any

from azpool import _waits

__all__ = ["Clock"]


class Clock:
    """The real one."""

    def now(self) -> float:
        """Seconds of a clock that doesn't jump."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, for dates that the service sends."""
        return time.time()

    def jitter(self) -> float:
        """A random number in [0, 1)."""
        return random.random()

    def wait(
        self, futures: Collection[Future[Any]], timeout_seconds: float | None
    ) -> set[Future[Any]]:
        """Sleep until one of them is done or the time has passed, and answer those that are.

        With none of them it sleeps for the time, or not at all where there is no limit.
        """
        if not futures:
            time.sleep(timeout_seconds or 0.0)
            return set()
        first = partial(concurrent.futures.wait, futures, return_when="FIRST_COMPLETED")
        return _waits.wait(lambda seconds: first(seconds).done, timeout_seconds)
