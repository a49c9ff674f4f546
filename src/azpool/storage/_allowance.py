"""How many requests may be in flight in the whole pool, and what share of it each job gets.

    results -> Allowance.note -> azpool.limits.AdaptiveLimit -> Allowance.share -> the next job

The one seam between a transfer and `azpool.limits`. A job keeps its share while it runs, so the
limit reaches a node with its next job. Rates are divided among the nodes, which keep to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from azpool.limits import AdaptiveLimit, AdaptiveOptions, Phase
from azpool.storage.plan import BATCH_SECONDS, TRYING_BATCH_SECONDS, threads_for

if TYPE_CHECKING:
    from azpool.storage.options import TransferOptions

__all__ = ["Allowance", "Given", "Share"]

MOST_THREADS = 64  # of one node: beyond it they only wait for one interpreter
MOST_IN_FLIGHT = 1024


class Share(NamedTuple):
    """What one node may do at once."""

    threads: int
    requests_per_second: float | None = None
    bytes_per_second: float | None = None


class Given:
    """A job that was given out, as far as the limit is concerned: what of it is in flight.

    It has begun when its first result is there: until then it may wait behind another one.
    """

    __slots__ = ("begun", "left", "threads")

    def __init__(self, units: int, threads: int) -> None:
        self.left = units
        self.threads = threads
        self.begun = False


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
                max_limit=max(self.nodes, min(most, MOST_THREADS * self.nodes)),
            ),
            now=clock(),
        )
        self._turn = 0
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
        """The requests that are in flight, as far as results tell."""
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

    def answered(self, given: Given) -> None:
        """Note that one unit of a job has come back."""
        if not given.begun:
            given.begun = True
            self._in_flight += min(given.threads, given.left)
        if given.left <= given.threads:
            self._in_flight -= 1
        given.left -= 1

    def lost(self, given: Given) -> None:
        """Note that nothing more of a job comes back: its node has died."""
        if given.begun:
            self._in_flight -= min(given.threads, given.left)
        given.left = 0

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
