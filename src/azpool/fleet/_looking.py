"""When each operation under way is asked for again: a calendar of polls. Pure, the time passed in.

    Pause -> Looking.put(place, ...) -> when it is due;  one ends -> ended(...) -> others, sooner

Polls fill no second of a subscription with more reads than its bucket regains in one, so that the
bucket stays as full as it was, for what is read when they end. Operations that were begun together
end together: each that ends brings the polls of a few others forward, which the full bucket pays.

More than a minute of polls is a crowd: they are not put into the calendar, but wait until a list of
the machines' states, read every `LIST_SECONDS`, says that nothing is under way on theirs any more.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["LIST_SECONDS", "Looking"]

FORWARD = 4  # others that one end brings forward: 200 in 4 answers' time, 4 polls in vain at most
RARE_SECONDS = 60.0  # rarer polls than that, and a list says when to ask
LIST_SECONDS = 8.0  # from the end of one list to the next
SELDOM_SECONDS = 900.0  # when one in a crowd is asked for whatever lists say


@dataclass(frozen=True, slots=True)
class _Look:
    """When one that waits may be asked for, when it is, and whether the calendar has it."""

    earliest: float
    due: float
    booked: bool


class Looking:
    """The polls of one run.

    Args:
        per_second: how many are due in a second of one subscription at most, those brought forward
            apart.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._taken: Counter[tuple[str, int]] = Counter()
        self._waiting: dict[str, dict[int, _Look]] = defaultdict(dict)
        self._known: set[int] = set()

    def put(self, place: int, subscription: str, earliest: float) -> float:
        """Answer when a procedure is to look, which is never before `earliest`."""
        waiting = self._waiting[subscription]
        self._known.add(place)
        if self.crowded(subscription):
            waiting[place] = _Look(earliest, earliest + SELDOM_SECONDS, booked=False)
        else:
            waiting[place] = _Look(earliest, self._book(subscription, earliest), booked=True)
        return waiting[place].due

    def _book(self, subscription: str, earliest: float) -> float:
        second = math.floor(earliest)
        while self._taken[subscription, second] >= self._per_second:
            second += 1
        share = self._taken[subscription, second] / self._per_second
        self._taken[subscription, second] += 1
        return max(earliest, second + share)

    def take(self, place: int, subscription: str, due: float) -> bool:
        """Let it look; False where it was to look at another time, and has."""
        look = self._waiting[subscription].get(place)
        if look is None or look.due != due:
            return False
        del self._waiting[subscription][place]
        self._taken.pop((subscription, math.floor(due) - 1), None)  # it is past
        return True

    def ended(self, place: int, subscription: str, now: float) -> list[tuple[int, float]]:
        """Answer which others look sooner now that one has ended, and when: never too early."""
        if place not in self._known or self.crowded(subscription):
            return []
        waiting = self._waiting[subscription]
        late = (
            (look.earliest, look.due, other)
            for other, look in waiting.items()
            if look.due > max(look.earliest, now)
        )
        return [
            self._move(subscription, other, max(earliest, now))
            for earliest, _, other in heapq.nsmallest(FORWARD, late)
        ]

    def _move(self, subscription: str, place: int, due: float) -> tuple[int, float]:
        look = self._waiting[subscription][place]
        if look.booked:
            self._taken[subscription, math.floor(look.due)] -= 1
        self._waiting[subscription][place] = _Look(look.earliest, due, booked=False)
        return place, due

    # --- a crowd --------------------------------------------------------------------------------

    def crowded(self, subscription: str) -> bool:
        """Whether too many wait to be asked for in turn."""
        return len(self._waiting[subscription]) >= self._per_second * RARE_SECONDS

    def waiting(self, subscription: str) -> Sequence[int]:
        """Answer who waits, longest first."""
        waiting = self._waiting[subscription]
        return sorted(waiting, key=lambda place: waiting[place].earliest)

    def listed(
        self, subscription: str, quiet: Collection[int], now: float, pages: int
    ) -> list[tuple[int, float]]:
        """Answer who looks sooner after a list of `pages` calls, and when: never too early.

        Those of a crowd look on whose machines nothing is under way (`quiet`), as many as the
        bucket regains until the next list beside the list itself. Where there is no crowd any more,
        all others are put into the calendar.
        """
        waiting = self._waiting[subscription]
        found: list[tuple[int, float]] = []
        if not self.crowded(subscription):
            for place, look in waiting.items():
                if not look.booked and look.due > now + RARE_SECONDS:
                    due = self._book(subscription, max(look.earliest, now))
                    waiting[place] = _Look(look.earliest, due, booked=True)
                    found.append((place, due))
            return found
        most = max(1, int(self._per_second * LIST_SECONDS) - pages)
        for place in self.waiting(subscription):
            look = waiting[place]
            due = max(look.earliest, now + len(found) / self._per_second)
            if place in quiet and due < look.due and len(found) < most:
                found.append(self._move(subscription, place, due))
        return found
