"""Progress for programs: one JSON object a line on standard output, flushed as it happens.

docs/guide/cli.md documents each event.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azpool.cli._state import Summary, TransferState
    from azpool.cli._tally import Group
    from azpool.cli._term import Terminal
    from azpool.report import Outcome

__all__ = ["JsonView", "write_event"]

PROGRESS_EVERY_SECONDS = 1.0

_one_at_a_time = threading.Lock()  # files end in one thread, progress ticks in another


def write_event(terminal: Terminal, event: str, **facts: Any) -> None:
    """Write one event.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    with _one_at_a_time:
        terminal.result(json.dumps({"event": event, **facts}))
        terminal.flush()


class JsonView:
    """`start`, `progress` once a second, `file` for each file as it ends, `end`."""

    interval_seconds = 0.25
    for_people = False
    shows_each = True

    def __init__(self, terminal: Terminal, state: TransferState) -> None:
        self._terminal = terminal
        self._state = state
        self._next = state.began + PROGRESS_EVERY_SECONDS

    def start(self) -> None:
        job = self._state.job
        write_event(
            self._terminal, "start", verb=job.verb, target=job.target, nodes=job.nodes, time=0.0
        )

    def tick(self, now: float) -> None:
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY_SECONDS
        state = self._state
        pace = state.pace(now)
        total = state.total
        write_event(
            self._terminal,
            "progress",
            files_done=state.done.files,
            files_failed=state.failed,
            files_skipped=state.skipped,
            files_total=None if total is None else total.files,
            bytes_done=state.done.size_bytes,
            bytes_total=None if total is None else total.size_bytes,
            planning=state.planning or total is None,
            throttled=state.throttled,
            in_flight=state.in_flight,
            files_per_second=round(pace.files_per_second, 1),
            bytes_per_second=round(pace.bytes_per_second),
            seconds_left=None if pace.seconds_left is None else round(pace.seconds_left, 1),
            job=state.journal or None,
            time=round(now - state.began, 3),
        )

    def outcome(self, outcome: Outcome, group: Group | None) -> None:  # noqa: ARG002 - View
        thing = "file" if self._state.job.thing == "file" else "blob"
        write_event(self._terminal, thing, **outcome.to_dict())

    def stop(self) -> None:
        """Leave nothing to clean up."""

    def finish(self, summary: Summary) -> None:
        write_event(
            self._terminal,
            "end",
            ok=summary.ok,
            failed=summary.failed,
            skipped=summary.skipped,
            not_done=summary.not_done,
            bytes_moved=summary.bytes_moved,
            seconds=round(summary.seconds, 3),
            reasons=[
                {"count": group.count, "reason": group.reason, "names": group.names}
                for group in summary.tally.groups()
            ],
            notes=list(summary.notes),
            before=summary.before.files,
            job=summary.journal or None,
            time=round(summary.seconds, 3),
        )
