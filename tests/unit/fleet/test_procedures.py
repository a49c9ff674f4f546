"""Procedures fed with answers: what they send, in which order, and what they make of it."""

from __future__ import annotations

from typing import Any

import pytest

from azpool.fleet.calls import Answer, Call, Kind, Pause, Stopped
from azpool.fleet.ids import scale_set_vm_id, vm_id
from azpool.fleet.instance import InstanceKind
from azpool.fleet.plan import make_plan
from azpool.fleet.procedures import LOOKS, procedure_of, resumed
from azpool.fleet.target import Target
from azpool.report import State

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
POLL = {"azure-asyncoperation": "https://arm/op/1", "retry-after": "10"}
BEGUN = Answer(status=202, headers=POLL)
DONE = Answer(status=200, body={"status": "Succeeded"})
LOST = Answer(status=None, code="ServiceResponseError", message="cut", sent=True)


def target(number: int, *, uniform: bool = False) -> Target:
    name = str(number)
    one = scale_set_vm_id(SUB, "rg", "web", name) if uniform else vm_id(SUB, "rg", f"vm{number}")
    return Target(
        index=number,
        resource_id=str(one),
        name=f"web_{name}" if uniform else f"vm{number}",
        instance_id=name if uniform else f"vm{number}",
        subscription=SUB,
        group="rg",
        scale_set="web" if uniform else None,
        kind=InstanceKind.UNIFORM if uniform else InstanceKind.VM,
        location="westus",
    )


def drive(procedure: Any, *answers: Any) -> tuple[list[Call], Any]:
    """Feed a procedure; pauses pass by themselves; `Stopped` is thrown."""
    calls: list[Call] = []
    left = list(answers)
    try:
        asked = next(procedure)
        while True:
            if isinstance(asked, Pause):
                asked = procedure.send(None)
                continue
            calls.append(asked)
            answer = left.pop(0)
            throws = isinstance(answer, Exception)
            asked = procedure.throw(answer) if throws else procedure.send(answer)
    except StopIteration as end:
        assert not left
        return calls, end.value


def one(operation: str, *answers: Any, wait: bool = True, **arguments: Any) -> Any:
    plan = make_plan(operation, [target(0)], arguments=arguments)
    calls, (outcome,) = drive(procedure_of(plan.steps[0], wait=wait), *answers)
    return calls, outcome


def view(power: str, provisioning: str = "succeeded") -> dict[str, Any]:
    codes = [f"ProvisioningState/{provisioning}", f"PowerState/{power}"]
    return {"instanceView": {"statuses": [{"code": code} for code in codes]}}


def machine(power: str, provisioning: str = "succeeded") -> Answer:
    return Answer(status=200, body={"id": "/x", "properties": view(power, provisioning)})


def test_a_start_is_a_post_and_the_polls_of_its_operation():
    running = Answer(status=200, body={"status": "InProgress"}, headers={"retry-after": "5"})
    calls, outcome = one("start", BEGUN, running, DONE)
    assert [call.method for call in calls] == ["compute.virtual_machines.begin_start", "get", "get"]
    assert [call.url for call in calls[1:]] == ["https://arm/op/1"] * 2
    assert not calls[0].repeatable
    assert all(call.repeatable and call.poll for call in calls[1:])
    assert outcome.state is State.OK


def test_without_waiting_it_is_done_once_it_is_accepted():
    calls, outcome = one("start", BEGUN, wait=False)
    assert len(calls) == 1
    assert outcome.state is State.OK


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(status=403, code="AuthorizationFailed", message="no"), State.FAILED),
        (Answer(status=409, code="Conflict", message="busy"), State.FAILED),
        (Answer(status=404, code="ResourceNotFound", message="gone"), State.UNKNOWN),
        (Answer(status=429, code="TooManyRequests", message="slow"), State.THROTTLED),
        (Answer(status=None, code="ServiceRequestError", message="x", sent=False), State.FAILED),
    ],
)
def test_a_refusal_is_told_in_the_service_s_words(answer: Answer, state: State):
    _, outcome = one("restart", answer)
    assert (outcome.state, outcome.status, outcome.code) == (state, answer.status, answer.code)
    assert outcome.message == answer.message
    assert outcome.error is not None
    assert outcome.name in str(outcome.error)


