"""A map as its reader sees it: it feeds a stream, waits, and puts answers in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from azpool.errors import PoolClosed
from azpool.pool import outcome
from azpool.pool.scheduler import GRACE_SECONDS
from azpool.pool.wire import ATOMIC

if TYPE_CHECKING:
    from azpool.pool.generation import Shipment, Work
    from azpool.pool.progress import Meter
    from azpool.pool.sinks import MapSink
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
        self._early: dict[int, tuple[list[Any], int]] = {}

    def start(self, shipment: Shipment) -> None:
        """Send the job; before, nothing was, and `interrupted` has nothing to end."""
        self._started = True
        self._supervisor.submit(self._work, shipment)
        if self._rest is not None:
            self._pull()

    def results(self, *, return_exceptions: bool) -> Iterator[Any]:
        """Iterate over the answers; the generator's end, however it comes, cancels what is left."""
        try:
            if self._meter is not None:
                self._meter.begin()
            for start, values, where in self._batches():
                if ATOMIC.issuperset(map(type, values)):
                    yield from values
                    continue
                values.reverse()
                item = start
                while values:
                    # No name holds the value: what was given is let go.
                    yield _loaded(values, item, where, return_exceptions=return_exceptions)
                    item += 1
        except KeyboardInterrupt:
            self.interrupted()
            raise
        finally:
            if not self._sink.finished:
                self._supervisor.cancel(self._work)
            if self._meter is not None:
                self._meter.end()

    def _batches(self) -> Iterator[tuple[int, list[Any], int]]:
        while True:
            if self._on_hand():
                yield self._next_in_order()
                continue
            if self._rest is not None and not self._supervisor.closing:
                self._pull()
            arrived = self._sink.wait(self._seconds_left())
            if not arrived:
                if self._sink.finished and not self._sink.waiting:
                    self._check_complete()
                    return
                self._check_time()
            if self._meter is not None:
                self._meter.count(arrived)
            for start, values, where in arrived:
                if where is None:
                    if self._on_emit is not None:
                        self._on_emit(start, values())
                elif self._ordered:
                    self._early[start] = (values, where)
                else:
                    self._given += len(values)
                    yield start, values, where

    def _on_hand(self) -> bool:
        return self._ordered and self._given in self._early

    def _next_in_order(self) -> tuple[int, list[Any], int]:
        start = self._given
        values, where = self._early.pop(start)
        self._given += len(values)
        return start, values, where

    def _pull(self) -> None:
        """Read the stream until enough is under way."""
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
        if rows or self._rest is None:
            self._pulled += len(rows)
            self._supervisor.extend(self._work, rows, seal=self._rest is None)

    def _check_complete(self) -> None:
        """Raise where the job has ended and items are missing: they never go without a word.

        Raises:
            PoolClosed: the pool was closed before them.
            CancelledError: the job was cancelled.
            PoolError: they could not be sent.
        """
        if self._rest is None and self._given >= self._pulled:
            return
        for values, _ in self._early.values():
            for value in values:
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
        if not self._sink.finished:
            self._supervisor.cancel(self._work)

    def interrupted(self) -> None:
        """After Ctrl-C let the running items end; the grace's end, or a second one, kills them."""
        if not self._started:
            return
        self._supervisor.cancel(self._work)
        try:
            self._sink.wait_finished(GRACE_SECONDS + 1.0)
        except KeyboardInterrupt:
            self._supervisor.hurry(self._work)


def _loaded(values: list[Any], item: int, where: int, *, return_exceptions: bool) -> Any:
    """Take the last value and decode it, or raise what the item raised."""
    value = values.pop()
    if type(value) in ATOMIC:
        return value
    ok, value = outcome.load(value, item=item, node=where)
    if not ok and not return_exceptions:
        raise value
    return value
