"""What is under way in one call, what came of it, and when that is written down.

    _pump -> give -> (nodes) -> take -> settle (many at once) -> _ledger
                                     -> _finish (big files whose parts are all there)

The books hold what is under way and nothing else that grows with the number of files. What has
ended is written to the ledger together, at the latest half a second after it ended, so a killed
master repeats half a second's work. Told twice counts once.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from azpool.errors import IntegrityError, StorageError
from azpool.report import State
from azpool.storage import _files
from azpool.storage._allowance import Allowance, Given
from azpool.storage._batch import Action, Direction, Result, Task
from azpool.storage._finish import Finisher, Finishing
from azpool.storage._fronts import Front
from azpool.storage._ledger import Settled
from azpool.storage._settler import Settler
from azpool.storage.outcome import FileOutcome, Moving, Progress, ProgressCallable
from azpool.storage.plan import Job, Pacer, Part, Transfer, part, part_count

if TYPE_CHECKING:
    from azpool.storage._ledger import Ledger

__all__ = ["Books"]

PROGRESS_SECONDS = 0.1
TELL_ROWS = 5000
MOVING_TOLD = 3
WHOLE, DIGEST = -1, -2
DONE, OK = Action.DONE, State.OK  # looked up once: an enum's members are found slowly


@dataclass(slots=True)
class Big:
    """A file that moves in parts: what is under way of it, and what has come."""

    transfer: Transfer
    missing: int  # parts that are not done
    wants_digest: bool
    out: dict[int, Given] = field(default_factory=dict)  # parts that are under way
    digesting: bool = False  # its digest is due or under way
    digest_out: bool = False  # under way
    md5: bytes | None = None
    front: Front | None = None  # of a download whose digest reads behind
    resumed: int = 0  # bytes that an earlier run has moved
    moved: int = 0
    seconds: float = 0.0
    attempts: int = 1
    error: BaseException | None = None
    finishing: bool = False
    begun: float = field(default_factory=time.monotonic)


class Books:
    """See the module; all but `Settler` is called in the caller's thread.

    Args:
        task: what all jobs share.
        ledger: planned.
        allowance: is told what came back.
        nodes: how many there are.
        progress: the user's callable.
        job_id: of the journal, or "".
        most_behind: digests of downloads that may read behind their parts: each holds a node.
    """

    def __init__(
        self,
        task: Task,
        ledger: Ledger,
        allowance: Allowance,
        nodes: int,
        progress: ProgressCallable | None = None,
        job_id: str = "",
        most_behind: int = 0,
    ) -> None:
        self.task = task
        self.ledger = ledger
        self.allowance = allowance
        self.file_pace = Pacer(nodes)
        self.part_pace = Pacer(nodes)
        self.digests_due: deque[Transfer] = deque()
        self.stopped = False
        self._journaled = bool(job_id)
        self._job_id = job_id
        self._most_behind = most_behind
        self._window: dict[int, tuple[Transfer, Given]] = {}
        self._bigs: dict[int, Big] = {}
        self._finisher = Finisher(task)
        self._settler = Settler(ledger, timed=self._journaled)
        self._progress = progress
        self._begun = self._told = time.monotonic()
        self._totals = ledger.totals()
        self._done, self._failed, self._skipped = (
            self._totals.done, self._totals.failed, self._totals.skipped
        )  # fmt: skip
        self._failures = 0  # of this call: an earlier one's are no reason to stop
        self._bytes_done = self._totals.moved
        self._ended: list[FileOutcome] = []
        self._current = ""

    # -- what is given out -----------------------------------------------------------------------

    def give(self, files: Sequence[Transfer], threads: int) -> None:
        """Note small files of one job as under way."""
        window, given = self._window, self.allowance.give(len(files), threads)
        for transfer in files:
            window[transfer.place] = (transfer, given)

    def open_big(self, transfer: Transfer) -> Iterator[Part]:
        """Begin a big file, and give its parts that are not done."""
        done = self.ledger.parts_done(transfer.place)
        count = part_count(transfer.size_bytes)
        todo = [number for number in range(count) if number not in done]
        big = Big(transfer, len(todo), self._wants_digest(transfer))
        big.resumed = sum(part(transfer, number).length for number in done if number < count)
        self._bigs[transfer.place] = big
        self._bytes_done += big.resumed
        if big.wants_digest and self.task.direction is Direction.UPLOAD:
            # A node reads the file from beginning to end while others send its parts.
            big.digesting = True
            self.digests_due.append(transfer)
        elif big.wants_digest and len(todo) > 1 and self._behind() < self._most_behind:
            big.digesting = True
            big.front = Front(self.task.run, transfer.place, done)
            self.digests_due.append(transfer)
        if not todo:
            self._advance(big)
        return (part(transfer, number) for number in todo)

    def _behind(self) -> int:
        """How many digests read behind the parts of their files."""
        return sum(big.front is not None for big in self._bigs.values())

    def _stop_behind(self, big: Big) -> None:
        """Let the digest of a file wait for no more of its parts."""
        if big.front is not None:
            big.front.end()
            big.front = None

    def node_died(self) -> None:
        """Let no digest wait for parts that may have been lost."""
        for big in self._bigs.values():
            self._stop_behind(big)
        self.turn()

    def _wants_digest(self, transfer: Transfer) -> bool:
        if self.task.options.verify != "md5":
            return False
        return self.task.direction is Direction.UPLOAD or transfer.md5 is not None

    def give_parts(self, parts: Sequence[Part], threads: int) -> None:
        """Note parts of big files, of one job, as under way."""
        given = self.allowance.give(len(parts), threads)
        for one in parts:
            self._bigs[one.transfer.place].out[one.number] = given

    def give_digest(self) -> tuple[Transfer, bool]:
        """Answer the big file whose digest is due, and whether it reads behind; it is under way."""
        transfer = self.digests_due.popleft()
        big = self._bigs[transfer.place]
        big.digest_out = True
        return transfer, big.front is not None

    def given_up(self, of: Part) -> bool:
        """Whether this part need not be moved: its file has failed."""
        big = self._bigs.get(of.transfer.place)
        return big is None or big.error is not None

    def rest(self) -> Iterator[Job]:
        """Give what was given out and never answered, each by itself: its node has died.

        A file that kills its node takes no other with it a second time.
        """
        share = self.allowance.share()._replace(threads=1)
        for transfer, given in list(self._window.values()):
            self.allowance.lost(given)
            self._window[transfer.place] = (transfer, self.allowance.give(1, 1))
            yield Job(files=(transfer,), **share._asdict())
        for big in list(self._bigs.values()):
            for number, given in sorted(big.out.items(), key=lambda item: item[0]):
                self.allowance.lost(given)
                big.out[number] = self.allowance.give(1, 1)
                yield Job(parts=(part(big.transfer, number),), **share._asdict())
            if big.digest_out and self.task.direction is Direction.DOWNLOAD and big.missing:
                big.digesting = big.digest_out = False  # it is due when the parts are there
            elif big.digest_out:
                yield Job(digests=(big.transfer,), **share._asdict())

    @property
    def has_rest(self) -> bool:
        return bool(self._window) or any(big.out or big.digest_out for big in self._bigs.values())

    # -- what comes back -------------------------------------------------------------------------

    def take(self, results: Sequence[Result]) -> None:
        """Note what a node has reported.

        Raises:
            LocalFileError: the journal can't be written any more.
        """
        if not results:
            return
        files, seconds, size_bytes, throttled = 0, 0.0, 0, 0
        window, answered = self._window, self.allowance.answered
        for result in results:
            place, part, action, moved, took, attempts, error, refused, _ = result
            size_bytes += moved
            throttled += refused
            if part != WHOLE:
                self._take_of_big(result)
                continue
            known = window.pop(place, None)
            if known is None:
                continue
            answered(known[1])
            files += 1
            seconds += took
            if action is DONE:
                self._close(known[0], OK, error, took, attempts, moved)
                continue
            state = State.FAILED if action is Action.FAILED else State.SKIPPED
            note = "it exists" if state is State.SKIPPED and error is None else ""
            self._close(known[0], state, error, took, attempts, 0, note)
        if files:
            self.file_pace.note(files, seconds)
        self.allowance.note(len(results), size_bytes, throttled)
        self.turn()

    def turn(self) -> None:
        """Do what is due: take finished files, write down what has ended, tell the user."""
        for finished in self._finisher.take():
            self._finished(finished)
        self._settler.turn()
        if self._progress is not None and time.monotonic() - self._told >= PROGRESS_SECONDS:
            self.tell()

    def _take_of_big(self, result: Result) -> None:
        big = self._bigs.get(result.place)
        if big is None:
            return
        if result.part == DIGEST:
            if not big.digest_out:
                return
            big.digesting = big.digest_out = False
            big.md5 = result.md5
            self._stop_behind(big)
        else:
            given = big.out.pop(result.part, None)
            if given is None:
                return
            self.allowance.answered(given)
            self.part_pace.note(1, result.seconds)
        big.seconds += result.seconds
        big.attempts = max(big.attempts, result.attempts)
        if result.action is Action.FAILED:
            big.error = big.error or result.error
            self._stop_behind(big)
        elif result.part != DIGEST:
            big.missing -= 1
            big.moved += result.bytes_moved
            self._bytes_done += result.bytes_moved
            self._settler.add_part(result.place, result.part)
            if big.front is not None:
                big.front.done(result.part)
        self._advance(big)

    def _advance(self, big: Big) -> None:
        """Take a big file one step on, where nothing of it is under way any more."""
        if big.out or big.digest_out or big.finishing:
            return
        if big.error is not None:
            self._close_big(big, State.FAILED, big.error)
            return
        if big.missing or big.digesting:
            return
        if big.wants_digest and big.md5 is None:  # a download, whole but for its digest
            big.digesting = True
            self.digests_due.append(big.transfer)
            return
        # Should the master die in between, the journal must know that all parts were there.
        self._settler.flush()
        big.finishing = True
        self._finisher.submit(Finishing(big.transfer, big.md5))

    def _finished(self, finished: Finishing) -> None:
        big = self._bigs[finished.transfer.place]
        big.attempts = max(big.attempts, finished.attempts)
        big.seconds += finished.seconds
        self._close_big(big, finished.state, finished.error)

    def _close_big(self, big: Big, state: State, error: BaseException | None) -> None:
        transfer = big.transfer
        del self._bigs[transfer.place]
        self._stop_behind(big)
        if transfer in self.digests_due:
            self.digests_due.remove(transfer)
        self._bytes_done -= big.moved + big.resumed
        moved = big.moved + big.resumed if state is State.OK else 0
        note = "it exists" if state is State.SKIPPED else ""
        self._close(transfer, state, error, big.seconds, big.attempts, moved, note, big=True)

    def _close(
        self,
        transfer: Transfer,
        state: State,
        error: BaseException | None = None,
        seconds: float = 0.0,
        attempts: int = 0,
        moved: int = 0,
        note: str = "",
        *,
        big: bool = False,
    ) -> None:
        self._done += 1
        self._bytes_done += moved
        self._current = transfer.source
        if state is OK:
            pass
        elif state is State.FAILED:
            self._failed += 1
            self._failures += 1
            most = self.task.options.max_failures
            if most is not None and self._failures >= most:
                self.stopped = True
            if self.task.direction is Direction.DOWNLOAD and not (big and self._may_go_on(error)):
                self._drop_part(transfer)
        else:
            self._skipped += 1
        self._settler.add(Settled(transfer.place, state, seconds, attempts, moved, error, note))
        if self._progress is not None:
            self._ended.append(
                FileOutcome(
                    index=transfer.place,
                    name=transfer.source,
                    state=state,
                    error=error,
                    seconds=seconds,
                    attempts=attempts,
                    bytes_moved=moved,
                    source=transfer.source,
                    target=transfer.target,
                    size_bytes=transfer.size_bytes,
                    note=note,
                )
            )

    def _may_go_on(self, error: BaseException | None) -> bool:
        """Whether a resumed job may use the parts of a download that failed."""
        return self._journaled and not isinstance(error, IntegrityError)

    def fail_rest(self, job: Job, error: BaseException) -> None:
        """Fail all of a job that has no result: it was tried by itself."""
        for transfer in job.files:
            known = self._window.pop(transfer.place, None)
            if known is not None:
                self.allowance.lost(known[1])
                self._close(transfer, State.FAILED, error, attempts=1)
        for transfer in (*(given.transfer for given in job.parts), *job.digests):
            big = self._bigs.get(transfer.place)
            if big is None:
                continue
            big.error = big.error or error
            self._stop_behind(big)
            for one in job.parts:
                lost = big.out.pop(one.number, None)
                if lost is not None:
                    self.allowance.lost(lost)
            if job.digests:
                big.digesting = big.digest_out = False
            self._advance(big)
        self.turn()

    def settle_folder(self, transfer: Transfer, error: StorageError | None) -> None:
        """Note an empty folder, which the master makes."""
        self._close(transfer, State.FAILED if error else State.OK, error, attempts=1)

    def wait_for_finishing(self) -> None:
        """Wait until all files whose parts are there are finished."""
        while self._finisher.wait():
            self.turn()
        self.turn()

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Write down what has ended and stop what finishes files; leave no unfinished download.

        With a journal the `.part` of a big download stays: it can be resumed.
        """
        for big in self._bigs.values():
            self._stop_behind(big)
        self._finisher.close()
        try:
            for finished in self._finisher.take():
                self._finished(finished)
        finally:
            try:
                self._settler.close()
            finally:
                if self.task.direction is Direction.DOWNLOAD:
                    for transfer, _ in self._window.values():
                        self._drop_part(transfer)
                    for big in self._bigs.values():
                        if not self._journaled:
                            self._drop_part(big.transfer)

    def _drop_part(self, transfer: Transfer) -> None:
        _files.drop_part(os.path.join(self.task.cwd, transfer.target), self.task.run)

    def tell_planned(self, outcomes: Iterator[FileOutcome]) -> None:
        """Tell of what was settled while planning."""
        if self._progress is None:
            return
        for outcome in outcomes:
            self._ended.append(outcome)
            if len(self._ended) >= TELL_ROWS:
                self.tell()

    def tell(self, *, finished: bool = False) -> None:
        """Call the user's `progress`, in the caller's thread."""
        if self._progress is None:
            return
        self._told = time.monotonic()
        ended, self._ended = self._ended, []
        self._progress(
            Progress(
                files_done=self._done,
                files_failed=self._failed,
                files_skipped=self._skipped,
                files_total=self._totals.files,
                bytes_done=self._bytes_done,
                bytes_total=self._totals.size_bytes,
                in_flight=0 if finished else self.allowance.in_flight,
                seconds=self._told - self._begun,
                current=self._current,
                ended=tuple(ended),
                finished=finished,
                moving=self._moving(),
                throttled=self.allowance.throttled,
                job=self._job_id,
            )
        )

    def _moving(self) -> tuple[Moving, ...]:
        # Begun in the order in which they stand there.
        return tuple(
            Moving(
                name=big.transfer.source,
                size_bytes=big.transfer.size_bytes,
                bytes_done=big.resumed + big.moved,
                seconds=self._told - big.begun,
            )
            for big in islice(self._bigs.values(), MOVING_TOLD)
        )
