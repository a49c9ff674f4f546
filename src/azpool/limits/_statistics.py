"""What limits know of themselves: apart, because few ask and records are slow to define."""

from __future__ import annotations

from dataclasses import dataclass

from azpool.limits.options import Phase

__all__ = ["AdaptiveStatistics", "GateStatistics", "LimiterStatistics", "RateStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStatistics:
    """A gate at one moment.

    Attributes:
        wait_seconds: until it lets one through; 0.0 is now.
        closings: how often the server closed it.
        closed_seconds: how long it was closed by that, what is to come included.
        taken: let through.
        outstanding: of them, not answered yet.
        remaining: what is left of the budget, by the server's last word and what was taken since;
            None where it never said.
    """

    wait_seconds: float
    closings: int
    closed_seconds: float
    taken: int
    outstanding: int
    remaining: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStatistics:
    """A rate at one moment.

    Attributes:
        per_second: the rate; None is no limit.
        taken: all that was let go.
        debt_seconds: how long the next one has to wait.
        waits: how often something had to wait.
    """

    per_second: float | None
    taken: float
    debt_seconds: float
    waits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveStatistics:
    """An adaptive limit at one moment.

    Attributes:
        limit: requests that may be in flight now.
        proven: the limit that was the best so far; differs from `limit` during a trial.
        phase: what it is doing.
        in_flight: as it was told last.
        work_per_second: throughput at `proven`, in requests + bytes / request_bytes; 0.0 until
            it was measured.
        noise: standard deviation of one epoch's throughput, as a share of it.
        epochs: measurements that counted.
        idle_epochs: measurements that did not, since fewer requests than allowed were in flight.
        kept: trials whose limit was kept.
        refused: trials whose limit was not.
        falls: how often throttling or time-outs lowered the limit.
        refused_requests: throttled and timed out, all that were told.
    """

    limit: int
    proven: int
    phase: Phase
    in_flight: int
    work_per_second: float
    noise: float
    epochs: int
    idle_epochs: int
    kept: int
    refused: int
    falls: int
    refused_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterStatistics:
    """A limiter at one moment.

    Attributes:
        in_flight: permits that are held.
        waiting: threads that wait for one.
        limit: the adaptive limit's.
        gate: the gate's.
        requests: the rate of requests'.
        moved: the rate of bytes'.
    """

    in_flight: int
    waiting: int
    limit: AdaptiveStatistics
    gate: GateStatistics
    requests: RateStatistics
    moved: RateStatistics
