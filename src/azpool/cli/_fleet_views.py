"""How an operation on a fleet is shown: live, as lines, as JSON, or not at all.

Each is a `_watch.View` in all but its types: `start` and `tick` by the watch's thread, `outcome` by
the caller's, `stop` and `finish` at the end.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Protocol

from azpool.cli import _words as words
from azpool.cli._fleet_frame import STOPPING, fleet_frame, fleet_summary
from azpool.cli._fleet_state import reason_of, said_of
from azpool.cli._frame import line_text
from azpool.cli._screen import Screen, styled
from azpool.fleet.progress import Phase
from azpool.report import State

if TYPE_CHECKING:
    from azpool.cli._fleet_state import FleetEnd, FleetState
    from azpool.cli._options import ProgressMode
    from azpool.cli._term import Terminal
    from azpool.report import Outcome

__all__ = ["FleetView", "choose_fleet_view"]

LINE_EVERY_SECONDS = 5.0
PROGRESS_EVERY_SECONDS = 1.0


class FleetView(Protocol):
    """Shows a `FleetState`; see `_watch.View`."""

    interval_seconds: float
    for_people: bool

    def start(self) -> None: ...

    def tick(self, now: float) -> None: ...

    def outcome(self, outcome: Outcome) -> None: ...

    def stop(self) -> None: ...

    def finish(self, end: FleetEnd) -> None: ...


def choose_fleet_view(
    terminal: Terminal,
    state: FleetState,
    *,
    json_lines: bool,
    quiet: bool,
    progress: ProgressMode,
    verbose: bool = False,
) -> FleetView:
    """Answer the view that the options and the terminal ask for."""
    if json_lines:
        return JsonFleetView(terminal, state)
    if quiet:
        return QuietFleetView(terminal)
    if progress.live(terminal):
        return LiveFleetView(terminal, state)
    return PlainFleetView(terminal, state, verbose=verbose)


class LiveFleetView:
    """Redraws itself eight times a second."""

    interval_seconds = 0.125
    for_people = True

    def __init__(self, terminal: Terminal, state: FleetState) -> None:
        self._terminal = terminal
        self._state = state
        self._screen = Screen(terminal)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Draw nothing yet: what is over in a tenth of a second is one line."""

    def tick(self, now: float) -> None:
        columns, rows = self._terminal.size
        lines = fleet_frame(self._state, now, columns, rows)
        with self._lock:
            self._screen.draw(lines, columns)

    def outcome(self, outcome: Outcome) -> None:
        """Show it with the next frame, which reads the state."""

    def stop(self) -> None:
        with self._lock:
            self._screen.clear()

    def finish(self, end: FleetEnd) -> None:
        for line in fleet_summary(end, self._terminal.size[0]):
            self._terminal.say(styled(line, self._terminal))


class PlainFleetView:
    """A line every few seconds, failures as they come."""

    interval_seconds = 0.25
    for_people = True

    def __init__(self, terminal: Terminal, state: FleetState, *, verbose: bool = False) -> None:
        self._terminal = terminal
        self._state = state
        self._verbose = verbose
        self._next = state.began + LINE_EVERY_SECONDS
        self._told: dict[str, int] = {}
        self._stopping = ""
        self._long = False  # what is soon over is told by the summary alone

    def start(self) -> None:
        """Say nothing: what is soon over is one line in a log."""

    def tick(self, now: float) -> None:
        state = self._state
        if state.stopping != self._stopping:
            self._stopping = state.stopping
            self._terminal.say(STOPPING.get(state.stopping, state.stopping))
        if now < self._next:
            return
        self._next = now + LINE_EVERY_SECONDS
        self._long = True
        self._terminal.say(progress_line(state, now))

    def outcome(self, outcome: Outcome) -> None:
        name = words.printable(outcome.name)
        if outcome.state in {State.OK, State.SKIPPED, State.CANCELLED}:
            if self._verbose:
                word = self._state.work.done if outcome.ok else said_of(outcome.state)
                self._terminal.say(f"{word}: {name}")
            return
        reason = reason_of(outcome)
        self._told[reason] = self._told.get(reason, 0) + 1
        if self._verbose or (self._long and self._told[reason] <= 3):
            self._terminal.say(f"{outcome.state.value}: {name}: {words.printable(reason)}")

    def stop(self) -> None:
        """Leave nothing to clean up."""

    def finish(self, end: FleetEnd) -> None:
        for line in fleet_summary(end, 10_000):
            self._terminal.say(self._terminal.drawable(line_text(line)))


