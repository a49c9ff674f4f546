"""What a 429 of Compute closes: the policy that it names, for whom that counts."""

from __future__ import annotations

import pytest

from azpool.fleet.budget import Budget
from azpool.fleet.calls import Answer, Call, Kind

LEFT = "x-ms-ratelimit-remaining-resource"


def call(scale_set: str, *, instance: str = "", operation: str = "start", sub: str = "s") -> Call:
    resource = f"/{scale_set}/{instance}".rstrip("/")
    return Call(
        subscription=sub, method="m", kind=Kind.WRITE, policy=(resource, operation), about=(0,)
    )


def told(budget: Budget, now: float, one: Call, left: str, *, target: str = "") -> None:
    """Send a call, and let it be answered with what is left; refused by `target`'s policy."""
    wait, taken = budget.take(now, one)
    assert wait == 0.0
    headers = {LEFT: left}
    if not target:
        budget.answered(now, one, Answer(status=202, headers=headers), taken)
        return
    details = [{"code": "TooManyRequests", "target": target}]
    answer = Answer(
        status=429,
        headers=headers | {"retry-after": "30"},
        body={"error": {"code": "OperationNotAllowed", "details": details}},
        code="OperationNotAllowed",
    )
    budget.answered(now, one, answer, taken)


def left_of(**counts: int) -> str:
    return ",".join(f"Microsoft.Compute/{name};{count}" for name, count in counts.items())


def test_queue_that_every_answer_tells_as_empty_holds_nobody_back():
    # Recorded: `VmssQueuedVMOperations;0` stands in answers to calls that are accepted.
    budget = Budget()
    accepted = left_of(VMScaleSetVMActionsResource=11, VmssQueuedVMOperations=0)
    refused = left_of(VMScaleSetVMActionsResource=0, VmssQueuedVMOperations=0)
    first, second = call("crew", instance="0"), call("crew", instance="1")
    told(budget, 0.0, second, accepted)
    told(budget, 0.0, first, refused, target="VMScaleSetVMActionsResource")
    assert budget.wait_seconds(1.0, first) == pytest.approx(29.0)
    assert budget.wait_seconds(1.0, second) == 0.0
    assert budget.wait_seconds(1.0, call("other", instance="0")) == 0.0


def test_batched_policy_closes_for_all_sets_of_its_subscription_alone():
    budget = Budget()
    batched = "VMScaleSetBatchedVMRequestsSubscriptionMaximum"
    for scale_set, sub in (("crew", "s"), ("other", "s"), ("far", "another")):
        told(budget, 0.0, call(scale_set, sub=sub), left_of(**{batched: 5}))
    told(budget, 0.0, call("crew"), left_of(**{batched: 0}), target=batched)
    assert budget.wait_seconds(1.0, call("other")) == pytest.approx(29.0)
    assert budget.wait_seconds(1.0, call("far", sub="another")) == 0.0
    # ARM's own bucket is not the one that is empty, nor that of what is counted elsewhere.
    assert budget.wait_seconds(1.0, call("crew", operation="tag")) == 0.0


def test_refusal_without_words_closes_what_its_header_tells_as_used_up():
    budget = Budget()
    one = call("crew")
    wait, taken = budget.take(0.0, one)
    left = left_of(VMScaleSetActions3Min=0, VMScaleSetActions30Min=7)
    budget.answered(0.0, one, Answer(status=429, headers={LEFT: left, "retry-after": "9"}), taken)
    assert wait == 0.0
    closed = {key for key, gate in budget.statistics(1.0).items() if gate.wait_seconds > 0}
    assert closed == {("policy", "s", "", "VMScaleSetActions3Min")}
