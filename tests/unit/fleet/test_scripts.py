"""Scripts by run commands: looked at until they end, removed only then, and told as they went."""

from __future__ import annotations

from typing import Any

import pytest

from azpool.fleet.calls import Answer, Call, Kind, Pause, Stopped
from azpool.fleet.ids import vm_id
from azpool.fleet.plan import Step, make_plan
from azpool.fleet.procedures import procedure_of, resumed
from azpool.fleet.target import Target
from azpool.report import State

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
POLL = {"azure-asyncoperation": "https://arm/op/1", "retry-after": "10"}
BEGUN = Answer(status=201, headers=POLL, body={})
DONE = Answer(status=200, body={"status": "Succeeded"})
BROKE = Answer(status=200, body={"status": "Failed", "error": {"code": "NoAgent"}})
TROUBLED = Answer(status=503, code="ServiceUnavailable", message="later")
REFUSED = Answer(status=403, code="AuthorizationFailed", message="no")
LOST = Answer(status=None, code="ServiceResponseError", message="cut", sent=True)
REMOVED = Answer(status=202)
GONE = Answer(status=404, code="ResourceNotFound", message="none")


def script_step(**arguments: Any) -> Step:
    one = Target(
        index=0,
        resource_id=str(vm_id(SUB, "rg", "vm0")),
        name="vm0",
        instance_id="vm0",
        subscription=SUB,
        group="rg",
        location="westus",
    )
    return make_plan("run_script", [one], arguments={"script": "work", **arguments}).steps[0]


def seen(state: str, code: int = 0, output: str = "") -> Answer:
    view = {"executionState": state, "exitCode": code, "output": output}
    return Answer(status=200, body={"properties": {"instanceView": view}})


def drive(
    procedure: Any, answers: list[Any], removed: Answer = REMOVED
) -> tuple[list[Call | Pause], Any]:
    """Feed a procedure with answers in order; a DELETE is taken, and a `Stopped` thrown."""
    asked: list[Call | Pause] = []
    left = list(answers)
    try:
        one = next(procedure)
        while True:
            asked.append(one)
            if isinstance(one, Pause):
                one = procedure.send(None)
            elif one.kind is Kind.DELETE:
                one = procedure.send(removed)
            elif isinstance(left[0], Stopped):
                one = procedure.throw(left.pop(0))
            else:
                one = procedure.send(left.pop(0))
    except StopIteration as end:
        assert not left
        (outcome,) = end.value
        return asked, outcome


def run(
    *answers: Any, removed: Answer = REMOVED, **arguments: Any
) -> tuple[list[Call | Pause], Any]:
    procedure = procedure_of(script_step(**arguments), wait=True)
    return drive(procedure, list(answers), removed)


def removals(asked: list[Call | Pause]) -> list[int]:
    return [at for at, one in enumerate(asked) if isinstance(one, Call) and one.kind is Kind.DELETE]


@pytest.mark.parametrize("poll", [TROUBLED, LOST, GONE], ids=["503", "lost", "forgotten"])
def test_a_poll_that_fails_does_not_end_the_script(poll: Answer):
    ended = seen("Failed", 3, "all")
    asked, outcome = run(BEGUN, poll, seen("Pending"), seen("Running"), seen("Running"), ended)
    assert (outcome.state, outcome.exit_code, outcome.stdout) == (State.FAILED, 3, "all")
    # Removed once, after everything else; and it waits between two looks.
    assert removals(asked) == [len(asked) - 1]
    assert all(isinstance(asked[at], Pause) for at in (4, 6, 8))


@pytest.mark.parametrize("removed", [REFUSED, LOST, TROUBLED], ids=["403", "lost", "503"])
def test_a_command_that_is_not_removed_is_named_and_the_script_counts(removed: Answer):
    _, well = run(BEGUN, DONE, seen("Succeeded", 0, "hi"), removed=removed)
    assert (well.state, well.exit_code, well.stdout, well.error) == (State.OK, 0, "hi", None)
    assert "azpool-" in well.message
    assert "not removed" in well.message
    assert str(removed.code) in well.message
    _, badly = run(BEGUN, DONE, seen("Failed", 3, "no"), removed=removed)
    assert (badly.state, badly.exit_code) == (State.FAILED, 3)
    assert "not removed" in str(badly.error)
    _, gone = run(BEGUN, DONE, seen("Succeeded"), removed=GONE)
    assert (gone.state, gone.message) == (State.OK, "")


def test_a_lost_answer_does_not_end_a_script_that_arrived():
    asked, outcome = run(LOST, GONE, seen("Running"), seen("Succeeded", 0, "hi"))
    assert (outcome.state, outcome.exit_code, outcome.stdout) == (State.OK, 0, "hi")
    assert removals(asked) == [len(asked) - 1]


def test_a_view_that_trails_its_operation_is_looked_at_again():
    _, outcome = run(BEGUN, DONE, seen("Running"), seen("Succeeded", 0, "hi"))
    assert (outcome.state, outcome.stdout) == (State.OK, "hi")


def test_a_look_without_an_answer_is_repeated():
    _, outcome = run(BEGUN, DONE, TROUBLED, LOST, seen("Succeeded", 0, "hi"))
    assert (outcome.state, outcome.stdout) == (State.OK, "hi")


