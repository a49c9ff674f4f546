"""Between the engine's progress and a view.

    transfer's thread:  Container.upload_many(progress=watch) -> watch(progress) -> TransferState
    watch's thread:     every tenth of a second: view.tick(now), which reads TransferState and draws

The callback costs microseconds for each file. Drawing is the other thread's, so neither a slow
terminal nor a big window slows the transfer down.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from azpool.cli._state import Summary, TransferState
    from azpool.cli._tally import Group
    from azpool.cli._term import Terminal
    from azpool.report import Outcome

__all__ = ["QuietView", "View", "Watch"]


class View(Protocol):
    """Shows a `TransferState`."""

    interval_seconds: float
    for_people: bool
    """Whether it may be silent where one message says all."""
    shows_each: bool
    """Whether `outcome` does anything with what did not fail."""

    def start(self) -> None:
        """Begin to show; called once, by the watch's thread."""

    def tick(self, now: float) -> None:
        """Show what is now; `now` is on the clock of `TransferState.began`."""

    def outcome(self, outcome: Outcome, group: Group | None) -> None:
        """Show what happened to one thing; `group` is its reason where it failed.

        Called by the transfer's thread as they come, and after `stop` for those that did not come.
        """

    def stop(self) -> None:
        """Put the terminal back as it was; called once, also after an error."""

    def finish(self, summary: Summary) -> None:
        """Show how it ended; called once, after `stop`."""


class QuietView:
    """Shows nothing but the failures, at the end."""

    interval_seconds = 3600.0
    for_people = True
    shows_each = False

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def start(self) -> None: ...

    def tick(self, now: float) -> None: ...

    def outcome(self, outcome: Outcome, group: Group | None) -> None: ...

    def stop(self) -> None: ...

    def finish(self, summary: Summary) -> None:
        if summary.failed or summary.not_done:
            from azpool.cli._plain import summary_lines

            for line in summary_lines(summary):
                self._terminal.say(line)


class Watch:
    """Runs a view on a thread of its own while the `with` block lasts."""

    def __init__(self, view: View, state: TransferState) -> None:
        self.view = view
        self.state = state
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BrokenPipeError | None = None
        self.failed: Exception | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="azpool-view", daemon=True)
        self._thread.start()
        try:
            self._begun.wait()  # what a view begins with stands before all that it is told
        except KeyboardInterrupt:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._ended.set()
        try:
            if self._thread is not None:
                self._thread.join()
        finally:  # a second Ctrl-C while it waits must not leave the cursor hidden
            with contextlib.suppress(OSError, ValueError):
                self.view.stop()

    def check(self) -> None:
        """Raise what ended the view, such as `BrokenPipeError`, in the transfer's thread."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            try:
                self.view.start()
            finally:
                self._begun.set()
            while not self._ended.wait(self.view.interval_seconds):
                self.view.tick(time.monotonic())
        except BrokenPipeError as error:
            self._error = error
        except Exception as error:
            # A view that fails must not stop the transfer that it shows.
            self.failed = error
