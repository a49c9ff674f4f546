"""What runs in a node: one job over the process's one open store.

    transfer.py (master) --Job--> run_job (node) --Results, while it runs--> transfer.py

Short files go first, many requests at a time on one thread (`_flight.py`); then the rest, each on
one of some threads.

Each unit's result is sent as soon as it is there (within `EMIT_SECONDS`), so a node that dies takes
with it only what it had not reported. A failure is a result, never an exception; only an interrupt
leaves `run_job`, after its threads have ended. A unit that waits for its next attempt keeps no
other from moving. A server that asks for less gets it at once: half as many requests are in flight
for the rest of this job, and what it says of when to come back counts for the whole process.
"""

from __future__ import annotations

import heapq
import threading
import time
from resource import RUSAGE_THREAD, getrusage
from typing import TYPE_CHECKING

from azpool.errors import ConnectionFailed, StorageError, Throttled
from azpool.storage._moves import Digest, Moved, Mover
from azpool.storage._pace import pace_of
from azpool.storage._retry import delay_before_retry
from azpool.storage._stores import open_store
from azpool.storage._task import Action, Direction, Packed, Result, Task, pack
from azpool.storage.plan import MOST_THREADS, Job, Part, Transfer, is_short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from azpool.storage._flight import Flight
    from azpool.storage.store import SteppedStore

__all__ = ["Action", "Direction", "Result", "Task", "run_job", "run_on_node"]

EMIT_SECONDS = 0.05
MAX_WAIT_SECONDS = 1.0
DIGEST = -2  # the number of a digest's result
WHOLE = -1


def run_job(
    task: Task, job: Job, *, emit: Callable[[list[Result]], None] | None = None
) -> list[Result]:
    """Do the job; answer with the results that were not yet emitted."""
    worker = _Worker(task, job)
    if worker.begin_short():
        _run(worker, worker.fly, min(worker.pace.flights, worker.allowed), emit)
    if worker.begin_rest():
        _run(worker, worker.run, worker.allowed, emit)
    return worker.take()


def _run(
    worker: _Worker,
    what: Callable[[Callable[[], None] | None], None],
    count: int,
    emit: Callable[[list[Result]], None] | None,
) -> None:
    """Do it here, or on so many threads, and tell of results meanwhile."""
    worker.running = count
    if count == 1:
        what(_teller(worker, emit))
        return
    worker.done.clear()
    threads = [
        threading.Thread(target=what, args=(None,), name=f"azpool-transfer-{n}", daemon=True)
        for n in range(count)
    ]
    try:
        for thread in threads:
            thread.start()
        while not worker.done.wait(EMIT_SECONDS):
            if emit is not None and worker.results:
                emit(worker.take())
    finally:
        # Ended whole, or to be ended: there is nothing more for them either way.
        if not worker.done.is_set():
            worker.stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _teller(
    worker: _Worker, emit: Callable[[list[Result]], None] | None
) -> Callable[[], None] | None:
    """Make what tells of results from the one thread that also does the work."""
    if emit is None:
        return None
    told = time.perf_counter()

    def tell() -> None:
        nonlocal told
        if worker.results and time.perf_counter() - told >= EMIT_SECONDS:
            emit(worker.take())
            told = time.perf_counter()

    return tell


def run_on_node(task: Task, job: Job) -> Packed:
    """Do one job on a node, telling the master of each file as it is done."""
    from azpool.pool import emit

    return pack(run_job(task, job, emit=lambda results: emit(pack(results))))


class _Unit:
    """One unit of work and what was met on the way; `due` is when to try it again."""

    __slots__ = (
        "attempts",
        "begun",
        "departed",
        "due",
        "number",
        "place",
        "size_bytes",
        "throttled",
        "what",
    )

    def __init__(self, what: Transfer | Part | Digest) -> None:
        self.what = what
        if isinstance(what, Transfer):
            self.place, self.number, self.size_bytes = what.place, WHOLE, what.size_bytes
        elif isinstance(what, Part):
            self.place, self.number, self.size_bytes = (
                what.transfer.place,
                what.number,
                what.length,
            )
        else:
            self.place, self.number, self.size_bytes = what.transfer.place, DIGEST, 0
        self.attempts = 0
        self.throttled = 0
        self.begun = 0.0
        self.departed = 0.0  # of the newest attempt
        self.due = 0.0

    def __lt__(self, other: _Unit) -> bool:
        return self.due < other.due

    def result(
        self,
        action: Action,
        bytes_moved: int = 0,
        error: StorageError | None = None,
        md5: bytes | None = None,
    ) -> Result:
        seconds = time.perf_counter() - self.begun
        return Result(
            self.place,
            self.number,
            action,
            bytes_moved,
            seconds,
            self.attempts,
            error,
            self.throttled,
            md5,
        )


