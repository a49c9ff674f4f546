"""What an adaptive limit may be told, and what it tells."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from azpool.errors import UsageError
from azpool.limits._checks import check_count, check_number

__all__ = ["FAST", "AdaptiveOptions", "Phase"]

FAST = 2.0  # the largest change that is tried: TCP's slow start


class Phase(enum.Enum):
    """What an adaptive limit is doing."""

    MEASURING = "measuring"  # the throughput at the present limit isn't known
    TRYING = "trying"  # another limit is compared with the present one
    HOLDING = "holding"  # neither more nor less was better


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveOptions:
    """Bounds and pace of an `AdaptiveLimit`.

    Attributes:
        start: the limit to begin with; cut to the bounds.
        min_limit: never lower.
        max_limit: never higher.
        epoch_seconds: how long one measurement lasts at least; it also lasts as many answers as
            the limit allows requests. Where answers are told in lumps, take several lumps' time.
        hold_seconds: how long a limit stays before the first look for a better one; it doubles
            with each look that finds none.
        max_hold_seconds: how long it stays at most.
        step: factor of the smallest change that is tried.
        request_bytes: how many bytes take the effort of one request, beside its own: work is
            counted as requests + bytes / request_bytes. Matters where sizes are mixed; see the
            guide.
        tolerated_share: share of refused requests (of the last 100, or of the last `limit`) below
            which the limit does not fall: services refuse a few whatever the load.
        ceiling_seconds: how long a limit that was refused is not exceeded; doubles with each
            further time, up to 16 times.

    Raises:
        UsageError: a value makes no sense.
    """

    start: int = 16
    min_limit: int = 1
    max_limit: int = 1024
    epoch_seconds: float = 0.1
    hold_seconds: float = 2.0
    max_hold_seconds: float = 30.0
    step: float = 1.3
    request_bytes: int = 256 * 1024
    tolerated_share: float = 0.03
    ceiling_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name in ("start", "min_limit", "max_limit", "request_bytes"):
            check_count(name, getattr(self, name))
        for name in ("epoch_seconds", "hold_seconds", "max_hold_seconds", "ceiling_seconds"):
            check_number(name, getattr(self, name))
        if self.min_limit > self.max_limit:
            raise UsageError(
                f"cannot keep a limit between {self.min_limit} and {self.max_limit}: "
                "give a max_limit that is not below min_limit"
            )
        if not 1.05 <= self.step <= FAST:
            raise UsageError(f"cannot use step={self.step!r}: give a factor from 1.05 to {FAST:g}")
        if not 0 <= self.tolerated_share < 1:
            raise UsageError(
                f"cannot use tolerated_share={self.tolerated_share!r}: give 0 or more, below 1"
            )
