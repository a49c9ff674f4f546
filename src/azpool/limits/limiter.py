"""The limits at work in one process: threads wait here until they may send a request.

    with limiter:          waits for a slot, the gate and the rates
        send()             Throttled and TimeoutError that come through here are counted

A thin shell: one lock, one real clock and one source of randomness over the pure machines. Threads
wait in a queue. Whoever gives a slot back takes it for the first of them before anybody else may
ask, so it is never free while somebody could have it; only the first watches the time.
"""

from __future__ import annotations

import enum
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
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


class _Turn:
    """A thread that waits in the queue."""

    __slots__ = ("has_slot", "told", "wait_seconds")

    def __init__(self, lock: threading.RLock) -> None:
        self.told = threading.Condition(lock)
        self.has_slot = False
        self.wait_seconds: float | None = None  # None: until it is told


class Limiter:
    """Limits on requests for the threads of one process.

    `with limiter as permit:` waits until fewer requests than the adaptive limit allows are in
    flight, the gate is open and the rates allow one more; the block's end gives the slot back and
    counts what became of the request. Blocks may nest in one thread, but each holds a slot of its
    own. Threads are served in the order in which they came. Errors pass through unchanged.

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
        self._lock = threading.RLock()
        self._adaptive = AdaptiveLimit(options, now=now)
        self._gate = Gate(gate, now=now)
        self._requests = RateLimit(requests_per_second, now=now)
        self._moved = RateLimit(bytes_per_second, now=now)
        self._in_flight = 0
        self._queue: deque[_Turn] = deque()
        self._mine = threading.local()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return self._adaptive.limit

    def acquire(self, *, timeout_seconds: float | None = None) -> Permit:
        """Wait until one more request may be sent, and answer the permit for it.

        Who asked before gets one before.

        Raises:
            TimeoutError: `timeout_seconds` passed first; nothing is held then.
        """
        with self._lock:
            if self._queue or self._take(self._clock()) != 0:
                self._wait(timeout_seconds)
        return Permit(self)

    def try_acquire(self) -> Permit | None:
        """Answer a permit, or None if one more request may not be sent now.

        None too while a thread waits: it comes first.
        """
        with self._lock:
            now = self._clock()
            self._hand_out(now)
            if self._queue or self._take(now) != 0:
                return None
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

        with self._lock:
            now = self._clock()
            return LimiterStatistics(
                in_flight=self._in_flight,
                waiting=len(self._queue),
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

    def _take(self, now: float) -> float | None:
        """Take a slot and answer 0.0, or how long to wait; None: until a slot is given back."""
        if self._in_flight >= self._adaptive.limit:
            return None
        wait = self._delay(now)
        if wait <= 0:
            self._requests.take(1, now)
            self._gate.take(now)
            self._adaptive.observe(now, in_flight=self._in_flight + 1)
            self._in_flight += 1
        return wait

    def _hand_out(self, now: float) -> None:
        """Take for those who wait what there is for them, in their order."""
        while self._queue:
            first = self._queue[0]
            wait = self._take(now)
            if wait != 0:
                if wait is not None and first.wait_seconds is None:
                    first.told.notify()  # to watch the time, once: delays never get shorter
                first.wait_seconds = wait
                return
            first.has_slot = True
            self._queue.popleft()
            first.told.notify()

    def _wait(self, timeout_seconds: float | None) -> None:
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        turn = _Turn(self._lock)
        try:
            self._queue.append(turn)
            while True:
                self._hand_out(self._clock())
                if turn.has_slot:
                    return
                wait = turn.wait_seconds
                if deadline is not None:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise TimeoutError(
                            "cannot send a request: none was allowed in "
                            f"{timeout_seconds:g} s; wait longer or send fewer"
                        )
                    wait = left if wait is None else min(left, wait)
                turn.told.wait(_waits.piece(wait))
        except BaseException:
            self._give_up(turn)
            raise

    def _give_up(self, turn: _Turn) -> None:
        """Leave the queue, and what was taken for this turn to the next one."""
        if turn.has_slot:
            permit = Permit(self)
            permit.answer = Answer.ABANDONED
            permit.release()
        else:
            with suppress(ValueError):  # Ctrl-C came before it stood there
                self._queue.remove(turn)
            self._hand_out(self._clock())

    def _close(self, permit: Permit | None, seconds: float | None) -> None:
        with self._lock:
            now = self._clock()
            self._gate.close(now, seconds, jitter=self._jitter())
            if permit is not None:
                permit.answer = Answer.THROTTLED

    def _release(self, permit: Permit) -> None:
        with self._lock:
            now = self._clock()
            self._in_flight -= 1
            self._moved.charge(permit.bytes_moved, now)
            answered = permit.answer is Answer.ANSWERED
            throttled = permit.answer is Answer.THROTTLED
            self._gate.answered(now, success=answered)
            self._adaptive.observe(
                now,
                in_flight=self._in_flight,
                requests=int(answered),
                bytes_moved=permit.bytes_moved,
                throttled=int(throttled),
                timed_out=int(permit.answer is Answer.TIMED_OUT),
                closed_seconds=self._gate.wait_seconds(now) if throttled else 0.0,
            )
            # At the same moment: how fast threads wake up must not look like a lack of work.
            self._hand_out(now)
