"""Resource ids: what is read, what is refused and in which words, and that case never counts."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpool.errors import UsageError
from azpool.fleet.ids import (
    ResourceId,
    checked_group,
    checked_name,
    checked_subscription,
    parse_id,
    same_id,
    scale_set_id,
    scale_set_vm_id,
    vm_id,
)

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
VM = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/web"
SET = f"/subscriptions/{SUB}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets"


def test_the_id_of_a_machine_is_read_in_its_parts():
    found = parse_id(VM)
    assert (found.subscription, found.group, found.name) == (SUB, "rg", "web")
    assert found.type == "Microsoft.Compute/virtualMachines"
    assert found.is_vm
    assert not found.is_scale_set
    assert not found.is_scale_set_vm
    assert found.parent is None
    assert str(found) == VM


def test_an_instance_of_a_scale_set_knows_its_scale_set():
    found = parse_id(f"{SET}/web/virtualMachines/17")
    assert found.is_scale_set_vm
    assert found.name == "17"
    assert found.parent is not None
    assert found.parent.is_scale_set
    assert found.parent == scale_set_id(SUB, "rg", "web")
    assert found == scale_set_vm_id(SUB, "rg", "web", "17")


def test_case_is_kept_and_never_compared():
    shouted = VM.replace("resourceGroups/rg", "RESOURCEGROUPS/RG").replace("web", "WEB")
    found = parse_id(shouted)
    assert found.name == "WEB"
    assert found == parse_id(VM)
    assert hash(found) == hash(parse_id(VM))
    assert found.is_vm
    assert same_id(shouted, VM)
    assert not same_id(VM, VM + "2")
    assert found != VM


def test_a_slash_at_the_end_and_space_around_are_no_part_of_it():
    assert parse_id(f" {VM}/\n") == parse_id(VM)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "does not begin with /subscriptions/ID"),
        ("web", "does not begin with /subscriptions/ID"),
        ("https://management.azure.com" + VM, "does not begin with /subscriptions/ID"),
        (VM.replace(SUB, "my-subscription"), "'my-subscription' is no subscription id"),
        (VM.replace("/rg/", "//"), "'' is no name of a resource group"),
        (VM.replace("/rg/", "/rg./"), "'rg.' is no name of a resource group"),
        (f"/subscriptions/{SUB}", "it names no resource"),
        (f"/subscriptions/{SUB}/resourceGroups", "'' is no name of a resource group"),
        (f"/subscriptions/{SUB}/resourceGroups/rg", "it names no resource"),
        (f"/subscriptions/{SUB}/resourceGroups/rg/providers", "without a name"),
        (VM.removesuffix("/web"), "a type stands there without a name"),
        (VM + "/extensions", "a type stands there without a name"),
        (VM.replace("web", ""), "a type stands there without a name"),
        (VM.replace("/web", "//web"), "a type stands there without a name"),
        (VM + "?x=1", "'web?x=1' is no name"),
        (VM + "/providers/Microsoft.Authorization/locks/l", "it has two providers"),
    ],
)
def test_what_is_no_id_is_refused_naming_the_part_that_is_wrong(text: str, cause: str):
    with pytest.raises(UsageError, match=r"cannot read the resource id .*: .*; an id is") as caught:
        parse_id(text)
    assert cause in str(caught.value)


def test_a_long_or_a_foreign_thing_is_told_shortly():
    with pytest.raises(UsageError) as caught:
        parse_id("x" * 100_000)
    assert len(str(caught.value)) < 400
    with pytest.raises(UsageError, match="it is a NoneType"):
        parse_id(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["", "sub", SUB[:-1], f"/subscriptions/{SUB[1:]}", 7, None])
def test_a_subscription_is_a_guid(bad: str):
    with pytest.raises(UsageError, match="as a subscription: its id is a GUID"):
        checked_subscription(bad)


def test_a_subscription_may_be_given_as_its_resource_id():
    assert checked_subscription(f"/subscriptions/{SUB}") == SUB
    assert checked_subscription(SUB.upper()) == SUB.upper()


@pytest.mark.parametrize("bad", ["", "a/b", "a.", "a" * 91, "a b", None])
def test_a_group_and_a_name_that_nothing_can_have_are_refused(bad: str):
    with pytest.raises(UsageError, match="as a resource group"):
        checked_group(bad)
    assert checked_group("My-rg_1.(x)") == "My-rg_1.(x)"


@pytest.mark.parametrize("bad", ["", "a/b", "a?b", "a b", "é" * 261, None])
def test_a_name_that_would_change_the_address_is_refused(bad: str):
    with pytest.raises(UsageError, match="as the name of a scale set"):
        checked_name(bad, "scale set")


names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)


@given(subscription=st.uuids(), group=names, name=names, instance=names)
def test_what_is_written_is_read_as_the_same(subscription, group, name, instance):
    for one in (
        vm_id(str(subscription), group, name),
        scale_set_id(str(subscription), group, name),
        scale_set_vm_id(str(subscription), group, name, instance),
    ):
        assert parse_id(str(one)) == one
        assert parse_id(str(one).swapcase()) == one
        assert pickle.loads(pickle.dumps(one)) == one


@given(st.text(max_size=200))
def test_any_text_is_an_id_or_a_usage_error(text: str):
    try:
        found = parse_id(text)
    except UsageError:
        return
    assert isinstance(found, ResourceId)
    assert same_id(str(found), text)
