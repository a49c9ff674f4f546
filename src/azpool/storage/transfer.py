"""Run what was selected on the nodes of a pool, and account for every single thing of it.

    container -> _sources (what) -> _planning -> _ledger -> _pump -> Nodes.run -> _batch (nodes)
                                                 _ledger <- _books <- results, while jobs run

The master only keeps books: nodes report each file while their job runs, so a node that dies leaves
a known rest, which is run once more, each file by itself, and then failed. However a call ends, no
unfinished download is left in its folder, but for one that its journal can resume. All callables
run in the caller's thread.
"""

# os.path and strings: a Path object a file would cost more than the file's bookkeeping may.

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from azpool._cores import nodes_for
from azpool.errors import NodeDied, PoolError, StorageError
from azpool.report import Report, State
from azpool.storage import _files
from azpool.storage._allowance import Allowance
from azpool.storage._batch import Direction, Result, Task, run_job, run_on_node
from azpool.storage._books import Books
from azpool.storage._ledger import Kind, Ledger
from azpool.storage._listing import Listing
from azpool.storage._outcomes import LedgerOutcomes
from azpool.storage._planning import plan
from azpool.storage._pump import Pump
from azpool.storage._recipe import StoreRecipe
from azpool.storage._retry import RetryOptions
from azpool.storage._sources import Planned, Selection
from azpool.storage._stores import open_store
from azpool.storage._task import unpack
from azpool.storage.journal import Journal, run_of
from azpool.storage.options import Overwrite, TransferOptions
from azpool.storage.outcome import FileOutcome, Progress, ProgressCallable
from azpool.storage.plan import small_bytes

if TYPE_CHECKING:
    from azpool.pool.session import AnyPool
    from azpool.storage.plan import Job

__all__ = [
    "Call",
    "Inline",
    "Nodes",
    "begun_before",
    "describe",
    "move",
    "plan_call",
    "run_planned",
]

# What nodes run: imported once for all of them, where the pool is made here.
NODE_MODULES = ("azpool.storage._on_node",)
# Below this many small files, starting a pool takes longer than moving them.
FEW_FILES = 4
# Beside more of them big files are not what a call takes its time for.
SMALL_PER_BIG = 100
# Jobs that wait for a node, beside those that run: one that is done finds its next one there. More
# would keep what the limit has become from the nodes for longer.
JOBS_AHEAD = 0.2

OnResults: TypeAlias = Callable[[list[Result]], None]
Answers: TypeAlias = Generator[list[Result] | BaseException, None, None]


class Nodes(Protocol):
    """What a transfer needs of whatever runs its jobs, and no more."""

    @property
    def slots(self) -> int:
        """How many nodes there are."""
        ...

    @property
    def parallel(self) -> bool:
        """Whether jobs run beside each other, so that one may wait for another."""
        ...

    def run(
        self, task: Task, jobs: Iterable[Job], on_results: OnResults, *, ahead: int, ordered: bool
    ) -> Answers:
        """Run the jobs, which are asked for as there is room, and yield each one's answer.

        An answer is its last results or its error. `on_results` gets the other results as they
        come, in the caller's thread, during `next`. Closing the iterator stops what still runs.

        Args:
            task: what all jobs share.
            jobs: asked for in the caller's thread, during `next`.
            on_results: see above.
            ahead: how many jobs are given out at once at most.
            ordered: answers in the order of the jobs, else as they come.
        """
        ...


class PoolNodes:
    """The nodes of a pool."""

    def __init__(self, pool: AnyPool) -> None:
        self._pool = pool
        self.slots = pool.size
        self.parallel = pool.size > 1 and getattr(pool, "engine", "") == "process"

    def run(
        self, task: Task, jobs: Iterable[Job], on_results: OnResults, *, ahead: int, ordered: bool
    ) -> Answers:
        answers = self._pool.map(
            functools.partial(run_on_node, task),
            jobs,
            chunksize=1,
            buffersize=ahead,
            ordered=ordered,
            return_exceptions=True,
            on_emit=lambda _, packed: on_results(unpack(packed)),
        )
        try:
            for answer in answers:
                yield answer if isinstance(answer, BaseException) else unpack(answer)
        finally:
            # Not just `close`: a node could open a `.part` after the others are removed.
            stop = getattr(answers, "stop", None) or getattr(answers, "close", None)
            if stop is not None:
                stop()


