"""Make jobs of what is open in the ledger, while the nodes work: the next one when there is room.

    _ledger (pages of open rows) -> Pump.jobs -> Nodes.run -> _batch (nodes)

Small files go in batches, in their order; big ones in parts, the biggest first, spread evenly in
between, so that neither a long file nor a long tail of small ones is left to the end. Of downloads
as many are begun as requests may be in flight, each part of the next one in turn: the system lets
one at a time write to a file. What was given out stands in the books until its result is there;
nothing else is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from azpool.storage._ledger import Kind
from azpool.storage._task import Direction
from azpool.storage.plan import (
    MAX_BATCH_BYTES,
    MAX_BATCH_FILES,
    MIN_BATCH_FILES,
    Job,
    Part,
    Transfer,
    is_short,
    part_count,
)

if TYPE_CHECKING:
    from azpool.storage._allowance import Allowance
    from azpool.storage._books import Books
    from azpool.storage._ledger import Ledger

__all__ = ["Pump"]

BIG_PAGE = 50
BEGUN_PER_NODE = 4  # big downloads, at most
PARTS_PER_JOB = 64  # at most, whatever their pace: 512 MiB, or a full node many times over


class Pump:
    """The open rows of one ledger, as jobs."""

    def __init__(self, ledger: Ledger, books: Books, allowance: Allowance) -> None:
        self._ledger = ledger
        self._books = books
        self._allowance = allowance
        self._small: deque[Transfer] = deque()
        self._after = -1
        self._small_total, self.big_total = ledger.open_counts()
        self._small_sent = 0
        self._bigs: deque[Transfer] = deque()
        self._before: tuple[int, int] | None = None
        self._begun: deque[Iterator[Part]] = deque()
        task = books.task
        # One by one: what is read is read on, and a digest behind its file's parts waits for few.
        one_by_one = task.direction is Direction.UPLOAD or task.options.verify == "md5"
        self._begun_most = 1 if one_by_one else BEGUN_PER_NODE * allowance.nodes
        self._parts_total = sum(
            part_count(thing.size_bytes) for thing in ledger.open_things(Kind.BIG)
        )
        self._parts_sent = 0

    @property
    def small_total(self) -> int:
        return self._small_total

    def jobs(self) -> Iterator[Job]:
        """Give jobs until all that is open has been given once, or the call is to stop."""
        while not self._books.stopped:
            job = self._next()
            if job is None:
                return
            yield job

    def _next(self) -> Job | None:
        if self._books.digests_due:
            return self._digest()
        if self._parts_behind():
            return self._part_job() or self._batch()
        return self._batch() or self._part_job()

    def _parts_behind(self) -> bool:
        small = self._small_sent / self._small_total if self._small_total else 1.0
        parts = self._parts_sent / self._parts_total if self._parts_total else 1.0
        return parts <= small

    def _digest(self) -> Job:
        transfer, behind = self._books.give_digest()
        rate = self._allowance.share().bytes_per_second
        return Job(digests=(transfer,), behind=behind, threads=1, bytes_per_second=rate)

    # -- small files -----------------------------------------------------------------------------

    def _batch(self) -> Job | None:
        share = self._allowance.share()
        left = self._small_total - self._small_sent
        wanted = self._books.file_pace.units(
            max(left, 1),
            share.threads,
            least=MIN_BATCH_FILES,
            most=MAX_BATCH_FILES,
            seconds=self._allowance.batch_seconds,
        )
        files: list[Transfer] = []
        held = 0
        while len(files) < wanted and (held < MAX_BATCH_BYTES or not files):
            if not self._small and not self._read_small():
                break
            transfer = self._small.popleft()
            files.append(transfer)
            held += transfer.size_bytes
        if not files:
            return None
        self._small_sent += len(files)
        threads = share.threads if all(map(is_short, files)) else share.for_long
        self._books.give(files, threads)
        return Job(
            files=tuple(files),
            threads=threads,
            requests_per_second=share.requests_per_second,
            bytes_per_second=share.bytes_per_second,
        )

    def _read_small(self) -> bool:
        page = self._ledger.open_small(self._after)
        if page:
            self._after = page[-1].place
            self._small.extend(page)
        return bool(page)

    # -- parts of big files ------------------------------------------------------------------------

    def _part_job(self) -> Job | None:
        share = self._allowance.share()
        parts: list[Part] = []
        wanted = 1
        while len(parts) < wanted:
            big = self._next_big()
            if big is None:
                break
            part = next(big, None)
            if part is None:
                continue
            self._begun.append(big)
            if self._books.given_up(part):
                continue
            if not parts:
                left = max(1, self._parts_total - self._parts_sent)
                wanted = self._books.part_pace.units(
                    left, share.for_long, least=1, most=PARTS_PER_JOB
                )
            parts.append(part)
        if not parts:
            return None
        self._parts_sent += len(parts)
        self._books.give_parts(parts, share.for_long)
        return Job(
            parts=tuple(parts),
            threads=share.for_long,
            requests_per_second=share.requests_per_second,
            bytes_per_second=share.bytes_per_second,
        )

    def _next_big(self) -> Iterator[Part] | None:
        """Answer the parts of a new file, while few are begun, or else of the next in turn."""
        most = min(self._begun_most, self._allowance.limit)
        big = self._begin_big() if len(self._begun) < most else None
        if big is None and self._begun:
            big = self._begun.popleft()
        return big

    def _begin_big(self) -> Iterator[Part] | None:
        if not self._bigs:
            page = self._ledger.open_big(self._before, BIG_PAGE)
            if not page:
                return None
            self._before = (page[-1].size_bytes, page[-1].place)
            self._bigs.extend(page)
        return self._books.open_big(self._bigs.popleft())
