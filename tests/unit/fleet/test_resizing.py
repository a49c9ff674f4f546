"""A resize between a stop and a start: what it sends, and how it is gone on with after a kill."""

from __future__ import annotations

from typing import Any

import pytest

from azpool.fleet.calls import Answer, Call, Kind, Pause
from azpool.fleet.ids import vm_id
from azpool.fleet.plan import Step, make_plan
from azpool.fleet.procedures import procedure_of, resumed
from azpool.fleet.target import Target
from azpool.report import State

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
OLD, NEW = "Standard_D2s_v5", "Standard_D4s_v5"
POLL = {"azure-asyncoperation": "https://arm/op/1", "retry-after": "10"}
BEGUN = Answer(status=202, headers=POLL)
DONE = Answer(status=200, body={"status": "Succeeded"})
BROKE = Answer(status=200, body={"status": "Failed", "error": {"code": "NoRoom"}})
FORGOTTEN = Answer(status=404, code="NotFound")
REFUSED = Answer(status=409, code="Conflict", message="busy")
LEFT = "it ran before and may be left stopped"


def resize_step() -> Step:
    one = Target(
        index=0,
        resource_id=str(vm_id(SUB, "rg", "vm0")),
        name="vm0",
        instance_id="vm0",
        subscription=SUB,
        group="rg",
    )
    given = {"size": NEW, "deallocate": True}
    return make_plan("resize", [one], arguments=given).steps[0]


def seen(power: str, size: str = OLD, provisioning: str = "succeeded") -> Answer:
    codes = [f"ProvisioningState/{provisioning}", f"PowerState/{power}"]
    view = {"statuses": [{"code": code} for code in codes]}
    hardware = {"vmSize": size}
    properties = {"instanceView": view, "hardwareProfile": hardware}
    return Answer(status=200, body={"id": "/x", "properties": properties})


def drive(procedure: Any, answers: list[Any]) -> tuple[list[Call], Any]:
    """Feed a procedure; the last answer stands for all that follow."""
    calls: list[Call] = []
    left = list(answers)
    try:
        one = next(procedure)
        while True:
            if isinstance(one, Pause):
                one = procedure.send(None)
                continue
            calls.append(one)
            one = procedure.send(left.pop(0) if len(left) > 1 else left[0])
    except StopIteration as end:
        (outcome,) = end.value
        assert outcome.operation == "resize"
        return calls, outcome


def changes(calls: list[Call]) -> list[str]:
    return [call.method.rpartition("_")[2] for call in calls if call.kind is Kind.WRITE]


@pytest.mark.parametrize(("power", "notes"), [
    ("running", ["stop, it ran", "resize, it ran", "start, it ran"]),
    ("deallocated", ["stop", "resize"]),
])  # fmt: skip
def test_what_a_machine_was_is_put_down_with_each_call(power: str, notes: list[str]):
    calls, outcome = drive(
        procedure_of(resize_step(), wait=True), [seen(power), *[BEGUN, DONE] * 3]
    )
    assert [call.note for call in calls if call.kind is Kind.WRITE] == notes
    assert outcome.state is State.OK


@pytest.mark.parametrize("answers", [
    [seen("running"), BEGUN, DONE, REFUSED],
    [seen("running"), BEGUN, DONE, BEGUN, BROKE],
    [seen("running"), BEGUN, DONE, BEGUN, DONE, REFUSED],
    [seen("running"), BEGUN, FORGOTTEN, seen("deallocating", OLD, "updating")],
])  # fmt: skip
def test_a_machine_that_ran_is_not_left_stopped_in_silence(answers: list[Answer]):
    _, outcome = drive(procedure_of(resize_step(), wait=True), answers)
    assert not outcome.ok
    assert LEFT in outcome.message
    assert LEFT in str(outcome.error)


def test_a_stop_that_was_refused_leaves_nothing_stopped():
    _, outcome = drive(procedure_of(resize_step(), wait=True), [seen("running"), REFUSED])
    assert outcome.state is State.FAILED
    assert LEFT not in outcome.message


@pytest.mark.parametrize(("note", "accepted", "answers", "sent"), [
    # Stopped: what comes after it was never sent.
    ("stop, it ran", BEGUN, [DONE, BEGUN, DONE, BEGUN, DONE], ["update", "start"]),
    ("stop, it ran", BEGUN, [FORGOTTEN, seen("deallocated"), BEGUN, DONE], ["update", "start"]),
    ("stop, it ran", None,
     [seen("deallocating", OLD, "updating"), seen("deallocated"), BEGUN, DONE],
     ["update", "start"]),
    ("stop", None, [seen("deallocated"), BEGUN, DONE], ["update"]),
    # Has its size: it is started if it ran.
    ("resize, it ran", BEGUN, [DONE, BEGUN, DONE], ["start"]),
    ("resize, it ran", None, [seen("deallocated", NEW), BEGUN, DONE], ["start"]),
    ("resize", None, [seen("deallocated", NEW)], []),
    # Was being started.
    ("start, it ran", BEGUN, [DONE], []),
    ("start, it ran", None, [seen("starting", NEW, "updating"), seen("running", NEW)], []),
])  # fmt: skip
def test_after_a_kill_a_resize_is_gone_on_with(
    note: str, accepted: Answer | None, answers: list[Answer], sent: list[str]
):
    calls, outcome = drive(resumed(resize_step(), accepted, note), answers)
    assert outcome.state is State.OK, outcome
    assert changes(calls) == sent


@pytest.mark.parametrize(("note", "accepted", "answers", "state"), [
    ("stop, it ran", None, [seen("running")], State.UNKNOWN),
    ("stop, it ran", BEGUN, [BROKE], State.FAILED),
    ("resize, it ran", None, [seen("deallocated", OLD)], State.UNKNOWN),
    ("resize, it ran", BEGUN, [BROKE], State.FAILED),
    ("start, it ran", None, [seen("deallocated", NEW)], State.UNKNOWN),
    ("start, it ran", BEGUN, [BROKE], State.FAILED),
    ("start, it ran", None, [Answer(status=404, code="ResourceNotFound")], State.UNKNOWN),
])  # fmt: skip
def test_after_a_kill_what_is_not_known_is_not_sent_again_and_is_told(
    note: str, accepted: Answer | None, answers: list[Answer], state: State
):
    calls, outcome = drive(resumed(resize_step(), accepted, note), answers)
    assert changes(calls) == []
    assert outcome.state is state
    assert LEFT in outcome.message
