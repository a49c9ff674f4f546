"""What users see of a transfer: one `FileOutcome` a file, and `Progress` while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from azpool.report import Outcome

__all__ = ["FileOutcome", "Moving", "Progress", "ProgressCallable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOutcome(Outcome):
    """What happened to one file or blob; `name` is its source.

    Attributes:
        source: the local path or the blob's name that it came from.
        target: the blob's name or the local path that it went to; "" where it has none.
        size_bytes: its size as planned; `bytes_moved` is what arrived.
        note: why it was skipped on purpose: "it exists", "it is not newer", "it is the same".
    """

    source: str = ""
    target: str = ""
    size_bytes: int = 0
    note: str = ""

    def _names(self) -> set[str]:
        # Not `super()`: a dataclass with slots is another class than the one of this body.
        return Outcome._names(self) | {name for name in (self.source, self.target) if name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A file under way.

    Attributes:
        name: its source.
        size_bytes: its size.
        bytes_done: what of it has arrived, by an earlier call too.
        seconds: since it was begun.
    """

    name: str
    size_bytes: int
    bytes_done: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a call is, as told to its `progress` callable some 10 times a second.

    Attributes:
        files_done: files that have an outcome, whichever.
        files_failed: those of them that failed.
        files_skipped: those of them that were skipped.
        files_total: all files.
        bytes_done: bytes that arrived, parts of unfinished files included.
        bytes_total: all bytes.
        in_flight: about how many requests are under way.
        seconds: since the call began.
        current: the source that was finished last, or "".
        ended: the outcomes since the call before this one, in the order in which they came.
        finished: whether this is the last word; it is always said.
        planning: whether the totals still grow: nothing moves before all is known.
        moving: files that move in parts and are under way, the longest first; a few at most.
        throttled: how often the service has asked for fewer requests, or timed out.
        job: the journal's id, for `azpool.storage.jobs`, or "".
    """

    files_done: int = 0
    files_failed: int = 0
    files_skipped: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    in_flight: int = 0
    seconds: float = 0.0
    current: str = ""
    ended: tuple[FileOutcome, ...] = ()
    finished: bool = False
    planning: bool = False
    moving: tuple[Moving, ...] = ()
    throttled: int = 0
    job: str = ""


ProgressCallable: TypeAlias = Callable[[Progress], object]
