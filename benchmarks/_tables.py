"""Figures of all rounds, and how they are shown: the goals, then every peer beside every other.

A benchmark describes its tables as a `Sheet`; `show` puts them on the terminal, `markdown` on
paper.
"""

import datetime as dt
import hashlib
import os
import platform
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from importlib import metadata
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

US = "azpool"
MARKS = {True: ("green", "✓"), False: ("red", "✗"), None: ("", "?")}


class Results:
    """Figures of all rounds."""

    def __init__(self, peers, rounds):
        self.peers = peers
        self.rounds = rounds
        self.failures = {}  # (measure, peer) -> reason, or "" where it went well
        self.left_running = defaultdict(int)
        self._figures = defaultdict(lambda: defaultdict(list))
        self.facts = ""

    def add(self, measure, peer, figures):
        figures = dict(figures)
        self.failures.setdefault((measure, peer), "")
        if "failed" in figures:
            self.failures[measure, peer] = figures.pop("failed")
        if figures.pop("hung_at_close", 0):
            self.failures[measure, peer] = "hangs when it is closed"
        self.left_running[peer] += figures.pop("left_running", 0)
        for name, figure in figures.items():
            self._figures[peer][name].append(figure)

    def hopeless(self, measure, peer):
        """Whether a measure has failed before, so that another round would only take time."""
        return bool(self.failures.get((measure, peer)))

    def get(self, peer, name):
        """Return the median of a figure, or None."""
        figures = self._figures[peer][name]
        if not figures:
            return None
        if isinstance(figures[0], int | float):
            return statistics.median(figures)
        return figures[-1]

    def names(self, peer):
        """Return the names of a peer's figures."""
        return [*self._figures[peer]]

    def why(self, peer, measure):
        return self.failures.get((measure, peer), "")

    def best_peer(self, name, *, low, but=()):
        """Return (figure, peer) of the best of the others, or None."""
        found = [
            (figure, peer)
            for peer in self.peers
            if peer != US and peer not in but and (figure := self.get(peer, name)) is not None
        ]
        if not found:
            return None
        return min(found) if low else max(found)

    def note(self, began, load_before, libraries, *, quick):
        """Write down where and when."""
        versions = {name: _version(name) for name in libraries}
        told = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
        self.facts = (
            f"{machine()}, Linux {platform.release().partition('.')[0]}, "
            f"{platform.python_implementation()} {platform.python_version()}, "
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}; load average {load_before:.1f} before "
            f"and {os.getloadavg()[0]:.1f} after; medians of {self.rounds} interleaved "
            f"round{'s' * (self.rounds != 1)}{', quick: less of everything' * quick}; "
            f"{(time.monotonic() - began) / 60:.0f} min. {told}."
        )


def machine():
    """Name the machine, with two yardsticks to compare others by: `2 cores (AMD ...; ...)`."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    data = bytes(64 << 20)
    md5 = 64 / min(_seconds(lambda: hashlib.md5(data).digest()) for _ in range(3))
    calls = range(100_000)
    call = min(_seconds(lambda: [os.getppid() for _ in calls]) for _ in range(3)) / len(calls)
    name = names[0] if names else platform.machine()
    return (
        f"{os.cpu_count()} cores ({name}; MD5 {md5:.0f} MiB/s, "
        f"a system call from Python {call * 1e9:.0f} ns)"
    )


def _seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# --- how figures look -------------------------------------------------------------------------


def ms(seconds):
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"


def us(seconds):
    return f"{seconds * 1e6:,.0f} us"


def rate(number):
    return f"{number / 1e6:.2f} M/s" if number >= 1e6 else f"{number:,.0f} /s"


def times(number):
    return f"{number:.2f} ×"


def memory(number):
    return f"{number / 1e6:,.1f} MB"


def plain(number):
    return f"{number:,.1f}"


def percent(number):
    return f"{number * 100:.2f} %"


class Column(NamedTuple):
    name: str  # of the figure
    measure: str  # that gives it
    title: str
    form: object
    low: bool = True  # low is good


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What the tables of a benchmark are.

    Attributes:
        title, intro: of the page; the facts of the run follow the intro.
        words: the columns of goals that hold words, and not figures.
        goal_titles: heads of the columns of goals but the last, which says whether they are met.
        goal_rows: gives the rows of a run; our own figure stands third, True, False or None last.
        columns: of each table of peers, by its title.
        decorate: (results, peer, column) -> what to add to a figure's text.
        legend: what the columns mean.
        peers_title: head of the peers' column.
    """

    title: str
    intro: str
    goal_titles: tuple
    words: tuple = ()
    goal_rows: object
    columns: dict
    legend: str
    peers_title: str
    decorate: object = field(default=lambda results, peer, column: "")


