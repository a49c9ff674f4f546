"""Run what was selected on the nodes of a pool, and account for every single thing of it.

    container.py -> _sources.py (what) -> plan.py (jobs) -> here -> Nodes.map -> _batch.py (nodes)

The master only keeps books: nodes report each file while their job runs, so a node that dies leaves
a known rest, which is run once more, each file by itself, and then failed. However a call ends, no
unfinished download is left in its folder. All callables run in the caller's thread.
"""

# os.path and strings: a Path object a file would cost more than the file's bookkeeping may.

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from azpool.errors import IntegrityError, NodeDied, PoolError, StorageError
from azpool.report import Report, State
from azpool.storage import _files
from azpool.storage._batch import Action, Direction, Result, Task, run_job, run_on_node
from azpool.storage._listing import with_retries
from azpool.storage._retry import RetryOptions
from azpool.storage._sources import Planned, Selection
from azpool.storage._stores import open_store
from azpool.storage.options import Overwrite, TransferOptions
from azpool.storage.outcome import FileOutcome, Progress, ProgressCallable
from azpool.storage.plan import (
    Job,
    Part,
    Transfer,
    block_id,
    is_big,
    parts,
    plan_jobs,
    threads_for,
)

if TYPE_CHECKING:
    from azpool.pool.session import AnyPool
    from azpool.storage._recipe import StoreRecipe

__all__ = ["Inline", "Nodes", "Options", "move"]

PROGRESS_SECONDS = 0.1
# What nodes run: imported once for all of them, where the pool is made here.
NODE_MODULES = ("azpool.storage._batch", "azpool.storage._rest")
# Below this many small files, starting a pool takes longer than moving them.
FEW_FILES = 4

OnResults: TypeAlias = Callable[[list[Result]], None]
Answers: TypeAlias = Generator[list[Result] | BaseException, None, None]


class Nodes(Protocol):
    """What a transfer needs of whatever runs its jobs, and no more."""

    @property
    def slots(self) -> int:
        """How many nodes there are."""
        ...

    def run(self, task: Task, jobs: Sequence[Job], on_results: OnResults) -> Answers:
        """Run the jobs, yield each one's last results or its error in the order of the jobs.

        `on_results` gets the other results as they come, in the caller's thread, during `next`.
        Closing the iterator stops what still runs.
        """
        ...


class PoolNodes:
    """The nodes of a pool."""

    def __init__(self, pool: AnyPool) -> None:
        self._pool = pool
        self.slots = pool.size

    def run(self, task: Task, jobs: Sequence[Job], on_results: OnResults) -> Answers:
        yield from self._pool.map(
            functools.partial(run_on_node, task),
            jobs,
            chunksize=1,
            return_exceptions=True,
            on_emit=lambda _, results: on_results(results),
        )