def test_who_is_gone_already_is_deleted():
    _, outcome = one("delete", Answer(status=404, code="ResourceNotFound"))
    assert outcome.state is State.OK


@pytest.mark.parametrize(
    ("operation", "seen", "state"),
    [
        ("start", machine("running"), State.OK),
        ("start", machine("stopped"), State.UNKNOWN),
        # One that runs may never have been restarted.
        ("restart", machine("running"), State.UNKNOWN),
        ("stop", machine("deallocated"), State.OK),
        ("delete", Answer(status=404, code="ResourceNotFound"), State.OK),
        ("start", Answer(status=404, code="ResourceNotFound"), State.UNKNOWN),
        ("start", Answer(status=403, code="AuthorizationFailed"), State.UNKNOWN),
    ],
)
def test_a_lost_answer_is_judged_by_the_machine_s_state(operation: str, seen: Answer, state: State):
    calls, outcome = one(operation, LOST, seen)
    assert calls[1].kind is Kind.READ
    assert outcome.state is state


@pytest.mark.parametrize("lost_at", ["the call", "its poll"])
def test_a_machine_whose_answer_was_lost_is_looked_at_until_nothing_is_under_way(lost_at: str):
    begun = [LOST] if lost_at == "the call" else [BEGUN, Answer(status=404, code="NotFound")]
    calls, outcome = one(
        "start", *begun, machine("stopped", "updating"), machine("starting", "updating"),
        machine("running", "updating"), machine("running"),
    )  # fmt: skip
    assert outcome.state is State.OK
    assert [call.kind for call in calls] == [Kind.WRITE] + [Kind.READ] * (len(begun) + 3)


def test_a_machine_on_which_something_stays_under_way_is_unknown_after_so_many_looks():
    calls, outcome = one("start", LOST, *[machine("running", "updating")] * LOOKS)
    assert outcome.state is State.UNKNOWN
    assert len(calls) == 1 + LOOKS


def test_who_does_not_wait_looks_once_at_a_machine_whose_answer_was_lost():
    _, outcome = one("start", LOST, machine("starting", "updating"), wait=False)
    assert outcome.state is State.UNKNOWN


def test_a_resize_whose_answer_was_lost_is_judged_by_the_size():
    row = {"id": "/x", "properties": {**view("running"), "hardwareProfile": {"vmSize": "Big"}}}
    _, outcome = one("resize", LOST, Answer(status=200, body=row), size="big")
    assert outcome.state is State.OK
    _, outcome = one("resize", LOST, Answer(status=200, body=row), size="small")
    assert outcome.state is State.UNKNOWN


def test_an_operation_that_failed_tells_why():
    error = {"code": "AllocationFailed", "message": "no room"}
    failed = Answer(status=200, body={"status": "Failed", "error": error})
    _, outcome = one("start", BEGUN, failed)
    assert (outcome.state, outcome.code) == (State.FAILED, "AllocationFailed")
    assert "no room" in str(outcome.error)


def listed(*rows: tuple[int, str, str]) -> Answer:
    return Answer(
        status=200,
        body={
            "value": [
                {"id": target(n, uniform=True).resource_id.upper(), "properties": view(p, s)}
                for n, p, s in rows
            ]
        },
    )


def many(operation: str, *answers: Any) -> Any:
    plan = make_plan(operation, [target(n, uniform=True) for n in range(3)])
    return drive(procedure_of(plan.steps[0], wait=True), *answers)


def test_one_call_starts_many_and_each_one_s_truth_is_its_view():
    failed = Answer(status=200, body={"status": "Failed", "error": {"code": "Partly"}})
    rows = [(0, "running", "succeeded"), (1, "stopped", "failed/AllocationFailed")]
    calls, outcomes = many("start", BEGUN, failed, listed(*rows))
    assert calls[0].method == "compute.virtual_machine_scale_sets.begin_start"
    assert calls[0].arguments["vm_instance_i_ds"] == {"instanceIds": ["0", "1", "2"]}
    assert [one.state for one in outcomes] == [State.OK, State.FAILED, State.UNKNOWN]
    assert outcomes[1].code == "AllocationFailed"


def rows(*powers: str) -> Answer:
    """The views of machines 0, 1, ...: `starting` ones are updating, the others have settled."""
    words = {"starting": "updating", "deleting": "deleting"}
    return listed(*[(n, one, words.get(one, "succeeded")) for n, one in enumerate(powers)])