def cell(results, peer, column, sheet):
    """Return a figure as text, or what there is instead of it."""
    figure = results.get(peer, column.name)
    if figure is not None:
        return column.form(figure) + sheet.decorate(results, peer, column)
    why = results.why(peer, column.measure)
    if not why:
        return "-"
    if "not there yet" in why:
        return "not yet"
    return "hangs" if "hangs" in why or "Timeout" in why or "answered" in why else "fails"


def columns_of(results, columns):
    """Return the columns of a table that have figures in this run."""
    return [
        column
        for column in columns
        if any(results.get(peer, column.name) is not None for peer in results.peers)
    ]


def failures(results):
    """Yield a line for each peer that did not do something."""
    for (measure, peer), reason in results.failures.items():
        if reason:
            what = "does not start" if measure == "start" else f"fails at `{measure}`"
            if "not there yet" in reason:
                what = f"at `{measure}`"
            yield f"{peer} {what}: {reason}"
    for peer, count in results.left_running.items():
        if count:
            yield f"{peer} left {count} processes running after it was closed; they were ended"


# --- on the terminal --------------------------------------------------------------------------


def show(console, results, sheet):
    console.print()
    console.print(_goal_table(results, sheet))
    for name, every in sheet.columns.items():
        columns = columns_of(results, every)
        fit = max(3, (console.width - 36) // 14)
        for first in range(0, len(columns), fit):
            console.print(_peer_table(results, name, columns[first : first + fit], sheet))
    for line in failures(results):
        console.print(Text(f"· {line}", style="yellow"))
    console.print(Text(results.facts, style="dim"))


def _goal_table(results, sheet):
    table = Table(title="azpool and its goals", box=box.SIMPLE_HEAD, title_justify="left")
    for number, title in enumerate(sheet.goal_titles):
        table.add_column(title, justify="left" if number < 2 or title in sheet.words else "right")
    table.add_column("")
    for *cells, met in sheet.goal_rows(results):
        colour, mark = MARKS[met]
        what, goal, ours, *rest = cells
        table.add_row(
            *(what, Text(goal, "dim"), Text(ours, f"bold {colour}")), *rest, Text(mark, colour)
        )
    return table


def _peer_table(results, name, columns, sheet):
    table = Table(title=name, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column(sheet.peers_title, no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    best = {column: _best(results, column) for column in columns}
    for peer in results.peers:
        cells = [Text(peer, "bold" if peer == US else "")]
        for column in columns:
            style = "bold green" if best[column] == peer else ""
            text = cell(results, peer, column, sheet)
            cells.append(Text(text, "yellow" if text in {"hangs", "fails", "not yet"} else style))
        table.add_row(*cells)
    return table


def _best(results, column):
    found = [
        (figure, peer)
        for peer in results.peers
        if (figure := results.get(peer, column.name)) is not None
    ]
    return (min if column.low else max)(found)[1]


# --- on paper ---------------------------------------------------------------------------------


def markdown(results, sheet):
    titles = " | ".join(sheet.goal_titles)
    lines = [
        f"# {sheet.title}",
        "",
        f"{sheet.intro} {results.facts}",
        "",
        "## Goals",
        "",
        f"| {titles} | met |",
        "|---|---|"
        + "".join(["---:|", "---|"][t in sheet.words] for t in sheet.goal_titles[2:])
        + "---|",
    ]
    for *cells, met in sheet.goal_rows(results):
        what, goal, ours, *rest = cells
        lines.append(f"| {' | '.join([what, goal, f'**{ours}**', *rest, MARKS[met][1]])} |")
    for name, every in sheet.columns.items():
        columns = columns_of(results, every)
        if not columns:
            continue
        titles = " | ".join(column.title for column in columns)
        lines += ["", f"## {name}", ""]
        lines += [f"| {sheet.peers_title} | {titles} |", "|---|" + "---:|" * len(columns)]
        for peer in results.peers:
            cells = " | ".join(cell(results, peer, column, sheet) for column in columns)
            lines.append(f"| {peer} | {cells} |")
    lines += ["", sheet.legend]
    told = [f"- {line}" for line in failures(results)]
    if told:
        lines += ["", "What did not work:", "", *told]
    return "\n".join(lines) + "\n"


__all__ = ["MARKS", "US", "Column", "Results", "Sheet", "markdown", "show"]
