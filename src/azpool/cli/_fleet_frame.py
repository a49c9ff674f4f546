"""What a moment of an operation on a fleet looks like on a terminal. Pure.

    FleetState, now, width, height -> fleet_frame -> Line ... -> _screen.py draws

One row an instance where they fit. Else counts by state, a field with one sign an instance, the
failures by reason and what takes longest: 500 machines are seen at once, and each keeps its place.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from azpool.cli import _words as words
from azpool.cli._fleet_state import said_of
from azpool.cli._frame import MAX_WIDTH, MIN_WIDTH, Line, failures, fit, line_text
from azpool.fleet.progress import Phase
from azpool.report import State

if TYPE_CHECKING:
    from azpool.cli._fleet_state import FleetEnd, FleetState, Row

__all__ = ["fleet_frame", "fleet_summary"]

FAILURES_SHOWN = 4
SLOW_SHOWN = 3
LEAST_WORDS = 16
_FACTS = re.compile(r" \([0-9]{3}\b[^()]*\)$")
# sign, style and word of where an instance is
_PHASES = {
    Phase.QUEUED: ("·", "dim", "queued"),
    Phase.BUDGET: ("▒", "yellow", "waiting for budget"),
    Phase.SENDING: ("▪", "cyan", "sending"),
    Phase.UNDER_WAY: ("▪", "cyan", "under way"),
}
_STATES = {
    State.OK: ("■", "green"),
    State.SKIPPED: ("□", "dim"),
    State.CANCELLED: ("□", "yellow"),
    State.UNKNOWN: ("?", "yellow"),
}
_BAD = ("✗", "bold red")
STOPPING = {
    "interrupted": "stopping: nothing more is sent; Ctrl-C again ends at once",
    "max_failures": "stopping: too many have failed; what is under way is seen to its end",
    "timeout": "stopping: the time is over",
}


def fleet_frame(state: FleetState, now: float, width: int, height: int = 24) -> list[Line]:
    """Draw one moment; never more than `height - 1` lines."""
    width = max(MIN_WIDTH, width)
    narrow = min(MAX_WIDTH, width)
    room = max(1, height - 1)
    counts = _counts(state, narrow)
    head = [_heading(state, now, narrow), _bar(state, now, narrow), counts]
    head += _waiting(state, now, told="throttled" in line_text(counts))
    rows = state.rows
    if len(head) + 1 + len(rows) <= room:
        body = _table(state, now, width)
    else:
        body = _folded(state, now, narrow, room - len(head))
    return [fit(line, width) for line in (head + body)[:room]]


def _heading(state: FleetState, now: float, width: int) -> Line:
    work = state.work
    right = words.clock(now - state.began)
    if work.nodes and width >= 70:
        right = f"{words.plural(work.nodes, 'node')} · {right}"
    left = f"{work.doing} {words.plural(state.total, 'instance')} of "
    detail = f" · {words.printable(work.detail)}" if work.detail else ""
    room = width - len(left) - len(right) - words.cells(detail) - 2
    target = words.shorten(words.printable(work.target), max(4, room))
    gap = max(2, width - len(left) - words.cells(target + detail) - len(right))
    return [(left, "bold"), (target, "bold cyan"), (detail, ""), (" " * gap, ""), (right, "dim")]


def _bar(state: FleetState, now: float, width: int) -> Line:
    bar = max(5, width - 5 - 15)
    full = int(bar * state.fraction)
    bad = any(state.states.get(one) for one in (State.FAILED, State.THROTTLED, State.UNKNOWN))
    done = state.ended == state.total
    percent = 1.0 if done else min(state.fraction, 0.99)  # 100% is a promise
    left = None if done else state.seconds_left(now)
    said = "" if left is None else f"{words.left(left)} left"
    return [
        ("━" * full, "red" if bad else "green" if done else "cyan"),
        ("─" * (bar - full), "dim"),
        (f" {percent:4.0%}", ""),
        (f"{said:>15}", "cyan"),
    ]


def _tallies(state: FleetState) -> list[tuple[int, str, str, str]]:
    """Answer how many are where: count, sign, style, word; what ended comes first."""
    told = []
    for ended, count in sorted(state.states.items(), key=lambda item: list(State).index(item[0])):
        sign, style = _STATES.get(ended, _BAD)
        word = state.work.done if ended is State.OK else said_of(ended)
        told.append((count, sign, style, word))
    for phase, (sign, style, word) in reversed(_PHASES.items()):
        told.append((state.phases.get(phase, 0), sign, style, word))
    return [one for one in told if one[0] > 0]


def _counts(state: FleetState, width: int) -> Line:
    line: Line = []
    taken = 0
    for count, sign, style, word in _tallies(state):
        text = f" {sign} {words.count(count)} {word} "
        if taken + len(text) > width:
            break
        line.append((text, style))
        taken += len(text)
    progress = state.progress
    if progress is not None and progress.calls:
        cost = words.plural(progress.calls, "call")
        if progress.throttled:
            cost += f", {words.count(progress.throttled)} throttled"
        if taken + len(cost) + 2 <= width:
            line.append((" " * (width - taken - len(cost)), ""))
            line.append((cost, "yellow" if progress.throttled else "dim"))
    return line


def _waiting(state: FleetState, now: float, *, told: bool) -> list[Line]:
    lines: list[Line] = []
    moment = state.moment
    if moment is None:
        return lines
    progress, seconds = moment.progress, moment.budget_seconds(now)
    if progress.stopping:
        said = STOPPING.get(progress.stopping, progress.stopping)
        lines.append([(f" {said}", "bold yellow")])
    if seconds > 0:
        what = f" ({words.printable(progress.budget)})" if progress.budget else ""
        many = progress.throttled
        throttled = f" · {words.count(many)} throttled" if many and not told else ""
        text = f" waiting for budget{what}: goes on in {words.clock(seconds)}{throttled}"
        lines.append([(text, "yellow")])
    return lines


# -- one row an instance ------------------------------------------------------------------------


def _table(state: FleetState, now: float, width: int) -> list[Line]:
    rows = state.rows
    names = max([len("instance"), *(words.cells(words.printable(row.name)) for row in rows)])
    names = min(names, max(8, width // 3))
    zones = any(row.zone for row in rows)
    zone = f"  {'zone':<4}" if zones else ""
    lines: list[Line] = [[(f"   {'instance':<{names}}{zone}    {'time':>6}  state", "dim")]]
    for row in rows:
        name = words.shorten(words.printable(row.name), names)
        sign, style, said = _told(state, row)
        said = _cut(said, width - names - (19 if zones else 13) - 2)
        place = f"  {row.zone:<4}" if zones else ""
        took = words.clock(seconds) if (seconds := _seconds_of(row, now)) is not None else ""
        line: Line = [
            (f" {sign} ", style),
            (
                name + " " * (names - words.cells(name)),
                "" if row.phase is not Phase.QUEUED else "dim",
            ),
            (f"{place}    {took:>6}  ", "dim"),
            (said, style),
        ]
        if row.attempts > 1:
            line.append((f"  attempt {row.attempts}", "dim"))
        lines.append(line)
    return lines


def _told(state: FleetState, row: Row) -> tuple[str, str, str]:
    """Answer sign, style and words of where an instance is."""
    if row.state is None:
        sign, style, word = _PHASES.get(row.phase, ("·", "dim", "ends"))
        return sign, style, words.printable(row.note) if row.note else word
    sign, style = _STATES.get(row.state, _BAD)
    word = state.work.done if row.state is State.OK else said_of(row.state)
    return sign, style, f"{word}: {words.printable(row.reason)}" if row.reason else word


def _seconds_of(row: Row, now: float) -> float | None:
    if row.state is not None:
        return row.seconds
    return None if row.began is None else now - row.began


# -- folded -------------------------------------------------------------------------------------


def _folded(state: FleetState, now: float, width: int, room: int) -> list[Line]:
    """Draw the field, then failures and what takes longest, as far as there is room."""
    bad = _failures(state, width)
    slow = _slow(state, now, width)
    field = _field(state.rows, width)
    # Failures are never without a line; the field comes in whole, or not at all.
    least = min(len(bad), FAILURES_SHOWN)
    if len(field) + least > room:
        field = []
    lines = field + bad
    return (lines + slow)[:room] if lines or slow else []


def _field(rows: list[Row], width: int) -> list[Line]:
    """Draw one sign an instance, in their order, in tens."""
    across = max(10, (width - 2) // 11 * 10)
    lines: list[Line] = []
    for at in range(0, len(rows), across):
        line: Line = [(" ", "")]
        for number, row in enumerate(rows[at : at + across]):
            if row.state is None:
                sign, style, _ = _PHASES.get(row.phase, ("·", "dim", ""))
            else:
                sign, style = _STATES.get(row.state, _BAD)
            gap = " " if number and number % 10 == 0 else ""
            if line[-1][1] == style:
                line[-1] = (line[-1][0] + gap + sign, style)
            else:
                line.append((gap + sign, style))
        lines.append(line)
    return lines


def _cut(reason: str, room: int) -> str:
    """Cut a reason before the status and code at its end: by these it is known."""
    if words.cells(reason) <= room:
        return reason
    facts = _FACTS.search(reason)
    if facts is None or room - words.cells(facts[0]) < LEAST_WORDS:
        return words.start(reason, room - 1) + "…"
    return words.start(reason, room - 1 - words.cells(facts[0])).rstrip() + "…" + facts[0]


def _failures(state: FleetState, width: int) -> list[Line]:
    lines: list[Line] = []
    groups = state.tally.groups()
    for group in groups[:FAILURES_SHOWN]:
        names = ", ".join(words.printable(name) for name in group.names)
        more = group.count - len(group.names)
        names += f" and {words.count(more)} more" if more else ""
        count = f" ✗ {words.count(group.count)} "
        room = width - len(count)
        reason = _cut(words.printable(group.reason), room)
        line: Line = [(count, "bold red"), (reason, "")]
        left = room - words.cells(reason) - 3
        if left >= 8:
            names = names if words.cells(names) <= left else words.start(names, left - 1) + "…"
            line.append((f" · {names}", "dim"))
        lines.append(line)
    if len(groups) > FAILURES_SHOWN:
        more_reasons = words.plural(len(groups) - FAILURES_SHOWN, "more reason")
        lines.append([(f"   and {more_reasons}", "dim")])
    return lines


def _slow(state: FleetState, now: float, width: int) -> list[Line]:
    # What waits for budget is told above, all of it.
    going = [row for row in state.rows if row.phase in {Phase.SENDING, Phase.UNDER_WAY}]
    going.sort(key=lambda row: row.since)
    lines: list[Line] = []
    for row in going[:SLOW_SHOWN]:
        sign, style, said = _told(state, row)
        took = words.clock(now - row.since)
        name = words.shorten(words.printable(row.name), max(8, width // 2))
        lines.append([(f" {sign} ", style), (name, ""), (f"  {said} for {took}", "dim")])
    return lines


# -- the end ------------------------------------------------------------------------------------


def fleet_summary(end: FleetEnd, width: int) -> list[Line]:
    """Draw how it ended: one line, the failures by reason, what is not known, and how to go on."""
    width = max(MIN_WIDTH, width)
    sign = ("✗ ", "bold red") if end.bad else ("✓ ", "bold green")
    said = textwrap.wrap(end.headline, width - 2) or [""]
    lines: list[Line] = [[sign, (said[0], "bold")], *([("  " + more, "bold")] for more in said[1:])]
    if end.cost:
        lines.append([(f"  {end.cost}", "dim")])
    if end.tally.count:
        lines += failures(end.tally, min(width, MAX_WIDTH))
    for group in end.unclear.groups():
        names = ", ".join(map(words.printable, group.names))
        more = group.count - len(group.names)
        names += f" and {words.count(more)} more" if more else ""
        reason = words.printable(group.reason)
        lines.append([(f"  ? {words.count(group.count)} ", "yellow"), (f"{reason} [{names}]", "")])
    lines += [[(f"  note: {words.printable(note)}", "yellow")] for note in end.notes]
    if end.journal:
        lines.append([(f"  azpool fleet resume {end.journal} goes on from there", "bold")])
    return [fit(line, width) for line in lines]
