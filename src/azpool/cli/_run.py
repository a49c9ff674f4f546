"""Run one piece of work under a view, and turn its report into a summary and an exit code.

The engine tells of each thing as it ends, and its report counts without a walk: nothing here grows
with the number of things.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._ctrl_c import ended_by_one
from azpool.cli._exit import Interrupted, code_of_failures
from azpool.cli._report_file import write_report
from azpool.cli._state import Summary
from azpool.cli._watch import QuietView, Watch
from azpool.report import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from azpool.cli._options import ProgressMode
    from azpool.cli._state import TransferState
    from azpool.cli._term import Terminal
    from azpool.cli._watch import View
    from azpool.report import Outcome, Report
    from azpool.storage.outcome import Progress, ProgressCallable

__all__ = ["Run", "choose_view"]


def choose_view(
    terminal: Terminal,
    state: TransferState,
    *,
    json: bool,
    quiet: bool,
    progress: ProgressMode,
    verbose: bool = False,
) -> View:
    """Answer the view that the options and the terminal ask for."""
    if json:
        from azpool.cli._events import JsonView

        return JsonView(terminal, state)
    if quiet:
        return QuietView(terminal)
    if progress.live(terminal):
        from azpool.cli._live import LiveView

        return LiveView(terminal, state, verbose=verbose)
    from azpool.cli._plain import PlainView

    return PlainView(terminal, state, verbose=verbose)


class Run:
    """One piece of work: watched, summed up, and said what became of it.

    Args:
        terminal: where its one message goes.
        view: shows it.
        state: what it shows.
        keep: called at the end with the report, or None after Ctrl-C; answers whether the job's
            journal, if there is one, is worth keeping.
        report_path: where the whole report is written to, or None.
        so_far: reads the report of a transfer that Ctrl-C has ended out of its journal; None where
            there is none.
    """

    def __init__(
        self,
        terminal: Terminal,
        view: View,
        state: TransferState,
        keep: Callable[[Report[Any] | None], bool] | None = None,
        *,
        report_path: str | None = None,
        so_far: Callable[[], Report[Any] | None] = lambda: None,
    ) -> None:
        self._terminal = terminal
        self._view = view
        self._state = state
        self._keep = keep
        self._is_kept: bool | None = None
        self._report_path = report_path
        self._so_far = so_far

    def run(self, work: Callable[[ProgressCallable], Report[Any]]) -> int:
        """Call `work` with a progress callable, show what it reports, answer the exit code.

        Raises:
            Interrupted: Ctrl-C; its text says what was done.
            AzpoolError: nothing could be begun.
        """
        state = self._state
        watch = Watch(self._view, state)

        def notice(progress: Progress) -> None:
            watch.check()
            self._notice(progress)

        report = None
        try:
            with ended_by_one():
                with watch, ended_by_one():
                    report = work(notice)
                return self._told(report)
        except KeyboardInterrupt:
            known = self._so_far_written() if report is None else report
            self._write_report(known)
            raise Interrupted(self._what_is_done(), job=self._left_of(report)) from None

    def _told(self, report: Report[Any]) -> int:
        """Show what the work came to, and answer the exit code."""
        if self._view.shows_each:
            for outcome in chain(report.cancelled, report.unknown):  # the engine ended before them
                self._view.outcome(outcome, None)
        code = self._sum_up(report)
        self._write_report(report)
        return code

    def _write_report(self, report: Report[Any] | None) -> None:
        if self._report_path is not None and report is not None:
            write_report(self._report_path, report)

    def _so_far_written(self) -> Report[Any] | None:
        """Read what was done, where a report of it is asked for."""
        return None if self._report_path is None else self._so_far()

    def _sum_up(self, report: Report[Any]) -> int:
        state = self._state
        tally = state.tally
        journal = self._left_of(report)
        if state.is_alone and report.failed and self._view.for_people:
            self._explain_the_one(report[0])
            if journal:
                self._terminal.say(f"  azpool jobs resume {journal} tries it again", "dim")
            return code_of_failures(0, 1, refused=tally.refused, missing=tally.missing)
        summary = Summary.of(
            state.job,
            report,
            time.monotonic() - state.began,
            tally,
            before=state.before,
            journal=journal,
            # The last line says it in the command line's own words, or the job is gone again.
            notes=tuple(note for note in report.notes if not self._is_of_job(note)),
        )
        self._view.finish(summary)
        done = summary.ok + summary.skipped
        return code_of_failures(done, summary.failed, refused=tally.refused, missing=tally.missing)

    def _notice(self, progress: Progress) -> None:
        """Take over the engine's numbers; called by it some 10 times a second."""
        self._state.take(progress)
        for outcome in progress.ended:
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        """Show what happened to one thing."""
        group = None
        if outcome.state is State.FAILED:
            group = self._state.tally.add(outcome.name, outcome.error)
        if not (self._state.is_alone and group is not None and self._view.for_people):
            self._view.outcome(outcome, group)

    def _explain_the_one(self, outcome: Outcome) -> None:
        self._terminal.error(words.printable(str(outcome.error)))
        if outcome.request_id:
            self._terminal.say(f"  request id {outcome.request_id}", "dim")

    def _is_of_job(self, note: str) -> bool:
        return bool(self._state.journal) and note.startswith(f"the job {self._state.journal} ")

    def _left_of(self, report: Report[Any] | None) -> str:
        """Answer the id of the job that can be resumed, or ""; None: Ctrl-C has ended it."""
        if report is not None and not report.counts.keys() - {State.OK, State.SKIPPED}:
            return ""
        if not self._state.journal or self._keep is None:
            return ""
        if self._is_kept is None:  # asked once: what is not worth keeping is gone then
            self._is_kept = self._keep(report)
        return self._state.journal if self._is_kept else ""

    def _what_is_done(self) -> str:
        state = self._state
        job = state.job
        if state.total is None or state.planning:
            return f"interrupted before anything was {job.past}"
        left = state.total.files - state.settled.files
        moved = f" ({words.size(state.done.size_bytes)})" if state.done.size_bytes else ""
        things = words.plural(state.total.files, job.thing)
        parts = [f"{words.count(state.done.files)} of {things} {job.past}{moved}"]
        for number, what in ((state.failed, "failed"), (state.skipped, "skipped")):
            if number:
                parts.append(f"{words.count(number)} {what}")
        parts.append(f"{words.count(max(0, left))} not done")
        return f"interrupted: {', '.join(parts)}"