def test_views_that_trail_the_end_of_a_batched_operation_are_read_until_they_settle():
    calls, outcomes = many(
        "start", BEGUN, DONE, rows("starting", "running", "starting"),
        rows("running", "running", "starting"), rows("running", "running", "running"),
    )  # fmt: skip
    assert [one.state for one in outcomes] == [State.OK] * 3
    assert len(calls) == 5


def test_a_view_that_never_settles_after_a_batched_operation_is_unknown_and_not_failed():
    trailing = rows("running", "starting", "stopped")
    calls, outcomes = many("start", BEGUN, DONE, *[trailing] * LOOKS)
    assert [one.state for one in outcomes] == [State.OK, State.UNKNOWN, State.FAILED]
    assert "still starting" in outcomes[1].message
    assert len(calls) == 2 + LOOKS


def test_machines_that_are_being_deleted_are_looked_at_until_they_are_gone():
    _, outcomes = many("delete", BEGUN, DONE, rows("deleting", "deleting"), rows())
    assert [one.state for one in outcomes] == [State.OK] * 3


def test_a_batched_call_whose_answer_was_lost_is_judged_once_nothing_is_under_way():
    calls, outcomes = many(
        "start", LOST, rows("starting", "stopped", "running"), rows("running", "stopped", "running")
    )
    assert [one.state for one in outcomes] == [State.OK, State.UNKNOWN, State.OK]
    assert [call.kind for call in calls] == [Kind.WRITE, Kind.READ, Kind.READ]


def test_a_batched_operation_that_failed_is_judged_once_its_views_have_settled():
    broke = Answer(status=200, body={"status": "Failed", "error": {"code": "Partly"}})
    after = [(0, "running", "succeeded"), (1, "stopped", "failed/AllocationFailed")]
    _, outcomes = many("start", BEGUN, broke, rows("starting", "starting"), listed(*after))
    assert [one.state for one in outcomes] == [State.OK, State.FAILED, State.UNKNOWN]
    assert outcomes[1].code == "AllocationFailed"


def test_one_that_vanished_does_not_keep_the_others_from_being_started():
    refused = Answer(status=400, code="InvalidParameter", message="1 is not active")
    rows = [(0, "stopped", "succeeded"), (2, "stopped", "succeeded")]
    after = [(n, "running", "succeeded") for n, _, _ in rows]
    calls, outcomes = many("start", refused, listed(*rows), BEGUN, DONE, listed(*after))
    assert calls[2].arguments["vm_instance_i_ds"] == {"instanceIds": ["0", "2"]}
    assert [one.state for one in outcomes] == [State.OK, State.UNKNOWN, State.OK]


def script_view(**more: Any) -> Answer:
    return Answer(status=200, body={"properties": {"instanceView": more}})


def test_a_script_is_put_read_and_removed():
    calls, outcome = one(
        "run_script",
        Answer(status=201, headers=POLL, body={}),
        DONE,
        script_view(executionState="Succeeded", exitCode=0, output="hi\n", error=""),
        Answer(status=202),
        script="echo hi",
        timeout_seconds=60,
    )
    methods = [call.method.rpartition(".")[2] for call in calls]
    assert methods == ["begin_create_or_update", "get", "get_by_virtual_machine", "begin_delete"]
    assert calls[0].arguments["run_command"]["properties"]["timeoutInSeconds"] == 60
    assert calls[0].arguments["run_command_name"] == calls[3].arguments["run_command_name"]
    assert (outcome.state, outcome.exit_code, outcome.stdout) == (State.OK, 0, "hi\n")


def test_a_script_s_exit_code_counts_and_not_its_operation():
    _, outcome = one(
        "run_script",
        Answer(status=201, headers=POLL, body={}),
        DONE,
        script_view(executionState="Failed", exitCode=3, output="x" * 4096, error="no"),
        Answer(status=202),
        script="exit 3",
    )
    assert (outcome.state, outcome.exit_code, outcome.truncated) == (State.FAILED, 3, True)
    assert "exit code 3" in outcome.message


