"""Gates that a server closes: until Retry-After has passed, or its budget has refilled.

    429 or 503 with Retry-After -> Gates.close(key) -> take([key]) answers how long to wait
    "so many are left"          -> Gates.learn(key)

One gate a bucket, named by whatever the caller's service counts by: account, subscription and
principal, kind of operation. A request names all the buckets that it counts in; those of others
never hold it back. Azure asks its clients to wait as long as Retry-After says, and to wait longer
each time where it says nothing; jitter keeps those who were refused together from coming back
together. Pure: the caller passes the time and the randomness, adapters read the headers.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from azpool.limits._checks import ROUNDING_SECONDS, check_number

if TYPE_CHECKING:
    from azpool.limits._statistics import GateStatistics

__all__ = ["Gate", "GateOptions", "Gates"]

LEAST_REFILL = 1e-6  # a second: a budget that gains one request in eleven days is told as none


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """How long gates stay closed.

    Attributes:
        first_seconds: where the server says nothing: the first time.
        max_seconds: each further time in a row is twice as long, up to this. What the server
            asks for is never cut.
        spread: jitter lengthens a wait by up to this share.

    Raises:
        UsageError: a value makes no sense.
    """

    first_seconds: float = 1.0
    max_seconds: float = 60.0
    spread: float = 0.25

    def __post_init__(self) -> None:
        check_number("first_seconds", self.first_seconds)
        check_number("max_seconds", self.max_seconds)
        check_number("spread", self.spread, zero=True)


class Gate:
    """One bucket of a server: a time until which it is closed, and a budget once it is known.

    Closing never shortens: a gate that is closed until a time opens then or later. Not
    thread-safe; the time never runs backwards.
    """

    __slots__ = (
        "_budget", "_capacity", "_closed_seconds", "_closings", "_now", "_outstanding", "_refill",
        "_resets_at", "_streak", "_taken", "_until", "options",
    )  # fmt: skip

    def __init__(self, options: GateOptions | None = None, *, now: float = 0.0) -> None:
        self.options = options or GateOptions()
        self._now = now
        self._until = -math.inf
        self._streak = 0
        self._closings = 0
        self._closed_seconds = 0.0
        self._taken = 0
        self._outstanding = 0
        self._budget = math.inf
        self._capacity = math.inf
        self._refill = 0.0
        self._resets_at = math.inf

    @property
    def closed_until(self) -> float:
        """When the server's last word lets requests through again; -inf if it never closed."""
        return self._until

    def close(self, now: float, seconds: float | None = None, *, jitter: float = 0.0) -> float:
        """Let nothing through for `seconds`, and answer until when.

        Args:
            now: the time at which the server said so.
            seconds: its Retry-After; None where it said nothing: then twice as long as the time
                before, if nothing succeeded since.
            jitter: in [0, 1), random; a wait is up to `spread` longer by it, never shorter.
        """
        self._pass(now)
        if seconds is not None:
            check_number("seconds", seconds, zero=True)
        open_before = self._until <= self._now
        if seconds is None:
            # Refusals of one moment are one: only those after it opened again count as another.
            self._streak += open_before or not self._streak
            grown = self.options.first_seconds * 2.0 ** min(60, self._streak - 1)
            seconds = min(self.options.max_seconds, grown)
        until = self._now + seconds * (1 + self.options.spread * jitter)
        if until > self._until:
            self._closings += open_before
            self._closed_seconds += until - max(self._until, self._now)
            self._until = until
        return self._until

    def learn(
        self,
        now: float,
        remaining: float,
        *,
        window_seconds: float | None = None,
        refill_per_second: float = 0.0,
        capacity: float | None = None,
    ) -> None:
        """Take the server's word for what is left of its budget.

        What was taken and not answered yet comes off it, for the server may not have counted it:
        rather a request too few than one that is refused.

        Args:
            now: the time of the answer.
            remaining: requests that are left.
            window_seconds: until the budget is full again; None where it refills steadily, or
                where the server doesn't say.
            refill_per_second: what it gains each second (a token bucket, as ARM's).
            capacity: what it holds when full; None where that is not known.

        Where neither window nor refill is known a budget that is used up holds nothing back: the
        server will say when it is.
        """
        check_number("remaining", remaining, zero=True)
        check_number("refill_per_second", refill_per_second, zero=True)
        check_number("window_seconds", window_seconds or 0, zero=True)
        check_number("capacity", capacity or 0, zero=True)
        self._pass(now)
        self._refill = refill_per_second if refill_per_second >= LEAST_REFILL else 0.0
        # A bucket of less than one request would never open.
        self._capacity = math.inf if capacity is None else max(1.0, capacity)
        self._resets_at = math.inf
        if window_seconds is not None:
            self._resets_at = self._now + window_seconds
        known = self._refill > 0 or window_seconds is not None
        self._budget = remaining - self._outstanding if known else math.inf
        if not known:
            self._capacity = math.inf

    def wait_seconds(self, now: float, amount: int = 1) -> float:
        """Answer how long until `amount` requests may pass; 0.0 is now. Takes nothing."""
        self._pass(now)
        wait = max(0.0, self._until - self._now)
        # More than a full bucket holds passes when it is full.
        missing = min(amount, self._capacity) - self._budget
        if missing > 0:
            refilled = missing / self._refill if self._refill > 0 else math.inf
            wait = max(wait, min(refilled, self._resets_at - self._now))
        if wait < ROUNDING_SECONDS:
            return 0.0
        return wait

    def take(self, now: float, amount: int = 1) -> float:
        """Let `amount` requests pass and answer 0.0, or none and answer how long to wait."""
        wait = self.wait_seconds(now, amount)
        if wait <= 0:
            self._taken += amount
            self._outstanding += amount
            self._budget -= amount
        return max(0.0, wait)

    def answered(self, now: float, amount: int = 1, *, success: bool = True) -> None:
        """Count requests as answered, whatever the answer was; call it before `learn`.

        Args:
            now: the time of it.
            amount: how many.
            success: whether the server took them; ends the row of refusals, after which waits
                begin with the short one again.
        """
        self._pass(now)
        self._outstanding = max(0, self._outstanding - amount)
        if success and self._until <= self._now:
            self._streak = 0

    def statistics(self, now: float) -> GateStatistics:
        """Answer what it knows, frozen."""
        from azpool.limits._statistics import GateStatistics

        return GateStatistics(
            wait_seconds=self.wait_seconds(now),
            closings=self._closings,
            closed_seconds=self._closed_seconds,
            taken=self._taken,
            outstanding=self._outstanding,
            remaining=None if math.isinf(self._budget) else max(0.0, self._budget),
        )

    def _pass(self, now: float) -> None:
        if now <= self._now:
            return
        self._budget = min(self._capacity, self._budget + self._refill * (now - self._now))
        self._now = now
        if now >= self._resets_at:
            # What the new window holds is the server's to say: nothing is held back till then.
            self._resets_at = math.inf
            self._budget = self._capacity = math.inf


