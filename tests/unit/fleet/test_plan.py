"""Plans: which steps an operation takes, what they cost, and what is refused before it is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import UsageError
from azpool.fleet.calls import Kind
from azpool.fleet.ids import scale_set_vm_id, vm_id
from azpool.fleet.instance import InstanceKind
from azpool.fleet.operations import OPERATIONS
from azpool.fleet.plan import WITHHELD, Plan, make_plan
from azpool.fleet.target import Target

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
OTHER = "9c6d3f7e-94ab-4c0a-8dfa-5c3f4c1f2a10"


def target(index: int, scale_set: str | None = None, subscription: str = SUB) -> Target:
    number = str(index)
    name = f"{scale_set}_{number}" if scale_set else f"vm{number}"
    if scale_set:
        place = scale_set_vm_id(subscription, "rg", scale_set, number)
    else:
        place = vm_id(subscription, "rg", name)
    return Target(
        index=index,
        resource_id=str(place),
        name=name,
        instance_id=number if scale_set else name,
        subscription=subscription,
        group="rg",
        scale_set=scale_set,
        kind=InstanceKind.UNIFORM if scale_set else InstanceKind.VM,
        location="westus",
    )


def crew(count: int, scale_set: str | None = None) -> list[Target]:
    return [target(index, scale_set) for index in range(count)]


def sizes(plan: Plan) -> list[int]:
    return [len(step.targets) for step in plan.steps]


def test_one_set_takes_one_call_and_machines_one_each():
    assert sizes(make_plan("start", crew(500, "web"))) == [500]
    assert sizes(make_plan("start", crew(3))) == [1, 1, 1]


def test_no_call_takes_more_than_a_set_can_hold_or_than_a_batch():
    assert sizes(make_plan("start", crew(2500, "web"))) == [1000, 1000, 500]
    assert sizes(make_plan("start", crew(50, "web"), batch=20)) == [20, 20, 10]


def test_sets_share_no_call():
    mixed = [target(0, "web"), target(1, "db"), target(2, "web"), target(3)]
    plan = make_plan("restart", mixed)
    assert [[one.index for one in step.targets] for step in plan.steps] == [[0, 2], [1], [3]]


@given(
    st.sampled_from(["start", "stop", "restart", "redeploy", "reimage", "delete"]),
    st.lists(st.sampled_from([None, "web", "db"]), min_size=1, max_size=60),
    st.none() | st.integers(1, 10),
)
def test_every_instance_is_in_exactly_one_step(
    operation: str, sets: list[str | None], batch: int | None
):
    targets = [target(index, scale_set) for index, scale_set in enumerate(sets)]
    plan = make_plan(operation, targets, batch=batch)
    found = sorted(one.index for step in plan.steps for one in step.targets)
    assert found == list(range(len(targets)))
    assert [step.place for step in plan.steps] == list(range(len(plan.steps)))
    assert all(len(step.targets) <= (batch or 1000) for step in plan.steps)


def test_calls_are_counted_by_budget():
    assert make_plan("start", crew(3)).calls == {Kind.WRITE: 3}
    assert make_plan("start", crew(3, "web")).calls == {Kind.WRITE: 1, Kind.READ: 1}
    scripts = make_plan("run_script", crew(200), arguments={"script": "uptime"})
    assert scripts.calls == {Kind.WRITE: 200, Kind.READ: 200, Kind.DELETE: 200}
    assert make_plan("delete", crew(3)).calls == {Kind.DELETE: 3}


def test_sending_takes_what_the_buckets_say():
    # 200 writes at once, and 10 more a second.
    assert make_plan("start", crew(200)).sending_seconds == 0
    assert make_plan("start", crew(260)).sending_seconds == pytest.approx(6)


def test_each_subscription_has_buckets_of_its_own():
    both = [target(n) for n in range(130)] + [target(n, None, OTHER) for n in range(130, 260)]
    assert make_plan("start", both).sending_seconds == 0


def test_a_plan_tells_in_words_what_it_takes():
    text = repr(make_plan("start", crew(260), batch=20))
    assert text.splitlines() == [
        "Plan: start 260 instances; nothing is sent",
        "  steps             260 × start",
        "  calls             260 writes, and the polls of what they begin",
        "  budget of writes  260 of 200, which gain 10/s",
        "  to send them      6.0 s at least",
        "  batches           13 of 20 instances",
    ]


@pytest.mark.parametrize("operation", ["delete", "reimage", "redeploy"])
def test_a_plan_says_what_it_destroys(operation: str):
    plan = make_plan(operation, crew(1))
    assert plan.destroys == OPERATIONS[operation].destroys
    assert ("destroys" in repr(plan)) == plan.destroys


def test_a_plan_comes_back_from_plain_values_without_its_secrets():
    plan = make_plan(
        "run_script",
        crew(2),
        arguments={"script": "uptime"},
        secrets={"protected_parameters": {"key": "hidden"}},
    )
    text = json.dumps(plan.to_dict())
    assert "hidden" not in text
    again = Plan.from_dict(json.loads(text))
    assert again.targets == plan.targets
    assert again.steps[0].arguments == plan.steps[0].arguments
    assert again.steps[0].secrets == {"protected_parameters": WITHHELD}
    given_back = Plan.from_dict(json.loads(text), {"protected_parameters": {"key": "hidden"}})
    assert given_back.steps[0].secrets == plan.steps[0].secrets
    assert "hidden" not in repr(plan) + repr(plan.steps) + plan._repr_html_()


@pytest.mark.parametrize(
    ("operation", "targets", "options", "told"),
    [
        ("start", [], {}, "cannot start an empty fleet"),
        ("explode", crew(1), {}, "explode"),
        ("start", crew(1), {"batch": 0}, "batch is a whole number from 1"),
        ("start", crew(1), {"batch": True}, "batch is a whole number from 1"),
        ("start", crew(1), {"batch": 2.5}, "batch is a whole number from 1"),
        ("resize", crew(1), {}, "no size was given"),
        ("resize", crew(1, "web"), {"arguments": {"size": "x"}}, "the size of their set"),
        ("reimage", crew(1), {"arguments": {"data_disks": True}}, "no such operation for virtual"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    operation: str, targets: list[Target], options: dict[str, Any], told: str
):
    with pytest.raises(UsageError, match=told):
        make_plan(operation, targets, **options)
