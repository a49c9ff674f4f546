"""What one node may do for one batch: its share of the limit and of the rates.

    AdaptiveLimit.limit, RateLimit.per_second -> share_out -> one Allowance a node, with its batch

Shares add up to what is shared, so nodes ask nobody while they work. A node that is throttled
halves its own share at once; the master learns it with the batch's outcome and lowers the limit.
"""

from __future__ import annotations

from typing import NamedTuple

from azpool.limits._checks import check_count

__all__ = ["Allowance", "share_out"]


class Allowance(NamedTuple):
    """The share of one node, for one batch; a tuple, so it travels for a few bytes.

    Attributes:
        threads: requests it may have in flight; 0: it gets no batch now.
        requests_per_second: of it alone; None is no limit.
        bytes_per_second: of it alone; None is no limit.
    """

    threads: int
    requests_per_second: float | None = None
    bytes_per_second: float | None = None

    def halved(self) -> Allowance:
        """Answer what is left after the server refused this node: half the threads, 1 at least."""
        return self._replace(threads=max(1, self.threads // 2) if self.threads else 0)


def share_out(
    limit: int,
    nodes: int,
    *,
    requests_per_second: float | None = None,
    bytes_per_second: float | None = None,
) -> list[Allowance]:
    """Divide a limit and rates among `nodes`, in whole threads that differ by one at most.

    All of the limit is given out, and never more. Where it is lower than the number of nodes the
    last ones get nothing; the rates are divided among those that get something.
    """
    check_count("limit", limit)
    check_count("nodes", nodes)
    busy = min(limit, nodes)
    requests = None if requests_per_second is None else requests_per_second / busy
    moved = None if bytes_per_second is None else bytes_per_second / busy
    each, more = divmod(limit, nodes)
    idle = Allowance(0, 0.0 if requests is not None else None, 0.0 if moved is not None else None)
    return [
        Allowance(each + (node < more), requests, moved) if node < busy else idle
        for node in range(nodes)
    ]
