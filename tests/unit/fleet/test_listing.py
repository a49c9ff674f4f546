"""Procedures that read, fed with answers: lists to their last page or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from azpool.errors import FleetError
from azpool.fleet import listing
from azpool.fleet.calls import Answer, Call
from azpool.fleet.ids import parse_id, scale_set_id, scale_set_vm_id, vm_id
from azpool.fleet.instance import InstanceKind, Power

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
OWNER = scale_set_id(SUB, "rg", "web")


def drive(procedure: Any, *answers: Answer) -> tuple[list[Call], Any]:
    """Feed a procedure its answers; all of them must be asked for."""
    calls = [next(procedure)]
    for place, answer in enumerate(answers):
        try:
            calls.append(procedure.send(answer))
        except StopIteration as end:
            assert place == len(answers) - 1
            return calls, end.value
    raise AssertionError("it asks for more")


def page(*names: str, following: str | None = None) -> Answer:
    return Answer(
        status=200, body={"value": [{"name": name} for name in names], "nextLink": following}
    )


def refused(status: int | None, code: str, message: str) -> Answer:
    return Answer(
        status=status, code=code, message=message, headers={"x-ms-correlation-request-id": "c"}
    )


def test_a_list_is_read_page_by_page_to_its_end():
    call = listing.list_call(OWNER, flexible=False)
    calls, found = drive(
        listing.pages(call), page("a", following="https://x/2"), page("b", following="https://x/3"),
        page("c"),
    )  # fmt: skip
    assert [item["name"] for item in found.items] == ["a", "b", "c"]
    assert [(one.method, one.url) for one in calls[1:]] == [
        ("get", "https://x/2"),
        ("get", "https://x/3"),
    ]
    assert all(one.repeatable and one.subscription == SUB for one in calls)
    assert found.checked("anything") == found.items


@pytest.mark.parametrize(
    "last",
    [
        refused(429, "TooManyRequests", "slow down"),
        refused(None, "ServiceResponseError", "cut"),
        Answer(status=200, body=None),
        Answer(status=200, body={"nothing": 1}),
        page("b", following="https://x/2"),
    ],
)
def test_half_a_list_is_no_list(last: Answer):
    # An inventory that is short without a word has machines forgotten.
    call = listing.list_call(OWNER, flexible=True)
    _, found = drive(listing.pages(call), page("a", following="https://x/2"), last)
    assert found.items == ()
    assert found.refused is not None
    with pytest.raises(FleetError, match="cannot list the machines: "):
        found.checked("the machines")


def test_a_scale_set_tells_which_list_has_its_machines():
    model = {"id": str(OWNER), "name": "web", "properties": {"orchestrationMode": "Flexible"}}
    item = {"id": str(vm_id(SUB, "rg", "web_a1")), "properties": {}}
    calls, found = drive(
        listing.members(OWNER),
        Answer(status=200, body=model),
        Answer(status=200, body={"value": [item]}),
    )
    assert calls[1].method == "compute.virtual_machines.list"
    assert str(OWNER) in calls[1].arguments["filter"]
    assert calls[1].arguments["expand"] == "instanceView"
    # What a scale set's own list has is its machine, whatever the item says of it.
    assert (found[0].kind, found[0].scale_set) == (InstanceKind.FLEXIBLE, "web")
    model["properties"] = {}
    item = {"id": str(scale_set_vm_id(SUB, "rg", "web", "0")), "instanceId": "0"}
    calls, found = drive(
        listing.members(OWNER),
        Answer(status=200, body=model),
        Answer(status=200, body={"value": [item]}),
    )
    assert calls[1].method == "compute.virtual_machine_scale_set_vms.list"
    assert found[0].kind is InstanceKind.UNIFORM


def test_a_scale_set_that_is_not_there_is_told_in_the_service_s_words():
    with pytest.raises(FleetError) as caught:
        drive(listing.members(OWNER), refused(404, "ResourceNotFound", "It was not found.\nx"))
    assert str(caught.value) == (
        "cannot read the scale set 'web': It was not found (404 ResourceNotFound)"
    )
    assert (caught.value.status, caught.value.code) == (404, "ResourceNotFound")
    assert caught.value.correlation_id == "c"
    assert caught.value.resource_id == str(OWNER)


def test_a_machine_that_cannot_be_read_is_there_and_says_why():
    one = scale_set_vm_id(SUB, "rg", "web", "3")
    calls, found = drive(listing.machine(one), refused(403, "AuthorizationFailed", "no"))
    assert calls[0].arguments["instance_id"] == "3"
    assert found.unread == "no (403 AuthorizationFailed)"
    assert (found.name, found.instance_id, found.scale_set) == ("web_3", "3", "web")
    assert (found.kind, found.power) == (InstanceKind.UNIFORM, Power.UNKNOWN)
    one = vm_id(SUB, "rg", "db")
    _, found = drive(listing.machine(one), refused(404, "ResourceNotFound", "gone"))
    assert (found.kind, found.name, found.scale_set) == (InstanceKind.VM, "db", None)


def test_a_subscription_s_states_are_one_list():
    calls, found = drive(
        listing.statuses(SUB),
        Answer(
            status=200,
            body={
                "value": [
                    {
                        "id": "/A",
                        "properties": {
                            "instanceView": {"statuses": [{"code": "PowerState/stopped"}]}
                        },
                    },
                    {"id": "/b"},
                ]
            },
        ),
    )
    assert calls[0].arguments == {"status_only": "true"}
    states = listing.states_by_key(found.items)
    assert {key: one.power for key, one in states.items()} == {
        "/a": Power.STOPPED,
        "/b": Power.UNKNOWN,
    }


def test_machines_are_grouped_by_what_lists_them():
    other = "7c2f6471-1bf0-4dda-aec3-cb9272f09591"
    ids = [
        scale_set_vm_id(SUB, "rg", "web", "1"),
        vm_id(SUB, "rg", "a"),
        scale_set_vm_id(SUB, "RG", "WEB", "2"),
        vm_id(other, "rg", "a"),
        vm_id(SUB, "else", "b"),
    ]
    groups = listing.by_owner([listing.blank(one) for one in ids])
    assert [len(some) for some in groups.values()] == [2, 2, 1]
    assert parse_id(str(next(iter(groups)))) == OWNER