def progress_line(state: FleetState, now: float) -> str:
    """Say one moment in a line."""
    text = f"{words.count(state.ended)} of {words.plural(state.total, 'instance')} ended"
    for phase, word in ((Phase.UNDER_WAY, "under way"), (Phase.BUDGET, "waiting for budget")):
        if state.phases.get(phase, 0) > 0:
            text += f", {words.count(state.phases[phase])} {word}"
    if state.tally.count:
        text += f", {words.count(state.tally.count)} failed"
    progress = state.progress
    if progress is not None and progress.throttled:
        text += f", {words.count(progress.throttled)} throttled"
    left = state.seconds_left(now)
    return text if left is None else f"{text}, {words.left(left)} left"


class QuietFleetView:
    """Shows nothing but what did not end well, at the end."""

    interval_seconds = 3600.0
    for_people = True

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def start(self) -> None: ...

    def tick(self, now: float) -> None: ...

    def outcome(self, outcome: Outcome) -> None: ...

    def stop(self) -> None: ...

    def finish(self, end: FleetEnd) -> None:
        if end.bad:
            for line in fleet_summary(end, self._terminal.size[0]):
                self._terminal.say(styled(line, self._terminal))


class JsonFleetView:
    """`start`, `progress` once a second, `instance` for each as it ends, `end`."""

    interval_seconds = 0.25
    for_people = False

    def __init__(self, terminal: Terminal, state: FleetState) -> None:
        self._terminal = terminal
        self._state = state
        self._next = state.began + PROGRESS_EVERY_SECONDS

    def _write(self, event: str, **facts: Any) -> None:
        from azpool.cli._events import write_event

        write_event(self._terminal, event, **facts)

    def start(self) -> None:
        work = self._state.work
        self._write(
            "start", operation=work.operation, target=work.target, instances=self._state.total,
            time=0.0,
        )  # fmt: skip

    def tick(self, now: float) -> None:
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY_SECONDS
        state, moment = self._state, self._state.moment
        progress = None if moment is None else moment.progress
        left = state.seconds_left(now)
        self._write(
            "progress",
            instances=state.total,
            phases={phase.name.lower(): n for phase, n in state.phases.items() if n > 0},
            states={one.value: n for one, n in state.states.items()},
            calls=progress.calls if progress else 0,
            polls=progress.polls if progress else 0,
            in_flight=progress.in_flight if progress else 0,
            throttled=progress.throttled if progress else 0,
            budget=progress.budget if progress else "",
            budget_seconds=round(moment.budget_seconds(now), 1) if moment else 0.0,
            stopping=progress.stopping if progress else "",
            seconds_left=None if left is None else round(left, 1),
            time=round(now - state.began, 3),
        )

    def outcome(self, outcome: Outcome) -> None:
        row = outcome.to_dict()
        if row.get("value") is not None:  # a function may answer with anything
            row["value"] = json.loads(json.dumps(row["value"], default=repr))
        self._write("instance", **row)

    def stop(self) -> None:
        """Leave nothing to clean up."""

    def finish(self, end: FleetEnd) -> None:
        self._write(
            "end",
            counts={state.value: count for state, count in end.counts.items()},
            under_way=list(end.under_way),
            reasons=[
                {"count": group.count, "reason": group.reason, "names": group.names}
                for group in end.tally.groups() + end.unclear.groups()
            ],
            calls=end.calls,
            polls=end.polls,
            throttled=end.throttled,
            notes=list(end.notes),
            journal=end.journal or None,
            seconds=round(end.seconds, 3),
            time=round(end.seconds, 3),
        )
