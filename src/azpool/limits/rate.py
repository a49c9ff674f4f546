"""A rate: so many requests or bytes a second, over all and for each node's share of it.

A token bucket (as networks police traffic with one) that may go into debt: what is taken is let go
at once while the bucket is not overdrawn, whatever its size, and what comes next waits until the
debt is paid. So a part that is larger than the bucket passes too. Pure: the caller passes the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from azpool.limits._checks import ROUNDING_SECONDS, check_count, check_number

if TYPE_CHECKING:
    from azpool.limits._statistics import RateStatistics

__all__ = ["RateLimit"]

BURST_SECONDS = 0.1  # of the rate: long enough for a timer's slack, too short for a server to mind


class RateLimit:
    """A token bucket with debt.

    In any time T at most `per_second` x T + `burst` + the last amount taken goes through. Not
    thread-safe; the time never runs backwards.

    Args:
        per_second: how much of whatever is counted; None is no limit.
        burst: what a bucket that was left alone holds; the rate's own 0.1 s, and 1 at least,
            where nothing is said.
        now: the time, in seconds, of any clock that doesn't jump.

    Raises:
        UsageError: a number is not above 0.
    """

    __slots__ = ("_balance", "_now", "_taken", "_waits", "burst", "per_second")

    def __init__(
        self, per_second: float | None, *, burst: float | None = None, now: float = 0.0
    ) -> None:
        if per_second is not None:
            check_number("per_second", per_second)
        if burst is not None:
            check_number("burst", burst)
        self.per_second = per_second
        self.burst = burst or max(1.0, (per_second or 0.0) * BURST_SECONDS)
        self._now = now
        self._balance = self.burst
        self._taken = 0.0
        self._waits = 0

    def wait_seconds(self, now: float) -> float:
        """Answer how long `take` would refuse; takes nothing."""
        self._refill(now)
        if self.per_second is None:
            return 0.0
        wait = -self._balance / self.per_second
        return 0.0 if wait < ROUNDING_SECONDS else wait

    def take(self, amount: float, now: float) -> float:
        """Take `amount` and answer 0.0, or take nothing and answer how many seconds to wait.

        Who waits asks again: others may have been faster.
        """
        check_number("amount", amount, zero=True)
        wait = self.wait_seconds(now)
        if wait > 0:
            self._waits += 1
            return wait
        self._taken += amount
        if self.per_second is not None:
            self._balance -= amount
        return 0.0

    def charge(self, amount: float, now: float) -> None:
        """Take `amount` that has moved already: where its size was not known before."""
        check_number("amount", amount, zero=True)
        self._refill(now)
        self._taken += amount
        if self.per_second is not None:
            self._balance -= amount

    def share(self, n: int) -> float | None:
        """Answer the rate of each of `n` nodes that keep to this one together; None is no limit."""
        check_count("n", n)
        return None if self.per_second is None else self.per_second / n

    def statistics(self, now: float) -> RateStatistics:
        """Answer what it knows, frozen."""
        from azpool.limits._statistics import RateStatistics

        return RateStatistics(
            per_second=self.per_second,
            taken=self._taken,
            debt_seconds=self.wait_seconds(now),
            waits=self._waits,
        )

    def _refill(self, now: float) -> None:
        if now > self._now:
            gain = (now - self._now) * (self.per_second or 0.0)
            self._balance = min(self.burst, self._balance + gain)
            self._now = now
