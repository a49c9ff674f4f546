"""Another size for one machine: a change of it alone, or between a stop and a start. Pure.

    stop -> PATCH of the size -> start, where it ran before

The note of each call says which of them it is, and whether the machine ran before. A journal has
it, so whoever goes on after a killed process knows what is left to be done; nothing is sent twice.
A machine that ran and may stand still now is never left so in silence: its outcome says it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from azpool.fleet.calls import Answer, Call, Procedure
from azpool.fleet.operations import operation_of
from azpool.fleet.plan import Step
from azpool.fleet.polling import Ending, follow, poll_url
from azpool.fleet.procedures import (
    LOOKS,
    Outcomes,
    call_of,
    change,
    ended_badly,
    failed,
    outcome_of,
    target_arguments,
    watched,
    with_error,
)
from azpool.fleet.views import read_view
from azpool.report import State

if TYPE_CHECKING:
    from azpool.fleet.outcome import InstanceOutcome
    from azpool.fleet.target import Target

__all__ = ["resize", "resumed_resize"]

STOP, SIZE, START = "stop", "resize", "start"  # notes, and names of operations
RAN = ", it ran"
LEFT = "it ran before and may be left stopped: look at it, and start it"


def resize(step: Step, *, wait: bool) -> Procedure[Outcomes]:
    """Give one machine another size, and where asked for stop it before and start it after."""
    target = step.targets[0]
    ran = False
    if step.arguments.get("deallocate"):
        view = yield from read_view(target)
        if isinstance(view, Answer):
            return [failed(target, SIZE, view)]
        ran = view.power == "running"
        outcome = yield from _power(step, target, STOP, ran=ran)
        if not outcome.ok:
            unsure = ran and outcome.state is State.UNKNOWN
            return [_left(outcome) if unsure else outcome]
    return [(yield from _sized(step, target, ran=ran, wait=wait))]


def _sized(step: Step, target: Target, *, ran: bool, wait: bool) -> Procedure[InstanceOutcome]:
    """Change the size, and start what ran."""
    known = operation_of(SIZE)
    size = str(step.arguments["size"])
    assert known.vm is not None
    call = Call(
        subscription=target.subscription,
        method=known.vm,
        arguments={
            **target_arguments(target),
            "parameters": {"properties": {"hardwareProfile": {"vmSize": size}}},
        },
        kind=known.kind,
        policy=(target.resource_id, known.name),
        about=(target.index,),
        note=SIZE + RAN * ran,
    )
    outcome = yield from change(call, target, known, wait=wait or ran, size=size)
    if not ran:
        return outcome
    return (yield from _started(step, target)) if outcome.ok else _left(outcome)


def _started(step: Step, target: Target) -> Procedure[InstanceOutcome]:
    outcome = yield from _power(step, target, START, ran=True)
    return outcome if outcome.ok else _left(outcome)


def _power(step: Step, target: Target, name: str, *, ran: bool) -> Procedure[InstanceOutcome]:
    known = operation_of(name)
    assert known.vm is not None
    plain = Step(place=step.place, operation=name, targets=(target,))
    call = replace(call_of(plain, known, target, known.vm), note=name + RAN * ran)
    outcome = yield from change(call, target, known, wait=True)
    return _of_resize(outcome)


def _of_resize(outcome: InstanceOutcome) -> InstanceOutcome:
    named = replace(outcome, operation=SIZE, error=None)
    return named if named.ok else with_error(named)


def _left(outcome: InstanceOutcome) -> InstanceOutcome:
    """Say of a machine that ran that it may stand still now."""
    words = f"{outcome.message}; {LEFT}" if outcome.message else LEFT
    return with_error(replace(outcome, message=words, error=None))


def resumed_resize(step: Step, accepted: Answer | None, note: str) -> Procedure[Outcomes]:
    """Go on with a resize that an ended process had begun, where it is known how far it came.

    What was put down before it was sent is never sent again; the calls that come after it never
    were.

    Args:
        step: what was to be done.
        accepted: the answer that the last call had, where one was put down.
        note: of the last call that may have been sent.
    """
    target = step.targets[0]
    stage, ran = note.removesuffix(RAN) or SIZE, note.endswith(RAN)
    ending = Ending(ok=False, lost=True, answer=accepted or Answer(status=None))
    if accepted is not None and poll_url(accepted) is not None:
        call = Call(subscription=target.subscription, method="get", about=(target.index,))
        ending = yield from follow(call, accepted)
    known = operation_of(stage)
    if ending.ok:
        outcome = outcome_of(target, SIZE, State.OK, ending.answer)
    elif ending.lost:
        size = str(step.arguments["size"]) if stage == SIZE else ""
        seen = yield from watched(target, known, ending.answer, looks=LOOKS, size=size)
        outcome = _of_resize(seen)
    else:
        outcome = ended_badly(target, SIZE, ending)
    if not outcome.ok:
        return [_left(outcome) if ran else outcome]
    if stage == STOP:
        return [(yield from _sized(step, target, ran=ran, wait=True))]
    return [(yield from _started(step, target)) if ran and stage == SIZE else outcome]
