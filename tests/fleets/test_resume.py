"""The master is killed in the middle of 200 starts; another process goes on by the journal."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from reached import reach

from azpool.errors import LocalFileError, UsageError
from azpool.fleet import Power, resume
from azpool.fleet._journals import find_journal
from azpool.fleet.fleet import Fleet
from azpool.report import State
from azpool.testing.arm import Arm, Script
from azpool.testing.leaks import processes_marked

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]

MANY = 200
SCRIPTS = 40
SECONDS = 60
SECRET = "s3cret-of-the-script"
MASTER = """
import json, sys
from azpool.fleet import Fleet
from azpool.testing.arm import ArmCredential
where = json.loads(sys.argv[1])
fleet = Fleet.scale_set(
    where["subscription"], "workers", "crew",
    credential=ArmCredential(), base_url=where["url"], ca_file=where["ca_file"],
)
if where["size"]:
    fleet.resize(where["size"], deallocate=True, journal=where["journal"])
elif where["script"]:
    fleet.run_script(
        where["script"], journal=where["journal"], protected_parameters={"key": where["key"]}
    )
else:
    fleet.start(journal=where["journal"], batch=where["batch"])
"""


class KillAt:
    """A rule that refuses nothing, and kills the master as so many requests have come."""

    def __init__(self, count: int, method: str, path: str) -> None:
        self.left, self.method, self.path = count, method, path
        self.master: Future[int] = Future()

    def applies(self, request: Any) -> bool:
        if request.method == self.method and request.path.endswith(self.path):
            self.left -= 1
            if self.left == 0:
                os.kill(self.master.result(SECONDS), signal.SIGKILL)
        return False


def kill_after(
    arm: Arm, journal: str, count: int, batch: int | None = None,
    *, method: str = "POST", path: str = "", script: str = "", size: str = "",
) -> None:  # fmt: skip
    """Let a master start the machines, or run a script, and kill it at the last of some requests.

    What it and its nodes had sent by then has been done when this returns.
    """
    marker = f"AZPOOL_KILLED_{secrets.token_hex(6)}"
    where = {
        "subscription": arm.subscription, "url": arm.url, "ca_file": arm.ca_file,
        "journal": journal, "batch": batch, "script": script, "key": SECRET,
        "size": size,
    }  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": ":".join(sys.path), marker: "1"}
    killing: Any = KillAt(count, method, path)
    arm.faults.rules.append(killing)
    master = subprocess.Popen([sys.executable, "-c", MASTER, json.dumps(where)], env=environ)
    try:
        killing.master.set_result(master.pid)
        assert master.wait(SECONDS) == -signal.SIGKILL
    finally:
        master.kill()
        master.wait()
    arm.faults.rules.remove(killing)
    server: Any = arm._server
    ends = time.monotonic() + SECONDS
    # Its nodes first: one that has calls to send may have no connection yet.
    while [*processes_marked(marker)] or server._open:
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.mark.parametrize(("posts", "batch"), [(1, None), (90, None), (199, None), (60, 50)])
def test_a_killed_master_s_starts_end_well_and_nobody_is_sent_a_second_one(
    arm: Arm, tmp_path: Path, posts: int, batch: int | None
):
    arm.scale_set("crew", MANY, uniform=False, power="stopped")
    # Seconds of real time: what was begun is still under way when the other process comes.
    arm.seconds["start"] = 1800
    journal = str(tmp_path / "journal")
    kill_after(arm, journal, posts, batch)
    report = resume(journal, credential=arm.credential)
    assert len(report) == MANY
    assert {outcome.state for outcome in report} <= {State.OK, State.UNKNOWN}
    starts = Counter(one.path for one in arm.requests if one.method == "POST")
    assert set(starts.values()) == {1}
    # What is told as done was done.
    powers = {one.id.lower(): one.power for one in arm.world.machines.values()}
    assert {powers[one.resource_id.lower()] for one in report.ok} == {Power.RUNNING.value}
    # Unknown is only what had been intended, was not answered, and did not arrive.
    unsent = {key for key, power in powers.items() if power != "running"}
    assert {one.resource_id.lower() for one in report.unknown} <= unsent
    assert os.path.exists(journal) == bool(report.unknown)


def test_a_whole_operation_leaves_no_journal(arm: Arm, tmp_path: Path):
    arm.scale_set("crew", 5, power="stopped")
    reached = reach(arm)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reached)
    journal = str(tmp_path / "journal")
    report = fleet.start(journal=journal)
    assert len(report.ok) == 5
    assert report.journal == ""
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError, match="there is no such journal"):
        resume(journal, credential=arm.credential)


@pytest.mark.parametrize("named", [False, True])
def test_what_ran_out_of_time_is_gone_on_with(
    arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
):
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "state"))
    arm.scale_set("crew", 6, uniform=False, power="stopped")
    arm.seconds["start"] = 60_000
    reached = reach(arm)
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reached)
    journal = str(tmp_path / "journal")
    report = fleet.start(journal=journal if named else True, timeout_seconds=4, batch=4)
    assert [one.state.value for one in report] == ["unknown"] * 4 + ["cancelled"] * 2
    assert named == (report.journal == journal)
    assert named or os.path.dirname(report.journal) == str(tmp_path / "state" / "fleets")
    assert os.stat(report.journal).st_mode & 0o777 == 0o600
    arm.seconds["start"] = 60
    arm.advance(60_000)
    report = resume(journal if named else None, credential=arm.credential)
    assert [one.state for one in report] == [State.OK] * 6
    starts = Counter(one.path for one in arm.requests if one.method == "POST")
    assert set(starts.values()) == {1}
    assert not named or not (tmp_path / "state").exists()
    assert named or os.listdir(tmp_path / "state" / "fleets") == []


def test_a_journal_of_one_s_own_folder_is_named_by_how_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="cannot resume an operation: none was cut short"):
        resume()
    for name in ("ab1", "ab2", "cd"):
        (tmp_path / "fleets").mkdir(exist_ok=True)
        (tmp_path / "fleets" / f"{name}.fleet").touch()
    assert find_journal("c") == str(tmp_path / "fleets" / "cd.fleet")
    assert find_journal(tmp_path / "c") == str(tmp_path / "c")
    with pytest.raises(UsageError, match="cannot resume 'ab': 2 operations begin so; give more"):
        find_journal("ab")
    with pytest.raises(UsageError, match="cannot resume 'x': no operation begins so"):
        resume("x")


def test_a_journal_that_can_not_be_kept_is_told_before_anything_is_sent(
    arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AZPOOL_STATE_HOME", str(tmp_path / "file"))
    arm.scale_set("crew", 2, power="stopped")
    fleet = Fleet.scale_set(arm.subscription, "workers", "crew", **reach(arm))
    with pytest.raises(LocalFileError, match=r"cannot keep a journal in .*: Not a directory; set"):
        fleet.start(journal=True)
    assert not [one for one in arm.requests if one.method == "POST"]


@pytest.mark.parametrize(
    ("uniform", "method", "count"),
    [(True, "PUT", 1), (False, "PUT", 20), (True, "PUT", SCRIPTS), (False, "DELETE", 1),
     (True, "DELETE", 15)],
)  # fmt: skip
def test_a_killed_master_s_scripts_are_read_and_removed_and_none_runs_twice(
    arm: Arm, tmp_path: Path, uniform: bool, method: str, count: int
):
    arm.scale_set("crew", SCRIPTS, uniform=uniform)
    runs: Counter[str] = Counter()

    def scripts(machine: Any, source: str, parameters: Mapping[str, str]) -> Script:
        assert parameters["key"] == SECRET
        runs[machine.name] += 1
        code = int(machine.instance_id or len(machine.name)) % 3
        return Script(code, stdout=f"{machine.name} ran\n", seconds=1200)

    arm.run_commands.scripts = scripts
    journal = str(tmp_path / "journal")
    kill_after(arm, journal, count, method=method, script="work")
    assert SECRET not in Path(journal).read_text()
    report = resume(
        journal, credential=arm.credential, secrets={"protected_parameters": {"key": SECRET}}
    )
    assert len(report) == SCRIPTS
    assert set(runs.values()) == {1}
    removals = Counter(one.path.split("/")[-3] for one in arm.requests if one.method == "DELETE")
    for outcome in report:
        name = outcome.name
        if outcome.state is State.UNKNOWN:
            # It never arrived, or was removed by who had read it and could not put it down; one
            # more removal is this process's own.
            assert name not in runs or removals[outcome.instance_id] == 2
            continue
        number = outcome.instance_id if uniform else len(name)
        assert outcome.exit_code == int(number) % 3, outcome
        assert outcome.stdout == f"{name} ran\n"
        assert (outcome.state is State.OK) == (outcome.exit_code == 0)
    arm.advance(3600)
    sets = arm.world.scale_sets.values()
    machines = [*arm.world.machines.values(), *(m for one in sets for m in one.machines.values())]
    assert [one for machine in machines for one in machine.run_commands] == []


@pytest.mark.parametrize(
    ("method", "path", "count"),
    [("POST", "/deallocate", 6), ("PATCH", "", 1), ("PATCH", "", 12), ("POST", "/start", 1)],
)
def test_a_killed_master_s_resizes_leave_no_machine_stopped_in_silence(
    arm: Arm, tmp_path: Path, method: str, path: str, count: int
):
    arm.scale_set("crew", 12, uniform=False)
    arm.seconds.update(deallocate=900, resize=900, start=900)
    journal = str(tmp_path / "journal")
    kill_after(arm, journal, count, method=method, path=path, size="Standard_D4s_v5")
    report = resume(journal, credential=arm.credential)
    assert len(report) == 12
    sent = Counter((one.method, one.path) for one in arm.requests if one.method in "POST PATCH")
    assert set(sent.values()) == {1}
    found = {one.id.lower(): one for one in arm.world.machines.values()}
    for outcome in report:
        machine = found[outcome.resource_id.lower()]
        if outcome.ok:
            assert (machine.power, machine.size) == ("running", "Standard_D4s_v5")
        else:
            assert outcome.state is State.UNKNOWN
            assert "it ran before and may be left stopped" in outcome.message
