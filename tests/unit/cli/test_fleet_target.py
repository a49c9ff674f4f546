"""Which machines the arguments of `azpool fleet` name."""

from __future__ import annotations

import pytest

from azpool.cli._fleet_target import Target, conditions, parse_target, read_ids
from azpool.errors import UsageError

SUB = "00000000-0000-0000-0000-00000000a5a5"
HOME = f"/subscriptions/{SUB}/resourceGroups/workers/providers/Microsoft.Compute"
SET = f"{HOME}/virtualMachineScaleSets/crew"
VM = f"{HOME}/virtualMachines/"
HERE = {"AZURE_SUBSCRIPTION_ID": SUB}
CREW = Target(subscription=SUB, group="workers", scale_set="crew")


def parse(*names: str, environ: dict[str, str] | None = None, **more: object) -> Target:
    return parse_target(names, environ=environ or {}, **more)


def test_a_scale_set_is_named_in_three_ways() -> None:
    assert parse(f"{SUB}/workers/crew") == CREW
    assert parse("workers/crew", environ=HERE) == CREW
    assert parse(SET) == parse(SET.replace("Groups", "groups") + "/") == CREW


def test_machines_are_named_by_ids_each_once() -> None:
    found = parse(VM + "a", VM + "b", VM + "a")
    assert found.ids == (VM + "a", VM + "b")
    # An instance of a Uniform scale set is a machine, not the set.
    assert parse(f"{SET}/virtualMachines/3").ids == (f"{SET}/virtualMachines/3",)


def test_a_subscription_s_machines_are_chosen_by_group_and_tag() -> None:
    assert parse(SUB) == Target(subscription=SUB)
    assert parse(f"{SUB}/workers") == Target(subscription=SUB, group="workers")
    found = parse(environ=HERE, group="workers", tags=["role=worker"])
    assert found == Target(subscription=SUB, group="workers", tags={"role": "worker"})


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        ((), {}, "nothing names them"),
        ((), {"group": "g"}, "no subscription is named"),
        (("workers/crew",), {}, "no subscription is named"),
        (("crew",), {}, "it is no subscription's id"),
        (("a/b/c/d",), {}, "it has 4 parts"),
        (("a//c",), {}, "it has 3 parts"),
        (("",), {}, "it is no subscription's id"),
        ((SET, VM + "a"), {}, "'crew' and others at once"),
        ((SUB, VM + "a"), {}, "and others at once"),
        ((VM + "a",), {"group": "g"}, "--group"),
        ((SET,), {"tags": ["a=b"]}, "--tag"),
        ((SUB,), {"tags": ["a"]}, "names no value"),
    ],
)  # fmt: skip
def test_what_names_no_one_fleet_is_refused(names, more, said):
    with pytest.raises(UsageError, match=r"^cannot .*; ") as caught:
        parse(*names, **more)
    assert said in str(caught.value)


def test_ids_are_read_one_a_line() -> None:
    assert read_ids(f"{VM}a  # the first\n\n# all\n{VM}b\n") == [VM + "a", VM + "b"]
    with pytest.raises(UsageError, match="no resource id"):
        read_ids("crew_1\n")


def test_conditions_must_all_hold_and_values_may_be_several() -> None:
    assert conditions(None) == {}
    assert conditions(["power=Off,zone=1", "name=crew_*|lone"]) == {
        "power": "off",
        "zone": "1",
        "name": ("crew_*", "lone"),
    }
    assert conditions(["tag.role=worker,latest-model=no"]) == {
        "tags": {"role": "worker"},
        "latest_model": False,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("power", "is no condition"),
        ("power=", "is no condition"),
        ("power=asleep", "no power state 'asleep'"),
        ("colour=red", "no field 'colour'"),
        ("zone=1,zone=2", "zone=one|other"),
        ("latest_model=maybe", "yes or no"),
        ("tag.=x", "names no tag"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        conditions([text])
    assert said in str(caught.value)
