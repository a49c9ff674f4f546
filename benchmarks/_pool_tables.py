"""What `benchmarks/pool.py` found, as tables: the goals, then every peer beside every other."""

import datetime as dt
import os
import platform
import statistics
import time
from collections import defaultdict
from importlib import metadata
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

US = "azpool"
VERSIONS = ("loky", "mpire", "joblib", "ipyparallel", "distributed", "numpy", "azure-storage-blob")


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

    def note(self, began, load_before, *, quick):
        """Write down where and when, without naming the machine."""
        versions = {name: _version(name) for name in VERSIONS}
        libraries = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
        self.facts = (
            f"{os.cpu_count()} cores, Linux {platform.release().partition('.')[0]}, "
            f"{platform.python_implementation()} {platform.python_version()}, "
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}; load average {load_before:.1f} before "
            f"and {os.getloadavg()[0]:.1f} after; medians of {self.rounds} interleaved "
            f"round{'s' * (self.rounds != 1)}{', quick: less of everything' * quick}; "
            f"{(time.monotonic() - began) / 60:.0f} min. {libraries}."
        )


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


COLUMNS = {
    "Speed": [
        Column("start", "start", "start", ms),
        Column("call", "call", "one call", us),
        Column("single", "single", "one at a time", rate, low=False),
        Column("submitted", "single", "submitted", rate, low=False),
        Column("default", "trivial", "map, default", rate, low=False),
        Column("best", "trivial", "map, best chunk", rate, low=False),
        Column("sleep_default", "sleeping", "sleep, default", times),
        Column("sleep_single", "sleeping", "sleep, one by one", times),
        Column("hundred", "hundred", "100 nodes / 10", times),
    ],
    "State, life and cost": [
        Column("export", "export", "200 MB export", ms),
        Column("export_copies", "export", "copies", plain),
        Column("renew", "renew", "all fresh", ms),
        Column("killed", "killed", "after a kill", ms),
        Column("heavy_ratio", "heavy", "slow import", times),
        Column("idle_pss", "start", "idle worker", memory),
        Column("wakeups", "idle", "wake-ups/s", plain),
        Column("idle_cpu", "idle", "idle CPU", percent),
        Column("import", "importing", "import", ms),
        Column("close", "start", "close", ms),
    ],
}
LEGEND = """\
- start: until all 10 workers have answered. one call: there and back, warm. one at a time: a map
  with chunksize 1; submitted: calls queued one by one, then awaited; integers and `abs`.
- map: 100,000 × `abs`, warm (fewer where a default takes long: the executors, Dask), with default
  chunks and with the best of 500, 2,500, 10,000 and 25,000.
- sleep: items of 1-50 ms, most of them short, as a multiple of the ideal schedule.
- export: until every worker holds the array; peers that hand it to new workers only start those in
  that time. copies: memory added over all processes (PSS), after all have read it, in arrays.
- all fresh: `reset` for azpool, a new pool for the others. after a kill: of an idle worker, until
  all answer again. slow import: a first job whose module imports azure.storage.blob, until all 10
  have run it, in single imports of that module.
- Pools that fork the user's process have its memory, its imports and its array for nothing, and
  its locks and threads too; where that decides, they are not the best peer above.
- idle worker: PSS. wake-ups: voluntary context switches of all threads of all processes.\
"""


def cell(results, peer, column):
    """Return a figure as text, or what there is instead of it."""
    figure = results.get(peer, column.name)
    if figure is not None:
        text = column.form(figure)
        if column.name == "best" and (chunk := results.get(peer, "best_chunk")):
            text += f" ({chunk:,.0f})"
        if column.name == "killed" and "broken" in (results.get(peer, "killed_how") or ""):
            text += " (broke)"
        return text
    why = results.why(peer, column.measure)
    if not why:
        return "-"
    return "hangs" if "hangs" in why or "Timeout" in why or "answered" in why else "fails"


def columns_of(results, name):
    """Return the columns of a table that have figures in this run."""
    return [
        column
        for column in COLUMNS[name]
        if any(results.get(peer, column.name) is not None for peer in results.peers)
    ]


# --- goals ------------------------------------------------------------------------------------


class Goal(NamedTuple):
    title: str
    goal: str
    name: str
    form: object
    met: object  # (ours, best peer's or None) -> bool
    low: bool = True
    versus: str = ""  # the peers' figure, where it has another name
    but: tuple = ()  # peers that are not compared
    compares: bool = False  # means nothing without a peer


def below(limit):
    return lambda ours, _: ours < limit


