"""The progress of a map: how many items are answered, told in the thread that reads the results.

    MapReading or InlinePool -> Meter (counts) -> View (a bar, lines, or the caller's own)

Nothing here runs on the I/O thread. What a view of the caller's raises ends the map like an item's
error. Rich is loaded only for `progress=True`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sized
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from azpool.errors import UsageError
from azpool.pool import outcome
from azpool.pool.sinks import Batch, Emitted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["Meter", "Progressing", "TqdmLike", "meter"]

PLAIN_SECONDS = 5.0  # without a terminal: a line at most so often, none for a map that is quicker


class TqdmLike(Protocol):
    """What a bar of one's own has to have; its `total` is set where it is there and None."""

    def update(self, n: int, /) -> object: ...


Progressing = bool | TqdmLike | Callable[[int, int | None], object] | None


class View(Protocol):
    """Shows a meter."""

    def begin(self, meter: Meter) -> None:
        """The first result is asked for."""

    def show(self, meter: Meter) -> None:
        """The count has grown."""

    def end(self, meter: Meter) -> None:
        """The map has ended, in whatever way; nothing may be raised."""


class Meter:
    """Counts the answers of one map."""

    def __init__(self, view: View, total: int | None, label: str) -> None:
        self.total = total  # None while it is not known
        self.label = label
        self.done = 0
        self.failed = 0
        self._view = view
        self._begun = False

    def begin(self) -> None:
        """Begin to show."""
        self._view.begin(self)
        self._begun = True

    def add(self, done: int, failed: int) -> None:
        """Count answers, and show them."""
        if done:
            self.done += done
            self.failed += failed
            self._view.show(self)

    def count(self, arrived: Iterable[Batch | Emitted]) -> None:
        """Count batches as they come off a sink; emitted values among them are none."""
        batches = [come for come in arrived if isinstance(come, Batch)]
        failures = (outcome.Failure, outcome.MadeHere)
        failed = sum(
            type(value) in failures
            for batch in batches
            if not batch.plain
            for value in batch.values
        )
        self.add(sum(len(batch.values) for batch in batches), failed)

    def know(self, total: int) -> None:
        """The input has ended: so many items it had."""
        self.total = total
        if self.done:
            self._view.show(self)

    def end(self) -> None:
        """Show no more; twice is harmless."""
        if self._begun:
            self._begun = False
            self._view.end(self)


def meter(progress: Progressing, iterables: tuple[Any, ...], fn: Any) -> Meter | None:
    """Return the meter for a map's `progress=`, None where there is nothing to show.

    Raises:
        UsageError: it is none of what `progress=` takes.
    """
    if progress is None or progress is False:
        return None
    sized = all(isinstance(part, Sized) for part in iterables)
    total = min(map(len, iterables), default=0) if sized else None
    return Meter(_view(progress), total, getattr(fn, "__name__", "items").strip("<>"))


def _view(progress: Progressing) -> View:
    if progress is True:
        return _own_view()
    if isinstance(progress, type) or callable(getattr(progress, "update", None)):
        return _Bar(progress)
    if callable(progress):
        return _Told(progress)
    raise UsageError(
        f"cannot show progress with {progress!r}: give True, a callable(done, total), or an object"
        " like tqdm's, with update(n)"
    )


class _Told:
    """A callable that is told (done, total)."""

    def __init__(self, tell: Callable[[int, int | None], object]) -> None:
        self._tell = tell

    def begin(self, meter: Meter) -> None:
        return None

    def show(self, meter: Meter) -> None:
        self._tell(meter.done, meter.total)

    def end(self, meter: Meter) -> None:
        return None


class _Bar:
    """A bar like tqdm's; one that was given as a class is made here and closed at the end."""

    def __init__(self, bar: Any) -> None:
        self._given = bar
        self._bar: Any = None
        self._shown = 0

    def begin(self, meter: Meter) -> None:
        made = isinstance(self._given, type)
        self._bar = self._given(total=meter.total) if made else self._given
        self._take_total(meter)

    def _take_total(self, meter: Meter) -> None:
        if meter.total is not None and getattr(self._bar, "total", 0) is None:
            self._bar.total = meter.total

    def show(self, meter: Meter) -> None:
        self._take_total(meter)
        news, self._shown = meter.done - self._shown, meter.done
        self._bar.update(news)

    def end(self, meter: Meter) -> None:
        if self._bar is not None and self._bar is not self._given:
            self._bar.close()


# -- progress=True ---------------------------------------------------------------------------------


def _own_view() -> View:
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal):
        return _Row(console)
    return Lines(sys.stderr)


def rate_text(per_second: float) -> str:
    """Say a rate with as many digits as matter."""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"


class Lines:
    """Lines for a log: one every `PLAIN_SECONDS` at most, and a last one where there was one."""

    def __init__(self, out: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._said = 0

    def begin(self, meter: Meter) -> None:
        self._began = self._next = self._clock()
        self._next += PLAIN_SECONDS

    def show(self, meter: Meter) -> None:
        now = self._clock()
        if now >= self._next:
            self._next = now + PLAIN_SECONDS
            self._say(meter, now)

    def end(self, meter: Meter) -> None:
        if 0 < self._said < meter.done:
            self._say(meter, self._clock())

    def _say(self, meter: Meter, now: float) -> None:
        self._said = meter.done
        rate = meter.done / max(1e-9, now - self._began)
        words = [f"{meter.done:,} done" if meter.total is None else _of_total(meter)]
        words += [f"{meter.failed:,} failed"] if meter.failed else []
        words += [rate_text(rate)]
        if meter.total is not None and meter.done < meter.total:
            words += [f"{(meter.total - meter.done) / rate:,.0f} s left"]
        if self._out is not None:
            self._out.write(f"azpool: {meter.label}: {', '.join(words)}\n")
            self._out.flush()


def _of_total(meter: Meter) -> str:
    return f"{meter.done:,} of {meter.total:,} done"


class _Row:
    """One row of the terminal's display of maps."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, meter: Meter) -> None:
        self._began = time.monotonic()
        self._display, self._row = _maps.add(self._console, meter)

    def show(self, meter: Meter) -> None:
        rate = meter.done / max(1e-9, time.monotonic() - self._began)
        failed = f"{meter.failed:,} failed" if meter.failed else ""
        self._display.update(
            self._row,
            completed=meter.done,
            total=meter.total,
            rate=rate_text(rate),
            failed=failed,
        )

    def end(self, meter: Meter) -> None:
        _maps.remove(self._display, self._row)


class _Maps:
    """The display that maps of all threads share, there while any of them is read.

    A terminal has room for one live display: a second one would write over the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: Progress | None = None
        self._rows: set[TaskID] = set()

    def add(self, console: Console, meter: Meter) -> tuple[Progress, TaskID]:
        with self._lock:
            if self._display is None:
                self._display = _new_display(console)
                self._display.start()
            row = self._display.add_task(meter.label, total=meter.total, rate="", failed="")
            self._rows.add(row)
            return self._display, row

    def remove(self, display: Progress, row: TaskID) -> None:
        with self._lock:
            display.stop_task(row)
            self._rows.discard(row)
            if not self._rows:
                self._display = None
                display.stop()


def _new_display(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        console=console,
    )


_maps = _Maps()