class Inline:
    """The caller's own process, where there is too little to move for a pool, or on a node."""

    slots = 1

    def run(self, task: Task, jobs: Sequence[Job], on_results: OnResults) -> Answers:
        for job in jobs:
            yield run_job(task, job, emit=on_results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a call moves its files, whatever they are."""

    overwrite: bool = True
    content_type: str | None = None
    retry: RetryOptions


def move(
    direction: Direction,
    recipe: StoreRecipe,
    selection: Selection,
    options: Options,
    *,
    pool: AnyPool | None = None,
    inline: bool = False,
    progress: ProgressCallable | None = None,
) -> Report[FileOutcome]:
    """Move everything selected and report on each; blocks. A file that fails stops no other.

    The nodes are those of `pool`, or else of the session's pool, which is made or grown to 10;
    `inline` moves everything in the caller's own process.

    Raises:
        KeyboardInterrupt: running jobs were stopped and unfinished downloads removed.
        PoolError: the pool itself failed; unfinished downloads were removed.
    """
    begun = time.monotonic()
    nodes = _choose_nodes(selection, pool, inline=inline)
    threads = threads_for(nodes.slots, local=recipe.is_local)
    task = Task(
        recipe=recipe,
        direction=direction,
        cwd=os.getcwd(),
        run=secrets.token_hex(8),
        options=TransferOptions(
            overwrite=Overwrite.ALWAYS if options.overwrite else Overwrite.NEVER,
            content_type=options.content_type,
        ),
        retry=options.retry,
    )
    books = _Books(task, selection.things, progress, nodes.slots * threads)
    try:
        books.settle_planned()
        _perform(books, nodes, task, threads)
    finally:
        books.drop_unfinished()
    books.tell(finished=True)
    return Report(
        books.closed(),
        title=direction.value,
        seconds=time.monotonic() - begun,
        notes=selection.notes,
        again=functools.partial(_again, direction, recipe, options),
    )


def _choose_nodes(selection: Selection, pool: AnyPool | None, *, inline: bool) -> Nodes:
    if pool is not None:
        return PoolNodes(pool)
    from azpool.pool.context import on_node

    sizes = [thing.size_bytes for thing in selection.movable()]
    few = len(sizes) <= FEW_FILES and not any(map(is_big, sizes))
    if inline or few or on_node():
        return Inline()
    from azpool.pool.session import ensure_pool

    return PoolNodes(ensure_pool(preload=NODE_MODULES))


def _perform(books: _Books, nodes: Nodes, task: Task, threads: int) -> None:
    jobs = plan_jobs(books.transfers(), nodes=nodes.slots, threads=threads)
    died = _run_jobs(books, nodes, task, jobs)
    if not died:
        return
    # One by one: a file that kills its node takes no other with it a second time.
    rest = [unit for job, _ in died for unit in books.unaccounted(job)]
    for job, error in _run_jobs(books, nodes, task, rest):
        books.fail(job, error)


def _run_jobs(
    books: _Books, nodes: Nodes, task: Task, jobs: Sequence[Job]
) -> list[tuple[Job, NodeDied]]:
    """Run the jobs and answer those whose node died."""
    died: list[tuple[Job, NodeDied]] = []
    answers = nodes.run(task, jobs, books.take)
    with contextlib.closing(answers):
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, NodeDied):
                died.append((job, answer))
            elif isinstance(answer, PoolError):
                raise answer
            elif isinstance(answer, BaseException):
                books.fail(job, answer)
            else:
                books.take(answer)
    return died


@dataclass(slots=True)
class _Big:
    """A file that moves in parts: what has come so far."""

    left: set[int]
    moved: int = 0
    seconds: float = 0.0
    attempts: int = 0
    error: StorageError | None = None


class _Books:
    """What is known of every thing of one call."""

    def __init__(
        self,
        task: Task,
        things: Sequence[Planned],
        progress: ProgressCallable | None,
        slots: int,
    ) -> None:
        self.task = task
        self.things = things
        self.outcomes: list[FileOutcome | None] = [None] * len(things)
        self.big: dict[int, _Big] = {}
        self.progress = progress
        self.slots = slots
        self.begun = self.told = time.monotonic()
        self.done = self.failed = self.skipped = self.bytes_done = 0
        self.bytes_total = sum(thing.size_bytes for thing in things if thing.error is None)
        self.ended: list[FileOutcome] = []

    def settle_planned(self) -> None:
        """Close what needs no node: what was refused, and empty folders."""
        for place, thing in enumerate(self.things):
            if thing.error is not None:
                state = State.SKIPPED if thing.skip else State.FAILED
                self.close(place, state, thing.error)
            elif thing.folder:
                try:
                    _files.make_folder(thing.target)
                except StorageError as error:
                    self.close(place, State.FAILED, error)
                else:
                    self.close(place, State.OK, attempts=1)

    def transfers(self) -> list[Transfer]:
        """Answer what the nodes are to do, big files registered for their parts."""
        out = []
        for place, thing in enumerate(self.things):
            if self.outcomes[place] is not None:
                continue
            transfer = Transfer(place, thing.source, thing.target, thing.size_bytes, thing.etag)
            if is_big(thing.size_bytes):
                if self.task.options.overwrite is Overwrite.NEVER and self.exists(thing):
                    self.close(place, State.SKIPPED)
                    continue
                self.big[place] = _Big({part.number for part in parts(transfer)})
            out.append(transfer)
        return out

    def exists(self, thing: Planned) -> bool:
        """Tell whether a big file's target is there: its parts are not moved to find that out."""
        if self.task.direction is Direction.DOWNLOAD:
            return os.path.lexists(os.path.join(self.task.cwd, thing.target))
        store = open_store(self.task.recipe)
        with contextlib.suppress(StorageError):  # what is wrong here, the parts will meet too
            store.head(thing.target)
            return True
        return False

    def take(self, results: list[Result]) -> None:
        """Note what a node has reported; told twice counts once."""
        for result in results:
            if self.outcomes[result.place] is not None:
                continue
            if result.part >= 0:
                self.take_part(result)
            elif result.action is Action.DONE:
                self.close(
                    result.place,
                    State.OK,
                    None,
                    result.seconds,
                    result.attempts,
                    result.bytes_moved,
                )
            else:
                state = State.FAILED if result.action is Action.FAILED else State.SKIPPED
                self.close(result.place, state, result.error, result.seconds, result.attempts)
        if self.progress is not None and time.monotonic() - self.told >= PROGRESS_SECONDS:
            self.tell()

    def take_part(self, result: Result) -> None:
        big = self.big[result.place]
        if result.part not in big.left:
            return
        big.left.discard(result.part)
        big.seconds += result.seconds
        big.attempts = max(big.attempts, result.attempts)
        big.moved += result.bytes_moved
        self.bytes_done += result.bytes_moved
        big.error = big.error or result.error
        if big.left:
            return
        if big.error is None:
            big.error, state = self.finish(result.place)
        else:
            state = State.FAILED
        self.bytes_done -= big.moved
        moved = big.moved if state is State.OK else 0
        self.close(result.place, state, big.error, big.seconds, big.attempts, moved)

    def finish(self, place: int) -> tuple[StorageError | None, State]:
        """Make one file of its parts: commit the blocks, or rename the `.part` file."""
        thing, task = self.things[place], self.task
        try:
            if task.direction is Direction.UPLOAD:
                return self.commit(place, thing)
            path = os.path.join(task.cwd, thing.target)
            _files.finish_part(path, thing.target, thing.size_bytes, task.run)
        except StorageError as error:
            return error, State.FAILED
        return None, State.OK

    def commit(self, place: int, thing: Planned) -> tuple[StorageError | None, State]:
        task = self.task
        try:
            size = os.stat(os.path.join(task.cwd, thing.source)).st_size
        except OSError as error:
            raise _files.local_error(error, "upload", thing.source) from error
        if size != thing.size_bytes:
            raise IntegrityError(
                f"cannot upload {thing.source!r}: it changed while it was read; "
                "upload it again when it is still",
                path=thing.source,
            )
        cut = parts(Transfer(place, thing.source, thing.target, thing.size_bytes))
        ids = [block_id(task.run, part.number) for part in cut]
        store = open_store(task.recipe)
        try:
            with_retries(
                lambda: store.commit(
                    thing.target,
                    ids,
                    content_type=task.options.content_type,
                    overwrite=task.options.overwrite is Overwrite.ALWAYS,
                ),
                task.retry,
            )
        except StorageError as error:
            if task.options.overwrite is Overwrite.NEVER and error.code == "BlobAlreadyExists":
                return None, State.SKIPPED
            raise
        return None, State.OK

    def close(
        self,
        place: int,
        state: State,
        error: BaseException | None = None,
        seconds: float = 0.0,
        attempts: int = 0,
        moved: int = 0,
    ) -> None:
        thing = self.things[place]
        outcome = FileOutcome(
            index=place,
            name=thing.source,
            state=state,
            error=error,
            seconds=seconds,
            attempts=attempts,
            bytes_moved=moved,
            source=thing.source,
            target=thing.target,
            size_bytes=thing.size_bytes,
        )
        self.outcomes[place] = outcome
        self.done += 1
        self.failed += state is State.FAILED
        self.skipped += state is State.SKIPPED
        self.bytes_done += moved
        if self.progress is not None:
            self.ended.append(outcome)

    def unaccounted(self, job: Job) -> Iterator[Job]:
        """Split what the dead node had not reported into jobs of one file or part each."""
        for transfer in job.files:
            if self.outcomes[transfer.place] is None:
                yield Job(files=(transfer,))
        for part in job.parts:
            if self.is_open(part):
                yield Job(parts=(part,))

    def is_open(self, part: Part) -> bool:
        place = part.transfer.place
        return self.outcomes[place] is None and part.number in self.big[place].left

    def fail(self, job: Job, error: BaseException) -> None:
        """Fail all of a job that has no outcome yet."""
        for transfer in job.files:
            if self.outcomes[transfer.place] is None:
                self.close(transfer.place, State.FAILED, error, attempts=1)
        for part in job.parts:
            if self.outcomes[part.transfer.place] is None:
                big = self.big[part.transfer.place]
                self.bytes_done -= big.moved
                self.close(part.transfer.place, State.FAILED, error, big.seconds, 1)

    def drop_unfinished(self) -> None:
        """Remove the `.part` files of downloads that did not end well."""
        if self.task.direction is not Direction.DOWNLOAD:
            return
        for place, thing in enumerate(self.things):
            outcome = self.outcomes[place]
            if thing.target and (outcome is None or outcome.state is State.FAILED):
                _files.drop_part(os.path.join(self.task.cwd, thing.target), self.task.run)

    def tell(self, *, finished: bool = False) -> None:
        """Call the user's `progress`, in the caller's thread."""
        if self.progress is None:
            return
        self.told = time.monotonic()
        ended, self.ended = self.ended, []
        self.progress(
            Progress(
                files_done=self.done,
                files_failed=self.failed,
                files_skipped=self.skipped,
                files_total=len(self.things),
                bytes_done=self.bytes_done,
                bytes_total=self.bytes_total,
                in_flight=0 if finished else min(self.slots, len(self.things) - self.done),
                seconds=self.told - self.begun,
                current=ended[-1].source if ended else "",
                ended=tuple(ended),
                finished=finished,
            )
        )

    def closed(self) -> list[FileOutcome]:
        """Answer all outcomes; what has none, which must not be, is told as unknown."""
        for place, outcome in enumerate(self.outcomes):
            if outcome is None:
                self.close(place, State.UNKNOWN)
        return [outcome for outcome in self.outcomes if outcome is not None]


def _again(
    direction: Direction, recipe: StoreRecipe, options: Options, outcomes: list[FileOutcome]
) -> Report[FileOutcome]:
    """Run the things of these outcomes once more."""
    things = [_replanned(direction, outcome) for outcome in outcomes]
    return move(direction, recipe, Selection(things=things), options)


def _replanned(direction: Direction, outcome: FileOutcome) -> Planned:
    plan = Planned(outcome.source, outcome.target, outcome.size_bytes)
    if not outcome.target and direction is not Direction.DELETE:
        error = outcome.error if isinstance(outcome.error, StorageError) else None
        return plan._replace(
            error=error or StorageError(f"cannot move {outcome.name!r}: no target")
        )
    if direction is Direction.UPLOAD:
        try:
            return plan._replace(size_bytes=os.stat(outcome.source).st_size)
        except OSError as error:
            return plan._replace(error=_files.local_error(error, "upload", outcome.source))
    return plan
