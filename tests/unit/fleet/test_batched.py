"""One call for many, on a set that refuses some: who is to blame is found, and the rest is done."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.fleet.batched import PROBES
from azpool.fleet.calls import Answer, Call, Kind, Pause, Stopped
from azpool.fleet.ids import scale_set_vm_id
from azpool.fleet.instance import InstanceKind
from azpool.fleet.plan import make_plan
from azpool.fleet.procedures import procedure_of
from azpool.fleet.target import Target
from azpool.report import State

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"


def target(number: int) -> Target:
    return Target(
        index=number,
        resource_id=str(scale_set_vm_id(SUB, "rg", "web", str(number))),
        name=f"web_{number}",
        instance_id=str(number),
        subscription=SUB,
        group="rg",
        scale_set="web",
        kind=InstanceKind.UNIFORM,
    )


@dataclass
class ScaleSet:
    """A set that refuses a call as a whole where one of its machines can't be served."""

    count: int
    locked: Iterable[int] = ()
    busy: Iterable[int] = ()
    gone: Iterable[int] = ()
    dead: bool = False
    lose: Iterable[int] = ()
    posts: list[list[int]] = field(default_factory=list)
    accepted: Counter[int] = field(default_factory=Counter)
    lists: int = 0
    pauses: int = 0
    broken: Iterable[int] = ()

    def answer(self, call: Call) -> Answer:
        if "extension_parameters" in call.arguments:
            return Answer(status=201, body={"properties": {"provisioningState": "Succeeded"}})
        if call.kind is Kind.WRITE:
            return self.post(
                [int(one) for one in call.arguments["vm_instance_i_ds"]["instanceIds"]]
            )
        if call.poll:
            return Answer(status=200, body={"status": "Succeeded"})
        self.lists += 1
        return Answer(status=200, body={"value": [self.row(n) for n in range(self.count)
                                                  if n not in self.gone]})  # fmt: skip

    def post(self, asked: list[int]) -> Answer:
        self.posts.append(asked)
        if set(asked) & set(self.gone):
            return Answer(status=400, code="InvalidParameter", message="not active")
        refused = set(asked) & {*self.locked, *self.busy}
        if self.dead or refused:
            words = f"web_{min(refused)}" if refused else "the set is being deleted"
            return Answer(status=409, code="OperationNotAllowed", message=words)
        self.accepted.update(asked)
        if set(asked) & set(self.lose):
            return Answer(status=None, code="ServiceResponseError", message="cut")
        url = f"https://arm/op/{len(self.posts)}"
        return Answer(status=202, headers={"azure-asyncoperation": url, "retry-after": "10"})

    def row(self, number: int) -> dict[str, Any]:
        power = "running" if self.accepted[number] else "stopped"
        word = "updating" if number in self.busy else "succeeded"
        if number in self.broken and self.accepted[number]:
            word = "failed/VMExtensionProvisioningError"
        statuses = [{"code": f"ProvisioningState/{word}"}, {"code": f"PowerState/{power}"}]
        properties = {"instanceView": {"statuses": statuses}}
        return {"id": target(number).resource_id, "properties": properties}


def start(
    one: ScaleSet,
    *,
    wait: bool = True,
    stop_after: int | None = None,
    operation: str = "start",
    arguments: dict[str, Any] | None = None,
) -> list[Any]:
    """Start all machines of a set; `Stopped` comes in place of a call after so many posts."""
    plan = make_plan(
        operation, [target(number) for number in range(one.count)], wait=wait, arguments=arguments
    )
    procedure = procedure_of(plan.steps[0], wait=wait)
    try:
        asked = next(procedure)
        while True:
            if isinstance(asked, Pause):
                one.pauses += 1
                asked = procedure.send(None)
            elif len(one.posts) == stop_after:
                asked = procedure.throw(Stopped("timeout"))
            else:
                asked = procedure.send(one.answer(asked))
    except StopIteration as end:
        return list(end.value)


def told(outcomes: list[Any], state: State) -> set[int]:
    assert [one.index for one in outcomes] == [*range(len(outcomes))]
    return {one.index for one in outcomes if one.state is state}


def test_a_locked_machine_keeps_nobody_else_from_being_started():
    one = ScaleSet(500, locked=[137])
    outcomes = start(one)
    assert told(outcomes, State.FAILED) == {137}
    assert told(outcomes, State.OK) == {*range(500)} - {137}
    refused = outcomes[137]
    assert (refused.status, refused.code) == (409, "OperationNotAllowed")
    assert "web_137" in refused.message
    assert len(one.posts) <= 3 + 2 * math.ceil(math.log2(500))
    # All that was begun is followed together: one Retry-After, not one for each.
    assert one.pauses == 1