def test_a_script_that_is_stopped_is_unknown_and_removed():
    calls, outcome = one(
        "run_script",
        Answer(status=201, headers=POLL, body={}),
        Stopped("timeout"),
        script_view(executionState="Running", exitCode=0, output="half"),
        Answer(status=202),
        script="sleep 99",
    )
    assert calls[-1].kind is Kind.DELETE
    assert calls[-1].repeatable
    assert outcome.state is State.UNKNOWN
    assert "removed, which ends the script" in outcome.message
    assert (outcome.exit_code, outcome.stdout) == (None, "half")


def test_where_there_are_no_managed_commands_v1_runs_it():
    message = "Enable succeeded: \n[stdout]\nhi\n[stderr]\noh\n"
    output = {"value": [{"code": "ProvisioningState/succeeded", "message": message}]}
    ended = Answer(status=200, body={"status": "Succeeded", "properties": {"output": output}})
    calls, outcome = one(
        "run_script", Answer(status=400, code="FeatureNotSupported"), BEGUN, ended, script="a\nb"
    )
    assert calls[1].method == "compute.virtual_machines.begin_run_command"
    assert calls[1].arguments["parameters"]["script"] == ["a", "b"]
    assert (outcome.state, outcome.exit_code) == (State.OK, None)
    assert (outcome.stdout.strip(), outcome.stderr.strip()) == ("hi", "oh")
    assert outcome.truncated


def test_v1_is_never_given_what_is_protected():
    plan = make_plan(
        "run_script",
        [target(0)],
        arguments={"script": "a"},
        secrets={"protected_parameters": {"key": "hidden"}},
    )
    refused = Answer(status=400, code="FeatureNotSupported")
    calls, (outcome,) = drive(procedure_of(plan.steps[0], wait=True), refused)
    assert len(calls) == 1
    assert outcome.state is State.FAILED
    assert "protected parameters" in outcome.message


def test_a_script_that_may_still_arrive_is_not_called_failed():
    nowhere = [Answer(status=404)] * 3
    calls, outcome = one("run_script", LOST, *nowhere, Answer(status=204), script="a")
    assert calls[-1].kind is Kind.DELETE
    assert outcome.state is State.UNKNOWN


def test_a_restart_that_failed_for_nobody_knows_whom_is_unknown_for_all():
    broke = Answer(status=200, body={"status": "Failed", "error": {"code": "InternalError"}})
    rows = [(n, "running", "succeeded") for n in range(3)]
    _, outcomes = many("restart", BEGUN, broke, listed(*rows))
    assert {one.state for one in outcomes} == {State.UNKNOWN}
    rows[1] = (1, "running", "failed/InternalError")
    _, outcomes = many("restart", BEGUN, broke, listed(*rows))
    assert [one.state for one in outcomes] == [State.OK, State.FAILED, State.OK]


def test_a_resize_stops_the_machine_and_starts_it_again_if_it_ran():
    calls, outcome = one(
        "resize", machine("running"), BEGUN, DONE, BEGUN, DONE, BEGUN, DONE,
        size="Standard_D4s_v5", deallocate=True,
    )  # fmt: skip
    changes = [call.method.rpartition(".")[2] for call in calls if call.kind is Kind.WRITE]
    assert changes == ["begin_deallocate", "begin_update", "begin_start"]
    assert (outcome.state, outcome.operation) == (State.OK, "resize")


@pytest.mark.parametrize(
    ("accepted", "answers", "state"),
    [
        (BEGUN, [DONE], State.OK),
        (None, [machine("starting", "updating"), machine("running")], State.OK),
        (None, [machine("stopped")], State.UNKNOWN),
        (None, [Answer(status=404, code="ResourceNotFound")] * 2, State.UNKNOWN),
    ],
)
def test_after_a_kill_nothing_is_sent_and_the_machine_tells(
    accepted: Answer | None, answers: list[Answer], state: State
):
    step = make_plan("start", [target(0)]).steps[0]
    procedure = resumed(step, accepted)
    calls: list[Call] = []
    outcome = None
    try:
        asked = next(procedure)
        while True:
            if isinstance(asked, Pause):
                asked = procedure.send(None)
                continue
            calls.append(asked)
            # The last answer stands: the machine is looked at as often as it takes.
            asked = procedure.send(answers.pop(0) if len(answers) > 1 else answers[0])
    except StopIteration as end:
        (outcome,) = end.value
    assert outcome is not None
    assert outcome.state is state
    assert {call.kind for call in calls} == {Kind.READ}
