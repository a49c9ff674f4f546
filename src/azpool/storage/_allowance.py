"""How many requests may be in flight in the whole pool, and what share of it each job gets.

    results -> Allowance.note -> azpool.limits.AdaptiveLimit -> Allowance.share -> the next job

The one seam between a transfer and `azpool.limits`. A job keeps its share while it runs, so the
limit reaches a node with its next job. Rates are divided among the nodes, which keep to them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from azpool.limits import AdaptiveLimit, AdaptiveOptions, Phase
from azpool.storage.plan import BATCH_SECONDS, MOST_THREADS, TRYING_BATCH_SECONDS, threads_for

if TYPE_CHECKING:
    from azpool.storage.options import TransferOptions

__all__ = ["Allowance", "Given", "Share"]

MOST_IN_FLIGHT = 1024
MOST_OF_A_NODE = 256


class Share(NamedTuple):
    """What one node may do at once."""

    threads: int
    requests_per_second: float | None = None
    bytes_per_second: float | None = None

    @property
    def for_long(self) -> int:
        """How many requests may be in flight where each has a thread."""
        return min(self.threads, MOST_THREADS)


class Given:
    """A job that was given out, as far as the limit is concerned: what of it is in flight."""

    __slots__ = ("begun", "left", "threads")

    def __init__(self, units: int, threads: int) -> None:
        self.left = units
        self.threads = threads
        self.begun = False

    @property
    def in_flight(self) -> int:
        """How many of its requests are, once it has begun."""
        return min(self.threads, self.left)


class Allowance:
    """The pool's requests in flight and rates, shared out to its nodes.

    Args:
        nodes: how many there are.
        options: the caps that the user has set.
        local: whether the server is on this machine.
        clock: seconds; another one is for tests.
    """

    def __init__(
        self,
        nodes: int,
        options: TransferOptions,
        *,
        local: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._clock = clock
        most = options.max_concurrency or MOST_IN_FLIGHT
        # No more nodes at work than requests may be in flight, and each has one at least.
        self.nodes = max(1, min(nodes, most))
        self._adaptive = AdaptiveLimit(
            AdaptiveOptions(
                start=threads_for(self.nodes, local=local) * self.nodes,
                min_limit=self.nodes,
                max_limit=max(self.nodes, min(most, MOST_OF_A_NODE * self.nodes)),
            ),
            now=clock(),
        )
        self._turn = 0
        self._running = 0
        self._waiting: deque[Given] = deque()
        self._in_flight = 0
        self.throttled = 0

    @property
    def limit(self) -> int:
        """The requests that may be in flight now."""
        return self._adaptive.limit

    @property
    def batch_seconds(self) -> float:
        """How long the next job is to take."""
        holding = self._adaptive.phase is Phase.HOLDING
        return BATCH_SECONDS if holding else TRYING_BATCH_SECONDS

    @property
    def in_flight(self) -> int:
        """The requests that are in flight: of as many jobs as there are nodes, the first ones."""
        return self._in_flight

    def share(self) -> Share:
        """Answer what the next job's node may do; shares differ by one thread at most."""
        options = self._options
        each, more = divmod(self._adaptive.limit, self.nodes)
        self._turn = (self._turn + 1) % self.nodes
        return Share(
            each + (self._turn < more),
            _part(options.max_requests_per_second, self.nodes),
            _part(options.max_bytes_per_second, self.nodes),
        )

    def give(self, units: int, threads: int) -> Given:
        """Note that a job is given out: it begins at once, or where another one ends."""
        given = Given(units, threads)
        if self._running < self.nodes:
            self._begin(given)
        else:
            self._waiting.append(given)
        return given

    def answered(self, given: Given) -> None:
        """Note that one unit of a job has come back."""
        if not given.begun:
            self._begin(given)
        if given.left <= given.threads:
            self._in_flight -= 1
        given.left -= 1
        if not given.left:
            self._ended()

    def lost(self, given: Given) -> None:
        """Note that nothing more of a job comes back: its node has died."""
        if given.begun and given.left:
            self._in_flight -= given.in_flight
            self._ended()
        given.begun = True  # nor does it begin
        given.left = 0

    def _begin(self, given: Given) -> None:
        given.begun = True
        self._running += 1
        self._in_flight += given.in_flight

    def _ended(self) -> None:
        self._running -= 1
        while self._waiting and self._running < self.nodes:
            given = self._waiting.popleft()
            if not given.begun:
                self._begin(given)

    def note(self, requests: int, bytes_moved: int, throttled: int) -> None:
        """Learn from what came back."""
        self.throttled += throttled
        self._adaptive.observe(
            self._clock(),
            in_flight=self._in_flight,
            requests=requests,
            bytes_moved=bytes_moved,
            throttled=throttled,
        )


def _part(rate: float | None, nodes: int) -> float | None:
    return None if rate is None else rate / nodes
