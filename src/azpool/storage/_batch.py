"""What runs in a node: one job, on a few threads over the process's one open store.

    transfer.py (master) --Job--> run_job (node) --Results, while it runs--> transfer.py

Each file's or part's result is sent as soon as it is there (within `EMIT_SECONDS`), so a node that
dies takes with it only what it had not reported. A failure is a result, never an exception; only
an interrupt leaves `run_job`, after its threads have ended and no half-written file is left.
"""
# Strings for paths: a Path object a file would cost more than the file's bookkeeping may.

from __future__ import annotations

import enum
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from azpool.errors import Conflict, ConnectionFailed, IntegrityError, StorageError
from azpool.storage import _files
from azpool.storage._recipe import StoreRecipe
from azpool.storage._retry import RetryOptions, delay_before_retry
from azpool.storage._stores import open_store
from azpool.storage.options import Overwrite, TransferOptions
from azpool.storage.plan import Job, Part, Transfer, block_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from azpool.storage.store import Store

__all__ = ["Action", "Direction", "Result", "Task", "run_job", "run_on_node"]

EMIT_SECONDS = 0.05


class Direction(enum.Enum):
    """What a task does with each transfer."""

    UPLOAD = "upload"
    DOWNLOAD = "download"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all jobs of one call share; shipped to each node once.

    Attributes:
        recipe: the container.
        direction: what to do.
        cwd: what relative local paths are relative to; nodes have a working directory of their own.
        run: a token of this call, in the names of its blocks and `.part` files; derived from the
            journal's job, so that a resumed one finds its own.
        options: how files are moved.
        retry: how persistent each request is.
    """

    recipe: StoreRecipe
    direction: Direction
    cwd: str
    run: str
    options: TransferOptions = TransferOptions()  # noqa: RUF009 -- frozen
    retry: RetryOptions = RetryOptions()  # noqa: RUF009 -- frozen


class Action(enum.IntEnum):
    """How one unit of work ended."""

    DONE = 0
    FAILED = 1
    SKIPPED = 2


class Result(NamedTuple):
    """What a node says of one unit of work.

    Attributes:
        place: that of the file's outcome.
        part: -1 a whole file, -2 a digest, else the part's number.
        action: how it ended.
        bytes_moved: 0 unless it is done.
        seconds: with all its attempts.
        attempts: from 1.
        error: why it failed or was skipped.
        throttled: how many 503, 429 or time-outs were met on the way.
        md5: of a digest.
    """

    place: int
    part: int
    action: Action
    bytes_moved: int
    seconds: float
    attempts: int
    error: StorageError | None
    throttled: int = 0
    md5: bytes | None = None


class _Reach:
    """Whether the server can be reached at all, as this process has seen during one call.

    Once a request has failed to connect on its every attempt, the others fail at their first
    until one gets through: 2,000 files and no server take seconds, not hours.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.lost = False


_reach = _Reach("")


def run_job(
    task: Task, job: Job, *, emit: Callable[[list[Result]], None] | None = None
) -> list[Result]:
    """Do the job; answer with the results that were not yet emitted."""
    work: list[Transfer | Part] = [*job.parts, *job.files]
    worker = _Worker(task, open_store(task.recipe), iter(work))
    if min(job.threads, len(work)) <= 1:
        worker.run(_teller(worker, emit))
        return worker.take()
    threads = [
        threading.Thread(target=worker.run, name=f"azpool-transfer-{n}", daemon=True)
        for n in range(min(job.threads, len(work)))
    ]
    worker.running = len(threads)
    try:
        for thread in threads:
            thread.start()
        while not worker.done.wait(EMIT_SECONDS):
            if emit is not None and worker.results:
                emit(worker.take())
    finally:
        worker.stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return worker.take()


def _teller(
    worker: _Worker, emit: Callable[[list[Result]], None] | None
) -> Callable[[], None] | None:
    """Make what tells of results from the one thread that also does the work."""
    if emit is None:
        return None
    told = time.perf_counter()

    def tell() -> None:
        nonlocal told
        if time.perf_counter() - told >= EMIT_SECONDS:
            emit(worker.take())
            told = time.perf_counter()

    return tell


def run_on_node(task: Task, job: Job) -> list[Result]:
    """Do one job on a node, telling the master of each file as it is done."""
    from azpool.pool import emit

    return run_job(task, job, emit=emit)