@pytest.mark.parametrize("wait", [True, False])
def test_an_extension_reaches_all_but_who_is_locked(wait: bool):
    one = ScaleSet(60, locked=[7], broken=[9])
    arguments = {"name": "x", "publisher": "p", "type": "t", "version": "1.0"}
    outcomes = start(one, wait=wait, operation="add_extension", arguments=arguments)
    assert told(outcomes, State.FAILED) == ({7, 9} if wait else {7})
    assert len(told(outcomes, State.OK)) == (58 if wait else 59)
    assert {each.operation for each in outcomes} == {"add_extension"}
    assert (outcomes[7].status, outcomes[7].code) == (409, "OperationNotAllowed")
    assert "web_7" in outcomes[7].message
    assert outcomes[7].error is not None
    if wait:
        assert outcomes[9].code == "VMExtensionProvisioningError"


def test_who_is_busy_in_a_view_is_left_out_at_once():
    one = ScaleSet(40, busy=[3, 4, 30])
    outcomes = start(one, wait=False)
    assert told(outcomes, State.FAILED) == {3, 4, 30}
    assert {outcomes[n].code for n in (3, 4, 30)} == {"OperationNotAllowed"}
    assert len(told(outcomes, State.OK)) == 37
    assert (len(one.posts), one.lists) == (2, 1)


@pytest.mark.parametrize("count", [2, 5, 500])
def test_a_set_that_refuses_everything_costs_few_calls(count: int):
    one = ScaleSet(count, dead=True)
    outcomes = start(one)
    assert {(each.state, each.status) for each in outcomes} == {(State.FAILED, 409)}
    assert len(one.posts) <= 1 + min(count, PROBES)
    assert one.lists == 1


def test_a_set_that_is_being_deleted_costs_one_call_and_one_list():
    one = ScaleSet(300, dead=True, busy=range(300))
    outcomes = start(one)
    assert len(told(outcomes, State.FAILED)) == 300
    assert (len(one.posts), one.lists) == (1, 1)


def test_what_was_lost_while_the_refused_are_looked_for_is_never_sent_again():
    one = ScaleSet(64, locked=[10], lose=[50])
    outcomes = start(one)
    assert told(outcomes, State.FAILED) == {10}
    assert told(outcomes, State.OK) == {*range(64)} - {10}
    assert set(one.accepted.values()) == {1}
    assert "by the machine's state" in outcomes[50].message


def test_stopped_while_the_refused_are_looked_for_each_is_told_what_is_known_of_it():
    one = ScaleSet(64, locked=[10], busy=[5])
    outcomes = start(one, stop_after=4)
    assert told(outcomes, State.FAILED) == {5}
    assert told(outcomes, State.UNKNOWN) == set(one.accepted)
    assert told(outcomes, State.CANCELLED) == {*range(64)} - {5} - set(one.accepted)
    assert one.accepted


def test_an_address_is_only_kept_of_a_call_that_is_for_all():
    # Of a part the journal keeps none: its end says nothing of the others.
    plan = make_plan("start", [target(number) for number in range(4)])
    service = ScaleSet(4, locked=[1])
    procedure = procedure_of(plan.steps[0], wait=False)
    parts = []
    asked = next(procedure)
    with pytest.raises(StopIteration):
        while True:
            assert isinstance(asked, Call)
            if asked.kind is Kind.WRITE:
                parts.append(asked.part)
            asked = procedure.send(service.answer(asked))
    assert parts[0] is False
    assert len(parts) > 1
    assert all(parts[1:])


NUMBERS = st.sets(st.integers(0, 59), max_size=60)


@given(count=st.integers(2, 60), locked=NUMBERS, busy=NUMBERS, gone=NUMBERS)
def test_whoever_is_refused_the_others_are_started_once(
    count: int, locked: set[int], busy: set[int], gone: set[int]
):
    everyone = {*range(count)}
    gone &= everyone
    locked, busy = (locked & everyone) - gone, (busy & everyone) - gone
    one = ScaleSet(count, locked=locked, busy=busy, gone=gone)
    outcomes = start(one, wait=False)
    assert told(outcomes, State.UNKNOWN) == gone
    assert set(one.accepted.values()) <= {1}
    assert told(outcomes, State.OK) == set(one.accepted)
    # Nobody who could be served was left out, but where nobody who was asked alone was served.
    able = everyone - gone - locked - busy
    idle = sorted(everyone - gone - busy)
    if one.accepted:
        assert told(outcomes, State.OK) == able
    else:
        assert len(able) <= max(0, len(idle) - PROBES)
    assert len(one.posts) <= 4 + PROBES + 2 * count
