"""When each operation under way is asked for again: a calendar of polls. Pure, the time passed in.

    Pause -> Looking.put(place, ...) -> when it is due;  one ends -> ended(...) -> others, sooner

Polls fill no second of a subscription with more reads than its bucket regains in one, so that the
bucket stays as full as it was, for what is read when they end. Operations that were begun together
end together: each that ends brings the polls of a few others forward, which the full bucket pays.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict

__all__ = ["Looking"]

FORWARD = 4  # others that one end brings forward: 200 in 4 answers' time, 4 polls in vain at most


class Looking:
    """The polls of one run.

    Args:
        per_second: how many are due in a second of one subscription at most, those brought forward
            apart.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._taken: Counter[tuple[str, int]] = Counter()
        self._waiting: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        self._known: set[int] = set()

    def put(self, place: int, subscription: str, earliest: float) -> float:
        """Answer when a procedure is to look, which is never before `earliest`."""
        second = math.floor(earliest)
        while self._taken[subscription, second] >= self._per_second:
            second += 1
        share = self._taken[subscription, second] / self._per_second
        self._taken[subscription, second] += 1
        due = max(earliest, second + share)
        self._waiting[subscription][place] = (earliest, due)
        self._known.add(place)
        return due

    def take(self, place: int, subscription: str, due: float) -> bool:
        """Let it look; False where it was to look at another time, and has."""
        if self._waiting[subscription].get(place, (0.0, math.nan))[1] != due:
            return False
        del self._waiting[subscription][place]
        self._taken.pop((subscription, math.floor(due) - 1), None)  # it is past
        return True

    def ended(self, place: int, subscription: str, now: float) -> list[tuple[int, float]]:
        """Answer which others look sooner now that one has ended, and when: never too early."""
        if place not in self._known:
            return []
        waiting = self._waiting[subscription]
        late = (
            (earliest, due, other)
            for other, (earliest, due) in waiting.items()
            if due > max(earliest, now)
        )
        found = []
        for earliest, due, other in heapq.nsmallest(FORWARD, late):
            self._taken[subscription, math.floor(due)] -= 1
            waiting[other] = (earliest, max(earliest, now))
            found.append((other, max(earliest, now)))
        return found
