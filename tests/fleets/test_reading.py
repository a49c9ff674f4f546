"""Fleets read from the simulator by the official clients on real nodes."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from reached import reach

from azpool import delete_pool, pool_exists, pool_size
from azpool.errors import FleetError, SomeFailed
from azpool.fleet import Fleet, InstanceKind
from azpool.report import State

if TYPE_CHECKING:
    from azpool.testing.arm import Arm

pytestmark = pytest.mark.may_leave("processes", "threads", "fds")

OTHER = "00000000-0000-0000-0000-00000000b6b6"


@pytest.fixture(scope="module")
def speed() -> float:
    return 60.0


def sent(arm: Arm) -> Counter[str]:
    """How many requests came, by method and the last part of their path."""
    return Counter(f"{one.method} {one.path.rpartition('/')[2].lower()}" for one in arm.requests)


@pytest.mark.parametrize("uniform", [True, False])
def test_a_scale_set_of_either_kind_is_read_in_one_list_with_one_token(arm: Arm, uniform: bool):
    arm.scale_set("crew", 250, uniform=uniform, zones=("1", "2"), tags={"role": "worker"})
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    assert len(fleet) == len({one.key for one in fleet}) == 250
    kind = InstanceKind.UNIFORM if uniform else InstanceKind.FLEXIBLE
    assert {one.kind for one in fleet} == {kind}
    assert {one.scale_set for one in fleet} == {"crew"}
    assert len(fleet.where(power="running")) == 250
    # One read of the set, three pages of a hundred: the origin lost its token after the first.
    assert sent(arm) == {"GET crew": 1, "GET virtualmachines": 3}
    assert {one.status for one in arm.requests} == {200}
    assert arm.credential.requests == 1
    before = len(arm.requests)
    report = fleet.status()
    assert [outcome.state for outcome in report] == [State.OK] * 250
    assert report[0].value["power"] == "running"
    assert report.notes == ("250 running",)
    # One list for all states.
    assert len(arm.requests) - before == 3
    assert arm.credential.requests == 1


def test_a_throttled_page_does_not_make_the_inventory_short(arm: Arm):
    arm.scale_set("crew", 250)
    arm.faults.refuse(
        "GET", "*/crew/virtualmachines", 429, "TooManyRequests", retry_after="1", skip=1, times=1
    )
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    assert len(fleet) == 250
    assert Counter(one.status for one in arm.requests) == {200: 4, 429: 1}


def test_a_list_that_can_t_be_read_to_its_end_is_an_error_and_no_short_list(arm: Arm):
    arm.scale_set("crew", 250)
    arm.faults.refuse("GET", "*/crew/virtualmachines", 403, "AuthorizationFailed", "no", skip=1)
    with pytest.raises(FleetError, match=r"cannot list the instances of 'crew': no \(403 Auth"):
        Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))


def test_a_scale_set_that_is_not_there_is_told(arm: Arm):
    with pytest.raises(FleetError, match="cannot read the scale set 'crew'") as caught:
        Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    assert (caught.value.status, caught.value.code) == (404, "ResourceNotFound")
    assert caught.value.resource_id.endswith("/virtualMachineScaleSets/crew")


def test_machines_are_found_by_group_and_tag_with_their_states(arm: Arm):
    for number in range(6):
        role = "worker" if number < 4 else "head"
        power = "running" if number % 2 else "deallocated"
        arm.vm(f"vm{number}", power=power, tags={"role": role})
    arm.vm("elsewhere", group="others", tags={"role": "worker"})
    fleet = Fleet.vms(arm.subscription, group="workers", tags={"Role": "work*"}, **reach(arm))
    assert [(one.name, one.power.value) for one in fleet] == [
        ("vm0", "deallocated"),
        ("vm1", "running"),
        ("vm2", "deallocated"),
        ("vm3", "running"),
    ]
    assert sent(arm)["GET virtualmachines"] == 2
    everywhere = Fleet.vms(arm.subscription, tags={"role": "worker"}, **reach(arm))
    assert {one.name for one in everywhere} == {"vm0", "vm1", "vm2", "vm3", "elsewhere"}
    assert len(Fleet.vms(arm.subscription, tags={"role": "nobody"}, **reach(arm))) == 0


def test_ids_of_several_subscriptions_and_kinds_each_have_their_answer(arm: Arm):
    here, there = arm.vm("here"), arm.vm("there", subscription=OTHER)
    denied = arm.vm("denied")
    arm.deny(denied.id)
    crew = arm.scale_set("crew", 3)
    member = next(iter(crew.machines.values()))
    ids = [
        here.id.upper(),
        there.id,
        denied.id,
        here.id.replace("here", "nowhere"),
        member.id,
        here.id,
    ]
    fleet = Fleet.vms(ids=ids, **reach(arm))
    # The last is the first once more.
    assert [one.name for one in fleet] == ["here", "there", "denied", "nowhere", "crew_0"]
    assert [bool(one.unread) for one in fleet] == [False, False, True, True, False]
    assert "403 AuthorizationFailed" in fleet[2].unread
    assert "404 ResourceNotFound" in fleet[3].unread
    report = fleet.status()
    assert [outcome.state.value for outcome in report] == ["ok", "ok", "unknown", "unknown", "ok"]
    with pytest.raises(SomeFailed, match="cannot status 2 of 5"):
        report.raise_for_failures()
    assert arm.credential.requests == 1


def test_many_ids_are_read_by_lists_and_the_missing_ones_one_by_one(arm: Arm):
    machines = [arm.vm(f"vm{number}") for number in range(30)]
    ids = [one.id for one in machines]
    gone = ids[7].replace("vm7", "vm77")
    fleet = Fleet.vms(ids=[*ids, gone], **reach(arm))
    assert [one.name for one in fleet if one.unread] == ["vm77"]
    assert sent(arm) == {"GET virtualmachines": 2, "GET vm77": 1}


def test_machines_that_vanish_and_appear_are_told(arm: Arm):
    crew = arm.scale_set("crew", 8)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    part = fleet[:6]
    with arm.world.lock:
        arm.world.remove_machine(crew.machines["2"])
        arm.world.add_instance(crew, power="stopped")
    report = fleet.status()
    assert [outcome.state for outcome in report] == [
        State.UNKNOWN if number == 2 else State.OK for number in range(8)
    ]
    assert "404" in report[2].message
    again = fleet.sync()
    assert [one.instance_id for one in again] == ["0", "1", "3", "4", "5", "6", "7", "8"]
    assert len(fleet) == 8  # a snapshot stays what it was
    # Of a part nobody is silently absent.
    kept = part.sync()
    assert [one.instance_id for one in kept if one.unread] == ["2"]
    assert len(kept) == 6


def test_a_scale_set_that_goes_away_leaves_every_outcome_unknown(arm: Arm):
    crew = arm.scale_set("crew", 6)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    with arm.world.lock:
        arm.world.remove_scale_set(crew)
    report = fleet.status()
    assert [outcome.state for outcome in report] == [State.UNKNOWN] * 6
    with pytest.raises(FleetError, match="404"):
        fleet.sync()


@pytest.mark.parametrize("uniform", [True, False])
def test_addresses_are_lists_and_each_machine_has_its_own(arm: Arm, uniform: bool):
    arm.scale_set("crew", 120, uniform=uniform, public=True)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    before = len(arm.requests)
    report = fleet.ips()
    assert len(report.ok) == 120
    private = [outcome.value["private"] for outcome in report]
    public = [outcome.value["public"] for outcome in report]
    assert {len(one) for one in private} == {len(one) for one in public} == {1}
    assert len({one[0] for one in private}) == len({one[0] for one in public}) == 120
    # Two lists, of the set or of the group, of two pages each.
    assert len(arm.requests) - before == 4
    assert [one["name"] for one in fleet.vnets()] == ["crewVNET"]
    assert [one["name"] for one in fleet.nsgs()] == ["crewNSG"]
    assert [one["name"] for one in fleet.load_balancers()] == ["crewLB"]
    disks = [one.disk_ids[0].lower() for one in fleet[:3]]
    assert [one["id"].lower() for one in fleet[:3].disks()] == disks
    assert len(fleet[:3].nics()) == len(fleet[:3].public_ip_resources()) == 3


def test_addresses_that_may_not_be_read_fail_for_each(arm: Arm):
    crew = arm.scale_set("crew", 5)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    arm.deny(f"{crew.id}/networkInterfaces")
    report = fleet.ips()
    assert [outcome.state for outcome in report] == [State.FAILED] * 5
    assert {(outcome.status, outcome.code) for outcome in report} == {(403, "AuthorizationFailed")}


def test_the_autoscaler_is_found_or_none(arm: Arm):
    crew, other = arm.scale_set("crew", 1), arm.scale_set("other", 1)
    reached = reach(arm)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reached)
    assert fleet.autoscaler() is None
    arm.autoscale(other)
    assert fleet.autoscaler() is None
    arm.autoscale(crew, maximum=7)
    found = fleet.autoscaler()
    assert found["properties"]["targetResourceUri"] == crew.id


def test_a_function_is_mapped_over_the_instances_on_the_nodes(arm: Arm):
    arm.scale_set("crew", 20)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))

    def look(instance):
        if instance.instance_id == "7":
            raise ValueError("seven is odd")
        return instance.name, os.getpid()

    report = fleet.map(look)
    assert [outcome.state for outcome in report].count(State.OK) == 19
    assert isinstance(report[7].error, ValueError)
    assert report[3].value[0] == "crew_3"
    assert os.getpid() not in {outcome.value[1] for outcome in report.ok}
    assert len(report.retry()) == 1


def test_a_fleet_can_be_used_on_a_node(arm: Arm):
    from azpool import pool_lapply

    arm.scale_set("crew", 3)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    counts = pool_lapply([fleet, fleet], lambda one: len(one.status().ok))
    assert counts == [3, 3]
    assert arm.credential.requests == 1


def test_the_pool_is_as_large_as_the_calls_are_many(arm: Arm):
    delete_pool()
    arm.vm("vm0")
    reached = reach(arm, min_pool_size=1, max_pool_size=3)
    ids = [arm.vm(f"vm{number}").id for number in range(1, 4)]
    Fleet.vms(ids=ids, **reached)
    assert pool_size() == 1
    fleet = Fleet.vms(arm.subscription, **reached)
    fleet.map(lambda one: one.name)
    assert pool_size() == 3


def test_serial_makes_no_pool_and_leaves_nothing_open(arm: Arm):
    delete_pool()
    arm.scale_set("crew", 12)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm, max_pool_size=0))
    assert len(fleet.status().ok) == 12
    assert fleet.map(lambda one: os.getpid())[0].value == os.getpid()
    assert not pool_exists()


def test_a_pool_of_one_s_own_is_used(arm: Arm):
    from azpool import Pool

    arm.scale_set("crew", 5)
    with Pool(2) as pool:
        fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm, pool=pool))
        pids = {outcome.value for outcome in fleet.map(lambda one: os.getpid())}
        assert pids <= set(pool.call(os.getpid))


def test_two_subscriptions_are_read_at_once_and_one_s_throttling_is_its_own(arm: Arm):
    here = [arm.vm(f"a{number}") for number in range(6)]
    there = [arm.vm(f"b{number}", subscription=OTHER) for number in range(6)]
    path = f"/subscriptions/{OTHER}/providers/microsoft.compute/virtualmachines"
    arm.faults.refuse("GET", path, 429, "TooManyRequests", retry_after="2", times=2)
    fleet = Fleet.vms(ids=[one.id for one in (*here, *there)], **reach(arm))
    assert [one.unread for one in fleet] == [""] * 12
    ends = {
        name: max(one.at for one in arm.requests if name in one.path.lower())
        for name in (arm.subscription, OTHER)
    }
    assert ends[OTHER] > ends[arm.subscription]
