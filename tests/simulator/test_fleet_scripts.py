"""Scripts on fleets, end to end: they run to their end, and no command is left on a machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from azpool import delete_pool
from azpool.fleet import Fleet
from azpool.report import State
from azpool.testing.arm import Arm, Script

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Iterator[None]:
    yield
    delete_pool()


@pytest.fixture
def arm() -> Iterator[Arm]:
    with Arm(speed=600) as arm:
        yield arm
        assert arm.broken == []


def crew(arm: Arm, count: int, *, uniform: bool) -> Fleet:
    arm.scale_set("crew", count, uniform=uniform)
    reach = {"credential": arm.credential, "base_url": arm.url, "ca_file": arm.ca_file}
    return Fleet.scale_set(arm.subscription, "workers", "crew", **reach)


def commands(arm: Arm) -> list[Any]:
    """All run commands on all machines, once what removes them has had its time."""
    arm.advance(3600)
    sets = arm.world.scale_sets.values()
    machines = [*arm.world.machines.values(), *(m for one in sets for m in one.machines.values())]
    with arm.world.lock:
        return [command for machine in machines for command in machine.run_commands.values()]


@pytest.mark.parametrize("uniform", [True, False])
def test_a_script_whose_polls_fail_runs_to_its_end(arm: Arm, uniform: bool):
    fleet = crew(arm, 3, uniform=uniform)
    arm.run_commands.scripts = lambda *_: Script(3, stdout="all of it\n", seconds=1800)
    arm.faults.refuse("GET", "*/operations/*", 503, "ServiceUnavailable", "later")
    report = fleet.run_script("work")
    told = {(one.state, one.exit_code, one.stdout) for one in report}
    assert told == {(State.FAILED, 3, "all of it\n")}
    assert commands(arm) == []


@pytest.mark.parametrize("uniform", [True, False])
def test_a_script_that_is_out_of_time_is_removed_and_that_is_told(arm: Arm, uniform: bool):
    fleet = crew(arm, 3, uniform=uniform)
    arm.run_commands.scripts = lambda *_: Script(0, seconds=36_000)
    report = fleet.run_script("work", whole_timeout_seconds=2)
    for outcome in report:
        assert (outcome.state, outcome.exit_code) == (State.UNKNOWN, None)
        assert "timeout_seconds had passed" in outcome.message
        assert "removed, which ends the script" in outcome.message
    assert commands(arm) == []
