"""Runs procedures that only read, all at once, on the nodes of a pool.

    procedures -> calls within budget -> bundles -> nodes -> answers -> procedures -> results

The caller's thread does all of it. Reads may be repeated: what was throttled is sent again when its
gate opens, what got no answer or a server's error a few times.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from azpool.errors import FleetError, PoolError
from azpool.fleet._clock import Clock
from azpool.fleet.budget import Budget
from azpool.fleet.calls import Answer, Call, Pause, Procedure

if TYPE_CHECKING:
    from azpool.fleet.run import Nodes, Performer

__all__ = ["gather"]

T = TypeVar("T")

BUNDLE = 8  # what a node has on its way at once: `_arm.THREADS`
MOST_ATTEMPTS = 4
MOST_THROTTLED = 20
TROUBLED = frozenset({408, 500, 502, 503, 504})


@dataclass(slots=True)
class _Asked:
    """A call of one procedure, how often it was sent in vain, and the budgets that hold it back."""

    place: int
    call: Call
    failures: int = 0
    throttled: int = 0
    held: Sequence[Hashable] = ()


_Later: TypeAlias = tuple[float, int, _Asked | int]  # when, a number of its own, and what


def gather(
    procedures: Sequence[Procedure[T]],
    *,
    performer: Performer,
    pool: Nodes,
    timeout_seconds: float | None = None,
    budget: Budget | None = None,
    clock: Clock | None = None,
) -> list[T]:
    """Run procedures that only read; see `run.gather`."""
    gathering: _Gathering[T] = _Gathering(procedures, performer, pool, budget or Budget(), clock)
    try:
        gathering.run(timeout_seconds)
    finally:
        gathering.close()
    return gathering.results_in_order()


class _Gathering(Generic[T]):
    _most_throttled: float = MOST_THROTTLED  # refusals of one call; reading says nothing meanwhile

    def __init__(
        self,
        procedures: Sequence[Procedure[T]],
        performer: Performer,
        pool: Nodes,
        budget: Budget,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or Clock()
        self._procedures = list(procedures)
        self._performer, self._pool, self._budget = performer, pool, budget
        self._ended: dict[int, T | Exception] = {}
        self._later: list[_Later] = []
        self._numbers = itertools.count()
        self._backlog: deque[_Asked] = deque()
        self._held_back: Counter[Hashable] = Counter()  # calls that wait, by the budget
        self._flying: dict[Future[list[Answer]], list[tuple[_Asked, list[Any]]]] = {}

    def run(self, timeout_seconds: float | None) -> None:
        """Go on until all have ended, or the time is over."""
        began = self._clock.now()
        ready: list[_Asked] = []
        for place in range(len(self._procedures)):
            ready += self._step(place, None)
        while len(self._ended) < len(self._procedures):
            now = self._clock.now()
            left = None if timeout_seconds is None else began + timeout_seconds - now
            if left is not None and left <= 0:
                raise FleetError(
                    f"cannot read it all within {timeout_seconds:g} s: "
                    f"{len(self._ended):,} of {len(self._procedures):,} lists were read"
                )
            ready += self._due(now)
            self._send(ready, now)
            ready = self._wait(left)

    def _step(self, place: int, value: Answer | None) -> list[_Asked]:
        """Let a procedure go on, and answer what it asks for now."""
        try:
            asked = self._procedures[place].send(value)
        except StopIteration as end:
            self._ended[place] = end.value
        except Exception as error:
            self._ended[place] = error
        else:
            if isinstance(asked, Call):
                return [_Asked(place, asked)]
            assert isinstance(asked, Pause)
            self._put_off(asked.seconds, place)
        return []

    def _put_off(self, seconds: float, what: _Asked | int) -> None:
        heapq.heappush(self._later, (self._clock.now() + seconds, next(self._numbers), what))

    def _due(self, now: float) -> list[_Asked]:
        found: list[_Asked] = []
        while self._later and self._later[0][0] <= now:
            what = heapq.heappop(self._later)[2]
            found += [self._let_go(what)] if isinstance(what, _Asked) else self._step(what, None)
        return found

    def _hold(self, asked: _Asked, keys: Sequence[Hashable], now: float) -> float:
        """Queue a call behind all that its budgets hold back, and answer how long it waits.

        Each has a time of its own: if thousands looked whenever one may pass, looking would be all
        that the master did.
        """
        wait = self._budget.wait_behind(now, keys, self._held_back)
        asked.held = keys
        self._held_back.update(keys)
        return wait

    def _keep_later(self, is_kept: Callable[[_Later], bool]) -> list[_Later]:
        """Take out of what is to come what is not kept, and answer it in its order."""
        gone: list[_Later] = []
        later, self._later = sorted(self._later), []
        for each in later:  # what is sorted is a heap, too
            (self._later if is_kept(each) else gone).append(each)
        for _, _, what in gone:
            if isinstance(what, _Asked):
                self._let_go(what)
        return gone

    def _let_go(self, asked: _Asked) -> _Asked:
        self._held_back.subtract(asked.held)
        asked.held = ()
        return asked

    def _send(self, ready: Sequence[_Asked], now: float) -> None:
        passed: list[tuple[_Asked, list[Any]]] = []
        self._backlog.extend(ready)
        # One bundle a node: what waited on one would go out after a 429 had closed its gate.
        free = max(0, self._pool.size - len(self._flying))
        while self._backlog and len(passed) < free * BUNDLE:
            asked = self._backlog.popleft()
            wait, taken = self._budget.take(now, asked.call)
            if wait > 0:
                self._put_off(self._hold(asked, taken, now), asked)
            else:
                passed.append((asked, taken))
        # Few calls are spread over the nodes, many go in bundles.
        size = max(1, min(BUNDLE, -(-len(passed) // max(1, free))))
        for at in range(0, len(passed), size):
            bundle = passed[at : at + size]
            self._before(bundle)
            future = self._pool.submit(self._performer, [asked.call for asked, _ in bundle])
            self._flying[future] = bundle

    def _before(self, bundle: Sequence[tuple[_Asked, list[Any]]]) -> None:
        """Called before a bundle is given to a node."""

    def _wait(self, left: float | None) -> list[_Asked]:
        """Sleep until something is answered or due, and answer what is asked for then."""
        now = self._clock.now()
        waits = [wait for wait in (left, self._later[0][0] - now if self._later else None)
                 if wait is not None]  # fmt: skip
        timeout = max(0.0, min(waits)) if waits else None
        done = self._clock.wait(self._flying, timeout)
        ready: list[_Asked] = []
        for future in done:
            bundle = self._flying.pop(future)
            for (asked, taken), answer in zip(bundle, _answers(future, len(bundle)), strict=True):
                ready += self._answered(asked, taken, answer)
        return ready

    def _answered(self, asked: _Asked, taken: list[Any], answer: Answer) -> list[_Asked]:
        jitter = self._clock.jitter()
        now = self._clock.now()
        self._budget.answered(
            now, asked.call, answer, taken, jitter=jitter, wall=self._clock.wall()
        )
        if answer.status == 429 and asked.throttled < self._most_throttled:
            asked.throttled += 1
            return [asked]  # its gate says when
        troubled = answer.status in TROUBLED or answer.status is None
        # What may have been done is not asked for again, unless that is harmless.
        if troubled and _may_pass(answer) and (asked.call.repeatable or not answer.sent):
            asked.failures += 1
            if asked.failures < MOST_ATTEMPTS:
                self._put_off(0.5 * 2.0**asked.failures * (1 + jitter), asked)
                return []
        return self._step(asked.place, answer)

    def results_in_order(self) -> list[T]:
        """Answer what each returned, or raise the first error."""
        found: list[T] = []
        for place in range(len(self._procedures)):
            value = self._ended[place]
            if isinstance(value, Exception):
                raise value
            found.append(value)
        return found

    def close(self) -> None:
        """End what has not ended."""
        for future in self._flying:
            future.cancel()
        for procedure in self._procedures:
            procedure.close()


def _may_pass(answer: Answer) -> bool:
    """Whether it may go better the next time: what the client itself refuses never does."""
    return answer.code not in {"UsageError", "TypeError", "ValueError", "BadResponse", "Redirected"}


def _answers(future: Future[list[Answer]], count: int) -> list[Answer]:
    try:
        return future.result()
    except PoolError as error:
        # The node died: what it had sent is not known, unless it had not begun.
        begun = getattr(error, "begun", True)
        lost = Answer(status=None, code=type(error).__name__, message=str(error), sent=begun)
        return [lost] * count