@pytest.mark.parametrize("reads", [[REFUSED], [TROUBLED] * 5], ids=["403", "503"])
def test_a_command_that_can_t_be_read_stays_and_is_named(reads: list[Answer]):
    step = script_step()
    asked, outcome = drive(procedure_of(step, wait=True), [BEGUN, TROUBLED, *reads])
    assert removals(asked) == []
    assert outcome.state is State.UNKNOWN
    assert step.name in outcome.message


def test_an_operation_that_failed_before_its_script_began_is_told():
    asked, outcome = run(BEGUN, BROKE, seen("Pending"))
    assert (outcome.state, outcome.code) == (State.FAILED, "NoAgent")
    assert removals(asked) == [len(asked) - 1]


@pytest.mark.parametrize(
    ("answers", "arguments"),
    [([BROKE], {}), ([DONE], {}), ([TROUBLED], {"timeout_seconds": 60})],
    ids=["failed", "succeeded", "lost"],
)
def test_a_script_that_never_ends_is_looked_at_only_so_often(
    answers: list[Answer], arguments: dict[str, Any]
):
    procedure = procedure_of(script_step(**arguments), wait=True)
    fed = [BEGUN, *answers]
    asked: list[Call | Pause] = []
    with pytest.raises(StopIteration) as end:
        one = next(procedure)
        while True:
            asked.append(one)
            paused = isinstance(one, Pause)
            one = procedure.send(None if paused else fed.pop(0) if fed else seen("Running"))
    (outcome,) = end.value.value
    assert outcome.state is State.UNKNOWN
    assert "the script is running" in outcome.message
    assert "stays on the machine" in outcome.message
    assert removals(asked) == []
    assert len(asked) < 120


def test_a_script_that_is_stopped_is_told_with_its_output_so_far():
    asked, outcome = run(BEGUN, Stopped("interrupted"), seen("Running", 0, "half"))
    assert outcome.state is State.UNKNOWN
    assert "it was interrupted" in outcome.message
    assert "removed, which ends the script" in outcome.message
    assert (outcome.exit_code, outcome.stdout) == (None, "half")
    assert removals(asked) == [len(asked) - 1]


def test_a_script_that_ended_before_it_was_stopped_has_its_exit_code():
    asked, outcome = run(BEGUN, Stopped("timeout"), seen("Failed", 3, "all"))
    assert (outcome.state, outcome.exit_code, outcome.stdout) == (State.FAILED, 3, "all")
    assert removals(asked) == [len(asked) - 1]


@pytest.mark.parametrize("read", [TROUBLED, Stopped("timeout")], ids=["503", "no time"])
def test_a_script_that_is_stopped_and_not_read_is_removed_too(read: Any):
    asked, outcome = run(BEGUN, Stopped("timeout"), read)
    assert outcome.state is State.UNKNOWN
    assert "timeout_seconds had passed" in outcome.message
    assert "its output was not read" in outcome.message
    assert removals(asked) == [len(asked) - 1]


def test_a_stop_before_the_removal_was_sent_removes_it_and_keeps_the_outcome():
    procedure = procedure_of(script_step(), wait=True)
    next(procedure)
    for answer in (BEGUN, None, DONE):
        asked = procedure.send(answer)
    asked = procedure.send(seen("Succeeded", 0, "hi"))
    assert asked.kind is Kind.DELETE
    again = procedure.throw(Stopped("timeout"))
    assert again == asked
    with pytest.raises(StopIteration) as end:
        procedure.send(Answer(status=202))
    (outcome,) = end.value.value
    assert (outcome.state, outcome.stdout) == (State.OK, "hi")


# What a journal gives back of an answer.
ACCEPTED = Answer(status=201, headers=POLL)
BARE = Answer(status=201)
ENDED = seen("Failed", 3, "all")


@pytest.mark.parametrize(
    ("accepted", "answers"),
    [
        (ACCEPTED, [DONE, ENDED]),
        (ACCEPTED, [GONE, seen("Running"), ENDED]),
        (BARE, [seen("Running"), ENDED]),
        (None, [ENDED]),
        (None, [GONE, seen("Pending"), ENDED]),
    ],
)
def test_after_a_kill_a_script_is_read_and_removed_and_not_sent(
    accepted: Answer | None, answers: list[Answer]
):
    step = script_step()
    asked, outcome = drive(resumed(step, accepted), answers)
    assert (outcome.state, outcome.exit_code, outcome.stdout) == (State.FAILED, 3, "all")
    calls = [one for one in asked if isinstance(one, Call)]
    assert {one.kind for one in calls} == {Kind.READ, Kind.DELETE}
    assert calls[-1].arguments["run_command_name"] == step.name
    assert removals(asked) == [len(asked) - 1]


@pytest.mark.parametrize(
    ("accepted", "answers"), [(None, [GONE] * 3), (ACCEPTED, [DONE, GONE])], ids=["lost", "removed"]
)
def test_after_a_kill_a_script_without_its_command_is_unknown(
    accepted: Answer | None, answers: list[Answer]
):
    _, outcome = drive(resumed(script_step(), accepted), answers)
    assert outcome.state is State.UNKNOWN


def test_after_a_kill_v1_s_operation_tells_its_output():
    output = {"value": [{"message": "Enable succeeded: \n[stdout]\nhi\n[stderr]\n"}]}
    ended = Answer(status=200, body={"status": "Succeeded", "properties": {"output": output}})
    accepted = Answer(status=202, headers=POLL)
    asked, outcome = drive(resumed(script_step(), accepted), [ended])
    assert (outcome.state, outcome.stdout.strip()) == (State.OK, "hi")
    assert removals(asked) == []
