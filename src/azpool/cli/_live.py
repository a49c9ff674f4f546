"""Progress on a terminal: a few lines that redraw themselves, and a summary that stays.

`frame` is a pure function of state, time and width; rich draws it. rich is imported by the thread
that draws, so a transfer does not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from azpool.cli import _words as words
from azpool.cli._plain import headline, outcome_line, speed_of

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
LABEL = 7  # width of the labels' column: " files "
WIDE = 90  # from here on a table has room for names beside the reasons


class LiveView:
    """Redraws itself ten times a second, by `tick`."""

    interval_seconds = 0.1
    for_people = True

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
    where = "" if not job.target else " from " if job.verb == "delete" else " to "
    left = f"{arrow} {job.doing}{where}"
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
    label = f"{state.job.thing}s"
    if total is None:
        return [_row(label, ["looking for them"], 0, width, [])]
    files = f"{words.count(done.files)} of {words.count(total.files)}"
    moved = words.size_of(done.size_bytes, total.size_bytes)
    first = max(len(files), len(moved))
    cells = [files, f"{words.rate(pace.files_per_second)}/s"]
    rows = [_row(label, cells, first, width, _counters(state))]
    if total.size_bytes:
        cells = [moved, f"{words.size(pace.bytes_per_second)}/s"]
        rows.append(_row("bytes", cells, first, width, []))
    if state.current and width >= 50:
        name = words.shorten(words.printable(state.current), width - LABEL)
        rows.append(_row("now", [name], 0, width, []))
    return rows


def _counters(state: TransferState) -> list[tuple[str, str]]:
    """Answer the counters that there is something to say of, the most important first."""
    counters = [
        (state.failed, "failed", "bold red"),
        (state.skipped, "skipped", "yellow"),
        (state.in_flight, "in flight", ""),
    ]
    return [(f"{words.count(n)} {what}", style) for n, what, style in counters if n]


def _row(
    label: str, cells: list[str], first: int, width: int, counters: list[tuple[str, str]]
) -> RenderableType:
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{label:>{LABEL - 1}} ", "dim")
    text.append(cells[0].ljust(first))
    for cell in cells[1:]:
        text.append(f"  {cell:>11}", "cyan")
    for counter, style in counters:
        # What has no room is left out: the first counters matter most.
        if text.cell_len + len(counter) + 3 <= width:
            text.append("   ").append(counter, style)
    text.truncate(width, overflow="ellipsis")
    return text


def _failures(tally: Tally, width: int) -> list[RenderableType]:
    from rich.text import Text

    rows: list[RenderableType] = []
    groups = tally.groups()
    for group in groups[:FAILURES_SHOWN]:
        text = Text(no_wrap=True)
        text.append("     ✗ ", "bold red").append(f"{words.count(group.count)} ", "bold red")
        text.append(words.printable(group.reason))
        name = words.shorten(words.printable(group.names[0]), 40)
        if text.cell_len + len(name) + 3 <= width:
            text.append(f" · {name}", "dim")
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
    """Draw failures by reason: how many, why, the first names, and the request id for support.

    The names stand in a column of their own where there is room for them, else below the reason.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    groups = tally.groups()
    wide = width >= WIDE
    names_width = width // 2 - 4 if wide else width - 12
    table = Table(box=box.SIMPLE_HEAD, width=width, pad_edge=False, padding=(0, 1))
    table.add_column("failed", justify="right", style="bold red", no_wrap=True, width=6)
    table.add_column("reason", overflow="fold")
    if wide:
        table.add_column("first names", no_wrap=True, width=names_width)
    for group in groups[:REASONS_SHOWN]:
        why = Text(words.printable(group.reason))
        names = Text("\n".join(_names(group, names_width)), "dim")
        if group.request_id:
            why.append(f"\nrequest id {group.request_id}", "dim")
        cells = [why, names] if wide else [Text("\n").join([why, names])]
        table.add_row(words.count(group.count), *cells)
    if len(groups) > REASONS_SHOWN:
        table.add_row("", f"and {words.plural(len(groups) - REASONS_SHOWN, 'more reason')}")
    return table


def _names(group: Failures, width: int) -> list[str]:
    names = [words.shorten(words.printable(name), width) for name in group.names]
    more = group.count - len(names)
    return [*names, f"and {words.count(more)} more"] if more > 0 else names
