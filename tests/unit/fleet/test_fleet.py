"""`Fleet` as a value: what it holds, what it chooses, what it refuses; nothing is sent here."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from azpool.errors import UsageError
from azpool.fleet import Fleet, Instance, InstanceKind, Power
from azpool.fleet._link import PoolOptions, link_to
from azpool.fleet._scripts import extension_arguments, script_arguments
from azpool.fleet.ids import scale_set_vm_id, vm_id

SUB = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"


class Credential:
    def get_token(self, *scopes: str, **_: Any) -> Any:
        raise AssertionError("nobody may ask for a token here")


CREDENTIAL = Credential()


def instance(number: int, **changes: Any) -> Instance:
    powers = [Power.RUNNING, Power.STOPPED, Power.DEALLOCATED]
    one = Instance(
        resource_id=str(scale_set_vm_id(SUB, "rg", "web", str(number))),
        instance_id=str(number),
        name=f"web_{number}",
        kind=InstanceKind.UNIFORM,
        scale_set="web",
        power=powers[number % 3],
        provisioning="Succeeded" if number % 2 else "Failed",
        zone=str(number % 2 + 1),
        size="Standard_D2s_v5",
        location="westus",
        tags={"role": "worker" if number < 5 else "head", "Team": "a"},
    )
    return replace(one, **changes)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet([instance(number) for number in range(9)], link_to(CREDENTIAL))


def numbers(fleet: Fleet) -> list[int]:
    return [int(one.instance_id) for one in fleet]


def test_a_fleet_is_a_sequence_of_instances(fleet: Fleet):
    assert len(fleet) == 9
    assert fleet[0].name == "web_0"
    assert fleet[-1].name == "web_8"
    assert numbers(fleet[2:4]) == [2, 3]
    assert isinstance(fleet[2:4], Fleet)
    assert fleet[1] in fleet
    with pytest.raises(IndexError):
        fleet[9]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"power": "stopped"}, [1, 4, 7]),
        ({"power": Power.RUNNING}, [0, 3, 6]),
        ({"power": "off"}, [1, 2, 4, 5, 7, 8]),
        ({"power": ["running", "STOPPED"]}, [0, 1, 3, 4, 6, 7]),
        ({"power": "stopped", "zone": "1"}, [4]),
        ({"zone": 2}, [1, 3, 5, 7]),
        ({"zone": ["1", 2]}, [*range(9)]),
        ({"name": "web_[12]"}, [1, 2]),
        ({"name": "WEB_3"}, [3]),
        ({"name": ["3", "4"]}, [3, 4]),
        ({"tags": {"role": "head"}}, [5, 6, 7, 8]),
        ({"tags": {"ROLE": "h*", "team": None}}, [5, 6, 7, 8]),
        ({"tags": {"nothing": None}}, []),
        ({"size": "standard_d*"}, [*range(9)]),
        ({"size": "Standard_E*"}, []),
        ({"provisioning": "failed"}, [0, 2, 4, 6, 8]),
        ({"predicate": lambda one: one.power == "running"}, [0, 3, 6]),
        ({}, [*range(9)]),
    ],
)
def test_where_keeps_those_that_pass_all_tests_in_order(fleet: Fleet, choice: Any, expected: Any):
    assert numbers(fleet.where(**choice)) == expected


def test_a_power_state_that_azure_does_not_have_is_refused_with_those_that_it_has(fleet: Fleet):
    with pytest.raises(UsageError, match=r"the power state 'asleep': there is none; .*deallocated"):
        fleet.where(power="asleep")
    with pytest.raises(UsageError, match="cannot call 3"):
        fleet.where(3)  # type: ignore[arg-type]


def test_one_instance_is_had_by_any_of_its_names(fleet: Fleet):
    for name in ("3", "web_3", "WEB_3", fleet[3].resource_id.upper()):
        assert fleet.get(name) == fleet[3]
    with pytest.raises(UsageError, match="this fleet has none"):
        fleet.get("99")
    twin = instance(3, resource_id=str(scale_set_vm_id(SUB, "rg", "api", "3")), name="api_3")
    both = Fleet([*fleet, twin], link_to(CREDENTIAL))
    with pytest.raises(UsageError, match="2 instances have that id"):
        both.get("3")
    assert both.get("api_3") == twin


def test_a_fleet_pickles_and_compares(fleet: Fleet):
    again = pickle.loads(pickle.dumps(fleet))
    assert again == fleet
    assert hash(again) == hash(fleet)
    assert fleet[1:] != fleet


def test_the_table_is_short_for_any_length_and_says_why_one_is_unread():
    odd = instance(3, name="web\x1b[31m_3", unread="gone (404 NotFound)", power=Power.UNKNOWN)
    many = Fleet([odd, *map(instance, range(500))], link_to(CREDENTIAL))
    lines = repr(many).splitlines()
    assert lines[0].startswith("Fleet: 501 instances: 167 running")
    assert lines[-1] == "  and 481 more"
    assert len(lines) == 23
    assert "unread: gone (404 NotFound)" in repr(many)
    assert "\x1b" not in repr(many)
    page = many[:1]._repr_html_()
    assert "<table>" in page
    assert (
        "<script>" not in Fleet([instance(1, name="<script>")], link_to(CREDENTIAL))._repr_html_()
    )
    assert repr(many[:0]) == "Fleet: 0 instances"


@pytest.mark.parametrize("name", ["start", "stop", "restart", "redeploy", "reimage", "delete"])
def test_an_operation_on_nobody_sends_nothing_and_says_so(fleet: Fleet, name: str):
    report = getattr(fleet[:0], name)()
    assert len(report) == 0
    assert report.notes == ("no instance was selected: nothing was sent",)
    report.raise_for_failures()


def test_a_plan_for_nobody_and_an_unknown_operation_are_refused(fleet: Fleet):
    with pytest.raises(UsageError, match="no instance was selected"):
        fleet[:0].plan("start")
    with pytest.raises(UsageError, match="the operation 'dance': there is none"):
        fleet.plan("dance")
    with pytest.raises(UsageError, match="the operation 'dance': there is none"):
        fleet.do("dance")
    assert "nothing is sent" in repr(fleet.plan("start"))


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"timeout_seconds": 0}, UsageError),
        ({"batch": 0}, UsageError),
        ({"wings": 2}, TypeError),
        ({"max_pool_size": -1}, UsageError),
        ({"min_pool_size": 20}, UsageError),
    ],
)
def test_keywords_that_make_no_sense_are_refused_before_anything_is_sent(
    fleet: Fleet, how: Any, error: type[Exception]
):
    with pytest.raises(error):
        fleet.start(**how)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda fleet: fleet.run_script(""), "cannot run an empty script"),
        (lambda fleet: fleet.run_script(" \n"), "cannot run an empty script"),
        (lambda fleet: fleet.run_script("x", timeout_seconds=0), "give more than 0"),
        (lambda fleet: fleet.run_script("x", parameters=["a"]), "give them by name"),
        (
            lambda fleet: fleet.run_script(
                "x", parameters={"a": "1"}, protected_parameters={"a": "2"}
            ),
            "the parameter 'a' twice",
        ),
        (lambda fleet: fleet.run_deployed_command(""), "without its id"),
        (
            lambda fleet: fleet.add_extension("x", publisher="", type="t", version="1"),
            "give its publisher",
        ),
    ],
)
def test_scripts_and_extensions_that_make_no_sense_are_refused(fleet: Fleet, call: Any, words: str):
    with pytest.raises(UsageError) as caught:
        call(fleet)
    assert words in str(caught.value)


def test_what_is_protected_is_kept_apart_and_shown_nowhere():
    plain, secrets = script_arguments("echo", {"a": "1"}, {"b": "s3cret"}, 60, None)
    assert plain == {"script": "echo", "parameters": {"a": "1"}, "timeout_seconds": 60}
    assert "s3cret" not in repr(secrets)
    assert secrets["protected_parameters"]["b"].reveal() == "s3cret"
    plain, secrets = extension_arguments(
        "x", "p", "t", "1", {"a": 1}, {"k": ["s3cret", 2]}, auto_upgrade_minor=True
    )
    assert plain["settings"] == {"a": 1}
    assert "s3cret" not in repr(secrets)
    assert secrets["protected_settings"]["k"][1] == 2


GOOD = str(vm_id(SUB, "rg", "a"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ids": []}, "no ids"),
        ({"ids": GOOD}, "give a list"),
        ({"ids": ["web"]}, "cannot read the resource id 'web'"),
        ({"ids": [GOOD.replace("virtualMachines", "disks")]}, "it is a Microsoft.Compute/disks"),
        ({"ids": [GOOD.replace("virtualMachines", "virtualMachineScaleSets")]}, "Fleet.scale_set"),
        ({"ids": [GOOD], "subscription": SUB}, "give ids alone"),
        ({"ids": [GOOD], "tags": {"a": "b"}}, "give ids alone"),
        ({}, "give ids="),
        ({"subscription": "mine"}, "its id is a GUID"),
        ({"subscription": SUB, "group": "a/b"}, "as a resource group"),
        ({"subscription": SUB, "base_url": "http://127.0.0.1"}, "must be https"),
        ({"subscription": SUB, "ca_file": "/nowhere"}, "no such file"),
        ({"subscription": SUB, "credential": 3}, "cannot use a int as credential"),
    ],
)
def test_machines_that_cannot_be_meant_are_refused_before_anything_is_sent(
    given: dict[str, Any], words: str
):
    with pytest.raises(UsageError) as caught:
        Fleet.vms(**{"credential": CREDENTIAL, **given})
    assert words in str(caught.value)


def test_a_scale_set_that_cannot_be_meant_is_refused():
    for arguments in (("mine", "rg", "web"), (SUB, "a/b", "web"), (SUB, "rg", "a?b")):
        with pytest.raises(UsageError):
            Fleet.scale_set(*arguments, credential=CREDENTIAL)


def test_the_pool_grows_with_the_calls_within_its_bounds():
    options = PoolOptions(min_pool_size=2, max_pool_size=10)
    assert [options.size_for(calls) for calls in (0, 1, 17, 60, 500)] == [2, 2, 3, 8, 10]
    assert PoolOptions(min_pool_size=0, max_pool_size=1).size_for(500) == 1


def test_looking_for_an_autoscaler_needs_one_scale_set(fleet: Fleet):
    with pytest.raises(UsageError, match="not all are of one scale set"):
        fleet[:0].autoscaler()


def test_fleets_load_nothing_of_azure_until_a_node_sends_a_call():
    code = (
        "import sys; from azpool.fleet import Fleet, Power, FleetReport\n"
        "found = [m for m in sys.modules if m.partition('.')[0] in ('azure', 'requests')]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
