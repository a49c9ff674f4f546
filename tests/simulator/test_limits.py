"""Compute's policies for scale sets: names and counts as recorded, and both kinds of 429."""

from __future__ import annotations

import json

import pytest
from azure.core.exceptions import HttpResponseError

from azpool.errors import UsageError
from azpool.testing.arm import OLDER_POLICIES, Limits

pytestmark = pytest.mark.usefixtures("no_refill")

GROUP, SET = "workers", "crew"
RESOURCE = "x-ms-ratelimit-remaining-resource"
BATCHED = "VMScaleSetBatchedVMRequestsSubscriptionMaximum"


def told(arm, method="POST"):
    """What the last answer says is left, by policy; and what it was charged."""
    headers = arm.last(method).headers
    parts = [one.removeprefix("Microsoft.Compute/") for one in headers[RESOURCE].split(",")]
    return dict(one.split(";") for one in parts), headers.get("x-ms-request-charge")


def sets(arm):
    return arm.compute.virtual_machine_scale_sets


def some(*ids):
    return {"instanceIds": list(ids)}


def test_calls_for_many_instances_count_as_recorded_in_2024(arm):
    arm.sim.limits = Limits()
    sets(arm).begin_deallocate(GROUP, SET, some("0", "1"), polling=False)
    assert told(arm) == (
        {
            "DeleteVMScaleSetSubscriptionMaximum": "524",
            BATCHED: "5998",
            "VmssQueuedVMOperations": "0",
        },
        "2",
    )
    arm.advance(60)
    sets(arm).begin_delete_instances(GROUP, SET, some("1", "2", "2"), polling=False)
    left, charged = told(arm)
    assert list(left) == ["VMScaleSetActionsSubscriptionMaximum", BATCHED, "VmssQueuedVMOperations"]
    assert (left["VMScaleSetActionsSubscriptionMaximum"], charged) == ("1499", "2")
    assert left[BATCHED] == "5996"
    arm.advance(60)
    sets(arm).begin_delete(GROUP, SET, polling=False)
    left, _ = told(arm, "DELETE")
    assert left["DeleteVMScaleSetSubscriptionMaximum"] == "523"
    assert left["DeleteVMScaleSetResource"] == "11"


def test_whole_set_is_charged_for_each_of_its_instances(arm):
    arm.sim.limits = Limits()
    sets(arm).begin_restart(GROUP, SET, polling=False)
    assert told(arm)[0][BATCHED] == "5997"
    assert told(arm)[1] == "3"
    list(arm.compute.virtual_machine_scale_set_vms.list(GROUP, SET))
    assert told(arm, "GET") == (
        {
            "HighCostGetVMScaleSetSubscriptionMaximum": "1079",
            "HighCostGetVMScaleSetResource": "29",
            "VMScaleSetVMViewsSubscriptionMaximum": "29997",
        },
        "3",
    )


def test_call_for_one_instance_counts_in_its_own_policy_and_the_batched_one(arm):
    arm.sim.limits = Limits()
    instances = arm.compute.virtual_machine_scale_set_vms
    instances.begin_reimage(GROUP, SET, "1", polling=False)
    assert told(arm) == (
        {
            "VMScaleSetVMActionsSubscriptionMaximum": "1999",
            "VMScaleSetVMActionsResource": "11",
            BATCHED: "5999",
            "VmssQueuedVMOperations": "0",
        },
        "1",
    )
    # As recorded of the deletion of a run command: what ends something counts elsewhere.
    instances.begin_deallocate(GROUP, SET, "2", polling=False)
    assert told(arm)[0]["DeleteVMScaleSetVMResource"] == "11"


def test_older_policies_count_as_recorded_in_2021(arm):
    arm.sim.limits = Limits(policies=OLDER_POLICIES)
    arm.compute.virtual_machine_scale_set_vms.begin_reimage(GROUP, SET, "1", polling=False)
    asked = arm.last("POST").headers["Azure-AsyncOperation"]
    assert told(arm) == (
        {
            "VMScaleSetActions3Min": "239",
            "VMScaleSetActions30Min": "1199",
            "VMScaleSetVMActions3Min": "199",
            "VMScaleSetVMActions30Min": "999",
            "VMScaleSetBatchedVMRequests5Min": "1199",
            "VmssQueuedVMOperations": "0",
        },
        "1",
    )
    arm.advance(100)
    sets(arm).begin_reimage(GROUP, SET, some("0", "1"), polling=False)
    assert told(arm) == (
        {
            "VMScaleSetActions3Min": "238",
            "VMScaleSetActions30Min": "1198",
            "VMScaleSetBatchedVMRequests5Min": "1197",
            "VmssQueuedVMOperations": "0",
        },
        "2",
    )
    arm.ask(asked)
    assert told(arm, "GET")[0] == {"GetOperation3Min": "14999", "GetOperation30Min": "29999"}


def test_batched_call_is_refused_by_compute_in_its_own_form(arm):
    arm.sim.limits = Limits(buckets={BATCHED: (4, 0.5)})
    sets(arm).begin_start(GROUP, SET, polling=False)
    arm.advance(60)
    with pytest.raises(HttpResponseError) as caught:
        sets(arm).begin_start(GROUP, SET, some("0", "1", "2"), polling=False)
    headers, error = caught.value.response.headers, caught.value.error
    assert (caught.value.status_code, error.code) == (429, "OperationNotAllowed")
    assert [one.target for one in error.details] == [BATCHED]
    assert json.loads(error.details[0].message)["allowedRequestCount"] == 4
    # Two are missing, and one comes in two seconds.
    assert headers["Retry-After"] == "4"
    # What is not used up is told too, and what was refused counted nowhere.
    left, _ = told(arm)
    assert left == {
        "VMScaleSetActionsSubscriptionMaximum": "1499",
        BATCHED: "0",
        "VmssQueuedVMOperations": "0",
    }
    sets(arm).begin_start(GROUP, SET, some("0"), polling=False)


def test_batched_call_is_refused_by_resource_manager_in_its_form(arm):
    arm.sim.limits = Limits(buckets={"writes": (1, 0.5)})
    sets(arm).begin_start(GROUP, SET, polling=False)
    with pytest.raises(HttpResponseError) as caught:
        sets(arm).begin_start(GROUP, SET, polling=False)
    assert caught.value.error.code == "SubscriptionRequestsThrottled"
    assert caught.value.error.details == []
    assert caught.value.response.headers["Retry-After"] == "2"


def test_call_for_more_than_a_bucket_holds_passes_when_it_is_full(arm):
    arm.sim.limits = Limits(buckets={BATCHED: (2, 0.001)})
    sets(arm).begin_start(GROUP, SET, polling=False)
    assert told(arm)[1] == "3"
    arm.advance(60)
    with pytest.raises(HttpResponseError, match="OperationNotAllowed"):
        sets(arm).begin_start(GROUP, SET, some("0"), polling=False)


def test_bucket_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"^cannot limit 'write': .*take one of .*writes"):
        Limits(buckets={"write": (1, 1)})
