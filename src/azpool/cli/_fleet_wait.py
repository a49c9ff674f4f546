"""`azpool fleet wait`: one list of all machines every few seconds, until they are as wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from azpool.cli._fleet_remote import chosen
from azpool.errors import FleetError
from azpool.fleet.outcome import FleetReport, InstanceOutcome
from azpool.fleet.progress import FleetProgress, InstanceProgress, Phase
from azpool.report import State

__all__ = ["EVERY_SECONDS", "wait_for"]

EVERY_SECONDS = 5.0  # 12 lists a minute: within the 15 of one operation's polls


def wait_for(
    found: Any,
    wanted: dict[str, Any],
    timeout_seconds: float | None,
    notice: Callable[[FleetProgress], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FleetReport:
    """Look until every instance is as wanted, is gone, or the time is over; blocks.

    Args:
        found: the fleet, as it was just read.
        wanted: what `conditions` read.
        timeout_seconds: None waits as long as it takes.
        notice: called after each look.
        clock: tells the time.
        sleep: waits.
    """
    began = clock()
    ended: dict[int, InstanceOutcome] = {}
    some = found[:]
    looks = 0
    while True:
        looks += 1
        there = {one.key for one in chosen(some, wanted)}
        now = clock()
        over = timeout_seconds is not None and now - began >= timeout_seconds
        new = []
        for index, one in enumerate(some):
            if index in ended:
                continue
            state = State.OK if one.key in there else State.UNKNOWN if one.unread else None
            if state is None and over:
                state = State.FAILED
            if state is not None:
                ended[index] = _outcome(index, one, state, now - began, timeout_seconds)
                new.append(ended[index])
        waiting = [
            InstanceProgress(index=index, phase=Phase.UNDER_WAY, note=f"is {one.power}")
            for index, one in enumerate(some)
            if index not in ended
        ]
        notice(
            FleetProgress(
                operation="wait",
                total=len(some),
                changed=tuple(waiting),
                ended=tuple(new),
                calls=looks,
            )
        )
        if len(ended) == len(some):
            break
        left = EVERY_SECONDS
        if timeout_seconds is not None:
            left = min(left, max(0.0, began + timeout_seconds - clock()))
        sleep(left)
        some = some.sync()
    return FleetReport(
        [ended[index] for index in sorted(ended)], title="wait", seconds=clock() - began
    )


def _outcome(
    index: int, one: Any, state: State, seconds: float, timeout_seconds: float | None
) -> InstanceOutcome:
    message = "" if state is State.OK else one.unread
    if state is State.FAILED:
        message = f"still {one.power} after {timeout_seconds:g} s; give more --timeout"
    error = FleetError(f"cannot wait for {one.name!r}: {message}") if message else None
    return InstanceOutcome(
        index=index,
        name=one.name,
        state=state,
        error=error,
        seconds=seconds,
        resource_id=one.resource_id,
        instance_id=one.instance_id,
        operation="wait",
        message=message,
        value={"power": str(one.power)},
    )
