"""Run one operation on a fleet under a view, and turn its report into a summary and an exit code.

Ctrl-C once stops the sending: the engine waits for the answers on their way, and what is under way
is told together with the command that goes on. Twice ends at once.
"""

from __future__ import annotations

import atexit
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._ctrl_c import ended_by_one
from azpool.cli._exit import Interrupted, code_of_failures
from azpool.cli._fleet_state import FleetEnd, FleetState
from azpool.cli._fleet_views import choose_fleet_view
from azpool.cli._options import ProgressMode
from azpool.cli._report_file import write_report
from azpool.cli._watch import Watch
from azpool.fleet._journals import id_of
from azpool.fleet.progress import FleetInterrupted, FleetProgress, Phase
from azpool.report import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from azpool.cli._fleet_state import Work
    from azpool.cli._fleet_views import FleetView
    from azpool.cli._term import Terminal
    from azpool.report import Report

__all__ = ["FleetRun", "Show"]

NAMES_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """How a command's options want it shown."""

    json: bool
    quiet: bool
    verbose: bool
    progress: ProgressMode
    report_path: str | None = None


class FleetRun:
    """One operation: watched, summed up, and said what became of it.

    Args:
        terminal: where its one message goes.
        work: what is done.
        instances: to what.
        show: how.
        journal: the path of its journal, or "".
    """

    def __init__(
        self,
        terminal: Terminal,
        work: Work,
        instances: Sequence[Any],
        show: Show,
        *,
        journal: str = "",
    ) -> None:
        self.state = FleetState.of(work, instances, time.monotonic())
        self.whole_later = False
        """Whether outcomes are whole in the report alone, which has their outputs read back."""
        self._terminal = terminal
        self._show = show
        self._journal = journal
        self._finished = False
        self._view: FleetView = choose_fleet_view(
            terminal, self.state, json_lines=show.json, quiet=show.quiet, progress=show.progress,
            verbose=show.verbose,
        )  # fmt: skip

    def run(
        self,
        work: Callable[[Callable[[FleetProgress], None]], Report[Any]],
        tell: Callable[[Report[Any]], None] | None = None,
    ) -> int:
        """Call `work` with a progress callable, show what it reports, answer the exit code.

        Args:
            work: the operation.
            tell: writes results to standard output, between the live view and the summary.

        Raises:
            Interrupted: Ctrl-C; its text says what was done, and what is under way.
            AzpoolError: nothing could be begun.
        """
        # A watch hands its state on to nobody: a fleet's will do.
        watch: Any = Watch(self._view, self.state)  # type: ignore[arg-type]  # as above

        def notice(progress: FleetProgress) -> None:
            watch.check()
            self._take(progress)

        report = None
        try:
            with ended_by_one():
                with watch, ended_by_one():
                    report = work(notice)
                return self._told(report, tell)
        except BrokenPipeError:
            atexit.register(_end_nodes)
            raise
        except KeyboardInterrupt as error:
            atexit.register(_end_nodes)
            known = _report_of(error) if report is None else report
            text = self._cut_short() if known is None else self._broken_off(known)
            raise Interrupted(text) from None

    def _told(self, report: Report[Any], tell: Callable[[Report[Any]], None] | None) -> int:
        """Show what the work came to, and answer the exit code."""
        self._take_rest(report)
        if tell is not None:
            tell(report)
            self._terminal.flush()
        end = self._end(report)
        self._finish(end)
        self._write_report(report)
        well = end.total - end.bad
        tally = self.state.tally
        return code_of_failures(well, end.bad, refused=tally.refused, missing=tally.missing)

    def _finish(self, end: FleetEnd) -> None:
        if not self._finished:
            self._finished = True
            self._view.finish(end)

    def _write_report(self, report: Report[Any]) -> None:
        if self._show.report_path is not None:
            write_report(self._show.report_path, report)

    def _take(self, progress: FleetProgress) -> None:
        known = [one.index for one in progress.ended if self.state.is_known(one.index)]
        self.state.take(progress, time.monotonic())
        if self.whole_later:
            return
        for outcome in progress.ended:
            if outcome.index not in known:
                self._view.outcome(outcome)

    def _take_rest(self, report: Report[Any]) -> None:
        """Take in what no progress told of."""
        rest = tuple(one for one in report if not self.state.is_known(one.index))
        last = self.state.progress or FleetProgress(
            operation=self.state.work.operation, total=self.state.total
        )
        self._take(replace(last, changed=(), ended=rest, seconds_left=None, budget_seconds=0.0))
        if self.whole_later:
            self.whole_later = False  # once, also where Ctrl-C comes meanwhile
            for outcome in report:
                self._view.outcome(outcome)

    def _end(self, report: Report[Any]) -> FleetEnd:
        return FleetEnd.of(self.state, report, time.monotonic(), journal=self._kept())

    def _kept(self) -> str:
        """Answer what `resume` takes, where the engine has kept the journal."""
        if not self._journal or not os.path.exists(self._journal):
            return ""
        return id_of(self._journal)

    def _broken_off(self, report: Report[Any]) -> str:
        """Take in and write what the engine has reported, and answer it as one line.

        Ctrl-C may have come while that was shown: then what is left of it.
        """
        self._take_rest(report)
        end = self._end(report)
        if not self._view.for_people:
            self._finish(end)
        self._write_report(report)
        return self._as_line(end)

    @staticmethod
    def _as_line(end: FleetEnd) -> str:
        work, total = end.work, words.plural(end.total, "instance")
        parts = [f"{work.past} {words.count(end.well)} of {total}"]
        failed = end.tally.count
        if failed:
            parts.append(f"{words.count(failed)} failed")
        if end.under_way:
            names = ", ".join(map(words.printable, end.under_way[:NAMES_TOLD]))
            more = len(end.under_way) - NAMES_TOLD
            names += f" and {words.count(more)} more" if more > 0 else ""
            parts.append(f"{words.count(len(end.under_way))} may be under way ({names})")
        left = end.counts.get(State.CANCELLED, 0)
        if left:
            parts.append(f"{words.count(left)} not done")
        text = f"interrupted: {', '.join(parts)}"
        return (
            f"{text}; azpool fleet resume {end.journal} goes on from there" if end.journal else text
        )

    def _cut_short(self) -> str:
        state = self.state
        sent = state.phases.get(Phase.UNDER_WAY, 0) + state.phases.get(Phase.SENDING, 0)
        text = (
            f"interrupted: {words.count(state.ended)} of {words.plural(state.total, 'instance')} "
            "ended"
        )
        if sent > 0 and state.work.operation != "wait":  # which only looks
            text += f", {words.count(sent)} may be under way"
        kept = self._kept()
        return f"{text}; azpool fleet resume {kept} goes on from there" if kept else text


def _report_of(error: BaseException | None) -> Report[Any] | None:
    """Find the engine's report, also where one more Ctrl-C came while it was on its way here."""
    while error is not None and not isinstance(error, FleetInterrupted):
        error = error.__context__
    return None if error is None else error.report


def _end_nodes() -> None:
    """End the nodes, before the pool says at the exit how many calls that cost.

    What was cut short the command's own message has told, by instances and not by calls.
    """
    from azpool.pool.pool import live_supervisors

    for one in live_supervisors():
        one.abort()
