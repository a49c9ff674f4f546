"""How far an operation on a fleet is: what `progress=` is called with.

    run.py -> progress(FleetProgress) -> a view, or the user's own

Called in the caller's thread some ten times a second while an operation lasts, and once at its end;
each call tells what has changed since the one before, so that 500 instances cost what has happened
and not what there is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from azpool.report import Outcome, Report

__all__ = ["FleetInterrupted", "FleetProgress", "InstanceProgress", "Phase", "ProgressCallable"]


class Phase(enum.Enum):
    """Where one instance is on its way to an outcome."""

    QUEUED = "queued"
    """Nothing has been sent for it yet."""
    BUDGET = "budget"
    """Its next call is ready, and a gate holds it back."""
    SENDING = "sending"
    """A call is on its way, and not answered."""
    UNDER_WAY = "under way"
    """The service works on it: it is asked again later."""
    ENDED = "ended"
    """It has its outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceProgress:
    """Where one instance is now.

    Attributes:
        index: its place in the fleet, and in the report.
        phase: where it is.
        attempts: how often its call was sent so far.
        note: what happens to it in a few words, where there is more to say: `reads the output`.
    """

    index: int
    phase: Phase
    attempts: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProgress:
    """One moment of an operation.

    Attributes:
        operation: `start`, `run_script`, ...: the name of the fleet's method.
        total: the instances that it is for; each is queued until `changed` names it.
        changed: those whose phase has changed since the last call, in any order.
        ended: outcomes since the last call; each instance once.
        calls: requests sent so far, polls included.
        polls: those of them that only asked how far an operation is.
        in_flight: requests that are not answered yet.
        throttled: how often the service answered 429 so far.
        budget_seconds: until the next call that waiting for budget may be sent; 0.0: none waits.
        budget: which budget that is, in words: `writes of 4f1c…`; "" where none waits.
        stopping: why nothing new is sent any more: `interrupted`, `max_failures`, `timeout`; or "".
        seconds_left: what is expected until the last one has ended; None where it can't be known.
        journal: the file that `azpool.fleet.resume` takes, or "".
    """

    operation: str
    total: int
    changed: tuple[InstanceProgress, ...] = ()
    ended: tuple[Outcome, ...] = ()
    calls: int = 0
    polls: int = 0
    in_flight: int = 0
    throttled: int = 0
    budget_seconds: float = 0.0
    budget: str = ""
    stopping: str = ""
    seconds_left: float | None = None
    journal: str = ""


ProgressCallable: TypeAlias = Callable[[FleetProgress], None]


class FleetInterrupted(KeyboardInterrupt):
    """Ctrl-C ended an operation; what is known of each instance is in the report.

    At the first Ctrl-C nothing new is sent: answers that are on their way are waited for, so that
    the journal knows where to ask later, and `progress` says `stopping="interrupted"`. What was not
    sent is `cancelled`, what the service still works on is `unknown`. A second Ctrl-C waits for
    nothing.

    Attributes:
        report: one outcome for each instance.
        journal: the file that `azpool.fleet.resume` takes, or "".
    """

    def __init__(self, report: Report[Any], *, journal: str = "") -> None:
        super().__init__("interrupted")
        self.report = report
        self.journal = journal
