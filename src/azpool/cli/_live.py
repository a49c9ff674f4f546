"""Progress on a terminal: a few lines that redraw themselves, and a summary that stays.

`frame` is a pure function of state, time and width; rich draws it. rich is imported by the thread
that draws, so a transfer does not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from azpool.cli import _words as words
from azpool.cli._plain import headline, outcome_line, some_names, speed_of

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live

    from azpool.cli._rate import Pace
    from azpool.cli._state import Summary, TransferState
    from azpool.cli._tally import Group as Failures
    from azpool.cli._tally import Tally
    from azpool.cli._term import Terminal
    from azpool.report import Outcome

__all__ = ["LiveView", "failures_table", "frame", "summary"]

MAX_WIDTH = 110  # a bar across a very wide screen says no more, and the eye loses the line
FAILURES_SHOWN = 4
REASONS_SHOWN = 12
LABEL = 7  # width of the labels' column: "failed "


class LiveView:
    """Redraws itself ten times a second, by `tick`."""

    interval_seconds = 0.1

    def __init__(self, terminal: Terminal, state: TransferState, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._terminal = terminal
        self._state = state
        self._console: Console | None = None
        self._live: Live | None = None

    def start(self) -> None:
        from rich.live import Live

        self._console = self._terminal.console()
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def tick(self, now: float) -> None:
        if self._live is None or self._console is None:
            return
        pace = self._state.pace(now)
        self._live.update(frame(self._state, pace, now, self._console.width), refresh=True)

    def outcome(self, outcome: Outcome, group: Failures | None) -> None:
        # Failures show with the next redraw: `frame` reads the tally.
        if self._verbose and self._console is not None:
            style = "red" if group is not None else "dim"
            reason = f": {words.printable(group.reason)}" if group is not None else ""
            line = outcome_line(self._state.job, outcome) + reason
            self._console.print(line, style=style, soft_wrap=True)

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def finish(self, end: Summary) -> None:
        console = self._console or self._terminal.console()
        console.print(summary(end, console.width))


def frame(state: TransferState, pace: Pace, now: float, width: int) -> Group:
    """Draw one moment: heading, bar, files, bytes, and the failures so far."""
    from rich.console import Group

    width = max(20, min(MAX_WIDTH, width))
    parts: list[RenderableType] = [_heading(state, now, width), _bar(state, pace, width)]
    parts += _numbers(state, pace, width)
    parts += _failures(state.tally, width)
    return Group(*parts)


def _heading(state: TransferState, now: float, width: int) -> RenderableType:
    from rich.text import Text

    job = state.job
    right = words.clock(now - state.began)
    if job.nodes and width >= 60:
        right = f"{words.plural(job.nodes, 'node')} · {right}"
    arrow = {"upload": "↑", "download": "↓"}.get(job.verb, "·")
    left = f"{arrow} {job.doing} to " if job.verb != "delete" else f"{arrow} {job.doing} from "
    room = width - len(left) - len(right) - 2
    target = words.shorten(words.printable(job.target), max(4, room))
    gap = max(2, width - len(left) - len(target) - len(right))
    text = Text(no_wrap=True, overflow="crop")
    text.append(left, "bold").append(target, "bold cyan").append(" " * gap).append(right, "dim")
    return text


def _bar(state: TransferState, pace: Pace, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    part = state.fraction
    percent = "  " if part is None else f"{part:4.0%}"
    known = part is not None and pace.seconds_left is not None
    left = f"{words.clock(pace.seconds_left or 0)} left" if known else ""
    grid = Table.grid(padding=(0, 1, 0, 0))
    bar_width = max(5, width - 5 - 13)
    grid.add_column(width=bar_width)
    grid.add_column(justify="right", width=4)
    grid.add_column(justify="right", width=12)
    bar = ProgressBar(
        total=None if part is None else 1.0,
        completed=part or 0.0,
        width=bar_width,
        pulse=part is None,
        complete_style="red" if state.failed else "cyan",
        finished_style="green",
    )
    grid.add_row(bar, percent, left)
    return grid


def _numbers(state: TransferState, pace: Pace, width: int) -> list[RenderableType]:
    done, total = state.done, state.total
    files_total = "" if total is None else f" of {words.count(total.files)}"
    bytes_total = "" if total is None else f" of {words.size(total.size_bytes)}"
    files_rate, bytes_rate = pace.files_per_second, pace.bytes_per_second
    files = [f"{words.count(done.files)}{files_total}", f"{words.rate(files_rate)}/s"]
    moved = [f"{words.size(done.size_bytes)}{bytes_total}", f"{words.size(bytes_rate)}/s"]
    if total is None:
        files = [f"{words.count(done.files)} so far"]
        moved = []
    first = max([len(cells[0]) for cells in (files, moved) if cells])
    rows = [_row(f"{state.job.thing}s", files, first, width, _counters(state))]
    if moved:
        rows.append(_row("bytes", moved, first, width, []))
    if state.current and width >= 50:
        name = words.shorten(words.printable(state.current), width - LABEL - 1)
        rows.append(_row("now", [name], 0, width, []))
    return rows


def _counters(state: TransferState) -> list[tuple[str, str]]:
    counters: list[tuple[str, str]] = []
    if state.in_flight:
        counters.append((f"{words.count(state.in_flight)} in flight", ""))
    if state.skipped:
        counters.append((f"{words.count(state.skipped)} skipped", "yellow"))
    if state.failed:
        counters.append((f"{words.count(state.failed)} failed", "bold red"))
    return counters


def _row(
    label: str, cells: list[str], first: int, width: int, counters: list[tuple[str, str]]
) -> RenderableType:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{label:>{LABEL - 1}} ", "dim")
    text.append(cells[0].ljust(first))
    for cell in cells[1:]:
        text.append(f"  {cell:>12}", "cyan")
    for counter, style in counters:
        # What has no room is left out, the last counter (failures) excepted.
        if text.cell_len + len(counter) + 3 <= width or style == "bold red":
            text.append("   ").append(counter, style)
    text.truncate(width, overflow="ellipsis")
    return text


def _failures(tally: Tally, width: int) -> list[RenderableType]:
    from rich.text import Text

    rows: list[RenderableType] = []
    groups = tally.groups()
    for group in groups[:FAILURES_SHOWN]:
        text = Text(no_wrap=True)
        text.append(f"{words.count(group.count):>{LABEL - 1}} ", "bold red")
        text.append(words.printable(group.reason))
        text.append(f"  {some_names(group)}", "dim")
        text.truncate(width, overflow="ellipsis")
        rows.append(text)
    if len(groups) > FAILURES_SHOWN:
        more = words.plural(len(groups) - FAILURES_SHOWN, "more reason")
        rows.append(Text(f"{' ' * LABEL}and {more}", "dim"))
    return rows


def summary(end: Summary, width: int) -> Group:
    """Draw how it ended: one line, and a table of the failures where there are any."""
    from rich.console import Group
    from rich.text import Text

    bad = end.failed or end.not_done
    line = Text(overflow="fold")
    line.append("✗ " if bad else "✓ ", "bold red" if bad else "bold green")
    line.append(headline(end), "bold")
    speed = speed_of(end)
    if speed:
        line.append(f"  {speed}", "dim")
    parts: list[RenderableType] = [line]
    if end.tally.count:
        parts.append(failures_table(end.tally, min(width, MAX_WIDTH)))
    parts += [Text(f"  note: {words.printable(note)}", "yellow") for note in end.notes]
    return Group(*parts)


def failures_table(tally: Tally, width: int) -> RenderableType:
    """Draw failures by reason: how many, why, the first names, and the request id for support."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    groups = tally.groups()
    table = Table(box=box.SIMPLE_HEAD, width=width, pad_edge=False, padding=(0, 1))
    table.add_column("failed", justify="right", style="bold red", no_wrap=True)
    table.add_column("reason", ratio=3, overflow="fold")
    table.add_column("first names", ratio=2, overflow="fold", style="dim")
    for group in groups[:REASONS_SHOWN]:
        why = Text(words.printable(group.reason))
        if group.request_id:
            why.append(f"\nrequest id {group.request_id}", "dim")
        table.add_row(words.count(group.count), why, some_names(group))
    if len(groups) > REASONS_SHOWN:
        table.add_row("", f"and {words.plural(len(groups) - REASONS_SHOWN, 'more reason')}", "")
    return table
