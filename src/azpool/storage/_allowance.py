"""How many requests may be in flight in the whole pool, and what share of it a job gets.

The one seam between a transfer and `azpool.limits`: the pump asks for shares, the books report what
came back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from azpool.storage.plan import threads_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azpool.storage._batch import Result
    from azpool.storage.options import TransferOptions

__all__ = ["Allowance", "Share"]


class Share(NamedTuple):
    """What one node may do at once."""

    threads: int
    requests_per_second: float | None = None
    bytes_per_second: float | None = None


class Allowance:
    """The pool's requests in flight and rates, shared out to its nodes.

    Args:
        nodes: how many there are.
        options: the caps that the user has set.
        local: whether the server is on this machine.
    """

    def __init__(self, nodes: int, options: TransferOptions, *, local: bool) -> None:
        self._options = options
        self._most = options.max_concurrency
        # No more nodes at work than requests may be in flight.
        self.nodes = max(1, nodes if self._most is None else min(nodes, self._most))
        self._limit = threads_for(self.nodes, local=local) * self.nodes
        if self._most is not None:
            self._limit = min(self._limit, self._most)
        self.throttled = 0

    @property
    def limit(self) -> int:
        """The requests that may be in flight now."""
        return self._limit

    def share(self) -> Share:
        """Answer what the next job's node may do."""
        options = self._options
        return Share(
            max(1, self._limit // self.nodes),
            _part(options.max_requests_per_second, self.nodes),
            _part(options.max_bytes_per_second, self.nodes),
        )

    def note(self, results: Sequence[Result]) -> None:
        """Learn from what came back."""
        for result in results:
            self.throttled += result.throttled


def _part(rate: float | None, nodes: int) -> float | None:
    return None if rate is None else rate / nodes