class Inline:
    """The caller's own process, where there is too little to move for a pool, or on a node."""

    slots = 1
    parallel = False

    def run(
        self,
        task: Task,
        jobs: Iterable[Job],
        on_results: OnResults,
        *,
        ahead: int,  # noqa: ARG002 - of Nodes
        ordered: bool,  # noqa: ARG002 - of Nodes
    ) -> Answers:
        for job in jobs:
            yield run_job(task, job, emit=on_results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one call does, whatever its files are.

    Attributes:
        direction: up, down, or away.
        recipe: the container.
        options: how files are moved.
        retry: how persistent each request is.
        cwd: what relative local paths are relative to.
    """

    direction: Direction
    recipe: StoreRecipe
    options: TransferOptions = TransferOptions()  # noqa: RUF009 -- frozen
    retry: RetryOptions = RetryOptions()  # noqa: RUF009 -- frozen
    cwd: str = ""

    def listing(self) -> Listing:
        """Make what asks the container."""
        return Listing(open_store(self.recipe), self.retry, folders=False)


def move(
    call: Call,
    selection: Selection,
    *,
    pool: AnyPool | None = None,
    inline: bool = False,
    progress: ProgressCallable | None = None,
    journal: Journal | None = None,
) -> Report[FileOutcome]:
    """Move everything selected and report on each; blocks. A file that fails stops no other.

    The nodes are those of `pool`, or else of the session's pool, which is made or grown to 10;
    `inline` moves everything in the caller's own process. A `journal` is let go of at the end: it
    is removed unless something is left to be done.

    Raises:
        KeyboardInterrupt: running jobs were stopped and unfinished downloads removed, or with a
            journal kept.
        PoolError: the pool itself failed; else as after `KeyboardInterrupt`.
        UsageError, StorageError: nothing can be moved so; nothing was, and no journal is left.
    """
    begun = time.monotonic()
    ledger = journal.ledger if journal is not None else Ledger()
    try:
        job_id = "" if journal is None else journal.id
        plan_call(call, ledger, selection, progress, job_id=job_id)
    except BaseException as error:
        if journal is None:
            ledger.close()
        else:  # what can't be planned can't be resumed; what was interrupted is planned anew
            journal.close(remove=isinstance(error, Exception))
        raise
    return run_planned(
        call, ledger, pool=pool, inline=inline, progress=progress, journal=journal, begun=begun
    )


def plan_call(
    call: Call,
    ledger: Ledger,
    selection: Selection,
    progress: ProgressCallable | None = None,
    *,
    ask_all: bool = False,
    job_id: str = "",
) -> None:
    """Write the call's plan into its ledger, and that it is complete."""
    begun = time.monotonic()

    def tell(files: int, size_bytes: int) -> None:
        if progress is not None:
            progress(
                Progress(
                    files_total=files,
                    bytes_total=size_bytes,
                    seconds=time.monotonic() - begun,
                    planning=True,
                    job=job_id,
                )
            )

    tell(0, 0)  # whoever is interrupted from here on knows which job there is
    plan(
        ledger,
        selection,
        call.direction,
        call.options.overwrite,
        cwd=call.cwd,
        listing=call.listing,
        ask_all=ask_all,
        small_bytes=small_bytes(verify=call.options.verify is not None),
        tell=tell,
    )
    ledger.note(planned="1", notes=json.dumps(selection.notes))


def run_planned(
    call: Call,
    ledger: Ledger,
    *,
    pool: AnyPool | None = None,
    inline: bool = False,
    progress: ProgressCallable | None = None,
    journal: Journal | None = None,
    begun: float | None = None,
) -> Report[FileOutcome]:
    """Move what is open in a planned ledger: the second half of `move`, and all of a resume."""
    begun = time.monotonic() if begun is None else begun
    finished = False
    try:
        nodes = _choose_nodes(ledger, pool, inline=inline)
        run = _Run(call, ledger, nodes, progress, journal)
        run.perform()
        finished = True
    finally:
        if journal is not None and not finished:
            journal.close()
    rest = State.CANCELLED if run.books.stopped else State.UNKNOWN
    outcomes = LedgerOutcomes(ledger, rest=rest)
    notes = json.loads(ledger.facts().get("notes", "[]"))
    if journal is not None:
        left = ledger.rows("SELECT 1 FROM things WHERE state IN (0, 2) LIMIT 1")
        journal.finish(done=not left)
        if left:
            notes.append(
                f"the job {journal.id} is kept in {journal.path!r}: resume it, or remove it"
            )
    return Report(
        outcomes,
        title=call.direction.value,
        seconds=time.monotonic() - begun,
        notes=notes,
        again=functools.partial(_again, call),
    )


def _choose_nodes(ledger: Ledger, pool: AnyPool | None, *, inline: bool) -> Nodes:
    if pool is not None:
        return PoolNodes(pool)
    from azpool.pool.context import on_node

    small, big = ledger.open_counts()
    if inline or (small <= FEW_FILES and not big) or on_node():
        return Inline()
    from azpool.pool.session import ensure_pool

    return PoolNodes(ensure_pool(preload=NODE_MODULES))


class _Run:
    """One call under way."""

    def __init__(
        self,
        call: Call,
        ledger: Ledger,
        nodes: Nodes,
        progress: ProgressCallable | None,
        journal: Journal | None,
    ) -> None:
        mode = call.options.overwrite
        if mode in {Overwrite.IF_NEWER, Overwrite.IF_DIFFERENT}:  # decided while planning
            mode = Overwrite.ALWAYS
        self.task = Task(
            recipe=call.recipe,
            direction=call.direction,
            cwd=call.cwd,
            run=secrets.token_hex(8) if journal is None else run_of(journal.id),
            options=replace(call.options, overwrite=mode),
            retry=call.retry,
        )
        self.nodes = nodes
        self.ledger = ledger
        slots = _useful_nodes(call, ledger, nodes.slots)
        self.allowance = Allowance(slots, call.options, local=call.recipe.is_local)
        self.books = Books(
            self.task,
            ledger,
            self.allowance,
            self.allowance.nodes,
            progress,
            "" if journal is None else journal.id,
            _most_behind(self.allowance.nodes) if nodes.parallel else 0,
        )
        self.pump = Pump(ledger, self.books, self.allowance)

    def perform(self) -> None:
        """Move all that is open; then the books are closed, however it ended."""
        try:
            self.books.tell_planned(self._planned_outcomes())
            self._make_folders()
            self._pass(self.pump.jobs())
            self.books.wait_for_finishing()
            while not self.books.stopped and (self.books.has_rest or self.books.digests_due):
                if self.books.has_rest:
                    self._one_by_one()
                else:  # digests of downloads whose last parts have just come
                    self._pass(self.pump.jobs())
                self.books.wait_for_finishing()
        finally:
            self.books.close()
        self.books.tell(finished=True)

    def _planned_outcomes(self) -> Iterator[FileOutcome]:
        settled = frozenset({State.FAILED, State.SKIPPED})
        return (o for o in LedgerOutcomes(self.ledger).of(settled) if o.attempts == 0)

    def _make_folders(self) -> None:
        for folder in self.ledger.open_things(Kind.FOLDER):
            error = None
            try:
                _files.make_folder(os.path.join(self.task.cwd, folder.target))
            except StorageError as raised:
                error = raised
            self.books.settle_folder(folder, error)

    def _pass(self, jobs: Iterable[Job]) -> None:
        """Run jobs; what has no result after it is the rest that a dead node has left."""
        ahead = self.allowance.nodes
        if ahead == self.nodes.slots:
            ahead += max(1, round(JOBS_AHEAD * ahead))
        answers = self.nodes.run(self.task, jobs, self.books.take, ahead=ahead, ordered=False)
        with contextlib.closing(answers):
            for answer in answers:
                if isinstance(answer, PoolError) and not isinstance(answer, NodeDied):
                    raise answer
                if isinstance(answer, BaseException):
                    self.books.node_died()
                else:
                    self.books.take(answer)

    def _one_by_one(self) -> None:
        """Run the rest once more, each unit by itself, and fail what fails again."""
        jobs = list(self.books.rest())
        task = replace(self.task, options=_begun_before(self.task.options))
        answers = self.nodes.run(
            task, jobs, self.books.take, ahead=self.allowance.nodes, ordered=True
        )
        with contextlib.closing(answers):
            for job, answer in zip(jobs, answers, strict=True):
                if isinstance(answer, PoolError) and not isinstance(answer, NodeDied):
                    raise answer
                if isinstance(answer, BaseException):
                    self.books.fail_rest(job, answer)
                else:
                    self.books.take(answer)


def _useful_nodes(call: Call, ledger: Ledger, slots: int) -> int:
    """Answer how many nodes to use: as many as keep the cores busy.

    A big file's own MD5 is one long computation, beside which its parts are moved. With more
    nodes than cores it gets a share of a core, and is alone at the end.
    """
    small, big = ledger.open_counts()
    cores = len(os.sched_getaffinity(0))
    most = nodes_for(cores)
    if call.options.verify == "md5" and small <= SMALL_PER_BIG * big:
        most = max(2, min(most, cores))
    return min(slots, most)


def _most_behind(nodes: int) -> int:
    # Each holds a node and is as fast as one core: the parts have the others.
    cores = len(os.sched_getaffinity(0))
    return min(nodes // 2, max(1, cores - 1))


def begun_before(call: Call) -> Call:
    """Answer the call as it goes on: what exists now may be its own."""
    return replace(call, options=_begun_before(call.options))


def _begun_before(options: TransferOptions) -> TransferOptions:
    # Planning has found nothing there; what a dead process had moved and not told is there now.
    if options.overwrite is Overwrite.FAIL:
        return replace(options, overwrite=Overwrite.ALWAYS)
    return options


def _again(call: Call, outcomes: Sequence[FileOutcome]) -> Report[FileOutcome]:
    """Run the things of these outcomes once more."""
    things = (_replanned(call, outcome) for outcome in outcomes)
    return move(call, Selection(things=things, distinct=True))


def _replanned(call: Call, outcome: FileOutcome) -> Planned:
    planned = Planned(outcome.source, outcome.target, outcome.size_bytes)
    if not outcome.target and call.direction is not Direction.DELETE:
        error = outcome.error if isinstance(outcome.error, StorageError) else None
        return planned._replace(
            error=error or StorageError(f"cannot move {outcome.name!r}: no target")
        )
    if call.direction is Direction.UPLOAD:
        try:
            status = os.stat(os.path.join(call.cwd, outcome.source))
        except OSError as error:
            return planned._replace(error=_files.local_error(error, "upload", outcome.source))
        return planned._replace(size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
    return planned


def describe(call: Call, **facts: Any) -> dict[str, str]:
    """Answer what a journal keeps of a call, so that another process can resume it; no secret."""
    return {
        "direction": call.direction.value,
        "account_url": call.recipe.account_url,
        "container": call.recipe.container,
        "signed": type(call.recipe.auth).__name__,
        "client": json.dumps(asdict(call.recipe.options)),
        "options": json.dumps(call.options.to_dict()),
        "retry": json.dumps(asdict(call.retry)),
        "cwd": json.dumps(call.cwd),
        "started": repr(time.time()),
        "planned": "0",
        **{name: json.dumps(value) for name, value in facts.items()},
    }