class _Worker:
    """One job's state, shared by its threads."""

    def __init__(self, task: Task, store: Store, work: Iterator[Transfer | Part]) -> None:
        global _reach
        if _reach.run != task.run:
            _reach = _Reach(task.run)
        self.task = task
        self.store = store
        self.work = work
        self.lock = threading.Lock()
        self.results: list[Result] = []
        self.running = 1
        self.stop = threading.Event()
        self.done = threading.Event()

    def take(self) -> list[Result]:
        with self.lock:
            taken, self.results = self.results, []
        return taken

    def run(self, after_each: Callable[[], None] | None = None) -> None:
        try:
            while not self.stop.is_set():
                with self.lock:
                    item = next(self.work, None)
                if item is None:
                    return
                result = self.move(item)
                with self.lock:
                    self.results.append(result)
                if after_each is not None:
                    after_each()
        finally:
            with self.lock:
                self.running -= 1
                if self.running == 0:
                    self.done.set()

    def move(self, item: Transfer | Part) -> Result:
        """Do one unit of work with its retries; every failure becomes a result."""
        begun = time.perf_counter()
        place, part = (
            (item.place, -1) if isinstance(item, Transfer) else (item.transfer.place, item.number)
        )
        attempts, moved, error = 0, 0, None
        action = Action.DONE
        while True:
            attempts += 1
            try:
                action, moved = self.attempt(item)
                _reach.lost = False
                break
            except Exception as raised:
                error = _as_storage_error(raised, item, self.task.direction)
                pause = self._pause(error, attempts)
                if pause is None or self.stop.wait(pause):
                    action = Action.FAILED
                    break
                error = None
        seconds = time.perf_counter() - begun
        return Result(place, part, action, moved, seconds, attempts, error)

    def _pause(self, error: StorageError, attempts: int) -> float | None:
        import random  # not above: nodes load this module, and seldom need it

        pause = delay_before_retry(error, attempts, self.task.retry, random.random())
        if isinstance(error, ConnectionFailed):
            if pause is None:
                _reach.lost = True
            elif _reach.lost:
                return None
        return pause

    def attempt(self, item: Transfer | Part) -> tuple[Action, int]:
        if isinstance(item, Part):
            return Action.DONE, self.move_part(item)
        match self.task.direction:
            case Direction.UPLOAD:
                return self.upload(item)
            case Direction.DOWNLOAD:
                return self.download(item)
            case Direction.DELETE:
                self.store.delete(item.source)
                return Action.DONE, 0

    def upload(self, item: Transfer) -> tuple[Action, int]:
        task = self.task
        body = _files.read_file(os.path.join(task.cwd, item.source), item.source)
        try:
            self.store.put(
                item.target,
                body,
                content_type=task.options.content_type,
                overwrite=task.options.overwrite is Overwrite.ALWAYS,
            )
        except Conflict as error:
            if task.options.overwrite is Overwrite.NEVER and error.code == "BlobAlreadyExists":
                return Action.SKIPPED, 0
            raise
        return Action.DONE, len(body)

    def download(self, item: Transfer) -> tuple[Action, int]:
        path = os.path.join(self.task.cwd, item.target)
        if self.task.options.overwrite is Overwrite.NEVER and os.path.lexists(path):
            return Action.SKIPPED, 0
        # A blob that has grown since it was listed is cut off, seen, and not kept.
        info, body = self.store.get(item.source, length=item.size_bytes or None)
        if len(body) != info.size_bytes:
            raise IntegrityError(
                f"cannot download {item.source!r}: {len(body):,} of {info.size_bytes:,} bytes "
                "arrived, it may have changed; download it again",
                path=item.source,
            )
        _files.write_file(path, item.target, body, self.task.run)
        return Action.DONE, len(body)

    def move_part(self, part: Part) -> int:
        task, transfer = self.task, part.transfer
        if task.direction is Direction.UPLOAD:
            path = os.path.join(task.cwd, transfer.source)
            body = _files.read_range(
                path, transfer.source, part.offset, part.length, transfer.size_bytes
            )
            self.store.stage(transfer.target, block_id(task.run, part.number), body)
            return len(body)
        info, body = self.store.get(
            transfer.source, offset=part.offset, length=part.length, etag=transfer.etag
        )
        if len(body) != part.length or info.size_bytes != transfer.size_bytes:
            raise IntegrityError(
                f"cannot download {transfer.source!r}: {len(body):,} of {part.length:,} bytes of "
                "a part arrived, it may have changed; download it again",
                path=transfer.source,
            )
        path = os.path.join(task.cwd, transfer.target)
        _files.write_range(path, transfer.target, body, part.offset, task.run)
        return len(body)


def _as_storage_error(
    raised: Exception, item: Transfer | Part, direction: Direction
) -> StorageError:
    """Keep our own errors; put any other in words, so that it travels and the others go on."""
    if isinstance(raised, StorageError):
        return raised
    transfer = item.transfer if isinstance(item, Part) else item
    error = StorageError(
        f"cannot {direction.value} {transfer.source!r}: {type(raised).__name__}: {raised}",
        path=transfer.source,
    )
    error.__cause__ = raised
    return error
