"""What is done to instances: generators that yield calls and return outcomes. Pure.

    Step -> procedure_of(step, wait=...) -> Call, Answer, Call, ... -> one outcome for each target

They read like the documentation of the service. What is sent, when, and how often is the loop's
(`_running`); here an answer that was lost (status None) is judged by the machine's own state, and
where that can't tell, the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azpool.fleet.calls import Answer, Call, Pause, Procedure
from azpool.fleet.operations import Operation, operation_of
from azpool.fleet.outcome import InstanceOutcome, outcome_error
from azpool.fleet.polling import Ending, Trouble, follow, is_lost, poll_url
from azpool.fleet.views import read_view
from azpool.report import State

if TYPE_CHECKING:
    from azpool.errors import FleetError
    from azpool.fleet.plan import Step
    from azpool.fleet.target import Target

__all__ = [
    "LOOKS",
    "Outcomes",
    "call_of",
    "change",
    "ended_badly",
    "failed",
    "outcome_of",
    "procedure_of",
    "resumed",
    "target_arguments",
    "watched",
    "with_error",
]

Outcomes = list[InstanceOutcome]

GONE = "there is no such machine any more"
LOOKS = 30  # at a machine that something is under way on, before it is left as unknown
LOST = "no answer came, and the machine's state does not tell whether it was done"


def procedure_of(step: Step, *, wait: bool) -> Procedure[Outcomes]:
    """Make the procedure that does a step."""
    from azpool.fleet import batched, resizing, scripts

    made: dict[str, Callable[..., Procedure[Outcomes]]] = {
        "resize": resizing.resize,
        "run_script": scripts.run_script,
        "run_deployed_command": scripts.run_deployed_command,
        "add_extension": scripts.add_extension,
    }
    known = operation_of(step.operation)
    if known.name in made:
        return made[known.name](step, wait=wait)
    if len(step.targets) == 1 and (known.one if step.targets[0].uniform else known.vm):
        return _one(step, known, wait=wait)
    return batched.many(step, known, wait=wait)


# --- outcomes ----------------------------------------------------------------------------------


def outcome_of(
    target: Target,
    operation: str,
    state: State,
    answer: Answer | None = None,
    *,
    message: str = "",
    code: str | None = None,
    **more: Any,
) -> InstanceOutcome:
    """Make an outcome of what an answer said; `message` and `code` are its own unless given."""
    words = message or ("" if answer is None or state is State.OK else answer.message)
    made = InstanceOutcome(
        index=target.index,
        name=target.name,
        state=state,
        resource_id=target.resource_id,
        instance_id=target.instance_id,
        operation=operation,
        status=None if answer is None else answer.status,
        code=code or (None if answer is None or state is State.OK else answer.code),
        message=words,
        request_id=None if answer is None else answer.request_id,
        correlation_id=None if answer is None else answer.correlation_id,
        **more,
    )
    return made if state is State.OK else with_error(made)


def with_error(outcome: InstanceOutcome) -> InstanceOutcome:
    """Give an outcome the error that it stands for."""
    from dataclasses import replace

    error: FleetError = outcome_error(outcome, outcome.message or outcome.state.value)
    return replace(outcome, error=error)


def failed(target: Target, operation: str, answer: Answer) -> InstanceOutcome:
    """Judge an answer that is no success, and that was not lost."""
    if answer.status == 404:
        return outcome_of(target, operation, State.UNKNOWN, answer, message=answer.message or GONE)
    state = State.THROTTLED if answer.status == 429 else State.FAILED
    return outcome_of(target, operation, state, answer)


def ended_badly(
    target: Target, operation: str, ending: Ending, trouble: Trouble | None = None
) -> InstanceOutcome:
    """Tell of an operation that failed."""
    told = trouble or ending.trouble
    return outcome_of(
        target, operation, State.FAILED, ending.answer, message=told.message, code=told.code
    )


# --- one machine -------------------------------------------------------------------------------


def target_arguments(target: Target) -> dict[str, Any]:
    """Name one machine as the official client does."""
    if target.uniform:
        return {
            "resource_group_name": target.group,
            "vm_scale_set_name": target.scale_set,
            "instance_id": target.instance_id,
        }
    return {"resource_group_name": target.group, "vm_name": target.name}


def call_of(step: Step, known: Operation, target: Target, method: str) -> Call:
    """Make the call that does an operation to one machine."""
    arguments = {**target_arguments(target), **step.arguments, **step.secrets}
    return Call(
        subscription=target.subscription,
        method=method,
        arguments=arguments,
        kind=known.kind,
        policy=(target.resource_id, known.name),
        about=(target.index,),
        note=known.verb,
    )


def _one(step: Step, known: Operation, *, wait: bool) -> Procedure[Outcomes]:
    target = step.targets[0]
    method = known.one if target.uniform else known.vm
    assert method is not None
    call = call_of(step, known, target, method)
    outcome = yield from change(call, target, known, wait=wait)
    return [outcome]


def change(
    call: Call, target: Target, known: Operation, *, wait: bool, size: str = ""
) -> Procedure[InstanceOutcome]:
    """Send what changes one machine, and see how it ends.

    Where the answer or the end is lost the machine is looked at: until nothing is under way on it
    if the end is waited for, else once. `size` is the one that it is to have.
    """
    answer = yield call
    assert answer is not None
    looks = LOOKS if wait and known.procedure in {"power", "resize"} else 1
    if is_lost(answer):
        return (yield from watched(target, known, answer, looks=looks, size=size))
    if not answer.ok:
        if answer.status == 404 and known.wanted == "gone":
            return outcome_of(target, known.name, State.OK, answer, message="it was gone already")
        return failed(target, known.name, answer)
    if not wait:
        return outcome_of(target, known.name, State.OK, answer, value=answer.body)
    ending = yield from follow(call, answer)
    if ending.lost:
        return (yield from watched(target, known, ending.answer, looks=looks, size=size))
    if not ending.ok:
        return ended_badly(target, known.name, ending)
    return outcome_of(target, known.name, State.OK, ending.answer)


def watched(
    target: Target, known: Operation, lost: Answer, *, looks: int, size: str = ""
) -> Procedure[InstanceOutcome]:
    """Look at a machine until nothing is under way on it, and judge by that.

    What became of a call whose answer, or end, was `lost` is told by the machine's power, or by its
    size where it was to have another.
    """
    view = yield from read_view(target)
    for _ in range(looks - 1):
        if isinstance(view, Answer) or view.settled:
            break
        yield Pause(seconds=0.0)
        view = yield from read_view(target)
    if isinstance(view, Answer):
        gone = view.status == 404 and known.wanted == "gone"
        if gone:
            return outcome_of(target, known.name, State.OK, view, message="it is gone")
        words = GONE if view.status == 404 else LOST
        return outcome_of(target, known.name, State.UNKNOWN, lost, message=words)
    if view.settled and size and view.size.lower() == size.lower():
        return outcome_of(target, known.name, State.OK, lost, message="by its size")
    if known.telling and view.settled and view.power == known.wanted:
        return outcome_of(target, known.name, State.OK, lost, message="by the machine's state")
    return outcome_of(target, known.name, State.UNKNOWN, lost, message=LOST)


# --- after a process that ended ----------------------------------------------------------------


def resumed(step: Step, accepted: Answer | None, note: str = "") -> Procedure[Outcomes]:
    """Find out what became of a step that an ended process may have sent; sends it never again.

    Args:
        step: what was to be done.
        accepted: the answer that the call had, where one was put down.
        note: of that call.
    """
    from azpool.fleet import resizing, scripts

    known = operation_of(step.operation)
    if known.name in {"run_script", "run_deployed_command"}:
        return (yield from scripts.resumed_script(step, accepted))
    if known.name == "resize":
        return (yield from resizing.resumed_resize(step, accepted, note))
    ending = Ending(ok=False, lost=True, answer=accepted or Answer(status=None))
    if accepted is not None:
        call = Call(
            subscription=step.targets[0].subscription,
            method="get",
            about=tuple(target.index for target in step.targets),
        )
        if poll_url(accepted) is not None:
            ending = yield from follow(call, accepted)
    if known.procedure != "power" or len(step.targets) > 1:
        return (yield from _judged_together(step, known, ending))
    target = step.targets[0]
    if ending.ok:
        return [outcome_of(target, known.name, State.OK, ending.answer)]
    if not ending.lost:
        return [ended_badly(target, known.name, ending)]
    return [(yield from watched(target, known, ending.answer, looks=LOOKS))]


def _judged_together(step: Step, known: Operation, ending: Ending) -> Procedure[Outcomes]:
    """Judge many by one list; of extensions no state tells anything."""
    from azpool.fleet import batched

    if known.procedure != "power":
        words = "it was sent by a process that ended; look at the machine"
        return [
            outcome_of(target, known.name, State.UNKNOWN, ending.answer, message=words)
            for target in step.targets
        ]
    found = yield from batched.truths(known, [(step.targets, ending)], looks=LOOKS)
    return [found[target.index] for target in step.targets]