MARKS = {True: ("green", "✓"), False: ("red", "✗"), None: ("", "?")}
FORKS = ("multiprocessing.Pool, fork", "mpire, fork")
GOALS = [
    Goal(
        *("start until all 10 answered", "< 100 ms, ahead of all that do not fork the master"),
        *("start", ms, lambda ours, peer: ours < 0.1 and ours < peer),
        compares=True,
        but=FORKS,
    ),
    Goal(
        *("one call, there and back", "half of the best peer's", "call", us),
        lambda ours, peer: ours <= peer / 2,
        compares=True,
    ),
    Goal(
        *("items one at a time", "ahead of every peer", "single", rate),
        lambda ours, peer: ours > peer,
        compares=True,
        low=False,
    ),
    Goal(
        *("100,000 × abs, default", "ahead of every default", "default", rate),
        lambda ours, peer: ours > peer,
        compares=True,
        low=False,
    ),
    Goal(
        *("100,000 × abs, default", "level with every best chunk", "default", rate),
        lambda ours, peer: ours > 0.95 * peer,
        compares=True,
        low=False,
        versus="best",
    ),
    Goal("sleeping items, skewed", "< 1.05 × ideal", "sleep_default", times, below(1.05)),
    Goal("200 MB to 10 nodes", "< 300 ms", "export", ms, below(0.3), but=FORKS),
    Goal("... memory added", "< 1.3 copies", "export_copies", times, below(1.3), but=FORKS),
    Goal("reset of 10 nodes", "< 60 ms", "renew", ms, below(0.06), but=FORKS),
    Goal("killed node replaced", "< 50 ms", "replaced", ms, below(0.05), versus="killed"),
    Goal("idle node's memory", "< 4 MB", "idle_pss", memory, below(4e6), but=FORKS),
    Goal("idle pool, wake-ups/s", "none", "wakeups", plain, lambda ours, _: ours == 0),
    Goal("idle pool, CPU", "0 %", "idle_cpu", percent, lambda ours, _: ours < 1e-4),
    Goal("slow import on 10", "< 2 × one import", "heavy_ratio", times, below(2), but=FORKS),
    Goal("cost of an item, 10^7 / 10^6", "flat (< 1.2)", "item_growth", times, below(1.2)),
    Goal("100 nodes / 10 nodes", "< 1.5", "hundred", times, below(1.5)),
    Goal("import azpool", "< 60 ms", "import", ms, below(0.06)),
    Goal(
        *("... loads besides itself", "nothing", "import_foreign"),
        *(lambda names: ", ".join(set(names) - {US}) or "nothing", lambda names, _: names == [US]),
    ),
]


def goal_rows(results):
    """Yield (measure, goal, ours, best peer's, whose, met) for what was measured."""
    for goal in GOALS:
        ours = results.get(US, goal.name)
        if ours is None:
            continue
        best = None
        if goal.name != "import_foreign":
            best = results.best_peer(goal.versus or goal.name, low=goal.low, but=goal.but)
        met = None if goal.compares and best is None else goal.met(ours, best and best[0])
        peers = goal.form(best[0]) if best else "-"
        yield goal.title, goal.goal, goal.form(ours), peers, best[1] if best else "", met


def failures(results):
    """Yield a line for each peer that did not do something."""
    for (measure, peer), reason in results.failures.items():
        if reason:
            what = "does not start" if measure == "start" else f"fails at `{measure}`"
            yield f"{peer} {what}: {reason}"
    for peer, count in results.left_running.items():
        if count:
            yield f"{peer} left {count} processes running after it was closed; they were ended"


# --- on the terminal --------------------------------------------------------------------------


def show(console, results):
    console.print()
    console.print(_goal_table(results))
    for name in COLUMNS:
        columns = columns_of(results, name)
        fit = max(3, (console.width - 36) // 14)
        for first in range(0, len(columns), fit):
            console.print(_peer_table(results, name, columns[first : first + fit]))
    for line in failures(results):
        console.print(Text(f"· {line}", style="yellow"))
    console.print(Text(results.facts, style="dim"))


def _goal_table(results):
    table = Table(title="azpool and its goals", box=box.SIMPLE_HEAD, title_justify="left")
    for title in ("measure", "goal"):
        table.add_column(title)
    for title in ("azpool", "best peer"):
        table.add_column(title, justify="right")
    table.add_column("")
    table.add_column("")
    for title, goal, ours, peers, whose, met in goal_rows(results):
        colour, mark = MARKS[met]
        table.add_row(
            *(title, Text(goal, "dim"), Text(ours, f"bold {colour}"), peers),
            *(Text(whose, "dim"), Text(mark, colour)),
        )
    return table


def _peer_table(results, name, columns):
    table = Table(title=name, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("pool", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    best = {column: _best(results, column) for column in columns}
    for peer in results.peers:
        cells = [Text(peer, "bold" if peer == US else "")]
        for column in columns:
            style = "bold green" if best[column] == peer else ""
            text = cell(results, peer, column)
            cells.append(Text(text, "yellow" if text in {"hangs", "fails"} else style))
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


def markdown(results):
    lines = [
        "# The pool beside its peers",
        "",
        f"`benchmarks/pool.py`, 10 workers each, all in one run. {results.facts}",
        "",
        "## Goals",
        "",
        "| measure | goal | azpool | best peer | which | met |",
        "|---|---|---:|---:|---|---|",
    ]
    lines += [
        f"| {title} | {goal} | **{ours}** | {peers} | {whose} | {MARKS[met][1]} |"
        for title, goal, ours, peers, whose, met in goal_rows(results)
    ]
    for name in COLUMNS:
        columns = columns_of(results, name)
        titles = " | ".join(column.title for column in columns)
        lines += ["", f"## {name}", "", f"| pool | {titles} |", "|---|" + "---:|" * len(columns)]
        for peer in results.peers:
            cells = " | ".join(cell(results, peer, column) for column in columns)
            lines.append(f"| {peer} | {cells} |")
    lines += ["", LEGEND]
    told = [f"- {line}" for line in failures(results)]
    if told:
        lines += ["", "What did not work:", "", *told]
    return "\n".join(lines) + "\n"


__all__ = ["Results", "markdown", "show"]
