"""Progress on a terminal: a few lines that redraw themselves, and a summary that stays."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from azpool.cli import _words as words
from azpool.cli._frame import frame, summary
from azpool.cli._plain import outcome_line
from azpool.cli._screen import Screen, styled

if TYPE_CHECKING:
    from azpool.cli._state import Summary, TransferState
    from azpool.cli._tally import Group
    from azpool.cli._term import Terminal
    from azpool.report import Outcome

__all__ = ["LiveView"]


class LiveView:
    """Redraws itself eight times a second, by `tick`."""

    interval_seconds = 0.125
    for_people = True

    def __init__(self, terminal: Terminal, state: TransferState, *, verbose: bool = False) -> None:
        self.shows_each = verbose
        self._terminal = terminal
        self._state = state
        self._screen = Screen(terminal)
        self._lock = threading.Lock()  # files end in one thread, frames are drawn in another

    def start(self) -> None:
        """Draw nothing yet: what is over in a tenth of a second is one line."""

    def tick(self, now: float) -> None:
        columns, rows = self._terminal.size
        lines = frame(self._state, self._state.pace(now), now, columns, rows)
        with self._lock:
            self._screen.draw(lines, columns)

    def outcome(self, outcome: Outcome, group: Group | None) -> None:
        # Failures show with the next frame: it reads the tally.
        if not self.shows_each:
            return
        reason = f": {words.printable(group.reason)}" if group is not None else ""
        line = outcome_line(self._state.job, outcome) + reason
        with self._lock:
            self._screen.print_above(
                self._terminal.paint_err(line, "red" if group is not None else "dim")
            )

    def stop(self) -> None:
        with self._lock:
            self._screen.clear()

    def finish(self, end: Summary) -> None:
        for line in summary(end, self._terminal.size[0]):
            self._terminal.say(styled(line, self._terminal))
