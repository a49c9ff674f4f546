"""What an operation on a fleet looks like at one moment: written by the run, read by the views.

    FleetProgress -> FleetState.take -> rows, counts -> _fleet_frame | _fleet_plain | _fleet_events

Pure. One small row an instance; everything else is counted, so that a frame of 500 costs no walk
but its own.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._rate import Amount, Speed
from azpool.cli._tally import Tally, cause_of
from azpool.errors import AzpoolError
from azpool.fleet.progress import FleetProgress, Phase
from azpool.report import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azpool.report import Outcome, Report

__all__ = ["FleetEnd", "FleetState", "Moment", "Row", "Work", "reason_of"]

_REFUSED = frozenset({401, 403})
_FULL_STOP = re.compile(r"\.(?= \([0-9]{3}\b[^()]*\)$)")  # the service's, before our status
_GONE = 404
# What is none of these an instance is told with the operation's own name.
_WORDS = {
    "start": ("starting", "started"),
    "stop": ("stopping", "stopped"),
    "deallocate": ("deallocating", "deallocated"),
    "restart": ("restarting", "restarted"),
    "redeploy": ("redeploying", "redeployed"),
    "reimage": ("reimaging", "reimaged"),
    "resize": ("resizing", "resized"),
    "delete": ("deleting", "deleted"),
    "run": ("running the script on", "ran the script on"),
    "deployed": ("running the command on", "ran the command on"),
    "wait": ("waiting for", "waited for"),
    "map": ("calling the function for", "called the function for"),
    "resume": ("going on with", "went on with"),
}
_DONE = {"run": "done", "deployed": "done", "wait": "there", "map": "done", "resume": "done"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one command does, in words.

    Attributes:
        operation: `start`, `run`, ...
        target: whose machines these are, as a heading says it.
        nodes: the nodes of the pool; 0 where that is not known, or there are none.
        detail: what else the heading says: a size, a condition; or "".
    """

    operation: str
    target: str
    nodes: int = 0
    detail: str = ""

    @property
    def doing(self) -> str:
        return _WORDS.get(self.operation, (f"doing {self.operation} to",))[0]

    @property
    def past(self) -> str:
        return _WORDS.get(self.operation, ("", f"did {self.operation} to"))[1]

    @property
    def done(self) -> str:
        """Say of one instance that all went well."""
        return _DONE.get(self.operation) or _WORDS.get(self.operation, ("", "done"))[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One instance now.

    Attributes:
        name: what it is called.
        zone: "" where it has none.
        phase: where it is.
        since: when that began, on the clock of `time.monotonic`.
        began: when the first call for it was ready; None before.
        attempts: how often it was tried.
        note: what else there is to say of it.
        state: how it ended; None before.
        reason: why it did not end well.
        seconds: what it took, once it has ended.
    """

    name: str
    zone: str = ""
    phase: Phase = Phase.QUEUED
    since: float = 0.0
    began: float | None = None
    attempts: int = 0
    note: str = ""
    state: State | None = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        return self.state is not None and self.state not in {State.OK, State.SKIPPED}


def reason_of(outcome: Outcome) -> str:
    """Answer why an instance did not end well, without what makes its reason its own."""
    error = outcome.error
    code = getattr(outcome, "exit_code", None)
    if code and (error is None or f"exit code {code}" in outcome.reason):
        return f"exit code {code}"  # the status of what told it, 200, is none of it
    if error is not None and not isinstance(error, AzpoolError):  # of a user's function
        return f"{type(error).__name__}: {outcome.reason}"
    if error is not None:
        cause = cause_of(outcome.reason, outcome.name) or type(error).__name__
        return _FULL_STOP.sub("", cause)
    return str(getattr(outcome, "message", "") or outcome.state.value)


@dataclass(frozen=True, slots=True)
class Moment:
    """What the engine told last, and when: its seconds are counted down from then.

    One object, so that a view's thread never reads half of one moment and half of the next.
    """

    progress: FleetProgress
    at: float

    def budget_seconds(self, now: float) -> float:
        """Answer how long until the next call that waiting for budget may go; 0.0: none waits."""
        return max(0.0, self.progress.budget_seconds - (now - self.at))

    def seconds_left(self, now: float) -> float | None:
        """Answer what the engine expects until the last one has ended, or None."""
        left = self.progress.seconds_left
        return None if left is None else max(0.0, left - (now - self.at))


@dataclass(slots=True)
class FleetState:
    """The numbers that every view shows; written by the caller's thread, read by the view's.

    Attributes are replaced whole, rows by new ones: a reader sees old or new, never half of one.

    Attributes:
        work: what is done.
        began: on the clock of `time.monotonic`.
        rows: one an instance, in the fleet's order.
        phases: how many are in each phase.
        states: how many ended in each state.
        moment: the last progress that came, and when; None before.
        tally: what failed, by reason; `unclear` the same of what ended unknown.
    """

    work: Work
    began: float
    rows: list[Row] = field(default_factory=list)
    phases: dict[Phase, int] = field(default_factory=dict)
    states: dict[State, int] = field(default_factory=dict)
    moment: Moment | None = None
    tally: Tally = field(default_factory=Tally)
    unclear: Tally = field(default_factory=Tally)
    speed: Speed = field(default_factory=Speed)

    @classmethod
    def of(cls, work: Work, instances: Sequence[Any], began: float) -> FleetState:
        """Begin with all queued.

        Args:
            work: what is done.
            instances: the fleet's: their `name` and `zone` are looked at.
            began: on the clock of `time.monotonic`.
        """
        rows = [
            Row(name=one.name, zone=str(getattr(one, "zone", None) or ""), since=began)
            for one in instances
        ]
        phases = {Phase.QUEUED: len(rows)} if rows else {}
        return cls(work=work, began=began, rows=rows, phases=phases)

    def take(self, progress: FleetProgress, now: float) -> None:
        """Take over what has changed."""
        phases = dict(self.phases)
        states = dict(self.states)
        more = progress.total - len(self.rows)
        if more > 0:  # a resumed operation: its journal knows how many there are
            self.rows += [Row(name="", since=now)] * more
            phases[Phase.QUEUED] = phases.get(Phase.QUEUED, 0) + more
        for change in progress.changed:
            row = self._row(change.index)
            if row is None or row.phase is Phase.ENDED:
                continue
            began = row.began
            if began is None and change.phase is not Phase.QUEUED:
                began = now
            _move(phases, row.phase, change.phase)
            self.rows[change.index] = Row(
                name=row.name,
                zone=row.zone,
                phase=change.phase,
                since=row.since if row.phase is change.phase else now,
                began=began,
                attempts=change.attempts,
                note=change.note,
            )
        for outcome in progress.ended:
            row = self._row(outcome.index)
            if row is None or row.state is not None:
                continue
            # `changed` may have said before that it has ended.
            _move(phases, row.phase, Phase.ENDED)
            states[outcome.state] = states.get(outcome.state, 0) + 1
            self.rows[outcome.index] = self._ended(row, outcome, now)
        self.phases, self.states = phases, states
        self.moment = Moment(progress, now)

    def is_known(self, index: int) -> bool:
        """Whether an instance's outcome was taken in."""
        row = self._row(index)
        return row is not None and row.state is not None

    def _row(self, index: int) -> Row | None:
        return self.rows[index] if 0 <= index < len(self.rows) else None

    def _ended(self, row: Row, outcome: Outcome, now: float) -> Row:
        reason = "" if outcome.state in {State.OK, State.SKIPPED} else reason_of(outcome)
        if outcome.state is State.UNKNOWN:
            self.unclear.add_reason(outcome.name, reason, request_id=_support_id(outcome))
        elif outcome.state is not State.CANCELLED and reason:
            self.tally.add_reason(
                outcome.name,
                reason,
                status=outcome.status,
                request_id=None if reason.startswith("exit code") else _support_id(outcome),
                refused=outcome.status in _REFUSED,
                missing=outcome.status == _GONE,
            )
        return Row(
            name=row.name or outcome.name,
            zone=row.zone,
            phase=Phase.ENDED,
            since=now,
            began=row.began,
            attempts=outcome.attempts,
            state=outcome.state,
            reason=reason,
            seconds=outcome.seconds,
        )

    # -- what views ask --------------------------------------------------------------------------

    @property
    def total(self) -> int:
        return len(self.rows)

    @property
    def ended(self) -> int:
        return self.phases.get(Phase.ENDED, 0)

    @property
    def fraction(self) -> float:
        return self.ended / self.total if self.total else 1.0

    @property
    def progress(self) -> FleetProgress | None:
        moment = self.moment
        return None if moment is None else moment.progress

    @property
    def stopping(self) -> str:
        progress = self.progress
        return "" if progress is None else progress.stopping

    def seconds_left(self, now: float) -> float | None:
        """Answer what is expected until the last one has ended, or None.

        By the engine's word, else by what went well: where all have begun by what one takes, before
        by how fast they came. What failed at once tells nothing of the others.
        """
        moment = self.moment
        if moment is None or not self.rows:
            return None
        left = moment.seconds_left(now)
        if left is not None:
            return left
        well = self.states.get(State.OK, 0)
        self.speed.sample(now, Amount(files=well))
        if well < 3:
            return None
        if not (self.phases.get(Phase.QUEUED) or self.phases.get(Phase.BUDGET)):
            one = statistics.median(row.seconds for row in self.rows if row.state is State.OK)
            last = max((row.began or now for row in self.rows if row.state is None), default=now)
            return last + one - now if last + one > now else None  # overdue: nobody knows
        return self.speed.pace(Amount(files=self.total - self.ended)).seconds_left


def _move(counts: dict[Phase, int], before: Phase, after: Phase) -> None:
    counts[before] = counts.get(before, 0) - 1
    counts[after] = counts.get(after, 0) + 1


def _support_id(outcome: Outcome) -> str | None:
    """Answer what a support ticket asks for first: the correlation id, else the request's."""
    return getattr(outcome, "correlation_id", None) or outcome.request_id


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEnd:
    """How a command ended.

    Attributes:
        counts: how many ended in each state.
        under_way: the names of those that the service may still work on.
        journal: what `azpool fleet resume` takes, where something is left to be asked; or "".
        calls, polls, throttled: what it cost.
    """

    work: Work
    counts: dict[State, int]
    seconds: float
    tally: Tally
    unclear: Tally
    under_way: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    journal: str = ""
    calls: int = 0
    polls: int = 0
    throttled: int = 0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def well(self) -> int:
        return self.counts.get(State.OK, 0)

    @property
    def bad(self) -> int:
        """All that is neither ok nor skipped on purpose."""
        return self.total - self.well - self.counts.get(State.SKIPPED, 0)

    @classmethod
    def of(
        cls, state: FleetState, report: Report[Any], now: float, *, journal: str = ""
    ) -> FleetEnd:
        """Sum up a report, whose failures `state` has taken in already."""
        progress = state.progress
        return cls(
            work=state.work,
            counts=report.counts,
            seconds=now - state.began,
            tally=state.tally,
            unclear=state.unclear,
            under_way=tuple(outcome.name for outcome in report.unknown),
            notes=report.notes,
            journal=journal,
            calls=progress.calls if progress else 0,
            polls=progress.polls if progress else 0,
            throttled=progress.throttled if progress else 0,
        )

    @property
    def headline(self) -> str:
        """Say in one line what was done: `started 5 instances of w/c in 41.0 s`."""
        what = words.plural(self.total, "instance")
        if self.well != self.total:
            what = f"{words.count(self.well)} of {what}"
        text = f"{self.work.past} {what} of {words.printable(self.work.target)}"
        if self.work.detail:
            text += f" ({words.printable(self.work.detail)})"
        text += f" in {words.seconds(self.seconds)}"
        for state, count in self.counts.items():
            if state is not State.OK:
                text += f", {words.count(count)} {said_of(state)}"
        return text

    @property
    def cost(self) -> str:
        """Say what it took: `1,204 calls, 800 of them polls, 3 throttled`."""
        if not self.calls:
            return ""
        text = words.plural(self.calls, "call")
        if self.polls:
            text += f", {words.count(self.polls)} of them to ask how far it is"
        if self.throttled:
            text += f", {words.count(self.throttled)} throttled"
        return text


def said_of(state: State) -> str:
    """Say of some instances how they ended."""
    return {State.CANCELLED: "not done"}.get(state, state.value)
