"""What a transfer looks like at one moment: written by the run, read by the views. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from azpool.cli._rate import Amount, Pace, Speed, fraction
from azpool.cli._tally import Tally

if TYPE_CHECKING:
    from azpool.report import Outcome, Report
    from azpool.storage.outcome import Progress

__all__ = ["Job", "Summary", "TransferState"]


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


@dataclass(slots=True)
class TransferState:
    """The numbers that every view shows; written by the transfer's thread, read by the view's.

    Each attribute is replaced whole, so a reader sees old or new values, never half of one.
    """

    job: Job
    began: float
    done: Amount = field(default_factory=Amount)
    total: Amount | None = None
    in_flight: int = 0
    current: str = ""
    skipped: int = 0
    failed: int = 0
    tally: Tally = field(default_factory=Tally)
    speed: Speed = field(default_factory=Speed)

    def take(self, progress: Progress) -> None:
        """Take over the engine's numbers."""
        self.total = Amount(files=progress.files_total, size_bytes=progress.bytes_total)
        self.done = Amount(
            files=progress.files_done - progress.files_failed - progress.files_skipped,
            size_bytes=progress.bytes_done,
        )
        self.failed = progress.files_failed
        self.skipped = progress.files_skipped
        self.in_flight = progress.in_flight
        self.current = progress.current or self.current

    @property
    def settled(self) -> Amount:
        """What needs no more work: done, failed or skipped."""
        return Amount(
            files=self.done.files + self.failed + self.skipped, size_bytes=self.done.size_bytes
        )

    @property
    def fraction(self) -> float | None:
        return fraction(self.settled, self.total)

    def pace(self, now: float) -> Pace:
        """Note the numbers of this moment and answer the rates of the last seconds."""
        settled = self.settled
        self.speed.sample(now, settled)
        if self.total is None:
            return self.speed.pace(None)
        left = Amount(
            files=max(0, self.total.files - settled.files),
            size_bytes=max(0, self.total.size_bytes - settled.size_bytes),
        )
        return self.speed.pace(left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a command ended."""

    job: Job
    ok: int
    failed: int
    skipped: int
    not_done: int
    bytes_moved: int
    seconds: float
    tally: Tally
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.ok + self.failed + self.skipped + self.not_done

    @classmethod
    def of(cls, job: Job, report: Report[Outcome], elapsed_seconds: float, tally: Tally) -> Summary:
        """Sum up a report, whose failures are in `tally`."""
        skipped, failed = len(report.skipped), report.failed
        ok = len(report.ok)
        return cls(
            job=job,
            ok=ok,
            failed=len(failed),
            skipped=skipped,
            not_done=len(report) - ok - skipped - len(failed),
            bytes_moved=report.bytes_moved,
            seconds=elapsed_seconds,
            tally=tally,
            notes=report.notes,
        )
