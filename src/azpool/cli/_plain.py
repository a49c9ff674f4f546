"""Progress as lines: for logs, pipes and terminals that can't move their cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from azpool.cli import _words as words
from azpool.report import State

if TYPE_CHECKING:
    from azpool.cli._state import Job, Summary, TransferState
    from azpool.cli._tally import Group
    from azpool.cli._term import Terminal
    from azpool.report import Outcome

__all__ = [
    "PlainView",
    "headline",
    "how_to_go_on",
    "outcome_line",
    "some_names",
    "speed_of",
    "summary_lines",
]

LINE_EVERY_SECONDS = 5.0
FIRST_LINE_SECONDS = 2.0
SHOWN_OF_A_REASON = 3
REASONS_SHOWN = 10


class PlainView:
    """One line every few seconds, and the first failures of each reason as they come."""

    interval_seconds = 0.25
    for_people = True

    def __init__(self, terminal: Terminal, state: TransferState, *, verbose: bool = False) -> None:
        self.shows_each = verbose
        self._terminal = terminal
        self._state = state
        self._next_line = state.began + FIRST_LINE_SECONDS
        # Held back until the first line: what is over by then is told by the summary alone.
        self._held: list[str] | None = []
        self._last = ""

    def start(self) -> None:
        """Say nothing: a transfer that is done within two seconds is one line in a log."""

    def tick(self, now: float) -> None:
        pace = self._state.pace(now)
        starting = self._state.total is None or self._state.planning
        if now < self._next_line + (LINE_EVERY_SECONDS if starting else 0.0):
            return
        self._next_line = now + LINE_EVERY_SECONDS
        held, self._held = self._held, None
        for line in held or ():
            self._terminal.say(line)
        line = _progress_line(self._state, pace.files_per_second, pace.bytes_per_second)
        if pace.seconds_left is not None:
            line += f", {words.left(pace.seconds_left)} left"
        if line != self._last:
            self._last = line
            self._terminal.say(line)

    def outcome(self, outcome: Outcome, group: Group | None) -> None:
        if group is not None and (self.shows_each or group.count <= SHOWN_OF_A_REASON):
            name, reason = words.printable(outcome.name), words.printable(group.reason)
            self._say(f"failed: {name}: {reason}")
        elif self.shows_each and group is None:
            self._terminal.say(outcome_line(self._state.job, outcome))

    def _say(self, line: str) -> None:
        if self._held is None or self.shows_each:
            self._terminal.say(line)
        else:
            self._held.append(line)

    def stop(self) -> None:
        """Leave nothing to clean up."""

    def finish(self, summary: Summary) -> None:
        for line in summary_lines(summary):
            self._terminal.say(line)


def outcome_line(job: Job, outcome: Outcome) -> str:
    """Say what became of one file: `uploaded a/b.nc (4.0 KiB, 12 ms)`."""
    name = words.printable(outcome.name)
    if outcome.state is not State.OK:
        why = getattr(outcome, "note", "")  # why it was skipped on purpose
        return f"{outcome.state.value} {name}{f': {why}' if why else ''}"
    took = words.seconds(outcome.seconds)
    moved = f"{words.size(outcome.bytes_moved)}, " if outcome.bytes_moved else ""
    return f"{job.past} {name} ({moved}{took})"


def _progress_line(state: TransferState, files_rate: float, bytes_rate: float) -> str:
    done, total = state.done, state.total
    if total is None or state.planning:
        text = f"{state.job.doing}: looking for {state.job.thing}s"
        return f"{text}, {words.count(total.files)} so far" if total and total.files else text
    parts = [
        f"{words.count(done.files)} of {words.plural(total.files, state.job.thing)}",
        words.size_of(done.size_bytes, total.size_bytes),
        f"{words.rate(files_rate)} {state.job.thing}s/s",
        f"{words.size(bytes_rate)}/s",
    ]
    for number, what in (
        (state.failed, "failed"),
        (state.skipped, "skipped"),
        (state.in_flight, "in flight"),
        (state.throttled, "throttled"),
    ):
        if number:
            parts.append(f"{words.count(number)} {what}")
    return f"{state.job.doing}: {', '.join(parts)}"


def headline(summary: Summary) -> str:
    """Say in one line what was done: `uploaded 2,000 files (7.8 MiB) in 2.1 s`."""
    job = summary.job
    done = words.plural(summary.ok, job.thing)
    if summary.ok != summary.total:
        done = f"{words.count(summary.ok)} of {words.plural(summary.total, job.thing)}"
    text = f"{job.past} {done}"
    if summary.bytes_moved:
        text += f" ({words.size(summary.bytes_moved)})"
    if summary.before.files:
        text += f", {words.count(summary.before.files)} of them before,"
    text += f" in {words.seconds(summary.seconds)}"
    for number, what in (
        (summary.failed, "failed"),
        (summary.skipped, "skipped"),
        (summary.not_done, "not done"),
    ):
        if number:
            text += f", {words.count(number)} {what}"
    return text


def speed_of(summary: Summary) -> str:
    """Say how fast it was, unless the start was most of it."""
    files = summary.ok - summary.before.files
    if files < 10 or summary.seconds <= 0:
        return ""
    text = f"{words.rate(files / summary.seconds)} {summary.job.thing}s/s"
    moved = summary.bytes_moved - summary.before.size_bytes
    if moved > 0:
        text += f", {words.size(moved / summary.seconds)}/s"
    return text


def how_to_go_on(summary: Summary) -> str:
    """Say by which command what was left can be done, or ""."""
    if not summary.journal:
        return ""
    left = summary.failed + summary.not_done
    again = f"tries the {words.count(left)} again" if left > 1 else "tries it again"
    return f"azpool jobs resume {summary.journal} {again}"


def some_names(group: Group) -> str:
    """Name the first of a group, and how many more there are."""
    text = ", ".join(words.printable(name) for name in group.names)
    more = group.count - len(group.names)
    return f"{text} and {words.count(more)} more" if more > 0 else text


def summary_lines(summary: Summary) -> list[str]:
    """Answer the final lines: what was done, then the failures by reason."""
    speed = speed_of(summary)
    lines = [headline(summary) + (f"; {speed}" if speed else "")]
    groups = summary.tally.groups()
    for group in groups[:REASONS_SHOWN]:
        line = f"  {words.count(group.count)} failed: {words.printable(group.reason)}"
        lines.append(f"{line} [{some_names(group)}]")
        if group.request_id:
            lines.append(f"    request id {group.request_id}")
    if len(groups) > REASONS_SHOWN:
        lines.append(f"  and {words.plural(len(groups) - REASONS_SHOWN, 'more reason')}")
    lines += [f"  note: {words.printable(note)}" for note in summary.notes]
    hint = how_to_go_on(summary)
    return [*lines, f"  {hint}"] if hint else lines
