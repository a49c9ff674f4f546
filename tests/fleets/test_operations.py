"""Operations on whole fleets, end to end: real nodes, the official clients, the simulator.

500 instances of which 37, drawn by seed, fail in 6 ways: every outcome is exact, for each operation
and both kinds of scale set.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from azure.mgmt.compute import ComputeManagementClient
from reached import crew, reach

from azpool import Pool, delete_pool
from azpool.errors import SomeFailed, UsageError
from azpool.fleet import Fleet, Power
from azpool.fleet._gathering import BUNDLE
from azpool.report import State
from azpool.testing.arm import Arm, Script

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]

MANY = 500
FAILING = 37
SEED = 20_260
OTHER = "00000000-0000-0000-0000-00000000b6b6"


def drawn(fleet: Fleet, ways: tuple[str, ...]) -> dict[str, str]:
    """Draw by the seed who fails, and how: each way about as often, in no order."""
    chosen = random.Random(SEED).sample([one.key for one in fleet], FAILING)
    return {key: ways[number % len(ways)] for number, key in enumerate(chosen)}


# How an operation that was begun ends badly: codes of Compute.
CODES = (
    "AllocationFailed",
    "VMStartTimedOut",
    "OSProvisioningTimedOut",
    "InternalExecutionError",
    "NetworkingInternalOperationError",
    "VMAgentStatusCommunicationError",
)
# And how one machine alone is refused.
REFUSED = ("denied", "locked", "busy", "vanished", "AllocationFailed", "VMStartTimedOut")


def break_machines(arm: Arm, fleet: Fleet, kind: str, path: str, failing: dict[str, str]) -> None:
    """Make the world such that each of these fails in its way."""
    by_key = {one.key: one for one in fleet}
    for key, way in failing.items():
        one = by_key[key]
        if way == "denied":
            arm.deny(one.resource_id)
        elif way == "locked":
            arm.lock(one.resource_id)
        elif way == "busy":
            arm.faults.refuse("*", f"{key}{path}", 409, "OperationNotAllowed", "it is busy")
        elif way == "vanished":
            with arm.world.lock:
                arm.world.remove_machine(arm.world.machines[key])
        else:
            arm.faults.fail(kind, way, f"{way} happened", only=[one.resource_id])


EXPECTED = {
    "denied": (State.FAILED, 403, "AuthorizationFailed"),
    "locked": (State.FAILED, 409, "ScopeLocked"),
    "busy": (State.FAILED, 409, "OperationNotAllowed"),
}

# The fleet's method, the simulator's kind of operation, the path of its call, and the power that
# machines have before and after.
OPERATIONS = (
    ("start", "start", "/start", "stopped", Power.RUNNING),
    ("stop", "deallocate", "/deallocate", "running", Power.DEALLOCATED),
    ("restart", "restart", "/restart", "running", Power.RUNNING),
    ("redeploy", "redeploy", "/redeploy", "running", Power.RUNNING),
    ("reimage", "reimage", "/reimage", "running", Power.RUNNING),
    ("delete", "delete", "", "running", None),
)


@pytest.mark.parametrize(("name", "kind", "path", "before", "after"), OPERATIONS)
def test_500_flexible_machines_37_failing_in_6_ways_each_have_their_exact_outcome(
    arm: Arm, name: str, kind: str, path: str, before: str, after: Power | None
):
    fleet = crew(arm, MANY, uniform=False, power=before)
    failing = drawn(fleet, REFUSED)
    break_machines(arm, fleet, kind, path, failing)
    report = getattr(fleet, name)()
    assert len(report) == MANY
    for index, (one, outcome) in enumerate(zip(fleet, report, strict=True)):
        assert (outcome.index, outcome.resource_id) == (index, one.resource_id)
        way = failing.get(one.key)
        told = (outcome.state, outcome.status, outcome.code)
        if way is None:
            assert outcome.state is State.OK, outcome
            assert outcome.error is None
        elif way in EXPECTED:
            assert told == EXPECTED[way], outcome
        elif way == "vanished":
            gone_is_done = name == "delete"
            assert outcome.state is (State.OK if gone_is_done else State.UNKNOWN), outcome
        else:
            assert (outcome.state, outcome.code) == (State.FAILED, way), outcome
            assert f"{way} happened" in outcome.message
        assert outcome.operation == name
    # Nobody was asked twice, and one token was enough for all.
    changes = Counter(one.path for one in arm.requests if one.method in ("POST", "DELETE"))
    assert set(changes.values()) == {1}
    assert arm.credential.requests == 1
    with pytest.raises(SomeFailed, match=r"of 500: "):
        report.raise_for_failures()
    if after is not None:
        well = {one.resource_id for one in report.ok}
        assert {one.power for one in fleet.sync() if one.resource_id in well} == {after}


@pytest.mark.parametrize(("name", "kind", "path", "before", "after"), OPERATIONS)
def test_500_uniform_machines_37_failing_in_6_ways_each_have_their_exact_outcome(
    arm: Arm, name: str, kind: str, path: str, before: str, after: Power | None
):
    fleet = crew(arm, MANY, uniform=True, power=before)
    failing = drawn(fleet, CODES)
    break_machines(arm, fleet, kind, path, failing)
    report = getattr(fleet, name)()
    for one, outcome in zip(fleet, report, strict=True):
        assert outcome.resource_id == one.resource_id
        way = failing.get(one.key)
        assert outcome.state is (State.OK if way is None else State.FAILED), (way, outcome)
        if way is not None:
            assert outcome.code == way, outcome
    # One call for all of them.
    changes = [one for one in arm.requests if one.method in ("POST", "DELETE")]
    assert len(changes) == 1
    assert arm.credential.requests == 1
    if after is not None:
        well = {one.resource_id for one in report.ok}
        assert {one.power for one in fleet.sync() if one.resource_id in well} == {after}


@pytest.mark.parametrize("uniform", [True, False])
def test_a_script_on_500_machines_37_failing_in_6_ways(arm: Arm, uniform: bool):
    fleet = crew(arm, MANY, uniform=uniform)
    ways = ("denied", "locked", "exit 3", "killed", "busy", "VMAgentStatusCommunicationError")
    failing = drawn(fleet, ways)
    by_name = {one.name: failing.get(one.key) for one in fleet}

    def scripts(machine, source, parameters):
        way = by_name[machine.name]
        if way == "exit 3":
            return Script(exit_code=3, stdout="half\n", stderr="no disk\n")
        if way == "killed":
            return Script(exit_code=137, stderr="Killed\n")
        return Script(0, stdout=f"{machine.name} ran {source}\n")

    arm.run_commands.scripts = scripts
    scripts_fail = {key: way for key, way in failing.items() if way not in ("exit 3", "killed")}
    break_machines(arm, fleet, "runCommand", "/runcommands/*", scripts_fail)
    report = fleet.run_script("uptime", timeout_seconds=300)
    for one, outcome in zip(fleet, report, strict=True):
        way = failing.get(one.key)
        told = (outcome.state, outcome.exit_code, outcome.stdout, outcome.stderr)
        if way is None:
            assert told == (State.OK, 0, f"{one.name} ran uptime\n", ""), outcome
        elif way == "exit 3":
            assert told == (State.FAILED, 3, "half\n", "no disk\n"), outcome
        elif way == "killed":
            assert told == (State.FAILED, 137, "", "Killed\n"), outcome
        elif way in EXPECTED:
            assert (outcome.state, outcome.status, outcome.code) == EXPECTED[way], outcome
        else:
            assert outcome.state is not State.OK, outcome
        assert not outcome.truncated
    # Names of its own, removed after reading, but where they can't be.
    arm.advance(3600)
    left = [
        one for machine in machines(arm) for one in machine.run_commands
        if machine.id.lower() not in failing
    ]  # fmt: skip
    assert left == []
    assert arm.credential.requests == 1


def machines(arm: Arm) -> list[Any]:
    """All simulated machines."""
    sets = arm.world.scale_sets.values()
    return [*arm.world.machines.values(), *(one for each in sets for one in each.machines.values())]


def test_a_fleet_of_two_subscriptions_one_throttled_leaves_the_other_at_full_speed(arm: Arm):
    here = [arm.vm(f"a{number}", power="stopped").id for number in range(20)]
    there = [arm.vm(f"b{number}", power="stopped", subscription=OTHER).id for number in range(20)]
    # Azure names the subscription's bucket by Retry-After alone: all of its writes wait.
    arm.faults.refuse(
        "POST", f"/subscriptions/{OTHER}/*/start", 429, "TooManyRequests", retry_after="3", times=1
    )
    mixed = [each for pair in zip(here, there, strict=True) for each in pair]
    with Pool(1) as pool:  # one bundle after the other: the first tells what holds for the rest
        report = Fleet.vms(ids=mixed, **reach(arm, pool=pool)).start(wait=False)
    assert len(report.ok) == 40
    posts = sorted((one for one in arm.requests if one.method == "POST"), key=lambda one: one.at)
    assert len(posts) == 41
    (refused,) = [one for one in posts[:BUNDLE] if one.status == 429]
    rest = posts[BUNDLE:]
    own = sum(arm.subscription in one.path for one in rest)
    # All of this subscription's go out before the first of the other's, which waits.
    assert all(arm.subscription in one.path for one in rest[:own])
    assert all(OTHER in one.path for one in rest[own:])
    assert rest[own].at - refused.at >= 3
    assert arm.credential.requests == 1


def test_one_failure_loses_no_result_and_retry_does_the_rest(arm: Arm):
    fleet = crew(arm, 12, uniform=False, power="stopped")
    name = fleet[5].name
    arm.faults.refuse("POST", f"*/{name}/start", 409, "Conflict", "busy", times=1)
    report = fleet.start()
    assert [outcome.name for outcome in report.failed] == [name]
    assert len(report.ok) == 11
    again = report.retry()
    assert [(outcome.name, outcome.state) for outcome in again] == [(name, State.OK)]


@pytest.mark.parametrize("deallocate", [True, False])
def test_stop_waits_until_the_machines_have_stopped(arm: Arm, deallocate: bool):
    # The origin's stop(wait=TRUE) called a function that does not exist.
    fleet = crew(arm, 6, uniform=True)
    report = fleet.stop(deallocate=deallocate)
    assert len(report.ok) == 6
    power = Power.DEALLOCATED if deallocate else Power.STOPPED
    assert {one.power for one in fleet.sync()} == {power}


def test_the_output_of_a_script_is_waited_for(arm: Arm):
    # The origin never polled for it.
    fleet = crew(arm, 3, uniform=True)
    report = fleet.run_script(
        "echo $GREETING", parameters={"GREETING": "hello"}, timeout_seconds=60
    )
    assert [(one.exit_code, one.stdout) for one in report] == [(0, "hello\n")] * 3


@pytest.mark.parametrize("uniform", [True, False])
def test_an_extension_reaches_the_instances_under_a_manual_policy(arm: Arm, uniform: bool):
    # The origin's never did.
    fleet = crew(arm, 4, uniform=uniform)
    report = fleet.add_extension(
        "script", publisher="Microsoft.Azure.Extensions", type="CustomScript", version="2.1",
        settings={"commandToExecute": "true"},
    )  # fmt: skip
    assert len(report.ok) == 4, report
    for machine in machines(arm):
        assert [name.lower() for name in machine.extensions] == ["script"]


def test_serial_does_the_same_without_a_pool(arm: Arm):
    from azpool import pool_exists

    delete_pool()
    arm.scale_set("crew", 5, power="stopped")
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm, max_pool_size=0))
    assert len(fleet.start().ok) == 5
    assert not pool_exists()


def test_max_failures_begins_nothing_new(arm: Arm):
    fleet = crew(arm, 60, uniform=False, power="stopped")
    arm.faults.refuse("POST", "*/start", 403, "AuthorizationFailed", "no")
    report = fleet.start(batch=5, max_failures="10%")
    assert len(report.failed) + len(report.skipped) == 60
    assert 6 <= len(report.failed) <= 16
    posts = [one for one in arm.requests if one.method == "POST"]
    assert len(posts) == len(report.failed)


@pytest.mark.parametrize("uniform", [True, False])
def test_a_scale_set_that_is_being_deleted_refuses_each(arm: Arm, uniform: bool):
    fleet = crew(arm, 5, uniform=uniform)
    arm.seconds["delete"] = 1_000_000
    with ComputeManagementClient(arm.credential, arm.subscription, **arm.client_options) as client:
        client.virtual_machine_scale_sets.begin_delete("workers", "crew", polling=False)
    report = fleet.restart()
    told = {(one.state, one.status, one.code) for one in report}
    assert told == {(State.FAILED, 409, "OperationNotAllowed")}
    assert all("marked for deletion" in one.message for one in report)


def test_any_operation_of_the_client_is_mapped_over_the_machines(arm: Arm):
    fleet = crew(arm, 3, uniform=False)
    assert len(fleet.do("reapply").ok) == 3
    paths = [one.path.rpartition("/")[2].lower() for one in arm.requests if one.method == "POST"]
    assert paths == ["reapply"] * 3


def test_instances_are_brought_to_their_set_s_model(arm: Arm):
    fleet = crew(arm, 4, uniform=True)
    assert len(fleet[:3].do("update_instances").ok) == 3
    (post,) = [one for one in arm.requests if one.method == "POST"]
    assert post.path.rpartition("/")[2].lower() == "manualupgrade"
    arm.vm("alone")
    alone = Fleet.vms(arm.subscription, group="workers", **reach(arm))
    with pytest.raises(UsageError, match="no such operation for virtual machines"):
        alone.do("update_instances")


def test_machines_get_another_size(arm: Arm):
    fleet = crew(arm, 2, uniform=False)
    report = fleet.resize("Standard_D4s_v5", deallocate=True)
    assert len(report.ok) == 2, report
    again = fleet.sync()
    assert {(one.size, one.power) for one in again} == {("Standard_D4s_v5", Power.RUNNING)}


def test_a_deployed_command_runs_and_its_output_is_had(arm: Arm):
    fleet = crew(arm, 2, uniform=True)
    report = fleet.run_deployed_command("RunShellScript", parameters={"a": "1"})
    assert [(one.state, one.exit_code) for one in report] == [(State.OK, None)] * 2, report
    assert all(one.truncated for one in report)
