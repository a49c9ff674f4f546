"""A map as its reader sees it: it feeds a stream, waits, and puts answers in order."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import chain
from typing import TYPE_CHECKING, Any

from azpool.errors import PoolClosed
from azpool.pool import ctrl_c, outcome
from azpool.pool.scheduler import GRACE_SECONDS
from azpool.pool.sinks import Emitted
from azpool.pool.wire import ATOMIC

if TYPE_CHECKING:
    from azpool.pool.generation import Shipment, Work
    from azpool.pool.progress import Meter
    from azpool.pool.sinks import Batch, MapSink
    from azpool.pool.supervisor import Supervisor

OnEmit = Callable[[int, Any], None]


class MapReading:
    """One map as its reader sees it: feeds a stream, waits, puts results in order."""

    def __init__(
        self,
        supervisor: Supervisor,
        work: Work,
        sink: MapSink,
        rest: Iterator[tuple[Any, ...]] | None,
        ahead: int,
        on_emit: OnEmit | None,
        meter: Meter | None,
        *,
        timeout: float | None,
        ordered: bool,
    ) -> None:
        self._supervisor = supervisor
        self._work = work
        self._sink = sink
        self._rest = rest
        self._ahead = ahead
        self._on_emit = on_emit
        self._meter = meter
        self._ends_at = None if timeout is None else time.monotonic() + timeout
        self._ordered = ordered
        self._started = False
        self.taken_whole = rest is None
        self._pulled = work.size  # items that were sent, or are about to be
        self._given = 0  # items whose answers were taken off the sink in order of reading
        self._early: dict[int, Batch] = {}
        self._ended = False
        self._source: Callable[[], Generator[Iterable[Any]] | None] = lambda: None

    def start(self, shipment: Shipment) -> None:
        """Send the job; before, nothing was, and `interrupted` has nothing to end.

        A stream that fails, or holds what can't travel, fails here before anything is sent.
        """
        read = None if self._rest is None else self._read()
        self._started = True
        self._supervisor.submit(self._work, shipment)
        if read is not None:
            self._supervisor.extend(self._work, read, seal=self._rest is None)

    def results(self, *, return_exceptions: bool) -> Results:
        """Return the iterator over the answers; its end, however it comes, cancels what is left."""
        runs = self._runs(return_exceptions=return_exceptions)
        self._source = weakref.ref(runs)  # weakly: whoever drops the iterator ends the map
        return Results.over(runs, self)

    def _runs(self, *, return_exceptions: bool) -> Generator[Iterable[Any]]:
        """Give the answers in runs, in order; one that raises is the last."""
        try:
            if self._meter is not None:
                self._meter.begin()
            for batch in self._batches():
                if batch.plain:
                    yield batch.values
                    continue
                run = self._loading(batch, return_exceptions=return_exceptions)
                del batch  # no name holds a value: what was given is let go
                yield run
                del run
        except KeyboardInterrupt:
            self.interrupted()
            raise
        finally:
            self._ended = True
            if not self._sink.finished:
                self._supervisor.cancel(self._work)
            if self._meter is not None:
                self._meter.end()

    def _loading(self, batch: Batch, *, return_exceptions: bool) -> Iterator[Any]:
        """Load each answer when its turn comes; what raises ends the map."""
        values, item = batch.values, batch.start
        values.reverse()
        while values and not self._ended:
            yield self._loaded(values, item, batch.node, return_exceptions=return_exceptions)
            item += 1

    def _loaded(self, values: list[Any], item: int, where: int, *, return_exceptions: bool) -> Any:
        """Take the last value and decode it, or raise what the item raised."""
        value = values.pop()
        if type(value) in ATOMIC:
            return value
        try:
            ok, value = outcome.load(value, item=item, node=where)
            if not ok and not return_exceptions:
                raise value
        except BaseException as error:
            source = self._source()
            if source is not None:
                source.throw(error)
            raise
        return value

    def _batches(self) -> Iterator[Batch]:
        while True:
            if self._ordered and self._given in self._early:
                batch = self._early.pop(self._given)
                self._given += len(batch.values)
                yield batch
                del batch
                continue
            if self._rest is not None and not self._supervisor.closing:
                self._pull()
            if self._supervisor.run_until(self._sink.has_news, self._ends_at):
                self._check_time()
            arrived = self._sink.wait(self._seconds_left())
            if not arrived:
                if self._sink.finished and not self._sink.waiting:
                    self._check_complete()
                    return
                self._check_time()
            if self._meter is not None:
                self._meter.count(arrived)
            arrived.reverse()
            while arrived:
                come = arrived.pop()
                if isinstance(come, Emitted):
                    if self._on_emit is not None:
                        self._on_emit(come.item, come.load())
                elif self._ordered:
                    self._early[come.start] = come
                else:
                    self._given += len(come.values)
                    yield come
                del come

    def _pull(self) -> None:
        """Read the stream until enough is under way."""
        read = self._read()
        if read or self._rest is None:
            self._supervisor.extend(self._work, read, seal=self._rest is None)

    def _read(self) -> int:
        """Take items off the stream and pickle them; returns how many."""
        assert self._rest is not None
        rows: list[tuple[Any, ...]] = []
        wanted = self._given + self._ahead - self._pulled
        while len(rows) < wanted:
            row = next(self._rest, None)
            if row is None:
                self._rest = None
                break
            rows.append(row)
        if self._rest is None and self._meter is not None:
            self._meter.know(self._pulled + len(rows))
        self._pulled += len(rows)
        return self._work.arguments.extend(rows) if rows else 0

    def _check_complete(self) -> None:
        """Raise where the job has ended and items are missing: they never go without a word.

        Raises:
            PoolClosed: the pool was closed before them.
            CancelledError: the job was cancelled.
            PoolError: they could not be sent.
        """
        if self._rest is None and self._given >= self._pulled:
            return
        for batch in self._early.values():
            for value in batch.values:
                if type(value) is outcome.MadeHere:
                    raise value.error
        if self._supervisor.closing:
            raise PoolClosed("cannot go on with this map: its pool was closed meanwhile")
        raise CancelledError("the map was cancelled")

    def _seconds_left(self) -> float | None:
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def _check_time(self) -> None:
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            raise TimeoutError(f"{self._given} items were done when the map's timeout passed")

    def abandoned(self) -> None:
        """Nobody reads any more, or ever did: a stream would stay open for ever."""
        held = ctrl_c.hold()  # a finalizer that Ctrl-C cuts short would not be run again
        try:
            if not self._sink.finished:
                self._supervisor.cancel(self._work)
        finally:
            if held:
                ctrl_c.let_go()

    def interrupted(self) -> None:
        """After Ctrl-C let the running items end; the grace's end, or a second one, kills them."""
        if not self._started:
            return
        self._supervisor.cancel(self._work)
        seconds = GRACE_SECONDS + 1.0
        try:
            ends_at = time.monotonic() + seconds
            self._supervisor.run_until(lambda: self._sink.finished, ends_at)
            self._sink.wait_finished(seconds)
        except KeyboardInterrupt:
            self._supervisor.hurry(self._work)


class Results(chain[Any]):
    """The iterator that a map returns. `close` ends it and cancels what is left of the map.

    A chain of runs: plain answers pass through it without a line of Python for each.
    """

    _source: Generator[Iterable[Any]]
    _reading: MapReading

    @classmethod
    def over(cls, runs: Generator[Iterable[Any]], reading: MapReading) -> Results:
        """Chain the runs that a reading's generator gives."""
        results: Results = cls.from_iterable(runs)  # type: ignore[assignment]  # typed as chain
        results._source = runs
        results._reading = reading
        return results

    def close(self) -> None:
        """Give nothing more, and cancel what has not been answered, whether any was read or not."""
        self._source.close()
        self._reading.abandoned()  # a generator that nobody began has no `finally` to run
        deque(self, maxlen=0)

    def stop(self) -> None:
        """Do as `close`, and return when nothing of the map runs any more.

        What runs is interrupted, and killed where it has not ended 2 s later, or at Ctrl-C.
        """
        self.close()
        self._reading.interrupted()
