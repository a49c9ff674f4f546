"""What a moment and an end look like on a terminal, as lines of styled pieces. Pure.

    TransferState, Pace -> frame -> Line ... -> _screen.py draws
    Summary -> summary -> Line ...

Columns keep their places while numbers grow, so that nothing jumps; what has no room is left out,
the least important first.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, TypeAlias

from azpool.cli import _words as words
from azpool.cli._plain import headline, how_to_go_on, speed_of

if TYPE_CHECKING:
    from azpool.cli._rate import Pace
    from azpool.cli._state import Summary, TransferState
    from azpool.cli._tally import Group, Tally

__all__ = ["Line", "failures", "frame", "line_text", "summary"]

Line: TypeAlias = list[tuple[str, str]]  # (text, style); a style is words of `_term.paint`

MAX_WIDTH = 120  # a bar across a very wide screen says no more, and the eye loses the line
MIN_WIDTH = 20
LABEL = 7  # width of the labels' column: " files "
NUMBERS = 20  # width of the first numbers' column: "1,015 of 2,000"
FAILURES_SHOWN = 4
REASONS_SHOWN = 12
# What goes first where the window is low; what is not named stays.
SACRIFICED = ("slow", "more", "failure", "now", "bytes", "heading")


def line_text(line: Line) -> str:
    """Answer a line without its styles."""
    return "".join(text for text, _ in line)


def fit(line: Line, width: int) -> Line:
    """Cut a line to a width."""
    fitted: Line = []
    room = width
    for text, style in line:
        taken = words.cells(text)
        if taken <= room:
            fitted.append((text, style))
            room -= taken
            continue
        if room > 0:
            fitted.append((words.start(text, room - 1) + "…", style))
        break
    return fitted


def frame(state: TransferState, pace: Pace, now: float, width: int, height: int = 24) -> list[Line]:
    """Draw one moment: heading, bar, files, bytes, what is slow, and the failures so far."""
    width = max(MIN_WIDTH, width)
    narrow = min(MAX_WIDTH, width)
    rows: list[tuple[str, Line]] = [
        ("heading", _heading(state, now, narrow)),
        ("bar", _bar(state, pace, now, narrow)),
        *_numbers(state, pace, narrow),
        *_names(state, width),
        *(("slow", line) for line in _slow(state, width)),
        *_failures(state.tally, width),
    ]
    for kind in SACRIFICED:
        while len(rows) > max(1, height - 1) and any(row[0] == kind for row in rows):
            last = max(at for at, row in enumerate(rows) if row[0] == kind)
            del rows[last]
    return [fit(line, width) for _, line in rows]


def _heading(state: TransferState, now: float, width: int) -> Line:
    job = state.job
    right = words.clock(now - state.began)
    if job.nodes and width >= 60:
        right = f"{words.plural(job.nodes, 'node')} · {right}"
    arrow = {"upload": "↑", "download": "↓"}.get(job.verb, "·")
    where = "" if not job.target else " from " if job.verb == "delete" else " to "
    left = f"{arrow} {job.doing}{where}"
    room = width - len(left) - len(right) - 2
    target = words.shorten(words.printable(job.target), max(4, room))
    gap = max(2, width - len(left) - words.cells(target) - len(right))
    return [(left, "bold"), (target, "bold cyan"), (" " * gap, ""), (right, "dim")]


def _bar(state: TransferState, pace: Pace, now: float, width: int) -> Line:
    part = state.fraction
    bar = max(5, width - 5 - 15)
    if part is None:
        # Something that moves, without a claim how far it is.
        length = max(3, bar // 6)
        start = int((now - state.began) * 12) % (bar + length) - length
        before, shown = max(0, start), min(bar, start + length) - max(0, start)
        return [("─" * before, "dim"), ("━" * shown, "cyan"), ("─" * (bar - before - shown), "dim")]
    full = int(bar * part)
    style = "red" if state.failed else "green" if part >= 1.0 else "cyan"
    # Full and 100% are promises: not before the last file.
    percent = 1.0 if part >= 1.0 else min(part, 0.99)
    known = pace.seconds_left is not None and part < 1.0
    left = f"{words.left(pace.seconds_left or 0)} left" if known else ""
    return [
        ("━" * full, style),
        ("─" * (bar - full), "dim"),
        (f" {percent:4.0%}", ""),
        (f"{left:>15}", "cyan"),
    ]


def _numbers(state: TransferState, pace: Pace, width: int) -> list[tuple[str, Line]]:
    done, total = state.done, state.total
    label = f"{state.job.thing}s"
    if total is None or state.planning:
        found = "looking for them"
        if total is not None and total.files:
            moved = f", {words.size(total.size_bytes)}" if total.size_bytes else ""
            found += f": {words.count(total.files)} so far{moved}"
        return [("files", [(f"{label:>{LABEL - 1}} ", "dim"), (found, "")])]
    whole = words.count(total.files)
    files = f"{words.count(done.files):>{len(whole)}} of {whole}"
    moved = words.size_of(done.size_bytes, total.size_bytes)
    first = max(len(files), len(moved), NUMBERS if width >= 60 else 0)
    bad = [(state.failed, "failed", "bold red"), (state.skipped, "skipped", "yellow")]
    busy = [(state.in_flight, "in flight", ""), (state.throttled, "throttled", "yellow")]
    both = bool(total.size_bytes)
    speed = f"{words.rate(pace.files_per_second)}/s"
    rows = [("files", _row(label, files, first, speed, bad if both else bad + busy, width))]
    if both:
        speed = f"{words.size(pace.bytes_per_second)}/s"
        rows.append(("bytes", _row("bytes", moved, first, speed, busy, width)))
    return rows


def _row(
    label: str,
    numbers: str,
    first: int,
    speed: str,
    counters: list[tuple[int, str, str]],
    width: int,
) -> Line:
    line = [
        (f"{label:>{LABEL - 1}} ", "dim"),
        (numbers.ljust(first), ""),
        (f"  {speed:>12}", "cyan"),
    ]
    taken = LABEL + first + 14
    for number, what, style in counters:
        counter = f"{words.count(number):>7} {what}"
        # What has no room is left out: the first counters matter most.
        if number and taken + len(counter) <= width:
            line.append((counter, style))
            taken += len(counter)
    return line


def _names(state: TransferState, width: int) -> list[tuple[str, Line]]:
    if not state.current or state.planning or width < 50:
        return []
    name = words.shorten(words.printable(state.current), width - LABEL)
    return [("now", [("   now ", "dim"), (name, "")])]


def _slow(state: TransferState, width: int) -> list[Line]:
    """Big files under way, then those that took longest: what the transfer waits for."""
    if width < 50:
        return []
    told: list[tuple[str, str]] = []
    for file in state.moving[:3]:
        part = min(0.99, file.bytes_done / file.size_bytes) if file.size_bytes else 0.0
        moved = words.size_of(file.bytes_done, file.size_bytes)
        told.append((f"{part:4.0%}  {moved:<20}{words.clock(file.seconds):>8}", file.name))
    for slow in state.slow[: 3 - len(told)]:
        size = words.size(slow.size_bytes)
        took = f"{words.seconds(slow.seconds):>10}"
        told.append((f"done  {size:<18}{took}", slow.name))
    lines: list[Line] = []
    for number, (facts, name) in enumerate(told):
        label = "  slow " if number == 0 else " " * LABEL
        shown = words.shorten(words.printable(name), max(8, width - LABEL - len(facts) - 2))
        lines.append([(label, "dim"), (facts, ""), (f"  {shown}", "dim")])
    return lines


def _failures(tally: Tally, width: int) -> list[tuple[str, Line]]:
    rows: list[tuple[str, Line]] = []
    groups = tally.groups()
    for group in groups[:FAILURES_SHOWN]:
        line: Line = [
            (f"     ✗ {words.count(group.count)} ", "bold red"),
            (words.printable(group.reason), ""),
        ]
        name = f" · {words.shorten(words.printable(group.names[0]), 40)}"
        if words.cells(line_text(line)) + words.cells(name) <= width:
            line.append((name, "dim"))
        rows.append(("failure", line))
    if len(groups) > FAILURES_SHOWN:
        more = words.plural(len(groups) - FAILURES_SHOWN, "more reason")
        rows.append(("more", [(f"{' ' * LABEL}and {more}", "dim")]))
    return rows


def summary(end: Summary, width: int) -> list[Line]:
    """Draw how it ended: one line, the failures by reason, and how to go on."""
    bad = end.failed or end.not_done
    head: Line = [("✗ " if bad else "✓ ", "bold red" if bad else "bold green")]
    said = textwrap.wrap(headline(end), max(MIN_WIDTH, width - 2))
    lines = [[*head, (said[0], "bold")], *([("  " + more, "bold")] for more in said[1:])]
    speed = speed_of(end)
    if speed and words.cells(line_text(lines[-1])) + 2 + len(speed) <= width:
        lines[-1].append((f"  {speed}", "dim"))
    elif speed:
        lines.append([(f"  {speed}", "dim")])
    if end.tally.count:
        lines += failures(end.tally, min(max(width, MIN_WIDTH), MAX_WIDTH))
    lines += [[(f"  note: {words.printable(note)}", "yellow")] for note in end.notes]
    hint = how_to_go_on(end)
    if hint:
        lines.append([(f"  {hint}", "bold")])
    return lines


def failures(tally: Tally, width: int) -> list[Line]:
    """Draw failures by reason: how many, why, the first names, and the request id for support."""
    groups = tally.groups()
    indent = 10
    lines: list[Line] = [
        [("  failed  reason", "dim")],
        [("  " + "─" * (width - 2), "dim")],
    ]
    for group in groups[:REASONS_SHOWN]:
        reason = words.printable(group.reason)
        why = textwrap.wrap(reason, max(10, width - indent), break_on_hyphens=False) or [""]
        lines.append([(f"{words.count(group.count):>8}", "bold red"), (f"  {why[0]}", "")])
        lines += [[(" " * indent + text, "")] for text in why[1:]]
        lines += [[(" " * indent + text, "dim")] for text in _first_names(group, width - indent)]
        if group.request_id:
            lines.append([(f"{' ' * indent}request id {group.request_id}", "dim")])
    if len(groups) > REASONS_SHOWN:
        more = words.plural(len(groups) - REASONS_SHOWN, "more reason")
        lines.append([(f"{' ' * indent}and {more}", "dim")])
    return [fit(line, max(width, MIN_WIDTH)) for line in lines]


def _first_names(group: Group, width: int) -> list[str]:
    """Name the first of a group in one line where they fit, else one a line."""
    names = [words.printable(name) for name in group.names]
    more = group.count - len(names)
    rest = [f"and {words.count(more)} more"] if more > 0 else []
    one = "  ".join(names + rest)
    if words.cells(one) <= width:
        return [one]
    return [words.shorten(name, max(4, width)) for name in names] + rest
