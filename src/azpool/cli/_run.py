"""Run one piece of work under a view, and turn its report into a summary and an exit code."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from azpool.cli import _words as words
from azpool.cli._exit import Interrupted, code_of_failures
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
    """Answer the view that the options and the terminal ask for; rich is not loaded yet."""
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
    """One piece of work: watched, summed up, and said what became of it."""

    def __init__(self, terminal: Terminal, view: View, state: TransferState) -> None:
        self._terminal = terminal
        self._view = view
        self._state = state
        self._told: set[int] = set()

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

        try:
            with watch:
                report = work(notice)
        except KeyboardInterrupt:
            raise Interrupted(self._what_is_done()) from None
        for outcome in report:
            self._tell(outcome)
        if self._is_alone and report.failed and self._view.for_people:
            return self._explain_the_one(report[0])
        summary = Summary.of(state.job, report, time.monotonic() - state.began, state.tally)
        self._view.finish(summary)
        return code_of_failures(summary.ok + summary.skipped, [o.error for o in report.failed])

    def _notice(self, progress: Progress) -> None:
        """Take over the engine's numbers; called by it some 10 times a second."""
        self._state.take(progress)
        for outcome in progress.ended:
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        """Show what happened to one thing, once."""
        if outcome.index in self._told:
            return
        self._told.add(outcome.index)
        group = None
        if outcome.state is State.FAILED:
            group = self._state.tally.add(outcome.name, outcome.error)
        if not (self._is_alone and group is not None and self._view.for_people):
            self._view.outcome(outcome, group)

    @property
    def _is_alone(self) -> bool:
        """Whether there is but one file: its failure is one message, not a table."""
        return self._state.total is not None and self._state.total.files == 1

    def _explain_the_one(self, outcome: Outcome) -> int:
        self._terminal.error(words.printable(str(outcome.error)))
        if outcome.request_id:
            self._terminal.say(f"  request id {outcome.request_id}", "dim")
        return code_of_failures(0, [outcome.error])

    def _what_is_done(self) -> str:
        state = self._state
        job = state.job
        if state.total is None:
            return f"interrupted before anything was {job.past}"
        left = state.total.files - state.settled.files
        moved = f" ({words.size(state.done.size_bytes)})" if state.done.size_bytes else ""
        things = words.plural(state.total.files, job.thing)
        parts = [f"{words.count(state.done.files)} of {things} {job.past}{moved}"]
        for number, what in ((state.failed, "failed"), (state.skipped, "skipped")):
            if number:
                parts.append(f"{words.count(number)} {what}")
        parts.append(f"{words.count(max(0, left))} not done")
        text = f"interrupted: {', '.join(parts)}"
        return text if job.verb == "delete" else f"{text}; --no-overwrite goes on from there"
