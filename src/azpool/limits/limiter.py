"""The limits at work in one process: threads wait here until they may send a request.

    with limiter:          waits for a slot, the gate and the rates
        send()             Throttled and TimeoutError that come through here are counted

A thin shell: one lock, one real clock and one source of randomness over the pure machines.
"""

from __future__ import annotations

import enum
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from azpool import _waits
from azpool.errors import Throttled
from azpool.limits.adaptive import AdaptiveLimit
from azpool.limits.gate import Gate, GateOptions
from azpool.limits.rate import RateLimit

if TYPE_CHECKING:
    from azpool.limits._statistics import LimiterStatistics
    from azpool.limits.options import AdaptiveOptions

__all__ = ["Answer", "Limiter", "Permit"]

THROTTLING = (429, 503)


class Answer(enum.Enum):
    """What became of a request."""

    ANSWERED = "answered"  # by success or by an error that says nothing of the load
    THROTTLED = "throttled"
    TIMED_OUT = "timed out"
    ABANDONED = "abandoned"  # by Ctrl-C: it tells nothing


class Permit:
    """The right to have one request in flight, until `release`; a context manager.

    One thread at a time may use it, not always the same.
    """

    __slots__ = ("_limiter", "answer", "bytes_moved")

    def __init__(self, limiter: Limiter) -> None:
        self._limiter: Limiter | None = limiter
        self.bytes_moved = 0
        self.answer = Answer.ANSWERED

    def moved(self, byte_count: int) -> None:
        """Count bytes that this request moved."""
        self.bytes_moved += byte_count

    def throttled(self, retry_after_seconds: float | None = None) -> None:
        """Say that the server refused this request for now; closes the gate for all."""
        limiter = self._limiter
        if limiter is not None:
            limiter._close(self, retry_after_seconds)

    def timed_out(self) -> None:
        """Say that no answer came in time."""
        self.answer = Answer.TIMED_OUT

    def release(self) -> None:
        """Give it back, with what became of the request; again is harmless."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter._release(self)

    def judge(self, error: BaseException) -> None:
        """Take from an error what `throttled` and `timed_out` say, where it is one of these.

        `azpool.errors.Throttled`, and any exception with a `status` or `status_code` of 429 or 503
        (its `retry_after_seconds` counts), are throttling; `TimeoutError` is a time-out. What is
        no `Exception` (Ctrl-C) says nothing of the server.
        """
        if self.answer is not Answer.ANSWERED:
            return
        status = getattr(error, "status", None) or getattr(error, "status_code", None)
        if isinstance(error, Throttled) or status in THROTTLING:
            self.throttled(getattr(error, "retry_after_seconds", None))
        elif isinstance(error, TimeoutError):
            self.timed_out()
        elif not isinstance(error, Exception):
            self.answer = Answer.ABANDONED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self.judge(error)
        finally:
            self.release()


class Limiter:
    """Limits on requests for the threads of one process.

    `with limiter as permit:` waits until fewer requests than the adaptive limit allows are in
    flight, the gate is open and the rates allow one more; the block's end gives the slot back and
    counts what became of the request. Blocks may nest in one thread, but each holds a slot of its
    own. Threads are not served in any order. Errors pass through unchanged.

    A `Limiter` belongs to one process and is not pickled: nodes get an `Allowance`.

    Args:
        options: of the adaptive limit; `max_limit` is the most requests in flight.
        requests_per_second: None is no limit.
        bytes_per_second: None is no limit; counts what `Permit.moved` tells, afterwards, and makes
            the next request wait.
        gate: how long the server's refusals keep all waiting.
        clock: seconds; another one is for tests.
        jitter: in [0, 1), random; another one is for tests.

    Raises:
        UsageError: a number makes no sense.
    """

    def __init__(
        self,
        options: AdaptiveOptions | None = None,
        *,
        requests_per_second: float | None = None,
        bytes_per_second: float | None = None,
        gate: GateOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        now = clock()
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition()
        self._adaptive = AdaptiveLimit(options, now=now)
        self._gate = Gate(gate, now=now)
        self._requests = RateLimit(requests_per_second, now=now)
        self._moved = RateLimit(bytes_per_second, now=now)
        self._in_flight = 0
        self._waiting = 0
        self._mine = threading.local()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return self._adaptive.limit

    def acquire(self, *, timeout_seconds: float | None = None) -> Permit:
        """Wait until one more request may be sent, and answer the permit for it.

        Raises:
            TimeoutError: `timeout_seconds` passed first; nothing is held then.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._changed:
            self._waiting += 1
            try:
                while (wait := self._take()) is None or wait > 0:
                    if deadline is not None:
                        left = deadline - time.monotonic()
                        if left <= 0:
                            raise TimeoutError(
                                "cannot send a request: none was allowed in "
                                f"{timeout_seconds:g} s; wait longer or send fewer"
                            )
                        wait = left if wait is None else min(left, wait)
                    self._changed.wait(_waits.piece(wait))
            except BaseException:
                # Whoever told this thread of a slot told no other.
                self._changed.notify()
                raise
            finally:
                self._waiting -= 1
            self._observe()
        return Permit(self)

    def try_acquire(self) -> Permit | None:
        """Answer a permit, or None if one more request may not be sent now."""
        with self._changed:
            if self._take() != 0:
                return None
            self._observe()
        return Permit(self)

    def throttled(self, retry_after_seconds: float | None = None) -> None:
        """Close the gate for all, since the server asks for fewer requests.

        Inside a `with limiter:` block of this thread its request counts as refused, which may
        lower the limit. Without `retry_after_seconds` the wait doubles from one time to the next.
        """
        permits = self._permits()
        if permits:
            permits[-1].throttled(retry_after_seconds)
        else:
            self._close(None, retry_after_seconds)

    def statistics(self) -> LimiterStatistics:
        """Answer what it is doing, frozen."""
        from azpool.limits._statistics import LimiterStatistics

        with self._changed:
            now = self._clock()
            return LimiterStatistics(
                in_flight=self._in_flight,
                waiting=self._waiting,
                limit=self._adaptive.statistics(),
                gate=self._gate.statistics(now),
                requests=self._requests.statistics(now),
                moved=self._moved.statistics(now),
            )

    def __enter__(self) -> Permit:
        permit = self.acquire()
        self._permits().append(permit)
        return permit

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._permits().pop().__exit__(kind, error, traceback)

    def _permits(self) -> list[Permit]:
        permits: list[Permit] | None = getattr(self._mine, "permits", None)
        if permits is None:
            permits = self._mine.permits = []
        return permits

    # --- under the lock -------------------------------------------------------------------------

    def _delay(self, now: float) -> float:
        return max(
            self._gate.wait_seconds(now),
            self._requests.wait_seconds(now),
            self._moved.wait_seconds(now),
        )

    def _take(self) -> float | None:
        """Take a slot and answer 0.0, or how long to wait; None: until a slot is given back."""
        if self._in_flight >= self._adaptive.limit:
            return None
        now = self._clock()
        wait = self._delay(now)
        if wait <= 0:
            self._requests.take(1, now)
            self._gate.take(now)
            self._in_flight += 1
        return wait

    def _observe(self, **facts: float) -> None:
        now = self._clock()
        held = self._in_flight
        limit = self._adaptive.limit
        if held < limit and self._delay(now) <= 0:
            # A slot that a waiting thread is about to take is in use: how fast threads wake up
            # must not look like a lack of work.
            held = min(limit, held + self._waiting)
        self._adaptive.observe(now, in_flight=held, **facts)  # type: ignore[arg-type]
        self._changed.notify(max(0, self._adaptive.limit - self._in_flight))

    def _close(self, permit: Permit | None, seconds: float | None) -> None:
        with self._changed:
            now = self._clock()
            self._gate.close(now, seconds, jitter=self._jitter())
            if permit is not None:
                permit.answer = Answer.THROTTLED

    def _release(self, permit: Permit) -> None:
        with self._changed:
            now = self._clock()
            self._in_flight -= 1
            self._moved.charge(permit.bytes_moved, now)
            answered = permit.answer is Answer.ANSWERED
            throttled = permit.answer is Answer.THROTTLED
            self._gate.answered(now, success=answered)
            self._observe(
                requests=int(answered),
                bytes_moved=permit.bytes_moved,
                throttled=int(throttled),
                timed_out=int(permit.answer is Answer.TIMED_OUT),
                closed_seconds=self._gate.wait_seconds(now) if throttled else 0.0,
            )
