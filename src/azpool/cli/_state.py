"""What a transfer looks like at one moment: written by the run, read by the views. Pure.

Flat in memory: counts, the first names of each reason, the slowest few.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpool.cli._rate import Amount, Pace, Speed, fraction
from azpool.cli._tally import Tally
from azpool.report import State
from azpool.storage.outcome import Moving

if TYPE_CHECKING:
    from azpool.report import Outcome, Report
    from azpool.storage.outcome import FileOutcome, Progress

__all__ = ["Job", "Slow", "Summary", "TransferState"]

SLOW_SHOWN = 3
SLOW_FROM_SECONDS = 2.0  # what takes less is not what a transfer waits for


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one command does, in words."""

    verb: str
    """upload, download, delete: also the word in its messages."""
    target: str
    """Where to, as the user gave it (without any SAS)."""
    nodes: int = 0
    """The nodes of the pool; 0 where none are used."""
    thing: str = "file"

    @property
    def doing(self) -> str:
        return {"delete": "deleting"}.get(self.verb, f"{self.verb}ing")

    @property
    def past(self) -> str:
        return {"delete": "deleted"}.get(self.verb, f"{self.verb}ed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A file that took long."""

    name: str
    seconds: float
    size_bytes: int


@dataclass(slots=True)
class TransferState:
    """The numbers that every view shows; written by the transfer's thread, read by the view's.

    Each attribute is replaced whole, so a reader sees old or new values, never half of one.

    Attributes:
        job: what is done.
        began: on the clock of `time.monotonic`.
        done: what went well.
        total: all, or None before anything was counted.
        planning: whether `total` still grows, and nothing moves yet.
        before: what was done of it before this command began: an earlier one's work, for a resume.
        given_up: bytes of what failed or was skipped on the way: they won't come any more.
        moving: big files under way, the longest first.
        slow: files that took long, the slowest first.
        journal: the id under which `azpool jobs` knows this, or "".
    """

    job: Job
    began: float
    done: Amount = field(default_factory=Amount)
    total: Amount | None = None
    planning: bool = False
    before: Amount | None = None
    in_flight: int = 0
    throttled: int = 0
    current: str = ""
    skipped: int = 0
    failed: int = 0
    given_up: int = 0
    moving: tuple[Moving, ...] = ()
    slow: tuple[Slow, ...] = ()
    journal: str = ""
    tally: Tally = field(default_factory=Tally)
    speed: Speed = field(default_factory=Speed)

    def take(self, progress: Progress) -> None:
        """Take over the engine's numbers."""
        self.planning = progress.planning
        self.total = Amount(files=progress.files_total, size_bytes=progress.bytes_total)
        self.done = Amount(
            files=progress.files_done - progress.files_failed - progress.files_skipped,
            size_bytes=progress.bytes_done,
        )
        self.failed = progress.files_failed
        self.skipped = progress.files_skipped
        self.in_flight = progress.in_flight
        self.throttled = progress.throttled
        self.moving = progress.moving
        self.current = progress.current or self.current
        self.journal = progress.job or self.journal
        if self.before is None and not progress.planning:
            now = [outcome for outcome in progress.ended if outcome.ok]
            self.before = Amount(
                files=self.done.files - len(now),
                size_bytes=max(0, self.done.size_bytes - sum(o.bytes_moved for o in now)),
            )
        for outcome in progress.ended:
            self._take_ended(outcome)

    def _take_ended(self, outcome: FileOutcome) -> None:
        state = outcome.state
        if (state is State.FAILED or state is State.SKIPPED) and outcome.attempts:
            self.given_up += outcome.size_bytes
        least = self.slow[-1].seconds if len(self.slow) == SLOW_SHOWN else SLOW_FROM_SECONDS
        if outcome.seconds > least:
            slow = Slow(name=outcome.name, seconds=outcome.seconds, size_bytes=outcome.size_bytes)
            ordered = sorted((*self.slow, slow), key=lambda one: -one.seconds)
            self.slow = tuple(ordered[:SLOW_SHOWN])

    @property
    def is_alone(self) -> bool:
        """Whether there is but one file: its failure is one message, not a table."""
        return self.total is not None and not self.planning and self.total.files == 1

    @property
    def settled(self) -> Amount:
        """What needs no more work: done, failed or skipped."""
        return Amount(
            files=self.done.files + self.failed + self.skipped,
            size_bytes=self.done.size_bytes + self.given_up,
        )

    @property
    def fraction(self) -> float | None:
        return None if self.planning else fraction(self.settled, self.total)

    def pace(self, now: float) -> Pace:
        """Note the numbers of this moment and answer the rates of the last seconds."""
        if self.total is None or self.planning:
            return Pace()
        settled = self.settled
        self.speed.sample(now, settled)
        left = Amount(
            files=max(0, self.total.files - settled.files),
            size_bytes=max(0, self.total.size_bytes - settled.size_bytes),
        )
        return self.speed.pace(left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a command ended.

    Attributes:
        before: how many of `ok` were done before the command began, and their bytes.
        journal: the id of the job to resume, where something is left to be done; or "".
    """

    job: Job
    ok: int
    failed: int
    skipped: int
    not_done: int
    bytes_moved: int
    seconds: float
    tally: Tally
    before: Amount = field(default_factory=Amount)
    notes: tuple[str, ...] = ()
    journal: str = ""

    @property
    def total(self) -> int:
        return self.ok + self.failed + self.skipped + self.not_done

    @classmethod
    def of(
        cls,
        job: Job,
        report: Report[Outcome],
        elapsed_seconds: float,
        tally: Tally,
        *,
        before: Amount | None = None,
        journal: str = "",
        notes: tuple[str, ...] | None = None,
    ) -> Summary:
        """Sum up a report, whose failures are in `tally`; its outcomes are not looked at."""
        counts = report.counts
        named = (State.OK, State.FAILED, State.SKIPPED)
        return cls(
            job=job,
            ok=counts.get(State.OK, 0),
            failed=counts.get(State.FAILED, 0),
            skipped=counts.get(State.SKIPPED, 0),
            not_done=sum(count for state, count in counts.items() if state not in named),
            bytes_moved=report.bytes_moved,
            seconds=elapsed_seconds,
            tally=tally,
            before=before or Amount(),
            notes=report.notes if notes is None else notes,
            journal=journal,
        )
