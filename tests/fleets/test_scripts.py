"""Scripts on fleets, end to end: they run to their end, and no command is left on a machine."""

from __future__ import annotations

import re
from typing import Any

import pytest
from reached import crew

from azpool.errors import UsageError
from azpool.fleet import FleetInterrupted, FleetProgress
from azpool.report import State
from azpool.testing.arm import Arm, Script

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]


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


def test_commands_that_may_not_be_removed_are_told(arm: Arm):
    fleet = crew(arm, 3, uniform=False)
    arm.run_commands.scripts = lambda *_: Script(0, stdout="hi\n")
    arm.faults.refuse("DELETE", "*/runCommands/*", 403, "AuthorizationFailed", "you may not")
    report = fleet.run_script("work")
    assert [(one.state, one.stdout) for one in report] == [(State.OK, "hi\n")] * 3
    (note,) = report.notes
    assert note.startswith("3 run commands were left, on crew_")
    assert "was not removed (a machine keeps 25 at most): you may not" in note
    assert len({each.name for each in commands(arm)}) == 3


@pytest.mark.parametrize("uniform", [True, False])
def test_a_script_that_is_out_of_time_is_removed_and_that_is_told(arm: Arm, uniform: bool):
    fleet = crew(arm, 3, uniform=uniform)
    arm.run_commands.scripts = lambda *_: Script(0, seconds=36_000)
    report = fleet.run_script("work", whole_timeout_seconds=4)
    for outcome in report:
        assert (outcome.state, outcome.exit_code) == (State.UNKNOWN, None)
        assert "timeout_seconds had passed" in outcome.message
        assert "removed, which ends the script" in outcome.message
    assert commands(arm) == []


@pytest.mark.parametrize("uniform", [True, False])
def test_ctrl_c_removes_more_commands_than_are_sent_at_once(arm: Arm, uniform: bool):
    fleet = crew(arm, 60, uniform=uniform)
    begun: list[str] = []

    def scripts(machine: Any, source: str, parameters: Any) -> Script:
        begun.append(machine.name)
        return Script(0, seconds=36_000)

    def interrupt(progress: FleetProgress) -> None:
        if len(begun) == 60 and not progress.stopping:  # once
            raise KeyboardInterrupt

    arm.run_commands.scripts = scripts
    with pytest.raises(FleetInterrupted) as interrupted:
        fleet.run_script("work", progress=interrupt)
    for outcome in interrupted.value.report:
        assert outcome.state is State.UNKNOWN
        assert "it was interrupted" in outcome.message
        assert "removed, which ends the script" in outcome.message
    assert commands(arm) == []


@pytest.mark.parametrize("uniform", [True, False])
def test_a_script_of_1_mb_runs(arm: Arm, uniform: bool):
    fleet = crew(arm, 3, uniform=uniform)
    script = "echo done\n".ljust(1_000_000, "#")
    came: list[str] = []

    def scripts(machine: Any, source: str, parameters: Any) -> Script:
        came.append(source)
        return Script(0, stdout="done\n")

    arm.run_commands.scripts = scripts
    report = fleet.run_script(script)
    assert [(one.state, one.stdout) for one in report] == [(State.OK, "done\n")] * 3
    assert came == [script] * 3
    assert commands(arm) == []


@pytest.mark.parametrize("uniform", [True, False])
def test_a_script_that_is_too_long_is_refused_before_anything_is_sent(arm: Arm, uniform: bool):
    fleet = crew(arm, 2, uniform=uniform)
    before = len(arm.requests)
    # A line break takes two bytes of JSON: half as many characters as bytes are too long.
    for script in ("#" * 5_000_000, "\n" * 2_200_000 + "true"):
        with pytest.raises(UsageError, match="Azure Resource Manager takes 4,194,304"):
            fleet.run_script(script)
        with pytest.raises(UsageError, match="let the script download"):
            fleet.plan("run_script", script=script)
    hidden = {"key": "s3cret" * 800_000}
    with pytest.raises(UsageError, match="cannot run a script of 4 characters") as error:
        fleet.run_script("true", protected_parameters=hidden)
    assert "s3cret" not in str(error.value)
    assert len(arm.requests) == before


def test_the_longest_script_that_is_not_refused_is_taken(arm: Arm):
    fleet = crew(arm, 1, uniform=False)
    with pytest.raises(UsageError) as error:
        fleet.run_script("#" * 5_000_000)
    told = re.search(r"request has ([\d,]+) bytes", str(error.value))
    assert told is not None
    around = int(told[1].replace(",", "")) - 5_000_000
    most = 4 * 1024 * 1024 - around
    arm.run_commands.scripts = lambda *_: Script(0)
    assert [one.state for one in fleet.run_script("#" * most)] == [State.OK]
    with pytest.raises(UsageError):
        fleet.run_script("#" * (most + 1))
