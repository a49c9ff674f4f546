"""Throttling, Ctrl-C and time that runs out, end to end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from azure.mgmt.compute import ComputeManagementClient
from reached import crew, reach

from azpool import Pool
from azpool.fleet import Fleet, FleetInterrupted, FleetProgress, Phase
from azpool.fleet._gathering import BUNDLE
from azpool.report import State
from azpool.testing.arm import Arm, Limits
from azpool.testing.arm._limits import _Bucket

pytestmark = [pytest.mark.once, pytest.mark.may_leave("processes", "threads", "fds")]


def test_in_a_429_storm_nothing_comes_early_and_all_is_done(arm: Arm):
    fleet = crew(arm, 30, uniform=False, power="stopped")
    with Pool(1) as pool:
        again = Fleet.vms(
            ids=[one.resource_id for one in fleet],
            credential=arm.credential,
            base_url=arm.url,
            ca_file=arm.ca_file,
            pool=pool,
        )
        arm.faults.refuse(
            "POST", "*/start", 429, "TooManyRequests", retry_after="1", share=0.4, seed=7
        )
        report = again.start()
    assert len(report.ok) == 30
    posts = sorted((one for one in arm.requests if one.method == "POST"), key=lambda one: one.at)
    refused = [one for one in posts if one.status == 429]
    assert len(refused) > 10
    for one in refused:
        early = [each for each in posts if one.at < each.at < one.at + 1.0]
        # What had left in the same bundle when the answer came is not early; nothing else comes.
        assert len(early) < BUNDLE, (one, early)
        assert one.path not in {each.path for each in early}
    assert Counter(one.path for one in posts if one.status != 429).most_common(1)[0][1] == 1
    assert [one for one in report if one.attempts > 1]


def test_azure_s_own_buckets_are_learnt_and_kept_within():
    with Arm(speed=600, limits=Limits()) as arm:
        fleet = crew(arm, 230, uniform=False, power="stopped")
        report = fleet.start(wait=False)
        assert len(report.ok) == 230
        posts = [one for one in arm.requests if one.method == "POST"]
        # 200 at once and 10 a second: who knows it is refused next to nothing.
        assert sum(one.status == 429 for one in posts) <= 20
        times = sorted(one.at for one in posts if one.status != 429)
        assert 2 < times[-1] - times[0] < 25


@pytest.fixture
def filled_when_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each bucket gain from its first 429 on: however slow the calls are, one is refused."""
    refill, wait_seconds = _Bucket.refill, _Bucket.wait_seconds
    refused: list[_Bucket] = []

    def later(bucket: _Bucket, now: float) -> None:
        if any(bucket is one for one in refused):
            refill(bucket, now)
        bucket.at = now

    def noted(bucket: _Bucket, amount: float) -> int:
        refused.append(bucket)
        return wait_seconds(bucket, amount)

    monkeypatch.setattr(_Bucket, "refill", later)
    monkeypatch.setattr(_Bucket, "wait_seconds", noted)


@pytest.mark.usefixtures("filled_when_refused")
def test_calls_for_many_wait_for_the_policy_of_batched_requests():
    limits = Limits(buckets={"VMScaleSetBatchedVMRequestsSubscriptionMaximum": (6, 3.0)})
    with Arm(speed=600, limits=limits) as arm:
        for name in ("crew", "other"):
            arm.scale_set(name, 6, power="stopped")
            fleet = Fleet.scale_set(arm.subscription, "workers", name, **reach(arm))
            report = fleet.start()
            assert len(report.ok) == 6, report
        posts = [one for one in arm.requests if one.method == "POST"]
        # All six are spent on the first set: the second asks once, and waits for six more.
        assert [one.status for one in posts] == [202, 429, 202]
        assert posts[1].retry_after is not None
        assert posts[2].at - posts[1].at >= int(posts[1].retry_after)
        assert all(one.budget_seconds >= 1 for one in report)
        assert arm.broken == []