class _Worker:
    """One job's state, shared by its threads."""

    def __init__(self, task: Task, job: Job) -> None:
        self.task = task
        self.pace = pace_of(task.run)
        self.pace.limit(job.requests_per_second, job.bytes_per_second)
        self.store = open_store(task.recipe)
        # Those of tests, which have no network, block.
        stepped = hasattr(self.store, "flight")
        self.short = [item for item in job.files if stepped and is_short(item)]
        # Digests first: they read whole files, beside the parts.
        self.rest: list[Transfer | Part | Digest] = [
            *(Digest(transfer, job.behind) for transfer in job.digests),
            *job.parts,
            *(item for item in job.files if not (stepped and is_short(item))),
        ]
        self.work: Iterator[Transfer | Part | Digest] = iter(())
        self.allowed = max(1, min(job.threads, task.recipe.options.max_connections))
        self.running = 0
        self.halved_at = float("-inf")
        self.again: list[_Unit] = []
        self.lock = threading.Lock()
        self.results: list[Result] = []
        self.stop = threading.Event()
        self.done = threading.Event()
        self.mover = Mover(task, self.store, lambda: not self.stop.is_set())

    def begin_short(self) -> bool:
        """Turn to the files that go in flights, if there are any."""
        self.work = iter(self.short)
        return bool(self.short)

    def begin_rest(self) -> bool:
        """Turn to what blocks a thread each, if there is any."""
        self.work = iter(self.rest)
        self.allowed = max(1, min(self.allowed, MOST_THREADS, len(self.rest)))
        return bool(self.rest)

    def take(self) -> list[Result]:
        with self.lock:
            taken, self.results = self.results, []
        return taken

    def run(self, after_each: Callable[[], None] | None = None) -> None:
        result: Result | None = None
        has_left = False
        try:
            while not self.stop.is_set():
                with self.lock:
                    if result is not None:
                        self.results.append(result)
                        result = None
                    unit, wait = self.next_unit()
                    if unit is None and wait is None:
                        has_left = True
                        self.leave()
                        return
                if unit is not None:
                    result = self.move(unit)
                else:
                    self.stop.wait(wait)
                if after_each is not None:
                    after_each()
        finally:
            if not has_left:
                with self.lock:
                    if result is not None:
                        self.results.append(result)
                    self.leave()

    def fly(self, after_each: Callable[[], None] | None = None) -> None:
        """Move short files, many requests at a time on this one thread."""
        moved, switches, waits, waited = 0, _switches(), 0, 0.0
        began = time.perf_counter()
        try:
            try:
                opened = self.store.flight()  # type: ignore[attr-defined] # see `stepped`
            except OSError:  # no descriptors are left: threads need fewer, or say so of each file
                with self.lock:
                    self.rest += self.work
                return
            with opened as flight:
                later: list[_Unit] = []
                while not self.stop.is_set():
                    seconds = self.launch(flight, later)
                    if seconds is None and flight.idle and not later:
                        break
                    seconds = self.until(seconds, later)
                    waited -= time.perf_counter()
                    flight.sleep(seconds)
                    waited += time.perf_counter()
                    ended = flight.go_on()
                    waits += 1
                    moved += len(ended)
                    results = [self.landed(*one) for one in ended]
                    with self.lock:
                        self.results += [result for result in results if result is not None]
                    if after_each is not None:
                        after_each()
        finally:
            with self.lock:
                self.leave()
        if self.pace.flights == 1:
            seconds = time.perf_counter() - began - waited
            self.pace.note_local(moved, _switches() - switches - waits, seconds)

    def launch(self, flight: Flight, later: list[_Unit]) -> float | None:
        """Begin as much as may be in flight; answer how long until a unit's next attempt."""
        while later and later[0].due <= time.monotonic():
            self.depart(flight, heapq.heappop(later))
        room = -(-self.allowed // self.running)
        while flight.under_way + len(later) < room:
            with self.lock:
                unit, wait = self.next_unit()
            if unit is None:
                return wait
            if not unit.attempts:
                unit.begun = time.perf_counter()
            wait = None
            if not self.pace.is_free:
                now = time.monotonic()
                wait = self.pace.wait_seconds(unit.size_bytes, now)
                unit.due = now + wait
            if wait:
                heapq.heappush(later, unit)
            else:
                self.depart(flight, unit)
        return None

    def depart(self, flight: Flight, unit: _Unit) -> None:
        unit.attempts += 1
        unit.departed = time.monotonic()
        assert isinstance(unit.what, Transfer)
        store: SteppedStore = self.store  # type: ignore[assignment] # see `stepped`
        flight.begin(unit, self.mover.steps(unit.what, store, again=unit.attempts > 1))

    def until(self, seconds: float | None, later: list[_Unit]) -> float:
        """Answer how long a flight may wait, before something else is to be done."""
        most = EMIT_SECONDS if self.results else MAX_WAIT_SECONDS
        if later:
            most = min(most, max(0.0, later[0].due - time.monotonic()))
        return most if seconds is None else max(0.0, min(most, seconds))

    def landed(self, unit: _Unit, moved: Moved, error: Exception | None) -> Result | None:
        """Turn the end of an attempt into a result, or into another attempt."""
        if error is not None:
            as_storage_error = _as_storage_error(error, unit, self.task.direction)
            return self.failed(unit, as_storage_error, unit.departed)
        self.pace.lost = False
        return unit.result(moved.action, moved.bytes_moved, md5=moved.md5)

    def leave(self) -> None:
        """Count this thread as ended, in the same moment in which that was decided."""
        self.running -= 1
        if self.running == 0:
            self.done.set()

    def next_unit(self) -> tuple[_Unit | None, float | None]:
        """Choose, with the lock held: a unit, or how long to wait for one, or nothing any more."""
        if self.running > self.allowed:
            return None, None  # the others go on without this thread
        wait = None
        if self.again:
            wait = self.again[0].due - time.monotonic()
            if wait <= 0:
                return heapq.heappop(self.again), None
        what = next(self.work, None)
        if what is not None:
            return _Unit(what), None
        if wait is not None and len(self.again) < self.running and self.running > 1:
            return None, None  # more threads than units that are left
        return None, wait

    def move(self, unit: _Unit) -> Result | None:
        """Make one attempt; every failure becomes a result, or a unit that is tried again."""
        if not unit.attempts:
            unit.begun = time.perf_counter()
        if not self.pace.is_free and unit.number != DIGEST:
            wait = self.pace.wait_seconds(unit.size_bytes, time.monotonic())
            if wait and self.stop.wait(wait):
                return None
        unit.attempts += 1
        unit.departed = time.monotonic()
        try:
            moved = self.mover.attempt(unit.what, again=unit.attempts > 1)
        except Exception as raised:
            return self.landed(unit, _NOT_MOVED, raised)
        return self.landed(unit, moved, None)

    def failed(self, unit: _Unit, error: StorageError, begun: float) -> Result | None:
        now = time.monotonic()
        if _is_throttling(error):
            unit.throttled += 1
            self.slow_down(error, begun, now)
        pause = self.pause(error, unit.attempts)
        if pause is None or self.stop.is_set():
            return unit.result(Action.FAILED, error=error)
        unit.due = now + pause
        with self.lock:
            heapq.heappush(self.again, unit)
        return None

    def slow_down(self, error: StorageError, begun: float, now: float) -> None:
        """Go on with half of the threads; requests that were under way then count as one."""
        with self.lock:
            if begun >= self.halved_at:
                self.allowed = max(1, min(self.allowed, self.running) // 2)
                self.halved_at = now
        if error.retry_after_seconds:
            longest = self.task.retry.max_delay_seconds
            self.pace.close(now, min(error.retry_after_seconds, longest))

    def pause(self, error: StorageError, attempts: int) -> float | None:
        import random  # not above: nodes load this module, and seldom need it

        pause = delay_before_retry(error, attempts, self.task.retry, random.random())
        if isinstance(error, ConnectionFailed) and error.code not in _CUT:
            if pause is None:
                self.pace.lost = True
            elif self.pace.lost:
                return None
        return pause


def _switches() -> int:
    """How often this thread has waited for something of its own will."""
    return getrusage(RUSAGE_THREAD).ru_nvcsw


_NOT_MOVED = Moved(Action.FAILED, 0)
# Somebody was there, and hung up.
_CUT = ("ECONNRESET", "EPIPE", "ECONNABORTED")


def _is_throttling(error: StorageError) -> bool:
    if isinstance(error, Throttled):
        return True
    return error.code in ("ETIMEDOUT", "OperationTimedOut")


def _as_storage_error(raised: Exception, unit: _Unit, direction: Direction) -> StorageError:
    """Keep our own errors; put any other in words, so that it travels and the others go on."""
    if isinstance(raised, StorageError):
        return raised
    what = unit.what
    source = what.source if isinstance(what, Transfer) else what.transfer.source
    error = StorageError(
        f"cannot {direction.value} {source!r}: {type(raised).__name__}: {raised}", path=source
    )
    error.__cause__ = raised
    return error
