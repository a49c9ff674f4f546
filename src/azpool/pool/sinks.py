"""Where the answers of a job go: to one future, or to whoever iterates over a map.

`deliver` and `lose` run on the I/O thread and only hand over; nothing of the user's runs in them
but the loading of a single result.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from azpool import _waits
from azpool.pool import outcome
from azpool.pool.wire import ATOMIC

if TYPE_CHECKING:
    from azpool.pool.courier import Courier
    from azpool.pool.turns import InlineCourier

MakeError = Callable[[int], BaseException]


class Sink(Protocol):
    """Gets each item's answer exactly once."""

    def begin(self) -> bool:
        """The job is about to be sent; False: nobody wants it any more."""

    def deliver(self, start: int, values: list[Any], node: int, *, plain: bool = False) -> None:
        """Answers of items start.., some still encoded (see `outcome.load`) unless `plain`."""

    def lose(self, start: int, stop: int, error: MakeError) -> None:
        """These items have no answer but an error."""

    def emitted(self, item: int, value: Callable[[], Any]) -> None:
        """A running item sent a value."""

    def finish(self) -> None:
        """Every item is answered."""

    def notify(self) -> None:
        """Wake whoever waits for what was handed over since; once for many answers."""


class PoolFuture(Future[Any]):
    """A future whose callbacks never run on the I/O thread."""

    def __init__(
        self,
        courier: Courier | InlineCourier,
        io_thread: Callable[[], bool],
        run_until: Callable[[Callable[[], object], float | None], bool],
    ) -> None:
        super().__init__()
        self._courier = courier
        self._on_io_thread = io_thread
        self._run_until = run_until

    def result(self, timeout: float | None = None) -> Any:
        """Return what the call returned, or raise what it raised, waiting for it."""
        self._wait(timeout)
        return super().result(timeout and 0.0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None, waiting for it."""
        self._wait(timeout)
        return super().exception(timeout and 0.0)

    def _wait(self, timeout: float | None) -> None:
        if self.done():
            return
        ends_at = None if timeout is None else time.monotonic() + timeout
        self._run_until(self.done, ends_at)
        _waits.wait_for(self, None if ends_at is None else max(0.0, ends_at - time.monotonic()))

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Call `fn` with this future when it is done, on the courier or the calling thread."""
        super().add_done_callback(lambda future: self._hand_over(fn))

    def _hand_over(self, fn: Callable[[Future[Any]], object]) -> None:
        if self._on_io_thread():
            self._courier.run(fn, self)
        else:
            fn(self)


class FutureSink:
    """The answer of one submitted call."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future
        self._begun = False

    def begin(self) -> bool:
        if not self._begun:
            self._begun = True
            return self._future.set_running_or_notify_cancel()
        return True

    def deliver(self, start: int, values: list[Any], node: int, *, plain: bool = False) -> None:
        value = values[0]
        if type(value) in ATOMIC:
            self._future.set_result(value)
            return
        ok, loaded = outcome.load(value, item=None, node=node)
        if ok:
            self._future.set_result(loaded)
        else:
            self._future.set_exception(loaded)

    def lose(self, start: int, stop: int, error: MakeError) -> None:
        if self.begin():
            self._future.set_exception(error(start))

    def emitted(self, item: int, value: Callable[[], Any]) -> None:
        return None

    def notify(self) -> None:
        return None

    def finish(self) -> None:
        if self._future.done():
            return
        if self._begun:
            self._future.set_exception(CancelledError("the call was interrupted"))
        elif self._future.cancel():
            self._future.set_running_or_notify_cancel()


class Batch(NamedTuple):
    """Answers of items start..; plain ones are values, others still have to be loaded."""

    start: int
    values: list[Any]
    node: int
    plain: bool


class Emitted(NamedTuple):
    """What a running item sent, still to be loaded."""

    item: int
    load: Callable[[], Any]


class MapSink:
    """Answers of a map, in batches, for one thread that waits for them."""

    def __init__(self, *, wants_emitted: bool = False) -> None:
        self._ready = threading.Condition(threading.Lock())
        self._batches: deque[Batch | Emitted] = deque()
        self._finished = False
        self._wants_emitted = wants_emitted

    def begin(self) -> bool:
        return True

    def notify(self) -> None:
        with self._ready:
            self._ready.notify()

    def deliver(self, start: int, values: list[Any], node: int, *, plain: bool = False) -> None:
        self._batches.append(Batch(start, values, node, plain))

    def lose(self, start: int, stop: int, error: MakeError) -> None:
        lost = [outcome.MadeHere(error(item)) for item in range(start, stop)]
        self._batches.append(Batch(start, lost, -1, plain=False))

    def emitted(self, item: int, value: Callable[[], Any]) -> None:
        if self._wants_emitted:
            self._batches.append(Emitted(item, value))

    def finish(self) -> None:
        with self._ready:
            self._finished = True
            self._ready.notify()

    @property
    def finished(self) -> bool:
        """Whether every item is answered."""
        return self._finished

    @property
    def waiting(self) -> bool:
        """Whether answers are here that nobody has taken."""
        return bool(self._batches)

    def has_news(self) -> bool:
        """Whether `wait` has something to return, or nothing to wait for."""
        return bool(self._batches) or self._finished

    def wait(self, timeout_seconds: float | None) -> list[Batch | Emitted]:
        """Return the batches that have come, waiting for one; [] when finished or timed out."""
        if not self.has_news():
            with self._ready:
                _waits.wait(partial(self._ready.wait_for, self.has_news), timeout_seconds)
        batches = []
        while self._batches:  # more may be appended meanwhile
            batches.append(self._batches.popleft())
        return batches

    def wait_finished(self, timeout_seconds: float | None) -> bool:
        """Wait until every item is answered, dropping the answers."""
        with self._ready:
            return _waits.wait(partial(self._ready.wait_for, self._is_finished), timeout_seconds)

    def _is_finished(self) -> bool:
        return self._finished