class Gates:
    """Gates by key, made when first named; a request passes all of its own, and waits for no other.

    Args:
        options: of every gate.
        now: the time, in seconds, of any clock that doesn't jump.
    """

    __slots__ = ("_gates", "_now", "options")

    def __init__(self, options: GateOptions | None = None, *, now: float = 0.0) -> None:
        self.options = options or GateOptions()
        self._now = now
        self._gates: dict[Hashable, Gate] = {}

    def __getitem__(self, key: Hashable) -> Gate:
        """Answer the gate of one bucket; made open if there was none."""
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = Gate(self.options, now=self._now)
        return gate

    def __len__(self) -> int:
        return len(self._gates)

    def close(
        self, key: Hashable, now: float, seconds: float | None = None, *, jitter: float = 0.0
    ) -> float:
        """Close one gate, as `Gate.close` says; the others stay as they are."""
        return self[key].close(now, seconds, jitter=jitter)

    def learn(
        self,
        key: Hashable,
        now: float,
        remaining: float,
        *,
        window_seconds: float | None = None,
        refill_per_second: float = 0.0,
        capacity: float | None = None,
    ) -> None:
        """Take the server's word for one bucket, as `Gate.learn` says."""
        self[key].learn(
            now,
            remaining,
            window_seconds=window_seconds,
            refill_per_second=refill_per_second,
            capacity=capacity,
        )

    def wait_seconds(self, keys: Iterable[Hashable], now: float, amount: int = 1) -> float:
        """Answer how long until all these gates let `amount` requests through; takes nothing."""
        return max((self[key].wait_seconds(now, amount) for key in keys), default=0.0)

    def take(self, keys: Iterable[Hashable], now: float, amount: int = 1) -> float:
        """Pass all these gates and answer 0.0, or none of them and answer how long to wait."""
        keys = list(keys)
        wait = self.wait_seconds(keys, now, amount)
        if wait <= 0:
            for key in keys:
                self[key].take(now, amount)
        return wait

    def answered(
        self, keys: Iterable[Hashable], now: float, amount: int = 1, *, success: bool = True
    ) -> None:
        """Count requests as answered at all these gates, as `Gate.answered` says."""
        for key in keys:
            self[key].answered(now, amount, success=success)

    def statistics(self, now: float) -> dict[Hashable, GateStatistics]:
        """Answer what each gate knows, frozen."""
        return {key: gate.statistics(now) for key, gate in self._gates.items()}