@pytest.mark.usefixtures("filled_when_refused")
def test_set_whose_own_policy_is_used_up_holds_no_other_set_back():
    limits = Limits(buckets={"HighCostGetVMScaleSetResource": (1, 0.15)})
    with Arm(speed=600, limits=limits) as arm:
        ids = []
        for name in ("crew", "other"):
            machines = arm.scale_set(name, 3).machines.values()
            ids += [one.id for one in machines]
        fleet = Fleet.vms(ids=ids, **reach(arm))
        with ComputeManagementClient(
            arm.credential, arm.subscription, **arm.client_options
        ) as client:
            list(client.virtual_machine_scale_set_vms.list("workers", "crew"))
        before = len(arm.requests)
        # One call for each set, and one list of each to see how its machines are.
        report = fleet.restart()
        assert len(report.ok) == 6, report
        lists = [one for one in arm.requests[before:] if one.path.endswith("/virtualMachines")]
        crew = [one for one in lists if "/crew/" in one.path]
        other = [one for one in lists if "/other/" in one.path]
        assert [one.status for one in crew] == [429, 200]
        assert [one.status for one in other] == [200]
        assert crew[1].at - crew[0].at >= int(crew[0].retry_after or 0) >= 1
        assert other[0].at < crew[1].at
        assert arm.broken == []


def test_ctrl_c_tells_what_is_under_way_and_sends_nothing_more(arm: Arm):
    fleet = crew(arm, 30, uniform=False, power="stopped")
    arm.seconds["start"] = 6000
    seen: list[FleetProgress] = []

    def progress(moment: FleetProgress) -> None:
        seen.append(moment)
        if any(one.phase is Phase.UNDER_WAY for one in moment.changed) and not moment.stopping:
            raise KeyboardInterrupt

    with pytest.raises(FleetInterrupted) as caught:
        fleet.start(batch=10, progress=progress)
    report = caught.value.report
    assert len(report) == 30
    counts = Counter(one.state for one in report)
    assert set(counts) == {State.UNKNOWN, State.CANCELLED}
    posts = sum(one.method == "POST" for one in arm.requests)
    assert counts[State.UNKNOWN] == posts <= 10
    assert all("not sent" in one.message for one in report.cancelled)
    assert seen[0].operation == "start"
    assert seen[0].total == 30


def test_progress_tells_of_each_instance_once_that_it_ended(arm: Arm):
    fleet = crew(arm, 20, uniform=False, power="stopped")
    seen: list[FleetProgress] = []
    report = fleet.start(progress=seen.append)
    ended = [one.index for moment in seen for one in moment.ended]
    assert sorted(ended) == [*range(20)]
    phases = {one.phase for moment in seen for one in moment.changed}
    assert {Phase.UNDER_WAY, Phase.ENDED} <= phases
    assert seen[-1].calls >= 40
    assert seen[-1].polls >= 20
    assert len(report.ok) == 20


def test_time_that_runs_out_leaves_nobody_without_an_outcome(arm: Arm):
    fleet = crew(arm, 12, uniform=False, power="stopped")
    arm.seconds["start"] = 60_000
    report = fleet.start(timeout_seconds=4, batch=8)
    assert [one.state for one in report] == [State.UNKNOWN] * 8 + [State.CANCELLED] * 4
    assert "stopped: timeout" in report.notes


def test_a_lost_answer_is_judged_by_the_machine_and_never_sent_again(arm: Arm):
    fleet = crew(arm, 6, uniform=False, power="stopped")
    arm.seconds["start"] = 900  # 1.5 s: the first look finds it under way
    names = [one.name for one in fleet]
    arm.faults.lose("POST", f"*/{names[1]}/start", handled=True)
    arm.faults.lose("POST", f"*/{names[4]}/start", handled=False)
    report: Any = fleet.start()
    told = [one.state for one in report]
    assert told[4] is State.UNKNOWN
    assert [told[n] for n in (0, 1, 2, 3, 5)] == [State.OK] * 5
    posts = Counter(one.path for one in arm.requests if one.method == "POST")
    assert set(posts.values()) == {1}
